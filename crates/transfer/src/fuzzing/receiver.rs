//! The fuzz target `receiver`: a sender that sends anything, a disk that may fail, workers that may die.

use super::play::{self, World as _};
use super::{COUNTER, Damage, GROUP, Input, Object, any_body, value};
use crate::crypto::digest::symbol_digest;
use crate::fec::Buffer;
use crate::layout::Layout;
use crate::limits::{
    DIGESTS_PER_MESSAGE, HASHES_PER_PAGE, JOIN_CLEAR, MAX_CONTROL, MAX_SYMBOL_SIZE, MAX_TRAILER,
    MAX_ZERO_JOBS,
};
use crate::protocol::event::{ReceiverEvent, ReceiverOutcome};
use crate::protocol::job::{ReceiverDone, ReceiverJob};
use crate::protocol::receiver::{Receiver, ReceiverConfig};
use crate::protocol::{Control, Machine, Output, Payload};
use crate::ranges::BitSet;
use crate::sim::fakes::{FakeSender, any_admit};
use crate::sim::sham::SHAM;
use crate::time::Time;
use crate::units::{Arrival, BlockIndex, ChannelId, Coded, Coding, DeviceId, Digest, Esi, TaskId, Via};
use crate::wire::{
    self, Abort, AbortCode, Acknowledge, Admit, AdmitVerdict, Announce, HashPage, Invitation, Message,
    MessageKind, ObjectKind, PacketNumber, Phase, Poll, RepairAdvertisement, Symbol, SymbolDigests,
};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

mod disk;

const DEVICE: DeviceId = DeviceId([7; 16]);
/// The channel that the receiver gets.
const CHANNEL: ChannelId = ChannelId(1);
const SENDER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 7418);
const STRANGER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)), 7418);
/// Most outputs after one input: a page may judge 32 blocks, and blocks that arrived before the part file are all
/// stored when it opens.
const MAX_OUTPUTS: usize = 48 + 64;
/// Most starts of the sender.
const MAX_SESSIONS: usize = 4;
/// Objects beyond this do not fit the disk.
const DISK: u64 = 1 << 20;

/// The part file, in memory.
struct Part {
    layout: Layout,
    bytes: Vec<u8>,
}

pub(super) struct World {
    receiver: Receiver,
    now: Time,
    object: Object,
    buffer_bytes: usize,
    damage: Damage,
    /// The runs of the sender, one for each session.
    senders: Vec<FakeSender>,
    /// A signed announce carried damaged keys: the sender cannot open the receiver's messages.
    unreadable: bool,
    jobs: Vec<ReceiverJob>,
    part: Option<Part>,
    /// Root hashes that the sender has announced.
    roots: Vec<Digest>,
    /// Number of datagrams that the receiver has sent.
    pub(super) told: u64,
    discarder_died: bool,
    over: bool,
    pub(super) outcome: Option<ReceiverOutcome>,
    pub(super) spills: u32,
    pub(super) rejected: u32,
    pub(super) sifted: u32,
    /// Bytes that were on the disk at the start.
    pub(super) held: u64,
}

/// The body of the fuzz target `receiver`.
///
/// # Panics
/// If the receiver breaks an invariant.
pub fn fuzz_receiver(bytes: &[u8]) {
    World::play(bytes);
}

impl play::World for World {
    type Machine = Receiver;
    const END: (usize, Duration) = (200_000, Duration::from_secs(3600));

