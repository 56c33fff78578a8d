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
pub enum Judgement {
    /// Given by hand.
    Pinned,
    /// Seen before, here or at another address: a sender that moved is the same sender.
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

impl Judgement {
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
    pub fn judge(&self, key: &SenderKey, ip: IpAddr) -> Judgement {
        if self.pinned.contains(key) {
            return Judgement::Pinned;
        }
        if !self.pinned.is_empty() {
            return Judgement::Stranger;
        }
        if self.known.values().any(|known| known == key) {
            return Judgement::Known;
        }
        if let Some(&expected) = self.known.get(&ip.to_canonical()) {
            return Judgement::Changed { expected };
        }
        match self.strangers {
            Strangers::Pin => Judgement::FirstUse,
            Strangers::Unverified => Judgement::Unverified,
            Strangers::Refuse => Judgement::Stranger,
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
    fn known_senders_are_known_wherever_they_are() {
        for strangers in [Strangers::Pin, Strangers::Unverified, Strangers::Refuse] {
            let trust = trust(strangers);
            assert_eq!(trust.judge(&A, ip(1)), Judgement::Known);
            assert_eq!(trust.judge(&A, ip(9)), Judgement::Known);
            // Even where another one was.
            assert_eq!(trust.judge(&A, ip(2)), Judgement::Known);
        }
    }

    #[test]
    fn another_key_at_a_known_address_is_refused() {
        for strangers in [Strangers::Pin, Strangers::Unverified, Strangers::Refuse] {
            assert_eq!(trust(strangers).judge(&C, ip(1)), Judgement::Changed { expected: A });
            let mapped = IpAddr::from([0, 0, 0, 0, 0, 0xffff, 0x0a00, 1]);
            assert_eq!(trust(strangers).judge(&C, mapped), Judgement::Changed { expected: A });
        }
    }

    #[test]
    fn strangers() {
        let judge = |strangers| trust(strangers).judge(&C, ip(9));
        assert_eq!(judge(Strangers::Pin), Judgement::FirstUse);
        assert_eq!(judge(Strangers::Unverified), Judgement::Unverified);
        assert_eq!(judge(Strangers::Refuse), Judgement::Stranger);
        assert_eq!(Trust::anybody().judge(&C, ip(1)), Judgement::Unverified);
    }

    #[test]
    fn with_keys_given_by_hand_only_those_are_taken() {
        let trust = Trust { pinned: vec![B, C], ..trust(Strangers::Pin) };
        assert_eq!(trust.judge(&A, ip(1)), Judgement::Stranger);
        // Given by hand is more than seen before.
        assert_eq!(trust.judge(&B, ip(2)), Judgement::Pinned);
        assert_eq!(trust.judge(&C, ip(1)), Judgement::Pinned);
    }

    #[test]
    fn what_is_accepted() {
        let refused = [Judgement::Changed { expected: A }, Judgement::Stranger];
        assert!(refused.iter().all(|judgement| !judgement.accepted()));
        let taken = [Judgement::Pinned, Judgement::Known, Judgement::FirstUse, Judgement::Unverified];
        assert!(taken.iter().all(|judgement| judgement.accepted()));
    }
}
