//! Makes the senders, the devices and the hostile actors of a transfer. Each sender and device is an
//! engine on virtual ports.

use super::checks::Ledger;
use super::disk::{SimDisk, SimEarlier, SimSink, SimTickets};
use super::hostile::{self, Hostile};
use super::likely::Likely;
use super::node::{Actor, JobDelay, Node, SimJobs, SimNet, Work};
use super::output::Output;
use super::scenario::{DevicePlan, Scenario};
use super::source::SimSource;
use super::store::{SimStore, StoreClock};
use crate::command::{Facts, Hook};
use crate::crypto::sign::SigningKey;
use crate::engine::jobs::{ReceiverFiles, run_receiver_job, run_sender_job, run_store_job};
use crate::engine::{Egress, Engine, EngineError, Step, Stream};
use crate::fec::PlanCache;
use crate::pacing::START;
use crate::protocol::event::SenderEvent;
use crate::protocol::job::{ReceiverDone, ReceiverJob, SenderDone, SenderJob};
use crate::protocol::packet_protection::SenderSide;
use crate::protocol::receiver::{HookRule, Receiver, ReceiverConfig};
use crate::protocol::sender::{RepairPolicy, Sender, SenderConfig};
use crate::protocol::trust::Trust;
use crate::session::EgressBudget;
use crate::sim::sham;
use crate::storage::{Earlier, Sink, Source, Tickets};
use crate::store::SharedStore;
use crate::task::{DeviceList, Listed, Task, TaskOptions};
use crate::time::Time;
use crate::units::{Counter, DeviceId, DeviceKey, Intake, Rate, TaskId};
use crate::wire::ObjectKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The group for data.
pub(super) const DATA: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(239, 1, 1, 1)), 7417);
/// The default group, which also gets announcements.
pub(super) const RENDEZVOUS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(239, 255, 74, 17)), 7417);
/// The object's name.
pub const NAME: &str = "object.img";
/// Size of the sender's socket buffer in datagrams.
const SENDER_SOCKET: usize = 65_536;
/// Virtual worker threads of each node.
const WORKERS: usize = 2;

/// A node of either kind.
pub enum SimActor {
    /// The sender.
    Sender(Box<Node<Sender>>),
    /// A device.
    Receiver(Box<Node<Receiver>>),
    /// A hostile actor.
    Hostile(Box<Hostile>),
}

impl Actor for SimActor {
    fn step(&mut self, now: Time) -> Result<Step, EngineError> {
        match self {
            Self::Sender(node) => node.step(now),
            Self::Receiver(node) => node.step(now),
            Self::Hostile(hostile) => hostile.step(now),
        }
    }
    fn net(&mut self) -> &mut SimNet {
        match self {
            Self::Sender(node) => node.net(),
            Self::Receiver(node) => node.net(),
            Self::Hostile(hostile) => hostile.net(),
        }
    }
    fn next_done(&self) -> Time {
        match self {
            Self::Sender(node) => node.next_done(),
            Self::Receiver(node) => node.next_done(),
            Self::Hostile(hostile) => hostile.next_done(),
        }
    }
}

/// The identifier of the device with this number.
#[must_use]
pub fn device_id(index: u32) -> DeviceId {
    let mut id = [0xd0; 16];
    id[12..].copy_from_slice(&index.to_be_bytes());
    DeviceId(id)
}

/// What the device with this number calls itself.
#[must_use]
pub fn device_label(index: u32) -> String {
    format!("device {index}")
}

/// The key of the device with this number.
#[must_use]
pub fn device_key(index: u32) -> SigningKey {
    sham::signing_key(10_000 + u64::from(index))
}

/// Whether the device with this number has a state directory for tickets. The others are told by their silence.
#[must_use]
pub const fn keeps_tickets(index: u32) -> bool {
    index % 4 != 3
}

/// The list of all devices of `scenario`, with their keys.
fn list(scenario: &Scenario) -> DeviceList {
    let mut list = DeviceList::default();
    for index in 0..scenario.devices.len() as u32 {
        let key = Some(DeviceKey::of(&device_key(index)));
        let listed = Listed { device: device_id(index), name: device_label(index), key };
        list.add(listed).expect("each has a name and a key of its own");
    }
    list
}

/// The number of the device with this identifier.
#[must_use]
pub fn index_of(device: DeviceId) -> u32 {
    let [.., a, b, c, d] = device.0;
    u32::from_be_bytes([a, b, c, d])
}

/// The task of every sender.
pub const TASK: TaskId = TaskId([7; 16]);

