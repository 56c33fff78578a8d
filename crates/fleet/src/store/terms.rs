//! What the server alone decides about a task, and in which order its devices get it.

use crate::ddi::Handling;
use crate::limits::MAX_NAME;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// Most groups of a task, the last one aside.
const MAX_GROUPS: usize = 32;

/// What the server alone decides about a task. Not signed: it says when the task is offered and how it is presented to
/// clients of the device interface, and cannot change what a device does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// The chunk's part: `bApp`, `os`...
    pub part: String,
    /// How the installation is handled: forced, or attempted when it suits the device.
    pub update: Handling,
    /// Whether devices only load the objects, and install nothing.
    pub download_only: bool,
    /// Whether each device must confirm first.
    pub confirm: bool,
    /// At how many devices the task may be under way at once; 0: at any number.
    pub at_once: Amount,
    /// Tasks of higher weight are offered first.
    pub weight: u16,
    /// Whether devices also load only from the task's earliest start on and in its window, in the server's time zone.
    #[serde(default)]
    pub load_in_window: bool,
    /// Groups of devices that get the task one after the other; the devices in none of them are the last group. None: all
    /// devices get it at the same time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<Group>,
    /// How much of a group must be done before the next one gets the task; absent: all but what may fail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub success: Option<Percent>,
    /// How much of a group may fail. If more does, the task is paused.
    #[serde(default)]
    pub failures: Percent,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            part: "bApp".into(),
            update: Handling::Forced,
            download_only: false,
            confirm: false,
            at_once: Amount::Devices(0),
            weight: 1000,
            load_in_window: false,
            groups: Vec::new(),
            success: None,
            failures: Percent(0),
        }
    }
}

impl Terms {
    /// Why these are no terms; `None` if they are.
    #[must_use]
    pub fn wrong(&self) -> Option<&'static str> {
        let tag = |group: &Group| match group {
            Group::Tag(tag) => is_tag(tag),
            Group::Amount(_) => true,
        };
        if !(1..=MAX_NAME).contains(&self.part.len()) || self.part.contains(char::is_control) {
            Some("a part has 1 to 128 characters")
        } else if self.groups.len() > MAX_GROUPS || !self.groups.iter().all(tag) {
            Some("there are at most 32 groups, and a tag has 1 to 128 characters without blanks")
        } else if self.groups.is_empty() && (self.success.is_some() || self.failures != Percent(0)) {
            Some("what must be done and what may fail of each group is said of tasks with groups only")
        } else {
            None
        }
    }

    /// The names of the groups, and of the last one.
    pub(crate) fn names(&self) -> impl Iterator<Item = String> {
        self.groups.iter().map(ToString::to_string).chain(std::iter::once("all others".to_owned()))
    }

    /// How much of a group must be done before the next one gets the task.
    pub(super) fn required(&self) -> Percent {
        self.success.unwrap_or(Percent(100 - self.failures.0))
    }
}

/// Whether this can be a tag.
pub(crate) fn is_tag(text: &str) -> bool {
    (1..=MAX_NAME).contains(&text.len()) && !text.contains(|c: char| c.is_control() || c.is_whitespace())
}

/// A whole number of hundredths, from 0 to 100. Its text is `10%`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Percent(u8);

impl Percent {
    /// All of it.
    pub const ALL: Self = Self(100);

    /// This much of `all`, rounded up.
    #[must_use]
    pub fn of(self, all: u64) -> u64 {
        all.saturating_mul(self.0.into()).div_ceil(100)
    }

    /// This much of `all`, rounded down.
    #[must_use]
    pub const fn within(self, all: u64) -> u64 {
        all.saturating_mul(self.0 as u64) / 100
    }

    /// Whether `part` of `all` is more.
    #[must_use]
    pub const fn is_exceeded(self, part: u64, all: u64) -> bool {
        part.saturating_mul(100) > all.saturating_mul(self.0 as u64)
    }
}

/// A number of devices, or a share of all those that are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Amount {
    /// So many.
    Devices(u32),
    /// This share of them.
    Share(Percent),
}

impl Amount {
    /// How many of `all` that is. A share is rounded up.
    #[must_use]
    pub fn of(self, all: u64) -> u64 {
        match self {
            Self::Devices(n) => n.into(),
            Self::Share(share) => share.of(all),
        }
    }
}

/// Which devices get a task before others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Group {
    /// Those with this tag.
    Tag(String),
    /// So many of those that are in no earlier group; a share is one of all devices of the task.
    Amount(Amount),
}

impl Group {
    /// The groups of `devices`, each with its tags: for each device in turn, the number of its group. Earlier devices come
    /// into earlier groups.
    pub(super) fn divide<'a>(
        groups: &[Self],
        devices: impl ExactSizeIterator<Item = Option<&'a BTreeSet<String>>>,
    ) -> Vec<usize> {
        let all = devices.len() as u64;
        let tags: Vec<_> = devices.collect();
        let mut found = vec![groups.len(); tags.len()];
        for (number, group) in groups.iter().enumerate() {
            let free = found.iter_mut().zip(&tags).filter(|(found, _)| **found == groups.len());
            match group {
                Self::Tag(_) => {
                    free.filter(|(_, tags)| group.has(**tags)).for_each(|(found, _)| *found = number);
                }
                Self::Amount(amount) => {
                    let most = usize::try_from(amount.of(all)).unwrap_or(usize::MAX);
                    free.take(most).for_each(|(found, _)| *found = number);
                }
            }
        }
        found
    }

    /// The group of a device with these tags that comes later.
    pub(super) fn of_late(groups: &[Self], tags: &BTreeSet<String>) -> usize {
        groups.iter().position(|group| group.has(Some(tags))).unwrap_or(groups.len())
    }

    fn has(&self, tags: Option<&BTreeSet<String>>) -> bool {
        matches!(self, Self::Tag(tag) if tags.is_some_and(|tags| tags.contains(tag)))
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

impl FromStr for Percent {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = text.strip_suffix('%').and_then(|number| number.parse().ok());
        number.filter(|n| *n <= 100).map(Self).ok_or("expected a per cent from 0% to 100%")
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Devices(n) => n.fmt(f),
            Self::Share(share) => share.fmt(f),
        }
    }
}

