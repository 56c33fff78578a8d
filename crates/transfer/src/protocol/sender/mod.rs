//! The sender's state machine: gather, stream, poll, repair, complete, linger.
//!
//! ```text
//!  join ──► gather ──► stream ──► repair ◄──► linger ──► closing ──► finished
//!             │           │  polls and repairs of the group run beside the stream
//!             │           └► unicast repairs, within their share of the rate
//!             └ no device joined: finished
//! ```
//!
//! - `config`: its configuration. `policy`: the repair policy. `view`: what it tells the user.
//! - `announce`: announcements. `gather`: invitations, the start. `admission`: joins. `identity`: who a device
//!   is. `strangers`: what one address may ask for.
//! - `devices`: the state of each device. `service`: who serves a device. `records`: the store.
//! - `codings`: how each block is coded. `growth`: an object that grows. `window`: one of which only the end is kept. `stream`: source symbols, hashes ahead of them,
//!   and the next datagram at the paced rate. `delta`: sending only what is missing.
//! - `feedback`: messages of devices. `rounds`: polls of the group and their answers. `round_trip`: how long answers
//!   take. `planner`: the repairs of a round. `unicast_repair`: the same for one device. `inquiries`: digests of
//!   suspect blocks.
//! - `frames`: paths that do not carry large datagrams. `channel`: a destination with its repairs. `pace`: how fast it sends. `rate`: the rates that follow from reports.
//! - `liveness`: devices that fall silent. `headway`: whether they make progress. `shutdown`: lingering, the end.

mod admission;
mod announce;
mod channel;
mod codings;
mod config;
mod delta;
mod devices;
mod feedback;
mod frames;
mod gather;
mod growth;
mod headway;
mod identity;
mod inquiries;
mod liveness;
mod pace;
mod planner;
mod policy;
mod rate;
mod records;
mod reported;
mod round_trip;
mod rounds;
mod service;
mod shutdown;
mod strangers;
mod stream;
mod unicast_repair;
mod view;
mod window;

pub(in crate::protocol) use announce::NOT_AS_SIGNED;
pub use codings::Compression;
pub use config::{FOREVER, SenderConfig};
#[doc(hidden)]
pub use planner::planned_symbols;
pub use policy::{Passes, PollPolicy, RepairPolicy, SlowPolicy};
pub(in crate::protocol) use stream::SOURCE_CHANGED;

use super::event::{SenderEvent, SenderOutcome};
use super::job::{SenderDone, SenderJob};
use super::packet_protection::{SenderSide, SymbolSeal};
use super::{Control, Machine, Output, Payload, Sessions, Transmit};
use crate::limits::MAX_DEVICES;
use crate::pacing::{ETHERNET_HEADER, ETHERNET_OVERHEAD, RateController, TokenBucket, udp_overhead};
use crate::pack::Recipe;
use crate::task::Task;
use crate::time::Time;
use crate::units::{AgreementKey, Arrival, BlockIndex, ChannelId, DeviceIndex, Digest, Esi, Rate, SessionId};
use crate::wire::{AbortCode, Header, Message, OriginProof, PacketNumber, Phase};
use admission::PendingJoin;
use announce::AnnounceTimer;
use channel::Channel;
use codings::Codings;
use devices::Devices;
use gather::Gather;
use identity::Identities;
use inquiries::Inquiries;
use liveness::Liveness;
use pace::Pace;
use policy::PassState;
use rate::Epoch;
use records::Records;
use rounds::GroupRounds;
use shutdown::Shutdown;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;
use strangers::Strangers;
use stream::Stream;
use window::Window;

type Out = Output<SenderJob, SenderEvent>;

/// The sender's state of a block.
#[derive(Clone, Debug)]
struct BlockInfo {
    /// Its chaining value, once hashed.
    value: Option<Digest>,
    /// Its coding, once settled.
    recipe: Option<Recipe>,
    /// The ESI of the next fresh repair symbol. No ESI is used for two fresh symbols.
    next_repair: Esi,
    /// Source symbols below this ESI have been sent to the group.
    streamed: u32,
    /// The packet number of the block's last symbol on the group's channel.
    last_sent: PacketNumber,
}

#[derive(Debug, Default)]
struct Counters {
    /// Bytes of Ethernet frames without their check sequence.
    wire_bytes: u64,
    source: u64,
    repair: u64,
    unicast: u64,
    feedback: u64,
    ignored: u64,
    unknown_kinds: u64,
    not_understood: u64,
}

