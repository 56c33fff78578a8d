//! A pipe as the destination of a received object: standard output, or a command that `mcp` runs.
//!
//! Blocks are written in order, once they are verified. Those that arrive before their turn wait with the caller, or in a
//! *spool*: a file without a name. Nothing is resumed.

use super::refusal::refused;
use super::spool::nameless;
use super::{Found, Part, Sink, SinkError, safe_name};
use crate::command::PipedCommand;
use crate::text::ended;
use crate::units::{Extent, Intake};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FallocateFlags, FileType};
use rustix::io::{Errno, ioctl_fionread, retry_on_intr};
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Bytes of one write to a pipe. A pipe that can be written to has room for so many (PIPE_BUF), so the write never
/// blocks.
const ATOMIC: usize = 4096;
/// How often a writer that waits looks whether it is to stop.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
/// How often the last bytes are looked after.
const DRAIN: Duration = Duration::from_millis(5);
/// How long a command that has closed its input may take to say why.
const LAST_WORD: Duration = Duration::from_millis(500);

/// What reads the object.
#[derive(Clone, Debug)]
pub enum Reader {
    /// Whatever standard output leads to.
    Stdout,
    /// This shell command.
    Command(OsString),
}

/// Passes each object on to a reader.
#[derive(Debug)]
pub struct PipeSink {
    reader: Reader,
    spool: Option<PathBuf>,
}

impl PipeSink {
    /// Blocks that arrive before their turn are kept in a file in `spool`, if there is one.
    #[must_use]
    pub const fn new(reader: Reader, spool: Option<PathBuf>) -> Self {
        Self { reader, spool }
    }
}

impl Sink for PipeSink {
    fn intake(&self) -> Intake {
        if self.spool.is_some() { Intake::Spooled } else { Intake::InOrder }
    }

    fn probe(&mut self, _name: &str, _extent: Extent) -> Found {
        Found::Nothing
    }

    fn create(&mut self, name: &str, extent: Extent) -> Result<Box<dyn Part>, SinkError> {
        let spool = self.spool.as_deref().map(new_spool).transpose()?;
        let (fd, command) = match &self.reader {
            Reader::Stdout => {
                let fd = io::stdout().as_fd().try_clone_to_owned();
                (fd.map_err(|e| SinkError::Disk(format!("standard output is closed: {e}")))?, None)
            }
            Reader::Command(command) => {
                let (command, fd) = PipedCommand::reader(command, safe_name(name).ok(), extent.total())
                    .map_err(|e| {
                        SinkError::Command(format!("the --pipe command could not be started: {e}"))
                    })?;
                (fd, Some(command))
            }
        };
        Ok(Box::new(PipePart::new(fd, command, spool)))
    }
}

fn new_spool(dir: &Path) -> Result<File, SinkError> {
    nameless(dir).map_err(|error| refused("make a spool file in", dir, &error))
}

/// An object on its way through a pipe.
struct PipePart {
    /// Until it is closed.
    fd: Mutex<Option<Arc<OwnedFd>>>,
    /// Most bytes that a write never waits for.
    at_once: usize,
    stopped: AtomicBool,
    command: Option<PipedCommand>,
    spool: Option<File>,
    written: AtomicU64,
}

