//! `--report FILE`: the final task status table as one JSON document (`docs/events.md`).

use super::schema::{Counters, Row, seconds};
use super::{Exit, SenderIntro};
use mcp_transfer::protocol::event::SenderSnapshot;
use mcp_transfer::storage::write_whole;
use mcp_transfer::units::Digest;
use serde::Serialize;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// The content of the report besides the snapshot.
#[derive(Clone, Debug)]
pub struct Report<'a> {
    /// Task, session, object and group.
    pub intro: &'a SenderIntro,
    /// The final snapshot with all rows.
    pub snapshot: &'a SenderSnapshot,
    /// Root hash of the object, if it is known.
    pub root: Option<Digest>,
    /// Start time of the command.
    pub started: SystemTime,
    /// Duration of the command.
    pub elapsed: Duration,
    /// The command's exit.
    pub exit: Exit,
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    task: String,
    session: String,
    object: Object<'a>,
    group: &'a str,
    sender_key: String,
    sealed_with: Option<&'a str>,
    started: String,
    ended: String,
    seconds: f64,
    exit: &'static str,
    exit_code: u8,
    expected: Option<u32>,
    wanted: usize,
    counters: Counters,
    devices: Vec<Row<'a>>,
}

#[derive(Serialize)]
struct Object<'a> {
    name: &'a str,
    size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    entries: Option<u32>,
    blake3: Option<String>,
}

impl Report<'_> {
    /// The report as JSON text, indented, with a line break at its end.
    #[must_use]
    pub fn to_json(&self) -> String {
        let time = |t: SystemTime| humantime::format_rfc3339_millis(t).to_string();
        let document = Document {
            schema: "mcp-report-1",
            task: self.intro.task.to_string(),
            session: self.intro.session.to_string(),
            object: Object {
                name: &self.intro.name,
                size: self.snapshot.overview.total(),
                entries: self.intro.entries,
                blake3: self.root.map(|root| root.to_string()),
            },
            group: &self.intro.group,
            sender_key: self.intro.sender.line(),
            sealed_with: self.intro.sealed_with.as_deref(),
            started: time(self.started),
            ended: time(self.started + self.elapsed),
            seconds: seconds(self.elapsed),
            exit: self.exit.word(),
            exit_code: self.exit.code(),
            expected: self.snapshot.overview.expected,
            wanted: self.snapshot.overview.wanted(),
            counters: (&self.snapshot.overview).into(),
            devices: self.snapshot.devices.iter().map(Row::from).collect(),
        };
        // Plain data with text keys always serialises.
        serde_json::to_string_pretty(&document).unwrap_or_default() + "\n"
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
    use crate::ui::testing::{row, sender_intro, snapshot};
    use mcp_transfer::task::State;
    use mcp_transfer::wire::Phase;

    #[test]
    fn says_what_became_of_every_device() {
        let intro = sender_intro();
        let mut s = snapshot(Phase::Lingering);
        s.overview.expected = Some(3);
        let s = s.with_devices(vec![
            row("lab-1", State::Complete),
            row("lab-2\x1b", State::Failed("disk full".into())),
        ]);
        let report = Report {
            intro: &intro,
            snapshot: &s,
            root: Some(Digest([0xcd; 32])),
            started: SystemTime::UNIX_EPOCH,
            elapsed: Duration::from_millis(61_500),
            exit: Exit::Incomplete,
        };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("done.json");
        report.write(&path).unwrap();
        let v: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(v["schema"], "mcp-report-1");
        assert_eq!(v["task"], "01".repeat(16));
        assert_eq!(v["session"], "0000000000000002");
        assert_eq!(v["object"]["name"], "image.iso");
        assert_eq!(v["object"]["size"], 100 << 20);
        assert_eq!(v["object"]["blake3"], "cd".repeat(32));
        assert_eq!(v["started"], "1970-01-01T00:00:00.000Z");
        assert_eq!(v["ended"], "1970-01-01T00:01:01.500Z");
        assert_eq!((v["exit"].as_str(), v["exit_code"].as_u64()), (Some("incomplete"), Some(3)));
        assert_eq!((v["expected"].as_u64(), v["wanted"].as_u64()), (Some(3), Some(3)));
        assert_eq!(v["counters"]["devices_complete"], 1);
        assert_eq!(v["devices"][1]["label"], "lab-2\x1b");
        assert_eq!(v["devices"][1]["reason"], "disk full");
        assert_eq!(v["devices"][0]["seconds"], 12.3);
    }
}
