//! The sender driven by hand: what single devices can make it do.

mod admission;
mod claims;
mod codings;
mod gathering;
mod growth;
mod hook;
mod identity;
mod later;
mod relayed;
mod scale;
mod store;
mod stubborn;
mod window;

use super::service::Service;
use super::*;
use crate::layout::Layout;
use crate::pacing::RateMode;
use crate::pack::Recipe;
use crate::protocol::statistics::Activity;
use crate::sim::fakes::{FakeDevice, any_join, any_report};
use crate::sim::sham;
use crate::store::{MemoryStore, TaskStore};
use crate::task::{State, Task};
use crate::units::{BlockIndex, Rate, SymbolDigest, TaskId, Via};
use crate::units::{ChannelId, Counter, DeviceId, DeviceIndex};
use crate::wire::{Abort, Arrivals, Complete, Deficit, Holdings, Nak, Progress};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const TASK: TaskId = TaskId([1; 16]);
const K: u32 = 16;

/// What a store does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StoreIs {
    Sound,
    Failing,
    Silent,
}

/// What a worker chooses for a block: its coding, and its packed bytes.
type Chosen = (Recipe, Option<Arc<Vec<u8>>>);

/// A sender whose jobs are done at once, and what it has sent.
struct Bench {
    sender: Sender,
    now: Time,
    sent: Vec<Transmit>,
    outcome: Option<SenderOutcome>,
    store: MemoryStore,
    /// What the store does with a request.
    store_is: StoreIs,
    /// How much the sender has handed out.
    outputs: u64,
    /// Requests that it was asked for.
    asked: Vec<SenderJob>,
    /// And of those answered late, for how many devices each was.
    answered: Vec<usize>,
    /// What else the user was told.
    told: Vec<SenderEvent>,
    /// What was said of the store: true for failures.
    store_told: Vec<bool>,
    /// Jobs are kept here instead of being done.
    held: Option<Vec<SenderJob>>,
    /// Whether it waits for its input.
    reading: bool,
    /// The codings of blocks that are not raw.
    recipes: BTreeMap<u32, Chosen>,
    /// Devices by number and run.
    runs: BTreeMap<(u8, u64), FakeDevice>,
    /// The run that each device is at.
    current: BTreeMap<u8, u64>,
}

impl Bench {
    /// An object of so many blocks of 16 symbols.
    fn new(blocks: u64, change: impl FnOnce(&mut SenderConfig)) -> Self {
        Self::with_store(StoreIs::Sound, blocks, change)
    }

    /// The same with a store that may be failing from the start.
    fn with_store(store_is: StoreIs, blocks: u64, change: impl FnOnce(&mut SenderConfig)) -> Self {
        let mut bench = Self::idle(store_is, blocks, change);
        bench.drain();
        bench
    }

    /// The same with these codings.
    fn coded(blocks: u64, recipes: BTreeMap<u32, Chosen>) -> Self {
        let mut bench = Self::idle(StoreIs::Sound, blocks, |_| {});
        bench.recipes = recipes;
        bench.drain();
        bench
    }

    fn idle(store_is: StoreIs, blocks: u64, change: impl FnOnce(&mut SenderConfig)) -> Self {
        let mut config = SenderConfig::new(
            Task::copy(TASK, "f"),
            Layout::new(blocks << 10, 10, 64).unwrap(),
            "239.1.1.1:7417".parse().unwrap(),
            (sham::signing_key(1), [1; 32], Counter(9)),
        );
        config.rate = RateMode::Fixed(Rate(100_000_000));
        config.task.options.expected = Some(1);
        change(&mut config);
        let sender = Sender::new(config, Time::ZERO);
        let (runs, current) = (BTreeMap::new(), BTreeMap::new());
        let (now, sent) = (Time::ZERO, vec![]);
        Self {
            sender,
            now,
            sent,
            outcome: None,
            store: MemoryStore::new(),
            store_is,
            outputs: 0,
            asked: vec![],
            answered: vec![],
            told: vec![],
            store_told: vec![],
            held: None,
            reading: false,
            recipes: BTreeMap::new(),
            runs,
            current,
        }
    }

