//! Key agreement: a secret that two sides share and nobody else learns. X25519 (RFC 7748).

use super::derive::Secret;
use crate::units::AgreementKey;
use x25519_dalek::{PublicKey, StaticSecret};

/// One side of an agreement.
#[derive(Clone)]
pub struct Agreement(Backend);

#[derive(Clone)]
enum Backend {
    Real(StaticSecret),
    #[cfg(any(test, feature = "sim"))]
    Sham(AgreementKey),
}

impl Agreement {
    /// Makes a key pair from 32 random bytes.
    #[must_use]
    pub fn new(random: [u8; 32]) -> Self {
        #[cfg(any(test, feature = "sim"))]
        if sham::is_one(&random) {
            return Self(Backend::Sham(sham::public(&random)));
        }
        Self(Backend::Real(StaticSecret::from(random)))
    }

    /// From a secret that other keys are derived from too: `context` keeps them apart.
    #[must_use]
    pub fn derived(seed: [u8; 32], context: &'static str) -> Self {
        #[cfg(any(test, feature = "sim"))]
        if sham::is_one(&seed) {
            return Self::new(seed);
        }
        Self::new(*Secret::new(seed).derive(context, &[]).expose())
    }

    /// The same, to agree with this peer.
    #[must_use]
    pub fn facing(peer: &AgreementKey, random: [u8; 32]) -> Self {
        #[cfg(any(test, feature = "sim"))]
        if sham::is_one(&peer.0) {
            return Self(Backend::Sham(sham::public(&random)));
        }
        #[cfg(not(any(test, feature = "sim")))]
        let _ = peer;
        Self::new(random)
    }

    /// The public key, for the other side.
    #[must_use]
    pub fn public(&self) -> AgreementKey {
        match &self.0 {
            Backend::Real(secret) => AgreementKey(PublicKey::from(secret).to_bytes()),
            #[cfg(any(test, feature = "sim"))]
            Backend::Sham(own) => *own,
        }
    }

    /// The shared secret. `None` for a peer's key that would give the same secret to everybody (RFC 7748,
    /// section 6.1).
    #[must_use]
    pub fn shared(&self, peer: &AgreementKey) -> Option<Secret> {
        match &self.0 {
            Backend::Real(secret) => {
                let shared = secret.diffie_hellman(&PublicKey::from(peer.0));
                shared.was_contributory().then(|| Secret::new(*shared.as_bytes()))
            }
            #[cfg(any(test, feature = "sim"))]
            Backend::Sham(own) => sham::is_one(&peer.0).then(|| sham::shared(own, peer)),
        }
    }
}

impl std::fmt::Debug for Agreement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Agreement({:?})", self.public())
    }
}

/// Stand-ins for key agreements, for simulations where thousands of devices join on one thread. Anybody
/// who hears such an agreement can compute its secret. The first bytes of a key mark it as a stand-in. It
/// is accepted only after [`crate::crypto::sign::sham::allow`] was called, which the program itself never
/// does.
#[cfg(any(test, feature = "sim"))]
pub mod sham {
    use super::{AgreementKey, Secret};
    use crate::crypto::sign;

    const MARK: &[u8; 8] = b"sham agr";

    /// The seed from which [`super::Agreement::new`] makes a stand-in. Its peers then make stand-ins too.
    #[must_use]
    pub fn random(seed: u64) -> [u8; 32] {
        let mut random = [0; 32];
        random[..8].copy_from_slice(MARK);
        random[8..16].copy_from_slice(&seed.to_be_bytes());
        random
    }

    pub(super) fn is_one(bytes: &[u8; 32]) -> bool {
        bytes.starts_with(MARK) && sign::sham::allowed()
    }

    pub(super) fn public(random: &[u8; 32]) -> AgreementKey {
        let mut key = *blake3::hash(random).as_bytes();
        key[..8].copy_from_slice(MARK);
        AgreementKey(key)
    }

    /// The shared secret, the same for both sides.
    pub(super) fn shared(one: &AgreementKey, other: &AgreementKey) -> Secret {
        let mut both = [one.0, other.0];
        both.sort_unstable();
        Secret::new(*blake3::hash(both.as_flattened()).as_bytes())
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

    #[test]
    fn sham_halves_agree_with_each_other_only() {
        crate::crypto::sign::sham::allow();
        let sender = Agreement::new(sham::random(1));
        let device = Agreement::facing(&sender.public(), [9; 32]);
        let other = Agreement::facing(&sender.public(), [8; 32]);
        let secret = |one: &Agreement, two: &Agreement| *one.shared(&two.public()).unwrap().expose();
        assert_eq!(secret(&sender, &device), secret(&device, &sender));
        assert_ne!(secret(&sender, &device), secret(&sender, &other));
        let real = Agreement::new([9; 32]);
        assert!(sender.shared(&real.public()).is_none());
        assert_eq!(Agreement::facing(&real.public(), [7; 32]).public(), Agreement::new([7; 32]).public());
    }
}