/// A store as `scenario` has it, and what tells it the time.
#[must_use]
pub fn new_store(scenario: &Scenario) -> (SharedStore, StoreClock) {
    let clock = StoreClock::default();
    (SharedStore::new(SimStore::new(scenario.sender.store, clock.clone())), clock)
}

/// How long jobs take: up to `most`, now and then five times as long.
fn job_delay<J>(seed: u64, most: Duration) -> JobDelay<J> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let most = most.as_nanos() as u64;
    Box::new(move |_, _| {
        let times = if rng.u8(..50) == 0 { 5 } else { 1 };
        Duration::from_nanos(rng.u64(..=most) * times)
    })
}

/// The same, on a machine whose disk stores so many bytes a second. Its workers have equal shares of that.
fn storage_delay(mut usual: JobDelay<ReceiverJob>, disk: Option<u64>) -> JobDelay<ReceiverJob> {
    Box::new(move |job, now| match (disk, job) {
        (Some(disk), ReceiverJob::Store { assembly, .. }) => {
            let bytes = (assembly.buffer_len() * WORKERS) as f64;
            Duration::from_secs_f64(bytes / disk.max(1) as f64)
        }
        _ => usual(job, now),
    })
}

/// Random bytes for a key.
pub(super) fn random_bytes(seed: u64) -> [u8; 32] {
    let mut bytes = [0; 32];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    bytes
}

/// The sender of `scenario`, as started at `now`, and the ledger of what goes to whom; `work_seed` is its workers'.
#[must_use]
pub fn sender(
    scenario: &Scenario,
    counter: Counter,
    work_seed: u64,
    sim_source: SimSource,
    plans: Rc<PlanCache>,
    (store, clock): (SharedStore, StoreClock),
    now: Time,
) -> (SimActor, Ledger) {
    let layout = scenario.first_layout();
    let devices = scenario.listed.then(|| list(scenario));
    let options = TaskOptions { expected: scenario.expected, devices };
    let task = Task { options, ..Task::copy(TASK, NAME) };
    let who = (sham::signing_key(1), random_bytes(work_seed), counter);
    let head = scenario.tree().map(|tree| tree.head());
    let config = SenderConfig {
        rendezvous: vec![RENDEZVOUS],
        rate: scenario.rate_mode(),
        feedback: scenario.feedback(),
        repair: RepairPolicy::interactive(scenario.slow),
        compression: scenario.content.compression,
        window: scenario.sender.growth.and_then(|growth| growth.window),
        wait: scenario.wait,
        settle: scenario.settle,
        linger: scenario.linger,
        max_time: scenario.max_time,
        group_key: scenario.group_key.then(hostile::group_key),
        manifest: head.map(|head| head.encode()).unwrap_or_default(),
        ..SenderConfig::new(task, layout, DATA, who)
    };
    let config = match head {
        Some(_) => SenderConfig { kind: ObjectKind::Tree, ..config },
        None => config,
    };
    let (signing_key, random) = (config.signing_key.clone(), *config.agreement.expose());
    let side = SenderSide::new(counter, signing_key, random, config.suite, config.group_key.as_ref());
    let session = side.session();
    let source: Arc<dyn Source> = Arc::new(sim_source.clone());
    let job_source = Arc::clone(&source);
    let mut buffer = Vec::new();
    let (plan, mut usual) = (scenario.sender.store, job_delay(work_seed, scenario.sender.job));
    let (content, object) = (scenario.content, sim_source.bytes());
    let object_bytes = Arc::clone(&object);
    let (growth, mut read) = (scenario.sender.growth, 0..);
    let work = Work {
        run: Box::new(move |job: SenderJob, now| {
            clock.set(now);
            if job.is_for_store() {
                return run_store_job(job, TASK, &store);
            }
            let told = content.told(&job, &object);
            told.unwrap_or_else(|| run_sender_job(job, &*job_source, &plans, &mut buffer))
        }),
        lane: |job| match job {
            job if job.is_for_store() => Some(0),
            job if job.is_for_input() => Some(1),
            _ => None,
        },
        delay: Box::new(move |job, now| {
            let own = match job {
                job if job.is_for_store() => plan.delay(now),
                job if job.is_for_input() => {
                    growth.zip(read.next()).map_or(Duration::ZERO, |(g, n)| g.time_of(n))
                }
                _ => Duration::ZERO,
            };
            usual(job, now) + own
        }),
        source_unreadable: SenderDone::SourceFailed,
    };
    let net = SimNet::new(SENDER_SOCKET, Some(sim_source));
    let known = scenario.sender.known.map(|known| known.values(&object_bytes, &layout));
    let machine = Sender::new(config, now).with_values(known.unwrap_or_default());
    let stream = Stream { session, symbol_size: layout.symbol_size(), source, seal: machine.symbol_seal() };
    let engine = Engine::new(machine, net, SimJobs::new(WORKERS, work), Some(stream)).with_egress(
        scenario.budget.map(|rate| {
            // Before the budget's own beginning: both begin at 0.
            let start = Instant::now();
            let share = EgressBudget::new(Rate(rate)).share(start);
            Box::new(share) as Box<dyn Egress>
        }),
    );
    let most = scenario.budget.map(|budget| START.0.max(budget * 11 / 10));
    let on_event = Box::new(move |_: Time, sender: &Sender, _: &SenderEvent| {
        if let Some(most) = most {
            let rate = sender.overview().rate;
            assert!(rate.0 <= most, "what cannot be sent is aimed at: {rate:?}");
        }
    });
    (SimActor::Sender(Box::new(Node::new(engine, on_event))), Ledger::new(side))
}

