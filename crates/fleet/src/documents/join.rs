//! A device's request to join: what it signs with its own key, so that a name belongs to whoever has the key.

use super::envelope::{Envelope, Kind};
use super::keys::{FleetId, Hash, PublicKey, SecretKey};
use super::refusal::{DocumentError, Refusal};
use super::rules::{FORMAT, NAME_RULE, is_name, read, require};
use serde::{Deserialize, Serialize};

/// What a device asks for when it joins.
///
/// The device draws its target token itself and states only the hash. So the answer holds no secret, and a request that is sent again by
/// somebody else sets the token that the device has already.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRequest {
    format: u64,
    /// The fleet.
    pub fleet: FleetId,
    /// The name that the device wants.
    pub device: String,
    /// The device's own key, which signs this.
    pub key: PublicKey,
    /// BLAKE3 of the enrolment line's token.
    pub line: Hash,
    /// BLAKE3 of the target token that the device will use.
    pub target: Hash,
    /// When it was made by the server's clock, in seconds since 1970.
    pub time: u64,
}

impl JoinRequest {
    /// A request to join `fleet` as `device` with a line of this token, and to be known by the target token `target` from then on.
    #[must_use]
    pub fn new(
        fleet: FleetId,
        device: &str,
        key: PublicKey,
        (line, target): (&str, &str),
        time: u64,
    ) -> Self {
        let [line, target] = [line, target].map(|token| Hash::of(token.as_bytes()));
        Self { format: FORMAT, fleet, device: device.to_owned(), key, line, target, time }
    }

    /// Signs the request with the device's key.
    ///
    /// # Errors
    /// If the name is not allowed.
    pub fn sign(&self, key: &SecretKey) -> Result<Envelope, DocumentError> {
        self.check()?;
        Ok(super::seal(self, Kind::Join, &[key]))
    }

    /// Reads a request from an envelope, and checks that it is signed by the key that it names, and by no other.
    ///
    /// # Errors
    /// If it is not a request of a known format, the name is not allowed, or the signature is missing or wrong.
    pub fn open(envelope: &Envelope) -> Result<Self, Refusal> {
        let request: Self = read(Kind::Join, envelope.payload())?;
        request.check()?;
        if envelope.sole_signer(Kind::Join) == Some(request.key) {
            return Ok(request);
        }
        Err(Refusal::Signatures { kind: Kind::Join, valid: 0, threshold: 1 })
    }

    fn check(&self) -> Result<(), DocumentError> {
        require(is_name(&self.device), Kind::Join, "device", NAME_RULE)
    }
}