    fn drain(&mut self) {
        for _ in 0..100_000 {
            let output = self.sender.poll(self.now);
            self.outputs += u64::from(output.is_some());
            let done = match output {
                None => return,
                Some(Output::Transmit(transmit)) => {
                    self.sent.push(transmit);
                    continue;
                }
                Some(Output::Event(SenderEvent::Finished(outcome))) => {
                    self.outcome = Some(outcome);
                    continue;
                }
                Some(Output::Job(job @ SenderJob::Encode { .. })) if self.held.is_some() => {
                    self.held.as_mut().unwrap().push(job);
                    continue;
                }
                Some(Output::Job(SenderJob::Read { .. })) => {
                    assert!(!std::mem::replace(&mut self.reading, true), "one job reads at a time");
                    continue;
                }
                Some(Output::Event(SenderEvent::StoreFails(_))) => {
                    self.store_told.push(true);
                    continue;
                }
                Some(Output::Event(SenderEvent::StoreAnswers)) => {
                    self.store_told.push(false);
                    continue;
                }
                Some(Output::Event(event)) => {
                    self.told.push(event);
                    continue;
                }
                Some(Output::Job(job)) if job.is_for_store() && self.store_is == StoreIs::Silent => {
                    self.asked.push(job);
                    continue;
                }
                Some(Output::Job(job)) => self.done(job),
                Some(Output::Listen(_)) => continue,
            };
            self.sender.handle_job_done(self.now, done);
        }
        panic!("there is no end to what it wants");
    }

    fn done(&mut self, job: SenderJob) -> SenderDone {
        let fails = (self.store_is == StoreIs::Failing).then(|| "disk full".to_owned());
        match job {
            SenderJob::Read { .. } => panic!("the input is read by hand"),
            SenderJob::Vouch { .. } => panic!("only a sender without feedback asks for it"),
            SenderJob::Hash { block, .. } => {
                let raw = || (Recipe::raw(K), None);
                let (recipe, packed) = self.recipes.get(&block.0).cloned().unwrap_or_else(raw);
                SenderDone::Hashed { block, value: Digest([block.0 as u8; 32]), recipe, packed }
            }
            SenderJob::Encode { block, first, count, .. } => {
                SenderDone::Encoded { block, first, symbols: vec![0; count as usize * 64].into() }
            }
            SenderJob::Digest { block, .. } => {
                SenderDone::Digested(block, vec![SymbolDigest([block.0 as u8; 16]); K as usize])
            }
            SenderJob::CheckSource => SenderDone::SourceChecked,
            SenderJob::LookUp(devices) => SenderDone::LookedUp(fails.map_or_else(
                || {
                    let found = self.store.look_up(TASK, &devices).unwrap();
                    Ok(devices.into_iter().zip(found).collect())
                },
                Err,
            )),
            SenderJob::Record(assignments) => {
                let kept = fails.map_or_else(|| Ok(self.store.record(&assignments).unwrap()), Err);
                SenderDone::Recorded(kept)
            }
        }
    }

    /// The store answers the oldest request that it was silent on.
    fn answer_store(&mut self) {
        let job = self.asked.remove(0);
        self.answered.push(match &job {
            SenderJob::LookUp(devices) => devices.len(),
            SenderJob::Record(assignments) => assignments.len(),
            other => panic!("not for the store: {other:?}"),
        });
        let done = self.done(job);
        self.sender.handle_job_done(self.now, done);
        self.drain();
    }

