//! Jobs that the machines request: everything that takes time or touches the disk.

use crate::content::{Entry, TreeHead};
use crate::fec::{BlockAssembly, Buffer};
use crate::layout::Layout;
use crate::pack::Recipe;
use crate::ranges::BitSet;
use crate::task::Assignment;
use crate::units::{
    BlockIndex, Coded, DeviceId, Digest, Esi, Extent, SenderKey, SessionId, SymbolDigest, Ticket,
};
use crate::wire::{AbortCode, Holdings};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

/// A job of the sender.
#[derive(Debug)]
pub enum SenderJob {
    /// Read the block, compute its chaining value (or the root hash if it is the only block), and choose its coding.
    Hash {
        /// The block.
        block: BlockIndex,
        /// The object's division into blocks.
        layout: Layout,
        /// The level at which to compress it, if that is worth it.
        level: Option<i8>,
    },
    /// Read the block and encode the symbols `first..first + count`: source symbols of a compressed block, or repair
    /// symbols.
    Encode {
        /// The block.
        block: BlockIndex,
        /// The object's division into blocks.
        layout: Layout,
        /// How the block is coded.
        recipe: Recipe,
        /// The number of the first symbol: at least K, or 0.
        first: Esi,
        /// How many; K' if the first is 0.
        count: u32,
        /// The block's chaining value, if it is known.
        value: Option<Digest>,
    },
    /// Read the block and compute the digests of its source symbols.
    Digest {
        /// The block.
        block: BlockIndex,
        /// The object's division into blocks.
        layout: Layout,
        /// How it is coded.
        recipe: Recipe,
        /// Its chaining value, if it is known.
        value: Option<Digest>,
    },
    /// Compute the digests of encoded symbols of a block.
    Vouch {
        /// The block.
        block: BlockIndex,
        /// ESI of the first symbol.
        first: Esi,
        /// The symbols, concatenated.
        symbols: Arc<Vec<u8>>,
        /// Bytes of a symbol.
        symbol_size: u16,
    },
    /// Wait until more of the object can be read, or its end; see [`SenderJob::is_for_input`].
    Read {
        /// Nobody needs the bytes below this any more.
        unused: u64,
    },
    /// Check that the source is unchanged (size and modification time).
    CheckSource,
    /// Look these devices up in the store; see [`SenderJob::is_for_store`].
    LookUp(Vec<DeviceId>),
    /// Record these assignments in the store.
    Record(Vec<Assignment>),
}

impl SenderJob {
    /// Whether the job is for the store. Such jobs may take long, and must not delay the others.
    #[must_use]
    pub const fn is_for_store(&self) -> bool {
        matches!(self, Self::LookUp(_) | Self::Record(_))
    }

    /// Whether the job waits for the source's input. It may take any time, and must not delay the others.
    #[must_use]
    pub const fn is_for_input(&self) -> bool {
        matches!(self, Self::Read { .. })
    }
}

/// The result of a [`SenderJob`].
#[derive(Debug)]
pub enum SenderDone {
    /// A block was hashed.
    Hashed {
        /// The block.
        block: BlockIndex,
        /// Its chaining value.
        value: Digest,
        /// The coding chosen for it.
        recipe: Recipe,
        /// Its source symbols, if it was compressed.
        packed: Option<Arc<Vec<u8>>>,
    },
    /// The symbols, concatenated.
    Encoded {
        /// The block.
        block: BlockIndex,
        /// The number of the first symbol.
        first: Esi,
        /// The symbols.
        symbols: Arc<Vec<u8>>,
    },
    /// The digests of all source symbols of a block.
    Digested(BlockIndex, Vec<SymbolDigest>),
    /// The digests of encoded symbols of a block, from this ESI on.
    Vouched(BlockIndex, Esi, Vec<SymbolDigest>),
    /// More of the object can be read, or it is sealed.
    Grown(Extent),
    /// The source is unchanged.
    SourceChecked,
    /// The source could not be read, or has changed; one clause for people.
    SourceFailed(String),
    /// The assignment of each device in the store; or an error, one clause for people.
    LookedUp(Result<Vec<(DeviceId, Option<Assignment>)>, String>),
    /// The assignments that the store has after recording; or an error.
    Recorded(Result<Vec<Assignment>, String>),
    /// A worker panicked, which is a bug.
    WorkerDied(String),
}

