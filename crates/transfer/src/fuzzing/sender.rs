//! The fuzz target `sender`: devices that send anything, a source that may fail, workers that may die.

use super::play::{self, World as _};
use super::{COUNTER, Damage, GROUP, Input, Object, any_body};
use crate::limits::{HEADER_LEN, MAX_CONTROL, MAX_JOBS, MAX_SUSPECTS, MAX_TRAILER, SIGNATURE_RESERVE};
use crate::pacing::RateMode;
use crate::protocol::event::SenderEvent;
use crate::protocol::job::{SenderDone, SenderJob};
use crate::protocol::sender::{RepairPolicy, Sender, SenderConfig, SlowPolicy};
use crate::protocol::{Control, Machine, Output, Payload, Transmit};
use crate::sim::fakes::{FakeDevice, any_join};
use crate::sim::sham;
use crate::task::{Assignment, State, Step, Task};
use crate::time::Time;
use crate::units::{
    Arrival, BlockIndex, ChannelId, Coding, Counter, DeviceId, Digest, Extent, Rate, TaskId, Via,
};
use crate::wire::{
    self, Abort, AbortCode, Announce, Arrivals, Complete, DecodeError, Deficit, Holdings, Message,
    MessageKind, Nak, PacketNumber, PageRange, Progress, Protection, Suspect,
};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// Most outputs after one input: ABORTs, polls and announcements to a few devices each, and one burst at the rate.
const MAX_OUTPUTS: usize = 512;

pub(super) struct World {
    pub(super) now: Time,
    object: Object,
    /// How much of it was read; all, unless it is a stream.
    read: Extent,
    damage: Damage,
    jobs: Vec<SenderJob>,
    /// The next counter of each channel.
    pub(super) counters: BTreeMap<ChannelId, u64>,
    /// The last round polled on each channel.
    rounds: BTreeMap<ChannelId, u32>,
    /// Fresh repair symbols sent, as (block, id).
    pub(super) fresh: BTreeSet<(u32, u32)>,
    /// Devices that sent a receipt, or that the status table has as complete.
    claims: BTreeSet<DeviceId>,
    over: bool,
    pub(super) sender: Sender,
    /// Devices by number and run.
    fakes: BTreeMap<(u8, bool), FakeDevice>,
    /// The current run of each device.
    current: BTreeMap<u8, bool>,
    announce: Announce,
}

/// The body of the fuzz target `sender`.
///
/// # Panics
/// If the sender breaks an invariant.
pub fn fuzz_sender(bytes: &[u8]) {
    World::play(bytes);
}

const TASK: TaskId = TaskId([3; 16]);

fn device(n: u8) -> DeviceId {
    DeviceId([n; 16])
}

/// The address of a device.
fn address(n: u8) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::new(10, 0, n & 1, n >> 1), 40_000))
}

impl play::World for World {
    type Machine = Sender;
    const END: (usize, Duration) = (200_000, Duration::from_secs(600));

    fn new(input: &mut Input<'_>) -> Option<Self> {
        let object = Object::new(input)?;
        let [people, speed] = input.array()?;
        let mut task = Task::copy(TASK, "object");
        task.options.expected = (people & 7 != 0).then_some(u32::from(people & 7));
        let who = (sham::signing_key(1), [1; 32], Counter(COUNTER));
        let layout = if people & 128 == 0 { object.layout } else { object.grown(0) };
        let config = SenderConfig {
            rendezvous: vec![SocketAddr::from((Ipv4Addr::new(239, 255, 74, 17), 7417))],
            rate: match Rate(1_000_000 << (speed & 7)) {
                rate if speed & 8 == 0 => RateMode::Fixed(rate),
                rate => RateMode::Auto(rate),
            },
            // Other bits than the rate mode's, so that every policy occurs with both modes.
            repair: RepairPolicy::interactive(match speed >> 4 & 3 {
                0 | 1 => SlowPolicy::Defer,
                2 => SlowPolicy::Keep,
                _ => SlowPolicy::Drop,
            }),
            settle: Duration::from_millis(u64::from(people >> 3 & 15) * 50),
            linger: Duration::from_secs(u64::from(speed >> 5)),
            ..SenderConfig::new(task, layout, GROUP, who)
        };
        let sender = Sender::new(config, Time::ZERO);
        Some(Self {
            fakes: BTreeMap::new(),
            current: BTreeMap::new(),
            announce: sender.announced(),
            sender,
            now: Time::ZERO,
            read: layout.extent(),
            object,
            damage: Damage::default(),
            jobs: Vec::new(),
            counters: BTreeMap::new(),
            rounds: BTreeMap::new(),
            fresh: BTreeSet::new(),
            claims: BTreeSet::new(),
            over: false,
        })
    }

