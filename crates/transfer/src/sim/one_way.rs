//! Lines without a way back: a sender without feedback, devices that must not send a single datagram, and the same
//! session once more as a recording. Everything follows from the seed.

use super::actors::{DATA, NAME, RENDEZVOUS, TASK, random_bytes};
use super::checks::{Checker, Ledger};
use super::disk::{SimDisk, SimSink};
use super::hostile::group_key;
use super::likely::Likely;
use super::network::forger::Forger;
use super::network::{Attachment, NodeId, address};
use super::node::{Actor, JobDelay, Node, Sent, SimJobs, SimNet, Work};
use super::planned::Planned;
use super::sham;
use super::source::SimSource;
use super::totals::Totals;
use super::world::{Director, Pace, World};
use crate::engine::jobs::{ReceiverFiles, run_receiver_job, run_sender_job};
use crate::engine::{Engine, EngineError, Step, Stream};
use crate::fec::PlanCache;
use crate::pacing::RateMode;
use crate::protocol::Control;
use crate::protocol::carousel::Carousel;
use crate::protocol::event::{ReceiverEvent, ReceiverOutcome, SenderEvent, SenderOutcome};
use crate::protocol::job::{ReceiverDone, SenderDone};
use crate::protocol::packet_protection::SenderSide;
use crate::protocol::receiver::{Receiver, ReceiverConfig};
use crate::protocol::sender::SenderConfig;
use crate::protocol::trust::{Strangers, Trust};
use crate::storage::{Sink, Source};
use crate::task::Task;
use crate::time::Time;
use crate::units::{Counter, DeviceId, SenderKey};
use crate::wire::AbortCode;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

mod plan;

pub use plan::{Device, Plan};

/// The sender's node, or the player's of its recording.
const SENDER: NodeId = 0;
/// The session counter.
const COUNTER: Counter = Counter(7);
/// How long a device waits for a sender.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Datagrams, when they were sent, and where.
type Recording = Vec<(Time, SocketAddr, Rc<[u8]>)>;

/// Sends a recording, with the source address of its sender.
struct Player {
    net: SimNet,
    recording: Rc<Recording>,
    next: usize,
}

impl Actor for Player {
    fn step(&mut self, now: Time) -> Result<Step, EngineError> {
        while let Some((_, to, bytes)) = self.recording.get(self.next).filter(|(at, ..)| *at <= now) {
            let sent = Sent { spoofed: Some(address(SENDER)), to: *to, bytes: Rc::clone(bytes) };
            self.net.outbox.push(sent);
            self.next += 1;
        }
        let wake = self.recording.get(self.next).map_or(Time::NEVER, |(at, ..)| *at);
        Ok(Step { wake, writable: false, finished: wake == Time::NEVER, received: 0 })
    }
    fn net(&mut self) -> &mut SimNet {
        &mut self.net
    }
    fn next_done(&self) -> Time {
        Time::NEVER
    }
}

enum Someone {
    Sender(Box<Node<Carousel>>),
    Device(Box<Node<Receiver>>),
    Player(Box<Player>),
}

impl Actor for Someone {
    fn step(&mut self, now: Time) -> Result<Step, EngineError> {
        match self {
            Self::Sender(node) => node.step(now),
            Self::Device(node) => node.step(now),
            Self::Player(player) => player.step(now),
        }
    }
    fn net(&mut self) -> &mut SimNet {
        match self {
            Self::Sender(node) => node.net(),
            Self::Device(node) => node.net(),
            Self::Player(player) => player.net(),
        }
    }
    fn next_done(&self) -> Time {
        match self {
            Self::Sender(node) => node.next_done(),
            Self::Device(node) => node.next_done(),
            Self::Player(player) => player.next_done(),
        }
    }
}

#[derive(Clone, Copy)]
enum Cue {
    StartSender,
    Interrupt,
    StartDevice(usize),
    Crash(usize),
}

/// A device's state from run to run.
struct State {
    disk: SimDisk,
    version: u64,
    /// The last one-way session that it has completed from each sender.
    completed: BTreeMap<SenderKey, Counter>,
    outcome: Option<ReceiverOutcome>,
    /// Whether an old session was refused.
    refused: bool,
    seen: usize,
    starts: u64,
}

/// What came of a session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// Devices that have the object.
    pub complete: usize,
    /// Devices that lacked some of it.
    pub lacking: usize,
    /// Forged symbols that were delivered.
    pub forged: u64,
    /// Counters of the run.
    pub totals: Totals,
}

