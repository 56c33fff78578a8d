//! Checks the invariants at every datagram and every step. A violation panics; the runner adds the seed.

use super::disk::SimDisk;
use super::hostile::is_nobody;
use super::network::FRAMING;
use super::output::Output;
use crate::crypto::digest::symbol_digest;
use crate::layout::Layout;
use crate::limits::{FeedbackBudget, HEADER_LEN, JOIN_CLEAR, MAX_CONTROL, MAX_DATAGRAM, MAX_TRAILER};
use crate::protocol::packet_protection::SenderSide;
use crate::time::Time;
use crate::units::{SessionId, SymbolDigest};
use crate::wire::{self, DecodeError, Head, Message, MessageKind, Protection};
use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// The datagrams that one sender's session has put on the wire.
#[derive(Default)]
struct Session {
    /// Repair symbols sent. None may be sent twice, to any destination.
    repairs: HashSet<(u32, u32)>,
    /// Digests of source symbols of compressed blocks, as they were sent first.
    packed: HashMap<(u32, u32), SymbolDigest>,
    /// The lowest counter that each channel may use next.
    counters: HashMap<u16, u64>,
}

/// Numbers of symbols sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Symbols {
    /// Source symbols to the group.
    pub group_source: u64,
    /// Repair symbols to the group.
    pub group_repair: u64,
    /// Symbols of either kind to one device.
    pub unicast: u64,
}

impl Symbols {
    /// Adds the numbers of another run.
    pub const fn add(&mut self, other: &Self) {
        self.group_source += other.group_source;
        self.group_repair += other.group_repair;
        self.unicast += other.unicast;
    }
    /// The sum of all.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.group_source + self.group_repair + self.unicast
    }
}

/// Most bytes sent for each byte received, to an address that has not returned a cookie.
const AMPLIFICATION: u64 = 1;

/// The traffic between one address and the sender.
#[derive(Clone, Copy, Default)]
struct Account {
    came: u64,
    went: u64,
    /// Whether a join with the right cookie has come from the address.
    reachable: bool,
}

/// Records which addresses have returned a cookie, and the bytes sent to the others. One ledger for each
/// run of a sender.
pub struct Ledger {
    /// The sender's secrets, to recognise a cookie.
    side: SenderSide,
    accounts: HashMap<SocketAddr, Account>,
    /// RETRYs of the last second: time, address, and bytes on the wire.
    answers: VecDeque<(Time, SocketAddr, usize)>,
    /// Their sums: their bytes, and how many went to each address.
    answered: (usize, HashMap<SocketAddr, usize>),
}

impl Ledger {
    /// The ledger of a sender with these secrets.
    #[must_use]
    pub fn new(side: SenderSide) -> Self {
        Self { side, accounts: HashMap::new(), answers: VecDeque::new(), answered: Default::default() }
    }
    /// Records a datagram that the sender has received.
    pub fn came(&mut self, from: SocketAddr, bytes: &[u8]) {
        let account = self.accounts.entry(from).or_default();
        account.came += bytes.len() as u64;
        if !account.reachable
            && !is_nobody(from)
            && wire::head(bytes).is_ok_and(|h| h.kind == MessageKind::Join)
        {
            account.reachable = self.side.join_clear(from, bytes).is_some_and(|clear| clear.reachable);
        }
    }
    /// Records a datagram that the sender has sent.
    ///
    /// # Panics
    /// If it goes to an address that has not returned a cookie, and exceeds that address's bytes.
    pub fn went(&mut self, now: Time, to: SocketAddr, bytes: &[u8]) {
        if to.ip().is_multicast() {
            return;
        }
        if wire::peek(bytes).is_some_and(|(_, kind)| kind == MessageKind::Retry) {
            let bytes = bytes.len() + FRAMING;
            self.answers.push_back((now, to, bytes));
            self.answered.0 += bytes;
            *self.answered.1.entry(to).or_default() += 1;
        }
        let account = self.accounts.entry(to).or_default();
        account.went += bytes.len() as u64;
        let Account { came, went, reachable } = *account;
        assert!(
            reachable || went <= came * AMPLIFICATION,
            "amplification: {went} bytes to {to}, which has sent {came} and given back no cookie"
        );
    }
    /// Checks the RETRYs of the last second, of which `a_second` are allowed: all of them, those to one address, and,
    /// while data is sent, that they have at most `most` bits.
    ///
    /// # Panics
    /// If there are more than documented.
    pub fn check_answers(&mut self, now: Time, a_second: u32, most: Option<u64>) {
        while let Some(&(at, to, bytes)) = self.answers.front()
            && at + Duration::from_secs(1) <= now
        {
            self.answers.pop_front();
            self.answered.0 -= bytes;
            match self.answered.1.get_mut(&to) {
                Some(count) if *count > 1 => *count -= 1,
                _ => drop(self.answered.1.remove(&to)),
            }
        }
        let Some(&(_, latest, _)) = self.answers.back().filter(|(at, ..)| *at == now) else { return };
        // A burst of a tenth of a second is allowed, and some have waited for as long until the rate let them out.
        let allowed = |a_second: u32| (a_second + a_second / 5) as usize + 1;
        let (all, own) = (self.answers.len(), self.answered.1.get(&latest).copied().unwrap_or(0));
        assert!(all <= allowed(a_second), "{all} RETRYs in a second");
        assert!(own <= allowed(a_second / 4), "{own} RETRYs in a second to {latest}");
        let bits = self.answered.0 * 8;
        let most = most.map_or(u64::MAX, |most| most + most / 10 + 4_000);
        assert!(bits as u64 <= most, "{bits} bits of RETRYs in a second, beside the data");
    }
    /// Opens a symbol that is sealed for the group.
    fn symbol(&self, head: &Head, bytes: &[u8]) -> Option<Vec<u8>> {
        let seal =
            self.side.symbols().filter(|_| head.protection.is_group() && head.kind == MessageKind::Symbol)?;
        let (clear, sealed) = bytes.split_at(HEADER_LEN);
        let mut sealed = sealed.to_vec();
        let body = seal.key.open(head.header.packet_number.0, clear, &mut sealed)?;
        let mut plain = [clear, body].concat();
        Protection::Clear.mark(&mut plain);
        Some(plain)
    }
}

