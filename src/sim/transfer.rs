//! One transfer in the virtual world: builds the sender and the devices of a scenario, crashes and
//! restarts them, watches every step, and judges the end.

use super::checks::{Checker, Symbols};
use super::disk::{SimDestination, SimDisk, SimSource};
use super::network::{Counts, NodeId, address};
use super::node::{Actor, Node, SimJobs, SimNet, Work};
use super::scenario::{Expectation, Planned, Scenario};
use super::world::{Director, Pace, World};
use crate::engine::jobs::{ReceiverFiles, run_receiver_job, run_sender_job};
use crate::engine::{Engine, EngineError, Step, Stream};
use crate::fec::PlanCache;
use crate::protocol::Control;
use crate::protocol::event::{ReceiverEvent, ReceiverOutcome, SenderEvent, SenderOutcome};
use crate::protocol::job::{ReceiverDone, SenderDone, SenderJob};
use crate::protocol::receiver::{Receiver, ReceiverConfig};
use crate::protocol::sender::{Sender, SenderConfig};
use crate::status::DeviceStatus;
use crate::storage::Source;
use crate::tasks::{MemoryStore, TaskTable};
use crate::time::Time;
use crate::units::{DeviceId, Rate, SessionId, TaskId};
use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// The group that data goes to.
const DATA: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(239, 1, 1, 1)), 7417);
/// The group that announcements go to as well.
const RENDEZVOUS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(239, 255, 74, 17)), 7417);
/// The object's name.
const NAME: &str = "object.img";
/// What a device had under that name before, if anything.
const BEFORE: &[u8] = b"what was there before";
/// The sender's place in the world.
const SENDER: NodeId = 0;
/// Steps of a receiver between two looks at its buffers.
const BUFFER_LOOK: u64 = 8;

type Table = Rc<RefCell<TaskTable<MemoryStore>>>;

/// A node of either kind.
pub enum Party {
    /// The sender.
    Sender(Box<Node<Sender>>),
    /// A device.
    Receiver(Box<Node<Receiver>>),
}

impl Actor for Party {
    fn step(&mut self, now: Time) -> Result<Step, EngineError> {
        match self {
            Self::Sender(node) => node.step(now),
            Self::Receiver(node) => node.step(now),
        }
    }
    fn net(&mut self) -> &mut SimNet {
        match self {
            Self::Sender(node) => node.net(),
            Self::Receiver(node) => node.net(),
        }
    }
    fn next_done(&self) -> Time {
        match self {
            Self::Sender(node) => node.next_done(),
            Self::Receiver(node) => node.next_done(),
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Cue {
    StartSender,
    CrashSender,
    InterruptSender,
    StartNow,
    ChangeSource,
    StartDevice(u32),
    CrashDevice(u32),
    InterruptDevice(u32),
}

/// What became of one device.
struct Device {
    disk: SimDisk,
    /// How often it was started.
    incarnation: u32,
    /// What its last incarnation came to.
    outcome: Option<ReceiverOutcome>,
    /// Events of its log that were looked at.
    seen: usize,
    steps: u64,
    version: u64,
}

/// What a run came to, for the summary.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
    /// Virtual time it took.
    pub took: Duration,
    /// Virtual time from the first source symbol to the last completion.
    pub steps: u64,
    /// Devices, in all.
    pub devices: u64,
    /// Devices that have the object.
    pub complete: u64,
    /// Source symbols of the object.
    pub source_symbols: u64,
    /// Symbols sent.
    pub symbols: Symbols,
    /// Most feedback datagrams in any second.
    pub feedback_max: usize,
    /// Feedback datagrams in all.
    pub feedback_total: u64,
    /// What the network did.
    pub network: Counts,
    /// What was planned.
    pub planned: Planned,
    /// How often disks refused.
    pub disk_failures: u64,
}

/// The run of one scenario.
struct Transfer<'a> {
    scenario: &'a Scenario,
    rng: fastrand::Rng,
    object: Arc<Vec<u8>>,
    source: SimSource,
    plans: Rc<PlanCache>,
    table: Table,
    checker: Checker,
    cues: Vec<Cue>,
    devices: Vec<Device>,
    sender_outcome: Option<SenderOutcome>,
    sender_seen: usize,
    sender_incarnation: u64,
}

/// Runs `scenario` to its end.
///
/// # Panics
/// When an invariant is broken, something hangs, or an expectation is not met.
#[must_use]
pub fn run(scenario: &Scenario) -> Report {
    let mut transfer = Transfer::new(scenario);
    let mut world = World::new(scenario.seed ^ 0x0ff1_ce);
    transfer.build(&mut world);
    let ended = world.run(scenario.deadline(), &mut transfer);
    if !ended {
        transfer.report_hang(&world);
    }
    transfer.judge(&world);
    transfer.report(&world)
}

fn device_id(index: u32) -> DeviceId {
    let mut id = [0xd0; 16];
    id[12..].copy_from_slice(&index.to_be_bytes());
    DeviceId(id)
}

fn index_of(device: DeviceId) -> u32 {
    let [.., a, b, c, d] = device.0;
    u32::from_be_bytes([a, b, c, d])
}

fn task() -> TaskId {
    TaskId([7; 16])
}

fn new_table() -> Table {
    Rc::new(RefCell::new(TaskTable::new(task(), MemoryStore::default())))
}

/// How long jobs take: up to `most`, now and then much longer.
fn job_delay<J>(seed: u64, most: Duration) -> Box<dyn FnMut(&J) -> Duration> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let most = most.as_nanos() as u64;
    Box::new(move |_| {
        let times = if rng.u8(..50) == 0 { 5 } else { 1 };
        Duration::from_nanos(rng.u64(..=most) * times)
    })
}