/// A hook that ends with this status.
struct SimHook(i32);

impl Hook for SimHook {
    fn run(&self, _: &Facts<'_>) -> Result<i32, String> {
        Ok(self.0)
    }
    fn interrupt(&self) {}
}

/// The device with this number, started at `now`. `work_seed` is for its workers.
#[must_use]
pub fn receiver(
    plan: &DevicePlan,
    index: u32,
    [seed, work_seed]: [u64; 2],
    (disk, earlier, output): (SimDisk, Option<Arc<Vec<u8>>>, Option<Output>),
    buffer_bytes: usize,
    (plans, likely): (Rc<PlanCache>, Likely),
    (grouped, now): (bool, Time),
) -> SimActor {
    // With a group key, any signing member is trusted. Without one, the sender's key is pinned.
    let pinned = if grouped { Vec::new() } else { vec![sham::signing_key(1).public()] };
    let device = (device_id(index), device_label(index));
    let config = ReceiverConfig {
        device_key: Some(device_key(index)),
        timeout: plan.timeout,
        buffer_bytes,
        memory: Arc::new(likely),
        primitives: sham::SHAM,
        group_keys: grouped.then(hostile::group_key).into_iter().collect(),
        trust: Trust { pinned, ..Trust::anybody() },
        hook: plan.hook.map(|_| HookRule::default()),
        intake: plan.pipe.map_or(Intake::AnyOrder, |pipe| pipe.intake()),
        command: plan.pipe.is_some_and(|pipe| pipe.status.is_some()),
        ..ReceiverConfig::new(device, vec![DATA, RENDEZVOUS], (seed, random_bytes(seed)))
    };
    let earlier = earlier.map(|bytes| Box::new(SimEarlier(bytes)) as Box<dyn Earlier>);
    let hook = plan.hook.map(|(_, status)| Arc::new(SimHook(status)) as Arc<dyn Hook>);
    let tickets = keeps_tickets(index).then(|| Box::new(SimTickets(disk.clone())) as Box<dyn Tickets>);
    let reader = plan.pipe;
    let file = || Box::new(SimSink::new(disk, plan.force)) as Box<dyn Sink>;
    let sink = output.and_then(|output| output.sink(plan)).unwrap_or_else(file);
    let files = ReceiverFiles::new(sink).with_earlier(earlier).with_hook(hook).with_tickets_in(tickets);
    let (mut delay, hook_time) =
        (storage_delay(job_delay(work_seed, plan.job), plan.disk), plan.hook.map(|(time, _)| time));
    let work = Work {
        run: Box::new(move |job, _| run_receiver_job(job, &files, &plans)),
        lane: if reader.is_some() { |job| job.is_for_reader().then_some(0) } else { |_| None },
        delay: Box::new(move |job, now| match (job, hook_time, reader) {
            (ReceiverJob::Hook(_), Some(time), _) => time,
            (ReceiverJob::Write { .. }, _, Some(pipe)) => pipe.each,
            _ => delay(job, now),
        }),
        source_unreadable: ReceiverDone::WorkerDied,
    };
    let engine = Engine::new(
        Receiver::new(config, now),
        SimNet::new(plan.socket, None),
        SimJobs::new(WORKERS, work),
        None,
    );
    SimActor::Receiver(Box::new(Node::new(engine, Box::new(|_, _, _| {}))))
}
