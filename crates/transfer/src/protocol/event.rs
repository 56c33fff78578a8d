//! What the machines tell the user: events for changes, snapshots for bars and reports.

use super::need::Need;
use super::statistics::DeviceRow;
use super::trust::TrustDecision;
use crate::task::{Step, Summary};
use crate::units::{Counter, DeviceId, DeviceKey, Digest, Extent, Rate, SenderKey, SessionId, TaskId};
use crate::wire::{AbortCode, Phase};
use std::net::SocketAddr;
use std::path::PathBuf;

/// An event of the sender.
#[derive(Clone, Debug, PartialEq)]
pub enum SenderEvent {
    /// The phase changed.
    Phase(Phase),
    /// A device was admitted (or came back).
    Joined {
        /// The device.
        device: DeviceId,
        /// Its label (untrusted).
        label: String,
        /// Its address.
        address: SocketAddr,
        /// The key that it has proved to have, if any. `None` for a duplicate, which has another device's identifier.
        key: Option<DeviceKey>,
        /// Whether the stream had already begun.
        late: bool,
    },
    /// A device has another key than the sender remembers, or none: it was set up anew, or another device has its
    /// identifier. Emitted once for each device.
    DeviceKeyChanged {
        /// The device.
        device: DeviceId,
        /// Its label (untrusted).
        label: String,
        /// Its present key.
        key: Option<DeviceKey>,
        /// The remembered key.
        before: DeviceKey,
    },
    /// A device was refused because it is not on the list of devices. Emitted for a limited number of them.
    NotListed {
        /// Its label (untrusted).
        label: String,
        /// Its address.
        address: SocketAddr,
        /// The key that it has proved to have, if any.
        key: Option<DeviceKey>,
        /// Whether its name is on the list.
        named: bool,
    },
    /// Two devices have the same identifier, as cloned machines do. They are served as two devices.
    DuplicateId {
        /// The identifier.
        device: DeviceId,
        /// The label of the second one (untrusted).
        label: String,
        /// Their addresses, that of the first device first.
        addresses: [SocketAddr; 2],
    },
    /// The store has recorded another state of the device, or its activity has changed.
    Device(DeviceRow),
    /// The store fails, for this reason (one clause). Receipts and joins wait for it.
    StoreFails(String),
    /// The store answers again.
    StoreAnswers,
    /// The root hash is known.
    Hashed(Digest),
    /// The run has ended.
    Finished(SenderOutcome),
}

/// How the sender's run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SenderOutcome {
    /// It ended normally. The store says which devices have the object.
    Ended,
    /// It has sent as told, in a session without feedback: so many whole passes. Nobody can say who has the object.
    SentOneWay(u32),
    /// The user interrupted it.
    Interrupted,
    /// The source could not be read or changed.
    SourceFailed(String),
    /// The store failed for so long that the sender gave it up. It may lack the end of some devices.
    StoreFailed(String),
    /// A worker panicked, which is a bug.
    Internal(String),
}

/// The sender at a glance, without rows.
#[derive(Clone, Debug, PartialEq)]
pub struct SenderOverview {
    /// The phase.
    pub phase: Phase,
    /// Blocks of the object, in all.
    pub blocks: u32,
    /// Blocks streamed.
    pub position: u32,
    /// Bytes of the object; the bytes so far while it grows.
    pub object_size: u64,
    /// Whether the object still grows.
    pub growing: bool,
    /// Bytes of the object streamed or skipped.
    pub streamed: u64,
    /// Bytes that were skipped, because every device had them.
    pub skipped: u64,
    /// Pacing rate.
    pub rate: Rate,
    /// Bytes sent on the wire: Ethernet frames as network cards count them (headers, but no preamble, check
    /// sequence or gap).
    pub wire_bytes: u64,
    /// Source symbols sent once.
    pub source_symbols: u64,
    /// Symbols sent to the group beyond that (resent source and fresh repair symbols).
    pub repair_symbols: u64,
    /// Symbols sent to single devices.
    pub unicast_symbols: u64,
    /// Feedback datagrams received.
    pub feedback: u64,
    /// Datagrams ignored because they were malformed or not for this session.
    pub ignored: u64,
    /// Datagrams of kinds that this program does not know; counted among the ignored ones too.
    pub unknown_kinds: u64,
    /// Datagrams that only a later program may understand; counted among the ignored ones too.
    pub not_understood: u64,
    /// Requests of devices about blocks that disagree with their hashes.
    pub suspects: u64,
    /// Devices expected (`--receivers`, `--devices`).
    pub expected: Option<u32>,
    /// Numbers of devices by state, as the store has it. Devices without a record count as pending.
    pub devices: Summary,
    /// How many of them are on the list and have not come: they are pending.
    pub missing: usize,
    /// How far a session without feedback has come.
    pub passes: Option<PassProgress>,
}