impl<'a> Transfer<'a> {
    fn new(scenario: &'a Scenario) -> Self {
        let mut rng = fastrand::Rng::with_seed(scenario.seed);
        let mut object = vec![0; scenario.layout.object_size() as usize];
        rng.fill(&mut object);
        let object = Arc::new(object);
        let devices = scenario.devices.iter().map(|plan| {
            let disk = SimDisk::new(plan.faults);
            if plan.existing {
                disk.put(NAME, BEFORE.to_vec());
            }
            Device { disk, incarnation: 0, outcome: None, seen: 0, steps: 0, version: 0 }
        });
        Self {
            scenario,
            source: SimSource::new(Arc::clone(&object)),
            plans: Rc::new(PlanCache::default()),
            table: new_table(),
            checker: Checker::new(Arc::clone(&object), scenario.layout, NAME.to_owned()),
            cues: Vec::new(),
            devices: devices.collect(),
            sender_outcome: None,
            sender_seen: 0,
            sender_incarnation: 0,
            object,
            rng,
        }
    }

    fn cue(&mut self, world: &mut World<Party>, at: Option<Time>, cue: Cue) {
        if let Some(at) = at {
            world.cue(at, self.cues.len() as u32);
            self.cues.push(cue);
        }
    }

    fn build(&mut self, world: &mut World<Party>) {
        let scenario = self.scenario;
        let sender = &scenario.sender;
        world.add(sender.attachment.clone(), Pace::default());
        self.cue(world, Some(Time::ZERO), Cue::StartSender);
        self.cue(world, sender.crash.map(|c| c.0), Cue::CrashSender);
        self.cue(world, sender.crash.and_then(|c| c.1), Cue::StartSender);
        self.cue(world, sender.interrupt, Cue::InterruptSender);
        self.cue(world, sender.start_now, Cue::StartNow);
        self.cue(world, sender.source_changes, Cue::ChangeSource);
        for (i, plan) in (0..).zip(&scenario.devices) {
            world.add(plan.attachment.clone(), Pace { per_datagram: plan.per_datagram });
            self.cue(world, Some(plan.start), Cue::StartDevice(i));
            self.cue(world, plan.crash.map(|c| c.0), Cue::CrashDevice(i));
            self.cue(world, plan.crash.and_then(|c| c.1), Cue::StartDevice(i));
            self.cue(world, plan.interrupt, Cue::InterruptDevice(i));
        }
    }

    fn sender(&mut self, now: Time) -> Party {
        let scenario = self.scenario;
        self.sender_incarnation += 1;
        self.sender_seen = 0;
        self.sender_outcome = None;
        self.table = new_table();
        let session = SessionId(scenario.seed << 8 | self.sender_incarnation);
        let config = SenderConfig {
            seed: self.rng.u64(..),
            session,
            task: task(),
            name: NAME.to_owned(),
            layout: scenario.layout,
            data: DATA,
            rendezvous: vec![RENDEZVOUS],
            rate: Rate(scenario.rate),
            expected: scenario.expected,
            wait: scenario.wait,
            settle: scenario.settle,
            linger: scenario.linger,
        };
        let source: Arc<dyn Source> = Arc::new(self.source.clone());
        let (job_source, layout, plans) = (Arc::clone(&source), scenario.layout, Rc::clone(&self.plans));
        let mut buffer = Vec::new();
        let table = Rc::clone(&self.table);
        let work = Work {
            run: Box::new(move |job| run_sender_job(job, &*job_source, &layout, &plans, &mut buffer)),
            at_once: Box::new(move |job| match job {
                SenderJob::LookUp(device) => {
                    let status = table.borrow().look_up(device).map(|row| row.status);
                    Ok(SenderDone::LookedUp(device, status))
                }
                other => Err(other),
            }),
            delay: job_delay(self.rng.u64(..), scenario.sender.job),
            source_unreadable: SenderDone::SourceFailed,
        };
        let net = SimNet::new(65_536, Some(self.source.clone()));
        let stream = Stream { session, layout, source };
        let engine = Engine::new(Sender::new(config, now), net, SimJobs::new(2, work), Some(stream));
        let table = Rc::clone(&self.table);
        let on_event = Box::new(move |_: Time, _: &Sender, event: &SenderEvent| {
            if let SenderEvent::Status(row) = event
                && let Err(e) = table.borrow_mut().record(row.clone())
            {
                panic!("the status table refuses a row: {e}");
            }
        });
        Party::Sender(Box::new(Node::new(engine, on_event)))
    }