/// Checks the invariants of a run.
pub struct Checker {
    object: Arc<Vec<u8>>,
    layout: Layout,
    name: String,
    packs: bool,
    bound: FeedbackBudget,
    sessions: HashMap<SessionId, Session>,
    /// Counters of the devices' own channels, by node and run.
    device_counters: HashMap<(u32, u32), (u64, u64)>,
    /// Feedback of the last second: time and kind.
    feedback: VecDeque<(Time, MessageKind)>,
    /// Most feedback datagrams in any second.
    pub feedback_max: usize,
    /// Feedback datagrams in all.
    pub feedback_total: u64,
    /// Symbols sent, by kind.
    pub symbols: Symbols,
    /// Datagrams that mean nothing.
    pub grease: u64,
}

impl Checker {
    /// Allows symbols of compressed blocks.
    #[must_use]
    pub const fn packing(mut self, packs: bool) -> Self {
        self.packs = packs;
        self
    }

    /// Holds the devices to this budget.
    #[must_use]
    pub const fn bounding(mut self, feedback: FeedbackBudget) -> Self {
        self.bound = feedback;
        self
    }

    /// A checker for the sending of `object`, called `name`.
    #[must_use]
    pub fn new(object: Arc<Vec<u8>>, layout: Layout, name: String) -> Self {
        Self {
            object,
            layout,
            name,
            packs: false,
            bound: FeedbackBudget::DEFAULT,
            sessions: HashMap::new(),
            device_counters: HashMap::new(),
            feedback: VecDeque::new(),
            feedback_max: 0,
            feedback_total: 0,
            symbols: Symbols::default(),
            grease: 0,
        }
    }

    /// Checks a datagram that a sender has sent. `group` is true if it goes to the group.
    ///
    /// # Panics
    /// If it is malformed, reuses a packet number or a repair symbol's id, or carries source bytes that
    /// are not the object's.
    pub fn sender_sent(&mut self, group: bool, bytes: &[u8], ledger: &Ledger) {
        if let Err(DecodeError::UnknownKind(kind)) = wire::head(bytes) {
            assert!(wire::is_grease(kind.into()) && bytes.len() <= MAX_CONTROL, "a datagram of kind {kind}");
            self.grease += 1;
            return;
        }
        let head = Self::head(bytes);
        let header = head.header;
        let session = self.sessions.entry(header.session).or_default();
        let number = header.packet_number.0;
        let (channel, counter) = ((number >> 48) as u16, number & ((1 << 48) - 1));
        let next = session.counters.entry(channel).or_default();
        assert!(counter >= *next, "packet number {counter} of channel {channel} is used again");
        *next = counter + 1;
        let plain = ledger.symbol(&head, bytes);
        let plain = plain.as_deref().unwrap_or(bytes);
        let Ok((_, Message::Symbol(symbol))) = wire::decode_plain(plain) else { return };
        let (block, id) = (symbol.block, symbol.esi);
        assert!(block.0 < self.layout.block_count(), "a symbol of {block:?}, which does not exist");
        if id.0 < self.layout.source_symbols(block) {
            let range = self.layout.symbol_range(block, id);
            let start = self.layout.block_offset(block) as usize + range.start;
            if self.object[start..start + range.len()] != *symbol.payload {
                // Of a compressed block. What it is packed to does not change.
                assert!(self.packs, "source symbol {id:?} of {block:?} is not the object's");
                let digest = symbol_digest(symbol.payload);
                let first = session.packed.entry((block.0, id.0)).or_insert(digest);
                assert_eq!(*first, digest, "source symbol {id:?} of {block:?} has changed");
            }
        } else {
            assert_eq!(symbol.payload.len(), usize::from(self.layout.symbol_size()));
            let fresh = session.repairs.insert((block.0, id.0));
            assert!(fresh, "repair symbol {id:?} of {block:?} is sent a second time");
        }
        *match (group, id.0 < self.layout.source_symbols(block)) {
            (true, true) => &mut self.symbols.group_source,
            (true, false) => &mut self.symbols.group_repair,
            (false, _) => &mut self.symbols.unicast,
        } += 1;
    }

