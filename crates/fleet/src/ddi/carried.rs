//! What `mcp` carries in a chunk's metadata: the only place that stock servers hand through.

use super::Metadata;
use crate::limits::{MAX_ENVELOPE, MAX_METADATA_VALUE};

const TASK: &str = "mcp.task";

/// The metadata that carry a signed task: `mcp.task`, or `mcp.task.0`, `mcp.task.1`... when `text` is longer than one
/// value. `text` is the envelope in base64url.
#[must_use]
pub fn task_to_metadata(text: &str) -> Vec<Metadata> {
    if text.len() <= MAX_METADATA_VALUE {
        return vec![Metadata { key: TASK.into(), value: text.into() }];
    }
    text.as_bytes()
        .chunks(MAX_METADATA_VALUE)
        .enumerate()
        .map(|(n, piece)| Metadata {
            key: format!("{TASK}.{n}"),
            value: String::from_utf8_lossy(piece).into_owned(),
        })
        .collect()
}

/// The signed task that a chunk's metadata carry, as base64url. `None` if there is none, a piece is missing, or it is
/// longer than an envelope may be.
#[must_use]
pub fn task_from_metadata(metadata: &[Metadata]) -> Option<String> {
    let value = |key: &str| metadata.iter().find(|m| m.key == key).map(|m| m.value.as_str());
    let text = match value(TASK) {
        Some(whole) => whole.to_owned(),
        None => {
            let pieces: Vec<_> = (0..).map_while(|n| value(&format!("{TASK}.{n}"))).collect();
            let stated = metadata.iter().filter(|m| m.key.starts_with("mcp.task.")).count();
            (!pieces.is_empty() && pieces.len() == stated).then(|| pieces.concat())?
        }
    };
    (text.len() <= MAX_ENVELOPE.div_ceil(3) * 4).then_some(text)
}