    fn machine(&mut self) -> &mut Sender {
        &mut self.sender
    }
    fn now(&mut self) -> &mut Time {
        &mut self.now
    }
    fn jobs(&mut self) -> &mut Vec<SenderJob> {
        &mut self.jobs
    }
    fn is_over(&self) -> bool {
        self.over
    }

    fn operate(&mut self, input: &mut Input<'_>) -> Option<()> {
        match input.u8()? % 15 {
            0 => self.pass(Duration::from_millis(1 << (input.u8()? % 14))),
            1 => {
                let [who, run] = input.array()?;
                self.join(who, run & 1 == 1, run & 2 == 2);
                if run & 4 == 0 {
                    // Joins with the cookie, if it got one.
                    self.join(who, run & 1 == 1, run & 2 == 2);
                }
            }
            2 => self.nak(input)?,
            3 => {
                let [who, verified, drops] = input.array()?;
                let report = Progress {
                    verified: verified.into(),
                    received: u64::MAX,
                    lost: drops.into(),
                    kernel_drops: u64::from(drops) << 56,
                    overrun_drops: 0,
                    storage_delay_us: 0,
                    room: BlockIndex(u32::MAX),
                    below: BlockIndex(verified.into()),
                    ticket_kept: verified & 1 == 1,
                    // False packet numbers, used or never used.
                    arrivals: (drops & 1 == 1).then(|| Arrivals {
                        first: PacketNumber(u64::from(verified >> 4)),
                        last: PacketNumber(
                            u64::from(verified >> 4) + 1 + (u64::from(drops) << (verified & 15) >> 4),
                        ),
                        received: 2 + u32::from(drops >> 2),
                        elapsed_us: u32::from(drops) << (verified & 7),
                        last_at_us: u64::from(verified) << (drops & 63),
                    }),
                };
                self.send(who, &report.into());
            }
            4 => {
                let [who, lie] = input.array()?;
                let mut root = self.object.root;
                root.0[0] ^= u8::from(lie & 2 == 2);
                if root == self.object.root {
                    self.claims.insert(device(who & 15));
                }
                self.send(who, &Complete::named(root, 1, 2).into());
            }
            5 => {
                let [who, _] = input.array()?;
                self.send(who, &Abort { code: AbortCode::Disk, reason: "fuzzed".into() }.into());
            }
            6 => {
                let (who, kind) = (input.u8()?, input.u8()?);
                let body = input.run()?;
                self.claims.insert(device(who & 15));
                let number = PacketNumber::new(self.channel_of(who), u64::from(kind) << 4);
                let (header, plain) = any_body(self.sender.session(), kind, number, body);
                let bytes = match self.fake(who) {
                    Some(fake) => fake.for_sender(header, plain),
                    None => plain,
                };
                self.deliver(who, bytes);
            }
            7 => {
                let who = input.u8()?;
                self.deliver(who, input.run()?.to_vec());
            }
            8 => self.damage.add(input)?,
            9 | 10 => self.end_job(input.u8()?, 0),
            11 => self.end_job(input.u8()?, input.u8()?),
            14 => {
                let [who, first, count] = input.array()?;
                let blocks = (u32::from(first)..).take(usize::from(count) % MAX_SUSPECTS + 1);
                self.send(who, &Suspect { blocks: blocks.map(BlockIndex).collect() }.into());
            }
            12 => {
                match input.u8()? {
                    0 => self.sender.handle_control(self.now, Control::Interrupt),
                    1..128 => self.sender.handle_control(self.now, Control::StartNow),
                    away => {
                        let away = Duration::from_millis(1 << (away & 15));
                        self.now = self.now + away;
                        self.sender.handle_absence(self.now, away);
                    }
                }
                self.drain();
            }
            _ => {
                // Ends all jobs successfully.
                for _ in 0..self.jobs.len() {
                    self.end_job(0, 0);
                }
            }
        }
        Some(())
    }