    /// Lets time pass; it must not be called without end at one point in time.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        let mut idle = 0;
        while self.sender.next_timeout() <= end {
            let at = self.sender.next_timeout().max(self.now);
            idle = if at == self.now { idle + 1 } else { 0 };
            assert!(idle < 100, "it spins at {at:?}");
            self.now = at;
            self.sender.handle_timeout(at);
            self.drain();
        }
        self.now = end;
        assert!(self.sender.devices.len() > 300 || self.sender.devices.is_consistent());
    }

    fn take(&mut self, from: SocketAddr, mut bytes: Vec<u8>) {
        self.sender.handle_datagram(self.now, Arrival::at_once(from, Via::Unicast), &mut bytes);
        self.drain();
    }

    fn run(&mut self, device: u8) -> &mut FakeDevice {
        let run = self.current[&device];
        self.runs.get_mut(&(device, run)).expect("it has joined")
    }

    fn hear(&mut self, device: u8, message: &Message<'_>) {
        let bytes = self.run(device).seal_message(message, |_| ());
        self.take(address(device), bytes);
    }

    /// The device's run asks to join, and gets no answer.
    fn send_join(&mut self, device: u8, run: u64, from: SocketAddr) {
        self.send_join_with(device, run, from, false);
    }

    fn send_join_with(&mut self, device: u8, run: u64, from: SocketAddr, holds: bool) {
        let announce = self.sender.announced();
        let random = [device ^ 0x55 ^ (run as u8).wrapping_mul(31); 32];
        let fake = self.runs.entry((device, run)).or_insert_with(|| FakeDevice::new(&announce, random));
        let bytes = fake.join(any_join(id(device), if holds { Holdings::Some } else { Holdings::Nothing }));
        self.take(from, bytes);
    }

    /// What was said to an address since `from` reaches a run.
    fn answered(&mut self, device: u8, run: u64, at: SocketAddr, from: usize) {
        let fake = self.runs.get_mut(&(device, run)).expect("it has asked");
        for transmit in &self.sent[from..] {
            if let (true, Payload::Message(bytes)) = (transmit.to == at, &transmit.payload) {
                fake.hear(bytes);
            }
        }
    }

    fn join_from(&mut self, device: u8, run: u64, at: SocketAddr, holds: bool) {
        for _ in 0..2 {
            let from = self.sent.len();
            self.send_join_with(device, run, at, holds);
            self.answered(device, run, at, from);
        }
        self.current.insert(device, run);
    }

    fn join_with(&mut self, device: u8, run: u64, holds: bool) {
        self.join_from(device, run, address(device), holds);
    }

    fn join(&mut self, device: u8, run: u64) {
        self.join_with(device, run, false);
    }

    fn report(&mut self, device: u8, verified: u32) {
        let report = any_report(verified);
        self.hear(device, &Message::Progress(report));
    }

    fn complete(&mut self, device: u8) {
        let root = self.sender.root.unwrap();
        let receipt = Complete::named(root, 1, 0);
        self.hear(device, &Message::Complete(receipt));
    }

    fn abort(&mut self, device: u8) {
        let abort = Abort { code: AbortCode::Disk, reason: "disk full".into() };
        self.hear(device, &Message::Abort(abort));
    }

    /// Answers the group's latest poll.
    fn nak(&mut self, device: u8, deficits: Vec<Deficit>) {
        let nak = Nak {
            round: self.sender.group.round_number,
            largest_received: PacketNumber::new(
                ChannelId::GROUP,
                self.sender.group.take_numbers(1).counter(),
            ),
            ack_delay_us: 0,
            incomplete: 1,
            pages: vec![],
            deficits,
        };
        self.hear(device, &Message::Nak(nak));
    }

    /// A sender of 4 GiB that finds its rate by itself, and so many devices.
    fn auto(devices: u8, change: impl FnOnce(&mut SenderConfig)) -> Self {
        let mut bench = Self::new(1, |config| {
            config.layout = Layout::new(4 << 30, 20, 1408).unwrap();
            config.rate = RateMode::Auto(Rate(10_000_000_000));
            config.task.options.expected = Some(devices.into());
            change(config);
        });
        (1..=devices).for_each(|device| bench.join(device, 1));
        bench
    }

    /// Bits per second.
    fn rate(&self) -> f64 {
        self.sender.pace.rate().0 as f64
    }

    fn next_number(&self) -> u64 {
        self.sender.group.next_counter()
    }

    /// Device says that of what the group was sent since `first`, `time` ago, this share came.
    fn arrived(&mut self, device: u8, first: u64, time: Duration, share: f64) {
        let last = self.next_number() - 1;
        let arrivals = Arrivals {
            first: PacketNumber::new(ChannelId::GROUP, first),
            last: PacketNumber::new(ChannelId::GROUP, last),
            received: 1 + ((last - first) as f64 * share) as u32,
            elapsed_us: time.as_micros() as u32,
            last_at_us: self.now.0 / 1000,
        };
        let index = self.sender.devices.index_of(id(device)).unwrap();
        let report = Progress {
            verified: 0,
            received: 1,
            lost: 0,
            // What does not come has overflowed.
            kernel_drops: self.sender.devices.get(index).reported.kernel_drops + u64::from(share < 1.0),
            overrun_drops: 0,
            storage_delay_us: 0,
            room: BlockIndex(u32::MAX),
            below: BlockIndex(0),
            ticket_kept: false,
            arrivals: Some(arrivals),
        };
        self.hear(device, &Message::Progress(report));
    }

    /// So many times a report's interval passes, and device after device tells what share of the
    /// bits per second that were sent came. Returns the lowest and the mean rate.
    fn pass_carrying(&mut self, times: u32, shares: &[&dyn Fn(f64) -> f64]) -> (f64, f64) {
        let step = Duration::from_millis(25);
        let (mut lowest, mut sum) = (f64::INFINITY, 0.0);
        for _ in 0..times {
            let first = self.next_number();
            self.pass(step);
            let sent = self.sender.pace.in_bits((self.next_number() - first) as f64) / step.as_secs_f64();
            for (device, share) in (1..).zip(shares) {
                self.arrived(device, first, step, share(sent));
            }
            lowest = lowest.min(self.rate());
            sum += self.rate();
        }
        (lowest, sum / f64::from(times))
    }

    fn state(&self, device: u8) -> State {
        let index = self.sender.devices.index_of(id(device)).unwrap();
        self.sender.devices.get(index).assignment.state().clone()
    }

    fn activity(&self, device: u8) -> Option<Activity> {
        let index = self.sender.devices.index_of(id(device)).unwrap();
        self.sender.devices.get(index).activity(self.sender.phase == Phase::Gathering)
    }

    /// What the store has of a device.
    fn kept(&mut self, device: u8) -> Option<State> {
        let kept = self.store.look_up(TASK, &[id(device)]).unwrap().remove(0);
        kept.map(|assignment| assignment.state().clone())
    }

    /// Passes time with every one of `devices` reporting twice a second.
    fn pass_reporting(&mut self, seconds: u32, devices: &[(u8, u32)]) {
        for _ in 0..2 * seconds {
            for &(device, verified) in devices {
                self.report(device, verified);
            }
            self.pass(Duration::from_millis(500));
        }
    }
}