/// How far a session without feedback has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PassProgress {
    /// The present pass, from 0.
    pub pass: u32,
    /// How many there are; `None` for no end.
    pub of: Option<u32>,
}

impl SenderOverview {
    /// Bytes of the object, once it no longer grows.
    #[must_use]
    pub fn total(&self) -> Option<u64> {
        (!self.growing).then_some(self.object_size)
    }

    /// The number of devices that have joined and are still to be served.
    #[must_use]
    pub const fn present(&self) -> usize {
        self.devices.open().saturating_sub(self.missing)
    }

    /// The number of devices that have to complete: those that joined, or the expected number if that is
    /// larger.
    #[must_use]
    pub fn wanted(&self) -> usize {
        self.devices.total().max(self.expected.unwrap_or(0) as usize)
    }
}

/// The sender at a glance, with a row for each device. With many devices it is costly, so it is made on
/// request.
#[derive(Clone, Debug, PartialEq)]
pub struct SenderSnapshot {
    /// Everything but the rows.
    pub overview: SenderOverview,
    /// The rows of all devices.
    pub devices: Vec<DeviceRow>,
}

impl SenderSnapshot {
    /// The same with `rows`, which are the store's last rows.
    #[must_use]
    pub fn with_devices(mut self, rows: Vec<DeviceRow>) -> Self {
        self.overview.devices = Summary::of(rows.iter().map(|row| row.assignment.state()));
        self.overview.missing = rows.iter().filter(|row| row.is_missing()).count();
        self.devices = rows;
        self
    }
}

/// An event of the receiver.
#[derive(Clone, Debug, PartialEq)]
pub enum ReceiverEvent {
    /// A session was found; a join follows.
    Found {
        /// The session.
        session: SessionId,
        /// Its task.
        task: TaskId,
        /// The sender.
        sender: SocketAddr,
        /// The object's name (untrusted).
        name: String,
        /// How long it is, as far as that is known.
        extent: Extent,
        /// Entries of a tree; `None` for other objects.
        entries: Option<u32>,
    },
    /// The receiver trusts the key of a session's sender, or of the origin of what it passes on.
    SenderTrusted {
        /// The key.
        key: SenderKey,
        /// The sender's address.
        address: SocketAddr,
        /// Why the key is trusted; an accepting decision.
        decision: TrustDecision,
        /// Whether it is the origin's, and somebody else sends the object.
        relayed: bool,
    },
    /// The receiver does not trust the key of a session's sender.
    SenderRefused {
        /// Its key.
        key: SenderKey,
        /// The sender's address.
        address: SocketAddr,
        /// Why the key is not trusted; a refusing decision.
        decision: TrustDecision,
    },
    /// A sender requires something that this program does not have. The receiver goes on looking for others.
    /// Emitted once for each address.
    SenderNeeds {
        /// The requirement.
        need: Need,
        /// The sender's address. If the requirement is a version of the wire format, anybody could have
        /// forged it.
        address: SocketAddr,
    },
    /// A session without feedback is no newer than the last one that this device has completed from its sender. It may
    /// be a recording, so the receiver goes on looking for others. Emitted once for each sender.
    OldSession {
        /// The sender's key.
        key: SenderKey,
        /// The sender's address.
        address: SocketAddr,
    },
    /// A session has an object of another name than the one to take. The receiver goes on looking for others. Emitted
    /// once for each address.
    OtherName {
        /// The object's name (untrusted).
        name: String,
        /// The sender's address.
        address: SocketAddr,
    },
    /// The sender has admitted the device.
    Admitted,
    /// The first symbol has arrived.
    Receiving,
    /// All blocks on the disk have been checked.
    Resumed {
        /// Bytes of blocks that agree and need not be received.
        bytes: u64,
    },
    /// A block disagreed with its chaining value. The wrong part is fetched again.
    BlockRejected(u32),
    /// Symbols of a block disagreed with the sender's signed digests and were dropped: they were forged or
    /// damaged.
    ForgedSymbols {
        /// The block.
        block: u32,
        /// How many, at least 1.
        symbols: u32,
    },
    /// All blocks are verified; syncing and renaming.
    Committing,
    /// The file is in place and synced; the sender is being told.
    Committed {
        /// The path of the file.
        path: PathBuf,
        /// Its BLAKE3 hash.
        root: Digest,
    },
    /// The hook has begun, was skipped, or has ended.
    Hook(HookChange),
    /// The run has ended.
    Finished(ReceiverOutcome),
}