    fn new(input: &mut Input<'_>) -> Option<Self> {
        let object = Object::new(input)?;
        let buffer_bytes = usize::from(input.u8()?) << 8;
        let config = ReceiverConfig::new((DEVICE, "fuzzed".into()), vec![GROUP], (1, [2; 32]));
        let config = ReceiverConfig { buffer_bytes, primitives: SHAM, ..config };
        Some(Self {
            receiver: Receiver::new(config, Time::ZERO),
            now: Time::ZERO,
            object,
            buffer_bytes,
            damage: Damage::default(),
            senders: vec![FakeSender::new(COUNTER)],
            unreadable: false,
            jobs: Vec::new(),
            part: None,
            roots: Vec::new(),
            told: 0,
            discarder_died: false,
            over: false,
            outcome: None,
            spills: 0,
            rejected: 0,
            sifted: 0,
            held: 0,
        })
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
        match input.u8()? % 17 {
            0 => self.pass(Duration::from_millis(1 << (input.u8()? & 15))),
            1 => self.announce(input)?,
            2 => {
                let verdict = [AdmitVerdict::Admitted, AdmitVerdict::AlreadyComplete, AdmitVerdict::Full];
                let verdict = verdict[usize::from(input.u8()? / 64).saturating_sub(1)];
                let admit = match verdict {
                    AdmitVerdict::Admitted => any_admit(CHANNEL),
                    verdict => Admit::turned_away(verdict),
                };
                self.send_alone(&admit.into());
            }
            3 => self.symbols(input)?,
            4 => self.page(input)?,
            5 => self.poll(input)?,
            6 => self.send_alone(&Acknowledge.into()),
            7 => {
                let abort = Abort { code: AbortCode::Source, reason: "fuzzed".into() }.into();
                if input.u8()? & 1 == 1 { self.send_alone(&abort) } else { self.send(0, &abort) }
            }
            8 => {
                let (kind, number) = (input.u8()?, PacketNumber(u64::from(input.u32()?)));
                let (_, plain) = any_body(self.sender().session(), kind, number, input.run()?);
                let bytes = self.sender().protect(plain, number.0 & 1 == 1);
                self.deliver(SENDER, bytes);
            }
            9 => self.deliver(SENDER, input.run()?.to_vec()),
            10 => self.damage.add(input)?,
            11 | 12 => self.end_job(input.u8()?, 0),
            13 => self.end_job(input.u8()?, input.u8()?),
            16 => self.digests(input)?,
            14 => {
                match input.u8()? {
                    0 => self.receiver.handle_control(self.now, Control::Interrupt),
                    // The sender restarts.
                    1..128 if self.senders.len() < MAX_SESSIONS => {
                        self.senders.push(FakeSender::new(COUNTER + self.senders.len() as u64));
                    }
                    1..128 => {}
                    away => {
                        let away = Duration::from_millis(1 << (away & 15));
                        self.now = self.now + away;
                        self.receiver.handle_absence(self.now, away);
                    }
                }
                self.drain();
            }
            _ => {
                // Packet numbers skip ahead, and the kernel drops datagrams.
                let by = u64::from(input.u32()?) << 20;
                self.sender().leap(ChannelId::GROUP, by);
                self.receiver.set_kernel_drops(by);
            }
        }
        Some(())
    }

    fn execute(&mut self, job: ReceiverJob, how: u8) -> ReceiverDone {
        match (how, job) {
            (1..64, job) => {
                self.discarder_died |= matches!(job, ReceiverJob::Discard | ReceiverJob::Keep);
                ReceiverDone::WorkerDied("fuzzed".into())
            }
            (64..128, ReceiverJob::Open { .. }) => ReceiverDone::Failed(AbortCode::Name, "fuzzed".into()),
            (128.., ReceiverJob::Open { layout, .. }) => self.reopen(layout),
            (64..128, ReceiverJob::Check { block, .. }) => ReceiverDone::Checked { block, agrees: false },
            (64..128, ReceiverJob::Store { .. } | ReceiverJob::Spill(_) | ReceiverJob::Commit { .. }) => {
                ReceiverDone::Failed(AbortCode::Disk, "fuzzed".into())
            }
            (128..192, ReceiverJob::Store { assembly, .. }) => ReceiverDone::Undecodable(assembly),
            (192.., ReceiverJob::Store { mut assembly, .. }) => ReceiverDone::Mismatched {
                block: assembly.block(),
                buffer: assembly.take_buffer(),
                kept: None,
            },
            (_, job) => self.run(job),
        }
    }

