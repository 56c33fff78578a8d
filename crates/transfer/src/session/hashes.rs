//! The hashes of large files, kept from run to run: what has not changed since need not be sent to those who
//! have it, and that is known before the file has been read.

use crate::layout::Layout;
use crate::storage::{FileSource, HashCache, HashedBlock, Source};
use crate::units::Digest;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// A smaller file is hashed in no time.
const WORTH_REMEMBERING: u64 = 16 << 20;

/// What is remembered of the file's hashes from run to run.
pub(super) struct Hashes {
    cache: HashCache,
    source: Arc<FileSource>,
    layout: Layout,
}

impl Hashes {
    /// Of a file that is worth it; none of a device, and none without a directory to keep them in.
    pub fn of(dir: Option<PathBuf>, source: &Arc<FileSource>, layout: Layout) -> Option<Self> {
        source.file_id()?;
        let cache = HashCache::new(&dir.filter(|_| layout.object_size() >= WORTH_REMEMBERING)?);
        Some(Self { cache, source: Arc::clone(source), layout })
    }

    /// Those of an earlier run, and which blocks are zeros, if the file has not changed since.
    pub fn load(&self) -> Option<Vec<(Digest, bool)>> {
        let blocks =
            self.cache.load(self.source.file_id()?, self.layout.block_log2(), self.layout.block_count())?;
        Some(blocks.iter().map(|block| (block.value, block.is_zero)).collect())
    }

    /// Stores what the run has hashed. If the run used stored hashes, and the source or a device has failed,
    /// the stored hashes may be wrong: they are removed, and the next run hashes the file again.
    pub fn keep(
        &self,
        from_cache: bool,
        failed: bool,
        blocks: Option<Vec<(Digest, bool)>>,
    ) -> io::Result<()> {
        let (Some(file), log2) = (self.source.file_id(), self.layout.block_log2()) else { return Ok(()) };
        if from_cache {
            if failed {
                self.cache.forget(file, log2);
            }
            return Ok(());
        }
        match blocks.filter(|_| self.source.check().is_ok()) {
            Some(blocks) => {
                let kept = |(value, is_zero)| HashedBlock { value, is_zero };
                let blocks: Vec<_> = blocks.into_iter().map(kept).collect();
                self.cache.store(file, log2, &blocks)
            }
            None => Ok(()),
        }
    }
}
