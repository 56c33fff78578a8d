//! The protection of datagrams: the sender's signatures, seals for the group, seals between the sender and one
//! device (docs/decisions/0012-keys.md). `docs/protocol.md` specifies it.
//!
//! ```text
//!  to the group    header | body | signature         (a symbol: header | body)
//!                  └─ with a group key: header | sealed(body | signature) | tag
//!  to one side     header | sealed(body) | tag
//!  JOIN            header | agreement key | cookie | proof | sealed(body) | tag
//! ```
//!
//! The nonce of a seal is the packet number. Its associated data is everything in clear before the sealed part. Each
//! key seals one direction for one purpose in one session, so no number is used twice under one key.

mod receiver;
mod sender;

pub use receiver::{FindError, Found, Opened, ReceiverSide, examine, find};
pub use sender::{JoinClear, SenderSide, SymbolSeal};

use crate::crypto::derive::{Secret, bind};
use crate::crypto::seal::{SealKey, TAG_LEN};
use crate::crypto::sign::SIGNATURE_LEN;
use crate::limits::{HEADER_LEN, JOIN_CLEAR, SIGNATURE_RESERVE, TAG_RESERVE};
use crate::units::{AgreementKey, Counter, SenderKey, SessionId, Suite};
use crate::wire::{
    Announce, Header, Message, MessageKind, Protection, add_grease, encode_plain, grease_choice,
};
use std::sync::Arc;

const _: () = assert!(SIGNATURE_LEN == SIGNATURE_RESERVE && TAG_LEN == TAG_RESERVE);

/// The contexts of derived keys and hashes. Each is used for one purpose only.
mod context {
    pub const ANNOUNCE: &str = "mcp 2026-11-21 announces of a session v1";
    pub const STREAM: &str = "mcp 2026-11-21 datagrams to the group v1";
    pub const JOIN: &str = "mcp 2026-11-21 proof of the group key in joins v1";
    pub const MEMBER: &str = "mcp 2026-11-21 group's part in device keys v1";
    pub const GROUP_IDENTITY: &str = "mcp 2026-11-21 identity of a group v1";
    pub const UP: &str = "mcp 2026-11-21 from a device to its sender v1";
    pub const DOWN: &str = "mcp 2026-11-21 from a sender to one device v1";
    /// Keys derived from the random secret of a sender's session.
    pub const AGREEMENT: &str = "mcp 2026-11-21 sender's half of an agreement v1";
    pub const TICKET: &str = "mcp 2026-11-21 tickets v1";
    /// Hashes of public data.
    pub const SESSION: &str = "mcp 2026-11-21 identifier of a session v1";
    pub const TRANSCRIPT: &str = "mcp 2026-11-21 transcript of a session v1";
    pub const COOKIE: &str = "mcp 2026-11-21 cookies v1";
}

/// The identifier of the session with this sender key, agreement key and counter.
#[must_use]
pub fn session_id(sender: &SenderKey, agreement: &AgreementKey, counter: Counter) -> SessionId {
    let id = bind(context::SESSION, &[&sender.0, &agreement.0, &counter.0.to_be_bytes()]);
    let [a, b, c, d, e, f, g, h, ..] = id;
    // 0 is not a valid identifier.
    SessionId(u64::from_be_bytes([a, b, c, d, e, f, g, h]).max(1))
}

/// A hash of the constant fields of an ANNOUNCE, which the keys of each device depend on.
type Transcript = [u8; 32];

fn transcript(announce: &Announce) -> Transcript {
    bind(context::TRANSCRIPT, &[&announce.constants()])
}

/// Encodes a message without its protection, sometimes with a grease extension. A RETRY has none: it may not be longer
/// than what it answers.
fn encode(header: Header, message: &Message<'_>) -> Vec<u8> {
    let mut datagram = encode_plain(header, message);
    let bare = matches!(message.kind(), MessageKind::Symbol | MessageKind::Retry);
    if let Some(choice) = grease_choice(header).filter(|_| !bare) {
        add_grease(&mut datagram, choice);
    }
    datagram
}

