//! A secret that two sides share and nobody else learns: X25519 (RFC 7748).

use super::derive::Secret;
use crate::units::AgreementKey;
use x25519_dalek::{PublicKey, StaticSecret};

/// One side's half.
#[derive(Clone)]
pub struct Agreement(StaticSecret);

impl Agreement {
    /// From 32 random bytes.
    #[must_use]
    pub fn new(random: [u8; 32]) -> Self {
        Self(StaticSecret::from(random))
    }

    /// What the other side needs.
    #[must_use]
    pub fn public(&self) -> AgreementKey {
        AgreementKey(PublicKey::from(&self.0).to_bytes())
    }

    /// The shared secret; `None` for a peer's key that would make it the same for everybody (RFC 7748,
    /// section 6.1).
    #[must_use]
    pub fn shared(&self, peer: &AgreementKey) -> Option<Secret> {
        let shared = self.0.diffie_hellman(&PublicKey::from(peer.0));
        shared.was_contributory().then(|| Secret::new(*shared.as_bytes()))
    }
}

impl std::fmt::Debug for Agreement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Agreement({:?})", self.public())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use data_encoding::HEXLOWER;

    fn key(hex: &str) -> [u8; 32] {
        HEXLOWER.decode(hex.as_bytes()).unwrap().try_into().unwrap()
    }

    /// RFC 7748, section 6.1.
    #[test]
    fn known_answer() {
        let alice = Agreement::new(key("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"));
        let bob = Agreement::new(key("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"));
        assert_eq!(alice.public().0, key("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"));
        assert_eq!(bob.public().0, key("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"));
        let shared = key("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742");
        assert_eq!(alice.shared(&bob.public()).unwrap().expose(), &shared);
        assert_eq!(bob.shared(&alice.public()).unwrap().expose(), &shared);
    }

    #[test]
    fn a_key_of_low_order_is_refused() {
        assert!(Agreement::new([9; 32]).shared(&AgreementKey([0; 32])).is_none());
        let mut one = [0; 32];
        one[0] = 1;
        assert!(Agreement::new([9; 32]).shared(&AgreementKey(one)).is_none());
    }
}