    fn execute(&mut self, job: SenderJob, how: u8) -> SenderDone {
        match (how, job) {
            (1..32, _) => SenderDone::WorkerDied("fuzzed".into()),
            (
                32..64,
                SenderJob::Hash { .. }
                | SenderJob::Encode { .. }
                | SenderJob::Digest { .. }
                | SenderJob::Vouch { .. }
                | SenderJob::CheckSource,
            ) => SenderDone::SourceFailed("fuzzed".into()),
            (32..64, SenderJob::LookUp(_)) => SenderDone::LookedUp(Err("fuzzed".into())),
            (_, SenderJob::LookUp(devices)) => {
                let known = |&device: &DeviceId| (device, self.known(device, how));
                SenderDone::LookedUp(Ok(devices.iter().map(known).collect()))
            }
            (32..64, SenderJob::Record(_)) => SenderDone::Recorded(Err("fuzzed".into())),
            (_, SenderJob::Record(mut assignments)) => {
                // Another session has written rows.
                for assignment in assignments.iter_mut().filter(|_| how >= 64) {
                    let known = self.known(assignment.device, how);
                    *assignment = known.unwrap_or_else(|| assignment.clone());
                }
                SenderDone::Recorded(Ok(assignments))
            }
            (_, SenderJob::Vouch { .. }) => panic!("only a sender without feedback asks for it"),
            (_, SenderJob::CheckSource) => SenderDone::SourceChecked,
            (32..64, SenderJob::Read { .. }) => SenderDone::SourceFailed("fuzzed".into()),
            // One block more, or a few.
            (_, SenderJob::Read { .. }) => {
                let blocks = (self.read.size >> self.object.layout.block_log2()) + u64::from(how & 3) + 1;
                self.read = self.object.grown(blocks).extent();
                SenderDone::Grown(self.read)
            }
            (_, SenderJob::Hash { block, .. }) => {
                let (value, recipe) = (self.value(block), self.object.recipe(block));
                let packed = (recipe.coded.coding == Coding::Zstd)
                    .then(|| Arc::new(self.object.coded(block).into_owned()));
                SenderDone::Hashed { block, value, recipe, packed }
            }
            (_, SenderJob::Digest { block, .. }) => SenderDone::Digested(block, self.object.digests(block)),
            (_, SenderJob::Encode { block, first, count, .. }) => {
                let symbols = Arc::new(self.object.encode(block, first, count));
                SenderDone::Encoded { block, first, symbols }
            }
        }
    }

    fn drain(&mut self) {
        let mut outputs = 0;
        while let Some(output) = self.sender.poll(self.now) {
            outputs += 1;
            assert!(outputs <= MAX_OUTPUTS, "it goes on and on");
            assert!(!self.over, "{output:?} after the end");
            match output {
                Output::Transmit(transmit) => self.look_at(&transmit),
                Output::Job(job) => {
                    if let SenderJob::Encode { block, first, count, .. } = job {
                        let k = self.object.layout.source_symbols(block);
                        let packed = first.0 == 0 && count == self.object.recipe(block).coded.k;
                        assert!((packed || first.0 >= k) && (1..=2 * k + 2).contains(&count), "{job:?}");
                    }
                    self.jobs.push(job);
                }
                Output::Listen(group) => panic!("a sender listens to {group}"),
                Output::Event(SenderEvent::Device(row)) => {
                    let assignment = &row.assignment;
                    let claimed = !assignment.is_complete()
                        || self.claims.contains(&assignment.device)
                        // A duplicate has its own identifier.
                        || assignment.label.contains("(duplicate");
                    assert!(claimed, "nobody said so (I2): {row:?}");
                }
                Output::Event(SenderEvent::Finished(_)) => self.over = true,
                Output::Event(_) => {}
            }
        }
        let seen = self.sender.overview();
        assert!(seen.position <= seen.blocks && seen.streamed <= seen.object_size, "{seen:?}");
        assert!(self.jobs.len() <= MAX_JOBS, "{} jobs", self.jobs.len());
        assert_eq!(self.sender.is_finished(), self.over);
    }
}

impl World {
    fn nak(&mut self, input: &mut Input<'_>) -> Option<()> {
        let [who, channel, back, count] = input.array()?;
        let channel = ChannelId(u16::from(channel & 15));
        let counter =
            self.counters.get(&channel).copied().unwrap_or(0).saturating_sub(1 + u64::from(back >> 4));
        let round = self.rounds.get(&channel).copied().unwrap_or(0).saturating_sub(u32::from(back & 15));
        let mut nak = Nak {
            round,
            largest_received: PacketNumber::new(channel, counter),
            ack_delay_us: u32::from(count) << 8,
            incomplete: count.into(),
            pages: (count & 8 == 8).then_some(PageRange { first: 0, count: 1 }).into_iter().collect(),
            deficits: Vec::new(),
        };
        for _ in 0..count & 7 {
            let [block, symbols, start, len] = input.array()?;
            let block = BlockIndex(block.into());
            nak.deficits.push(if symbols == 0 {
                Deficit::Whole { first: block, count: u32::from(len) + 1 }
            } else {
                let missing = if len == 0 { vec![] } else { vec![(start.into(), len.into())] };
                if symbols == 1 && len > 0 {
                    nak.deficits.push(Deficit::Sources { block, missing });
                    continue;
                }
                Deficit::Symbols { block, symbols: symbols.into(), missing }
            });
        }
        self.send(who, &nak.into());
        Some(())
    }

    /// The store's row of a device.
    fn known(&mut self, device: DeviceId, how: u8) -> Option<Assignment> {
        let mut known = Assignment::new(TASK, device, "known".into());
        (0..how & 3).for_each(|_| known.take_up());
        match how {
            ..64 => return None,
            64..128 => {
                self.claims.insert(device);
                known.end(vec![Step::Transfer]).ok()?;
            }
            128.. => {
                known.set(State::Lost).ok()?;
            }
        }
        Some(known)
    }

