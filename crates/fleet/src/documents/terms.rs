//! Conditions on a device's attributes, and patterns of names.

use crate::limits::MAX_NAME;
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// How an attribute is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Comparison {
    /// The same text.
    #[serde(rename = "=")]
    Equal,
    /// Another text, or no such attribute.
    #[serde(rename = "!=")]
    NotEqual,
    /// An earlier version.
    #[serde(rename = "<")]
    Less,
    /// An earlier version or an equal one.
    #[serde(rename = "<=")]
    AtMost,
    /// A later version.
    #[serde(rename = ">")]
    Greater,
    /// A later version or an equal one.
    #[serde(rename = ">=")]
    AtLeast,
}

impl Comparison {
    /// Each with its symbol; longer symbols before those they begin with.
    const SYMBOLS: [(&'static str, Self); 6] = [
        ("!=", Self::NotEqual),
        ("<=", Self::AtMost),
        (">=", Self::AtLeast),
        ("<", Self::Less),
        (">", Self::Greater),
        ("=", Self::Equal),
    ];

    fn symbol(self) -> &'static str {
        Self::SYMBOLS.iter().find(|(_, comparison)| *comparison == self).map_or("", |(symbol, _)| symbol)
    }
}

/// A condition on one attribute of a device: `version < 2.1`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Term {
    /// The attribute.
    pub attribute: String,
    /// The comparison.
    pub is: Comparison,
    /// What it is compared with.
    pub value: String,
}

impl Term {
    /// Whether the condition holds. An attribute that the device does not have equals nothing, and is neither earlier nor
    /// later than anything.
    #[must_use]
    pub fn holds(&self, attributes: &BTreeMap<String, String>) -> bool {
        let Some(actual) = attributes.get(&self.attribute) else {
            return self.is == Comparison::NotEqual;
        };
        let order = compare_versions(actual, &self.value);
        match self.is {
            Comparison::Equal => *actual == self.value,
            Comparison::NotEqual => *actual != self.value,
            Comparison::Less => order.is_lt(),
            Comparison::AtMost => order.is_le(),
            Comparison::Greater => order.is_gt(),
            Comparison::AtLeast => order.is_ge(),
        }
    }

    pub(super) fn is_valid(&self) -> bool {
        let fits = |text: &str| text.len() <= MAX_NAME && !text.chars().any(char::is_control);
        !self.attribute.is_empty() && fits(&self.attribute) && fits(&self.value)
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.attribute, self.is.symbol(), self.value)
    }
}

impl FromStr for Term {
    type Err = &'static str;

    /// Parses `ATTRIBUTE COMPARISON VALUE`, with blanks or without.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "expected ATTRIBUTE, one of = != < <= > >=, and VALUE: 'version < 2.1'";
        let at = text.find(['!', '<', '>', '=']).ok_or(EXPECTED)?;
        let (attribute, rest) = text.split_at(at);
        let found = Comparison::SYMBOLS.iter().find_map(|(s, is)| Some((rest.strip_prefix(s)?, *is)));
        let (value, is) = found.ok_or(EXPECTED)?;
        let term = Self { attribute: attribute.trim().to_owned(), is, value: value.trim().to_owned() };
        if term.is_valid() { Ok(term) } else { Err(EXPECTED) }
    }
}

/// Compares two versions part by part. Parts are runs of digits, compared as numbers, and runs of letters, compared as text; other
/// characters only separate them. Numbers come before letters, and a version before the one that continues it.
#[must_use]
pub(super) fn compare_versions(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (parts(a), parts(b));
    loop {
        match (a.next(), b.next()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => return Ordering::Less,
            (Some(_), None) => return Ordering::Greater,
            (Some(a), Some(b)) => match compare_parts(a, b) {
                Ordering::Equal => {}
                other => return other,
            },
        }
    }
}

fn compare_parts(a: &str, b: &str) -> Ordering {
    let digits = |text: &str| text.starts_with(|c: char| c.is_ascii_digit());
    match (digits(a), digits(b)) {
        (true, true) => {
            // Of any length, so not parsed: without leading zeros, the longer one is larger.
            let (a, b) = (a.trim_start_matches('0'), b.trim_start_matches('0'));
            a.len().cmp(&b.len()).then_with(|| a.cmp(b))
        }
        (true, false) => Ordering::Less,
        (false, true) => Ordering::Greater,
        (false, false) => a.cmp(b),
    }
}

fn parts(version: &str) -> impl Iterator<Item = &str> {
    let mut rest = version;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches(|c: char| !c.is_alphanumeric());
        let first = rest.chars().next()?;
        let of_this_kind = |c: char| c.is_alphanumeric() && c.is_ascii_digit() == first.is_ascii_digit();
        let end = rest.find(|c| !of_this_kind(c)).unwrap_or(rest.len());
        let (part, after) = rest.split_at(end);
        rest = after;
        Some(part)
    })
}

/// Whether `name` matches `pattern`, in which `*` stands for any characters.
#[must_use]
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    let mut pieces = pattern.split('*');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let Some(last) = pieces.next_back() else { return rest.is_empty() };
    for piece in pieces {
        let Some(at) = rest.find(piece) else { return false };
        rest = &rest[at + piece.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_their_parts() {
        let sorted = ["", "0.9", "1", "1.0", "1.2", "1.2rc1", "1.10", "1.10.1", "2.0", "2.0b", "010.1", "v1"];
        for (i, a) in sorted.iter().enumerate() {
            for (j, b) in sorted.iter().enumerate() {
                assert_eq!(compare_versions(a, b), i.cmp(&j), "{a} and {b}");
            }
        }
        assert_eq!(compare_versions("1.02", "1-2"), Ordering::Equal);
        let long = "9".repeat(100);
        assert_eq!(compare_versions(&long, "1"), Ordering::Greater);
    }

    #[test]
    fn patterns() {
        for (pattern, name, want) in [
            ("bench-1", "bench-1", true),
            ("bench-1", "bench-12", false),
            ("bench-*", "bench-12", true),
            ("bench-*", "lab-bench-12", false),
            ("*", "", true),
            ("*-2", "bench-12-2", true),
            ("a*b*c", "abbc", true),
            ("a*a", "a", false),
            ("a*b*c", "acb", false),
            ("", "x", false),
        ] {
            assert_eq!(matches(pattern, name), want, "{pattern} {name}");
        }
    }

    #[test]
    fn terms_as_people_write_them() {
        let attributes = BTreeMap::from([("version".to_owned(), "2.0".to_owned())]);
        for (text, want) in [
            ("version < 2.1", true),
            ("version<2.0", false),
            ("version <= 2.0", true),
            ("version=2.0", true),
            ("version != 2.0", false),
            ("version >= 2", true),
            ("other != x", true),
            ("other = x", false),
            ("other < x", false),
        ] {
            let term: Term = text.parse().unwrap();
            assert_eq!(term.holds(&attributes), want, "{text}");
            assert_eq!(term.to_string().parse(), Ok(term));
        }
        for wrong in ["version", "< 2", "version ! 2", ""] {
            assert!(wrong.parse::<Term>().is_err(), "{wrong}");
        }
    }
}