impl PipePart {
    fn new(fd: OwnedFd, command: Option<PipedCommand>, spool: Option<File>) -> Self {
        let kind = rustix::fs::fstat(&fd).map(|stat| FileType::from_raw_mode(stat.st_mode));
        let at_once = if kind == Ok(FileType::RegularFile) { usize::MAX } else { ATOMIC };
        Self {
            fd: Mutex::new(Some(Arc::new(fd))),
            at_once,
            stopped: AtomicBool::new(false),
            command,
            spool,
            written: AtomicU64::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<OwnedFd>>> {
        self.fd.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) -> Result<Arc<OwnedFd>, SinkError> {
        self.lock().clone().filter(|_| !self.is_stopped()).ok_or_else(stopped)
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// The error for a failed write.
    fn refused(&self, errno: Errno) -> SinkError {
        let Some(command) = &self.command else {
            return match errno {
                Errno::PIPE => SinkError::Disk("nobody reads the standard output any more".to_owned()),
                errno => refused("write", Path::new("standard output"), &errno.into()),
            };
        };
        if self.is_stopped() {
            return stopped();
        }
        if errno != Errno::PIPE {
            return SinkError::Command(format!("writing to the --pipe command failed: {errno}"));
        }
        SinkError::Command(match command.ends_within(LAST_WORD) {
            Some(0) => "the --pipe command ended before it had read everything".to_owned(),
            Some(status) => failure(status),
            None => "the --pipe command closed its standard input before it had read everything".to_owned(),
        })
    }

    /// Writes the first of `bytes`, as soon as it can be done without waiting. Returns how many; 0 after some time.
    fn write_some(&self, fd: &OwnedFd, bytes: &[u8]) -> Result<usize, Errno> {
        let mut polled = [PollFd::new(fd, PollFlags::OUT)];
        match poll(&mut polled, Some(&LOOK)) {
            Ok(0) | Err(Errno::INTR | Errno::AGAIN) => return Ok(0),
            polled => polled?,
        };
        // An error of the pipe is one of the write.
        match rustix::io::write(fd, &bytes[..bytes.len().min(self.at_once)]) {
            Err(Errno::INTR | Errno::AGAIN) => Ok(0),
            written => written,
        }
    }

    /// Waits until the command has taken all bytes out of the pipe.
    fn drain(&self, fd: &OwnedFd) -> Result<(), SinkError> {
        while ioctl_fionread(fd).map_err(|errno| self.refused(errno))? > 0 {
            if self.is_stopped() {
                return Err(stopped());
            }
            let mut polled = [PollFd::new(fd, PollFlags::OUT)];
            let events = poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
            if events.is_ok() && polled[0].revents().contains(PollFlags::ERR) {
                return Err(self.refused(Errno::PIPE));
            }
            std::thread::sleep(DRAIN);
        }
        Ok(())
    }

    /// Gives the space of written bytes back, if the file system can.
    fn shrink_spool(&self, offset: u64, len: u64) {
        if let Some(spool) = self.spool.as_ref().filter(|_| len > 0) {
            let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            let _ = retry_on_intr(|| rustix::fs::fallocate(spool, punch, offset, len));
        }
    }

    fn spool(&self) -> Result<&File, SinkError> {
        let missing = || SinkError::Disk("there is no spool file; please report this".to_owned());
        self.spool.as_ref().ok_or_else(missing)
    }
}

fn stopped() -> SinkError {
    SinkError::Disk("the transfer is over".to_owned())
}

/// What is said of a command that ended with `status`, which is not 0.
fn failure(status: i32) -> String {
    format!("the --pipe command {}", ended(status))
}

impl Part for PipePart {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), SinkError> {
        let path = Path::new("the spool file");
        self.spool()?.write_all_at(bytes, offset).map_err(|error| refused("write", path, &error))
    }

    fn write_zeros(&self, _offset: u64, _len: u64) -> Result<(), SinkError> {
        // They are not kept in the spool: whoever writes them knows what they are.
        Ok(())
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), SinkError> {
        let path = Path::new("the spool file");
        self.spool()?.read_exact_at(buf, offset).map_err(|error| refused("read back", path, &error))
    }

    fn write_next(&self, bytes: &[u8]) -> Result<(), SinkError> {
        let fd = self.open()?;
        let mut rest = bytes;
        while !rest.is_empty() {
            let written = self.write_some(&fd, rest).map_err(|errno| self.refused(errno))?;
            rest = &rest[written..];
            if self.is_stopped() {
                return Err(stopped());
            }
        }
        let offset = self.written.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.shrink_spool(offset, bytes.len() as u64);
        Ok(())
    }

    fn commit(&self) -> Result<PathBuf, SinkError> {
        let fd = self.open()?;
        if let Some(command) = &self.command {
            self.drain(&fd)?;
            drop(fd);
            let mut open = self.lock();
            if self.is_stopped() {
                return Err(stopped());
            }
            // From here on the command may take the object for whole, and it is.
            *open = None;
            drop(open);
            match command.wait() {
                0 => {}
                _ if self.is_stopped() => return Err(stopped()),
                status => return Err(SinkError::Command(failure(status))),
            }
        }
        Ok(PathBuf::from("-"))
    }

    fn discard(&self) {
        let mut open = self.lock();
        self.stopped.store(true, Ordering::Release);
        if let Some(command) = &self.command {
            command.stop();
        }
        *open = None;
    }
}

impl Drop for PipePart {
    fn drop(&mut self) {
        // The command ends before its input does.
        if self.lock().is_some() {
            self.discard();
        }
    }
}

#[cfg(test)]
mod tests;