    fn buffer_bytes(&self, index: u32) -> usize {
        Checker::buffer_bytes(&self.scenario.layout, self.scenario.devices[index as usize].buffer_blocks)
    }

    fn receiver(&mut self, index: u32, now: Time) -> Party {
        let plan = &self.scenario.devices[index as usize];
        let buffer_bytes = self.buffer_bytes(index);
        let device = &mut self.devices[index as usize];
        device.incarnation += 1;
        device.outcome = None;
        device.seen = 0;
        device.disk.sweep();
        let config = ReceiverConfig {
            seed: self.rng.u64(..),
            device: device_id(index),
            instance: self.rng.u64(..),
            label: format!("device {index}"),
            timeout: plan.timeout,
            groups: vec![DATA, RENDEZVOUS],
            buffer_bytes,
        };
        let files = ReceiverFiles::new(Box::new(SimDestination::new(device.disk.clone(), plan.force)));
        let plans = Rc::clone(&self.plans);
        let work = Work {
            run: Box::new(move |job| run_receiver_job(job, &files, &plans)),
            at_once: Box::new(Err),
            delay: job_delay(self.rng.u64(..), plan.job),
            source_unreadable: ReceiverDone::WorkerDied,
        };
        let net = SimNet::new(plan.socket, None);
        let engine = Engine::new(Receiver::new(config, now), net, SimJobs::new(2, work), None);
        Party::Receiver(Box::new(Node::new(engine, Box::new(|_, _, _| {}))))
    }

    fn look_at_sender(&mut self, now: Time, node: &Node<Sender>) {
        let seen = std::mem::replace(&mut self.sender_seen, node.log.len());
        for (_, event) in &node.log[seen..] {
            match event {
                SenderEvent::Status(row) if row.status == DeviceStatus::Complete => {
                    let index = index_of(row.device);
                    self.checker.check_complete(index, &self.devices[index as usize].disk);
                }
                SenderEvent::Finished(outcome) => {
                    assert!(self.sender_outcome.is_none(), "the sender finishes twice at {now:?}");
                    self.sender_outcome = Some(outcome.clone());
                }
                _ => {}
            }
        }
    }

    fn look_at_device(&mut self, now: Time, index: u32, node: &Node<Receiver>) {
        let bound = self.buffer_bytes(index);
        let existing = self.scenario.devices[index as usize].existing;
        let device = &mut self.devices[index as usize];
        device.steps += 1;
        if device.steps % BUFFER_LOOK == 0 {
            let buffered = node.engine.machine().snapshot(now).buffered;
            self.checker.check_buffered(index, buffered, bound);
        }
        let version = device.disk.version();
        if device.version != version {
            device.version = version;
            self.checker.check_disk(index, &device.disk, existing.then_some(BEFORE));
        }
        let seen = std::mem::replace(&mut device.seen, node.log.len());
        for (_, event) in &node.log[seen..] {
            match event {
                ReceiverEvent::Committed { .. } => self.checker.check_complete(index, &device.disk),
                ReceiverEvent::Finished(outcome) => {
                    assert!(device.outcome.is_none(), "device {index} finishes twice at {now:?}");
                    device.outcome = Some(outcome.clone());
                }
                _ => {}
            }
        }
    }

    /// I5: names what has not come to its end.
    fn report_hang(&self, world: &World<Party>) {
        let at = world.now();
        for node in 0..=self.devices.len() as NodeId {
            match world.actor(node).filter(|_| !world.is_finished(node)) {
                Some(Party::Sender(s)) => {
                    panic!("I5: the sender is still running: {:#?}", s.engine.machine().snapshot(at))
                }
                Some(Party::Receiver(r)) => {
                    let snapshot = r.engine.machine().snapshot(at);
                    panic!("I5: device {} is still running: {snapshot:#?} {:?}", node - 1, r.log)
                }
                None => {}
            }
        }
    }

