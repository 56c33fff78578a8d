//! L0: every bound the program keeps, with the relations between them asserted at compile time.
//!
//! A number that limits what a peer can make us allocate, queue, send or wait for lives here and
//! nowhere else, so that the memory and bandwidth statements in `docs/architecture.md` can be
//! checked against one page.

use crate::units::Rate;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// Version of the wire format (`docs/protocol.md`).
pub const WIRE_VERSION: u8 = 1;
/// UDP port of announcements and data unless `--port` says otherwise.
pub const DEFAULT_PORT: u16 = 7417;
/// UDP port of the sender's own socket, where feedback arrives, unless it is taken.
pub const FEEDBACK_PORT: u16 = 7418;
/// Rendezvous group for announcements, and the data group unless one is named: IPv4, from the
/// organization-local part of RFC 2365.
pub const DEFAULT_GROUP_V4: Ipv4Addr = Ipv4Addr::new(239, 255, 74, 17);
/// The same for IPv6: transient and site-local (RFC 4291, section 2.7).
pub const DEFAULT_GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff15, 0, 0, 0, 0, 0, 0x4d43, 0x7417);
/// Bytes of the common header of every datagram.
pub const HEADER_LEN: usize = 21;
/// Bytes before a symbol's payload: the common header, block index and symbol id.
pub const SYMBOL_HEADER_LEN: usize = HEADER_LEN + 4 + 3;
/// Bytes of the authentication tag behind a sealed datagram; kept free behind every symbol.
pub const TAG_RESERVE: usize = 16;
/// Bytes of the signature behind what a sender says to all.
pub const SIGNATURE_RESERVE: usize = 64;
/// Most bytes behind a control message: a signature, sealed.
pub const MAX_TRAILER: usize = SIGNATURE_RESERVE + TAG_RESERVE;
/// Bytes in clear between the header and the sealed body of a join: the device's key, its cookie, its proof of
/// the group key.
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
/// Largest control message (everything but symbols), without what protects it: with that, it fits the
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
/// log2 of the largest block a sender chooses to keep the number of blocks low: 16 MiB.
pub const COMFORTABLE_BLOCK_LOG2: u8 = 24;
/// Number of blocks beyond which a sender chooses larger ones.
pub const COMFORTABLE_BLOCK_COUNT: u64 = 1 << 16;
/// log2 of the largest block: the most that [`MAX_SOURCE_SYMBOLS`] of the largest size can carry.
pub const MAX_BLOCK_LOG2: u8 = 28;
/// Encoding plans kept at a time: a transfer uses two (its full blocks and its last one).
pub const MAX_PLANS: usize = 8;
/// Symbols an assembly holds beside its buffer.
pub const MAX_EXTRA_SYMBOLS: usize = 16;
/// Largest object, in bytes.
pub const MAX_OBJECT_SIZE: u64 = 1 << 63;
/// Longest object name on the wire, in bytes of UTF-8.
pub const MAX_NAME: usize = 255;
/// Longest manifest within an ANNOUNCE, in bytes; a longer one is an object.
pub const MAX_MANIFEST: usize = 512;
/// Longest manifest that is an object, in bytes.
pub const MAX_MANIFEST_OBJECT: usize = 64 << 10;
/// Most objects of a session.
pub const MAX_OBJECTS: usize = 4;
/// Longest device label, in bytes of UTF-8.
pub const MAX_LABEL: usize = 64;
/// Longest reason text in an abort, in bytes of UTF-8.
pub const MAX_REASON: usize = 200;
/// Longest name of a group key, in bytes: it is a file's name.
pub const MAX_KEY_NAME: usize = 32;
/// Most lines with a key in one key file: the current one and those before it.
pub const MAX_KEY_LINES: usize = 16;
/// Largest key file, in bytes, comments included.
pub const MAX_KEY_FILE: usize = 64 << 10;
/// Most group keys that a receiver tries, older ones included.
pub const MAX_GROUP_KEYS: usize = 64;
/// Most senders that a device remembers.
pub const MAX_KNOWN_SENDERS: usize = 1024;
/// Sessions that discovery lists.
pub const MAX_DISCOVERED: usize = 256;
/// Bytes of datagrams that other sessions of the process have handed over and that wait: what a socket would
/// buffer.
pub const MAX_MAILBOX_BYTES: usize = 8 << 20;
/// Chaining values in one hash page.
pub const HASHES_PER_PAGE: u32 = 32;
/// Blocks of an object that this program sends or receives: what bounds the state kept per block.
pub const MAX_BLOCKS: u32 = 1 << 20;
/// Most datagrams handed to the kernel at one go.
pub const MAX_BATCH: usize = 64;
/// Most jobs a machine may have under way.
pub const MAX_JOBS: usize = 1024;
/// Most block buffers of a receiver, however small its blocks: each may be inside a job.
pub const MAX_BLOCK_BUFFERS: usize = MAX_JOBS / 2;
/// Agreements with devices that a sender makes a second, each some 40 us: what joins may cost it.
pub const AGREEMENTS_PER_SECOND: u32 = 1_000;
/// Messages of one device that a sender opens a second; an honest one sends a tenth of that.
pub const DEVICE_MESSAGES_PER_SECOND: u32 = 400;
/// Signatures that a receiver checks a second, each some 40 us, as long as no seal vouches for their datagrams.
pub const VERIFICATIONS_PER_SECOND: u32 = 2_000;
/// The same of what does not come from the session's sender: it may have moved.
pub const VERIFICATIONS_FOR_STRANGERS: u32 = 200;
/// Blocks that a device looks into at a time because they disagree with their hash; the others wait.
pub const MAX_SUSPECTS: usize = 32;
/// Symbols of them whose digests a device holds, at 16 bytes each; one block is always allowed.
pub const MAX_SUSPECT_SYMBOLS: usize = 1 << 18;
/// Suspect blocks whose digests a sender has been asked for, for all devices.
pub const MAX_INQUIRIES: usize = 512;
/// Bits per second of symbol digests that a sender sends at the most: each datagram takes a signature.
pub const DIGEST_RATE: Rate = Rate(20_000_000);
/// Digests in one SYMBOL DIGESTS message.
pub const DIGESTS_PER_MESSAGE: usize = 64;
/// Sessions that a device considers at a time, as long as none has admitted it.
pub const MAX_PROVISIONAL_SESSIONS: usize = 8;
/// Most joins that wait for the store.
pub const MAX_PENDING_JOINS: usize = 512;
/// Most devices in one request to the store.
pub const MAX_STORE_BATCH: usize = 512;
/// A store that has failed, or not answered, for this long is given up.
pub const STORE_PATIENCE: Duration = Duration::from_secs(60);
/// Devices one session serves.
pub const MAX_DEVICES: usize = 16_384;
/// Runs of devices that are over, which a sender remembers: it looks through them at each new join.
pub const MAX_FORMER_RUNS: usize = 1024;
/// Feedback datagrams per second that all devices together may send (I10).
pub const FEEDBACK_PER_SECOND: u32 = 1_000;
/// Share of the rate that unicast repairs may take while the group still has work (I3).
pub const UNICAST_SHARE_PERCENT: u64 = 10;
/// Bytes of block buffers a receiver holds, those inside jobs included.
pub const RECEIVER_BUFFER_BYTES: usize = 48 << 20;
/// Bytes of encoded repair symbols a sender holds.
pub const SENDER_REPAIR_BYTES: usize = 16 << 20;
/// Bytes of the chaining values that a sender keeps of files it has sent; those of the largest object fit.
pub const HASH_CACHE_BYTES: u64 = 64 << 20;
/// And files that it keeps them of.
pub const HASH_CACHE_FILES: usize = 256;
/// The sender says something at least this often.
pub const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(1);
/// A receiver that hears nothing from its sender for this long gives up.
pub const SENDER_SILENCE: Duration = Duration::from_secs(20);
/// A device unheard of for this long is lost.
pub const DEVICE_SILENCE: Duration = Duration::from_secs(10);
/// A device that is being served but verifies nothing more for this long has failed.
pub const DEVICE_STALL: Duration = Duration::from_secs(60);
/// A device that has verified everything may take this long to sync and rename it.
pub const DEVICE_SYNC: Duration = Duration::from_secs(15 * 60);
/// NAK summaries per second that polls may invite. The five shares leave a fifth of the bound
/// free, since they hold in the mean: devices draw their delays.
pub const NAKS_PER_SECOND: u32 = FEEDBACK_PER_SECOND / 4;
/// Joins per second that announces may invite. Each device joins twice: the first time it only gets its cookie.
pub const JOINS_PER_SECOND: u32 = FEEDBACK_PER_SECOND / 10;
/// Completion receipts per second that the devices together may send.
pub const COMPLETIONS_PER_SECOND: u32 = FEEDBACK_PER_SECOND * 3 / 20;
/// Messages about suspect blocks per second that the devices together may send.
pub const SUSPECTS_PER_SECOND: u32 = FEEDBACK_PER_SECOND / 20;
/// Progress reports per second that the devices together may send.
pub const REPORTS_PER_SECOND: u32 = FEEDBACK_PER_SECOND * 3 / 20;
/// While data arrives a device reports this often, or less often where there are many: the rate is
/// controlled by it.
pub const REPORT_INTERVAL: Duration = Duration::from_millis(25);
/// While none arrives, a device reports this often, to say that it lives.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);

