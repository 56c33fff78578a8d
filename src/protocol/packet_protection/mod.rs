//! What protects datagrams on their way: the sender's signature, seals for the group, seals between the
//! sender and one device (docs/decisions/0012-keys.md).
//!
//! ```text
//!  said to all     header | body | signature         (a symbol: header | body)
//!                  └─ with a group key: header | sealed(body | signature) | tag
//!  between two     header | sealed(body) | tag
//!  JOIN            header | agreement key | cookie | proof | sealed(body) | tag
//! ```
//!
//! The nonce of a seal is the packet number, and everything in clear before the sealed part is bound to
//! it. Each key seals one direction for one purpose in one session, so a number never comes twice.

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

/// What each derived key is for; never used for anything else.
mod context {
    pub const ANNOUNCE: &str = "mcp 2026-11-21 announces of a session v1";
    pub const STREAM: &str = "mcp 2026-11-21 datagrams to the group v1";
    pub const JOIN: &str = "mcp 2026-11-21 proof of the group key in joins v1";
    pub const MEMBER: &str = "mcp 2026-11-21 group's part in device keys v1";
    pub const GROUP_IDENTITY: &str = "mcp 2026-11-21 identity of a group v1";
    pub const UP: &str = "mcp 2026-11-21 from a device to its sender v1";
    pub const DOWN: &str = "mcp 2026-11-21 from a sender to one device v1";
    /// What is derived from the secret that a sender draws for its session.
    pub const AGREEMENT: &str = "mcp 2026-11-21 sender's half of an agreement v1";
    pub const TICKET: &str = "mcp 2026-11-21 tickets v1";
    /// What is hashed and no secret.
    pub const SESSION: &str = "mcp 2026-11-21 identifier of a session v1";
    pub const TRANSCRIPT: &str = "mcp 2026-11-21 transcript of a session v1";
    pub const COOKIE: &str = "mcp 2026-11-21 cookies v1";
}

/// The identifier of the session that a sender with this key begins with this half of an agreement and counter.
#[must_use]
pub fn session_id(sender: &SenderKey, agreement: &AgreementKey, counter: Counter) -> SessionId {
    let id = bind(context::SESSION, &[&sender.0, &agreement.0, &counter.0.to_be_bytes()]);
    let [a, b, c, d, e, f, g, h, ..] = id;
    // 0 is no session.
    SessionId(u64::from_be_bytes([a, b, c, d, e, f, g, h]).max(1))
}

/// What of an ANNOUNCE goes into the keys between its sender and each device.
type Transcript = [u8; 32];

fn transcript(announce: &Announce) -> Transcript {
    bind(context::TRANSCRIPT, &[&announce.constants()])
}

/// A message as it is sent, but for its protection: now and then with an extension that means nothing.
fn encode(header: Header, message: &Message<'_>) -> Vec<u8> {
    let mut datagram = encode_plain(header, message);
    if let Some(choice) = grease_choice(header).filter(|_| message.kind() != MessageKind::Symbol) {
        add_grease(&mut datagram, choice);
    }
    datagram
}

/// How a message of this kind is protected when its sender says it to all.
const fn to_all(kind: MessageKind, group: Option<Suite>) -> Protection {
    match group {
        Some(suite) => Protection::Group(suite),
        None if is_signed(kind) => Protection::Signed,
        None => Protection::Clear,
    }
}

/// Whether a message of this kind is signed when its sender says it to all.
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

/// What a session's datagrams to the group are sealed with.
#[derive(Debug)]
struct GroupSeals {
    stream: Arc<SealKey>,
    announce: SealKey,
}

/// What follows from the group key for one session; without one, from a key that everybody knows, where
/// it protects against nothing but accidents.
#[derive(Debug)]
pub(crate) struct Membership {
    join: Secret,
    device: Secret,
    /// What a signature says of the group that its datagram is for.
    identity: GroupIdentity,
    seals: Option<GroupSeals>,
}

/// Tells groups apart in signatures without giving their keys away; zeros where there is no group key. A
/// holder of the group key cannot pass off what was signed for nobody, or for another group, as signed for this one.
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

/// What the sender and one device seal with.
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

/// Where the body of a datagram begins that is sealed between two.
const fn clear_len(kind: MessageKind) -> usize {
    match kind {
        MessageKind::Join => HEADER_LEN + JOIN_CLEAR,
        _ => HEADER_LEN,
    }
}

/// Seals all of a datagram from `clear` on; its header says already that it is sealed.
pub(crate) fn seal(key: &SealKey, number: u64, clear: usize, datagram: &mut Vec<u8>) {
    let (clear, body) = datagram.split_at_mut(clear);
    let tag = key.seal(number, clear, body);
    datagram.extend_from_slice(&tag);
}

/// Opens what [`seal`] made; `None` if it is not that.
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