struct Stage<'a> {
    plan: &'a Plan,
    object: Arc<Vec<u8>>,
    plans: Rc<PlanCache>,
    likely: Likely,
    checker: Checker,
    ledger: Ledger,
    states: Vec<State>,
    sender: Option<SenderOutcome>,
    sender_seen: usize,
    cues: Vec<Cue>,
    /// Everything that the sender sends, or what is played instead of it.
    recorded: Recording,
    playing: Option<Rc<Recording>>,
    rng: fastrand::Rng,
}

fn delay<J>(seed: u64) -> JobDelay<J> {
    let mut rng = fastrand::Rng::with_seed(seed);
    Box::new(move |_, _| Duration::from_micros(rng.u64(..3_000)))
}

impl<'a> Stage<'a> {
    fn new(plan: &'a Plan) -> Self {
        let mut rng = fastrand::Rng::with_seed(plan.seed);
        let mut object = vec![0; plan.layout.object_size() as usize];
        rng.fill(&mut object);
        plan.content.shape(&mut object, &plan.layout, plan.seed);
        let object = Arc::new(object);
        let state = |device: &Device| State {
            disk: SimDisk::new(device.faults, Arc::clone(&object)),
            version: 0,
            completed: BTreeMap::new(),
            outcome: None,
            refused: false,
            seen: 0,
            starts: 0,
        };
        Self {
            plan,
            plans: Rc::new(PlanCache::default()),
            likely: Likely::new(Arc::clone(&object)),
            checker: Checker::new(Arc::clone(&object), plan.layout, NAME.to_owned()),
            ledger: Ledger::new(Self::side(plan)),
            states: plan.devices.iter().map(state).collect(),
            sender: None,
            sender_seen: 0,
            cues: Vec::new(),
            recorded: Vec::new(),
            playing: None,
            object,
            rng,
        }
    }

    fn side(plan: &Plan) -> SenderSide {
        let config = Self::config(plan);
        let random = *config.agreement.expose();
        SenderSide::new(COUNTER, config.signing_key, random, config.suite, config.group_key.as_ref())
    }

    fn config(plan: &Plan) -> SenderConfig {
        let who = (sham::signing_key(1), random_bytes(plan.seed), COUNTER);
        SenderConfig {
            rendezvous: vec![RENDEZVOUS],
            rate: RateMode::Fixed(plan.rate),
            group_key: plan.group_key.then(group_key),
            ..SenderConfig::new(Task::copy(TASK, NAME), plan.layout, DATA, who)
        }
    }

    fn start_sender(&self, now: Time) -> Someone {
        if let Some(recording) = &self.playing {
            let net = SimNet::new(1, None);
            return Someone::Player(Box::new(Player { net, recording: Rc::clone(recording), next: 0 }));
        }
        let machine = Carousel::new(Self::config(self.plan), self.plan.passes, now);
        let sim_source = SimSource::new(Arc::clone(&self.object));
        let source: Arc<dyn Source> = Arc::new(sim_source.clone());
        let (jobs, plans, mut buffer) = (Arc::clone(&source), Rc::clone(&self.plans), Vec::new());
        let work = Work {
            run: Box::new(move |job, _| run_sender_job(job, &*jobs, &plans, &mut buffer)),
            lane: |_| None,
            delay: delay(self.plan.seed ^ 1),
            source_unreadable: SenderDone::SourceFailed,
        };
        let (session, symbol_size) = (machine.session(), self.plan.layout.symbol_size());
        let stream = Stream { session, symbol_size, source, seal: machine.symbol_seal() };
        let net = SimNet::new(65_536, Some(sim_source));
        let engine = Engine::new(machine, net, SimJobs::new(2, work), Some(stream));
        Someone::Sender(Box::new(Node::new(engine, Box::new(|_, _, _| {}))))
    }

