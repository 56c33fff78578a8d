//! L0: every bound of the program. Assertions check the relations between them at compile time.
//!
//! Every number that limits how much a peer can make us allocate, queue, send or wait lives here and
//! nowhere else. So the statements on memory and bandwidth in `docs/architecture.md` can be checked
//! against one page.

use crate::units::Rate;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// Version of the wire format (`docs/protocol.md`).
pub const WIRE_VERSION: u8 = 1;
/// UDP port of announcements and data, unless `--port` sets another.
pub const DEFAULT_PORT: u16 = 7417;
/// UDP port of the sender's own socket, which receives feedback, unless the port is taken.
pub const FEEDBACK_PORT: u16 = 7418;
/// IPv4 group for announcements, and for data if no group is named. From the organization-local range of
/// RFC 2365.
pub const DEFAULT_GROUP_V4: Ipv4Addr = Ipv4Addr::new(239, 255, 74, 17);
/// The same group for IPv6: transient and site-local (RFC 4291, section 2.7).
pub const DEFAULT_GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff15, 0, 0, 0, 0, 0, 0x4d43, 0x7417);
/// Bytes of the common header of every datagram.
pub const HEADER_LEN: usize = 21;
/// Bytes before a symbol's payload: the common header, block index and symbol id.
pub const SYMBOL_HEADER_LEN: usize = HEADER_LEN + 4 + 3;
/// Bytes of the authentication tag after a sealed datagram; reserved after every symbol.
pub const TAG_RESERVE: usize = 16;
/// Bytes of the signature after a sender's message to the group.
pub const SIGNATURE_RESERVE: usize = 64;
/// Most bytes after a control message: a signature and a tag.
pub const MAX_TRAILER: usize = SIGNATURE_RESERVE + TAG_RESERVE;
/// Bytes in clear between the header and the sealed body of a join: the device's key, its cookie and its
/// proof of the group key.
pub const JOIN_CLEAR: usize = 32 + 16 + 16;
/// Symbol sizes are multiples of this (alignment of RaptorQ's vector kernels).
pub const SYMBOL_ALIGN: u16 = 64;
/// Smallest symbol size.
pub const MIN_SYMBOL_SIZE: u16 = 64;
/// Largest symbol size: a 9000-byte jumbo frame with room for header, tag and IPv6.
pub const MAX_SYMBOL_SIZE: u16 = 8896;
/// Symbol size for the usual MTU of 1500.
pub const DEFAULT_SYMBOL_SIZE: u16 = 1408;
/// Largest datagram of any kind: the largest symbol with its header and tag.
pub const MAX_DATAGRAM: usize = MAX_SYMBOL_SIZE as usize + SYMBOL_HEADER_LEN + TAG_RESERVE;
/// Largest control message (any message but a symbol), without signature and tag. With both, it fits the
/// smallest IPv6 MTU of 1280.
pub const MAX_CONTROL: usize = 1152;
/// Largest number of source symbols in a block (RFC 6330, section 5.1.2: K'_max).
pub const MAX_SOURCE_SYMBOLS: u32 = 56_403;
/// Largest symbol id (RFC 6330: the encoding symbol id has 24 bits).
pub const MAX_ESI: u32 = (1 << 24) - 1;
/// log2 of the smallest block: one BLAKE3 chunk.
pub const MIN_BLOCK_LOG2: u8 = 10;
/// log2 of the usual block: 1 MiB.
pub const DEFAULT_BLOCK_LOG2: u8 = 20;
/// log2 of the largest block that a sender chooses to reduce the number of blocks: 16 MiB.
pub const COMFORTABLE_BLOCK_LOG2: u8 = 24;
/// Number of blocks above which a sender chooses larger blocks.
pub const COMFORTABLE_BLOCK_COUNT: u64 = 1 << 16;
/// log2 of the largest block: the most bytes that [`MAX_SOURCE_SYMBOLS`] symbols of the largest size can hold.
pub const MAX_BLOCK_LOG2: u8 = 28;
/// Encoding plans in the cache. A transfer uses two: one for full blocks, one for the last block.
pub const MAX_PLANS: usize = 8;
/// Most symbols that an assembly holds in addition to its buffer.
pub const MAX_EXTRA_SYMBOLS: usize = 16;
/// Largest object, in bytes.
pub const MAX_OBJECT_SIZE: u64 = 1 << 63;
/// Longest object name on the wire, in bytes of UTF-8.
pub const MAX_NAME: usize = 255;
/// Longest manifest within an ANNOUNCE, in bytes; a longer one is an object.
pub const MAX_MANIFEST: usize = 512;
/// Longest manifest that is an object or begins one, in bytes.
pub const MAX_MANIFEST_OBJECT: usize = 128 << 20;
/// Most entries of a manifest. Each takes some 200 bytes and its names in memory, on both sides.
pub const MAX_TREE_ENTRIES: usize = 1 << 20;
/// Most components of a path in a tree.
pub const MAX_TREE_DEPTH: usize = 256;
/// Bytes of packed blocks of a tree that a sender keeps after it has hashed them, to send them: as many blocks of 1 MiB
/// as the stream may be behind the hashing.
pub const MAX_PACKED_BYTES: usize = 64 << 20;
/// Most objects of a session.
pub const MAX_OBJECTS: usize = 4;
/// Longest device label, in bytes of UTF-8.
pub const MAX_LABEL: usize = 64;
/// Longest reason text in an abort, in bytes of UTF-8.
pub const MAX_REASON: usize = 200;
/// Longest name of a group key, in bytes. The name becomes a file name.
pub const MAX_KEY_NAME: usize = 32;
/// Most lines with a key in one key file: the current key and its previous versions.
pub const MAX_KEY_LINES: usize = 16;
/// Largest key file, in bytes, comments included.
pub const MAX_KEY_FILE: usize = 64 << 10;
/// Most group keys that a receiver tries, previous versions included.
pub const MAX_GROUP_KEYS: usize = 64;
/// Most senders that a device remembers.
pub const MAX_KNOWN_SENDERS: usize = 1024;
/// Most devices whose keys a sender remembers: those of the largest session.
pub const MAX_KNOWN_DEVICES: usize = MAX_DEVICES;
/// Longest line in a list of devices, in bytes: a name, a key and a comment.
pub const MAX_LIST_LINE: usize = 512;
/// Most unlisted devices that the user is told about.
pub const MAX_TOLD_NOT_LISTED: usize = 64;
/// Tickets in a device's state directory.
pub const MAX_KEPT_TICKETS: usize = 256;
/// Sessions that discovery lists.
pub const MAX_DISCOVERED: usize = 256;
/// Most bytes of waiting datagrams that other sessions of the process have handed over: as much as a socket would
/// buffer.
pub const MAX_MAILBOX_BYTES: usize = 8 << 20;
/// Chaining values in one hash page.
pub const HASHES_PER_PAGE: u32 = 32;
/// Most blocks of an object that this program sends or receives. Bounds the state per block.
pub const MAX_BLOCKS: u32 = 1 << 20;
/// A stream's input is read at most this many bytes, and one block, ahead of what was sent. Beyond that it waits in its
/// pipe.
pub const MAX_READ_AHEAD: u64 = 256 << 20;
/// Least bytes of a stream that `--window` keeps: what is repaired while more is sent.
pub const MIN_WINDOW: u64 = 8 << 20;
/// Most datagrams handed to the kernel in one call.
pub const MAX_BATCH: usize = 64;
/// Most jobs that a machine may have in progress.
pub const MAX_JOBS: usize = 1024;
/// Most block buffers of a receiver, for any block size. Each buffer may be inside a job.
pub const MAX_BLOCK_BUFFERS: usize = MAX_JOBS / 2;
/// Most key agreements that a sender makes a second, each some 40 us, or twice the joins that its feedback budget has
/// room for ([`FeedbackBudget::agreements`]). Bounds the cost of joins.
pub const AGREEMENTS_PER_SECOND: u32 = 1_000;
/// Largest share of the rate, while data is sent, for answers to devices that are not admitted: RETRY to addresses that
/// are not validated, and refusals. There are no more of them a second than agreements.
pub const STRANGERS_SHARE_PERCENT: u64 = 5;
/// Number of places that a sender hashes addresses to. Each place gets at most a quarter of the answers and agreements.
pub const STRANGER_PLACES: usize = 1024;
/// Devices that one address may always have while rows are free. It may have more only while more rows than that are
/// free.
pub const DEVICES_OF_ONE_ADDRESS: usize = 64;
/// With this many outputs waiting, a sender answers no joins.
pub const MAX_QUEUED_OUTPUTS: usize = 1024;
/// Most messages of one device that a sender acts on in a second. An honest device sends a tenth of that.
pub const DEVICE_MESSAGES_PER_SECOND: u32 = 400;
/// Most signatures that a receiver checks a second, each some 40 us.
pub const VERIFICATIONS_PER_SECOND: u32 = 2_000;
/// The same limit for datagrams from other addresses than the sender's. They are checked because the sender may have
/// moved.
pub const VERIFICATIONS_FOR_STRANGERS: u32 = 200;
/// A signature or a device's seal vouches for a packet number. Other numbers count up to this far beyond the last
/// vouched one: as many as a sender at 12 Gbit/s uses between two announces.
pub const UNVOUCHED_NUMBERS_AHEAD: u64 = 1 << 18;
/// Most suspect blocks that a device checks at a time: blocks that disagree with their hash. Others wait.
pub const MAX_SUSPECTS: usize = 32;
/// Most symbol digests of suspect blocks that a device holds, at 16 bytes each. One block is always allowed.
pub const MAX_SUSPECT_SYMBOLS: usize = 1 << 18;
/// Most suspect blocks for which a sender has pending digest requests, over all devices.
pub const MAX_INQUIRIES: usize = 512;
/// Highest rate of symbol digests that a sender sends: each datagram takes a signature.
pub const DIGEST_RATE: Rate = Rate(20_000_000);
/// Digests in one SYMBOL DIGESTS message.
pub const DIGESTS_PER_MESSAGE: usize = 64;
/// Most sessions that a device considers at a time before one has admitted it.
pub const MAX_PROVISIONAL_SESSIONS: usize = 8;
/// Most joins that wait for the store.
pub const MAX_PENDING_JOINS: usize = 512;
/// Most devices in one request to the store.
pub const MAX_STORE_BATCH: usize = 512;
/// A store that has failed, or not answered, for this long is given up.
pub const STORE_PATIENCE: Duration = Duration::from_secs(60);
/// Most devices of one session.
pub const MAX_DEVICES: usize = 16_384;
/// Most ended runs of devices that a sender remembers. It searches them at each new join.
pub const MAX_FORMER_RUNS: usize = 1024;
/// Feedback datagrams per second that all devices together may send (I10), on a slow line. The shares below are of so
/// many; see [`FeedbackBudget::of`].
pub const FEEDBACK_PER_SECOND: u32 = 1_000;
/// Bits that the line carries for each datagram of feedback. They are 3,300 bits on average if each kind has its share:
/// feedback takes a sixth of the line, in the other direction.
pub const LINE_BITS_FOR_FEEDBACK: u64 = 20_000;
/// Feedback datagrams a second for each core of the sender: at their share, devices that join take 7 % of it.
pub const FEEDBACK_PER_CORE: u32 = 5_000;
/// A group of at most so many devices needs no more than [`FEEDBACK_PER_SECOND`]: all receipts come within a second.
pub const SMALL_GROUP: u32 = 100;
/// Most answers that one poll invites: they come within a tenth of a second.
pub const ANSWERS_PER_POLL: u32 = 250;
/// Share of the rate that unicast repairs may take while the group still has work (I3).
pub const UNICAST_SHARE_PERCENT: u64 = 10;
/// Most bytes of block buffers that a receiver holds, buffers inside jobs included.
pub const RECEIVER_BUFFER_BYTES: usize = 48 << 20;
/// Most bytes of encoded repair symbols that a sender holds.
pub const SENDER_REPAIR_BYTES: usize = 16 << 20;
/// Most bytes of the blocks that a sender without feedback sends column by column. Receivers buffer two such windows: one
/// that arrives, and one that waits for its repair symbols.
pub const MAX_WINDOW_BYTES: u64 = 16 << 20;
/// Most repair symbols for each thousand source symbols, in a session without feedback.
pub const MAX_OVERHEAD_PER_MILLE: u16 = 5_000;
/// Most bytes of compressed blocks that a sender holds, those that workers are compressing included. One is always
/// allowed.
pub const SENDER_PACKED_BYTES: usize = 32 << 20;
/// Most bytes of zeros whose hash a receiver computes in one job.
pub const ZEROS_A_JOB: u64 = 16 << 20;
/// Most of these jobs at a time.
pub const MAX_ZERO_JOBS: usize = 8;
/// Most bytes of chaining values that a sender stores for files it has sent. The values of the largest object
/// fit.
pub const HASH_CACHE_BYTES: u64 = 64 << 20;
/// Most files for which a sender stores chaining values.
pub const HASH_CACHE_FILES: usize = 256;
/// Longest time between two messages of the sender to the group.
pub const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(1);
/// A receiver gives up after hearing nothing from its sender for this time.
pub const SENDER_SILENCE: Duration = Duration::from_secs(20);
/// A device is lost after this time of silence.
pub const DEVICE_SILENCE: Duration = Duration::from_secs(10);
/// A device that is being served fails after this time without a newly verified block.
pub const DEVICE_STALL: Duration = Duration::from_secs(60);
/// Most sessions that `mcp recv --loop` remembers in order not to take part in them again.
pub const MAX_PAST_SESSIONS: usize = 1024;
/// Most objects whose failed hooks `mcp recv --loop` remembers.
pub const MAX_OWED_HOOKS: usize = 64;
/// Most bytes of events that wait for the reader of `--json=FILE`: the rows of all devices at the end of a run.
pub const MAX_EVENT_BACKLOG: usize = 16 << 20;
/// Time in which a device may sync and rename a verified object, and run its hook.
pub const DEVICE_SYNC: Duration = Duration::from_secs(15 * 60);
/// Time for which a device is served after the stream, whatever progress it makes ...
pub const DEVICE_SERVICE: Duration = Duration::from_secs(4 * 3600);
/// ... and this many times the stream's duration in addition.
pub const DEVICE_SERVICE_OF_STREAM: u32 = 64;
/// NAK summaries per second that polls may invite. The five shares leave a fifth of the bound free,
/// because they hold only on average: devices draw their delays.
pub const NAKS_PER_SECOND: u32 = FEEDBACK_PER_SECOND / 4;
/// Joins per second that announces may invite. Each device joins twice: the first join only gets a cookie.
pub const JOINS_PER_SECOND: u32 = FEEDBACK_PER_SECOND / 10;
/// Completion receipts per second that the devices together may send.
pub const COMPLETIONS_PER_SECOND: u32 = FEEDBACK_PER_SECOND * 3 / 20;
/// Messages about suspect blocks per second that the devices together may send.
pub const SUSPECTS_PER_SECOND: u32 = FEEDBACK_PER_SECOND / 20;
/// Progress reports per second that the devices together may send.
pub const REPORTS_PER_SECOND: u32 = FEEDBACK_PER_SECOND * 3 / 20;
/// Shortest interval between two reports of a device while data arrives; longer with many devices. The rate
/// control depends on it.
pub const REPORT_INTERVAL: Duration = Duration::from_millis(25);
/// Interval between two reports of a device while no data arrives. They show that the device is alive.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);

