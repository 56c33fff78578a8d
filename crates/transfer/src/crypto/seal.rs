//! Authenticated encryption of one datagram: an AEAD (RFC 5116) whose nonce is the packet number and
//! whose associated data is the part in clear.

use super::derive::Secret;
use crate::units::Suite;
use ring::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

/// Bytes that sealing adds.
pub const TAG_LEN: usize = 16;

/// The faster suite on this processor: AES if the processor has instructions for it.
#[must_use]
pub fn fastest() -> Suite {
    #[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
    let aes = std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    let aes = std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "x86", target_arch = "aarch64")))]
    let aes = false;
    if aes { Suite::Aes256Gcm } else { Suite::ChaCha20Poly1305 }
}

/// A key for sealing and opening. Every datagram sealed under one key must have a different number.
pub struct SealKey(LessSafeKey);

impl SealKey {
    /// The key with these secret bytes.
    ///
    /// # Panics
    /// Never: both suites take keys of 32 bytes.
    #[must_use]
    pub fn new(suite: Suite, secret: &Secret) -> Self {
        let algorithm = match suite {
            Suite::Aes256Gcm => &AES_256_GCM,
            Suite::ChaCha20Poly1305 => &CHACHA20_POLY1305,
        };
        let key = UnboundKey::new(algorithm, secret.expose()).expect("both suites take 32 bytes");
        Self(LessSafeKey::new(key))
    }

    /// Encrypts `bytes` in place, bound to `clear`. Returns the tag to append.
    ///
    /// # Panics
    /// If `bytes` exceeds the gigabytes that an AEAD accepts; no datagram does.
    #[must_use]
    pub fn seal(&self, number: u64, clear: &[u8], bytes: &mut [u8]) -> [u8; TAG_LEN] {
        let sealed = self.0.seal_in_place_separate_tag(nonce(number), Aad::from(clear), bytes);
        let mut tag = [0; TAG_LEN];
        tag.copy_from_slice(sealed.expect("a datagram is short enough").as_ref());
        tag
    }

    /// Decrypts in place the output of [`SealKey::seal`] with its tag, and returns it without the tag.
    /// `None` if the bytes, `clear` or the number were changed.
    #[must_use]
    pub fn open<'a>(&self, number: u64, clear: &[u8], sealed: &'a mut [u8]) -> Option<&'a mut [u8]> {
        self.0.open_in_place(nonce(number), Aad::from(clear), sealed).ok()
    }
}

impl std::fmt::Debug for SealKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealKey(..)")
    }
}

fn nonce(number: u64) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    nonce[NONCE_LEN - 8..].copy_from_slice(&number.to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}

#[cfg(test)]
mod tests {
    use super::*;
    use data_encoding::HEXLOWER;

    fn hex(text: &str) -> Vec<u8> {
        HEXLOWER.decode(text.as_bytes()).unwrap()
    }

    /// GCM specification (McGrew and Viega), test cases 13 and 14: the zero key and nonce.
    #[test]
    fn known_answers_of_aes_256_gcm() {
        let key = SealKey::new(Suite::Aes256Gcm, &Secret::new([0; 32]));
        assert_eq!(key.seal(0, &[], &mut []).to_vec(), hex("530f8afbc74536b9a963b4f1c4cb738b"));
        let mut bytes = [0; 16];
        let tag = key.seal(0, &[], &mut bytes);
        assert_eq!(bytes.to_vec(), hex("cea7403d4d606b6e074ec5d3baf39d18"));
        assert_eq!(tag.to_vec(), hex("d0d1c8a799996bf0265b98b5d48ab919"));
    }

    #[test]
    fn every_bit_counts() {
        for suite in [Suite::Aes256Gcm, Suite::ChaCha20Poly1305] {
            let key = SealKey::new(suite, &Secret::new([3; 32]));
            let (clear, plain) = (b"header".to_vec(), b"a body".to_vec());
            let mut sealed = plain.clone();
            let tag = key.seal(77, &clear, &mut sealed);
            assert_ne!(sealed, plain);
            sealed.extend(tag);
            assert_eq!(key.open(77, &clear, &mut sealed.clone()), Some(&mut plain.clone()[..]));
            for bit in 0..sealed.len() * 8 {
                let mut bad = sealed.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(key.open(77, &clear, &mut bad), None, "{suite:?}: bit {bit}");
            }
            for bit in 0..clear.len() * 8 {
                let mut bad = clear.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(key.open(77, &bad, &mut sealed.clone()), None, "{suite:?}: clear bit {bit}");
            }
            assert_eq!(key.open(78, &clear, &mut sealed.clone()), None);
            assert_eq!(key.open(77, &clear, &mut sealed[..15].to_vec()), None);
            let other = SealKey::new(suite, &Secret::new([4; 32]));
            assert_eq!(other.open(77, &clear, &mut sealed.clone()), None);
        }
    }
}