    fn start_device(&mut self, index: usize, now: Time) -> Someone {
        let (plan, state) = (&self.plan.devices[index], &mut self.states[index]);
        (state.starts, state.seen, state.outcome) = (state.starts + 1, 0, None);
        let seed = self.plan.seed ^ (index as u64) << 8 ^ state.starts << 16;
        let trust = match self.plan.group_key {
            true => Trust::anybody(),
            false => Trust {
                known: [(address(SENDER).ip(), sham::signing_key(1).public())].into(),
                strangers: Strangers::Unknown,
                ..Trust::default()
            },
        };
        let device = (DeviceId([index as u8; 16]), format!("device {index}"));
        let config = ReceiverConfig {
            timeout: TIMEOUT,
            buffer_bytes: plan.buffers.max(Checker::buffer_bytes(&self.plan.layout, 4)),
            memory: Arc::new(self.likely.clone()),
            primitives: sham::SHAM,
            group_keys: self.plan.group_key.then(group_key).into_iter().collect(),
            trust,
            quiet: plan.told,
            completed: state.completed.clone(),
            ..ReceiverConfig::new(device, vec![DATA, RENDEZVOUS], (seed, random_bytes(seed)))
        };
        let sink: Box<dyn Sink> = Box::new(SimSink::new(state.disk.clone(), false));
        let (files, plans) = (ReceiverFiles::new(sink), Rc::clone(&self.plans));
        let work = Work {
            run: Box::new(move |job, _| run_receiver_job(job, &files, &plans)),
            lane: |_| None,
            delay: delay(seed),
            source_unreadable: ReceiverDone::WorkerDied,
        };
        let net = SimNet::new(4_096, None);
        let engine = Engine::new(Receiver::new(config, now), net, SimJobs::new(2, work), None);
        Someone::Device(Box::new(Node::new(engine, Box::new(|_, _, _| {}))))
    }

    fn cue_at(&mut self, world: &mut World<Someone>, at: Time, cue: Cue) {
        world.cue(at, self.cues.len() as u32);
        self.cues.push(cue);
    }

    /// Runs all events. Returns the counters of the network, the time and the steps.
    fn play(&mut self) -> Totals {
        let plan = self.plan;
        let mut world = World::new(plan.seed ^ 0x0e_a417);
        if plan.forger > 0.0 && self.playing.is_none() {
            world.network.suffer(Forger::new(plan.seed, plan.layout, plan.forger));
        }
        world.add(Attachment::default(), Pace::default());
        self.cue_at(&mut world, Time::ZERO, Cue::StartSender);
        if let Some(at) = plan.interrupt {
            self.cue_at(&mut world, at, Cue::Interrupt);
        }
        for (index, device) in plan.devices.iter().enumerate() {
            world.add(Attachment { down: device.down.clone(), ..Attachment::default() }, Pace::default());
            self.cue_at(&mut world, device.start, Cue::StartDevice(index));
            if let Some((at, again)) = device.crash {
                self.cue_at(&mut world, at, Cue::Crash(index));
                self.cue_at(&mut world, again, Cue::StartDevice(index));
            }
        }
        let deadline = Time::ZERO + Duration::from_secs(600);
        assert!(world.run(deadline, self), "somebody hangs: {:?}", plan);
        for (index, state) in self.states.iter().enumerate() {
            assert!(state.outcome.is_some(), "device {index} does not end");
        }
        let (network, steps) = (world.network.counts, world.steps);
        let virtual_time = world.now().since(Time::ZERO);
        Totals { network, steps, virtual_time, ..Totals::default() }
    }

    /// A device has lost power.
    fn bury(&mut self, index: usize) {
        let state = &mut self.states[index];
        state.version = state.disk.version();
        self.checker.check_disk(index as u32, &state.disk, None);
    }

    fn look_at_device(&mut self, index: usize, node: &Node<Receiver>) {
        let state = &mut self.states[index];
        if state.version != state.disk.version() {
            state.version = state.disk.version();
            self.checker.check_disk(index as u32, &state.disk, None);
        }
        let seen = std::mem::replace(&mut state.seen, node.log.len());
        for (_, event) in &node.log[seen..] {
            match event {
                ReceiverEvent::Committed { .. } => {
                    self.checker.check_complete(index as u32, &state.disk, None);
                    let snapshot = node.engine.machine().snapshot();
                    let (counter, key) = (snapshot.one_way.unwrap(), snapshot.trusted.unwrap().0);
                    state.completed.insert(key, counter);
                }
                ReceiverEvent::OldSession { .. } => state.refused = true,
                ReceiverEvent::Finished(outcome) => state.outcome = Some(outcome.clone()),
                _ => {}
            }
        }
    }
}

