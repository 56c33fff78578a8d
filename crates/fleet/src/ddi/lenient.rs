//! Reading JSON as clients in use write it.

use crate::limits::MAX_QUOTED;
use serde::de::{Deserialize, DeserializeOwned, Deserializer};
use serde_json::Value;
use std::borrow::Cow;

/// A document that cannot be read: a lowercase clause that says where. It may quote the document, but only so much of it.
#[derive(Debug, thiserror::Error)]
#[error("the document cannot be read: {0}")]
pub struct ParseError(String);

impl From<serde_json::Error> for ParseError {
    fn from(error: serde_json::Error) -> Self {
        let (text, at) = (error.to_string(), format!(" at line {} column {}", error.line(), error.column()));
        let (what, at) = text.strip_suffix(&*at).map_or((&*text, ""), |what| (what, &*at));
        let quoted: String = what.chars().filter(|c| !c.is_control()).take(MAX_QUOTED).collect();
        Self(quoted + at)
    }
}

/// Reads a document. Accepts more than JSON, because clients in use write more: bare control characters in strings are
/// taken as blanks, a backslash that begins no escape stands for itself, and bytes that are not UTF-8 become U+FFFD.
///
/// The caller bounds the length of `bytes`; nesting is bounded here.
///
/// # Errors
///
/// If a member that the document must have is missing, or a value has the wrong type.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ParseError> {
    match serde_json::from_slice(bytes) {
        Ok(document) => Ok(document),
        Err(error) if error.is_data() => Err(error.into()),
        Err(error) => match mended(bytes) {
            Cow::Borrowed(_) => Err(error.into()),
            Cow::Owned(text) => Ok(serde_json::from_slice(&text)?),
        },
    }
}

/// `bytes` with its strings made valid. Borrowed if there is nothing to mend.
fn mended(bytes: &[u8]) -> Cow<'_, [u8]> {
    let text: Cow<'_, [u8]> = match String::from_utf8_lossy(bytes) {
        Cow::Borrowed(_) => Cow::Borrowed(bytes),
        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
    };
    let mut out = Vec::with_capacity(text.len() + 16);
    let (mut in_string, mut at) = (false, 0);
    while let Some(&byte) = text.get(at) {
        at += 1;
        match byte {
            b'"' => in_string = !in_string,
            b'\\' if in_string => match text.get(at) {
                Some(&next) if begins_escape(next, &text[at + 1..]) => {
                    out.extend([byte, next]);
                    at += 1;
                    continue;
                }
                _ => out.push(byte),
            },
            0..0x20 if in_string => {
                out.push(b' ');
                continue;
            }
            _ => {}
        }
        out.push(byte);
    }
    if out == *text { text } else { Cow::Owned(out) }
}

/// Whether a backslash before `next` begins an escape; `rest` follows `next`.
fn begins_escape(next: u8, rest: &[u8]) -> bool {
    match next {
        b'u' => rest.len() >= 4 && rest[..4].iter().all(u8::is_ascii_hexdigit),
        _ => b"\"\\/bfnrt".contains(&next),
    }
}

/// A value as text: strings as they are, numbers and booleans as JSON writes them, all else `None`.
pub(super) fn scalar(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}

/// An identifier: a string, or a number taken as one.
pub(super) fn identifier<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    scalar(Value::deserialize(from)?)
        .filter(|id| !id.is_empty())
        .ok_or_else(|| serde::de::Error::custom("an identifier must be a string or a number"))
}

/// A text that may be missing: anything but a scalar is `None`.
pub(super) fn optional_text<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    Ok(scalar(Value::deserialize(from)?))
}

/// An integer that may be missing: a number, or a string of one; anything else is `None`.
pub(super) fn optional_integer<'de, D: Deserializer<'de>>(from: D) -> Result<Option<i64>, D::Error> {
    Ok(match Value::deserialize(from)? {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    })
}

/// A list of texts: `null` is empty, a single scalar is a list of one, elements that are not scalars are written as JSON.
pub(super) fn texts<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    Ok(match Value::deserialize(from)? {
        Value::Null => Vec::new(),
        Value::Array(list) => list
            .into_iter()
            .map(|value| match value {
                Value::String(text) => text,
                other => other.to_string(),
            })
            .collect(),
        Value::String(text) => vec![text],
        other => vec![other.to_string()],
    })
}

/// A value whose `null` means its default.
pub(super) fn null_is_default<'de, D, T>(from: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::<T>::deserialize(from)?.unwrap_or_default())
}