    fn fake(&mut self, who: u8) -> Option<&mut FakeDevice> {
        let run = *self.current.get(&(who & 15))?;
        self.fakes.get_mut(&(who & 15, run))
    }

    fn channel_of(&mut self, who: u8) -> ChannelId {
        self.fake(who).map_or(ChannelId::GROUP, |fake| fake.channel())
    }

    /// Sends a device's join.
    fn join(&mut self, who: u8, run: bool, holds: bool) {
        self.current.insert(who & 15, run);
        let announce = &self.announce;
        let fake = self
            .fakes
            .entry((who & 15, run))
            .or_insert_with(|| FakeDevice::new(announce, [who & 15 | u8::from(run) << 6 | 32; 32]));
        let bytes =
            fake.join(any_join(device(who & 15), if holds { Holdings::Some } else { Holdings::Nothing }));
        self.deliver(who, bytes);
    }

    /// Sends a message of a device that has sent a join.
    fn send(&mut self, who: u8, message: &Message<'_>) {
        let mut damage = std::mem::take(&mut self.damage);
        let Some(fake) = self.fake(who) else { return };
        let bytes = fake.seal_message(message, |plain| damage.hit(plain));
        self.deliver(who, bytes);
    }

    fn deliver(&mut self, who: u8, mut bytes: Vec<u8>) {
        self.sender.handle_datagram(self.now, Arrival::at_once(address(who & 31), Via::Unicast), &mut bytes);
        self.drain();
    }

    fn value(&self, block: BlockIndex) -> Digest {
        self.object.values[block.0 as usize]
    }

    fn look_at(&mut self, transmit: &Transmit) {
        let layout = &self.object.layout;
        let (number, count) = match &transmit.payload {
            Payload::Message(bytes) => {
                assert!(bytes.len() <= MAX_CONTROL + MAX_TRAILER);
                let head = match wire::head(bytes) {
                    Ok(head) => head,
                    // Grease uses a packet number too.
                    Err(DecodeError::UnknownKind(kind)) if wire::is_grease(kind.into()) => {
                        *self.counters.entry(ChannelId::REPLIES).or_insert(0) += 1;
                        return;
                    }
                    Err(error) => panic!("{error}"),
                };
                assert_eq!(head.header.session, self.sender.session());
                let channel = head.header.packet_number.channel();
                if head.protection.is_device() {
                    let alone =
                        [MessageKind::Admit, MessageKind::Poll, MessageKind::Acknowledge, MessageKind::Abort];
                    assert!(alone.contains(&head.kind), "{head:?}");
                } else if head.kind == MessageKind::Retry {
                    wire::decode_plain(bytes).expect("a sound message");
                } else {
                    let all = [
                        MessageKind::Announce,
                        MessageKind::HashPage,
                        MessageKind::Poll,
                        MessageKind::Abort,
                        MessageKind::SymbolDigests,
                    ];
                    assert!(all.contains(&head.kind), "{head:?}");
                    assert_eq!(head.protection, Protection::Signed);
                    let body = &bytes[HEADER_LEN..bytes.len() - SIGNATURE_RESERVE];
                    let message = wire::decode_body(head.kind, body).expect("a sound message");
                    if let Message::Poll(poll) = message {
                        self.rounds.insert(channel, poll.round);
                    }
                }
                for fake in self.fakes.values_mut() {
                    fake.hear(bytes);
                    self.rounds.append(&mut fake.rounds);
                }
                (head.header.packet_number, 1)
            }
            Payload::Source { packet_number, block, ids, .. } => {
                assert!(ids.start < ids.end && ids.end <= layout.source_symbols(*block), "{transmit:?}");
                (*packet_number, ids.end - ids.start)
            }
            Payload::Repair { packet_number, block, first, symbols, range } => {
                let size = usize::from(layout.symbol_size());
                assert!(range.len().is_multiple_of(size) && range.end <= symbols.len(), "{range:?}");
                let count = (range.len() / size) as u32;
                let packed = first.0 + count <= self.object.recipe(*block).coded.k;
                assert!(count > 0 && (packed || first.0 >= layout.source_symbols(*block)), "{transmit:?}");
                for id in (first.0..first.0 + count).filter(|_| !packed) {
                    assert!(self.fresh.insert((block.0, id)), "symbol {id} of {block:?} is not fresh");
                }
                (*packet_number, count)
            }
        };
        let next = self.counters.entry(number.channel()).or_insert(0);
        assert_eq!(number.counter(), *next, "packet numbers of channel {} jump", number.channel());
        *next += u64::from(count);
    }
}
