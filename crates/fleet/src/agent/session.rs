//! Takes part in a multicast session that brings an object. What arrives goes into the part file of the task. What is then
//! missing is loaded by HTTP or by another session (`multicast`), and all of it is checked against the hash that the operator
//! signed: nobody has to trust the session.

use super::core::Core;
use super::work::File as Wanted;
use crate::ddi::Session;
use crate::documents::Hash;
use mcp_transfer::crypto::group::GroupKeys;
use mcp_transfer::net::Destination;
use mcp_transfer::protocol::event::ReceiverOutcome;
use mcp_transfer::protocol::trust::{Strangers, Trust};
use mcp_transfer::session::{Listen, ReceiveSession, Wanted as Which};
use mcp_transfer::storage::{Found, Part, Sink, SinkError};
use mcp_transfer::units::{DeviceId, Extent};
use mcp_transfer::wire::AbortCode;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How often progress is noted, and whether the task has been taken back is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// Ends a session with the task that it is for.
struct Stop(Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// What a session brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Brought {
    /// Bytes of verified blocks.
    pub bytes: u64,
    /// Whether that was all that was missing.
    pub all: bool,
    /// Whether nobody was heard.
    pub unreached: bool,
    /// Whether the disk of this device failed.
    pub disk_failed: bool,
    /// For people.
    pub clause: String,
}

impl Brought {
    fn nothing(why: impl std::fmt::Display) -> Self {
        Self { clause: format!("no multicast: {why}"), ..Self::default() }
    }
}

/// Takes part in `session` until it is over, or until it is clear that it does not come. Dropping the future ends the
/// device's part in it.
pub(super) async fn take_part(
    core: &Arc<Core>,
    id: Hash,
    session: Session,
    file: &Wanted,
    part: File,
) -> Brought {
    core.phase(id, &format!("waits for {} by multicast", file.filename));
    let stopped = Arc::new(AtomicBool::new(false));
    let stop = Stop(Arc::clone(&stopped));
    let run = Run { core: Arc::clone(core), id, name: file.filename.clone(), size: file.size, stopped };
    let done = tokio::task::spawn_blocking(move || run.until_over(&session, part)).await;
    drop(stop);
    match done {
        Ok(Ok(brought)) => brought,
        Ok(Err(why)) => Brought::nothing(why),
        Err(error) => Brought::nothing(format!("{error}; please report this")),
    }
}

struct Run {
    core: Arc<Core>,
    id: Hash,
    name: String,
    size: u64,
    stopped: Arc<AtomicBool>,
}

impl Run {
    fn until_over(&self, session: &Session, part: File) -> Result<Brought, String> {
        let (sender, seal) = session.keys().ok_or("its keys cannot be read")?;
        let group = Destination::group(session.group.ip(), session.group.port());
        let listen = Listen {
            group: Some(group),
            interface: self.core.settings.interface.clone(),
            group_keys: vec![GroupKeys::new(seal)],
            trust: Trust { pinned: vec![sender], known: BTreeMap::new(), strangers: Strangers::Refuse },
            ..Listen::default()
        };
        let sink = PartFile { file: Arc::new(part), size: self.size };
        let label: String = self.core.device.chars().take(64).collect();
        // Whatever the file is called there: another task may have the same object.
        let handle = ReceiveSession::builder(Which::First, sink)
            .listen(listen)
            .device(device_id(&self.core.device), label)
            .timeout(session.patience())
            .start()
            .map_err(|error| error.to_string())?;
        let (events, begun) = (handle.events(), Instant::now());
        let mut receiving = false;
        while !handle.is_over() {
            let _ = events.next_within(LOOK);
            if self.stopped.load(Ordering::Acquire) {
                handle.stop();
            }
            let Some(snapshot) = handle.snapshot() else { break };
            if snapshot.verified_bytes > 0 && !std::mem::replace(&mut receiving, true) {
                self.core.phase(self.id, &format!("receives {} by multicast", self.name));
            }
            if let Some(running) = self.core.lock().running.get_mut(&self.id) {
                running.bytes = (snapshot.verified_bytes, self.size);
            }
        }
        let outcome = handle.wait().map_err(|error| error.to_string())?;
        let bytes = outcome.snapshot.verified_bytes.saturating_sub(outcome.snapshot.resumed_bytes);
        let all =
            matches!(outcome.outcome, ReceiverOutcome::Complete { .. } | ReceiverOutcome::AlreadyComplete);
        let how = match &outcome.outcome {
            _ if all && outcome.snapshot.resumed_bytes > 0 => "all that was missing".to_owned(),
            ReceiverOutcome::Complete { .. } | ReceiverOutcome::AlreadyComplete => "all of it".to_owned(),
            ReceiverOutcome::NoSender | ReceiverOutcome::SenderNeeds(_) => {
                let why = format!("no sender was heard in {} s", begun.elapsed().as_secs());
                return Ok(Brought { unreached: true, ..Brought::nothing(why) });
            }
            ReceiverOutcome::SenderSilent => "then its sender fell silent".to_owned(),
            ReceiverOutcome::SenderAborted(_, why) | ReceiverOutcome::Failed(_, why) => why.clone(),
            ReceiverOutcome::Refused | ReceiverOutcome::NotListed => {
                return Err("the session does not take this device".to_owned());
            }
            ReceiverOutcome::Interrupted
            | ReceiverOutcome::Lacking { .. }
            | ReceiverOutcome::HookFailed { .. } => "then it ended".to_owned(),
        };
        if let ReceiverOutcome::Failed(AbortCode::Disk, why) = outcome.outcome {
            return Ok(Brought { disk_failed: true, clause: why, ..Brought::default() });
        }
        let clause = format!("{bytes} bytes by multicast, {how}");
        Ok(Brought { bytes, all, clause, ..Brought::default() })
    }
}

