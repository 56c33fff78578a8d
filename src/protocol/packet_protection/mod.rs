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

#[cfg(any(test, feature = "sim"))]
pub mod fakes;
#[cfg(any(test, feature = "sim"))]
#[doc(hidden)]
pub mod fuzzing;
mod receiver;
mod sender;

pub use receiver::{Found, Opened, ReceiverSide, find};
pub use sender::{JoinClear, SenderSide, SymbolSeal};

use crate::crypto::derive::Secret;
use crate::crypto::seal::{SealKey, TAG_LEN};
use crate::crypto::sign::SIGNATURE_LEN;
use crate::limits::{HEADER_LEN, JOIN_CLEAR, SIGNATURE_RESERVE, TAG_RESERVE};
use crate::units::{AgreementKey, SenderKey, SessionId, Suite};
use crate::wire::{MessageKind, Seals};
use std::sync::Arc;

const _: () = assert!(SIGNATURE_LEN == SIGNATURE_RESERVE && TAG_LEN == TAG_RESERVE);

/// What each derived key is for; never used for anything else.
mod context {
    pub const ANNOUNCE: &str = "mcp 2026-11-20 announces of a session v1";
    pub const STREAM: &str = "mcp 2026-11-20 datagrams to the group v1";
    pub const JOIN: &str = "mcp 2026-11-20 proof of the group key in joins v1";
    pub const MEMBER: &str = "mcp 2026-11-20 group's part in device keys v1";
    pub const UP: &str = "mcp 2026-11-20 from a device to its sender v1";
    pub const DOWN: &str = "mcp 2026-11-20 from a sender to one device v1";
    pub const COOKIE: &str = "mcp 2026-11-20 cookies v1";
}

/// Whether a message of this kind is signed when its sender says it to all.
const fn is_signed(kind: MessageKind) -> bool {
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
struct Membership {
    join: Secret,
    device: Secret,
    seals: Option<GroupSeals>,
}

fn announce_key(group: &Secret, suite: Suite, session: SessionId) -> SealKey {
    SealKey::new(suite, &group.derive(context::ANNOUNCE, &[&session.0.to_be_bytes()]))
}

impl Membership {
    fn new(group: Option<&Secret>, suite: Suite, session: SessionId, sender: &SenderKey) -> Self {
        let nobody = Secret::new([0; 32]);
        let secret = group.unwrap_or(&nobody);
        let id = session.0.to_be_bytes();
        let parts: [&[u8]; 2] = [&id, &sender.0];
        Self {
            join: secret.derive(context::JOIN, &parts),
            device: secret.derive(context::MEMBER, &parts),
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
    up: SealKey,
    down: SealKey,
}

impl DeviceKeys {
    fn new(
        shared: &Secret,
        membership: &Membership,
        suite: Suite,
        (sender, device): (&AgreementKey, &AgreementKey),
    ) -> Self {
        let key = |context| {
            let parts: [&[u8]; 3] = [membership.device.expose(), &sender.0, &device.0];
            SealKey::new(suite, &shared.derive(context, &parts))
        };
        Self { up: key(context::UP), down: key(context::DOWN) }
    }
}

/// Where the body of a datagram begins that is sealed between two.
const fn clear_len(kind: MessageKind) -> usize {
    match kind {
        MessageKind::Join => HEADER_LEN + JOIN_CLEAR,
        _ => HEADER_LEN,
    }
}

/// Marks a datagram as sealed, and seals all of it from `clear` on.
fn seal(key: &SealKey, number: u64, seals: Seals, clear: usize, datagram: &mut Vec<u8>) {
    seals.mark(datagram);
    let (clear, body) = datagram.split_at_mut(clear);
    let tag = key.seal(number, clear, body);
    datagram.extend_from_slice(&tag);
}

/// Opens what [`seal`] made; `None` if it is not that.
fn open<'a>(key: &SealKey, number: u64, clear: usize, datagram: &'a mut [u8]) -> Option<&'a mut [u8]> {
    let (clear, sealed) = datagram.split_at_mut_checked(clear)?;
    key.open(number, clear, sealed)
}

#[cfg(test)]
mod tests;
