//! The fuzz targets `announce` and `hash_page`. A receiver gets announces of objects of any size, in blocks and
//! symbols of any size, then pages, symbols and polls for any position in the object or beyond. There is no real
//! object: the results of jobs are made up. The receiver's memory must stay within its bounds.

use super::play::{self, World as _};
use super::{COUNTER, GROUP, Input};
use crate::layout::Layout;
use crate::limits::{
    HASHES_PER_PAGE, HEADER_LEN, JOIN_CLEAR, MAX_BLOCK_BUFFERS, MAX_BLOCKS, MAX_CONTROL, MAX_ESI, MAX_JOBS,
    MAX_TRAILER,
};
use crate::protocol::event::ReceiverEvent;
use crate::protocol::job::{ReceiverDone, ReceiverJob};
use crate::protocol::receiver::{Receiver, ReceiverConfig};
use crate::protocol::{Machine, Output, Payload};
use crate::ranges::BitSet;
use crate::sim::fakes::{FakeSender, any_admit};
use crate::sim::sham::SHAM;
use crate::time::Time;
use crate::units::{Arrival, BlockIndex, ChannelId, DeviceId, Digest, Esi, Rate, TaskId, Ticket, Via};
use crate::wire::{
    self, AbortCode, Announce, HashPage, Holdings, Invitation, Message, MessageKind, Object, Phase, Poll,
    RepairAdvertisement, Symbol,
};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

const SENDER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 7418);
const OWN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 9)), 40_000);
const CHANNEL: ChannelId = ChannelId(1);
/// Most outputs after one input: a page may judge 32 blocks, and blocks that arrived before the part file are all
/// stored when it opens.
const MAX_OUTPUTS: usize = 48 + MAX_BLOCK_BUFFERS;
/// Offset of the symbol size in an announce. The block size and the object's size follow.
const SYMBOL_SIZE_AT: usize = HEADER_LEN + 106;
const BLOCK_LOG2_AT: usize = HEADER_LEN + 139;
/// Flag in an input's first byte: the receiver already takes part in a session.
const LATCHED: u8 = 1;

/// The body of the fuzz target `announce`.
///
/// # Panics
/// If the receiver breaks an invariant.
pub fn fuzz_announce(bytes: &[u8]) {
    let mut bytes = bytes.to_vec();
    bytes.first_mut().into_iter().for_each(|first| *first &= !LATCHED);
    World::play(&bytes);
}

/// The body of the fuzz target `hash_page`.
///
/// # Panics
/// If the receiver breaks an invariant.
pub fn fuzz_hash_page(bytes: &[u8]) {
    let mut bytes = bytes.to_vec();
    bytes.first_mut().into_iter().for_each(|first| *first |= LATCHED);
    World::play(&bytes);
}

/// The object's shape in an announce, valid or not.
#[derive(Clone, Copy, Debug)]
struct Shape {
    size: u64,
    block_log2: u8,
    symbol_size: u16,
}

pub(super) struct World {
    pub(super) receiver: Receiver,
    now: Time,
    sender: FakeSender,
    sessions: u64,
    shape: Shape,
    buffer_bytes: usize,
    jobs: Vec<ReceiverJob>,
    joined: bool,
    over: bool,
    pub(super) told: u64,
    pub(super) checks: u32,
    /// Number of blocks of the largest object that the receiver has considered.
    pub(super) blocks: u32,
}

impl play::World for World {
    type Machine = Receiver;
    const END: (usize, Duration) = (200_000, Duration::from_secs(3600));

