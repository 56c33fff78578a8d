//! What a device trusts, and the decisions that depend on it.
//!
//! Each decision is a method that returns the next state. The device stores that state, synced, before it acts on the document.
//! A refusal changes nothing.
//!
//! The rules, in their order: enough distinct keys of the role signed it; it is for this fleet; it is meant for this device;
//! it has not expired; it is not older than what was seen; it fits the list.
//!
//! The time that counts is the later of the device's clock and of the newest signed time that the state holds. A clock that went
//! back to 1970 thus cannot revive an expired document.

use super::envelope::{Envelope, Kind};
use super::keys::{FleetId, Hash, PublicKey};
use super::list::{Entry, List};
use super::refusal::{DocumentError, Expired, Refusal};
use super::root::{RoleKind, Root};
use super::rules::{FORMAT, read};
use super::task::Task;
use crate::limits::{MAX_REMEMBERED, MAX_ROOT_STEPS};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Whether the server gives lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listing {
    /// An `mcp serve`: a task counts only if a valid list names it.
    Required,
    /// Another DDI server: serial and expiry of the task are all there is. A freeze lasts at most until the task expires.
    Absent,
}

/// What a device trusts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trusted {
    format: u64,
    device: String,
    root: Root,
    list: Option<SeenList>,
    tasks: BTreeMap<String, SeenTask>,
}

/// The newest list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SeenList {
    version: u64,
    newest: u64,
    expires: u64,
    tasks: Vec<Entry>,
    signers: BTreeSet<PublicKey>,
}

/// The newest task of a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SeenTask {
    serial: u64,
    hash: Hash,
    newest: u64,
    signers: BTreeSet<PublicKey>,
}

impl Trusted {
    /// The state of `device` with root 1, whose payload has the hash `pin` of the enrolment line.
    ///
    /// The root may have expired: newer ones follow it.
    ///
    /// # Errors
    /// If the root is not the pinned one, or does not satisfy its own rules.
    pub fn begin(fleet: FleetId, device: &str, pin: Hash, root: &Envelope) -> Result<Self, Refusal> {
        if root.hash() != pin {
            return Err(Refusal::Pin);
        }
        let first = Root::parse(root.payload())?;
        root.signed_by(Kind::Root, &first.root)?;
        if first.fleet != fleet {
            return Err(Refusal::Fleet { kind: Kind::Root });
        }
        if first.version != 1 {
            return Err(Refusal::RootOrder { expected: 1, number: first.version });
        }
        let device = device.to_owned();
        Ok(Self { format: FORMAT, device, root: first, list: None, tasks: BTreeMap::new() })
    }

