//! The stored hashes of large files. With them, a sender knows the chaining values of an unchanged file before it
//! has read the file, and need not send blocks that devices hold.

use crate::layout::Layout;
use crate::protocol::sender::Sender;
use crate::storage::{FileSource, HashCache, Source};
use crate::units::Digest;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// A smaller file is hashed fast enough.
const WORTH_REMEMBERING: u64 = 16 << 20;

/// The stored hashes of a file.
pub(super) struct Hashes {
    cache: HashCache,
    source: Arc<FileSource>,
    layout: Layout,
}

impl Hashes {
    /// The store for a file. `None` if the file is small, or there is no directory.
    pub fn of(dir: Option<PathBuf>, source: &Arc<FileSource>, layout: Layout) -> Option<Self> {
        let cache = HashCache::new(&dir.filter(|_| source.size() >= WORTH_REMEMBERING)?);
        Some(Self { cache, source: Arc::clone(source), layout })
    }

    /// The hashes of an earlier run, if the file has not changed since.
    pub fn load(&self) -> Option<Vec<Digest>> {
        self.cache.load(self.source.file_id(), self.layout.block_log2(), self.layout.block_count())
    }

    /// Stores the hashes of this run. If the run used stored ones and a device has failed, the file may have
    /// changed without a trace: then they are dropped, and the next run hashes again.
    pub fn keep(&self, from_cache: bool, failed: bool, machine: &Sender) -> io::Result<()> {
        let (file, log2) = (self.source.file_id(), self.layout.block_log2());
        if from_cache {
            if failed {
                self.cache.forget(file, log2);
            }
            return Ok(());
        }
        match machine.values().filter(|_| self.source.check().is_ok()) {
            Some(values) => self.cache.store(file, log2, &values),
            None => Ok(()),
        }
    }
}
