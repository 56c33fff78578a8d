//! Tickets of running and interrupted transfers, one small file each in the state directory, so that a device that is
//! started again has its row at the sender back.
//!
//! ```text
//! STATE/tickets/<hash of device, session and place>.ticket
//! ```
//! A ticket belongs to one device, one session and one destination. While the run that keeps it lives, its file is
//! locked (flock): a second run with the same name and destination beside it must not take its row. A ticket of a session
//! that is over is worth nothing; the oldest files are removed when there are too many.

use super::{Tickets, make_private_dir, write_private};
use crate::limits::MAX_KEPT_TICKETS;
use crate::units::{DeviceId, SessionId, Ticket};
use std::fs::{self, File, TryLockError};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// First line of a ticket's file, with the version of its format.
const HEADING: &str = "mcp-ticket 1";
const SUFFIX: &str = ".ticket";
/// Context of the hash that names a file.
const CONTEXT: &str = "mcp 2026-11-21 file of a resume ticket v1";

/// Keeps tickets in the state directory.
#[derive(Debug)]
pub struct FileTickets {
    dir: PathBuf,
    device: DeviceId,
    /// The destination, as an absolute path.
    place: PathBuf,
    /// The file of this run's ticket, locked.
    kept: Option<(File, PathBuf)>,
}

impl FileTickets {
    /// The tickets of `device` in the state directory `state`, for objects that it puts at `output`: a directory, or
    /// a file that may not exist yet.
    #[must_use]
    pub fn new(state: &Path, device: DeviceId, output: &Path) -> Self {
        Self { dir: state.join("tickets"), device, place: absolute(output), kept: None }
    }

    fn path(&self, session: SessionId) -> PathBuf {
        let mut key = self.device.0.to_vec();
        key.extend(session.0.to_be_bytes());
        key.extend(self.place.as_os_str().as_bytes());
        let name = blake3::Hash::from_bytes(blake3::derive_key(CONTEXT, &key)).to_hex();
        self.dir.join(format!("{}{SUFFIX}", &name[..32]))
    }

    fn store(&mut self, session: SessionId, ticket: Ticket) -> io::Result<()> {
        make_private_dir(&self.dir)?;
        self.make_room();
        let path = self.path(session);
        write_private(&path, format!("{HEADING}\n{ticket}\n").as_bytes())?;
        let file = File::open(&path)?;
        // On a file system without locks, only the user keeps two runs apart.
        let _ = file.try_lock();
        self.kept = Some((file, path));
        Ok(())
    }

    /// Removes the oldest files, so that there is room for another.
    fn make_room(&self) {
        let files = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let mut tickets: Vec<(SystemTime, PathBuf)> = files
            .filter(|file| file.file_name().as_bytes().ends_with(SUFFIX.as_bytes()))
            .filter_map(|file| Some((file.metadata().ok()?.modified().ok()?, file.path())))
            .collect();
        tickets.sort();
        let most = tickets.len().saturating_sub(MAX_KEPT_TICKETS - 1);
        for (_, path) in tickets.into_iter().take(most) {
            // If this fails, the file only takes space.
            let _ = fs::remove_file(path);
        }
    }
}

impl Tickets for FileTickets {
    fn find(&mut self, session: SessionId) -> Option<Ticket> {
        let file = File::open(self.path(session)).ok()?;
        if matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
            return None;
        }
        let mut text = String::new();
        file.take(128).read_to_string(&mut text).ok()?;
        parse(&text)
    }

    fn keep(&mut self, session: SessionId, ticket: Ticket) -> bool {
        self.store(session, ticket).is_ok()
    }

    fn forget(&mut self) {
        if let Some((_file, path)) = self.kept.take() {
            // What is left is removed with the oldest files.
            let _ = fs::remove_file(path);
        }
    }
}

fn parse(text: &str) -> Option<Ticket> {
    let hex = text.strip_prefix(HEADING)?.strip_prefix('\n')?.strip_suffix('\n')?;
    let valid = hex.len() == 32 && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    valid.then(|| u128::from_str_radix(hex, 16).ok())?.map(|number| Ticket(number.to_be_bytes()))
}

/// The absolute path of a file or directory that may not exist, without links as far as it exists.
fn absolute(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    fs::canonicalize(&path).unwrap_or_else(|_| match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => {
            fs::canonicalize(parent).unwrap_or_else(|_| parent.to_owned()).join(name)
        }
        _ => path,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const SESSION: SessionId = SessionId(7);
    const TICKET: Ticket = Ticket([0x5c; 16]);

    fn tickets(state: &Path, device: u8, output: &Path) -> FileTickets {
        FileTickets::new(state, DeviceId([device; 16]), output)
    }

    #[test]
    fn the_next_run_of_the_same_place_finds_it_and_no_other_does() {
        let dir = tempfile::tempdir().unwrap();
        let (state, out) = (dir.path().join("a/state"), dir.path().join("out"));
        let mut first = tickets(&state, 1, &out);
        assert_eq!(first.find(SESSION), None);
        assert!(first.keep(SESSION, TICKET));
        assert_eq!(tickets(&state, 1, &out).find(SESSION), None, "its run lives");
        drop(first);
        assert_eq!(tickets(&state, 1, &out).find(SESSION), Some(TICKET));
        // A file's name stands for the same place before and after the file exists, and with another way to it.
        fs::create_dir(dir.path().join("sub")).unwrap();
        assert_eq!(tickets(&state, 1, &dir.path().join("sub/../out")).find(SESSION), Some(TICKET));
        fs::write(&out, "").unwrap();
        assert_eq!(tickets(&state, 1, &out).find(SESSION), Some(TICKET));
        assert_eq!(tickets(&state, 2, &out).find(SESSION), None);
        assert_eq!(tickets(&state, 1, dir.path()).find(SESSION), None);
        assert_eq!(tickets(&state, 1, &out).find(SessionId(8)), None);
        let file = tickets(&state, 1, &out).path(SESSION);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&file), mode(file.parent().unwrap())), (0o600, 0o700));
        for damaged in ["", "mcp-ticket 1\n", "mcp-ticket 1\n+c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c\n", "\u{fffd}"]
        {
            fs::write(&file, damaged).unwrap();
            assert_eq!(tickets(&state, 1, &out).find(SESSION), None, "{damaged:?}");
        }
    }

    #[test]
    fn it_is_removed_when_it_is_of_no_more_use_and_the_oldest_go_first() {
        let dir = tempfile::tempdir().unwrap();
        let mut one = tickets(dir.path(), 1, Path::new("out"));
        assert!(one.keep(SESSION, TICKET));
        one.forget();
        assert_eq!(fs::read_dir(dir.path().join("tickets")).unwrap().count(), 0);
        for session in 0..MAX_KEPT_TICKETS as u64 + 3 {
            assert!(one.keep(SessionId(session), TICKET));
            let (file, _) = one.kept.take().unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(session)).unwrap();
        }
        assert_eq!(fs::read_dir(dir.path().join("tickets")).unwrap().count(), MAX_KEPT_TICKETS);
        assert_eq!((one.find(SessionId(2)), one.find(SessionId(3))), (None, Some(TICKET)));
    }

    #[test]
    fn a_directory_that_cannot_be_written_keeps_none() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let mut tickets = tickets(&file, 1, Path::new("out"));
        assert!(!tickets.keep(SESSION, TICKET) && tickets.find(SESSION).is_none());
        tickets.forget();
    }
}