/// A job of the receiver.
#[derive(Debug)]
pub enum ReceiverJob {
    /// Look up what the device holds of an object, and its ticket. Nothing on the disk changes.
    Probe {
        /// The session that requests it.
        session: SessionId,
        /// The object's name (untrusted).
        name: String,
        /// The object's division into blocks, and so its size, as far as that is known.
        layout: Layout,
        /// What is announced of a tree.
        tree: Option<TreeHead>,
    },
    /// Keep the ticket of a session for the next run.
    KeepTicket {
        /// The session.
        session: SessionId,
        /// The ticket of its latest ADMIT.
        ticket: Ticket,
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
        /// The object's division into blocks, and so its size, as far as that is known.
        layout: Layout,
        /// The object's entry in the manifest, if it is known.
        entry: Option<Entry>,
        /// What is announced of a tree.
        tree: Option<TreeHead>,
    },
    /// Lay out a tree by its manifest, whose blocks are verified and in the part file.
    Arrange {
        /// The object's division into blocks.
        layout: Layout,
    },
    /// Complete the block (read spilled symbols back, and decode if repair symbols replace source symbols),
    /// hash it, and write it to the part file.
    Store {
        /// The symbols of the block.
        assembly: BlockAssembly,
        /// The chaining value, if its page has arrived.
        expected: Option<Digest>,
        /// Whether to write a block that disagrees too, for a later [`ReceiverJob::Sift`].
        keep: bool,
        /// Buffers are scarce: a fast return of this one is more important than bypassing the page cache.
        pressed: bool,
    },
    /// Write the assembly's symbols to the part file and free its buffer.
    Spill(BlockAssembly),
    /// Read a block that disagrees with its chaining value from the part file, and find out which of its
    /// source symbols are right.
    Sift {
        /// The block.
        block: BlockIndex,
        /// The object's division into blocks.
        layout: Layout,
        /// How it is coded.
        coded: Coded,
        /// The digests of all its source symbols.
        digests: Arc<Vec<SymbolDigest>>,
        /// Its chaining value.
        expected: Digest,
        /// The block, if there is no part file.
        buffer: Option<Buffer>,
    },
    /// Write the next block of an object that the destination takes in order.
    Write {
        /// The block.
        block: BlockIndex,
        /// The object's division into blocks.
        layout: Layout,
        /// Its bytes, and padding behind them; without them it is in the part file.
        buffer: Option<Buffer>,
        /// Whether it is all zeros, and is nowhere.
        zeros: bool,
    },
    /// Verify that blocks of zeros have these chaining values, and make them zeros in the part file.
    Zero {
        /// The first block.
        first: BlockIndex,
        /// The chaining values of it and the following blocks.
        values: Vec<Digest>,
        /// The object's division into blocks.
        layout: Layout,
    },
    /// Reserve the space of blocks in the part file.
    Reserve {
        /// The first block.
        first: BlockIndex,
        /// How many.
        count: u32,
        /// The object's division into blocks.
        layout: Layout,
    },
    /// Compare a block that may be on the disk already: in the part file of an earlier run, or in an earlier
    /// version of the object. A block that agrees is copied from the earlier version.
    Check {
        /// The block.
        block: BlockIndex,
        /// The object's division into blocks.
        layout: Layout,
        /// Its chaining value.
        expected: Digest,
        /// Whether the part file may have it.
        in_part: bool,
    },
    /// Sync the part file, rename it to its final name, sync the directory. Of a destination that takes blocks in
    /// order: close it, and wait for the command that reads it.
    Commit {
        /// The object's division into blocks.
        layout: Layout,
        /// The root hash of the object.
        root: Digest,
    },
    /// Run the hook for the object that is in place.
    Hook(InPlace),
    /// Remove the part file.
    Discard,
    /// Leave the part file to the next run.
    Keep,
}