/// Least budget of feedback that a device believes, in datagrams a second.
pub const MIN_FEEDBACK_BUDGET: u32 = 100;
/// And the largest.
pub const MAX_FEEDBACK_BUDGET: u32 = 10_000;

/// Feedback datagrams a second that all devices of a session may send, as its sender announces it. Each kind of
/// feedback has a fixed share of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeedbackBudget(u32);

impl Default for FeedbackBudget {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl FeedbackBudget {
    /// That of this program's sender.
    pub const DEFAULT: Self = Self(FEEDBACK_PER_SECOND);

    /// As announced, as far as a device believes it.
    #[must_use]
    pub fn announced(datagrams: u16) -> Self {
        Self(u32::from(datagrams).clamp(MIN_FEEDBACK_BUDGET, MAX_FEEDBACK_BUDGET))
    }

    const fn share(self, of_default: u32) -> u32 {
        // At most 10,000 times 1,000.
        self.0 * of_default / FEEDBACK_PER_SECOND
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
}

/// How often each of `devices` of this program's sender reports its progress while data arrives.
#[must_use]
pub fn report_interval(devices: u32) -> Duration {
    FeedbackBudget::default().report_interval(devices)
}

/// With what probability, over 65535, a device that has heard `announces` announces of a session
/// before answers one with a join at the most: the sender must have a chance to see a crowd coming.
#[must_use]
pub const fn join_ceiling(announces: u32) -> u16 {
    match announces {
        0 => u16::MAX >> 6,
        1 => u16::MAX >> 4,
        2 => u16::MAX >> 2,
        _ => u16::MAX,
    }
}

/// How long a device of `devices` may be silent before it is lost.
#[must_use]
pub fn device_silence(devices: u32) -> Duration {
    DEVICE_SILENCE.max(report_interval(devices) * 4)
}

const _: () = {
    assert!(MAX_SYMBOL_SIZE.is_multiple_of(SYMBOL_ALIGN));
    assert!(DEFAULT_SYMBOL_SIZE.is_multiple_of(SYMBOL_ALIGN));
    assert!(MIN_SYMBOL_SIZE.is_multiple_of(SYMBOL_ALIGN));
    // A symbol with everything around it fits its MTU over IPv6 (40) and UDP (8).
    assert!(DEFAULT_SYMBOL_SIZE as usize + SYMBOL_HEADER_LEN + TAG_RESERVE + 48 <= 1500);
    assert!(MAX_SYMBOL_SIZE as usize + SYMBOL_HEADER_LEN + TAG_RESERVE + 48 <= 9000);
    assert!(HEADER_LEN + 5 + HASHES_PER_PAGE as usize * 35 <= MAX_CONTROL);
    assert!(MAX_CONTROL + MAX_TRAILER <= MAX_DATAGRAM);
    assert!(MAX_MANIFEST <= MAX_CONTROL / 2 && MAX_MANIFEST <= MAX_MANIFEST_OBJECT);
    assert!(MAX_CONTROL + MAX_TRAILER + 48 <= 1280);
    assert!(MAX_SOURCE_SYMBOLS < MAX_ESI);
    assert!(MAX_BLOCKS as u64 * 32 < HASH_CACHE_BYTES);
    assert!(
        NAKS_PER_SECOND
            + 2 * JOINS_PER_SECOND
            + COMPLETIONS_PER_SECOND
            + REPORTS_PER_SECOND
            + SUSPECTS_PER_SECOND
            <= FEEDBACK_PER_SECOND * 4 / 5
    );
    // No share of the least budget is nothing.
    assert!(MIN_FEEDBACK_BUDGET * SUSPECTS_PER_SECOND >= FEEDBACK_PER_SECOND);
    assert!(MIN_FEEDBACK_BUDGET <= FEEDBACK_PER_SECOND && FEEDBACK_PER_SECOND <= MAX_FEEDBACK_BUDGET);
    assert!(ANNOUNCE_INTERVAL.as_secs() < SENDER_SILENCE.as_secs());
    assert!(
        DEVICE_SILENCE.as_secs() < DEVICE_STALL.as_secs() && DEVICE_STALL.as_secs() < DEVICE_SYNC.as_secs()
    );
    // The usual block works with every symbol size, the largest with the largest.
    assert!((1_u64 << DEFAULT_BLOCK_LOG2).div_ceil(MIN_SYMBOL_SIZE as u64) <= MAX_SOURCE_SYMBOLS as u64);
    assert!((1_u64 << MAX_BLOCK_LOG2).div_ceil(MAX_SYMBOL_SIZE as u64) <= MAX_SOURCE_SYMBOLS as u64);
    assert!((2_u64 << MAX_BLOCK_LOG2).div_ceil(MAX_SYMBOL_SIZE as u64) > MAX_SOURCE_SYMBOLS as u64);
    assert!(MIN_BLOCK_LOG2 <= DEFAULT_BLOCK_LOG2 && DEFAULT_BLOCK_LOG2 <= COMFORTABLE_BLOCK_LOG2);
    assert!(COMFORTABLE_BLOCK_LOG2 <= MAX_BLOCK_LOG2);
};