impl Director<Someone> for Stage<'_> {
    fn cue(&mut self, world: &mut World<Someone>, number: u32) {
        let now = world.now();
        match self.cues[number as usize] {
            Cue::StartSender => {
                let sender = self.start_sender(now);
                world.start(SENDER, sender);
            }
            Cue::Interrupt => {
                if let Some(Someone::Sender(node)) = world.actor_mut(SENDER) {
                    node.engine.control(now, Control::Interrupt);
                }
            }
            Cue::StartDevice(index) if !world.is_running(index as NodeId + 1) => {
                let had = self.states[index].outcome.clone();
                // One that has ended as it should is not started again.
                if !matches!(had, Some(ReceiverOutcome::Complete { .. })) {
                    let device = self.start_device(index, now);
                    world.start(index as NodeId + 1, device);
                }
            }
            Cue::StartDevice(_) => {}
            Cue::Crash(index) => {
                if world.is_running(index as NodeId + 1) && world.stop(index as NodeId + 1).is_some() {
                    self.states[index].disk.crash(&mut self.rng);
                    self.bury(index);
                }
            }
        }
    }

    fn sent(&mut self, now: Time, node: NodeId, to: SocketAddr, bytes: &[u8]) {
        assert_eq!(node, SENDER, "device {} sends on a line without a way back", node.saturating_sub(1));
        if self.playing.is_none() {
            self.checker.sender_sent(to == DATA, bytes, &self.ledger);
            self.recorded.push((now, to, bytes.into()));
        }
    }

    fn stepped(&mut self, _: Time, node: NodeId, actor: &Someone) -> bool {
        match actor {
            Someone::Sender(sender) => {
                let seen = std::mem::replace(&mut self.sender_seen, sender.log.len());
                for (_, event) in &sender.log[seen..] {
                    if let SenderEvent::Finished(outcome) = event {
                        self.sender = Some(outcome.clone());
                    }
                }
            }
            Someone::Device(device) => {
                let index = node as usize - 1;
                self.look_at_device(index, device);
                return !self.states[index].disk.take_power_loss();
            }
            Someone::Player(_) => {}
        }
        true
    }

    fn died(&mut self, world: &mut World<Someone>, node: NodeId) {
        let index = node as usize - 1;
        self.bury(index);
        self.cue_at(world, world.now() + self.plan.devices[index].back, Cue::StartDevice(index));
    }
}

/// Runs the plan of a seed, and then its recording.
///
/// # Panics
/// If an invariant is broken, a device sends anything, hangs, or does not end as it must.
#[must_use]
pub fn run(seed: u64) -> Ended {
    run_plan(&Plan::generate(seed))
}

/// As [`run`], for a plan.
///
/// # Panics
/// As for [`run`].
#[must_use]
pub fn run_plan(plan: &Plan) -> Ended {
    let mut stage = Stage::new(plan);
    let totals = stage.play();
    let mut result = Ended { forged: totals.network.forged, totals, ..Ended::default() };
    let ended = stage.sender.clone().expect("the sender ends");
    match (&ended, plan.interrupt) {
        (SenderOutcome::Interrupted, Some(_)) => {}
        (SenderOutcome::SentOneWay(passes), _) => assert_eq!(Some(*passes), plan.passes.count),
        _ => panic!("the sender ends with {ended:?}"),
    }
    for (device, (index, state)) in plan.devices.iter().zip(stage.states.iter().enumerate()) {
        let has = stage.checker.has_object(&state.disk, None);
        let outcome = state.outcome.as_ref().expect("it has ended");
        match outcome {
            ReceiverOutcome::Complete { acknowledged: false } => assert!(has),
            ReceiverOutcome::Lacking { blocks, of, .. } => {
                assert!(!has, "{outcome:?}");
                assert!(blocks <= of && *of == plan.layout.block_count(), "{outcome:?}");
                result.lacking += 1;
            }
            // It began after the end, or had the object before a power cut.
            ReceiverOutcome::NoSender => {}
            // The same, and a damaged announcement that it heard seemed to be of another version.
            ReceiverOutcome::SenderNeeds(_) if device.down.corrupt > 0.0 => {}
            ReceiverOutcome::Failed(code, _) if device.faults.error.is_some() => {
                use AbortCode::{Command, Content, Interrupted, Mismatch};
                assert!(!has && !matches!(code, Command | Content | Interrupted | Mismatch), "{outcome:?}");
            }
            _ => panic!("device {index} ends with {outcome:?}"),
        }
        result.complete += usize::from(has);
        assert!(has || !plan.must_complete(device), "device {index} lacks something: {outcome:?}, {plan:?}");
    }
    let of_players = play_again(&mut stage);
    let totals = &mut result.totals;
    totals.add(&of_players);
    totals.runs = 1;
    totals.devices = plan.devices.len() as u64;
    totals.complete = result.complete as u64;
    totals.source_symbols = plan.layout.total_source_symbols();
    totals.symbols = stage.checker.symbols;
    totals.planned = Planned { one_way: 1, ..Planned::default() };
    totals.faults.of_network(&totals.network);
    totals.faults.many("one-way: a device that lacks something", result.lacking as u64);
    stage.states.iter().for_each(|state| totals.faults.add(&state.disk.struck()));
    result
}