    fn new(input: &mut Input<'_>) -> Option<Self> {
        let [start, buffers] = input.array()?;
        let buffer_bytes = usize::from(buffers) << 12;
        let device = (DeviceId([7; 16]), "fuzzed".into());
        let config = ReceiverConfig {
            buffer_bytes,
            primitives: SHAM,
            ..ReceiverConfig::new(device, vec![GROUP], (1, [2; 32]))
        };
        let mut world = Self {
            receiver: Receiver::new(config, Time::ZERO),
            now: Time::ZERO,
            sender: FakeSender::new(COUNTER),
            sessions: 0,
            shape: Shape::new(input)?,
            buffer_bytes,
            jobs: Vec::new(),
            joined: false,
            over: false,
            told: 0,
            checks: 0,
            blocks: 0,
        };
        world.drain();
        if start & LATCHED != 0 {
            world.join(start);
        }
        Some(world)
    }

    fn machine(&mut self) -> &mut Receiver {
        &mut self.receiver
    }
    fn now(&mut self) -> &mut Time {
        &mut self.now
    }
    fn jobs(&mut self) -> &mut Vec<ReceiverJob> {
        &mut self.jobs
    }
    fn is_over(&self) -> bool {
        self.over
    }

    fn operate(&mut self, input: &mut Input<'_>) -> Option<()> {
        match input.u8()? % 12 {
            0 => self.pass(Duration::from_millis(1 << (input.u8()? & 15))),
            1 => self.announce(input.array()?),
            2 => {
                self.shape = Shape::new(input)?;
                self.announce(input.array()?);
            }
            3 | 4 => self.page(input)?,
            5 => self.symbols(input)?,
            6 => self.poll(input)?,
            7 => self.admit(),
            8 | 9 => self.end_job(input.u8()?, 0),
            10 => self.end_job(input.u8()?, input.u8()?),
            _ => {
                // The sender restarts.
                self.sessions += 1;
                self.sender = FakeSender::new(COUNTER + self.sessions);
                self.announce(input.array()?);
            }
        }
        Some(())
    }

    fn execute(&mut self, job: ReceiverJob, how: u8) -> ReceiverDone {
        match (how, job) {
            (
                1..16,
                ReceiverJob::Open { .. }
                | ReceiverJob::Store { .. }
                | ReceiverJob::Spill(_)
                | ReceiverJob::Zero { .. }
                | ReceiverJob::Reserve { .. },
            ) => ReceiverDone::Failed(AbortCode::Disk, "fuzzed".into()),
            (_, ReceiverJob::Probe { session, .. }) => {
                let holding = [Holdings::Nothing, Holdings::Some, Holdings::All(Digest([how; 32]))];
                let ticket = (how & 32 == 32).then_some(Ticket([how; 16]));
                ReceiverDone::Probed { session, holding: holding[usize::from(how % 3)], ticket }
            }
            (_, ReceiverJob::KeepTicket { .. }) => ReceiverDone::TicketKept(how & 1 == 1),
            (_, ReceiverJob::Adopt { .. }) => ReceiverDone::Committed("object".into()),
            (_, ReceiverJob::Open { layout, .. }) => opened(&layout, how),
            (64..128, ReceiverJob::Store { assembly, .. }) => ReceiverDone::Undecodable(assembly),
            (128..192, ReceiverJob::Store { mut assembly, expected: Some(_), .. }) => {
                let (block, buffer) = (assembly.block(), assembly.take_buffer());
                ReceiverDone::Mismatched { block, buffer, kept: None }
            }
            (_, ReceiverJob::Store { mut assembly, expected, .. }) => {
                let block = assembly.block();
                let lie = if expected.is_none() { how & 1 } else { 0 };
                let value = expected.unwrap_or(value(block, lie));
                ReceiverDone::Stored { block, value, buffer: assembly.take_buffer() }
            }
            (_, ReceiverJob::Spill(mut assembly)) => {
                let buffer = assembly.mark_spilled();
                ReceiverDone::Spilled { assembly, buffer }
            }
            (_, ReceiverJob::Check { block, expected, .. }) => {
                self.checks += 1;
                ReceiverDone::Checked { block, agrees: how & 1 == 0 && expected == value(block, 0) }
            }
            (_, ReceiverJob::Zero { first, values, .. }) => {
                let wrong = (how & 1 == 1).then_some(first);
                ReceiverDone::Zeroed { first, count: values.len() as u32, wrong }
            }
            (_, ReceiverJob::Reserve { .. }) => ReceiverDone::Reserved,
            (_, ReceiverJob::Write { block, buffer, .. }) => ReceiverDone::Written { block, buffer },
            (_, ReceiverJob::Sift { block, digests, buffer, .. }) => {
                let mut right = BitSet::new(digests.len() as u32);
                (0..digests.len() as u32).filter(|id| id % 256 != u32::from(how)).for_each(|id| {
                    right.insert(id);
                });
                ReceiverDone::Sifted { block, agrees: right.is_full(), right, buffer }
            }
            (_, ReceiverJob::Arrange { layout }) => {
                let mut there = BitSet::new(layout.block_count());
                (0..layout.block_count()).filter(|block| block % 7 == u32::from(how % 7)).for_each(|block| {
                    there.insert(block);
                });
                ReceiverDone::Arranged { there }
            }
            (_, ReceiverJob::Commit { .. }) => ReceiverDone::Committed("object".into()),
            (_, ReceiverJob::Hook(_)) => ReceiverDone::HookEnded(Ok(0)),
            (_, ReceiverJob::Discard) => ReceiverDone::Discarded,
            (_, ReceiverJob::Keep) => ReceiverDone::Kept,
        }
    }