/// Smallest announced feedback budget that a device accepts, in datagrams a second.
pub const MIN_FEEDBACK_BUDGET: u32 = 100;
/// Largest announced feedback budget that a device accepts, in datagrams a second.
pub const MAX_FEEDBACK_BUDGET: u32 = 10_000;

/// The announced number of feedback datagrams a second that all devices of a session may send. Each kind of feedback
/// has a fixed share of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FeedbackBudget(u32);

impl Default for FeedbackBudget {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl FeedbackBudget {
    /// The least that this program's sender announces.
    pub const DEFAULT: Self = Self(FEEDBACK_PER_SECOND);

    /// The budget of a sender with so many cores on a line of this rate: as much as both can take, at least
    /// [`Self::DEFAULT`].
    #[must_use]
    pub fn of(line: Rate, cores: usize) -> Self {
        let by_line = u32::try_from(line.0 / LINE_BITS_FOR_FEEDBACK).unwrap_or(u32::MAX);
        let by_cores = u32::try_from(cores).unwrap_or(u32::MAX).saturating_mul(FEEDBACK_PER_CORE);
        Self(by_line.min(by_cores).clamp(FEEDBACK_PER_SECOND, MAX_FEEDBACK_BUDGET))
    }

    /// The number of datagrams a second.
    #[must_use]
    pub const fn per_second(self) -> u32 {
        self.0
    }