/// The sender. See [`Machine`] for how it is driven.
#[derive(Debug)]
pub struct Sender {
    config: SenderConfig,
    phase: Phase,
    root: Option<Digest>,
    origin: Option<Box<OriginProof>>,
    blocks: Vec<BlockInfo>,
    devices: Devices,
    /// Protects datagrams.
    side: SenderSide,
    /// Joins whose answer waits for the store.
    pending_joins: BTreeMap<AgreementKey, PendingJoin>,
    /// What addresses that are not known to be reachable may ask for.
    strangers: Strangers,
    gather: Gather,
    stream: Stream,
    window: Window,
    codings: Codings,
    group: Channel,
    /// Channel of replies to addresses that have no channel of their own yet.
    replies: Channel,
    rounds: GroupRounds,
    passes: PassState,
    /// Devices with an active unicast repair. The first one sends next.
    unicast_repairs: VecDeque<DeviceIndex>,
    pace: Pace,
    epoch: Epoch,
    unicast_share: TokenBucket,
    inquiries: Inquiries,
    records: Records,
    identities: Identities,
    /// Symbols that workers are encoding, or that are encoded and wait to be sent.
    encoded_symbols: u32,
    announces: AnnounceTimer,
    liveness: Liveness,
    shutdown: Shutdown,
    out: VecDeque<Out>,
    counters: Counters,
}

impl Sender {
    /// A sender that starts gathering at `now`.
    ///
    /// # Panics
    /// If the layout has more blocks than [`crate::limits::MAX_BLOCKS`]. `session` checks this before.
    #[must_use]
    pub fn new(mut config: SenderConfig, now: Time) -> Self {
        assert!(config.layout.block_count() <= crate::limits::MAX_BLOCKS);
        let blocks = (0..config.layout.block_count())
            .map(|block| BlockInfo::new(config.layout.source_symbols(BlockIndex(block))))
            .collect();
        let datagram = config.datagram_on_wire();
        let Task { id, options, .. } = &config.task;
        let listed = options.devices.as_ref().map_or(Vec::new(), |devices| devices.assignments(*id));
        let pace = Pace::new(RateController::new(config.rate), datagram, now);
        let share = rate::unicast_share(pace.rate());
        let mut sender = Self {
            phase: Phase::Gathering,
            root: None,
            origin: None,
            blocks,
            devices: Devices::default(),
            side: config.side(),
            pending_joins: BTreeMap::new(),
            strangers: Strangers::new(),
            gather: Gather::new(now + config.wait_first.unwrap_or(config.wait)),
            stream: Stream::new(config.layout.extent()),
            window: Window::new(config.window),
            codings: Codings::new(config.compression, config.rate.most()),
            group: Channel::new(ChannelId::GROUP, config.data),
            replies: Channel::new(ChannelId::REPLIES, config.data),
            rounds: GroupRounds::new(),
            passes: PassState::default(),
            unicast_repairs: VecDeque::new(),
            pace,
            epoch: Epoch::default(),
            unicast_share: TokenBucket::new(share, datagram, now),
            inquiries: Inquiries::new(now),
            records: Records::expecting(listed),
            identities: Identities::new(std::mem::take(&mut config.known_devices)),
            encoded_symbols: 0,
            announces: AnnounceTimer::new(now),
            liveness: Liveness::new(now),
            shutdown: Shutdown::new(config.max_time.map_or(Time::NEVER, |time| now + time)),
            out: VecDeque::new(),
            counters: Counters::default(),
            config,
        };
        let announce = sender.announced();
        sender.side.announce(&announce);
        sender.out.push_back(Output::Event(SenderEvent::Phase(Phase::Gathering)));
        sender.set_root_if_hashed(now);
        sender
    }

    /// Supplies the blocks' chaining values, and whether they are zeros, before the source is hashed. Ignored unless there
    /// is exactly one value for each block. Call before driving the machine.
    #[must_use]
    pub fn with_values(mut self, blocks: Vec<(Digest, bool)>) -> Self {
        if blocks.len() == self.blocks.len() && self.root.is_none() {
            self.know_blocks(blocks);
        }
        self
    }

    /// The chaining values of all blocks of the whole object, once they are known.
    #[must_use]
    pub fn values(&self) -> Option<Vec<Digest>> {
        if !self.config.layout.is_sealed() {
            return None;
        }
        self.blocks.iter().map(|block| block.value).collect()
    }

