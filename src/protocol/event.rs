//! What the machines tell the user: events at each change, snapshots for bars and reports.

use super::need::Need;
use super::statistics::DeviceRow;
use super::trust::TrustDecision;
use crate::task::Summary;
use crate::units::{DeviceId, DeviceKey, Digest, Rate, SenderKey, SessionId, TaskId};
use crate::wire::{AbortCode, Phase};
use std::net::SocketAddr;
use std::path::PathBuf;

/// Something changed at the sender.
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
        /// The key that it has shown to have, if any; none of a duplicate, which has somebody else's identifier.
        key: Option<DeviceKey>,
        /// True if the session had begun without it.
        late: bool,
    },
    /// A device shows another key than the sender remembers of it, or none: it was set up anew, or somebody else has
    /// its identifier. Told once of each device.
    DeviceKeyChanged {
        /// The device.
        device: DeviceId,
        /// Its label (untrusted).
        label: String,
        /// The key that it shows now.
        key: Option<DeviceKey>,
        /// The one before.
        before: DeviceKey,
    },
    /// A device was turned away: the list has no such device. Told of a limited number of them.
    NotListed {
        /// Its label (untrusted).
        label: String,
        /// Where it is.
        address: SocketAddr,
        /// The key that it has shown to have, if any.
        key: Option<DeviceKey>,
        /// Whether its name is on the list.
        named: bool,
    },
    /// Two devices have the same identifier, as cloned machines do. They are served as two.
    DuplicateId {
        /// The identifier.
        device: DeviceId,
        /// The label of the second one (untrusted).
        label: String,
        /// Where they are, the one that was there first before the other.
        addresses: [SocketAddr; 2],
    },
    /// A device has come to another state, and the store has it; or something else is done for it.
    Device(DeviceRow),
    /// The store fails, for this reason (one clause). Receipts and joins wait for it.
    StoreFails(String),
    /// The store answers again.
    StoreAnswers,
    /// The root hash is known.
    Hashed(Digest),
    /// The run is over.
    Finished(SenderOutcome),
}

/// How the sender's run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SenderOutcome {
    /// It came to its end; the store says who has the object.
    Ended,
    /// The user interrupted it.
    Interrupted,
    /// The source could not be read or changed.
    SourceFailed(String),
    /// The store failed for so long that it was given up: what became of some devices may not be in it.
    StoreFailed(String),
    /// A worker died: our bug.
    Internal(String),
}

/// The sender at a glance, without its devices.
#[derive(Clone, Debug, PartialEq)]
pub struct SenderOverview {
    /// What it is doing.
    pub phase: Phase,
    /// Blocks of the object, in all.
    pub blocks: u32,
    /// Blocks streamed.
    pub position: u32,
    /// Bytes of the object.
    pub object_size: u64,
    /// Bytes of the object streamed, or gone by.
    pub streamed: u64,
    /// Bytes of them that were not sent to the group, since every device had them.
    pub skipped: u64,
    /// Pacing rate.
    pub rate: Rate,
    /// Bytes put on the wire so far: Ethernet frames as network cards count them (headers, but no
    /// preamble, check sequence or gap).
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
    /// Datagrams that a later program may understand; counted among the ignored ones too.
    pub not_understood: u64,
    /// Inquiries of devices about blocks that disagreed with their hashes.
    pub suspects: u64,
    /// Devices expected (`--receivers`, `--devices`).
    pub expected: Option<u32>,
    /// How many devices are how far, as the store has it; those that it does not have yet are pending.
    pub devices: Summary,
    /// How many of them are on the list and have not come: they are pending.
    pub missing: usize,
}

impl SenderOverview {
    /// How many devices are there, and still to be served.
    #[must_use]
    pub const fn present(&self) -> usize {
        self.devices.open().saturating_sub(self.missing)
    }

    /// How many devices have to complete: those that joined, or those expected if these are more.
    #[must_use]
    pub fn wanted(&self) -> usize {
        self.devices.total().max(self.expected.unwrap_or(0) as usize)
    }
}

/// The sender at a glance, with a row for each device. With many devices it takes time to make: it is made when
/// somebody asks for it.
#[derive(Clone, Debug, PartialEq)]
pub struct SenderSnapshot {
    /// Everything but the devices.
    pub overview: SenderOverview,
    /// All devices.
    pub devices: Vec<DeviceRow>,
}

impl SenderSnapshot {
    /// The same with `rows` for devices, which are the store's last word.
    #[must_use]
    pub fn with_devices(mut self, rows: Vec<DeviceRow>) -> Self {
        self.overview.devices = Summary::of(rows.iter().map(|row| row.assignment.state()));
        self.overview.missing = rows.iter().filter(|row| row.is_missing()).count();
        self.devices = rows;
        self
    }
}