/// Whether a seed stands for such a session: one in ten does, in runs of mixed faults.
#[must_use]
pub fn is_meant_by(seed: u64) -> bool {
    fastrand::Rng::with_seed(seed ^ 0x0e_3a).u8(..10) == 0
}

/// Plays the recording of the session to the same devices. Those that have completed it do not take it again, and none
/// is held by it.
fn play_again(stage: &mut Stage<'_>) -> Totals {
    let recording = Rc::new(std::mem::take(&mut stage.recorded));
    stage.playing = Some(recording);
    stage.cues.clear();
    let before: Vec<_> = stage.states.iter().map(|state| !state.completed.is_empty()).collect();
    for state in &mut stage.states {
        (state.outcome, state.refused) = (None, false);
    }
    let totals = stage.play();
    for (index, (state, before)) in stage.states.iter().zip(before).enumerate() {
        let outcome = state.outcome.as_ref().expect("it has ended");
        if before {
            // A damaged announcement names a version that nobody speaks, and the device says that it saw one.
            let none = matches!(outcome, ReceiverOutcome::NoSender | ReceiverOutcome::SenderNeeds(_));
            assert!(none, "device {index} takes a recording again: {outcome:?}");
        }
        let has = stage.checker.has_object(&state.disk, None);
        assert!(has || !matches!(outcome, ReceiverOutcome::Complete { .. }));
    }
    totals
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::Layout;
    use crate::limits::RECEIVER_BUFFER_BYTES;
    use crate::protocol::carousel::Repetition;
    use crate::sim::disk_faults::DiskFaults;
    use crate::sim::link::Quality;
    use crate::sim::scenario::ContentPlan;
    use crate::units::Rate;

    const SEEDS: std::ops::Range<u64> = 42_500_000..42_500_060;

    #[test]
    fn seeds() {
        let mut all = Ended::default();
        for seed in SEEDS {
            let Ended { complete, lacking, forged, .. } =
                std::panic::catch_unwind(|| run(seed)).unwrap_or_else(|_| panic!("seed {seed}"));
            all.complete += complete;
            all.lacking += lacking;
            all.forged += forged;
        }
        assert!(all.complete > 60 && all.lacking > 5 && all.forged > 1_000, "{all:?}");
    }

    fn plan(loss: f64, passes: u32, forger: f64) -> Plan {
        let down = Quality { loss, ..Quality::default() };
        let device = Device {
            down,
            start: Time::ZERO,
            crash: None,
            told: true,
            buffers: RECEIVER_BUFFER_BYTES,
            faults: DiskFaults::default(),
            back: Duration::ZERO,
        };
        Plan {
            seed: 42_500_100 + u64::from(passes),
            layout: Layout::new((2 << 20) + 77, 18, 1024).unwrap(),
            content: ContentPlan::default(),
            rate: Rate(40_000_000),
            passes: Repetition { overhead_per_mille: 200, count: Some(passes), pause: Duration::ZERO },
            interrupt: None,
            group_key: false,
            forger,
            devices: vec![device; 4],
        }
    }

    #[test]
    fn one_pass_survives_loss_below_its_repair_symbols() {
        for loss in [0.0, 0.05] {
            assert_eq!(run_plan(&plan(loss, 1, 0.0)).complete, 4);
        }
        assert_eq!(run_plan(&plan(0.3, 1, 0.0)).lacking, 4);
        assert_eq!(run_plan(&plan(0.3, 3, 0.0)).complete, 4);
    }

    #[test]
    fn forged_symbols_cost_a_pass_and_no_more() {
        let forged = run_plan(&plan(0.0, 2, 0.2));
        assert!(forged.complete == 4 && forged.forged > 100, "{forged:?}");
        assert_eq!(run_plan(&plan(0.05, 4, 1.0)).complete, 4);
    }
}
