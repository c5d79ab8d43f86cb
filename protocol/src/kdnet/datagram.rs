//! One KDNET datagram: clear header, inner header, body, tag.

use bytes::Bytes;

use super::crypto::{Cipher, TAG_LEN};
use crate::wire::{Reader, Writer};

/// `MDBG`.
const SIGNATURE: [u8; 4] = *b"MDBG";
/// Signature, version and flags: not encrypted.
const HEADER_LEN: usize = 6;
/// Sequence, direction and padding length: the first encrypted bytes.
const INNER_HEADER_LEN: usize = 8;
/// AES block; the plaintext is a multiple of it.
const BLOCK_LEN: usize = 16;
/// A machine id at the end of the plaintext, which a datagram with [`Flags::CLEAR_TAIL`] leaves unencrypted.
const CLEAR_TAIL_LEN: usize = 32;
/// The largest UDP payload; a sender cannot exceed it.
const MAX_DATAGRAM_LEN: usize = 65_507;

/// The smallest legal datagram: an empty control message or a break-in, 38 bytes.
pub const MIN_DATAGRAM_LEN: usize = HEADER_LEN + BLOCK_LEN + TAG_LEN;

/// Which key encrypts a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Channel {
    /// Offers and responses, under the key that the user typed.
    Control,
    /// KD packets, under a session's data key.
    Data,
}

/// Who sent a datagram: bit 0x80 of the inner header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the debugged machine.
    TargetToHost,
    /// From the debugger.
    HostToTarget,
}

bitflags::bitflags! {
    /// The flags byte of the clear header. Unknown bits survive.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Flags: u8 {
        /// Control channel: encrypted with the control key.
        const CONTROL = 1;
        /// The sender is stopped in its debugger. On offers of targets that say so.
        const IN_DEBUGGER = 2;
        /// The last 32 plaintext bytes are not encrypted. \[uncertain: which targets send it\]
        const CLEAR_TAIL = 4;
        const _ = !0;
    }
}

/// Why a datagram was dropped: anyone can send anything, so this is never our error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum DatagramError {
    /// Too short, or not whole blocks, or longer than UDP carries.
    #[error("{0} bytes cannot be a KDNET datagram")]
    Length(usize),
    /// Does not begin with `MDBG`.
    #[error("does not begin with MDBG")]
    Signature,
    /// The tag does not fit: another key, damage, or an older session's datagram.
    #[error("does not authenticate: another key, a damaged datagram, or one of an older session")]
    NotAuthentic,
    /// The padding is longer than the body.
    #[error("says it has more padding than content")]
    Padding,
    /// Sent by our own side, looped back.
    #[error("was sent by this side of the link")]
    OwnDirection,
    /// Its sequence was seen already.
    #[error("is a replay: its sequence was seen before")]
    Replayed,
    /// No data key has been agreed yet.
    #[error("is for a session that this side has no key for")]
    NoSession,
    /// From another machine than the one this link is with.
    #[error("comes from another machine than the target")]
    WrongPeer,
    /// Authentic, and an offer that is too short to be answered.
    #[error("is an authentic offer of KDNET version {version} that is too short to be answered: {len} bytes")]
    ShortOffer {
        /// The version byte of the datagram.
        version: u8,
        /// Bytes of the offer.
        len: usize,
    },
    /// From the target's address, but another machine than the target, which is there: it has the same key.
    #[error("comes from a second machine with the same key behind the target's address")]
    SecondTarget,
    /// Authentic, but its content is not what this channel carries.
    #[error("is authentic but makes no sense: {0}")]
    Malformed(#[from] crate::wire::DecodeError),
}

/// A datagram's shape, checked without a key: what a wire tap can know.
#[derive(Clone, Copy, Debug)]
pub struct Envelope<'a> {
    /// KDNET version of the sender: 2 (Windows 8.1), 4 (10 1511), 5 (10 2004).
    pub version: u8,
    /// Channel and status bits.
    pub flags: Flags,
    header: &'a [u8; HEADER_LEN],
    ciphertext: &'a [u8],
    tag: &'a [u8; TAG_LEN],
}