fn id(device: u8) -> DeviceId {
    DeviceId([device; 16])
}

fn address(device: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, device], 4000))
}

fn lacks(block: u32, symbols: u16, missing: &[(u16, u16)]) -> Deficit {
    Deficit::Symbols { block: BlockIndex(block), symbols, missing: missing.to_vec() }
}

#[test]
fn missing_symbols_that_no_block_has_do_not_stop_the_group() {
    let mut bench = Bench::new(4, |config| config.task.options.expected = Some(2));
    bench.join(1, 1);
    bench.join(2, 1);
    bench.pass(Duration::from_millis(5));
    assert!(bench.sender.stream_done() && bench.sender.group.is_open());
    bench.nak(1, vec![lacks(0, 1, &[(K as u16 + 100, 1)])]);
    bench.pass(Duration::from_millis(500));
    let group = &bench.sender.group;
    assert!(!group.has_repairs(), "a repair of nothing blocks the queue");
}

#[test]
fn times_of_devices_count_from_the_start_of_the_transfer() {
    let mut bench = Bench::new(4, |config| config.task.options.expected = Some(2));
    let second = Duration::from_secs(1);
    bench.join(1, 1);
    bench.pass(second);
    let elapsed = |bench: &Bench, row: usize| bench.sender.snapshot(bench.now).devices[row].transfer.elapsed;
    assert_eq!(elapsed(&bench, 0), Duration::ZERO);
    bench.join(2, 1);
    let start = bench.now;
    bench.pass(second);
    bench.complete(1);
    bench.pass(second);
    // The one that waited and the one that did not took the same time; the first has ended.
    assert_eq!(elapsed(&bench, 0), second);
    assert_eq!(elapsed(&bench, 1), bench.now.since(start));
}

#[test]
fn a_device_that_syncs_for_ever_or_lies_about_its_progress_is_given_up() {
    for lie in [false, true] {
        let mut bench = Bench::new(4, |_| {});
        bench.join(1, 1);
        for minute in 0..60 {
            for second in 0..60 {
                // Either all is verified and the disk never done, or it swings to and fro.
                bench.report(1, if lie { second % 3 } else { 4 });
                bench.pass(Duration::from_secs(1));
            }
            if bench.outcome.is_some() {
                assert!(lie || minute > 4, "a large file may take its time to sync");
                break;
            }
        }
        assert!(matches!(bench.state(1), State::Failed(_)), "lie {lie}: {:?}", bench.state(1));
        assert_eq!(bench.outcome, Some(SenderOutcome::Ended), "lie {lie}");
    }
}

#[test]
fn lingering_ends_although_a_device_cannot_be_told_that_it_is_admitted() {
    let mut bench = Bench::new(4, |config| config.linger = Duration::from_secs(30));
    for _ in 0..60 * 20 {
        // Its joins come through, the answers do not: a firewall lets in the group's port only.
        bench.send_join(1, 1, address(1));
        bench.pass(Duration::from_millis(500));
    }
    assert_eq!(bench.outcome, Some(SenderOutcome::Ended));
}

#[test]
fn lingering_ends_although_a_device_comes_and_fails_time_and_again() {
    let mut bench = Bench::new(4, |config| config.linger = Duration::from_secs(30));
    bench.join(1, 1);
    bench.pass(Duration::from_secs(1));
    bench.complete(1);
    for instance in 0..100 {
        bench.join(2, instance);
        bench.abort(2);
        bench.pass(Duration::from_secs(1));
    }
    assert_eq!(bench.outcome, Some(SenderOutcome::Ended));
}

#[test]
fn a_join_that_comes_late_does_not_hide_why_the_device_failed() {
    let mut bench = Bench::new(4, |config| config.task.options.expected = Some(2));
    bench.join(1, 1);
    bench.join(2, 1);
    bench.abort(2);
    bench.join(2, 1);
    bench.pass_reporting(30, &[(1, 0)]);
    assert_eq!(bench.state(2), State::Failed("disk full".into()));
}

#[test]
fn symbols_encoded_for_nothing_are_given_back_once() {
    let mut bench = Bench::new(4, |config| config.task.options.expected = Some(2));
    bench.join(1, 1);
    bench.join(2, 1);
    bench.pass(Duration::from_millis(5));
    bench.held = Some(vec![]);
    let index = bench.sender.devices.index_of(id(2)).unwrap();
    for block in 0..2 {
        let (kind, first, packed) = bench.sender.set_aside(block, planner::PlanKind::Fresh(3));
        let channel = if block == 0 { &mut bench.sender.group } else { bench.sender.device_channel(index) };
        channel.push(BlockIndex(block), kind, first, packed);
    }
    bench.sender.unicast_repairs.push_back(index);
    bench.drain();
    assert_eq!(bench.sender.encoded_symbols, 6);
    bench.sender.end_unicast_repair(index);
    for job in bench.held.take().unwrap() {
        let done = bench.done(job);
        bench.sender.handle_job_done(bench.now, done);
    }
    assert_eq!(bench.sender.encoded_symbols, 3, "the group's are still to be sent");
}