    fn drain(&mut self) {
        let mut outputs = 0;
        while let Some(output) = self.receiver.poll(self.now) {
            outputs += 1;
            assert!(outputs <= MAX_OUTPUTS, "it goes on and on");
            assert!(!self.over, "{output:?} after the end");
            match output {
                // It changes nothing that anybody sees.
                Output::Job(ReceiverJob::Reserve { .. }) => {
                    self.receiver.handle_job_done(self.now, ReceiverDone::Reserved);
                }
                Output::Transmit(transmit) => {
                    assert_eq!(transmit.to, SENDER_OR_STRANGER[usize::from(transmit.to == STRANGER)]);
                    let Payload::Message(bytes) = transmit.payload else { panic!("a device sends symbols") };
                    assert!(bytes.len() <= MAX_CONTROL + JOIN_CLEAR + MAX_TRAILER);
                    let head = wire::head(&bytes).expect("a sound header");
                    let number = head.header.packet_number;
                    assert_eq!(number.counter(), self.told);
                    // A damaged ADMIT may have given the receiver any channel.
                    assert_eq!(
                        number.channel() == ChannelId::GROUP,
                        head.kind == MessageKind::Join,
                        "{head:?}"
                    );
                    self.told += 1;
                    let at = self.senders.len() - 1;
                    let of = |i: &usize| self.senders[*i].session() == head.header.session;
                    let hears = (0..=at).find(of).expect("a session");
                    let Some((_, plain)) = self.senders[hears].hear(OWN, &bytes) else {
                        assert!(self.unreadable, "nobody can read {head:?}");
                        continue;
                    };
                    let (_, message) = wire::decode_plain(&plain).expect("a sound message");
                    let kinds = [
                        MessageKind::Join,
                        MessageKind::Nak,
                        MessageKind::Progress,
                        MessageKind::Complete,
                        MessageKind::Abort,
                        MessageKind::Suspect,
                    ];
                    assert!(kinds.contains(&message.kind()), "{message:?}");
                }
                Output::Job(job) => {
                    self.spills += u32::from(matches!(job, ReceiverJob::Spill(_)));
                    self.jobs.push(job);
                }
                Output::Listen(_) => {}
                Output::Event(ReceiverEvent::Finished(outcome)) => {
                    self.over = true;
                    let discarded = self.part.is_none() || self.discarder_died;
                    assert!(discarded, "{outcome:?} leaves a part file");
                    self.outcome = Some(outcome);
                }
                Output::Event(ReceiverEvent::Resumed { bytes }) => self.held = bytes,
                Output::Event(ReceiverEvent::BlockRejected(_)) => self.rejected += 1,
                Output::Event(_) => {}
            }
        }
        let seen = self.receiver.snapshot();
        let block = seen.object_size.min(1 << 25) as usize + usize::from(MAX_SYMBOL_SIZE);
        assert!(seen.buffered <= self.buffer_bytes.max(4 * block), "{seen:?}");
        assert!(seen.verified <= seen.blocks && seen.verified_bytes <= seen.object_size, "{seen:?}");
        assert!(seen.received_bytes <= seen.object_size, "{seen:?}");
        assert!(
            self.jobs.len() <= 6 + MAX_ZERO_JOBS + 1 + (self.buffer_bytes / 1024).max(4),
            "{:?}",
            self.jobs
        );
        assert_eq!(self.receiver.is_finished(), self.over);
        assert!(!self.over || self.part.is_none() || self.discarder_died, "a part file is left");
    }
}

impl World {
    /// The current run of the sender.
    fn sender(&mut self) -> &mut FakeSender {
        self.senders.last_mut().expect("there is always one")
    }

    fn announce(&mut self, input: &mut Input<'_>) -> Option<()> {
        let [phase, probability, flags] = input.array()?;
        let phases = [Phase::Gathering, Phase::Streaming, Phase::Repairing, Phase::Lingering];
        let stream = flags & 128 == 128;
        // A stream of which a few blocks are announced, or all of it.
        let layout = if stream { self.object.grown(u64::from(phase >> 2 & 7)) } else { self.object.layout };
        let root = (flags & 1 == 1 && layout.is_sealed()).then_some(self.object.root);
        let announce = Announce {
            task: TaskId([3; 16]),
            phase: phases[usize::from(phase & 3)],
            symbol_size: layout.symbol_size(),
            data: GROUP,
            position: BlockIndex(u32::from(phase >> 2)),
            invitation: invitation(probability),
            gsize: u32::from(flags >> 2 & 31).pow(3),
            objects: vec![wire::Object {
                kind: if stream { ObjectKind::Stream } else { ObjectKind::File },
                sealed: layout.is_sealed(),
                root,
                ..wire::Object::file(layout.object_size(), layout.block_log2())
            }],
            name: "object".into(),
            ..self.sender().any_announce()
        };
        let bytes = self.datagram(0, &announce.into());
        self.deliver(if flags & 2 == 2 { STRANGER } else { SENDER }, bytes);
        Some(())
    }

    /// Sends consecutive symbols of one block; the first may be damaged.
    fn symbols(&mut self, input: &mut Input<'_>) -> Option<()> {
        let [block, first, count] = input.array()?;
        let blocks = self.object.layout.block_count();
        if blocks == 0 {
            return Some(());
        }
        let block = BlockIndex(u32::from(block) % blocks);
        for id in (u32::from(first)..).take(usize::from(count % 40) + 1) {
            let payload = self.object.symbol(block, Esi(id));
            let symbol = Symbol { block, esi: Esi(id), payload: &payload };
            self.send(count / 128, &symbol.into());
        }
        Some(())
    }