/// The protection of a message of this kind to the group.
const fn to_all(kind: MessageKind, group: Option<Suite>) -> Protection {
    match group {
        Some(suite) => Protection::Group(suite),
        None if is_signed(kind) => Protection::Signed,
        None => Protection::Clear,
    }
}

/// Whether a message of this kind to the group is signed.
pub(crate) const fn is_signed(kind: MessageKind) -> bool {
    matches!(
        kind,
        MessageKind::Announce
            | MessageKind::HashPage
            | MessageKind::Poll
            | MessageKind::Abort
            | MessageKind::SymbolDigests
    )
}

/// The seals of a session's datagrams to the group.
#[derive(Debug)]
struct GroupSeals {
    stream: Arc<SealKey>,
    announce: SealKey,
}

/// The secrets that a session derives from the group key. Without a group key they are derived from a public
/// value, and protect only against accidents.
#[derive(Debug)]
pub(crate) struct Membership {
    join: Secret,
    device: Secret,
    /// The group identity in signatures.
    identity: GroupIdentity,
    seals: Option<GroupSeals>,
}

/// Identifies a group in signatures without revealing its key; zeros without a group key. So a holder of the
/// group key cannot pass a signed message of another group, or of none, off as one of this group.
type GroupIdentity = [u8; 16];

fn group_identity(group: Option<&Secret>) -> GroupIdentity {
    let mut identity = GroupIdentity::default();
    if let Some(group) = group {
        identity.copy_from_slice(&group.derive(context::GROUP_IDENTITY, &[]).expose()[..16]);
    }
    identity
}

pub(crate) fn announce_key(group: &Secret, suite: Suite, session: SessionId) -> SealKey {
    SealKey::new(suite, &group.derive(context::ANNOUNCE, &[&session.0.to_be_bytes()]))
}

impl Membership {
    pub(crate) fn new(group: Option<&Secret>, suite: Suite, session: SessionId, sender: &SenderKey) -> Self {
        let nobody = Secret::new([0; 32]);
        let secret = group.unwrap_or(&nobody);
        let id = session.0.to_be_bytes();
        let parts: [&[u8]; 2] = [&id, &sender.0];
        Self {
            join: secret.derive(context::JOIN, &parts),
            device: secret.derive(context::MEMBER, &parts),
            identity: group_identity(group),
            seals: group.map(|group| GroupSeals {
                stream: Arc::new(SealKey::new(suite, &group.derive(context::STREAM, &parts))),
                announce: announce_key(group, suite, session),
            }),
        }
    }
}

/// The seals between the sender and one device.
#[derive(Debug)]
pub struct DeviceKeys {
    suite: Suite,
    up: SealKey,
    down: SealKey,
}

impl DeviceKeys {
    fn new(
        shared: &Secret,
        membership: &Membership,
        suite: Suite,
        (sender, device): (&AgreementKey, &AgreementKey),
        transcript: &Transcript,
    ) -> Self {
        let key = |context| {
            let parts: [&[u8]; 4] = [membership.device.expose(), &sender.0, &device.0, transcript];
            SealKey::new(suite, &shared.derive(context, &parts))
        };
        Self { suite, up: key(context::UP), down: key(context::DOWN) }
    }
}

/// Where the sealed body of a datagram between the sender and one device begins.
const fn clear_len(kind: MessageKind) -> usize {
    match kind {
        MessageKind::Join => HEADER_LEN + JOIN_CLEAR,
        _ => HEADER_LEN,
    }
}

/// Seals a datagram from `clear` on. Its header has its protection byte already.
pub(crate) fn seal(key: &SealKey, number: u64, clear: usize, datagram: &mut Vec<u8>) {
    let (clear, body) = datagram.split_at_mut(clear);
    let tag = key.seal(number, clear, body);
    datagram.extend_from_slice(&tag);
}

/// Opens a datagram that [`seal`] has sealed; `None` if it is not valid.
pub(crate) fn open<'a>(
    key: &SealKey,
    number: u64,
    clear: usize,
    datagram: &'a mut [u8],
) -> Option<&'a mut [u8]> {
    let (clear, sealed) = datagram.split_at_mut_checked(clear)?;
    key.open(number, clear, sealed)
}

#[cfg(test)]
mod tests;
