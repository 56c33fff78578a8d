//! Joining a fleet by an enrolment line, or settling for a server of somebody else.

use super::api::{Api, ApiError};
use super::clock;
use super::state::{Identity, StateDir, StateError};
use crate::documents::{Enrolment, Hash, JoinRequest, Refusal, SecretKey, Trusted, is_name};
use crate::limits::MAX_ROOT_STEPS;
use crate::server::state_dir::new_token;
use mcp_transfer::keyring::{Keyring, KeyringError};
use reqwest::Method;
use serde::Serialize;
use std::path::Path;

/// Why a device cannot join.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The state directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// It has joined before.
    #[error("this device is '{device}' at {server} already; use --again to join anew")]
    Joined {
        /// Its name there.
        device: String,
        /// The server.
        server: String,
    },
    /// The name.
    #[error("'{0}' cannot be a device's name: use 1 to 128 of A-Z, a-z, 0-9, '.', '_', '-' with --id")]
    Name(String),
    /// The server.
    #[error("{0}")]
    Server(String),
    /// The device's key.
    #[error(transparent)]
    Key(#[from] KeyringError),
    /// The first root, or one after it.
    #[error("the server's roots are refused: {0}")]
    Root(#[from] Refusal),
}

impl From<ApiError> for JoinError {
    fn from(error: ApiError) -> Self {
        Self::Server(error.to_string())
    }
}

#[derive(Serialize)]
struct Body<'a> {
    token: &'a str,
    envelope: String,
}

/// Joins the fleet of `line` as `device`, which has `key`: checks the server's roots first, and sends the token only to a server with
/// the pinned key. The target token is drawn here; the server gets its hash, signed.
pub(crate) async fn join(
    state: &StateDir,
    line: &Enrolment,
    device: &str,
    key: &SecretKey,
    again: bool,
) -> Result<(), JoinError> {
    if let Some(known) = state.read::<Identity>("identity.json")?.filter(|_| !again) {
        return Err(JoinError::Joined { device: known.device, server: known.server });
    }
    if !is_name(device) {
        return Err(JoinError::Name(device.to_owned()));
    }
    let mut identity = Identity {
        server: line.url.clone(),
        tenant: "DEFAULT".to_owned(),
        device: device.to_owned(),
        authorization: None,
        pin: Some(line.pin),
        fleet: Some(line.fleet),
    };
    let api = Api::new(&identity)?;
    let first = api.root(1).await?.ok_or_else(|| JoinError::Server("the server has no root".to_owned()))?;
    let mut trusted = Trusted::begin(line.fleet, device, line.root, &first)?;
    let mut newer = Vec::new();
    while (newer.len() as u64) < MAX_ROOT_STEPS {
        match api.root(2 + newer.len() as u64).await? {
            Some(root) => newer.push(root),
            None => break,
        }
    }
    trusted = trusted.take_roots(&newer, clock())?;
    let target = new_token().map_err(|error| JoinError::Server(error.to_string()))?;
    // By the server's clock: a device's own may be anywhere before it has checked in for the first time.
    let time = api.server_time().await?.unwrap_or_else(clock);
    let request = JoinRequest::new(line.fleet, device, key.public(), (&line.token, &target), time);
    let envelope = request.sign(key).map_err(Refusal::from)?.to_metadata();
    let body = Body { token: &line.token, envelope };
    let said = |text: &str| JoinError::Server(text.to_owned());
    api.send(Method::POST, api.ours(&["enrol"]), &body).await.map_err(|error| match error {
        ApiError::Unauthorized(401) => {
            said("the server does not take this line: it is used up, expired or revoked; ask for a new one")
        }
        ApiError::Unauthorized(_) => said("the operator has refused this device; ask for 'mcp device accept'"),
        ApiError::Later { status: 409, .. } => JoinError::Server(format!(
            "another device is named '{device}', or this one has lost its key; choose another name with --id, or ask for 'mcp device \
             forget {device}'"
        )),
        ApiError::Later { status: 429, after } => JoinError::Server(format!(
            "too many failures came from this address; try again in {} s",
            after.map_or(60, |after| after.as_secs())
        )),
        other => other.into(),
    })?;
    identity.authorization = Some(format!("TargetToken {}", *target));
    state.write("trusted.json", &trusted.to_bytes())?;
    state.put("identity.json", &identity)?;
    Ok(())
}

/// The pin of a certificate: SHA-256 of its SubjectPublicKeyInfo. For tests and tools that make lines.
#[must_use]
pub fn pin_of(subject_public_key_info: &[u8]) -> Hash {
    Hash(<sha2::Sha256 as sha2::Digest>::digest(subject_public_key_info).into())
}

/// This machine's key as a device, in the keyring at `dir`: the one of `mcp recv` and `mcp key device`. It is made on first use.
pub(crate) fn device_key(dir: &Path) -> Result<SecretKey, JoinError> {
    let (ring, mut warnings) = (Keyring::new(dir.to_owned()), Vec::new());
    if let Some(why) = ring.check()? {
        warnings.push(why);
    }
    let seed = ring.device(1, &mut warnings);
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    Ok(SecretKey::from_seed(seed?.expose()))
}
