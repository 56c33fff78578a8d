//! One transfer in the virtual world. It builds the sender and the devices of a scenario, crashes and
//! restarts them, observes every step, and checks the end.

use super::actors::{self, NAME, SimActor};
use super::checks::{Checker, Ledger};
use super::disk::SimDisk;
use super::faults::Faults;
use super::hostile::Air;
use super::likely::Likely;
use super::network::forger::Forger;
use super::network::{NodeId, address};
use super::node::Node;
use super::output::Output;
use super::planned::Planned;
use super::scenario::Scenario;
use super::source::SimSource;
use super::store::StoreClock;
use super::surface::Surface;
use super::totals::{Measured, MeasuredDevice, Totals};
use super::world::{Director, Pace, World};
use crate::fec::PlanCache;
use crate::protocol::Control;
use crate::protocol::event::{ReceiverEvent, ReceiverOutcome, SenderEvent, SenderOutcome};
use crate::protocol::receiver::Receiver;
use crate::protocol::sender::{Compression, Sender};
use crate::store::SharedStore;
use crate::time::Time;
use crate::wire::{self, Message, Phase, Symbol};
use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use watch::Watch;

pub use agreement::run_below;

/// Content of a device's existing file.
const BEFORE: &[u8] = b"what was there before";
/// The sender's node.
const SENDER: NodeId = 0;
/// Steps of a receiver between two checks of its buffers.
const BUFFER_LOOK: u64 = 8;

mod agreement;
mod attack;
mod nodes;
mod verdicts;
mod watch;

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
    StartHostile(u32),
}

/// The state of one device.
struct Device {
    disk: SimDisk,
    /// Where the object goes, if not to a file.
    output: Option<Output>,
    /// Number of its starts.
    incarnation: u32,
    /// Outcome of its last run.
    outcome: Option<ReceiverOutcome>,
    /// Time at which it last had the object in place.
    completed: Option<Time>,
    /// Number of its logged events that were checked.
    seen: usize,
    steps: u64,
    version: u64,
    /// Changes of its disk before its last incarnation, until a session admits that.
    untouched: Option<u64>,
}

impl Device {
    /// Whether it has the object in place, or has passed it on.
    fn has_object(&self, checker: &Checker) -> bool {
        checker.has_object(&self.disk, self.output.as_ref())
    }
    /// Counts the changes of what it stores.
    fn changes(&self) -> u64 {
        self.disk.changes() + self.output.as_ref().map_or(0, Output::changes)
    }
    /// Whether its power failed at an operation of its storage.
    fn take_power_loss(&self) -> bool {
        let other = self.output.as_ref().is_some_and(Output::take_power_loss);
        self.disk.take_power_loss() || other
    }
    /// Cuts its power.
    fn crash(&self, rng: &mut fastrand::Rng) {
        self.disk.crash(rng);
        if let Some(output) = &self.output {
            output.crash(rng);
        }
    }
}

/// The run of one scenario.
struct Transfer<'a, 't> {
    scenario: &'a Scenario,
    /// What is above the world.
    surface: &'a dyn Surface,
    rng: fastrand::Rng,
    object: Arc<Vec<u8>>,
    source: SimSource,
    plans: Rc<PlanCache>,
    /// The expected object, which devices' buffers share.
    likely: Likely,
    store: (SharedStore, StoreClock),
    checker: Checker,
    /// The ledger of the present sender.
    ledger: Rc<RefCell<Ledger>>,
    /// Most rows that the sender may have.
    most_rows: usize,
    /// The knowledge of hostile actors.
    air: Rc<RefCell<Air>>,
    cues: Vec<Cue>,
    devices: Vec<Device>,
    sender_outcome: Option<SenderOutcome>,
    /// Time at which the stream first began.
    started: Option<Time>,
    sender_seen: usize,
    /// Times of the present sender.
    watch: Watch,
    sender_incarnation: u64,
    /// Faults of the cues; disks and network count the others.
    faults: Faults,
    trace: Option<Trace<'t>>,
}

