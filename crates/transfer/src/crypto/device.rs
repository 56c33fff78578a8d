//! A device's key: its text form, its fingerprint, and the claim that a device signs when it joins a session.

use super::key_text::{LineError, LineKind, groups};
use super::primitives::Primitives;
use super::sign::{Purpose, SIGNATURE_LEN, SigningKey};
use crate::units::{AgreementKey, DeviceId, DeviceKey, SenderKey, SessionId};

const KIND: LineKind = LineKind { what: "device's key", stem: "mcp-device", heading: "mcp-device1-" };

/// Domain of the fingerprint's hash. Never changes: people would see a different fingerprint.
const CONTEXT: &str = "mcp 2026-11-21 fingerprint of a device's key v1";

impl DeviceKey {
    /// The public half of a device's signing key.
    #[must_use]
    pub fn of(key: &SigningKey) -> Self {
        Self(key.public().0)
    }

    /// 80 bits of a hash of the key, such as `k7qd-2m4x-bfhc-w3pa`, for people to compare.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        groups(&blake3::derive_key(CONTEXT, &self.0), 4)
    }

    /// The whole key in one line, `mcp-device1-` and 58 characters. [`DeviceKey::from_line`] parses it.
    #[must_use]
    pub fn line(&self) -> String {
        KIND.write("", &self.0).to_string()
    }

    /// Parses a line from [`DeviceKey::line`]. Ignores surrounding white space.
    ///
    /// # Errors
    /// If the line is not a device's key, or is truncated or mistyped.
    pub fn from_line(line: &str) -> Result<Self, LineError> {
        KIND.read("", KIND.body(line)?).map(|key| Self(*key))
    }
}

/// The claim that a device signs when it joins: its identifier, its run, the sender and the session. The signature
/// is not valid for any other device, run, sender or session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim<'a> {
    /// The session.
    pub session: SessionId,
    /// Its sender.
    pub sender: &'a SenderKey,
    /// The device's half of the agreement, which is fresh in each run.
    pub agreement: &'a AgreementKey,
    /// The device's identifier.
    pub device: &'a DeviceId,
}

impl Claim<'_> {
    fn signed<T>(&self, with: impl FnOnce(&[&[u8]]) -> T) -> T {
        // Every part has a fixed length.
        with(&[&self.session.0.to_be_bytes(), &self.sender.0, &self.agreement.0, &self.device.0])
    }

    /// Signs the claim with the device's secret key.
    #[must_use]
    pub fn sign(&self, key: &SigningKey) -> [u8; SIGNATURE_LEN] {
        self.signed(|parts| key.sign(Purpose::Device, parts))
    }

    /// Whether the signature of the claim is valid under the device's key. Takes some 40 us.
    #[must_use]
    pub fn verify(
        &self,
        primitives: &dyn Primitives,
        key: &DeviceKey,
        signature: &[u8; SIGNATURE_LEN],
    ) -> bool {
        self.signed(|parts| primitives.verify(&SenderKey(key.0), Purpose::Device, parts, signature))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::derive::Secret;
    use crate::crypto::primitives::REAL;

    #[test]
    fn golden() {
        let key = DeviceKey([7; 32]);
        let line = key.line();
        assert_eq!(line, "mcp-device1-a4dqobyha4dqobyha4dqobyha4dqobyha4dqobyha4dqobyha4ds6q2ooa");
        assert_eq!(key.fingerprint(), "lrxl-lxbf-lohc-ixsb");
        assert_eq!(DeviceKey::from_line(&format!(" {line}\r\n")), Ok(key));
        // A sender's key is not accepted as a device's key, nor the reverse.
        assert!(DeviceKey::from_line(&SenderKey(key.0).line()).is_err());
        assert!(SenderKey::from_line(&line).is_err());
        assert!(DeviceKey::from_line(&line.replace("device1", "sender1")).is_err());
        assert_ne!(key.fingerprint(), SenderKey(key.0).fingerprint());
    }

    #[test]
    fn every_part_of_a_claim_counts() {
        let key = SigningKey::new(&Secret::new([5; 32]));
        let own = DeviceKey::of(&key);
        let (sender, agreement, device) = (SenderKey([1; 32]), AgreementKey([2; 32]), DeviceId([3; 16]));
        let claim = Claim { session: SessionId(9), sender: &sender, agreement: &agreement, device: &device };
        let signature = claim.sign(&key);
        assert!(claim.verify(REAL, &own, &signature));
        let others = [
            Claim { session: SessionId(10), ..claim },
            Claim { sender: &SenderKey([4; 32]), ..claim },
            Claim { agreement: &AgreementKey([4; 32]), ..claim },
            Claim { device: &DeviceId([4; 16]), ..claim },
        ];
        for other in others {
            assert!(!other.verify(REAL, &own, &signature), "{other:?}");
        }
        let another = SigningKey::new(&Secret::new([6; 32]));
        assert!(!claim.verify(REAL, &DeviceKey::of(&another), &signature));
        // A signature of the same bytes as a datagram is not valid for the claim.
        let parts: [&[u8]; 4] = [&9_u64.to_be_bytes(), &sender.0, &agreement.0, &device.0];
        assert!(!claim.verify(REAL, &own, &key.sign(Purpose::Datagram, &parts)));
    }
}