    /// An announced budget, clamped to the accepted range.
    #[must_use]
    pub fn announced(datagrams: u16) -> Self {
        Self(u32::from(datagrams).clamp(MIN_FEEDBACK_BUDGET, MAX_FEEDBACK_BUDGET))
    }

    const fn share(self, of_default: u32) -> u32 {
        // At most 10,000 times 1,000.
        self.0 * of_default / FEEDBACK_PER_SECOND
    }

    /// NAK summaries a second.
    #[must_use]
    pub const fn naks(self) -> u32 {
        self.share(NAKS_PER_SECOND)
    }

    /// First joins a second; each device joins once more with its cookie.
    #[must_use]
    pub const fn joins(self) -> u32 {
        self.share(JOINS_PER_SECOND)
    }

    /// Key agreements a second, and answers a second to devices that are not admitted: twice the joins, at least
    /// [`AGREEMENTS_PER_SECOND`].
    #[must_use]
    pub fn agreements(self) -> u32 {
        (2 * self.joins()).max(AGREEMENTS_PER_SECOND)
    }

    /// Receipts a second.
    #[must_use]
    pub const fn completions(self) -> u32 {
        self.share(COMPLETIONS_PER_SECOND)
    }

    /// Messages about suspect blocks a second.
    #[must_use]
    pub const fn suspects(self) -> u32 {
        self.share(SUSPECTS_PER_SECOND)
    }