#[test]
fn one_bad_device_of_so_many_that_not_all_are_asked_is_moved_to_unicast() {
    let mut bench = Bench::new(4_000, |config| {
        config.task.options.expected = Some(200);
        config.rate = RateMode::Fixed(Rate(2_000_000));
    });
    for device in 1..=200 {
        // So many agreements take their time.
        bench.join(device, 1);
        bench.pass(Duration::from_millis(2));
    }
    let mut answered = 0;
    for _ in 0..3_000 {
        bench.pass(Duration::from_millis(1));
        if bench.sender.group.is_open() && bench.sender.group.round_number > answered {
            answered = bench.sender.group.round_number;
            bench.nak(1, vec![Deficit::Whole { first: BlockIndex(0), count: 4_000 }]);
        }
    }
    assert!(bench.activity(1) == Some(Activity::Repairing), "{:?}", bench.activity(1));
}

#[test]
fn a_device_that_was_out_of_reach_is_shown_as_served_alone() {
    let mut bench = Bench::new(4, |config| config.task.options.expected = Some(2));
    bench.join(1, 1);
    bench.join(2, 1);
    for _ in 0..15 {
        bench.pass(Duration::from_secs(1));
        bench.report(1, 0);
    }
    assert_eq!(bench.state(2), State::Lost);
    bench.report(2, 0);
    assert!(bench.activity(2) == Some(Activity::Repairing), "{:?}", bench.activity(2));
}

/// A line of so many bits per second.
fn line(bits: f64) -> impl Fn(f64) -> f64 {
    move |sent| (bits / sent).min(1.0)
}

#[test]
fn what_a_device_reported_before_it_failed_does_not_bring_it_back() {
    let mut bench = Bench::auto(2, |_| {});
    let (first, step) = (bench.next_number(), Duration::from_millis(25));
    bench.pass(step);
    let first = first.max(bench.next_number() - 100);
    bench.arrived(1, first, step, 0.2);
    bench.abort(1);
    bench.arrived(2, first, step, 1.0);
    assert_eq!(bench.state(1), State::Failed("disk full".into()));
}

#[test]
fn devices_that_say_nothing_of_arrivals_do_not_keep_the_rate_where_it_is() {
    let mut bench = Bench::auto(3, |_| {});
    bench.pass_carrying(150, &[&|_| 1.0]);
    assert!(bench.rate() > 200e6, "{}", bench.rate());
}

#[test]
fn devices_behind_one_line_that_falls_are_not_moved_to_unicast_one_by_one() {
    let mut bench = Bench::auto(4, |_| {});
    let before = line(400e6);
    bench.pass_carrying(80, &[&before, &before, &before, &before]);
    let after = line(100e6);
    bench.pass_carrying(2, &[&after, &after, &after, &after]);
    // The queue of one goes on for a moment.
    bench.pass_carrying(2, &[&|_| 0.9, &after, &after, &after]);
    bench.pass_carrying(40, &[&after, &after, &after, &after]);
    for device in 1..=4 {
        assert!(bench.activity(device) == Some(Activity::Receiving), "{device}");
    }
}

#[test]
fn a_loss_while_there_is_little_to_send_makes_no_device_slow() {
    let mut bench = Bench::auto(3, |config| {
        config.layout = Layout::new(20 << 20, 20, 1408).unwrap();
        config.repair.slow = SlowPolicy::Drop;
    });
    let honest = |_| 1.0;
    bench.pass_carrying(4, &[&honest, &honest, &honest]);
    while bench.sender.phase == Phase::Streaming {
        bench.pass(Duration::from_millis(5));
    }
    let (first, rate) = (bench.next_number(), bench.rate());
    bench.nak(1, vec![lacks(0, 40, &[(0, 40)])]);
    let (mut begun, mut number) = (None, bench.next_number());
    let time = loop {
        bench.pass(Duration::from_millis(1));
        let now = bench.now;
        // Polls and announces go on after the repairs: they must not seem to be long under way.
        if std::mem::replace(&mut number, bench.next_number()) < number {
            let time = now - *begun.get_or_insert(now);
            if time > Duration::from_millis(300) {
                break time;
            }
        }
    };
    assert!(number > first + 40 && number < first + 60);
    for (device, share) in [(1, 0.8), (2, 1.0), (3, 1.0)] {
        bench.arrived(device, first, time, share);
    }
    assert!(bench.activity(1) == Some(Activity::Receiving), "{:?}", bench.activity(1));
    assert!(bench.rate() > rate * 0.5, "{} of {rate}", bench.rate());
}