impl ReceiverJob {
    /// Whether the job may wait for whatever reads a destination that takes blocks in order. Such jobs must not delay
    /// the others, and are executed one after the other.
    #[must_use]
    pub const fn is_for_reader(&self) -> bool {
        matches!(self, Self::Write { .. } | Self::Commit { .. })
    }
}

/// An object in place, as its hook is told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InPlace {
    /// The path of the file.
    pub path: PathBuf,
    /// The object's name (untrusted).
    pub name: String,
    /// Its BLAKE3 hash.
    pub root: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// The sender's address.
    pub sender: IpAddr,
    /// The sender's key.
    pub key: SenderKey,
}

/// The result of a [`ReceiverJob`].
#[derive(Debug)]
pub enum ReceiverDone {
    /// The look-up of what the device holds is done.
    Probed {
        /// The session that requested it.
        session: SessionId,
        /// What the device holds.
        holding: Holdings,
        /// The ticket that an earlier run was given in this session, if it was kept.
        ticket: Option<Ticket>,
    },
    /// Whether the next run will find the ticket.
    TicketKept(bool),
    /// The part file is ready.
    Opened {
        /// Blocks that may have data of an earlier run.
        written: BitSet,
        /// Blocks below this are in an earlier version of the object, changed or not.
        earlier: u32,
    },
    /// The tree is laid out.
    Arranged {
        /// Blocks behind the manifest that may be there already.
        there: BitSet,
    },
    /// The block is in the part file; its chaining value, and its buffer for reuse. Without a part file, the buffer
    /// has the block.
    Stored {
        /// The block.
        block: BlockIndex,
        /// The chaining value of the written block.
        value: Digest,
        /// The buffer.
        buffer: Buffer,
    },
    /// The block disagreed with `expected`.
    Mismatched {
        /// The block.
        block: BlockIndex,
        /// The buffer; without a part file, with the block.
        buffer: Buffer,
        /// The received source symbols, if the block is in the part file, or in the buffer. The others were decoded.
        kept: Option<BitSet>,
    },
    /// A block was sifted.
    Sifted {
        /// The block.
        block: BlockIndex,
        /// The source symbols in the part file that agree with their digests.
        right: BitSet,
        /// Whether all symbols agree, and the block agrees with its chaining value.
        agrees: bool,
        /// The block, as it was given.
        buffer: Option<Buffer>,
    },
    /// The block was written.
    Written {
        /// The block.
        block: BlockIndex,
        /// The buffer, as it was given.
        buffer: Option<Buffer>,
    },
    /// Blocks of zeros are zeros in the part file.
    Zeroed {
        /// The first block.
        first: BlockIndex,
        /// How many.
        count: u32,
        /// The first one that does not have its chaining value; nothing was written then.
        wrong: Option<BlockIndex>,
    },
    /// The space was reserved.
    Reserved,
    /// The symbols were not enough (RaptorQ fails occasionally with few extra symbols).
    Undecodable(BlockAssembly),
    /// The assembly's symbols are in the part file. Its buffer can be reused.
    Spilled {
        /// The assembly, now without a buffer.
        assembly: BlockAssembly,
        /// The buffer.
        buffer: Buffer,
    },
    /// The block was compared. If it agrees, it is in the part file.
    Checked {
        /// The block.
        block: BlockIndex,
        /// Whether it has the chaining value.
        agrees: bool,
    },
    /// The object is in place and synced.
    Committed(PathBuf),
    /// The hook has ended with this status, or could not run: one clause for people.
    HookEnded(Result<i32, String>),
    /// The part file was removed.
    Discarded,
    /// The part file is left to the next run.
    Kept,
    /// The disk failed, or the name is unusable; one clause for people.
    Failed(AbortCode, String),
    /// A worker panicked, which is a bug.
    WorkerDied(String),
}
