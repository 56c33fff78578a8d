//! `recv --report FILE`: the outcome of a receiver as one JSON document (`docs/events.md`), to be carried back by hand
//! where nothing goes back over the line.

use super::Exit;
use mcp_transfer::protocol::event::ReceiverSnapshot;
use mcp_transfer::storage::write_whole;
use mcp_transfer::units::Digest;
use serde::Serialize;
use std::io;
use std::path::Path;

/// The content of the report.
#[derive(Clone, Debug)]
pub struct Receipt<'a> {
    /// The last snapshot.
    pub snapshot: &'a ReceiverSnapshot,
    /// Root hash of the object, if it is in place.
    pub root: Option<Digest>,
    /// The blocks that are missing, as ranges of first block and count.
    pub missing: &'a [(u32, u32)],
    /// The command's exit.
    pub exit: Exit,
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    session: Option<String>,
    sender_key: Option<String>,
    name: Option<&'a str>,
    size: u64,
    block_size: u64,
    blocks: u32,
    blake3: Option<String>,
    exit: &'static str,
    exit_code: u8,
    missing_blocks: u32,
    missing: &'a [(u32, u32)],
}

impl Receipt<'_> {
    /// The report as JSON text, with a line break at its end.
    #[must_use]
    pub fn to_json(&self) -> String {
        let snapshot = self.snapshot;
        let document = Document {
            schema: "mcp-receipt-1",
            session: snapshot.session.map(|session| session.to_string()),
            sender_key: snapshot.trusted.map(|(key, _)| key.line()),
            name: snapshot.name.as_deref(),
            size: snapshot.object_size,
            block_size: snapshot.block_size,
            blocks: snapshot.blocks,
            blake3: self.root.map(|root| root.to_string()),
            exit: self.exit.word(),
            exit_code: self.exit.code(),
            missing_blocks: self.missing.iter().map(|(_, count)| count).sum(),
            missing: self.missing,
        };
        // Plain data with text keys always serialises.
        serde_json::to_string(&document).unwrap_or_default() + "\n"
    }

    /// Writes the report to `path` atomically.
    ///
    /// # Errors
    /// If the file system fails.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        write_whole(path, self.to_json().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_told() {
        let snapshot =
            ReceiverSnapshot { blocks: 40, block_size: 1 << 20, object_size: 40 << 20, ..Default::default() };
        let missing = [(3, 1), (10, 11)];
        let receipt = Receipt { snapshot: &snapshot, root: None, missing: &missing, exit: Exit::BrokenOff };
        let json: serde_json::Value = serde_json::from_str(&receipt.to_json()).unwrap();
        assert_eq!(json["missing_blocks"], 12);
        assert_eq!(json["missing"], serde_json::json!([[3, 1], [10, 11]]));
        assert_eq!((&json["exit_code"], &json["blocks"]), (&6.into(), &40.into()));
        assert!(json["blake3"].is_null() && json["session"].is_null());
    }
}