#[test]
fn lying_devices_cost_the_group_no_more_than_half_of_its_rate() {
    let honest = line(400e6);
    for lie in [0.51, 0.01, 0.6, 0.9] {
        let mut bench = Bench::auto(4, |_| {});
        let (_, alone) = bench.pass_carrying(80, &[&honest, &honest, &honest, &honest]);
        let (lowest, mean) = bench.pass_carrying(160, &[&honest, &honest, &honest, &|_| lie]);
        // What drains a queue goes below that for a moment.
        assert!(lowest > alone * 0.44 && mean > alone * 0.5, "{lie}: {lowest} {mean} of {alone}");
        if lie < 0.6 {
            assert!(bench.activity(4) == Some(Activity::Repairing), "{lie}");
        }
        // From the start.
        let mut bench = Bench::auto(4, |_| {});
        let (_, mean) = bench.pass_carrying(160, &[&honest, &honest, &honest, &|_| lie]);
        assert!(mean > alone * 0.5, "{lie}: {mean} of {alone} from the start");
    }
}

#[test]
fn a_device_slower_than_half_is_moved_to_unicast_though_it_carries_what_is_begun_with() {
    let (fast, slow) = (line(1e9), line(150e6));
    for others in [1, 3] {
        let mut bench = Bench::auto(others + 1, |_| {});
        let mut shares: Vec<&dyn Fn(f64) -> f64> = vec![&slow];
        (0..others).for_each(|_| shares.push(&fast));
        bench.pass_carrying(120, &shares);
        assert!(bench.rate() > 700e6, "{others}: {}", bench.rate());
        assert!(bench.activity(1) == Some(Activity::Repairing), "{:?}", bench.activity(1));
        assert!(bench.activity(2) == Some(Activity::Receiving), "{:?}", bench.activity(2));
        // One that is not so much slower is waited for.
        let mut bench = Bench::auto(others + 1, |_| {});
        let slow = line(600e6);
        shares[0] = &slow;
        bench.pass_carrying(120, &shares);
        assert!(bench.rate() > 500e6 && bench.rate() < 640e6, "{others}: {}", bench.rate());
        assert!(bench.activity(1) == Some(Activity::Receiving), "{:?}", bench.activity(1));
    }
}

#[test]
fn a_lying_device_among_those_left_over_does_not_slow_them_down() {
    let mut bench = Bench::auto(4, |_| {});
    (0..4).for_each(|index| bench.sender.devices.get_mut(DeviceIndex(index)).regrouped = true);
    let honest = line(400e6);
    bench.pass_carrying(80, &[&honest, &honest, &honest, &|_| 0.01]);
    assert!(bench.rate() > 200e6, "{}", bench.rate());
}

#[test]
fn a_lying_device_that_answers_no_unicast_polls_does_not_slow_the_group_down() {
    let honest = line(400e6);
    for keep in [false, true] {
        let mut bench = Bench::auto(4, |config| {
            config.repair.slow = if keep { SlowPolicy::Keep } else { SlowPolicy::Defer };
        });
        bench.pass_carrying(80, &[&honest, &honest, &honest, &honest]);
        // It joined late and left six polls unanswered.
        bench.sender.devices.get_mut(DeviceIndex(3)).service = Service::GroupOnly { waits: 7 };
        bench.pass_carrying(100, &[&honest, &honest, &honest, &|_| 0.4]);
        assert_eq!(bench.rate() > 150e6, !keep, "{}", bench.rate());
    }
}

#[test]
fn a_group_that_holds_something_is_told_all_values_first_and_sent_only_what_it_asks_for() {
    let mut bench = Bench::new(100, |config| config.task.options.expected = Some(2));
    bench.join_with(1, 1, true);
    // All of them are hashed and told while it waits for the other.
    bench.pass(Duration::from_millis(200));
    assert_eq!(bench.sender.stream.told, 100);
    bench.join_with(2, 1, true);
    bench.pass(Duration::from_millis(20));
    assert!(bench.sender.stream_done());
    assert_eq!(bench.sender.counters.source, 0);
    let whole = |first| vec![Deficit::Whole { first: BlockIndex(first), count: 1 }];
    bench.nak(1, whole(7));
    bench.nak(2, [whole(7), whole(93)].concat());
    bench.pass(Duration::from_millis(200));
    let overview = bench.sender.overview();
    assert_eq!((overview.source_symbols, overview.repair_symbols), (2 * u64::from(K), 0));
    assert_eq!((overview.streamed, overview.skipped), (100 << 10, 98 << 10));
    assert_eq!((bench.sender.rounds.loss, overview.unicast_symbols), (0.0, 0));
}

