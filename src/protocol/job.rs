//! Jobs that the machines request: everything that takes time or touches the disk.

use crate::content::Entry;
use crate::fec::{BlockAssembly, Buffer};
use crate::layout::Layout;
use crate::ranges::BitSet;
use crate::task::Assignment;
use crate::units::{BlockIndex, DeviceId, Digest, Esi, SessionId, SymbolDigest};
use crate::wire::{AbortCode, Holdings};
use std::path::PathBuf;
use std::sync::Arc;

/// Work for the sender.
#[derive(Debug)]
pub enum SenderJob {
    /// Read the block and give its chaining value (or the root hash if it is the only block).
    Hash(BlockIndex),
    /// Read the block and give repair symbols `first..first + count`.
    Encode {
        /// The block.
        block: BlockIndex,
        /// Id of the first; at least K.
        first: Esi,
        /// How many.
        count: u32,
    },
    /// Read the block and give the digests of its source symbols.
    Digest(BlockIndex),
    /// Check that the source is still the file it was (size and modification time).
    CheckSource,
    /// Look up what the store has of these devices; see [`SenderJob::is_for_store`].
    LookUp(Vec<DeviceId>),
    /// Have the store keep these assignments.
    Record(Vec<Assignment>),
}

impl SenderJob {
    /// Whether it is for the store. Such jobs may take as long as they like: they must not keep the others
    /// from being done.
    #[must_use]
    pub const fn is_for_store(&self) -> bool {
        matches!(self, Self::LookUp(_) | Self::Record(_))
    }
}

/// What became of a [`SenderJob`].
#[derive(Debug)]
pub enum SenderDone {
    /// The chaining value.
    Hashed(BlockIndex, Digest),
    /// The repair symbols, one after the other.
    Encoded {
        /// The block.
        block: BlockIndex,
        /// Id of the first.
        first: Esi,
        /// The symbols.
        symbols: Arc<Vec<u8>>,
    },
    /// The digests of a block's source symbols, all of them.
    Digested(BlockIndex, Vec<SymbolDigest>),
    /// The source is as it was.
    SourceChecked,
    /// The source could not be read, or changed; one clause for people.
    SourceFailed(String),
    /// What the store has of each device; or why it does not say, one clause for people.
    LookedUp(Result<Vec<(DeviceId, Option<Assignment>)>, String>),
    /// What the store has now of each assignment it was to keep; or why it does not keep them.
    Recorded(Result<Vec<Assignment>, String>),
    /// A worker died: our bug.
    WorkerDied(String),
}

/// Work for the receiver.
#[derive(Debug)]
pub enum ReceiverJob {
    /// Look up what the device holds of an object. Nothing on the disk changes.
    Probe {
        /// The session that asks.
        session: SessionId,
        /// The object's name (untrusted).
        name: String,
        /// How the object is cut up, and so its size.
        layout: Layout,
    },
    /// Sync the file that [`ReceiverJob::Probe`] found to be the whole object, if it is still there.
    Adopt {
        /// The object's name (untrusted).
        name: String,
    },
    /// Choose and check the destination, take over or create the part file.
    Open {
        /// The object's name (untrusted; the storage layer makes it safe or refuses).
        name: String,
        /// How the object is cut up, and so its size.
        layout: Layout,
        /// What its manifest says of it, if that is known.
        entry: Option<Entry>,
    },
    /// Complete the block (reading back what was spilled, decoding if repair symbols stand in for
    /// source symbols), hash it, and write it to the part file.
    Store {
        /// The symbols held.
        assembly: BlockAssembly,
        /// The chaining value, if its page has come.
        expected: Option<Digest>,
        /// Whether a block that disagrees is written all the same, for a [`ReceiverJob::Sift`].
        keep: bool,
        /// Buffers are scarce: the sooner this one is back the better, even if the page cache has
        /// to take the block.
        pressed: bool,
    },
    /// Write what the assembly holds to the part file and empty its buffer.
    Spill(BlockAssembly),
    /// Read a block that disagrees with its chaining value from the part file, and tell which of its source
    /// symbols are right.
    Sift {
        /// The block.
        block: BlockIndex,
        /// The digests of all its source symbols.
        digests: Arc<Vec<SymbolDigest>>,
        /// Its chaining value.
        expected: Digest,
    },
    /// Look whether the device has the block already: in the part file that an earlier run has left, or
    /// in an earlier version of the object, from which it is copied if it agrees.
    Check {
        /// The block.
        block: BlockIndex,
        /// Its chaining value.
        expected: Digest,
        /// Whether the part file may have it.
        in_part: bool,
    },
    /// Sync the part file, rename it to its final name, sync the directory.
    Commit,
    /// Remove the part file.
    Discard,
    /// Leave the part file to the next run.
    Keep,
}

/// What became of a [`ReceiverJob`].
#[derive(Debug)]
pub enum ReceiverDone {
    /// What the device holds was looked up.
    Probed {
        /// The session that asked.
        session: SessionId,
        /// What it holds.
        holding: Holdings,
    },
    /// The part file is ready.
    Opened {
        /// Blocks of which it may hold something from an earlier run; a set with room for all of the object's.
        written: BitSet,
        /// Blocks below this are in an earlier version of the object, changed or not.
        earlier: u32,
    },
    /// The block is in the part file; its chaining value, and its buffer for reuse.
    Stored {
        /// The block.
        block: BlockIndex,
        /// The chaining value of what was written.
        value: Digest,
        /// The buffer.
        buffer: Buffer,
    },
    /// The block disagreed with `expected`.
    Mismatched {
        /// The block.
        block: BlockIndex,
        /// The buffer.
        buffer: Buffer,
        /// The source symbols that were received, if the block is in the part file; the others were decoded.
        kept: Option<BitSet>,
    },
    /// A block was sifted.
    Sifted {
        /// The block.
        block: BlockIndex,
        /// Its source symbols in the part file that have their digests.
        right: BitSet,
        /// All have, and the block has its chaining value.
        agrees: bool,
    },
    /// The symbols did not suffice (RaptorQ fails now and then at few extra symbols).
    Undecodable(BlockAssembly),
    /// The assembly's contents are in the part file; its buffer for reuse.
    Spilled {
        /// What is held of the block, now without a buffer.
        assembly: BlockAssembly,
        /// The buffer.
        buffer: Buffer,
    },
    /// The block was looked for; if it agrees it is in the part file.
    Checked {
        /// The block.
        block: BlockIndex,
        /// Whether it has the chaining value.
        agrees: bool,
    },
    /// The object is in place and synced.
    Committed(PathBuf),
    /// The part file is gone.
    Discarded,
    /// The part file is left to the next run.
    Kept,
    /// The disk or the name refused; one clause for people.
    Failed(AbortCode, String),
    /// A worker died: our bug.
    WorkerDied(String),
}