    fn drain(&mut self) {
        let mut outputs = 0;
        while let Some(output) = self.receiver.poll(self.now) {
            outputs += 1;
            assert!(outputs <= MAX_OUTPUTS, "it goes on and on");
            match output {
                // It changes nothing that anybody sees.
                Output::Job(ReceiverJob::Reserve { .. }) => {
                    self.receiver.handle_job_done(self.now, ReceiverDone::Reserved);
                }
                Output::Transmit(transmit) => {
                    let Payload::Message(bytes) = transmit.payload else { panic!("a device sends symbols") };
                    assert!(bytes.len() <= MAX_CONTROL + JOIN_CLEAR + MAX_TRAILER);
                    self.told += 1;
                    // Messages to an earlier run of the sender are lost.
                    if let Some((_, plain)) = self.sender.hear(OWN, &bytes) {
                        let (_, message) = wire::decode_plain(&plain).expect("a sound message");
                        self.joined |= message.kind() == MessageKind::Join;
                    }
                }
                Output::Job(job) => self.jobs.push(job),
                Output::Event(ReceiverEvent::Finished(_)) => self.over = true,
                Output::Listen(_) | Output::Event(_) => {}
            }
        }
        let seen = self.receiver.snapshot();
        self.blocks = self.blocks.max(seen.blocks);
        assert!(seen.blocks <= MAX_BLOCKS, "{seen:?}");
        assert!(seen.verified <= seen.blocks && seen.verified_bytes <= seen.object_size, "{seen:?}");
        assert!(
            seen.received_bytes <= seen.object_size && seen.resumed_bytes <= seen.object_size,
            "{seen:?}"
        );
        // At least four buffers, each of a block and the padding of its last symbol.
        let block = (1 << 24) + (1 << 14);
        assert!(seen.buffered <= self.buffer_bytes.max(4 * block), "{seen:?}");
        assert!(self.jobs.len() <= (MAX_BLOCK_BUFFERS + 8).min(MAX_JOBS), "{} jobs", self.jobs.len());
        assert_eq!(self.receiver.is_finished(), self.over);
    }
}

impl Shape {
    /// A shape of any size. Small numbers and numbers next to a power of two are as likely as large ones.
    fn new(input: &mut Input<'_>) -> Option<Self> {
        let [shift, add, block_log2, symbols] = input.array()?;
        let exact = input.u32()?;
        let size = match shift >> 6 {
            0 => u64::from(exact),
            1 => 1_u64.wrapping_shl(u32::from(shift & 63)).wrapping_add_signed(i64::from(add as i8)),
            2 => u64::from(exact) << (shift & 63) | u64::from(add),
            // About the largest number of blocks.
            _ => (u64::from(MAX_BLOCKS) << (block_log2 & 63)).wrapping_add_signed(i64::from(add as i8)),
        };
        let symbol_size = if symbols == u8::MAX { exact as u16 } else { u16::from(symbols) * 64 };
        Some(Self { size, block_log2, symbol_size })
    }

