//! The receiver driven by hand: failing workers, impatient users, senders with odd messages.

mod arrivals;
mod growth;
mod hook;
mod later;
mod lost;
mod one_way;
mod pipe;
mod relayed;
mod tree;

use super::*;
use crate::content::TreeHead;
use crate::layout::Layout;
use crate::protocol::event::ReceiverOutcome;
use crate::sim::fakes::{FakeSender, any_admit};
use crate::sim::sham::{self, SHAM};
use crate::units::{ChannelId, DeviceId, Esi, Extent, Via};
use crate::wire::{self, Admit, Announce, Invitation, Object, ObjectKind, Symbol};
use std::net::SocketAddr;
use std::time::Duration;

mod provisional;

const COUNTER: u64 = 9;
const DEVICE: DeviceId = DeviceId([7; 16]);

/// A receiver, the jobs it waits for, and what it has said.
struct Bench {
    receiver: Receiver,
    now: Time,
    sent: Vec<Vec<u8>>,
    jobs: Vec<ReceiverJob>,
    /// What the user was told.
    told: Vec<ReceiverEvent>,
    outcome: Option<ReceiverOutcome>,
    kind: ObjectKind,
    layout: Layout,
    gsize: u32,
    sender: FakeSender,
    name: &'static str,
    root: Option<Digest>,
}

const SENDER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1)), 7418);
const OWN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2)), 4000);
/// What is said of a tree.
const HEAD: TreeHead = TreeHead { manifest: 1025, entries: 7, tops: 1, bytes: 6000, archive: false };
const ADMITTED: Admit = any_admit(ChannelId(1));

impl Bench {
    fn new(layout: Layout) -> Self {
        let config = ReceiverConfig::new((DEVICE, "d".into()), vec![], (1, [2; 32]));
        let config = ReceiverConfig { primitives: SHAM, ..config };
        let receiver = Receiver::new(config, Time::ZERO);
        let (now, sent, jobs) = (Time::ZERO, vec![], vec![]);
        let sender = FakeSender::new(COUNTER);
        let root = Some(crate::crypto::digest::root(&[]));
        Self {
            receiver,
            now,
            sent,
            jobs,
            told: vec![],
            outcome: None,
            kind: if layout.is_sealed() { ObjectKind::File } else { ObjectKind::Stream },
            layout,
            gsize: 1,
            sender,
            name: "f",
            root,
        }
    }

    /// One that has joined a session, and been admitted or not.
    fn joined(layout: Layout, admitted: bool) -> Self {
        let mut bench = Self::asking(layout, Holdings::Nothing);
        if admitted {
            bench.hear_alone(&Message::Admit(ADMITTED));
            bench.done(opened());
        }
        bench
    }

    /// One that holds this of the object, and has asked to join its session.
    fn asking(layout: Layout, holding: Holdings) -> Self {
        let mut bench = Self::new(layout);
        bench.announce();
        bench.ask(holding);
        bench
    }

    /// What it holds has been looked up, and then it joins the session that is announced.
    fn ask(&mut self, holding: Holdings) {
        self.probed(holding);
        self.ask_again();
    }

    /// It joins the session that is announced, for the first time or once more.
    fn ask_again(&mut self) {
        let sent = self.sent.len();
        while self.sent.len() == sent {
            self.announce();
            self.pass(Duration::from_millis(50));
        }
    }

    fn probed(&mut self, holding: Holdings) {
        let ReceiverJob::Probe { session, .. } = self.jobs[0] else { panic!("{:?}", self.jobs) };
        self.done(ReceiverDone::Probed { session, holding, ticket: None });
    }

    /// One that has been given an empty object, and is committing it.
    fn committing() -> Self {
        let bench = Self::joined(Layout::new(0, 20, 64).unwrap(), true);
        assert!(matches!(bench.jobs[..], [ReceiverJob::Commit { .. }]));
        bench
    }