#[test]
fn one_device_that_holds_nothing_has_all_streamed() {
    let mut bench = Bench::new(100, |config| config.task.options.expected = Some(2));
    bench.join_with(1, 1, true);
    bench.join_with(2, 1, false);
    bench.pass(Duration::from_millis(500));
    let overview = bench.sender.overview();
    assert_eq!((overview.source_symbols, overview.skipped), (100 * u64::from(K), 0));
}

#[test]
fn a_device_that_lacks_much_of_what_was_never_sent_stays_in_the_group() {
    let mut bench = Bench::new(100, |config| config.task.options.expected = Some(3));
    (1..=3).for_each(|device| bench.join_with(device, 1, true));
    bench.pass(Duration::from_millis(50));
    bench.nak(1, vec![Deficit::Whole { first: BlockIndex(3), count: 1 }]);
    bench.nak(2, vec![Deficit::Whole { first: BlockIndex(3), count: 1 }]);
    bench.nak(3, vec![Deficit::Whole { first: BlockIndex(0), count: 90 }]);
    bench.pass(Duration::from_millis(300));
    let index = bench.sender.devices.index_of(id(3)).unwrap();
    assert!(!bench.sender.devices.get(index).service.is_unicast_only());
    let overview = bench.sender.overview();
    assert_eq!((overview.source_symbols, overview.unicast_symbols), (90 * u64::from(K), 0));
}

#[test]
fn known_values_are_told_at_once_and_checked_before_the_root_is() {
    let values: Vec<(Digest, bool)> = (0..100).map(|n| (Digest([n; 32]), false)).collect();
    for changed in [None, Some(70)] {
        let mut bench = Bench::new(100, |config| config.task.options.expected = Some(1));
        let config = bench.sender.config.clone();
        let mut known = values.clone();
        // The file was written to since, without a trace in its times.
        changed.iter().for_each(|&block: &usize| known[block].0 = Digest([200; 32]));
        bench.sender = Sender::new(config.clone(), Time::ZERO).with_values(known);
        assert!(bench.sender.root.is_none() && bench.sender.values().is_some());
        bench.join_with(1, 1, true);
        bench.pass(Duration::from_millis(300));
        assert_eq!(bench.sender.root.is_some(), changed.is_none());
        assert_eq!(matches!(bench.outcome, Some(SenderOutcome::SourceFailed(_))), changed.is_some());
        let other = Sender::new(config, Time::ZERO).with_values(values[..99].to_vec());
        assert!(other.root.is_none() && other.values().is_none());
    }
}

#[test]
fn joins_that_are_said_again_by_others_are_no_sign_of_life() {
    let mut bench = Bench::new(4, |config| config.task.options.expected = Some(2));
    bench.join(1, 1);
    let from = bench.sent.len();
    // The join that was answered, overheard.
    let announce = bench.sender.announced();
    let mut overheard = FakeDevice::new(&announce, [1 ^ 0x55 ^ 31; 32]);
    overheard.cookie = bench.run(1).cookie;
    let join = overheard.join(any_join(id(1), Holdings::Nothing));
    bench.pass(Duration::from_secs(2));
    bench.take(address(1), join.clone());
    let last_heard = bench.sender.devices.get(DeviceIndex(0)).last_heard;
    assert_eq!(last_heard, Time::ZERO, "it is the device's first number again");
    assert!(!bench.sent[from..].iter().any(|sent| sent.to == address(1)), "nor is it answered");
    // Nor does it bring back a run that is over.
    bench.join(1, 2);
    bench.pass(Duration::from_millis(2_500));
    for _ in 0..3 {
        bench.take(address(1), join.clone());
        bench.report(1, 0);
    }
    assert_eq!(bench.sender.devices.len(), 1);
    assert_eq!(bench.sender.devices.get(DeviceIndex(0)).last_heard, bench.now, "the new run is still heard");
}

#[test]
fn forgeries_on_a_device_s_channel_do_not_keep_it_from_being_heard() {
    let mut bench = Bench::new(4, |config| config.task.options.expected = Some(2));
    bench.join(1, 1);
    bench.pass(Duration::from_millis(500));
    let mut forger = FakeDevice::new(&bench.sender.announced(), [99; 32]);
    forger.take_channel(bench.run(1).channel());
    for _ in 0..2 * crate::limits::DEVICE_MESSAGES_PER_SECOND {
        let abort = Abort { code: AbortCode::Disk, reason: String::new() };
        let bytes = forger.seal_message(&Message::Abort(abort), |_| ());
        bench.take(address(1), bytes);
    }
    bench.report(1, 1);
    assert_eq!(bench.sender.devices.get(DeviceIndex(0)).reported.verified, 1);
}

