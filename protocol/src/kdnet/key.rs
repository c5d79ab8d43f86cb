//! The key a user types, `w.x.y.z`, and what is derived from it.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::crypto::Cipher;

/// Characters one part of a key may have: 36^13 is above 2^64, so a longer part is a typing error.
const MAX_PART_LEN: usize = 13;

/// The debug key that target and host share: four base-36 numbers of up to 64 bits, `w.x.y.z`.
///
/// Never printed: `Debug` writes `Key(..)`, and the bytes are wiped on drop. Source: PROTOCOL.md 2.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Key([u8; 32]);

/// What is wrong with a typed key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// Not four parts.
    #[error(
        "a KDNET key has four parts separated by dots, like 1.2.3.4; this one has {0}. \
         Copy it from `bcdedit /dbgsettings` on the target"
    )]
    PartCount(usize),
    /// A part with nothing in it.
    #[error("part {0} of the key is empty; a key is four numbers, like 1.2.3.4")]
    EmptyPart(usize),
    /// A character that base 36 does not have. Which one it is would be a part of the key.
    #[error("character {place} of part {part} of the key is none of 0-9 and a-z")]
    BadCharacter {
        /// Which part, from 1.
        part: usize,
        /// Which of its characters, from 1.
        place: usize,
    },
    /// A number above 2^64 - 1.
    #[error(
        "part {0} of the key is too large; each part is a base-36 number below 2^64 (at most 13 characters)"
    )]
    TooLarge(usize),
    /// All four numbers are zero, which no target accepts.
    #[error("the key 0.0.0.0 is refused by Windows; use another on both sides")]
    AllZero,
}

impl Key {
    /// The key whose control key (four little-endian numbers) is `bytes`.
    #[must_use]
    pub const fn from_control_key(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes that open the control channel. Microsoft's name: target debug key.
    #[must_use]
    pub const fn control_key(&self) -> &[u8; 32] {
        &self.0
    }

    /// The 32 bytes that authenticate both channels: the control key, each bit inverted.
    #[must_use]
    pub fn hmac_key(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.map(|byte| !byte))
    }

    /// The cipher of the control channel, for the whole life of the target.
    #[must_use]
    pub fn control_cipher(&self) -> Cipher {
        Cipher::new(&self.0, &self.hmac_key())
    }

    /// The cipher of the data channel after a response whose plaintext body was `response_body`.
    ///
    /// Data key = SHA-256(control key, response body). Source: PROTOCOL.md 4.
    #[must_use]
    pub fn data_cipher(&self, response_body: &[u8]) -> Cipher {
        Cipher::new(&self.data_key(response_body), &self.hmac_key())
    }

    /// The data key itself, for known-answer tests.
    #[must_use]
    pub fn data_key(&self, response_body: &[u8]) -> Zeroizing<[u8; 32]> {
        let digest = Sha256::new().chain_update(self.0).chain_update(response_body).finalize();
        Zeroizing::new(digest.into())
    }
}

impl FromStr for Key {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let parts: Vec<&str> = text.split('.').collect();
        if parts.len() != 4 {
            return Err(KeyError::PartCount(if text.is_empty() { 0 } else { parts.len() }));
        }
        let mut bytes = Zeroizing::new([0; 32]);
        for (index, part) in parts.iter().enumerate() {
            bytes[index * 8..][..8].copy_from_slice(&parse_part(part, index + 1)?.to_le_bytes());
        }
        if *bytes == [0; 32] {
            return Err(KeyError::AllZero);
        }
        Ok(Self(*bytes))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

fn parse_part(text: &str, part: usize) -> Result<u64, KeyError> {
    if text.is_empty() {
        return Err(KeyError::EmptyPart(part));
    }
    // A sign is legal for from_str_radix but not in a key, so characters are checked first.
    if let Some(before) = text.chars().position(|c| !c.is_ascii_alphanumeric()) {
        return Err(KeyError::BadCharacter { part, place: before + 1 });
    }
    if text.len() > MAX_PART_LEN {
        return Err(KeyError::TooLarge(part));
    }
    u64::from_str_radix(text, 36).map_err(|_| KeyError::TooLarge(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_key_says_what_is_wrong_with_it() {
        let error = |text: &str| text.parse::<Key>().unwrap_err();
        assert_eq!(error("1.2.3"), KeyError::PartCount(3));
        assert_eq!(error("1.2.3.4.5"), KeyError::PartCount(5));
        assert_eq!(error(""), KeyError::PartCount(0));
        assert_eq!(error("1..3.4"), KeyError::EmptyPart(2));
        assert_eq!(error("1.2.3.-4"), KeyError::BadCharacter { part: 4, place: 1 });
        assert_eq!(error("+1.2.3.4"), KeyError::BadCharacter { part: 1, place: 1 });
        assert_eq!(
            error("1.2.3w5e11264sgsg.4"),
            KeyError::TooLarge(3),
            "2^64 in base 36, with a zero's worth more"
        );
        assert_eq!(error("1.2.3.00000000000001"), KeyError::TooLarge(4), "14 characters");
        assert_eq!(error("0.0.0.0"), KeyError::AllZero);
    }

    #[test]
    fn upper_case_letters_mean_the_same() {
        assert_eq!("aZ.2.3.4".parse::<Key>(), "Az.2.3.4".parse::<Key>());
    }

    #[test]
    fn a_key_is_never_printed() {
        let key: Key = "8.8.8.8".parse().unwrap();
        assert_eq!(format!("{key:?}"), "Key(..)");
        let ciphers = format!("{:?} {:#?}", key.control_cipher(), key.data_cipher(b"response"));
        assert_eq!(ciphers, "Cipher(..) Cipher(..)");
    }

    #[test]
    fn whatever_holds_a_key_is_wiped_on_drop() {
        const fn is_wiped<T: ZeroizeOnDrop>() {}
        is_wiped::<Key>();
        is_wiped::<Zeroizing<[u8; 32]>>();
        is_wiped::<aes::Aes256>();
        is_wiped::<Sha256>();
        is_wiped::<cbc::Decryptor<aes::Aes256>>();
        is_wiped::<cbc::Encryptor<aes::Aes256>>();
    }
}
