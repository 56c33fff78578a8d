//! Whether a sender's key is to be believed: keys given by hand, keys seen before, and what becomes of
//! strangers. Whether the sender *has* the key is for signatures to say; here is only whose it is.

use crate::units::SenderKey;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// What becomes of a sender whose key is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strangers {
    /// Somebody watches: its key is shown and remembered (trust on first use).
    Pin,
    /// Nobody watches: it is taken, and said to be unverified.
    #[default]
    Unverified,
    /// It is refused.
    Refuse,
}

/// Whom a receiver takes a file from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    /// If there are any, these senders and no others.
    pub pinned: Vec<SenderKey>,
    /// Senders seen before, by the address they were seen at.
    pub known: BTreeMap<IpAddr, SenderKey>,
    /// What becomes of others.
    pub strangers: Strangers,
}

/// What is thought of a sender's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrustDecision {
    /// Given by hand.
    Pinned,
    /// Seen before, here or at another address that is nobody else's: a sender that moved is the same sender.
    Known,
    /// Not seen before; to be remembered from now on.
    FirstUse,
    /// Not known, and taken all the same.
    Unverified,
    /// This address was another sender's: refused.
    Changed {
        /// The key that was seen there before.
        expected: SenderKey,
    },
    /// Not among those that are taken: refused.
    Stranger,
}

impl TrustDecision {
    /// Whether files are taken from the sender.
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
        }
    }
}

impl Trust {
    /// Trust in whoever comes, nobody watching.
    #[must_use]
    pub fn anybody() -> Self {
        Self::default()
    }

    /// What to think of the key `key` at the address `ip`.
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
        }
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
    fn what_is_accepted() {
        let refused = [TrustDecision::Changed { expected: A }, TrustDecision::Stranger];
        assert!(refused.iter().all(|decision| !decision.accepted()));
        let taken =
            [TrustDecision::Pinned, TrustDecision::Known, TrustDecision::FirstUse, TrustDecision::Unverified];
        assert!(taken.iter().all(|decision| decision.accepted()));
    }
}
