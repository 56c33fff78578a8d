//! Trust in a sender's key: keys given by the user, keys seen before, and unknown keys. Signatures show that the
//! sender *has* the key; this module decides whether the key is accepted.

use crate::units::SenderKey;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// What happens to a sender whose key is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strangers {
    /// With a user watching: its key is shown and remembered (trust on first use).
    Pin,
    /// Without a user: it is accepted, and reported as unverified.
    #[default]
    Unverified,
    /// It is refused.
    Refuse,
    /// It is refused, because more than a file depends on it; see [`Trust::known_only`].
    Unknown,
}

/// The senders from which a receiver accepts files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    /// If not empty, only these senders are accepted.
    pub pinned: Vec<SenderKey>,
    /// Senders seen before, by their addresses.
    pub known: BTreeMap<IpAddr, SenderKey>,
    /// What happens to unknown senders.
    pub strangers: Strangers,
}

/// The decision about a sender's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrustDecision {
    /// The user gave this key.
    Pinned,
    /// The key was seen before, here or at another address that no other sender is known at: a sender that moved is the
    /// same sender.
    Known,
    /// Not seen before; it is remembered from now on.
    FirstUse,
    /// Not known, but accepted.
    Unverified,
    /// Refused: another sender was seen at this address.
    Changed {
        /// The key that was seen at this address before.
        expected: SenderKey,
    },
    /// Refused: the key is unknown.
    Stranger,
    /// Refused: the key is unknown, and more than a file depends on the sender; see [`Trust::known_only`].
    Unknown,
}

impl TrustDecision {
    /// Whether files are accepted from the sender.
    #[must_use]
    pub const fn accepted(self) -> bool {
        matches!(self, Self::Pinned | Self::Known | Self::FirstUse | Self::Unverified)
    }

    /// The word for it, in events and reports.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Pinned => "pinned",
            Self::Known => "known",
            Self::FirstUse => "first_use",
            Self::Unverified => "unverified",
            Self::Changed { .. } => "changed",
            Self::Stranger => "stranger",
            Self::Unknown => "unknown",
        }
    }
}

/// A receiver that needs a known sender knows none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no sender is known; name one, or install a group key")]
pub struct NobodyKnown;

impl Trust {
    /// Trust in every sender, without a user.
    #[must_use]
    pub fn anybody() -> Self {
        Self::default()
    }

    /// Decides about the key `key` at the address `ip`.
    #[must_use]
    pub fn decide(&self, key: &SenderKey, ip: IpAddr) -> TrustDecision {
        if self.pinned.contains(key) {
            return TrustDecision::Pinned;
        }
        if !self.pinned.is_empty() {
            return TrustDecision::Stranger;
        }
        if let Some(&expected) = self.known.get(&ip.to_canonical()).filter(|there| *there != key) {
            return TrustDecision::Changed { expected };
        }
        if self.known.values().any(|known| known == key) {
            return TrustDecision::Known;
        }
        match self.strangers {
            Strangers::Pin => TrustDecision::FirstUse,
            Strangers::Unverified => TrustDecision::Unverified,
            Strangers::Refuse => TrustDecision::Stranger,
            Strangers::Unknown => TrustDecision::Unknown,
        }
    }

    /// Decides about the origin with the key `key`, whose object somebody else sends. The address says nothing about an
    /// origin, and nobody becomes known by what others tell: `None` if it is neither pinned nor known.
    #[must_use]
    pub fn decide_origin(&self, key: &SenderKey) -> Option<TrustDecision> {
        if self.pinned.contains(key) {
            return Some(TrustDecision::Pinned);
        }
        let known = self.pinned.is_empty() && self.known.values().any(|known| known == key);
        known.then_some(TrustDecision::Known)
    }