    /// The end: everything has ended, both sides agree, and expectations are met.
    fn judge(&self, world: &World<Party>) {
        let scenario = self.scenario;
        let sender_alive = world.actor(SENDER).is_some();
        if sender_alive {
            assert!(world.is_finished(SENDER), "I5: the sender never came to its end");
            let outcome = self.sender_outcome.as_ref().expect("I5: the sender finished with an outcome");
            if scenario.sender.is_steady() {
                assert_eq!(*outcome, SenderOutcome::Ended, "nothing happened to the sender");
            }
        }
        for (index, plan) in (0..).zip(&scenario.devices) {
            let device = &self.devices[index as usize];
            self.checker.check_disk(index, &device.disk, plan.existing.then_some(BEFORE));
            let has = self.checker.has_object(&device.disk);
            let status = self.table.borrow().look_up(device_id(index)).map(|row| row.status);
            let about = || {
                let (outcome, start) = (&device.outcome, plan.start);
                format!("device {index} started at {start:?}: {outcome:?}, table: {status:?}, plan: {plan:#?}")
            };
            let alive = world.actor(index + 1).is_some();
            if alive {
                assert!(device.outcome.is_some(), "I5: no outcome: {}", about());
            }
            if status == Some(DeviceStatus::Complete) {
                assert!(has, "I2: {}", about());
            }
            match &device.outcome {
                Some(ReceiverOutcome::Complete { acknowledged }) => {
                    assert!(has, "I1: {}", about());
                    if *acknowledged && sender_alive && scenario.sender.crash.is_none() {
                        assert_eq!(status, Some(DeviceStatus::Complete), "{}", about());
                    }
                }
                Some(ReceiverOutcome::AlreadyComplete) => assert!(has, "I2: {}", about()),
                _ => {}
            }
            match plan.expectation {
                Expectation::Complete => {
                    assert!(has, "it should be complete: {}", about());
                    assert_eq!(status, Some(DeviceStatus::Complete), "{}", about());
                }
                Expectation::Fails => {
                    assert!(!has, "it cannot be complete: {}", about());
                    assert_ne!(status, Some(DeviceStatus::Complete), "{}", about());
                }
                Expectation::Any => {}
            }
        }
    }

    fn report(&self, world: &World<Party>) -> Report {
        let complete = self.devices.iter().filter(|d| self.checker.has_object(&d.disk)).count();
        Report {
            took: world.now().since(Time::ZERO),
            steps: world.steps,
            devices: self.devices.len() as u64,
            complete: complete as u64,
            source_symbols: self.scenario.layout.total_source_symbols(),
            symbols: self.checker.symbols,
            feedback_max: self.checker.feedback_max,
            feedback_total: self.checker.feedback_total,
            network: world.network.counts,
            planned: Planned::of(self.scenario),
            disk_failures: self.devices.iter().map(|d| d.disk.failures()).sum(),
        }
    }
}

impl Director<Party> for Transfer<'_> {
    fn cue(&mut self, world: &mut World<Party>, number: u32) {
        let now = world.now();
        match self.cues[number as usize] {
            Cue::StartSender => {
                let sender = self.sender(now);
                world.start(SENDER, sender);
            }
            Cue::CrashSender => drop(world.stop(SENDER)),
            Cue::InterruptSender => {
                if let Some(Party::Sender(node)) = world.actor_mut(SENDER) {
                    node.engine.control(now, Control::Interrupt);
                }
            }
            Cue::StartNow => {
                if let Some(Party::Sender(node)) = world.actor_mut(SENDER) {
                    node.engine.control(now, Control::StartNow);
                }
            }
            Cue::ChangeSource => self.source.change(),
            Cue::StartDevice(index) => {
                let receiver = self.receiver(index, now);
                world.start(index + 1, receiver);
            }
            Cue::CrashDevice(index) => {
                let device = &mut self.devices[index as usize];
                device.disk.crash(&mut self.rng);
                device.outcome = None;
                drop(world.stop(index + 1));
                let before = self.scenario.devices[index as usize].existing.then_some(BEFORE);
                self.checker.check_disk(index, &self.devices[index as usize].disk, before);
            }
            Cue::InterruptDevice(index) => {
                if let Some(Party::Receiver(node)) = world.actor_mut(index + 1) {
                    node.engine.control(now, Control::Interrupt);
                }
            }
        }
    }

    fn sent(&mut self, now: Time, node: NodeId, to: SocketAddr, bytes: &[u8]) {
        if node == SENDER {
            self.checker.sender_sent(to.ip().is_multicast(), bytes);
        } else {
            assert_eq!(to, address(SENDER), "devices talk to the sender only");
            let incarnation = self.devices[node as usize - 1].incarnation;
            self.checker.device_sent(now, node, incarnation, bytes);
        }
    }

    fn stepped(&mut self, now: Time, node: NodeId, actor: &Party) {
        match actor {
            Party::Sender(sender) => self.look_at_sender(now, sender),
            Party::Receiver(receiver) => self.look_at_device(now, node - 1, receiver),
        }
    }
}