/// The identifier of a device in sessions: the same in each.
fn device_id(name: &str) -> DeviceId {
    let hash = blake3::derive_key("mcp 2026-11-22 identifier of an agent in sessions v1", name.as_bytes());
    let mut id = DeviceId::default();
    id.0.copy_from_slice(&hash[..16]);
    id
}

/// The part file of a task, as the place of a session's object.
struct PartFile {
    file: Arc<File>,
    size: u64,
}

impl PartFile {
    /// Whether an earlier run may have written something.
    fn has_some(&self) -> bool {
        self.file.metadata().is_ok_and(|meta| meta.len() > 0)
    }
}

impl Sink for PartFile {
    fn probe(&mut self, _name: &str, _extent: Extent) -> Found {
        if self.has_some() { Found::Part } else { Found::Nothing }
    }

    fn create(&mut self, name: &str, extent: Extent) -> Result<Box<dyn Part>, SinkError> {
        if extent.total() != Some(self.size) {
            return Err(SinkError::Content(format!("{name} has another size than the task says")));
        }
        let old = self.file.metadata().map_or(0, |meta| meta.len()).min(self.size);
        self.file.set_len(self.size).map_err(failed)?;
        Ok(Box::new(OpenPart { file: Arc::clone(&self.file), old }))
    }
}

struct OpenPart {
    file: Arc<File>,
    /// Bytes that an earlier run may have written.
    old: u64,
}

fn failed(error: io::Error) -> SinkError {
    SinkError::Disk(format!("cannot use the part file ({error})"))
}

impl Part for OpenPart {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), SinkError> {
        self.file.write_all_at(bytes, offset).map_err(failed)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), SinkError> {
        self.file.read_exact_at(buf, offset).map_err(failed)
    }

    fn next_written(&self, from: u64) -> Option<Range<u64>> {
        (from < self.old).then_some(from..self.old)
    }

    /// It gets its name when the task is due, and all of it was checked by the signed hash.
    fn commit(&self) -> Result<PathBuf, SinkError> {
        self.file.sync_all().map_err(failed)?;
        Ok(PathBuf::from("part"))
    }

    /// What has arrived is of use for the rest of the task.
    fn discard(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_file_keeps_what_arrived_and_takes_no_other_size() {
        let file = tempfile::tempfile().unwrap();
        let mut place = PartFile { file: Arc::new(file), size: 300_000 };
        assert!(matches!(place.probe("a", Extent::sealed(300_000)), Found::Nothing));
        assert!(place.create("a", Extent::sealed(300_001)).is_err());
        let part = place.create("a", Extent::sealed(300_000)).unwrap();
        assert_eq!(part.next_written(0), None);
        part.write_at(100, b"there").unwrap();
        part.discard();
        drop(part);
        assert!(matches!(place.probe("a", Extent::sealed(300_000)), Found::Part));
        let part = place.create("a", Extent::sealed(300_000)).unwrap();
        assert_eq!(part.next_written(0), Some(0..300_000));
        assert_eq!(part.next_written(300_000), None);
        let mut there = [0; 5];
        part.read_at(100, &mut there).unwrap();
        assert_eq!(&there, b"there");
    }

    #[test]
    fn a_device_is_the_same_in_each_session() {
        assert_eq!(device_id("desk-1"), device_id("desk-1"));
        assert_ne!(device_id("desk-1"), device_id("desk-2"));
    }
}