    /// Requires a known sender. Apply it to whatever runs a command on a receiver, or overwrites a device there: a
    /// sender that is trusted on first use, or accepted unverified, is not enough for that. A sender is known if the
    /// session is sealed with a group key (`sealed`), or if its key is pinned or was remembered earlier.
    ///
    /// # Errors
    /// If no sender can be known.
    pub fn known_only(self, sealed: bool) -> Result<Self, NobodyKnown> {
        if sealed || !self.pinned.is_empty() {
            return Ok(self);
        }
        if self.known.is_empty() {
            return Err(NobodyKnown);
        }
        Ok(Self { strangers: Strangers::Unknown, ..self })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: SenderKey = SenderKey([1; 32]);
    const B: SenderKey = SenderKey([2; 32]);
    const C: SenderKey = SenderKey([3; 32]);

    fn ip(n: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, n])
    }

    fn trust(strangers: Strangers) -> Trust {
        Trust { pinned: vec![], known: [(ip(1), A), (ip(2), B)].into(), strangers }
    }

    #[test]
    fn known_senders_are_known_wherever_nobody_else_is_expected() {
        for strangers in [Strangers::Pin, Strangers::Unverified, Strangers::Refuse] {
            let trust = trust(strangers);
            assert_eq!(trust.decide(&A, ip(1)), TrustDecision::Known);
            assert_eq!(trust.decide(&A, ip(9)), TrustDecision::Known);
            // But not where another one is expected: one known sender may not pose as another.
            assert_eq!(trust.decide(&A, ip(2)), TrustDecision::Changed { expected: B });
        }
    }

    #[test]
    fn another_key_at_a_known_address_is_refused() {
        for strangers in [Strangers::Pin, Strangers::Unverified, Strangers::Refuse] {
            assert_eq!(trust(strangers).decide(&C, ip(1)), TrustDecision::Changed { expected: A });
            let mapped = IpAddr::from([0, 0, 0, 0, 0, 0xffff, 0x0a00, 1]);
            assert_eq!(trust(strangers).decide(&C, mapped), TrustDecision::Changed { expected: A });
        }
    }

    #[test]
    fn strangers() {
        let decide = |strangers| trust(strangers).decide(&C, ip(9));
        assert_eq!(decide(Strangers::Pin), TrustDecision::FirstUse);
        assert_eq!(decide(Strangers::Unverified), TrustDecision::Unverified);
        assert_eq!(decide(Strangers::Refuse), TrustDecision::Stranger);
        assert_eq!(Trust::anybody().decide(&C, ip(1)), TrustDecision::Unverified);
    }

    #[test]
    fn with_keys_given_by_hand_only_those_are_taken() {
        let trust = Trust { pinned: vec![B, C], ..trust(Strangers::Pin) };
        assert_eq!(trust.decide(&A, ip(1)), TrustDecision::Stranger);
        // Given by hand is more than seen before.
        assert_eq!(trust.decide(&B, ip(2)), TrustDecision::Pinned);
        assert_eq!(trust.decide(&C, ip(1)), TrustDecision::Pinned);
    }

    #[test]
    fn an_origin_is_known_wherever_its_object_comes_from_and_never_by_hearsay() {
        for strangers in [Strangers::Pin, Strangers::Unverified, Strangers::Refuse, Strangers::Unknown] {
            let trust = trust(strangers);
            assert_eq!(trust.decide_origin(&A), Some(TrustDecision::Known));
            assert_eq!(trust.decide_origin(&C), None);
            let trust = Trust { pinned: vec![C], ..trust };
            assert_eq!(trust.decide_origin(&C), Some(TrustDecision::Pinned));
            assert_eq!(trust.decide_origin(&A), None, "given by hand, only those are taken");
        }
    }

    #[test]
    fn a_deed_needs_a_sender_that_is_known() {
        for strangers in [Strangers::Pin, Strangers::Unverified, Strangers::Refuse] {
            let strict = trust(strangers).known_only(false).unwrap();
            assert_eq!(strict.decide(&A, ip(1)), TrustDecision::Known);
            assert_eq!(strict.decide(&C, ip(9)), TrustDecision::Unknown);
            assert_eq!(strict.decide(&C, ip(1)), TrustDecision::Changed { expected: A });
            let nobody = Trust { strangers, ..Trust::default() };
            assert_eq!(nobody.clone().known_only(false), Err(NobodyKnown));
            // A group key, or a key given by hand, decides by itself.
            assert_eq!(nobody.clone().known_only(true), Ok(nobody.clone()));
            let pinned = Trust { pinned: vec![B], ..nobody };
            assert_eq!(pinned.clone().known_only(false), Ok(pinned));
        }
    }

    #[test]
    fn what_is_accepted() {
        let refused =
            [TrustDecision::Changed { expected: A }, TrustDecision::Stranger, TrustDecision::Unknown];
        assert!(refused.iter().all(|decision| !decision.accepted()));
        let taken =
            [TrustDecision::Pinned, TrustDecision::Known, TrustDecision::FirstUse, TrustDecision::Unverified];
        assert!(taken.iter().all(|decision| decision.accepted()));
    }
}
