//! Key agreement: a secret that two sides share and nobody else learns. X25519 (RFC 7748).

use super::derive::Secret;
use super::primitives::Primitives;
use crate::units::AgreementKey;
use x25519_dalek::{PublicKey, StaticSecret};

/// One side of an agreement.
#[derive(Clone)]
pub struct Agreement {
    secret: Secret,
    public: AgreementKey,
    primitives: &'static dyn Primitives,
}

impl Agreement {
    /// Makes a key pair from 32 bytes that nobody can guess and that are used for nothing else.
    #[must_use]
    pub fn new(primitives: &'static dyn Primitives, secret: Secret) -> Self {
        Self { public: primitives.agreement_key(&secret), secret, primitives }
    }

    /// The public key, for the other side.
    #[must_use]
    pub const fn public(&self) -> AgreementKey {
        self.public
    }

    /// The shared secret. `None` for a peer's key that would give the same secret to everybody (RFC 7748,
    /// section 6.1).
    #[must_use]
    pub fn shared(&self, peer: &AgreementKey) -> Option<Secret> {
        self.primitives.shared(&self.secret, peer)
    }
}

impl std::fmt::Debug for Agreement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Agreement({:?})", self.public())
    }
}

pub(super) fn public(secret: &Secret) -> AgreementKey {
    AgreementKey(PublicKey::from(&StaticSecret::from(*secret.expose())).to_bytes())
}

pub(super) fn shared(secret: &Secret, peer: &AgreementKey) -> Option<Secret> {
    let shared = StaticSecret::from(*secret.expose()).diffie_hellman(&PublicKey::from(peer.0));
    shared.was_contributory().then(|| Secret::new(*shared.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::super::primitives::REAL;
    use super::*;
    use data_encoding::HEXLOWER;

    fn key(hex: &str) -> [u8; 32] {
        HEXLOWER.decode(hex.as_bytes()).unwrap().try_into().unwrap()
    }

    fn side(secret: [u8; 32]) -> Agreement {
        Agreement::new(REAL, Secret::new(secret))
    }

    /// RFC 7748, section 6.1.
    #[test]
    fn known_answer() {
        let alice = side(key("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"));
        let bob = side(key("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"));
        assert_eq!(alice.public().0, key("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"));
        assert_eq!(bob.public().0, key("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"));
        let shared = key("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742");
        assert_eq!(alice.shared(&bob.public()).unwrap().expose(), &shared);
        assert_eq!(bob.shared(&alice.public()).unwrap().expose(), &shared);
    }

    #[test]
    fn a_key_of_low_order_is_refused() {
        assert!(side([9; 32]).shared(&AgreementKey([0; 32])).is_none());
        let mut one = [0; 32];
        one[0] = 1;
        assert!(side([9; 32]).shared(&AgreementKey(one)).is_none());
    }
}
