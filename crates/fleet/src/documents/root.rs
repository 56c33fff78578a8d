//! The root: which keys sign what in a fleet, and how many of them it takes.

use super::envelope::{Envelope, Kind};
use super::keys::{FleetId, PublicKey, SecretKey};
use super::refusal::DocumentError;
use super::rules::{FORMAT, read, require};
use crate::limits::MAX_ROLE_KEYS;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// A role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoleKind {
    /// Signs roots.
    Root,
    /// Signs tasks: the operators.
    Tasks,
    /// Signs lists: the server.
    Lists,
}

/// Keys, and how many distinct ones of them must sign.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Role {
    /// The keys.
    pub keys: BTreeSet<PublicKey>,
    /// How many of them must sign: at least 1, at most all.
    pub threshold: usize,
}

impl Role {
    /// A role of one key.
    #[must_use]
    pub fn of(key: PublicKey) -> Self {
        Self { keys: BTreeSet::from([key]), threshold: 1 }
    }

    /// Whether `signers` include enough keys of this role.
    pub(super) fn accepts(&self, signers: &BTreeSet<PublicKey>) -> bool {
        signers.intersection(&self.keys).count() >= self.threshold
    }
}

/// A root. Root N + 1 is signed by a threshold of root N's keys and by one of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    format: u64,
    /// The fleet.
    pub fleet: FleetId,
    /// 1 for the first, then one more each time.
    pub version: u64,
    /// When it was made, in seconds since 1970.
    pub issued: u64,
    /// When it ends, in seconds since 1970.
    pub expires: u64,
    /// Who signs roots.
    pub root: Role,
    /// Who signs tasks.
    pub tasks: Role,
    /// Who signs lists.
    pub lists: Role,
}

impl Root {
    /// A root with these terms. Times are in seconds since 1970.
    #[must_use]
    pub fn new(
        (fleet, version): (FleetId, u64),
        (issued, expires): (u64, u64),
        [root, tasks, lists]: [Role; 3],
    ) -> Self {
        Self { format: FORMAT, fleet, version, issued, expires, root, tasks, lists }
    }

    /// Reads a root from a payload. Does not look at signatures.
    ///
    /// # Errors
    /// If it is not a root of a known format, or a role has no key, too many, or a threshold that it cannot reach.
    pub fn parse(payload: &[u8]) -> Result<Self, DocumentError> {
        let root: Self = read(Kind::Root, payload)?;
        root.check()?;
        Ok(root)
    }

    /// Signs the root with `keys`.
    ///
    /// # Errors
    /// As [`Root::parse`].
    pub fn sign(&self, keys: &[&SecretKey]) -> Result<Envelope, DocumentError> {
        self.check()?;
        Ok(super::seal(self, Kind::Root, keys))
    }

    /// The role of this kind.
    #[must_use]
    pub const fn role(&self, kind: RoleKind) -> &Role {
        match kind {
            RoleKind::Root => &self.root,
            RoleKind::Tasks => &self.tasks,
            RoleKind::Lists => &self.lists,
        }
    }

    fn check(&self) -> Result<(), DocumentError> {
        let rule = |holds, member, why| require(holds, Kind::Root, member, why);
        rule(self.version >= 1, "version", "versions begin at 1")?;
        rule(self.issued < self.expires, "expires", "it must be after 'issued'")?;
        for (role, member) in [(&self.root, "root"), (&self.tasks, "tasks"), (&self.lists, "lists")] {
            rule(role.keys.len() <= MAX_ROLE_KEYS, member, "a role has at most 16 keys")?;
            rule(
                (1..=role.keys.len()).contains(&role.threshold),
                member,
                "the threshold must be from 1 to the number of keys",
            )?;
        }
        Ok(())
    }
}