    fn layout(self) -> Option<Layout> {
        Layout::new(self.size, self.block_log2, self.symbol_size).ok()
    }
}

impl World {
    /// Announces until the receiver sends a join, then admits it.
    fn join(&mut self, start: u8) {
        for round in 0..16 {
            self.announce([u8::MAX, 0, 0]);
            if round == 0 {
                self.end_job(0, 0);
            }
            if self.joined || self.over || self.receiver.snapshot().name.is_none() {
                break;
            }
            self.pass(Duration::from_millis(500));
        }
        self.admit();
        self.end_job(0, start & !LATCHED);
    }

    fn announce(&mut self, [probability, position, flags]: [u8; 3]) {
        let phases = [Phase::Gathering, Phase::Streaming, Phase::Repairing, Phase::Lingering];
        let root = (flags & 32 == 32).then_some(Digest([flags; 32]));
        let announce = Announce {
            task: TaskId([3; 16]),
            phase: phases[usize::from(flags & 3)],
            symbol_size: 64,
            data: GROUP,
            position: BlockIndex(u32::from(position) << (flags & 24)),
            invitation: invitation(probability),
            gsize: if flags & 4 == 4 { u32::MAX } else { u32::from(flags) },
            rate: Rate(u64::MAX),
            objects: vec![Object { root, ..Object::file(0, 20) }],
            name: "object".into(),
            ..self.sender.any_announce()
        };
        let shape = self.shape;
        // Written directly, because the encoder refuses invalid sizes.
        let bytes = self.sender.to_all(ChannelId::GROUP, &announce.into(), |plain| {
            plain[SYMBOL_SIZE_AT..][..2].copy_from_slice(&shape.symbol_size.to_be_bytes());
            plain[BLOCK_LOG2_AT] = shape.block_log2;
            plain[BLOCK_LOG2_AT + 1..][..8].copy_from_slice(&shape.size.to_be_bytes());
        });
        self.deliver(bytes);
    }

    /// Sends a page: inside the object or beyond it, whole or short, true or false.
    fn page(&mut self, input: &mut Input<'_>) -> Option<()> {
        let [how, count] = input.array()?;
        let page = self.number(how, input, HASHES_PER_PAGE)?.min((u32::MAX >> 5) - 1);
        let first = page * HASHES_PER_PAGE;
        let blocks = self.shape.layout().map_or(0, |layout| layout.block_count());
        // Half of the pages have the right length.
        let count = match count {
            128.. => u32::from(count & 31) + 1,
            _ => blocks.saturating_sub(first).clamp(1, HASHES_PER_PAGE),
        };
        let lie = how >> 3 & 7;
        let symbols =
            |block| self.shape.layout().map_or(1, |layout| layout.source_symbols(BlockIndex(block))).max(1);
        let values =
            (first..first + count).map(|block| (value(BlockIndex(block), lie & block as u8), symbols(block)));
        self.send(&HashPage::raw(BlockIndex(first), values).into());
        Some(())
    }

    /// Number of a block (`of` = 1) or of a page of `of` blocks: one of the first or the last, just beyond, or any.
    fn number(&self, how: u8, input: &mut Input<'_>, of: u32) -> Option<u32> {
        let count = self.shape.layout().map_or(0, |layout| layout.block_count()).div_ceil(of);
        Some(match how & 7 {
            0..3 => u32::from(input.u8()?),
            3 | 4 => count.wrapping_sub(u32::from(input.u8()? & 15)),
            5 => count.saturating_add(u32::from(input.u8()?)),
            6 => input.u32()?.checked_rem(count).unwrap_or(0),
            _ => input.u32()?,
        })
    }