/// A change of the hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HookChange {
    /// It runs.
    Started,
    /// It does not run, because the file was in place already.
    Skipped,
    /// It has ended.
    Ended(HookEnd),
}

/// How the hook ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookEnd {
    /// Its exit status. Negative: the number of the signal that ended it. 127: it could not run.
    pub status: i32,
    /// Why it did not succeed, one clause for people; `None` if it did.
    pub failure: Option<String>,
}

impl HookEnd {
    /// Status of a hook that could not run, as shells have it.
    pub const CANNOT_RUN: i32 = 127;

    /// The end of a hook that ran and ended with `status`.
    #[must_use]
    pub fn of_status(status: i32) -> Self {
        Self { status, failure: Step::Hook(status).failure() }
    }

    /// The end of a hook that could not run.
    #[must_use]
    pub const fn cannot_run(why: String) -> Self {
        Self { status: Self::CANNOT_RUN, failure: Some(why) }
    }
}

/// How the receiver's run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReceiverOutcome {
    /// Verified and committed.
    Complete {
        /// Whether the sender has acknowledged the receipt.
        acknowledged: bool,
    },
    /// Verified and committed, but the hook failed. The file stays.
    HookFailed {
        /// How it ended.
        end: HookEnd,
        /// Whether the sender has acknowledged the receipt.
        acknowledged: bool,
        /// Whether the user interrupted it.
        interrupted: bool,
    },
    /// The sender's table has this device as complete; nothing was written.
    AlreadyComplete,
    /// No sender was found in time.
    NoSender,
    /// No sender was found in time, except one that requires something that this program does not have.
    SenderNeeds(Need),
    /// The sender fell silent.
    SenderSilent,
    /// The session had no feedback, and has ended, or its sender has fallen silent, before the object was whole.
    Lacking {
        /// Blocks that are missing.
        blocks: u32,
        /// Blocks of the object.
        of: u32,
        /// How the sender ended; `None` if it fell silent.
        end: Option<AbortCode>,
    },
    /// The sender stopped, with its reason (untrusted text).
    SenderAborted(AbortCode, String),
    /// The session was full.
    Refused,
    /// The sender serves the devices of a list, and this one is not among them.
    NotListed,
    /// The device failed: disk, name, or hash.
    Failed(AbortCode, String),
    /// The user interrupted it.
    Interrupted,
}

/// The receiver at a glance.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReceiverSnapshot {
    /// The session, once one is found.
    pub session: Option<SessionId>,
    /// The object's name (untrusted), once a session is found.
    pub name: Option<String>,
    /// The sender.
    pub sender: Option<SocketAddr>,
    /// The sender's key, and the trust decision about it.
    pub trusted: Option<(SenderKey, TrustDecision)>,
    /// Bytes of the object; the bytes so far while it grows.
    pub object_size: u64,
    /// Whether the object still grows.
    pub growing: bool,
    /// Bytes of blocks verified.
    pub verified_bytes: u64,
    /// Bytes of object data received so far, verified or not (never above the object's size).
    pub received_bytes: u64,
    /// The same without blocks of zeros, of which nothing is sent.
    pub carried_bytes: u64,
    /// Bytes of verified blocks that were on the disk already, from an earlier run or in an earlier version.
    pub resumed_bytes: u64,
    /// Bytes left in the part file for the next run, once this one has ended without the object.
    pub kept_bytes: u64,
    /// Blocks of the object.
    pub blocks: u32,
    /// Bytes of a block; the last one may be shorter.
    pub block_size: u64,
    /// Blocks verified.
    pub verified: u32,
    /// Datagrams received on the group channel.
    pub received: u64,
    /// Datagrams of the group channel that did not arrive.
    pub lost: u64,
    /// Datagrams that the kernel dropped.
    pub kernel_drops: u64,
    /// Datagrams dropped for lack of a free block buffer.
    pub overrun_drops: u64,
    /// Datagrams ignored because they were malformed or not for this session.
    pub ignored: u64,
    /// Datagrams of kinds that this program does not know; counted among the ignored ones too.
    pub unknown_kinds: u64,
    /// Datagrams that only a later program may understand; counted among the ignored ones too.
    pub not_understood: u64,
    /// Symbols that disagreed with the sender's signed digests and were dropped: forged, or damaged on the
    /// way.
    pub forged_symbols: u64,
    /// The sender's phase.
    pub phase: Option<Phase>,
    /// The counter of the session, if it has no feedback.
    pub one_way: Option<Counter>,
    /// Bytes of block buffers in use.
    pub buffered: usize,
}

impl ReceiverSnapshot {
    /// Bytes of the object, once it no longer grows.
    #[must_use]
    pub fn total(&self) -> Option<u64> {
        (!self.growing).then_some(self.object_size)
    }
}