impl<'a> Envelope<'a> {
    /// Checks signature and length.
    ///
    /// # Errors
    /// [`DatagramError::Length`] or [`DatagramError::Signature`].
    pub fn parse(datagram: &'a [u8]) -> Result<Self, DatagramError> {
        let wrong_length = DatagramError::Length(datagram.len());
        if datagram.len() > MAX_DATAGRAM_LEN {
            return Err(wrong_length);
        }
        let (header, rest) = datagram.split_first_chunk::<HEADER_LEN>().ok_or(wrong_length)?;
        if header[..4] != SIGNATURE {
            return Err(DatagramError::Signature);
        }
        let (ciphertext, tag) = rest.split_last_chunk::<TAG_LEN>().ok_or(wrong_length)?;
        if ciphertext.is_empty() || ciphertext.len() % BLOCK_LEN != 0 {
            return Err(wrong_length);
        }
        Ok(Self { version: header[4], flags: Flags::from_bits_retain(header[5]), header, ciphertext, tag })
    }

    /// Which key opens it.
    #[must_use]
    pub const fn channel(&self) -> Channel {
        if self.flags.contains(Flags::CONTROL) { Channel::Control } else { Channel::Data }
    }

    /// Decrypts and authenticates.
    ///
    /// # Errors
    /// [`DatagramError::NotAuthentic`] under another key, [`DatagramError::Padding`] if the inner header lies.
    pub fn open(&self, cipher: &Cipher) -> Result<Datagram, DatagramError> {
        let mut plaintext = self.ciphertext.to_vec();
        let mut authentic = cipher.open(self.header, &mut plaintext, 0, self.tag);
        if !authentic && self.flags.contains(Flags::CLEAR_TAIL) && plaintext.len() > CLEAR_TAIL_LEN {
            // Which targets leave the tail clear is uncertain, so the tag decides.
            plaintext.copy_from_slice(self.ciphertext);
            authentic = cipher.open(self.header, &mut plaintext, CLEAR_TAIL_LEN, self.tag);
        }
        if !authentic {
            return Err(DatagramError::NotAuthentic);
        }
        let mut reader = Reader::new("KDNET inner header", &plaintext);
        let inner = reader.u64_be()?;
        let padding = (inner & 0xf) as usize;
        let body_len = reader.left().checked_sub(padding).ok_or(DatagramError::Padding)?;
        plaintext.truncate(INNER_HEADER_LEN + body_len);
        Ok(Datagram {
            version: self.version,
            flags: self.flags,
            direction: if inner & 0x80 == 0 { Direction::TargetToHost } else { Direction::HostToTarget },
            sequence: inner >> 8,
            body: Bytes::from(plaintext).split_off(INNER_HEADER_LEN),
        })
    }
}

/// An authenticated datagram.
///
/// | offset | size | field     | meaning                                                  |
/// |-------:|-----:|-----------|----------------------------------------------------------|
/// |      0 |    4 | signature | `MDBG`                                                   |
/// |      4 |    1 | version   | the host echoes the target's                             |
/// |      5 |    1 | flags     | bit 0: control channel                                   |
/// |      6 |    8 | inner     | big-endian: sequence << 8, 0x80 if from host, pad length |
/// |     14 |    n | body      | control message, KD packet, break-in or ping             |
/// |        |      | padding   | zeros, to a multiple of 16 from offset 6                 |
/// | end-16 |   16 | tag       | HMAC-SHA256 of clear header and plaintext, truncated     |
///
/// Source: PROTOCOL.md 3; 955 of 955 captured datagrams re-encode to the same bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// KDNET version of the sender.
    pub version: u8,
    /// Channel and status bits. A host must send exactly 0 or [`Flags::CONTROL`].
    pub flags: Flags,
    /// Who sent it.
    pub direction: Direction,
    /// 56 bits. Data channel: counts from 1 for each side and key. Control channel: the target's offer timer.
    pub sequence: u64,
    /// What it carries.
    pub body: Bytes,
}

impl Datagram {
    /// Which key seals it.
    #[must_use]
    pub const fn channel(&self) -> Channel {
        if self.flags.contains(Flags::CONTROL) { Channel::Control } else { Channel::Data }
    }