    /// Sizes of the tables that peers can grow: devices, joins that wait for the store, and outputs that wait.
    #[must_use]
    pub fn table_sizes(&self) -> [usize; 3] {
        [self.devices.len(), self.pending_joins.len(), self.out.len()]
    }

    /// The number of accesses to devices so far. It measures what devices cost the loop's thread.
    #[must_use]
    pub const fn device_looks(&self) -> u64 {
        self.devices.looks()
    }

    /// The session's identifier.
    #[must_use]
    pub const fn session(&self) -> SessionId {
        self.side.session()
    }

    /// The seal of this session's symbols, if there is a group key.
    #[must_use]
    pub fn symbol_seal(&self) -> Option<SymbolSeal> {
        self.side.symbols()
    }

    fn header(&self, packet_number: PacketNumber) -> Header {
        Header { session: self.side.session(), packet_number }
    }

    /// Encodes a message without a device's seal, on a channel's packet number, and charges it to the rate.
    fn transmit_open(&mut self, to: SocketAddr, number: PacketNumber, message: &Message<'_>) -> Transmit {
        let bytes = self.side.to_all(self.header(number), message);
        self.transmit(to, bytes)
    }

    /// Charges a datagram to the rate.
    fn transmit(&mut self, to: SocketAddr, bytes: Vec<u8>) -> Transmit {
        let size = bytes.len() as u64 + udp_overhead(to);
        self.charge(size, 1);
        Transmit { to, payload: Payload::Message(bytes) }
    }

    /// Charges datagrams of `bytes` bytes in total, on the wire, to the rate.
    fn charge(&mut self, bytes: u64, datagrams: u32) {
        self.pace.bucket.charge(bytes);
        self.counters.wire_bytes += bytes - (ETHERNET_OVERHEAD - ETHERNET_HEADER) * u64::from(datagrams);
    }

    /// Sends a message without a device's seal, ahead of everything paced.
    fn message(&mut self, to: SocketAddr, number: PacketNumber, message: &Message<'_>) {
        let transmit = self.transmit_open(to, number, message);
        self.out.push_back(Output::Transmit(transmit));
    }

    /// Takes the packet number of a message that is sent to the group now.
    fn group_number(&mut self, now: Time) -> PacketNumber {
        let number = self.group.take_numbers(1);
        self.pace.note_sent(number.counter(), now);
        number
    }

    /// Sends a message to the whole group.
    fn send_to_group(&mut self, message: &Message<'_>, now: Time) {
        let number = self.group_number(now);
        self.message(self.config.data, number, message);
    }

    /// Sends a signed message to one device by unicast.
    fn send_signed_to_device(&mut self, index: DeviceIndex, message: &Message<'_>, now: Time) {
        let number = self.device_channel(index).number_for_one(now);
        let to = self.devices.get(index).address;
        self.message(to, number, message);
    }

    /// Sends a message that is sealed for one device.
    fn send_to_device(&mut self, index: DeviceIndex, message: &Message<'_>, now: Time) {
        let number = self.device_channel(index).number_for_one(now);
        self.send_to_device_as(index, number, message);
    }

    fn send_to_device_as(&mut self, index: DeviceIndex, number: PacketNumber, message: &Message<'_>) {
        let header = self.header(number);
        let device = self.devices.get(index);
        let (to, bytes) = (device.address, self.side.to_one(&device.link.keys, header, message));
        let transmit = self.transmit(to, bytes);
        self.out.push_back(Output::Transmit(transmit));
    }

    /// The channel of one device, created when it is first needed. Its number is the device's index + 1.
    fn device_channel(&mut self, index: DeviceIndex) -> &mut Channel {
        const { assert!(MAX_DEVICES < u16::MAX as usize) };
        let device = self.devices.get_mut(index);
        let address = device.address;
        let channel = device
            .channel
            .get_or_insert_with(|| Box::new(Channel::new(ChannelId::of_device(index), address)));
        channel.to = address;
        channel
    }

    fn event(&mut self, event: SenderEvent) {
        self.out.push_back(Output::Event(event));
    }

    fn job(&mut self, job: SenderJob) {
        self.window.begun(&job);
        self.out.push_back(Output::Job(job));
    }

    fn set_phase(&mut self, phase: Phase, now: Time) {
        if self.phase != phase {
            self.phase = phase;
            self.event(SenderEvent::Phase(phase));
            self.announce(now);
        }
    }

