//! A tree that is being received.
//!
//! The object begins with its manifest. What arrives before the manifest is verified waits in a file of the staging
//! directory; after that, everything goes to its files at once.

use super::old::OldTree;
use super::plan::Plan;
use super::remove::remove_all;
use super::staging::Staging;
use super::steps::step;
use super::{TreeOptions, TreeShape, finish, merge, publish};
use crate::storage::refusal::{refused, shown};
use crate::storage::sink::Target;
use crate::storage::{DeviceNotes, Part, SinkError};
use crate::text::bytes;
use rustix::fs::SeekFrom;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, RwLockReadGuard};

/// Bytes that are moved at a time.
const PIECE: u64 = 1 << 20;

/// A tree in its staging directory, which stays if this is dropped before it is committed or discarded.
pub struct TreePart {
    target: Target,
    /// The announced name.
    name: String,
    shape: TreeShape,
    options: TreeOptions,
    notes: DeviceNotes,
    old: Option<Arc<OldTree>>,
    staging: Staging,
    plan: RwLock<Option<Arc<Plan>>>,
    /// Arranging, finishing and discarding exclude each other.
    busy: Mutex<()>,
    synced: OnceLock<()>,
    closed: AtomicBool,
}

impl TreePart {
    pub fn create(
        (target, name): (Target, &str),
        shape: TreeShape,
        (options, notes): (TreeOptions, DeviceNotes),
        old: Option<Arc<OldTree>>,
    ) -> Result<Self, SinkError> {
        let staging = Staging::create(&target)?;
        Ok(Self {
            target,
            name: name.to_owned(),
            shape,
            options,
            notes,
            old,
            staging,
            plan: RwLock::default(),
            busy: Mutex::default(),
            synced: OnceLock::new(),
            closed: AtomicBool::new(false),
        })
    }