impl FromStr for Amount {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let expected = "expected a number of devices, or a per cent of them such as 10%";
        match text.parse() {
            Ok(n) => Ok(Self::Devices(n)),
            Err(_) => text.parse().map(Self::Share).map_err(|_| expected),
        }
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => write!(f, "tag:{tag}"),
            Self::Amount(amount) => amount.fmt(f),
        }
    }
}

impl FromStr for Group {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "expected tag:TAG, a number of devices, or a per cent of them such as 10%";
        match text.strip_prefix("tag:") {
            Some(tag) if is_tag(tag) => Ok(Self::Tag(tag.to_owned())),
            Some(_) => Err(EXPECTED),
            None => text.parse().map(Self::Amount).map_err(|_| EXPECTED),
        }
    }
}

/// Makes a type's text its form in JSON.
macro_rules! as_text {
    ($($name:ty),*) => {$(
        impl TryFrom<String> for $name {
            type Error = &'static str;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.to_string()
            }
        }
    )*};
}
as_text!(Percent, Group);

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(of: &[&str]) -> Vec<Group> {
        of.iter().map(|text| text.parse().expect("a group")).collect()
    }

    #[test]
    fn what_people_write_is_what_they_read() {
        for text in ["0%", "100%", "5%"] {
            assert_eq!(text.parse::<Percent>().map(|p| p.to_string()), Ok(text.to_owned()));
        }
        for text in ["tag:canary", "5", "10%"] {
            assert_eq!(text.parse::<Group>().map(|group| group.to_string()), Ok(text.to_owned()));
        }
        for wrong in ["", "101%", "-1%", "5", "%"] {
            assert!(wrong.parse::<Percent>().is_err(), "{wrong}");
        }
        for wrong in ["", "tag:", "tag:a b", "canary", "-5", "101%", "5 %"] {
            assert!(wrong.parse::<Group>().is_err(), "{wrong}");
        }
        for (amount, text) in [("3", "3"), ("10%", "\"10%\"")] {
            let amount: Amount = amount.parse().expect("an amount");
            assert_eq!(serde_json::to_string(&amount).expect("JSON"), text);
            assert_eq!(serde_json::from_str::<Amount>(text).expect("read"), amount);
        }
        assert!(serde_json::from_str::<Amount>("-1").is_err());
    }

    #[test]
    fn terms_from_before_there_were_groups_are_read() {
        let text =
            r#"{"part":"os","update":"forced","download_only":false,"confirm":false,"at_once":2,"weight":1}"#;
        let terms: Terms = serde_json::from_str(text).expect("terms");
        assert_eq!(
            (terms.at_once, terms.groups.len(), terms.required()),
            (Amount::Devices(2), 0, Percent::ALL)
        );
        assert_eq!(terms.wrong(), None);
        let wrong: [fn(&mut Terms); 5] = [
            |t| t.part = String::new(),
            |t| t.success = Some(Percent(90)),
            |t| t.failures = Percent(1),
            |t| t.groups = vec![Group::Tag("a b".into())],
            |t| t.groups = vec![Group::Amount(Amount::Devices(1)); 33],
        ];
        for change in wrong {
            let mut terms = terms.clone();
            change(&mut terms);
            assert!(terms.wrong().is_some(), "{terms:?}");
        }
    }

    #[test]
    fn shares_are_rounded_up() {
        let ten: Amount = "10%".parse().expect("an amount");
        assert_eq!([0, 1, 10, 11, 20].map(|all| ten.of(all)), [0, 1, 1, 2, 2]);
        assert_eq!(Percent::ALL.of(7), 7);
        assert_eq!(Percent(0).of(7), 0);
        assert_eq!(Amount::Devices(3).of(1), 3);
        assert_eq!([0, 9, 10, 19].map(|all| Percent(10).within(all)), [0, 0, 1, 1]);
        let exceeded = |part, all| Percent(10).is_exceeded(part, all);
        assert_eq!(
            [(0, 0), (1, 10), (2, 10), (1, 9)].map(|(part, all)| exceeded(part, all)),
            [false, false, true, true]
        );
    }

    #[test]
    fn each_device_is_in_one_group() {
        let canary = BTreeSet::from(["canary".to_owned()]);
        let mut tags = [None; 10];
        (tags[3], tags[7]) = (Some(&canary), Some(&canary));
        let divided = |of: &[&str]| Group::divide(&groups(of), tags.iter().copied());
        assert_eq!(divided(&["tag:canary", "1", "30%"]), [1, 2, 2, 0, 2, 3, 3, 0, 3, 3]);
        assert_eq!(divided(&["100%", "tag:canary"]), [0; 10]);
        assert_eq!(divided(&["50"]), [0; 10]);
        assert_eq!(divided(&["0"]), [1; 10]);
        assert!(Group::divide(&groups(&["5%"]), std::iter::empty()).is_empty());
        let of_late = |tags: &BTreeSet<String>| Group::of_late(&groups(&["5%", "tag:canary"]), tags);
        assert_eq!((of_late(&canary), of_late(&BTreeSet::new())), (1, 2));
    }
}