    /// Sends consecutive symbols of one block.
    fn symbols(&mut self, input: &mut Input<'_>) -> Option<()> {
        let [how, count] = input.array()?;
        let block = BlockIndex(self.number(how, input, 1)?);
        let Some(layout) = self.shape.layout() else { return Some(()) };
        let k = layout.source_symbols(block);
        let first = match how >> 3 & 3 {
            0 => 0,
            1 => k.saturating_sub(u32::from(input.u8()?)),
            2 => k.saturating_add(u32::from(input.u8()?)),
            _ => input.u32()?,
        };
        for id in (first..=u32::MAX).take(usize::from(count & 63) + 1).map(Esi) {
            let own = layout.symbol_range(block, id).len();
            let len = match (how >> 5, id.0 < k) {
                (0, _) => usize::from(count),
                (_, true) => own,
                (_, false) => usize::from(layout.symbol_size()),
            };
            // The encoder refuses larger numbers.
            if id.0 <= MAX_ESI && block.0 < u32::MAX {
                self.send(&Symbol { block, esi: id, payload: &vec![0; len.max(1)] }.into());
            }
        }
        Some(())
    }

    fn poll(&mut self, input: &mut Input<'_>) -> Option<()> {
        let [how, round, plans, flags] = input.array()?;
        let position = self.number(how, input, 1)?;
        let advertised = (0..u32::from(plans & 15)).map(|i| {
            let block = BlockIndex(position.wrapping_sub(i).min(u32::MAX - 2));
            RepairAdvertisement { block, symbols: u16::from(plans) << (flags & 7) | 1 }
        });
        let poll = Poll {
            round: u32::from(round),
            position: BlockIndex(position.min(u32::MAX - 1)),
            invitation: invitation(flags),
            gsize: u32::from(flags).pow(4),
            want_esis: flags & 1 == 1,
            advertised: advertised.collect(),
        };
        if flags & 128 == 0 {
            self.send(&poll.into());
        } else if let Some(bytes) = self.sender.to_one(CHANNEL, &poll.into(), |_| ()) {
            self.deliver(bytes);
        }
        Some(())
    }

    fn admit(&mut self) {
        let admit = any_admit(CHANNEL).into();
        if let Some(bytes) = self.sender.to_one(CHANNEL, &admit, |_| ()) {
            self.deliver(bytes);
        }
    }

    fn send(&mut self, message: &Message<'_>) {
        let bytes = self.sender.to_all(ChannelId::GROUP, message, |_| ());
        self.deliver(bytes);
    }

    fn deliver(&mut self, mut bytes: Vec<u8>) {
        self.receiver.handle_datagram(self.now, Arrival::at_once(SENDER, Via::Group), &mut bytes);
        self.drain();
    }
}

/// The chaining value of a block, true (`lie` = 0) or not.
fn value(block: BlockIndex, lie: u8) -> Digest {
    let mut value = [lie; 32];
    value[..4].copy_from_slice(&block.0.to_be_bytes());
    Digest(value)
}

/// Result of opening the part file: the blocks left by an earlier run or by an earlier version.
fn opened(layout: &Layout, how: u8) -> ReceiverDone {
    let count = layout.block_count();
    // Limits the blocks for the largest objects, or each input would take too long.
    let most = count.min(1 << 14);
    let (range, step) = match how >> 4 & 3 {
        0 => (0..0, 1),
        1 => (0..most, 1),
        2 => (0..most, 3),
        _ => (count - count.min(40)..count, 1),
    };
    let mut written = BitSet::new(count);
    for block in range.step_by(step) {
        written.insert(block);
    }
    let all = if most == count { u32::MAX } else { most };
    let earlier = [0, 1, most / 2, all][usize::from(how >> 6)];
    ReceiverDone::Opened { written, earlier }
}

fn invitation(probability: u8) -> Invitation {
    let window = Duration::from_millis(u64::from(probability & 15) * 10);
    Invitation { probability: u16::from(probability) * 257, window }
}