    fn plan(&self) -> RwLockReadGuard<'_, Option<Arc<Plan>>> {
        self.plan.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, offset: u64, bytes: &[u8], through: bool) -> Result<(), SinkError> {
        let end = offset.checked_add(bytes.len() as u64).filter(|&end| end <= self.shape.size);
        if end.is_none() || self.closed.load(Ordering::Acquire) {
            return Err(SinkError::Disk(format!(
                "{} bytes at {offset} do not fit {} of {} bytes; please report this",
                bytes.len(),
                shown(&self.target.path),
                self.shape.size
            )));
        }
        let plan = self.plan();
        match &*plan {
            Some(plan) if offset >= plan.placement.payload() => {
                plan.write(&self.staging, offset, bytes, through)
            }
            _ => {
                let written = step().map_err(Into::into);
                let written = written.and_then(|()| self.staging.object.write_all_at(bytes, offset));
                written.map_err(|error| refused("write", &self.target.path, &error))
            }
        }
    }

    fn read(&self, offset: u64, buf: &mut [u8], back: bool) -> Result<(), SinkError> {
        let plan = self.plan();
        match &*plan {
            Some(plan) if offset >= plan.placement.payload() => plan.read(&self.staging, offset, buf, back),
            _ => {
                self.read_object(offset, buf).map_err(|error| refused("read back", &self.target.path, &error))
            }
        }
    }

    /// Reads what is not in the tree's files. Behind the end of its file are zeros, as in a hole: of a block that was
    /// rejected, the last symbols may not have been stored.
    fn read_object(&self, offset: u64, buf: &mut [u8]) -> std::io::Result<()> {
        let mut done = 0;
        while done < buf.len() {
            match self.staging.object.read_at(&mut buf[done..], offset + done as u64) {
                Ok(0) => {
                    buf[done..].fill(0);
                    break;
                }
                Ok(n) => done += n,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Checks that the disk has room for what is not there yet.
    fn require_room(&self, plan: &Plan) -> Result<(), SinkError> {
        let Ok(disk) = rustix::fs::fstatvfs(&self.staging.dir) else { return Ok(()) };
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        let needed = plan.placement.files().iter().map(|file| file.len).sum::<u64>();
        // Of a tree that an earlier run has begun, any part may be there.
        if self.staging.adopted || needed <= free {
            return Ok(());
        }
        Err(SinkError::Disk(format!(
            "no room for {}: it needs {} and the disk has {} free; free some space or give another place with -o",
            shown(&self.target.path),
            bytes(needed),
            bytes(free),
        )))
    }

    /// Moves what has arrived before the manifest to its files. Returns its ranges.
    fn move_early(&self, plan: &Plan) -> Result<Vec<Range<u64>>, SinkError> {
        let object = &self.staging.object;
        let fail = |error: &std::io::Error| refused("write", &self.target.path, error);
        let len = object.metadata().map_err(|error| fail(&error))?.len().min(self.shape.size);
        let (mut ranges, mut at) = (Vec::new(), plan.placement.payload());
        let mut buf = Vec::new();
        while at < len {
            // Without support for holes, all of it counts.
            let start = match rustix::fs::seek(object, SeekFrom::Data(at)) {
                Err(rustix::io::Errno::NXIO) => break,
                start => start.unwrap_or(at).max(at),
            };
            let end = rustix::fs::seek(object, SeekFrom::Hole(start)).unwrap_or(len).min(len);
            if start >= end {
                break;
            }
            let mut next = start;
            while next < end {
                let piece = PIECE.min(end - next);
                buf.resize(piece as usize, 0);
                object.read_exact_at(&mut buf, next).map_err(|error| fail(&error))?;
                plan.write(&self.staging, next, &buf, false)?;
                next += piece;
            }
            ranges.push(start..end);
            at = end;
        }
        step().map_err(|errno| fail(&errno.into()))?;
        object.set_len(plan.placement.payload().min(self.shape.size)).map_err(|error| fail(&error))?;
        Ok(ranges)
    }

    fn remove_staging(&self) -> Result<(), rustix::io::Errno> {
        remove_all(&self.target.dir, self.staging.name.as_bytes())
    }

    fn try_commit(&self) -> Result<(), SinkError> {
        let plan = self.plan().clone();
        let plan =
            plan.ok_or_else(|| SinkError::Disk("the tree is not arranged; please report this".to_owned()))?;
        let archive = finish::Archive { wanted: self.options.archive, sent: self.shape.head.archive };
        let finish = finish::Finish::new(&plan, &self.staging, archive, &self.notes);
        finish.contents()?;
        if !self.options.merge {
            finish.directories()?;
        }
        let sync = |fd: &std::os::fd::OwnedFd| {
            let synced = step().and_then(|()| rustix::fs::syncfs(fd));
            synced.map_err(|errno| refused("write", &self.target.path, &errno.into()))
        };
        sync(&self.staging.dir)?;
        self.target.require_in_place()?;
        if !self.staging.is_in_place(&self.target) {
            return Err(SinkError::Disk(format!(
                "the staging directory {} was moved or replaced; leave it alone and try again",
                shown(&self.target.dir_path.join(&self.staging.name))
            )));
        }
        if self.options.merge {
            merge::merge(&plan, &self.target, &self.staging, &finish)?;
            sync(&self.target.dir)?;
        } else {
            publish::publish(&plan, &self.target, &self.staging, self.options.force, &finish)?;
        }
        Ok(())
    }
}

impl Part for TreePart {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), SinkError> {
        self.write(offset, bytes, false)
    }

    fn write_through(&self, offset: u64, bytes: &[u8]) -> Result<(), SinkError> {
        self.write(offset, bytes, true)
    }

    fn write_zeros(&self, offset: u64, len: u64) -> Result<(), SinkError> {
        let fits = offset.checked_add(len).is_some_and(|end| end <= self.shape.size);
        if let Some(plan) = self.plan().as_deref().filter(|plan| offset >= plan.placement.payload())
            && fits
            && !self.closed.load(Ordering::Acquire)
        {
            return plan.write_zeros(&self.staging, offset, len);
        }
        let zeros = vec![0; usize::try_from(len.min(PIECE)).unwrap_or_default()];
        let steps = (0..len).step_by(PIECE as usize).map(|at| (offset + at, PIECE.min(len - at)));
        steps.into_iter().try_for_each(|(at, piece)| self.write(at, &zeros[..piece as usize], false))
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), SinkError> {
        self.read(offset, buf, false)
    }

    fn read_back(&self, offset: u64, buf: &mut [u8]) -> Result<(), SinkError> {
        self.synced.get_or_init(|| {
            // A disk that fails says so again at the end.
            let _ = rustix::fs::syncfs(&self.staging.dir);
        });
        self.read(offset, buf, true)
    }

    /// Where something is, is known only when the tree is arranged.
    fn next_written(&self, from: u64) -> Option<Range<u64>> {
        (self.staging.adopted && from < self.shape.size).then_some(from..self.shape.size)
    }

    fn arrange(&self) -> Result<Vec<Range<u64>>, SinkError> {
        let _busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        let mut manifest = vec![0; self.shape.head.manifest as usize];
        self.read(0, &mut manifest, false)?;
        let plan = Plan::new(&manifest, &self.shape, &self.name, &self.target.path)?;
        drop(manifest);
        self.require_room(&plan)?;
        publish::require_free(&plan, &self.target, self.options, self.options.archive)?;
        plan.prepare(&self.staging)?;
        let held = plan.held(self.old.as_deref());
        // From here on, nothing more goes to the file.
        let mut current = self.plan.write().unwrap_or_else(PoisonError::into_inner);
        let mut ranges = self.move_early(&plan)?;
        *current = Some(Arc::new(plan));
        ranges.extend(held);
        Ok(ranges)
    }

    fn has_earlier(&self) -> bool {
        self.old.is_some()
    }

    fn read_earlier(&self, offset: u64, buf: &mut [u8]) -> std::io::Result<()> {
        match (&*self.plan(), &self.old) {
            (Some(plan), Some(old)) if offset >= plan.placement.payload() => plan.read_old(old, offset, buf),
            _ => Err(std::io::ErrorKind::NotFound.into()),
        }
    }

    fn commit(&self) -> Result<PathBuf, SinkError> {
        let _busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        if self.closed.swap(true, Ordering::AcqRel) {
            return Err(SinkError::Disk(format!(
                "{} is finished already; please report this",
                shown(&self.target.path)
            )));
        }
        let done = self.try_commit();
        // What was replaced is in there too.
        if let Err(errno) = self.remove_staging()
            && done.is_ok()
        {
            self.notes.warn(format!(
                "{} cannot be removed ({}); remove it by hand",
                shown(&self.target.dir_path.join(&self.staging.name)),
                std::io::Error::from(errno)
            ));
        }
        done.map(|()| self.target.path.clone())
    }

    fn discard(&self) {
        let _busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.closed.swap(true, Ordering::AcqRel) {
            // If this fails too, there is nobody left to be told.
            let _ = self.remove_staging();
        }
    }
}