/// Something changed at the receiver.
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
        /// Its size in bytes.
        size: u64,
    },
    /// A session's sender has this key, and files are taken from it.
    SenderTrusted {
        /// Its key.
        key: SenderKey,
        /// Where it is.
        address: SocketAddr,
        /// Why it is trusted; an accepted one.
        decision: TrustDecision,
    },
    /// A session's sender has this key, and no files are taken from it.
    SenderRefused {
        /// Its key.
        key: SenderKey,
        /// Where it is.
        address: SocketAddr,
        /// Why it is not; no accepted one.
        decision: TrustDecision,
    },
    /// A sender asks for something that this program does not have; it goes on looking for others. Told once of
    /// each address.
    SenderNeeds {
        /// What.
        need: Need,
        /// Where the sender is. Of a version of the wire format, anybody can claim it.
        address: SocketAddr,
    },
    /// The sender admitted us.
    Admitted,
    /// The first symbol came.
    Receiving,
    /// All that might have been here already has been looked at.
    Resumed {
        /// Bytes of blocks that agree: they need not be received.
        bytes: u64,
    },
    /// A block did not agree with its chaining value: what is wrong in it is fetched again.
    BlockRejected(u32),
    /// Symbols of a block were not what the sender has signed, and were thrown away: forged, or damaged.
    ForgedSymbols {
        /// The block.
        block: u32,
        /// How many, at least 1.
        symbols: u32,
    },
    /// All blocks are verified; syncing and renaming.
    Committing,
    /// The file is in place and synced; telling the sender.
    Committed {
        /// Where it is.
        path: PathBuf,
        /// Its BLAKE3 hash.
        root: Digest,
    },
    /// The run is over.
    Finished(ReceiverOutcome),
}

/// How the receiver's run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReceiverOutcome {
    /// Verified and committed; `acknowledged` says whether the sender confirmed that it knows.
    Complete {
        /// Whether the sender confirmed.
        acknowledged: bool,
    },
    /// The sender's table says this device already has the object; nothing was written.
    AlreadyComplete,
    /// No sender in time.
    NoSender,
    /// The same; but there was one that asks for something that this program does not have.
    SenderNeeds(Need),
    /// The sender fell silent.
    SenderSilent,
    /// The sender stopped, with its reason (untrusted text).
    SenderAborted(AbortCode, String),
    /// The sender turned us away: it serves as many devices as it can.
    Refused,
    /// The sender turned us away: it serves the devices of a list, and we are none of them.
    NotListed,
    /// Our own side failed: disk, name, or hash.
    Failed(AbortCode, String),
    /// The user interrupted it.
    Interrupted,
}

/// The receiver at a glance.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReceiverSnapshot {
    /// The object's name (untrusted), once a session is found.
    pub name: Option<String>,
    /// The sender.
    pub sender: Option<SocketAddr>,
    /// The sender's key, and what is thought of it.
    pub trusted: Option<(SenderKey, TrustDecision)>,
    /// Bytes of the object.
    pub object_size: u64,
    /// Bytes of blocks verified.
    pub verified_bytes: u64,
    /// Bytes of object data received so far, verified or not (never above the object's size).
    pub received_bytes: u64,
    /// Bytes of verified blocks that were here already, from an earlier run or in an earlier version.
    pub resumed_bytes: u64,
    /// Bytes left in the part file for the next run, once this one has ended without the object.
    pub kept_bytes: u64,
    /// Blocks of the object.
    pub blocks: u32,
    /// Blocks verified.
    pub verified: u32,
    /// Datagrams received on the group channel.
    pub received: u64,
    /// Datagrams of the group channel that never came.
    pub lost: u64,
    /// Datagrams the kernel dropped.
    pub kernel_drops: u64,
    /// Datagrams dropped for want of a free block buffer.
    pub overrun_drops: u64,
    /// Datagrams ignored because they were malformed or not for this session.
    pub ignored: u64,
    /// Datagrams of kinds that this program does not know; counted among the ignored ones too.
    pub unknown_kinds: u64,
    /// Datagrams that a later program may understand; counted among the ignored ones too.
    pub not_understood: u64,
    /// Symbols thrown away because they were not what the sender has signed: forged, or damaged on the way.
    pub forged_symbols: u64,
    /// The sender's phase.
    pub phase: Option<Phase>,
    /// Bytes of block buffers held now.
    pub buffered: usize,
}