    fn drain(&mut self) {
        while let Some(out) = self.receiver.poll(self.now) {
            match out {
                Output::Transmit(Transmit { payload: Payload::Message(bytes), .. }) => self.sent.push(bytes),
                // Of no interest here: it is done at once.
                Output::Job(ReceiverJob::Reserve { .. }) => {
                    self.receiver.handle_job_done(self.now, ReceiverDone::Reserved);
                }
                Output::Job(job) => self.jobs.push(job),
                Output::Event(ReceiverEvent::Finished(outcome)) => self.outcome = Some(outcome),
                Output::Event(event) => self.told.push(event),
                _ => {}
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.receiver.next_timeout() <= end {
            self.now = self.receiver.next_timeout().max(self.now);
            self.receiver.handle_timeout(self.now);
            self.drain();
        }
        self.now = end;
    }

    fn take(&mut self, from: SocketAddr, mut bytes: Vec<u8>) {
        self.receiver.handle_datagram(self.now, Arrival::at_once(from, Via::Group), &mut bytes);
        self.drain();
    }

    /// The sender says something to all.
    fn hear(&mut self, message: &Message<'_>) {
        let bytes = self.sender.to_all(ChannelId::GROUP, message, |_| ());
        self.take(SENDER, bytes);
    }

    /// What we said, without its protection.
    fn said(&mut self) -> Vec<Vec<u8>> {
        let said = self.sent.iter().filter_map(|bytes| self.sender.hear(OWN, bytes));
        said.map(|(_, plain)| plain).collect()
    }

    /// The sender has heard all that we said, and says something to us alone.
    fn hear_alone(&mut self, message: &Message<'_>) {
        for bytes in &self.sent {
            self.sender.hear(OWN, bytes);
        }
        let bytes = self.sender.to_one(ChannelId(1), message, |_| ()).expect("we have joined");
        self.take(SENDER, bytes);
    }

    fn announce(&mut self) {
        let announce = self.announce_now();
        self.hear(&Message::Announce(announce));
    }

    fn announce_now(&self) -> Announce {
        let (Extent { size, sealed }, block_log2) = (self.layout.extent(), self.layout.block_log2());
        let object = Object { kind: self.kind, block_log2, size, sealed, root: self.root };
        let announce = Announce {
            symbol_size: self.layout.symbol_size(),
            gsize: self.gsize,
            objects: vec![object],
            name: self.name.into(),
            manifest: if self.kind == ObjectKind::Tree { HEAD.encode() } else { Vec::new() },
            ..self.sender.any_announce()
        };
        self.sender.announce(announce)
    }

    /// Somebody elsewhere passes an announce on before it gets here.
    fn overtaken_announce(&mut self, elsewhere: SocketAddr) {
        let announce = self.announce_now();
        let bytes = self.sender.to_all(ChannelId::GROUP, &Message::Announce(announce), |_| ());
        self.take(elsewhere, bytes.clone());
        self.take(SENDER, bytes);
        self.pass(Duration::from_millis(50));
    }

    fn senders_address(&self) -> SocketAddr {
        let session = self.receiver.session.as_ref();
        session.unwrap_or_else(|| &self.receiver.provisional.current().unwrap().session).sender
    }

    /// The job asked for first ends so.
    fn done(&mut self, done: ReceiverDone) {
        self.jobs.remove(0);
        self.receiver.handle_job_done(self.now, done);
        self.drain();
    }

    fn interrupt(&mut self) {
        self.receiver.handle_control(self.now, Control::Interrupt);
        self.drain();
    }

    fn kinds(&self) -> Vec<wire::MessageKind> {
        self.sent.iter().filter_map(|bytes| wire::peek(bytes)).map(|(_, kind)| kind).collect()
    }
}

/// The part file is there, and nothing is in it.
fn opened() -> ReceiverDone {
    ReceiverDone::Opened { written: crate::ranges::BitSet::default(), earlier: 0 }
}

/// Blocks of one symbol.
fn small_blocks(blocks: u64) -> Layout {
    Layout::new(blocks << 10, 10, 1024).unwrap()
}

fn whole_block(bench: &mut Bench, block: u32) {
    let symbol = Symbol { block: BlockIndex(block), esi: Esi(0), payload: &[0; 1024] };
    bench.hear(&Message::Symbol(symbol));
}

#[test]
fn workers_that_die_one_after_the_other_do_not_keep_it() {
    let mut bench = Bench::joined(small_blocks(8), true);
    whole_block(&mut bench, 0);
    whole_block(&mut bench, 1);
    for _ in 0..2 {
        bench.done(ReceiverDone::WorkerDied("index out of bounds".into()));
    }
    assert!(matches!(bench.jobs[..], [ReceiverJob::Discard]), "{:?}", bench.jobs);
    bench.done(ReceiverDone::WorkerDied("again".into()));
    bench.pass(Duration::from_secs(60));
    let reason = "index out of bounds".to_owned();
    assert_eq!(bench.outcome, Some(ReceiverOutcome::Failed(AbortCode::Internal, reason)));
}

#[test]
fn a_file_in_place_is_told_even_after_an_interrupt() {
    let mut bench = Bench::committing();
    bench.interrupt();
    bench.sent.clear();
    bench.done(ReceiverDone::Committed("f".into()));
    bench.pass(Duration::from_secs(10));
    let kinds = bench.kinds();
    assert!(
        kinds.contains(&wire::MessageKind::Complete) && !kinds.contains(&wire::MessageKind::Abort),
        "{kinds:?}"
    );
    assert_eq!(bench.outcome, Some(ReceiverOutcome::Complete { acknowledged: false }));

    let mut bench = Bench::committing();
    bench.interrupt();
    bench.done(ReceiverDone::Failed(AbortCode::Disk, "disk full".into()));
    bench.done(ReceiverDone::Discarded);
    bench.pass(Duration::from_secs(10));
    assert!(bench.kinds().contains(&wire::MessageKind::Abort), "{:?}", bench.kinds());
    assert_eq!(bench.outcome, Some(ReceiverOutcome::Interrupted));
}

#[test]
fn a_device_that_has_asked_to_join_says_why_it_leaves() {
    let mut bench = Bench::joined(small_blocks(8), false);
    bench.interrupt();
    bench.done(ReceiverDone::Discarded);
    // It has no channel to say it on yet, so it asks again.
    bench.pass(Duration::from_millis(300));
    assert!(!bench.kinds().contains(&wire::MessageKind::Abort), "{:?}", bench.kinds());
    bench.hear_alone(&Message::Admit(ADMITTED));
    assert!(bench.kinds().contains(&wire::MessageKind::Abort), "{:?}", bench.kinds());
}

#[test]
fn a_group_larger_than_there_can_be_does_not_put_the_receipt_off() {
    let mut bench = Bench::new(Layout::new(0, 20, 64).unwrap());
    bench.gsize = u32::MAX;
    bench.announce();
    bench.ask(Holdings::Nothing);
    bench.hear_alone(&Message::Admit(ADMITTED));
    bench.done(opened());
    bench.done(ReceiverDone::Committed("f".into()));
    bench.pass(Duration::from_secs(600));
    let receipts = bench.kinds().into_iter().filter(|kind| *kind == wire::MessageKind::Complete).count();
    // Nobody acknowledges it. So many devices may each repeat it every minute or so (I10).
    assert!((1..=8).contains(&receipts), "{receipts} receipts");
    assert!(bench.outcome.is_some());
}

#[test]
fn a_poll_of_the_device_alone_is_answered_with_the_receipt() {
    let mut bench = Bench::new(Layout::new(0, 20, 64).unwrap());
    bench.gsize = 2_000;
    bench.announce();
    bench.ask(Holdings::Nothing);
    bench.hear_alone(&Message::Admit(ADMITTED));
    bench.done(opened());
    bench.done(ReceiverDone::Committed("f".into()));
    bench.pass(Duration::from_secs(15));
    bench.sent.clear();
    let poll = wire::Poll {
        round: 1,
        position: BlockIndex(0),
        invitation: Invitation { probability: u16::MAX, window: Duration::ZERO },
        gsize: 2_000,
        want_esis: true,
        advertised: vec![],
    };
    bench.hear(&Message::Poll(poll.clone()));
    assert!(!bench.kinds().contains(&wire::MessageKind::Complete), "{:?}", bench.kinds());
    bench.hear_alone(&Message::Poll(poll));
    assert!(bench.kinds().contains(&wire::MessageKind::Complete), "{:?}", bench.kinds());
}

#[test]
fn jobs_under_way_stay_within_the_engine_s_bound() {
    let mut bench = Bench::joined(small_blocks(4_000), true);
    (0..4_000).for_each(|block| whole_block(&mut bench, block));
    assert!(bench.jobs.len() < crate::limits::MAX_JOBS, "{}", bench.jobs.len());
}

/// Blocks that the part file has something of.
fn written(blocks: &[u32], count: u32) -> ReceiverDone {
    let mut written = crate::ranges::BitSet::new(count);
    blocks.iter().for_each(|&block| {
        written.insert(block);
    });
    ReceiverDone::Opened { written, earlier: 0 }
}

impl Bench {
    /// One that has taken over a part file with these blocks, and been admitted.
    fn holding(layout: Layout, blocks: &[u32]) -> Self {
        let mut bench = Self::asking(layout, Holdings::Some);
        bench.hear_alone(&Message::Admit(ADMITTED));
        bench.done(written(blocks, layout.block_count()));
        bench
    }

    fn page(&mut self) {
        let symbols = |b| self.layout.source_symbols(BlockIndex(b));
        let values =
            (0..self.layout.block_count()).map(|b| (crate::units::Digest([b as u8; 32]), symbols(b)));
        let page = wire::HashPage::raw(BlockIndex(0), values);
        self.hear(&Message::HashPage(page));
    }

    /// The deficits that it names when polled.
    fn lacks(&mut self) -> Vec<wire::Deficit> {
        self.sent.clear();
        self.hear(&Message::Poll(wire::Poll {
            round: 1,
            position: BlockIndex(u32::MAX - 1),
            invitation: Invitation { probability: u16::MAX, window: Duration::ZERO },
            gsize: 1,
            want_esis: true,
            advertised: vec![],
        }));
        let said = self.said();
        let naks = said.iter().filter_map(|bytes| match wire::decode_plain(bytes) {
            Ok((_, Message::Nak(nak))) => Some(nak.deficits),
            _ => None,
        });
        naks.flatten().collect()
    }

    /// The check of this block ends so.
    fn checked(&mut self, block: u32, agrees: bool) {
        let at = self
            .jobs
            .iter()
            .position(|job| matches!(job, ReceiverJob::Check { block: checked, .. } if checked.0 == block));
        self.jobs.swap(0, at.expect("a check of the block"));
        self.done(ReceiverDone::Checked { block: BlockIndex(block), agrees });
    }
}

fn whole(first: u32, count: u32) -> wire::Deficit {
    wire::Deficit::Whole { first: BlockIndex(first), count }
}

#[test]
fn what_may_be_here_is_not_asked_for_until_it_is_known() {
    let mut bench = Bench::holding(small_blocks(8), &[1, 2, 5]);
    let first = &bench.said()[0];
    let Ok((_, Message::Join(join))) = wire::decode_plain(first) else { panic!("{:?}", bench.kinds()) };
    assert_eq!(join.holdings, wire::Holdings::Some);
    assert_eq!(bench.lacks(), [whole(0, 1), whole(3, 2), whole(6, 2)]);
    assert!(bench.jobs.is_empty(), "there is nothing to compare with yet");
    bench.page();
    assert_eq!(bench.jobs.len(), 3);
    bench.checked(1, true);
    bench.checked(2, false);
    assert_eq!(bench.lacks(), [whole(0, 1), whole(2, 3), whole(6, 2)]);
    // What comes while it is being looked at is taken; it counts once.
    whole_block(&mut bench, 5);
    bench.checked(5, true);
    assert!(matches!(bench.jobs[..], [ReceiverJob::Store { .. }]), "{:?}", bench.jobs);
    let buffer = crate::fec::Buffer::default();
    bench.done(ReceiverDone::Mismatched { block: BlockIndex(5), buffer, kept: None });
    assert_eq!(bench.lacks(), [whole(0, 1), whole(2, 3), whole(6, 2)]);
    let snapshot = bench.receiver.snapshot();
    assert_eq!((snapshot.verified, snapshot.resumed_bytes, snapshot.verified_bytes), (2, 2048, 2048));
}

#[test]
fn what_is_verified_is_kept_for_the_next_run_unless_it_is_of_no_use() {
    let mut bench = Bench::holding(small_blocks(8), &[1]);
    bench.page();
    bench.checked(1, true);
    bench.interrupt();
    assert!(matches!(bench.jobs[..], [ReceiverJob::Keep]), "{:?}", bench.jobs);
    bench.done(ReceiverDone::Kept);
    bench.pass(Duration::from_secs(10));
    assert_eq!(bench.outcome, Some(ReceiverOutcome::Interrupted));
    assert_eq!(bench.receiver.snapshot().kept_bytes, 1024);
    // Not looked at yet, but perhaps good.
    let mut bench = Bench::holding(small_blocks(8), &[1]);
    bench.pass(crate::limits::SENDER_SILENCE);
    assert!(matches!(bench.jobs[..], [ReceiverJob::Keep]), "{:?}", bench.jobs);
    let mut bench = Bench::joined(small_blocks(8), true);
    bench.interrupt();
    assert!(matches!(bench.jobs[..], [ReceiverJob::Discard]), "{:?}", bench.jobs);
    // Interrupted while it is being opened.
    let mut bench = Bench::joined(small_blocks(8), false);
    bench.hear_alone(&Message::Admit(ADMITTED));
    bench.interrupt();
    bench.done(written(&[3], 8));
    assert!(matches!(bench.jobs[..], [ReceiverJob::Keep]), "{:?}", bench.jobs);
    for (code, keeps) in [(AbortCode::Finished, true), (AbortCode::Source, false)] {
        let mut bench = Bench::holding(small_blocks(8), &[1]);
        bench.hear(&Message::Abort(crate::wire::Abort { code, reason: String::new() }));
        assert_eq!(matches!(bench.jobs[..], [ReceiverJob::Keep]), keeps, "{:?}", bench.jobs);
    }
}

#[test]
fn a_sender_that_comes_back_is_followed_once_the_old_one_is_silent() {
    let mut bench = Bench::holding(small_blocks(8), &[1, 2]);
    bench.page();
    bench.checked(1, true);
    let old = bench.sender.session();
    bench.sender = FakeSender::new(COUNTER + 1);
    let next = bench.sender.session();
    let announce = |bench: &mut Bench, name| {
        bench.name = name;
        bench.announce();
        bench.receiver.provisional.position(next).is_some()
    };
    let session = |bench: &Bench| bench.receiver.session.as_ref().unwrap().id;
    assert!(!announce(&mut bench, "f"), "the old one is not silent");
    bench.pass(Duration::from_secs(2));
    assert!(!announce(&mut bench, "another"), "it sends something else");
    bench.sent.clear();
    while !bench.kinds().contains(&wire::MessageKind::Join) {
        assert!(announce(&mut bench, "f"));
        bench.pass(Duration::from_millis(50));
    }
    assert_eq!(session(&bench), old, "nothing shows that the new one is live");
    bench.hear_alone(&Message::Admit(ADMITTED));
    assert_eq!(session(&bench), old, "a worker is at it");
    bench.checked(2, false);
    assert_eq!(session(&bench), next);
    // It might be led back to the old one, with the same keys: no number is used twice.
    assert!(bench.receiver.counters.sent >= bench.sent.len() as u64);
    // Nothing is read again: the value of what was verified is known.
    assert_eq!(bench.receiver.blocks.as_ref().unwrap().candidates(), 1);
    bench.page();
    assert!(bench.jobs.is_empty());
    assert_eq!(bench.receiver.snapshot().verified, 1);
}

#[test]
fn whoever_passes_on_announces_does_not_become_the_sender() {
    let elsewhere: SocketAddr = "10.0.0.66:7418".parse().unwrap();
    let mut bench = Bench::joined(small_blocks(4), true);
    for _ in 0..100 {
        bench.overtaken_announce(elsewhere);
        assert_eq!(bench.senders_address(), SENDER);
    }
    // But one that is not heard from where it was has moved.
    bench.pass(Duration::from_secs(1));
    let announce = bench.announce_now();
    let bytes = bench.sender.to_all(ChannelId::GROUP, &Message::Announce(announce), |_| ());
    bench.take(elsewhere, bytes);
    assert_eq!(bench.senders_address(), elsewhere);
    // What the sender says to us alone shows where it is, however many there are who pass things on.
    bench.overtaken_announce("10.0.0.67:7418".parse().unwrap());
    bench.receiver.session.as_mut().unwrap().elsewhere = None;
    bench.hear_alone(&Message::Acknowledge(wire::Acknowledge));
    assert_eq!(bench.senders_address(), SENDER);
}

#[test]
fn a_join_without_an_answer_goes_elsewhere_next() {
    let elsewhere: SocketAddr = "10.0.0.66:7418".parse().unwrap();
    let mut bench = Bench::new(small_blocks(4));
    bench.overtaken_announce(elsewhere);
    bench.probed(Holdings::Nothing);
    while bench.sent.is_empty() {
        bench.overtaken_announce(elsewhere);
    }
    assert_eq!(bench.senders_address(), elsewhere);
    while bench.sent.len() == 1 {
        bench.overtaken_announce(elsewhere);
    }
    assert_eq!(bench.senders_address(), SENDER);
}

#[test]
fn a_block_that_disagrees_is_taken_apart_with_the_senders_digests() {
    let layout = Layout::new(2048, 10, 512).unwrap();
    let mut bench = Bench::joined(layout, true);
    bench.page();
    for id in 0..2 {
        let payload = [id as u8; 512];
        bench.hear(&Symbol { block: BlockIndex(1), esi: Esi(id), payload: &payload }.into());
    }
    let ReceiverJob::Store { keep: true, .. } = bench.jobs[0] else { panic!("{:?}", bench.jobs) };
    bench.sent.clear();
    let mut received = crate::ranges::BitSet::new(2);
    (0..2).for_each(|id| {
        received.insert(id);
    });
    let buffer = crate::fec::Buffer::default();
    bench.done(ReceiverDone::Mismatched { block: BlockIndex(1), buffer, kept: Some(received) });
    let suspects = |bench: &mut Bench| {
        let said = bench.said();
        let asked = said.iter().filter_map(|bytes| match wire::decode_plain(bytes) {
            Ok((_, Message::Suspect(suspect))) => Some(suspect.blocks),
            _ => None,
        });
        asked.collect::<Vec<_>>()
    };
    assert_eq!(suspects(&mut bench), [[BlockIndex(1)]]);
    assert_eq!(bench.lacks(), [whole(0, 1)], "it is not asked for yet");
    // The answer is lost: the question comes again, ever more patiently.
    bench.sent.clear();
    bench.pass(Duration::from_secs(8));
    assert!((3..=8).contains(&suspects(&mut bench).len()), "{:?}", suspects(&mut bench));
    let digests = |id: u8| crate::crypto::digest::symbol_digest(&[id; 512]);
    let message = wire::SymbolDigests {
        block: BlockIndex(1),
        first_esi: Esi(0),
        digests: vec![digests(0), digests(7)],
    };
    // Nobody else can say it.
    let mut liar = bench.sender.to_all(ChannelId::GROUP, &message.clone().into(), |_| ());
    let last = liar.len() - 1;
    liar[last] ^= 1;
    bench.take(SENDER, liar);
    assert!(bench.jobs.is_empty());
    bench.hear(&message.into());
    assert!(matches!(bench.jobs[..], [ReceiverJob::Sift { block: BlockIndex(1), .. }]), "{:?}", bench.jobs);
    let mut right = crate::ranges::BitSet::new(2);
    right.insert(0);
    bench.done(ReceiverDone::Sifted { block: BlockIndex(1), right, agrees: false, buffer: None });
    let sources = wire::Deficit::Sources { block: BlockIndex(1), missing: vec![(1, 1)] };
    assert_eq!(bench.lacks(), [whole(0, 1), sources]);
    bench.sent.clear();
    bench.pass(Duration::from_secs(5));
    assert!(suspects(&mut bench).is_empty());
    // Forged ones are refused, and the true one completes the block.
    for payload in [[1; 512], [7; 512]] {
        assert!(bench.jobs.is_empty());
        bench.hear(&Symbol { block: BlockIndex(1), esi: Esi(1), payload: &payload }.into());
    }
    assert!(matches!(bench.jobs[..], [ReceiverJob::Store { .. }]), "{:?}", bench.jobs);
    assert_eq!(bench.receiver.snapshot().forged_symbols, 2);
}

/// A flood of announces that are not sealed is nothing that a device with a group key looks at.
#[test]
fn announces_that_are_not_sealed_do_not_take_the_time_for_those_that_are() {
    let mut bench = Bench::new(small_blocks(8));
    let group = crate::crypto::derive::Secret::new([5; 32]);
    let groups = vec![group.clone()];
    bench.receiver =
        Receiver::new(ReceiverConfig { group_keys: groups, ..bench.receiver.config.clone() }, Time::ZERO);
    bench.sender = FakeSender::of(COUNTER, sham::signing_key(1), [1; 32], Some(&group));
    let mut stranger = FakeSender::of(8, sham::signing_key(2), [3; 32], None);
    for _ in 0..100_000 {
        let announce = stranger.any_announce();
        let junk = stranger.to_all(ChannelId::GROUP, &announce.into(), |_| ());
        bench.take(OWN, junk);
        bench.now = bench.now + Duration::from_micros(10);
    }
    for _ in 0..10 {
        // All at one point in time, right after the flood took what there was.
        for _ in 0..300 {
            let announce = stranger.any_announce();
            let junk = stranger.to_all(ChannelId::GROUP, &announce.into(), |_| ());
            bench.take(OWN, junk);
        }
        bench.announce();
    }
    assert!(bench.receiver.provisional.current().is_some(), "not one of ten announces was looked at");
}
