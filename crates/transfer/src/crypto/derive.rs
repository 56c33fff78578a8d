//! Derives keys from secrets: BLAKE3 in its key derivation mode (BLAKE3 paper, sections 2.2 and 6.2),
//! with a separate context for each use.

use zeroize::Zeroizing;

/// Length of every secret key in this crate, in bytes.
pub const KEY_LEN: usize = 32;

/// A secret. Its memory is wiped on drop. It has no `Debug` output of its bytes and no equality, so that
/// code cannot print it, or compare it in variable time, by accident.
#[derive(Clone)]
pub struct Secret(Zeroizing<[u8; KEY_LEN]>);

impl Secret {
    /// Takes the bytes. The caller has to wipe its own copy.
    #[must_use]
    pub fn new(bytes: [u8; KEY_LEN]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes, for a cryptographic primitive or a key file.
    #[must_use]
    pub fn expose(&self) -> &[u8; KEY_LEN] {
        &self.0
    }

    /// Derives the key for one use. `context` is a constant of this use only. The key is bound to
    /// `parts`; the length of each part is hashed too, so that parts cannot run together.
    #[must_use]
    pub fn derive(&self, context: &'static str, parts: &[&[u8]]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(context);
        hasher.update(self.expose());
        for part in parts {
            hasher.update(&(part.len() as u64).to_be_bytes()).update(part);
        }
        Self::new(*hasher.finalize().as_bytes())
    }

    /// Proves knowledge of the secret, for `parts`, to another holder of the secret: the first 16 bytes
    /// of a keyed hash. Compare proofs with [`same`].
    #[must_use]
    pub fn proof(&self, parts: &[&[u8]]) -> [u8; 16] {
        let mut hasher = blake3::Hasher::new_keyed(self.expose());
        for part in parts {
            hasher.update(&(part.len() as u64).to_be_bytes()).update(part);
        }
        let mut proof = [0; 16];
        proof.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        proof
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// A hash of public `parts`, each of them kept apart from the next by its length, for one use.
#[must_use]
pub fn bind(context: &'static str, parts: &[&[u8]]) -> [u8; KEY_LEN] {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    for part in parts {
        hasher.update(&(part.len() as u64).to_be_bytes()).update(part);
    }
    *hasher.finalize().as_bytes()
}

/// Whether two proofs are the same, in a time that does not tell where they differ.
#[must_use]
pub fn same(a: &[u8; 16], b: &[u8; 16]) -> bool {
    let mut wide = [[0; 32]; 2];
    wide[0][..16].copy_from_slice(a);
    wide[1][..16].copy_from_slice(b);
    // blake3 compares hashes in constant time.
    blake3::Hash::from_bytes(wide[0]) == blake3::Hash::from_bytes(wide[1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_and_parts_are_kept_apart() {
        let secret = Secret::new([7; 32]);
        let a = secret.derive("mcp test a", &[b"ab", b"c"]);
        assert_eq!(a.expose(), secret.derive("mcp test a", &[b"ab", b"c"]).expose());
        assert_ne!(a.expose(), secret.derive("mcp test b", &[b"ab", b"c"]).expose());
        assert_ne!(a.expose(), secret.derive("mcp test a", &[b"a", b"bc"]).expose());
        assert_ne!(a.expose(), secret.derive("mcp test a", &[b"abc"]).expose());
        assert_ne!(a.expose(), Secret::new([8; 32]).derive("mcp test a", &[b"ab", b"c"]).expose());
    }

    #[test]
    fn of_no_parts_it_is_the_plain_key_derivation() {
        let mut key = [0; 32];
        (0..32).for_each(|i| key[i] = i as u8);
        let context = "BLAKE3 2019-12-27 16:29:52 test vectors context";
        let derived = Secret::new(key).derive(context, &[]);
        assert_eq!(derived.expose(), &blake3::derive_key(context, &key));
    }

    #[test]
    fn a_secret_is_not_printed() {
        assert_eq!(format!("{:?}", Secret::new([0xab; 32])), "Secret(..)");
    }

    #[test]
    fn proofs_compare() {
        let proof = Secret::new([1; 32]).proof(&[b"x"]);
        assert!(same(&proof, &Secret::new([1; 32]).proof(&[b"x"])));
        assert!(!same(&proof, &Secret::new([1; 32]).proof(&[b"y"])));
        assert!(!same(&proof, &Secret::new([2; 32]).proof(&[b"x"])));
    }
}