    fn page(&mut self, input: &mut Input<'_>) -> Option<()> {
        let lie = input.u8()?;
        let mut values: Vec<Digest> =
            self.object.values.iter().copied().take(HASHES_PER_PAGE as usize).collect();
        if let Some(value) = values.get_mut(usize::from(lie)) {
            value.0[0] ^= 1;
        }
        if !values.is_empty() {
            let mut coded: Vec<Coded> = self.object.recipes.iter().map(|recipe| recipe.coded).collect();
            // A wrong number of symbols, or zeros that are none.
            if let Some(coded) = coded.get_mut(usize::from(lie).wrapping_sub(64)) {
                *coded = match lie {
                    ..160 => Coded { coding: Coding::Zero, k: 0 },
                    _ => Coded { coding: Coding::Zstd, k: coded.k.saturating_sub(1).max(1) },
                };
            }
            self.send(0, &HashPage::of(BlockIndex(0), values.into_iter().zip(coded)).into());
        }
        Some(())
    }

    /// Sends the symbol digests of some blocks; one digest of each may be false.
    fn digests(&mut self, input: &mut Input<'_>) -> Option<()> {
        let [first, count, lie, flags] = input.array()?;
        let blocks = self.object.layout.block_count();
        for block in (u32::from(first)..blocks).take(usize::from(count % 8) + 1).map(BlockIndex) {
            let mut digests = self.object.digests(block);
            if let Some(digest) = digests.get_mut(usize::from(lie)) {
                digest.0[0] ^= 1;
            }
            for (i, digests) in digests.chunks(DIGESTS_PER_MESSAGE).enumerate() {
                let first = Esi((i * DIGESTS_PER_MESSAGE) as u32 + u32::from(flags & 2));
                let message = SymbolDigests { block, first_esi: first, digests: digests.to_vec() };
                self.send(flags & 1, &message.into());
            }
        }
        Some(())
    }

    fn poll(&mut self, input: &mut Input<'_>) -> Option<()> {
        let [round, position, probability, plan, flags] = input.array()?;
        let advertised =
            RepairAdvertisement { block: BlockIndex(u32::from(plan & 15)), symbols: u16::from(plan >> 4) };
        let poll = Poll {
            round: round.into(),
            position: BlockIndex(position.into()),
            invitation: invitation(probability),
            gsize: flags.into(),
            want_esis: flags & 1 == 1,
            advertised: if plan == 0 { Vec::new() } else { vec![advertised] },
        };
        if flags >> 6 == 0 {
            self.send(0, &poll.into())
        } else {
            self.send_alone(&poll.into())
        }
        Some(())
    }

    fn datagram(&mut self, channel: u8, message: &Message<'_>) -> Vec<u8> {
        let mut damage = std::mem::take(&mut self.damage);
        self.sender().to_all(ChannelId(channel.into()), message, |plain| damage.hit(plain))
    }

    /// Sends a message to the group, on any channel.
    fn send(&mut self, channel: u8, message: &Message<'_>) {
        let bytes = self.datagram(channel, message);
        self.deliver(SENDER, bytes);
    }

    /// Sends a message to the receiver alone, if it has joined.
    fn send_alone(&mut self, message: &Message<'_>) {
        let mut damage = std::mem::take(&mut self.damage);
        if let Some(bytes) = self.sender().to_one(CHANNEL, message, |plain| damage.hit(plain)) {
            self.deliver(SENDER, bytes);
        }
    }

    fn deliver(&mut self, from: SocketAddr, mut bytes: Vec<u8>) {
        if let Some(found) = FakeSender::found(&bytes) {
            let announce = found.announce;
            self.unreadable |= self.sender().announce(announce.clone()) != announce;
            self.roots.extend(announce.objects[0].root);
        }
        self.receiver.handle_datagram(self.now, Arrival::at_once(from, Via::Group), &mut bytes);
        self.drain();
    }
}

/// The receiver's address.
const OWN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 9)), 40_000);
const SENDER_OR_STRANGER: [SocketAddr; 2] = [SENDER, STRANGER];

fn invitation(probability: u8) -> Invitation {
    let window = Duration::from_millis(u64::from(probability & 15) * 10);
    Invitation { probability: u16::from(probability) * 257, window }
}
