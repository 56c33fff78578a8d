//! L1: the wire format, one file per message: checked decode, encode, golden bytes both ways.
//!
//! `docs/protocol.md` is the specification. All integers are big-endian. Decoders check every
//! field against its range and the datagram's length before anything is allocated (I7); whether
//! a message fits its session is the protocol's business.

use crate::units::{BlockIndex, DeviceId, Digest, Rate, SessionId, SymbolId, TaskId};
use std::net::SocketAddr;
use std::time::Duration;

/// What every datagram begins with: magic, version, kind, session, packet number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The session it belongs to.
    pub session: SessionId,
    /// 16 bits of channel (0 = the group; each unicast channel and each device has its own) and
    /// 48 bits of counter from 0: the measure of loss, and later the AEAD nonce.
    pub packet_number: PacketNumber,
}

/// Channel and counter of a datagram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PacketNumber(pub u64);

/// A decoded datagram, borrowing payload and text from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// Sender to all: here is a session.
    Announce(Announce),
    /// Device to sender: let me in.
    Join(Join),
    /// Sender to device: the answer to a join, from the status table.
    Admit(Admit),
    /// Sender to all or one: one encoding symbol.
    Symbol(Symbol<'a>),
    /// Sender to all or one: chaining values of blocks.
    HashPage(HashPage),
    /// Sender to all or one: say what you lack.
    Poll(Poll),
    /// Device to sender: what I lack.
    Nak(Nak),
    /// Device to sender: how I am doing (and that I live).
    Progress(Progress),
    /// Device to sender: verified, synced, renamed.
    Complete(Complete),
    /// Sender to device: your completion or abort is noted.
    Acknowledge(Acknowledge),
    /// Either way: I stop, and why.
    Abort(Abort),
}

/// What the session is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Waiting for devices.
    Gathering = 0,
    /// Sending source symbols (repairs in between).
    Streaming = 1,
    /// All source symbols sent; repairing.
    Repairing = 2,
    /// The devices known are done; staying for late ones.
    Lingering = 3,
}

/// Who of a set of devices answers, and when: each draws once and answers with
/// `probability / 65535`, after a uniform delay in `[0, window]`. The sender chooses both so that
/// the answers stay within [`crate::limits::FEEDBACK_PER_SECOND`] (I10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Invitation {
    /// Numerator of the probability, over 65535.
    pub probability: u16,
    /// Longest delay; milliseconds on the wire, u16.
    pub window: Duration,
}

/// Describes the session; repeated for as long as it lasts, so that joining late is normal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announce {
    /// The task.
    pub task: TaskId,
    /// What the session is doing.
    pub phase: Phase,
    /// Bytes of the object.
    pub object_size: u64,
    /// log2 of the block size in bytes.
    pub block_log2: u8,
    /// Bytes of a symbol.
    pub symbol_size: u16,
    /// Where group data goes: a multicast group, a broadcast address or one host.
    pub data: SocketAddr,
    /// Blocks below this have been streamed.
    pub position: BlockIndex,
    /// Which devices not yet admitted send a join, and when.
    pub invitation: Invitation,
    /// Devices the sender is serving; they spread their unasked reports by it.
    pub group_size: u32,
    /// Sending rate; what a device may show and plan by.
    pub rate: Rate,
    /// Root hash of the object, once the sender knows it.
    pub root: Option<Digest>,
    /// The object's name: a single path component, 1 to 255 bytes of UTF-8. Untrusted.
    pub name: String,
}

/// A device asks to be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Join {
    /// Its stable identifier.
    pub device: DeviceId,
    /// Drawn at random each time the program starts: tells a reboot.
    pub instance: u64,
    /// Its name for people, 0 to 64 bytes of UTF-8. Untrusted.
    pub label: String,
}

/// The sender's answer to a join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admit {
    /// Whom it answers.
    pub device: DeviceId,
    /// The instance it answers.
    pub instance: u64,
    /// Its verdict.
    pub verdict: Verdict,
}

/// What the status table said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Verdict {
    /// Take part.
    Admitted = 0,
    /// The table says this device already has the object.
    AlreadyComplete = 1,
    /// The session serves as many devices as it can.
    Full = 2,
}

