//! What a device says of itself: its attributes.

use super::lenient::scalar;
use crate::limits::MAX_NAME;
use serde::de::Deserializer;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// The body of `PUT configData`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigData {
    /// How the attributes change those that are known. `null` and no member mean [`Mode::Merge`].
    #[serde(default, deserialize_with = "mode")]
    pub mode: Mode,
    /// The attributes; `None` removes one. Numbers and booleans are read as text. Absent is read as empty, which the
    /// server refuses.
    #[serde(default, deserialize_with = "data")]
    pub data: BTreeMap<String, Option<String>>,
}

/// How attributes change those that are known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Those named are set or removed.
    #[default]
    Merge,
    /// There are no others than those named.
    Replace,
    /// Those named are removed.
    Remove,
}

fn mode<'de, D: Deserializer<'de>>(from: D) -> Result<Mode, D::Error> {
    Ok(match Option::<String>::deserialize(from)?.map(|word| word.to_ascii_lowercase()).as_deref() {
        None | Some("merge") => Mode::Merge,
        Some("replace") => Mode::Replace,
        Some("remove") => Mode::Remove,
        Some(_) => return Err(serde::de::Error::custom("mode must be merge, replace or remove")),
    })
}

fn data<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, Option<String>>, D::Error> {
    let members = Option::<BTreeMap<String, Value>>::deserialize(from)?.unwrap_or_default();
    members
        .into_iter()
        .map(|(key, value)| match value {
            Value::Null => Ok((key, None)),
            Value::Array(_) | Value::Object(_) => {
                Err(serde::de::Error::custom("an attribute must be a text"))
            }
            value => Ok((key, scalar(value))),
        })
        .collect()
}

/// Whether `text` may be the name or the value of an attribute: short plain ASCII, without control characters, `~` and
/// backtick.
pub(crate) fn is_attribute(text: &str) -> bool {
    text.len() <= MAX_NAME && is_plain(text)
}

/// Whether `text` has only what an attribute may consist of.
pub(crate) fn is_plain(text: &str) -> bool {
    text.bytes().all(|b| (b' '..=b'}').contains(&b) && b != b'`')
}

impl ConfigData {
    /// Applies the change to `known`.
    pub fn apply(&self, known: &mut BTreeMap<String, String>) {
        if self.mode == Mode::Replace {
            known.clear();
        }
        for (key, value) in &self.data {
            match value {
                Some(value) if self.mode != Mode::Remove => known.insert(key.clone(), value.clone()),
                _ => known.remove(key),
            };
        }
    }
}