impl Bench {
    /// Digests sent since `from`: whether to all, and of which block.
    fn digests(&self, from: usize) -> Vec<(bool, u32)> {
        let messages = self.sent[from..].iter().filter_map(|transmit| {
            let Payload::Message(bytes) = &transmit.payload else { return None };
            let end = bytes.len().checked_sub(crate::limits::SIGNATURE_RESERVE)?;
            let head = crate::wire::head(bytes).ok()?;
            match crate::wire::decode_body(head.kind, bytes.get(crate::limits::HEADER_LEN..end)?) {
                Ok(Message::SymbolDigests(digests)) => {
                    assert_eq!(digests.digests.len(), K as usize);
                    Some((transmit.to == self.sender.config.data, digests.block.0))
                }
                _ => None,
            }
        });
        messages.collect()
    }

    fn suspect(&mut self, device: u8, blocks: &[u32]) {
        let blocks = blocks.iter().map(|&block| BlockIndex(block)).collect();
        self.hear(device, &Message::Suspect(crate::wire::Suspect { blocks }));
    }
}

#[test]
fn who_suspects_a_block_gets_its_digests_and_then_its_source_symbols() {
    let mut bench = Bench::new(8, |config| config.task.options.expected = Some(2));
    bench.join(1, 1);
    bench.join(2, 1);
    bench.pass(Duration::from_millis(10));
    let from = bench.sent.len();
    bench.suspect(1, &[2, 5, 800]);
    bench.pass(Duration::from_millis(50));
    assert_eq!(bench.digests(from), [(false, 2), (false, 5)]);
    assert_eq!(bench.sender.overview().suspects, 2);
    // No fresh symbols, whatever it costs.
    let from = bench.sent.len();
    let missing = vec![(0, 3), (7, 9)];
    bench.nak(1, vec![Deficit::Sources { block: BlockIndex(2), missing }]);
    bench.nak(2, vec![]);
    bench.pass(Duration::from_millis(100));
    let again = bench.sent[from..].iter().filter_map(|transmit| match &transmit.payload {
        Payload::Source { block: BlockIndex(2), ids, .. } => Some(ids.clone()),
        Payload::Message(_) => None,
        other => panic!("{other:?}"),
    });
    assert_eq!(again.flatten().collect::<Vec<_>>(), [0, 1, 2, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
}

#[test]
fn a_flood_of_suspicions_costs_no_more_than_its_share() {
    let mut bench = Bench::new(4_096, |config| {
        config.task.options.expected = Some(2);
        config.rate = RateMode::Fixed(Rate(100_000_000));
    });
    bench.join(1, 1);
    bench.join(2, 1);
    let (from, first) = (bench.sent.len(), bench.now);
    for round in 0..40 {
        let blocks: Vec<u32> = (0..32).map(|i| (round * 32 + i) % 4_096).collect();
        bench.suspect(1, &blocks);
        bench.suspect(2, &blocks);
        bench.pass(Duration::from_millis(5));
        assert!(!bench.sender.stream_done(), "it has something better to do");
    }
    let bytes: usize = bench.digests(from).len() * (16 * K as usize + 94 + 66);
    let share = bytes as f64 * 8.0 / (bench.now - first).as_secs_f64() / 100_000_000.0;
    assert!((0.01..0.13).contains(&share), "{share}");
}

#[test]
fn a_carousel_asks_nobody_and_repairs_all_the_same() {
    let passes = Passes { count: 2, per_mille: 200 };
    let mut bench = Bench::new(40, |config| {
        config.task.options.expected = Some(2);
        config.repair = RepairPolicy::carousel(passes);
    });
    bench.join(1, 1);
    bench.join(2, 1);
    bench.pass_reporting(5, &[(1, 1), (2, 1)]);
    let overview = bench.sender.overview();
    // 16 source symbols of each block once, and 4 fresh ones (3.2, rounded up) in each pass.
    assert_eq!((overview.source_symbols, overview.repair_symbols), (40 * 16, 40 * 4 * 2));
    assert_eq!(overview.unicast_symbols, 0);
    let fresh = |transmit: &Transmit| match &transmit.payload {
        Payload::Repair { block, first, range, .. } => Some((*block, *first, range.len() / 64)),
        _ => None,
    };
    let mut fresh: Vec<_> = bench.sent.iter().filter_map(fresh).collect();
    fresh.sort_unstable();
    assert!(fresh.iter().map(|(_, _, count)| count).sum::<usize>() == 320, "{fresh:?}");
    assert!(fresh.windows(2).all(|pair| (pair[0].0, pair[0].1) != (pair[1].0, pair[1].1)), "{fresh:?}");
    let polls = bench.sent.iter().filter(|transmit| match &transmit.payload {
        Payload::Message(bytes) => {
            crate::wire::head(bytes).is_ok_and(|head| head.kind == crate::wire::MessageKind::Poll)
        }
        _ => false,
    });
    assert_eq!(polls.count(), 0);
    bench.complete(1);
    bench.complete(2);
    bench.pass(Duration::from_secs(1));
    assert_eq!(bench.outcome, Some(SenderOutcome::Ended));
}
