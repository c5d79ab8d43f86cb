//! AES-256-CBC and truncated HMAC-SHA256 as KDNET combines them: MAC first, and the MAC is the IV.

use std::fmt;

use aes::Aes256;
use aes::cipher::block_padding::NoPadding;
use aes::cipher::{BlockModeDecrypt, BlockModeEncrypt, InnerIvInit, KeyInit};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

/// Bytes of the tag that ends a datagram.
pub(super) const TAG_LEN: usize = 16;

/// The keys of one channel, expanded once: seals and opens any number of datagrams.
///
/// Never printed: `Debug` writes `Cipher(..)`. Key schedules are wiped on drop.
#[derive(Clone)]
pub struct Cipher {
    aes: Aes256,
    hmac: Hmac<Sha256>,
}

impl Cipher {
    pub(super) fn new(aes_key: &[u8; 32], hmac_key: &[u8; 32]) -> Self {
        Self {
            aes: Aes256::new(aes_key.into()),
            hmac: <Hmac<Sha256> as KeyInit>::new_from_slice(hmac_key).expect("HMAC takes any key length"),
        }
    }

    /// The first 16 bytes of HMAC-SHA256 over the clear header and the plaintext.
    fn tag(&self, header: &[u8], plaintext: &[u8]) -> [u8; TAG_LEN] {
        let mut mac = self.hmac.clone();
        mac.update(header);
        mac.update(plaintext);
        let full: [u8; 32] = mac.finalize().into_bytes().into();
        *full.first_chunk().expect("32 bytes have a first 16")
    }

    /// Encrypts `plaintext` (whole blocks) in place, but for its last `clear_tail` bytes, and returns the tag.
    pub(super) fn seal(&self, header: &[u8], plaintext: &mut [u8], clear_tail: usize) -> [u8; TAG_LEN] {
        let tag = self.tag(header, plaintext);
        let count = plaintext.len() - clear_tail;
        cbc::Encryptor::inner_iv_init(self.aes.clone(), (&tag).into())
            .encrypt_padded::<NoPadding>(&mut plaintext[..count], count)
            .expect("callers pad to whole blocks");
        tag
    }

    /// Decrypts `ciphertext` (whole blocks) in place, but for its last `clear_tail` bytes; true if the tag is right.
    pub(super) fn open(
        &self,
        header: &[u8],
        ciphertext: &mut [u8],
        clear_tail: usize,
        tag: &[u8; TAG_LEN],
    ) -> bool {
        let count = ciphertext.len() - clear_tail;
        cbc::Decryptor::inner_iv_init(self.aes.clone(), tag.into())
            .decrypt_padded::<NoPadding>(&mut ciphertext[..count])
            .expect("callers check for whole blocks");
        self.tag(header, ciphertext).ct_eq(tag).into()
    }
}

impl fmt::Debug for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cipher(..)")
    }
}