    /// Checks a datagram that a device has sent. `incarnation` counts the device's starts.
    ///
    /// # Panics
    /// If it is malformed or reuses a packet number, or if all devices together send too much (I10).
    pub fn device_sent(&mut self, now: Time, node: u32, incarnation: u32, bytes: &[u8]) {
        let Head { header, kind, .. } = Self::head(bytes);
        let number = header.packet_number.counter();
        let session = header.session.0;
        let last = self.device_counters.insert((node, incarnation), (session, number));
        if let Some((last_session, last)) = last {
            assert!(
                last_session != session || number > last,
                "device {node} uses packet number {number:x} again"
            );
        }
        self.feedback_total += 1;
        self.feedback.push_back((now, kind));
        while self.feedback.front().is_some_and(|&(t, _)| t + Duration::from_secs(1) <= now) {
            self.feedback.pop_front();
        }
        self.feedback_max = self.feedback_max.max(self.feedback.len());
        let bound = self.bound.per_second() as usize;
        if self.feedback.len() > bound {
            let mut kinds = Vec::new();
            for &(_, kind) in &self.feedback {
                match kinds.iter_mut().find(|(k, _)| *k == kind) {
                    Some((_, count)) => *count += 1,
                    None => kinds.push((kind, 1)),
                }
            }
            panic!("I10: {} feedback datagrams in the second up to {now:?}: {kinds:?}", self.feedback.len());
        }
    }

    fn head(bytes: &[u8]) -> Head {
        let head = match wire::head(bytes) {
            Ok(head) => head,
            Err(e) => panic!("a datagram was sent that cannot be read: {e}"),
        };
        let most = match head.kind {
            MessageKind::Symbol => MAX_DATAGRAM,
            MessageKind::Join => MAX_CONTROL + JOIN_CLEAR + MAX_TRAILER,
            _ => MAX_CONTROL + MAX_TRAILER,
        };
        assert!(bytes.len() <= most, "a datagram of {} bytes: {head:?}", bytes.len());
        head
    }

    /// I1: the final name has the object, the previous file, or no file.
    ///
    /// # Panics
    /// If it has anything else.
    pub fn check_disk(&self, device: u32, disk: &SimDisk, before: Option<&[u8]>) {
        disk.with_file(&self.name, |file| match file {
            None => assert!(before.is_none(), "I1: device {device} has lost the file it had"),
            Some(bytes) => assert!(
                bytes == &self.object[..] || before == Some(bytes),
                "I1: device {device} has a corrupt file under the final name"
            ),
        });
        let names = disk.names();
        assert!(names.iter().all(|n| *n == self.name), "I1: device {device} has files {names:?}");
    }

    /// Nothing on a disk changes for a session that has not admitted its device.
    ///
    /// # Panics
    /// When more was changed than `before`, and no session has admitted it.
    pub fn check_untouched(&self, device: u32, changes: u64, before: Option<u64>) {
        let Some(before) = before else { return };
        assert_eq!(changes, before, "device {device} changes its disk before it is admitted");
    }

    /// Whether the object is under its final name, or has gone to the other output.
    #[must_use]
    pub fn has_object(&self, disk: &SimDisk, output: Option<&Output>) -> bool {
        if let Some(output) = output {
            return output.is_whole();
        }
        disk.with_file(&self.name, |file| file == Some(&self.object[..]))
    }

    /// I2: a device that is complete in the table has the object, synced.
    ///
    /// # Panics
    /// If it has not.
    pub fn check_complete(&self, device: u32, disk: &SimDisk, output: Option<&Output>) {
        assert!(
            self.has_object(disk, output),
            "I2: device {device} is complete in the table but has no object"
        );
        assert!(disk.is_settled(), "I2: device {device} is complete, and a power cut could undo it");
    }

    /// I6: a receiver's buffers are within their bound.
    ///
    /// # Panics
    /// If they exceed it.
    pub fn check_buffered(&self, device: u32, buffered: usize, bound: usize) {
        assert!(buffered <= bound, "I6: device {device} buffers {buffered} bytes, more than {bound}");
    }

    /// Bytes that a receiver needs to buffer `blocks` blocks of the object.
    #[must_use]
    pub fn buffer_bytes(layout: &Layout, blocks: usize) -> usize {
        let symbols = layout.most_source_symbols().max(1) as usize;
        blocks * symbols * usize::from(layout.symbol_size())
    }
}