    /// Reads a state from the bytes that [`Trusted::to_bytes`] wrote.
    ///
    /// # Errors
    /// If they are damaged, or from a later version.
    pub fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        // A document's kind is needed for the message only.
        read(Kind::Root, bytes).map_err(|error| match error {
            DocumentError::Unreadable(_) => DocumentError::Unreadable("the file of what this device trusts"),
            other => other,
        })
    }

    /// The bytes to be stored.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        // Only string keys and integers: this always has a JSON.
        serde_json::to_vec_pretty(self).unwrap_or_default()
    }

    /// The fleet.
    #[must_use]
    pub const fn fleet(&self) -> FleetId {
        self.root.fleet
    }

    /// The device.
    #[must_use]
    pub fn device(&self) -> &str {
        &self.device
    }

    /// The root in force.
    #[must_use]
    pub const fn root(&self) -> &Root {
        &self.root
    }

    /// When the newest list ends, in seconds since 1970; `None` before the first one.
    #[must_use]
    pub fn list_expires(&self) -> Option<u64> {
        self.list.as_ref().map(|list| list.expires)
    }

    /// The live tasks of the newest list.
    #[must_use]
    pub fn listed(&self) -> &[Entry] {
        self.list.as_ref().map_or(&[], |list| &list.tasks)
    }

    /// The highest serial of a task of this name that the device has taken, or that the newest list names.
    #[must_use]
    pub fn newest_serial(&self, name: &str) -> Option<u64> {
        let listed = self.listed().iter().find(|entry| entry.name == name).map(|entry| entry.serial);
        listed.max(self.tasks.get(name).map(|task| task.serial))
    }

    /// The time that counts while the device's clock says `clock`, in seconds since 1970.
    #[must_use]
    pub fn time(&self, clock: u64) -> u64 {
        let list = self.list.as_ref().map_or(0, |list| list.newest);
        let tasks = self.tasks.values().map(|task| task.newest).max().unwrap_or(0);
        clock.max(self.root.issued).max(list).max(tasks)
    }

    /// Takes the roots that follow the trusted one, in order. The last of them must not have expired.
    ///
    /// Whatever a root's change of keys invalidates is forgotten: the newest list, or the newest task of a name, if its
    /// signatures would no longer be enough. So after an attacker with a stolen key has used up the numbers, a root without that
    /// key makes the numbers usable again. What the remaining keys signed stays known.
    ///
    /// # Errors
    /// If there are more than 64, or one is not signed by both itself and the root before, is of another fleet, or is not the next;
    /// or the last one has expired.
    pub fn take_roots(&self, roots: &[Envelope], clock: u64) -> Result<Self, Refusal> {
        if roots.len() as u64 > MAX_ROOT_STEPS {
            return Err(Refusal::RootSteps);
        }
        let mut state = self.clone();
        for root in roots {
            state = state.next_root(root)?;
        }
        state.unexpired(Kind::Root, state.root.expires, clock)?;
        Ok(state)
    }

    fn next_root(&self, envelope: &Envelope) -> Result<Self, Refusal> {
        envelope.signed_by(Kind::Root, &self.root.root)?;
        let root = Root::parse(envelope.payload())?;
        envelope.signed_by(Kind::Root, &root.root)?;
        if root.fleet != self.root.fleet {
            return Err(Refusal::Fleet { kind: Kind::Root });
        }
        // Versions begin at 1 and are only counted up, so this cannot overflow before the heat death.
        let expected = self.root.version.saturating_add(1);
        if root.version < expected {
            let (number, seen) = (root.version, self.root.version);
            return Err(Refusal::Rollback { kind: Kind::Root, name: String::new(), number, seen });
        }
        if root.version > expected {
            return Err(Refusal::RootOrder { expected, number: root.version });
        }
        let mut next = Self { root, ..self.clone() };
        let accepts = |kind, signers: &BTreeSet<PublicKey>| next.root.role(kind).accepts(signers);
        let list = next.list.clone().filter(|list| accepts(RoleKind::Lists, &list.signers));
        let tasks = next.tasks.iter().filter(|(_, task)| accepts(RoleKind::Tasks, &task.signers));
        let tasks = tasks.map(|(name, task)| (name.clone(), task.clone())).collect();
        (next.list, next.tasks) = (list, tasks);
        Ok(next)
    }

    /// Takes a list. `nonce` is what the device asked with, in hex; `None` if it sent none.
    ///
    /// # Errors
    /// If a rule of the module is broken: a lower version, the same version with other tasks, or an entry that is older than the
    /// task that was seen under its name.
    pub fn take_list(&self, envelope: &Envelope, nonce: Option<&str>, clock: u64) -> Result<Self, Refusal> {
        const KIND: Kind = Kind::List;
        self.unexpired(Kind::Root, self.root.expires, clock)?;
        let signers = envelope.signed_by(KIND, &self.root.lists)?;
        let list = List::parse(envelope.payload())?;
        if list.fleet != self.root.fleet {
            return Err(Refusal::Fleet { kind: KIND });
        }
        if list.device != self.device {
            return Err(Refusal::Device { kind: KIND });
        }
        if nonce.is_some() && list.nonce.as_deref() != nonce {
            return Err(Refusal::Nonce);
        }
        self.unexpired(KIND, list.expires, clock)?;
        if let Some(seen) = &self.list {
            let same = list.tasks == seen.tasks;
            follows(KIND, "", (list.version, seen.version), same)?;
        }
        for entry in &list.tasks {
            if let Some(seen) = self.tasks.get(&entry.name) {
                follows(Kind::Task, &entry.name, (entry.serial, seen.serial), entry.hash == seen.hash)?;
            }
        }
        let newest = self.list.as_ref().map_or(0, |seen| seen.newest).max(list.issued);
        let List { version, expires, tasks, .. } = list;
        Ok(Self { list: Some(SeenList { version, newest, expires, tasks, signers }), ..self.clone() })
    }

    /// Takes a task. The task is to be acted on once the returned state is stored. A task that was seen before is taken again.
    ///
    /// # Errors
    /// If a rule of the module is broken. In particular, a lower serial than seen under its name is a rollback (code 4090), and with
    /// [`Listing::Required`] a valid list must name exactly this task.
    pub fn take_task(
        &self,
        envelope: &Envelope,
        attributes: &BTreeMap<String, String>,
        listing: Listing,
        clock: u64,
    ) -> Result<(Self, Task), Refusal> {
        const KIND: Kind = Kind::Task;
        self.unexpired(Kind::Root, self.root.expires, clock)?;
        let signers = envelope.signed_by(KIND, &self.root.tasks)?;
        let task = Task::parse(envelope.payload())?;
        if task.fleet != self.root.fleet {
            return Err(Refusal::Fleet { kind: KIND });
        }
        if !task.to.includes(&self.device, attributes) {
            return Err(Refusal::Device { kind: KIND });
        }
        self.unexpired(KIND, task.expires, clock)?;
        let hash = envelope.hash();
        let mut newest = task.issued;
        if let Some(seen) = self.tasks.get(&task.name) {
            follows(KIND, &task.name, (task.serial, seen.serial), hash == seen.hash)?;
            newest = newest.max(seen.newest);
        } else if self.tasks.len() >= MAX_REMEMBERED {
            return Err(Refusal::TooManyNames);
        }
        self.listed_now(&task.name, task.serial, hash, listing, clock)?;
        let mut next = self.clone();
        next.tasks.insert(task.name.clone(), SeenTask { serial: task.serial, hash, newest, signers });
        Ok((next, task))
    }

    /// Whether a step of `task`, whose payload has this hash, may begin now. To be asked before each step: it was taken when it
    /// was fresh, and that may have been days ago.
    ///
    /// # Errors
    /// If the task was replaced or invalidated, or task or root have expired, or, with [`Listing::Required`], no valid list names it.
    pub fn may_begin(&self, task: &Task, hash: Hash, listing: Listing, clock: u64) -> Result<(), Refusal> {
        self.unexpired(Kind::Root, self.root.expires, clock)?;
        self.unexpired(Kind::Task, task.expires, clock)?;
        let (name, serial) = (&task.name, task.serial);
        match self.tasks.get(name) {
            Some(seen) => follows(Kind::Task, name, (serial, seen.serial), hash == seen.hash)?,
            None => return Err(Refusal::Unlisted { name: name.clone(), serial, hash }),
        }
        self.listed_now(name, serial, hash, listing, clock)
    }

    /// Whether the newest list is valid.
    ///
    /// # Errors
    /// If there is none, or it has expired: the server is away, or somebody holds newer lists back.
    pub fn not_frozen(&self, clock: u64) -> Result<(), Refusal> {
        let list = self.list.as_ref().ok_or(Refusal::NoList)?;
        let time = self.time(clock);
        if time >= list.expires {
            return Err(Refusal::Frozen(Expired { expires: list.expires, time, clock }));
        }
        Ok(())
    }

    fn listed_now(
        &self,
        name: &str,
        serial: u64,
        hash: Hash,
        listing: Listing,
        clock: u64,
    ) -> Result<(), Refusal> {
        if listing == Listing::Absent {
            return Ok(());
        }
        self.not_frozen(clock)?;
        let named = |entry: &Entry| entry.name == name && entry.serial == serial && entry.hash == hash;
        if self.listed().iter().any(named) {
            return Ok(());
        }
        Err(Refusal::Unlisted { name: name.to_owned(), serial, hash })
    }

    fn unexpired(&self, kind: Kind, expires: u64, clock: u64) -> Result<(), Refusal> {
        let time = self.time(clock);
        if time < expires {
            return Ok(());
        }
        Err(Refusal::Expired { kind, at: Expired { expires, time, clock } })
    }
}

/// Fails unless `number` is above `seen`, or equal with the `same` content.
fn follows(kind: Kind, name: &str, (number, seen): (u64, u64), same: bool) -> Result<(), Refusal> {
    let name = || name.to_owned();
    match number.cmp(&seen) {
        std::cmp::Ordering::Less => Err(Refusal::Rollback { kind, name: name(), number, seen }),
        std::cmp::Ordering::Equal if !same => Err(Refusal::Changed { kind, name: name(), number }),
        _ => Ok(()),
    }
}