/// Takes a line of text for each event and each control message.
pub type Trace<'a> = &'a mut (dyn FnMut(std::fmt::Arguments<'_>) + 'a);

/// Runs `scenario` to its end.
///
/// # Panics
/// If an invariant is broken, a node hangs, or an expectation is not met.
#[must_use]
pub fn run(scenario: &Scenario, trace: Option<Trace<'_>>) -> Totals {
    run_below(&(), scenario, trace)
}

/// Like [`run`], with meters on all traffic, which take memory.
///
/// # Panics
/// As for [`run`].
#[must_use]
pub fn measure(scenario: &Scenario) -> Measured {
    let mut transfer = Transfer::new(&(), scenario, None);
    let mut world = World::new(scenario.seed ^ 0x0f_f1ce);
    world.network.measure();
    let mut world = transfer.play(world);
    let totals = transfer.totals(&world);
    let mut meters = |node| world.network.take_meters(node).unwrap_or_default();
    let of =
        |(node, device): (_, &Device)| MeasuredDevice { meters: meters(node), completed: device.completed };
    let devices = (1..).zip(&transfer.devices).map(of).collect();
    Measured { totals, started: transfer.started, sender: meters(SENDER), devices }
}

fn seconds(at: Time) -> String {
    format!("{:11.6}", at.since(Time::ZERO).as_secs_f64())
}

impl<'a, 't> Transfer<'a, 't> {
    fn new(surface: &'a dyn Surface, scenario: &'a Scenario, trace: Option<Trace<'t>>) -> Self {
        let mut rng = fastrand::Rng::with_seed(scenario.seed);
        let mut object = vec![0; scenario.layout.object_size() as usize];
        rng.fill(&mut object);
        scenario.content.shape(&mut object, &scenario.layout, scenario.seed);
        let tree = scenario.tree();
        tree.iter().for_each(|tree| tree.shape(&mut object));
        let object = Arc::new(object);
        let devices = (0_u32..).zip(&scenario.devices).map(|(index, plan)| {
            let disk = SimDisk::new(plan.faults, Arc::clone(&object));
            if plan.existing {
                disk.put(NAME, BEFORE.to_vec());
            }
            Device {
                disk,
                output: Output::of(plan, tree.as_ref(), &object, scenario.seed ^ u64::from(index)),
                incarnation: 0,
                outcome: None,
                completed: None,
                seen: 0,
                steps: 0,
                version: 0,
                untouched: None,
            }
        });
        Self {
            scenario,
            surface,
            object: Arc::clone(&object),
            source: SimSource::new(Arc::clone(&object)),
            plans: Rc::new(PlanCache::default()),
            likely: Likely::new(Arc::clone(&object)),
            store: actors::new_store(scenario),
            checker: Checker::new(Arc::clone(&object), scenario.layout, NAME.to_owned())
                .bounding(scenario.feedback())
                .packing(scenario.content.compression != Compression::Off || scenario.content.lie.is_some()),
            ledger: attack::no_ledger(),
            most_rows: 0,
            air: attack::air(scenario, &object),
            cues: Vec::new(),
            devices: devices.collect(),
            sender_outcome: None,
            started: None,
            sender_seen: 0,
            watch: Watch::default(),
            sender_incarnation: 0,
            faults: Faults::default(),
            trace,
            rng,
        }
    }

    /// Runs all events of `world`, and checks the end.
    fn play(&mut self, mut world: World<SimActor>) -> World<SimActor> {
        self.most_rows = self.most_rows();
        self.build(&mut world);
        let ended = world.run(self.scenario.deadline(), self);
        if !ended {
            self.report_hang(&world);
        }
        self.check_end(&world);
        world
    }

    fn cue(&mut self, world: &mut World<SimActor>, at: Option<Time>, cue: Cue) {
        if let Some(at) = at {
            world.cue(at, self.cues.len() as u32);
            self.cues.push(cue);
        }
    }

    fn build(&mut self, world: &mut World<SimActor>) {
        let scenario = self.scenario;
        let sender = &scenario.sender;
        if scenario.forger > 0.0 {
            world.network.suffer(Forger::new(scenario.seed, scenario.layout, scenario.forger));
        }
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
        for (i, plan) in (0..).zip(&scenario.hostile) {
            world.add(plan.attachment.clone(), Pace::default());
            self.cue(world, Some(plan.start), Cue::StartHostile(i));
        }
    }

    /// Handles a device without power: its disk keeps its present content.
    fn bury(&mut self, index: u32) {
        let before = self.scenario.devices[index as usize].existing.then_some(BEFORE);
        let device = &mut self.devices[index as usize];
        device.outcome = None;
        device.version = device.disk.version();
        self.checker.check_disk(index, &device.disk, before);
    }

    fn look_at_sender(&mut self, now: Time, node: &Node<Sender>) {
        self.check_table_sizes(node.engine.machine().table_sizes());
        self.check_answers(now);
        let seen = std::mem::replace(&mut self.sender_seen, node.log.len());
        for (_, event) in &node.log[seen..] {
            if let Some(trace) = &mut self.trace {
                trace(format_args!("{} sender: {event:?}", seconds(now)));
            }
            self.check_listed(now, node.engine.machine(), event);
            self.watch(now, event);
            match event {
                SenderEvent::Device(row) if row.assignment.is_complete() => {
                    // A liar harms itself.
                    let address = row.transfer.address.expect("it has joined");
                    let Some(index) = self.honest_at(address) else { continue };
                    let device = &self.devices[index as usize];
                    self.checker.check_complete(index, &device.disk, device.output.as_ref());
                }
                SenderEvent::Phase(Phase::Streaming) => {
                    self.started.get_or_insert(now);
                }
                SenderEvent::DuplicateId { addresses, .. } => self.check_twins(addresses),
                SenderEvent::StoreFails(_) => self.faults.count("store: failed"),
                SenderEvent::Finished(outcome) => {
                    if matches!(outcome, SenderOutcome::StoreFailed(_)) {
                        self.faults.count("store: given up");
                    }
                    self.air.borrow_mut().over = self.scenario.sender.crash.is_none();
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
        if device.steps.is_multiple_of(BUFFER_LOOK) {
            let buffered = node.engine.machine().snapshot().buffered;
            self.checker.check_buffered(index, buffered, bound);
        }
        let version = device.disk.version();
        if device.version != version {
            device.version = version;
            self.checker.check_disk(index, &device.disk, existing.then_some(BEFORE));
        }
        let seen = std::mem::replace(&mut device.seen, node.log.len());
        for (_, event) in &node.log[seen..] {
            if let Some(trace) = &mut self.trace {
                trace(format_args!("{} device {index}: {event:?}", seconds(now)));
            }
            match event {
                ReceiverEvent::Admitted => device.untouched = None,
                ReceiverEvent::Committed { .. } => {
                    self.checker.check_complete(index, &device.disk, device.output.as_ref());
                    device.completed = Some(now);
                }
                ReceiverEvent::Finished(outcome) => {
                    assert!(device.outcome.is_none(), "device {index} finishes twice at {now:?}");
                    device.outcome = Some(outcome.clone());
                }
                _ => {}
            }
        }
        self.checker.check_untouched(index, device.changes(), device.untouched);
    }

    fn totals(&self, world: &World<SimActor>) -> Totals {
        let complete = self.devices.iter().filter(|d| d.has_object(&self.checker)).count();
        let last = self.devices.iter().filter_map(|d| d.completed).max();
        Totals {
            runs: 1,
            devices: self.devices.len() as u64,
            complete: complete as u64,
            virtual_time: world.now().since(Time::ZERO),
            transfer_time: last.zip(self.started).map_or(Duration::ZERO, |(end, start)| end.since(start)),
            steps: world.steps,
            source_symbols: self.scenario.layout.total_source_symbols(),
            symbols: self.checker.symbols,
            feedback_max: self.checker.feedback_max,
            feedback_total: self.checker.feedback_total,
            network: world.network.counts,
            planned: Planned::of(self.scenario),
            faults: self.struck(world),
        }
    }
}

impl Director<SimActor> for Transfer<'_, '_> {
    fn cue(&mut self, world: &mut World<SimActor>, number: u32) {
        let now = world.now();
        let cue = self.cues[number as usize];
        let class = match cue {
            Cue::CrashSender => Some((SENDER, "sender crashed")),
            Cue::InterruptSender => Some((SENDER, "sender interrupted")),
            Cue::ChangeSource => Some((SENDER, "source changed")),
            Cue::CrashDevice(index) => Some((index + 1, "device crashed")),
            Cue::InterruptDevice(index) => Some((index + 1, "device interrupted")),
            Cue::StartSender | Cue::StartNow | Cue::StartDevice(_) | Cue::StartHostile(_) => None,
        };
        if let Some((_, class)) = class.filter(|&(node, _)| world.is_running(node)) {
            self.faults.count(class);
        }
        if let Some(trace) = &mut self.trace {
            trace(format_args!("{} cue: {cue:?}", seconds(now)));
        }
        match cue {
            Cue::StartSender => {
                let sender = self.sender(now);
                world.start(SENDER, sender);
            }
            Cue::CrashSender => drop(world.stop(SENDER)),
            Cue::InterruptSender => {
                if let Some(SimActor::Sender(node)) = world.actor_mut(SENDER) {
                    node.engine.control(now, Control::Interrupt);
                }
            }
            Cue::StartNow => {
                if let Some(SimActor::Sender(node)) = world.actor_mut(SENDER) {
                    node.engine.control(now, Control::StartNow);
                }
            }
            Cue::ChangeSource => self.source.change(),
            Cue::StartDevice(index) => {
                let receiver = self.receiver(index, now);
                world.start(index + 1, receiver);
            }
            Cue::CrashDevice(index) => {
                self.devices[index as usize].crash(&mut self.rng);
                drop(world.stop(index + 1));
                self.bury(index);
            }
            Cue::StartHostile(index) => {
                let (node, hostile) = self.hostile(index);
                world.start(node, hostile);
            }
            Cue::InterruptDevice(index) => {
                if let Some(SimActor::Receiver(node)) = world.actor_mut(index + 1) {
                    node.engine.control(now, Control::Interrupt);
                }
            }
        }
    }

    fn sent(&mut self, now: Time, node: NodeId, to: SocketAddr, bytes: &[u8]) {
        if let Some(trace) = &mut self.trace {
            match wire::decode_plain(bytes) {
                Ok((header, Message::Symbol(Symbol { block, esi: id, .. }))) => {
                    let number = header.packet_number.0;
                    trace(format_args!(
                        "{} {node} -> {to}: {number:x} symbol {} of {}",
                        seconds(now),
                        id.0,
                        block.0
                    ));
                }
                // All other messages are signed or sealed.
                _ => {
                    if let Some((header, kind)) = wire::peek(bytes) {
                        let number = header.packet_number.0;
                        trace(format_args!("{} {node} -> {to}: {number:x} {kind}", seconds(now)));
                    }
                }
            }
        }
        if self.is_hostile(node) {
            return;
        }
        if !self.scenario.hostile.is_empty() {
            self.air.borrow_mut().overhear(address(node), to, bytes);
        }
        if node == SENDER {
            let mut ledger = self.ledger.borrow_mut();
            ledger.went(now, to, bytes);
            self.checker.sender_sent(to.ip().is_multicast(), bytes, &ledger);
        } else {
            if self.scenario.hostile.is_empty() {
                assert_eq!(to, address(SENDER), "devices talk to the sender only");
            } else if to != address(SENDER) {
                self.faults.count("outsider: word to the sender lured elsewhere");
            }
            let incarnation = self.devices[node as usize - 1].incarnation;
            self.checker.device_sent(now, node, incarnation, bytes);
        }
    }

    fn stepped(&mut self, now: Time, node: NodeId, actor: &SimActor) -> bool {
        match actor {
            SimActor::Sender(sender) => self.look_at_sender(now, sender),
            SimActor::Receiver(receiver) => {
                self.look_at_device(now, node - 1, receiver);
                return !self.devices[node as usize - 1].take_power_loss();
            }
            SimActor::Hostile(_) => {}
        }
        true
    }

    fn died(&mut self, world: &mut World<SimActor>, node: NodeId) {
        let index = node - 1;
        self.bury(index);
        let back = self.scenario.devices[index as usize].back;
        self.cue(world, back.map(|later| world.now() + later), Cue::StartDevice(index));
    }
}
