//! Links of an answer: `"_links": {"rel": {"href": URL}}`.

use serde::de::Deserializer;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// The target of a link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Link {
    /// An absolute URL.
    pub href: String,
}

/// The links of an answer by their relation. An answer without links has no member `_links`. When read, entries
/// without a string `href` are left out, and the first of several targets is taken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Links(BTreeMap<String, Link>);

impl Links {
    /// Whether there is no link.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The URL of relation `rel`.
    #[must_use]
    pub fn get(&self, rel: &str) -> Option<&str> {
        self.0.get(rel).map(|link| link.href.as_str())
    }

    /// Adds a link, or replaces the one of the same relation.
    pub fn set(&mut self, rel: &str, href: String) {
        self.0.insert(rel.to_owned(), Link { href });
    }

    /// Relations with their URLs.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(rel, link)| (rel.as_str(), link.href.as_str()))
    }
}

impl<const N: usize> From<[(&str, String); N]> for Links {
    fn from(links: [(&str, String); N]) -> Self {
        Self(links.into_iter().map(|(rel, href)| (rel.to_owned(), Link { href })).collect())
    }
}

impl<'de> Deserialize<'de> for Links {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let Value::Object(members) = Value::deserialize(from)? else { return Ok(Self::default()) };
        let href = |value: &Value| Some(Link { href: value.get("href")?.as_str()?.to_owned() });
        Ok(Self(
            members
                .into_iter()
                .filter_map(|(rel, value)| {
                    let first = value.as_array().and_then(|list| list.first()).unwrap_or(&value);
                    Some((rel, href(first)?))
                })
                .collect(),
        ))
    }
}