    /// How often each of `devices` reports its progress while data arrives.
    #[must_use]
    pub fn report_interval(self, devices: u32) -> Duration {
        REPORT_INTERVAL.max(Duration::from_secs(1) * devices / self.share(REPORTS_PER_SECOND))
    }

    /// Time of silence after which one of `devices` devices is lost.
    #[must_use]
    pub fn device_silence(self, devices: u32) -> Duration {
        DEVICE_SILENCE.max(self.report_interval(devices) * 4)
    }
}

/// Highest probability, in units of 1/65535, with which a device joins on an announcement after it has heard
/// `announces` announcements of the session before. This gives the sender time to detect a crowd.
#[must_use]
pub const fn join_ceiling(announces: u32) -> u16 {
    match announces {
        0 => u16::MAX >> 6,
        1 => u16::MAX >> 4,
        2 => u16::MAX >> 2,
        _ => u16::MAX,
    }
}

const _: () = {
    assert!(MAX_SYMBOL_SIZE.is_multiple_of(SYMBOL_ALIGN));
    assert!(DEFAULT_SYMBOL_SIZE.is_multiple_of(SYMBOL_ALIGN));
    assert!(MIN_SYMBOL_SIZE.is_multiple_of(SYMBOL_ALIGN));
    // A symbol with headers and tag fits its MTU over IPv6 (40) and UDP (8).
    assert!(DEFAULT_SYMBOL_SIZE as usize + SYMBOL_HEADER_LEN + TAG_RESERVE + 48 <= 1500);
    assert!(MAX_SYMBOL_SIZE as usize + SYMBOL_HEADER_LEN + TAG_RESERVE + 48 <= 9000);
    assert!(HEADER_LEN + 5 + HASHES_PER_PAGE as usize * 35 <= MAX_CONTROL);
    assert!(MAX_CONTROL + MAX_TRAILER <= MAX_DATAGRAM);
    assert!(MAX_MANIFEST <= MAX_CONTROL / 2 && MAX_MANIFEST <= MAX_MANIFEST_OBJECT);
    assert!(MAX_CONTROL + MAX_TRAILER + 48 <= 1280);
    assert!(MAX_SOURCE_SYMBOLS < MAX_ESI);
    assert!(2 * MAX_WINDOW_BYTES <= RECEIVER_BUFFER_BYTES as u64 * 3 / 4);
    // A block of the largest kind has new repair symbols for many passes.
    assert!(MAX_SOURCE_SYMBOLS * (2 + MAX_OVERHEAD_PER_MILLE as u32 / 1000) < MAX_ESI / 32);
    // The largest budget fits the announcement, and its agreements a tenth of a core.
    assert!(MAX_FEEDBACK_BUDGET <= u16::MAX as u32);
    assert!(2 * MAX_FEEDBACK_BUDGET * JOINS_PER_SECOND / FEEDBACK_PER_SECOND <= 2 * AGREEMENTS_PER_SECOND);
    assert!(STRANGERS_SHARE_PERCENT <= UNICAST_SHARE_PERCENT && DEVICES_OF_ONE_ADDRESS < MAX_DEVICES);
    // Two pages of hashes are ahead of the stream.
    assert!(MAX_READ_AHEAD >> DEFAULT_BLOCK_LOG2 > 2 * HASHES_PER_PAGE as u64);
    assert!(
        NAKS_PER_SECOND
            + 2 * JOINS_PER_SECOND
            + COMPLETIONS_PER_SECOND
            + REPORTS_PER_SECOND
            + SUSPECTS_PER_SECOND
            <= FEEDBACK_PER_SECOND * 4 / 5
    );
    // A sender remembers every device of a session. A line of a list has room for the longest name and a key.
    assert!(MAX_KNOWN_DEVICES >= MAX_DEVICES && MAX_LIST_LINE >= MAX_LABEL + 70 + 2);
    // No share of the smallest budget is zero.
    assert!(MIN_FEEDBACK_BUDGET * SUSPECTS_PER_SECOND >= FEEDBACK_PER_SECOND);
    assert!(MIN_FEEDBACK_BUDGET <= FEEDBACK_PER_SECOND && FEEDBACK_PER_SECOND <= MAX_FEEDBACK_BUDGET);
    assert!(ANNOUNCE_INTERVAL.as_secs() < SENDER_SILENCE.as_secs());
    assert!(
        DEVICE_SILENCE.as_secs() < DEVICE_STALL.as_secs() && DEVICE_STALL.as_secs() < DEVICE_SYNC.as_secs()
    );
    assert!(DEVICE_SYNC.as_secs() < DEVICE_SERVICE.as_secs());
    // The usual block works with every symbol size, the largest block with the largest size.
    assert!((1_u64 << DEFAULT_BLOCK_LOG2).div_ceil(MIN_SYMBOL_SIZE as u64) <= MAX_SOURCE_SYMBOLS as u64);
    assert!((1_u64 << MAX_BLOCK_LOG2).div_ceil(MAX_SYMBOL_SIZE as u64) <= MAX_SOURCE_SYMBOLS as u64);
    assert!((2_u64 << MAX_BLOCK_LOG2).div_ceil(MAX_SYMBOL_SIZE as u64) > MAX_SOURCE_SYMBOLS as u64);
    assert!(MIN_BLOCK_LOG2 <= DEFAULT_BLOCK_LOG2 && DEFAULT_BLOCK_LOG2 <= COMFORTABLE_BLOCK_LOG2);
    assert!(COMFORTABLE_BLOCK_LOG2 <= MAX_BLOCK_LOG2);
};