    /// Sets the root hash once all chaining values are known.
    fn set_root(&mut self, now: Time) {
        let Some(values) = self.values() else { return };
        let root = crate::crypto::digest::root(&values);
        self.root = Some(root);
        self.origin = self.config.origin(root);
        self.event(SenderEvent::Hashed(root));
        if self.origin.is_none() {
            let outcome = SenderOutcome::SourceFailed(NOT_AS_SIGNED.to_owned());
            self.finish(outcome, AbortCode::Source, NOT_AS_SIGNED, now);
        }
    }

    fn finish(&mut self, outcome: SenderOutcome, code: AbortCode, reason: &str, now: Time) {
        self.shutdown.close(outcome, code, reason, now);
        self.send_goodbye(now);
    }
}

impl Machine for Sender {
    type Job = SenderJob;
    type Done = SenderDone;
    type Event = SenderEvent;

    fn handle_datagram(&mut self, now: Time, arrival: Arrival, bytes: &mut [u8]) {
        if !self.shutdown.is_closing() {
            self.feedback(now, arrival.from, bytes);
        }
    }

    fn handle_timeout(&mut self, now: Time) {
        self.run_due(now);
        if !self.shutdown.is_closing() {
            self.drive_rounds(now);
        }
    }

    fn handle_job_done(&mut self, now: Time, done: SenderDone) {
        self.window.ended(&done);
        match done {
            SenderDone::LookedUp(found) => self.looked_up(found, now),
            SenderDone::Recorded(kept) => self.recorded(kept, now),
            _ if self.shutdown.is_closing() => return,
            SenderDone::Hashed { block, value, recipe, packed } => {
                self.hashed(block, value, (recipe, packed), now);
            }
            SenderDone::Grown(extent) => self.grown(extent, now),
            SenderDone::Encoded { block, first, symbols } => self.encoded(block, first, symbols),
            SenderDone::Digested(block, digests) => self.inquiries.digested(block, digests),
            SenderDone::Vouched(..) => {}
            SenderDone::SourceChecked => self.liveness.source_checked(now),
            SenderDone::SourceFailed(text) => {
                self.finish(SenderOutcome::SourceFailed(text.clone()), AbortCode::Source, &text, now);
            }
            SenderDone::WorkerDied(text) => {
                self.finish(SenderOutcome::Internal(text.clone()), AbortCode::Internal, &text, now);
            }
        }
        self.drive_rounds(now);
    }

    fn handle_absence(&mut self, now: Time, away: Duration) {
        self.absent(now, away);
    }

    fn handle_control(&mut self, now: Time, control: Control) {
        match control {
            Control::StartNow if self.phase == Phase::Gathering && self.devices.open() > 0 => {
                self.start(now);
            }
            Control::StartNow => {}
            Control::Interrupt => {
                self.finish(
                    SenderOutcome::Interrupted,
                    AbortCode::Interrupted,
                    "interrupted at the sender",
                    now,
                );
            }
        }
    }

    fn set_kernel_drops(&mut self, _drops: u64) {}

    fn sessions(&self) -> Sessions {
        [self.side.session()].into_iter().collect()
    }

    fn set_most(&mut self, most: Rate) {
        self.pace.set_most(most);
    }

    fn poll(&mut self, now: Time) -> Option<Out> {
        if let Some(out) = self.out.pop_front() {
            return Some(out);
        }
        self.ask_the_store(now);
        if self.shutdown.is_closing() {
            return self.out.pop_front();
        }
        self.ask_for_jobs();
        self.watch_window(now);
        if let Some(out) = self.out.pop_front() {
            return Some(out);
        }
        let sent = self.next_paced(now).map(Output::Transmit);
        if sent.is_none() {
            // The last datagram may have ended a round.
            self.drive_rounds(now);
        }
        sent.or_else(|| self.out.pop_front())
    }

    fn next_timeout(&self) -> Time {
        let machine =
            self.announces.next.min(self.liveness.next_timeout()).min(self.shutdown.time_is_up_at());
        let own = self.shutdown.next_timeout().unwrap_or(machine.min(self.records.next_timeout()));
        own.min(self.rounds_timeout()).min(self.paced_timeout())
    }

    fn is_finished(&self) -> bool {
        self.shutdown.is_finished() && self.out.is_empty()
    }
}

#[cfg(test)]
mod tests;