    /// Encrypts and authenticates into the bytes to send. Deterministic: the same datagram gives the same bytes.
    #[must_use]
    pub fn seal(&self, cipher: &Cipher) -> Vec<u8> {
        let content = INNER_HEADER_LEN + self.body.len();
        let padding = content.next_multiple_of(BLOCK_LEN) - content;
        let direction = match self.direction {
            Direction::TargetToHost => 0,
            Direction::HostToTarget => 0x80,
        };
        let mut out = Vec::with_capacity(HEADER_LEN + content + padding + TAG_LEN);
        Writer::new(&mut out)
            .bytes(&SIGNATURE)
            .u8(self.version)
            .u8(self.flags.bits())
            .u64_be(self.sequence << 8 | direction | padding as u64)
            .bytes(&self.body)
            .bytes(&[0; BLOCK_LEN][..padding]);
        let (header, plaintext) = out.split_at_mut(HEADER_LEN);
        // Without room for a machine id there is none to leave clear: it would be the body itself.
        let has_clear_tail = self.flags.contains(Flags::CLEAR_TAIL) && plaintext.len() > CLEAR_TAIL_LEN;
        let clear_tail = if has_clear_tail { CLEAR_TAIL_LEN } else { 0 };
        let tag = cipher.seal(header, plaintext, clear_tail);
        out.extend_from_slice(&tag);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kdnet::Key;

    fn cipher() -> Cipher {
        "1.2.3.4".parse::<Key>().unwrap().control_cipher()
    }

    fn offer_like(flags: Flags) -> Datagram {
        let body = Bytes::from((0..90).collect::<Vec<u8>>());
        Datagram { version: 5, flags, direction: Direction::TargetToHost, sequence: 77, body }
    }

    #[test]
    fn a_datagram_whose_tail_is_clear_opens_too() {
        let sent = offer_like(Flags::CONTROL | Flags::CLEAR_TAIL);
        let sealed = sent.seal(&cipher());
        assert_eq!(sealed[sealed.len() - 16 - 6..][..6], [0; 6], "zero padding stays readable");
        assert_eq!(Envelope::parse(&sealed).unwrap().open(&cipher()).unwrap(), sent);
    }

    #[test]
    fn a_datagram_too_short_for_a_clear_tail_is_encrypted_whole() {
        let body = Bytes::from_static(b"secret");
        let sent = Datagram { body, ..offer_like(Flags::CLEAR_TAIL) };
        let sealed = sent.seal(&cipher());
        assert!(!sealed.windows(6).any(|window| window == b"secret"));
        assert_eq!(Envelope::parse(&sealed).unwrap().open(&cipher()).unwrap(), sent);
    }

    #[test]
    fn a_fully_encrypted_datagram_with_the_tail_bit_opens_as_well() {
        let sent = offer_like(Flags::CONTROL);
        let mut plain = sent.seal(&cipher());
        plain.truncate(HEADER_LEN);
        plain[5] |= 4;
        let mut text = (77_u64 << 8 | 14).to_be_bytes().to_vec();
        text.extend_from_slice(&sent.body);
        text.resize(112, 0);
        let tag = cipher().seal(&plain.clone(), &mut text, 0);
        plain.extend_from_slice(&text);
        plain.extend_from_slice(&tag);
        assert_eq!(Envelope::parse(&plain).unwrap().open(&cipher()).unwrap().body, sent.body);
    }

    #[test]
    fn what_is_not_kdnet_is_told_apart_from_what_does_not_authenticate() {
        let parse = |bytes: &[u8]| Envelope::parse(bytes).map(|_| ()).unwrap_err();
        assert_eq!(parse(b""), DatagramError::Length(0));
        assert_eq!(parse(&[0; 38]), DatagramError::Signature);
        assert_eq!(parse(&b"MDBG\x05\x00".repeat(4)), DatagramError::Length(24));
        let mut sealed = offer_like(Flags::CONTROL).seal(&cipher());
        sealed[20] ^= 1;
        let opened = Envelope::parse(&sealed).unwrap().open(&cipher());
        assert_eq!(opened, Err(DatagramError::NotAuthentic));
    }
}
