//! Identity of devices: the key that a join proves, the list of devices, and keys from earlier sessions.
//!
//! ```text
//!  join with a proof ──► the proof holds ──► on the list, by key or else by name ──► the key seen before
//!        none: no key        else: junk          else: NOT LISTED                       else: a warning
//! ```

use super::Sender;
use super::admission::PendingJoin;
use crate::crypto::device::Claim;
use crate::limits::MAX_TOLD_NOT_LISTED;
use crate::protocol::event::SenderEvent;
use crate::task::DeviceList;
use crate::time::Time;
use crate::units::{AgreementKey, DeviceId, DeviceKey};
use crate::wire::{AdmitVerdict, Join};
use std::collections::{BTreeMap, BTreeSet};

/// What the sender remembers about the identity of devices.
#[derive(Debug, Default)]
pub(super) struct Identities {
    /// Keys from earlier sessions, of devices that have not joined this one.
    known: BTreeMap<DeviceId, DeviceKey>,
    /// Unlisted devices that the user was told about.
    told: BTreeSet<DeviceId>,
}

impl Identities {
    pub const fn new(known: BTreeMap<DeviceId, DeviceKey>) -> Self {
        Self { known, told: BTreeSet::new() }
    }
}

impl Sender {
    pub(super) const fn list(&self) -> Option<&DeviceList> {
        self.config.task.options.devices.as_ref()
    }

    /// Whether a join has a valid proof of its device's key, or no proof.
    pub(super) fn proof_is_sound(&self, agreement: &AgreementKey, join: &Join) -> bool {
        let Some(proof) = &join.proof else { return true };
        let sender = self.side.key();
        let claim = Claim { session: self.session(), sender: &sender, agreement, device: &join.device };
        claim.verify(self.side.primitives(), &proof.key, &proof.signature)
    }

    /// Gives a join the identifier and name of its listed device. Returns whether the device may join. Turns away
    /// devices that are not listed; without a list, every device may join.
    pub(super) fn identify(&mut self, pending: &mut PendingJoin, now: Time) -> bool {
        let Some(list) = self.list() else { return true };
        let (label, key) = (&pending.join.label, pending.key());
        if let Some(listed) = list.find(label, key.as_ref()) {
            let (device, name) = (listed.device, listed.name.clone());
            pending.join.device = device;
            pending.join.label = name;
            return true;
        }
        let named = list.named(label).is_some();
        self.turn_away(pending, AdmitVerdict::NotListed, now);
        if self.identities.told.len() < MAX_TOLD_NOT_LISTED
            && self.identities.told.insert(pending.join.device)
        {
            let (label, address) = (pending.join.label.clone(), pending.address);
            self.event(SenderEvent::NotListed { label, address, key, named });
        }
        false
    }

    /// Compares the key of an admitted device with the key from earlier sessions, once in a session. A listed key
    /// needs no comparison.
    pub(super) fn compare_key(&mut self, device: DeviceId, label: &str, key: Option<DeviceKey>) {
        let enrolled =
            self.list().and_then(|list| list.find(label, key.as_ref())).is_some_and(|l| l.key.is_some());
        let Some(before) = self.identities.known.remove(&device).filter(|_| !enrolled) else { return };
        if key != Some(before) {
            self.event(SenderEvent::DeviceKeyChanged { device, label: label.to_owned(), key, before });
        }
    }
}
