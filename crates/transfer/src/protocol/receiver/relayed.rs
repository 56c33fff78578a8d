//! Objects of a trusted origin that somebody else sends.
//!
//! The device trusts such a sender with nothing. The origin's signature covers the root, and the object gets its name only
//! if its blocks give that root. Whoever has an old object and its proof could pass that on, so the counter must not be
//! below that of the last session of which this device has completed an object of this name.

use super::Receiver;
use super::session::Session;
use crate::protocol::event::ReceiverEvent;
use crate::protocol::provenance::Provenance;
use crate::units::SenderKey;
use crate::wire::{Announce, ObjectKind};
use std::net::SocketAddr;

impl Receiver {
    /// Where the object comes from, if it is in place.
    #[must_use]
    pub fn provenance(&self) -> Option<Provenance> {
        let session = self.session.as_ref().filter(|_| self.committed.is_some())?;
        session.provenance.as_deref().cloned()
    }

    /// Whether the device takes relayed objects, and trusts the origin of this one.
    pub(super) fn trusts_origin(&mut self, announce: &Announce, from: SocketAddr) -> bool {
        let Some(completed) = &self.config.relayed else { return false };
        let [object] = announce.objects[..] else { return false };
        // A tree is laid out before all its blocks are known to be the origin's.
        if announce.one_way.is_some() || object.kind == ObjectKind::Tree {
            return false;
        }
        let Some(provenance) = Provenance::of(announce) else { return false };
        let (key, counter) = (provenance.proof.key, provenance.proof.counter);
        if self.config.trust.decide_origin(&key).is_none() || !provenance.holds(self.config.primitives) {
            return false;
        }
        let old = completed.get(&provenance.origin_name()).is_some_and(|last| counter < *last);
        if old && self.tells_of_old(key) {
            self.event(ReceiverEvent::OldSession { key, address: from });
        }
        !old
    }
}

impl Session {
    /// Whether an announcement has the proof that is known already, or none as before.
    pub fn knows_proof_of(&self, announce: &Announce) -> bool {
        self.provenance.as_ref().map(|known| &known.proof) == announce.origin.as_deref()
    }

    /// The key that the device trusts: the origin's of a relayed object, or else the sender's.
    pub fn trusted(&self) -> SenderKey {
        let origin = self.provenance.as_ref().filter(|_| self.relayed);
        origin.map_or_else(|| self.side.sender(), |origin| origin.proof.key)
    }
}