/// One encoding symbol of a block. `payload` is shorter than the symbol size only for the last
/// source symbol of the last part of a block (the rest is zero).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Symbol<'a> {
    /// The block.
    pub block: BlockIndex,
    /// The encoding symbol id.
    pub id: SymbolId,
    /// 1 to symbol-size bytes.
    pub payload: &'a [u8],
}

/// Chaining values of the blocks `first..first + values.len()`; `first` is a multiple of
/// [`crate::limits::HASHES_PER_PAGE`], 1 to that many values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HashPage {
    /// First block of the page.
    pub first: BlockIndex,
    /// One chaining value a block.
    pub values: Vec<Digest>,
}

/// Asks the devices for what they lack of the blocks below `position`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Poll {
    /// Counts the polls of the channel.
    pub round: u32,
    /// Blocks below this have been streamed.
    pub position: BlockIndex,
    /// Who answers and when.
    pub invitation: Invitation,
    /// Devices the sender is serving.
    pub group_size: u32,
    /// Whether the missing source symbols are worth naming.
    pub want_ids: bool,
    /// Repairs already planned or on the way after this poll's packet number: a device lacking
    /// no more than this need not answer for the block.
    pub planned: Vec<Planned>,
}

/// Repair symbols planned for a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planned {
    /// The block.
    pub block: BlockIndex,
    /// How many fresh symbols.
    pub symbols: u16,
}

/// A NAK summary: a device's deficits over many blocks, lowest blocks first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nak {
    /// Who lacks it.
    pub device: DeviceId,
    /// The round it answers.
    pub round: u32,
    /// Highest packet number received on the polled channel: what was sent later is not counted.
    pub as_of: PacketNumber,
    /// Blocks the device has not verified, in all (also those not listed).
    pub incomplete: u32,
    /// Pages of chaining values that are missing (page = block / HASHES_PER_PAGE).
    pub pages: Vec<PageRange>,
    /// What is missing, by block.
    pub deficits: Vec<Deficit>,
}

/// Missing hash pages `first..first + count`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRange {
    /// First page.
    pub first: u32,
    /// How many, at least 1.
    pub count: u32,
}

/// What a device lacks of one block, or of a run of blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deficit {
    /// Nothing at all has arrived of `count` blocks from `first` on.
    Whole {
        /// First block.
        first: BlockIndex,
        /// How many, at least 1.
        count: u32,
    },
    /// `symbols` more of any kind complete the block.
    Symbols {
        /// The block.
        block: BlockIndex,
        /// How many more, at least 1.
        symbols: u16,
        /// The missing source symbols as `(first, count)` runs, rising and apart; empty if not told.
        missing: Vec<(u16, u16)>,
    },
}

/// A device's report on itself; also proof that it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Who.
    pub device: DeviceId,
    /// Blocks verified.
    pub verified: u32,
    /// Datagrams received on the group channel.
    pub received: u64,
    /// Datagrams of the group channel that never came.
    pub lost: u64,
    /// Datagrams its kernel dropped.
    pub kernel_drops: u64,
    /// Datagrams it dropped for want of a free block buffer.
    pub overrun_drops: u64,
}

/// A completion receipt (I2). Repeated until acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Complete {
    /// Who.
    pub device: DeviceId,
    /// Its instance.
    pub instance: u64,
    /// Root hash of what it committed.
    pub root: Digest,
    /// Datagrams received on the group channel.
    pub received: u64,
    /// Datagrams of the group channel that never came.
    pub lost: u64,
}

/// Ends the repetition of a [`Complete`] or of a device's [`Abort`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acknowledge {
    /// Whose message is acknowledged.
    pub device: DeviceId,
}

/// Why one side stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum AbortCode {
    /// The sender is done; devices that are not complete will not be served any more.
    Finished = 0,
    /// Interrupted by its user.
    Interrupted = 1,
    /// The source file changed, shrank or could not be read.
    Source = 2,
    /// The device's disk refused: full, read-only, or failing.
    Disk = 3,
    /// The destination exists, or its name is unusable.
    Name = 4,
    /// The object's bytes do not agree with its hash.
    Mismatch = 5,
    /// Anything else on its own side.
    Internal = 6,
}

/// One side stops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Abort {
    /// The device that stops, or none if it is the sender.
    pub device: Option<DeviceId>,
    /// Why.
    pub code: AbortCode,
    /// One clause for people, 0 to 200 bytes of UTF-8. Untrusted.
    pub reason: String,
}
