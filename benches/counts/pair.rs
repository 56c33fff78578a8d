//! One sender and a few devices in this process: the real engine, machines, jobs, signatures and seals over queues in
//! memory and virtual time. A run is the same, to the datagram, each time.

use mcp::crypto::derive::Secret;
use mcp::crypto::sign::SigningKey;
use mcp::engine::jobs::{ReceiverFiles, run_receiver_job, run_sender_job, run_store_job};
use mcp::engine::{Engine, Jobs, Step, Stream};
use mcp::fec::PlanCache;
use mcp::layout::Layout;
use mcp::limits::{DEFAULT_SYMBOL_SIZE, FeedbackBudget};
use mcp::net::{Body, Net, Segment};
use mcp::pacing::RateMode;
use mcp::protocol::Machine;
use mcp::protocol::event::{ReceiverEvent, ReceiverOutcome};
use mcp::protocol::job::{ReceiverDone, ReceiverJob, SenderDone, SenderJob};
use mcp::protocol::receiver::{Receiver, ReceiverConfig};
use mcp::protocol::sender::{Sender, SenderConfig};
use mcp::storage::{Found, Part, RawBytes, Sink, SinkError, Source, SourceError};
use mcp::store::{MemoryStore, SharedStore};
use mcp::task::Task;
use mcp::time::Time;
use mcp::units::{Arrival, Counter, DeviceId, Extent, Rate, TaskId, Via};
use mcp::wire::Phase;
use nix::time::{ClockId, clock_gettime};
use std::collections::VecDeque;
use std::hint::black_box;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const TASK: TaskId = TaskId([1; 16]);
const GROUP: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(239, 1, 1, 1)), 7417);
/// Bits per second on the wire.
const RATE: u64 = 400_000_000;
/// Time that a datagram takes.
const DELAY: Duration = Duration::from_micros(100);
/// Bytes around a UDP payload on Ethernet, as the counters of a card have them: Ethernet, IPv4 and UDP.
const FRAMING: usize = 42;

/// What happened in a run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Traffic {
    /// Datagrams that the sender sent.
    pub sent: u64,
    /// Their bytes, headers of the network included.
    pub wire_bytes: u64,
    /// Datagrams that the devices sent.
    pub feedback: u64,
    /// Virtual time until the stream began, and until the end.
    pub gathered: Duration,
    pub ended: Duration,
    /// Processor time of the sender's loop until the stream began, and until the end.
    pub gathering: Duration,
    pub whole: Duration,
}

fn address(node: usize) -> SocketAddr {
    let [_, b, c, d] = (node as u32 + 1).to_be_bytes();
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, b, c, d)), 7418)
}

#[derive(Default)]
struct Queue {
    inbox: VecDeque<(Time, SocketAddr, Via, Arc<[u8]>)>,
    outbox: Vec<(SocketAddr, Arc<[u8]>)>,
    now: Time,
    scratch: Vec<u8>,
}

impl Net for Queue {
    fn send(&mut self, to: SocketAddr, segments: &[Segment<'_>]) -> io::Result<usize> {
        for segment in segments {
            let body = match segment.body {
                Body::None => &[],
                Body::Bytes(bytes) => bytes,
                Body::Raw(_) => return Err(io::Error::other("the source has no map")),
            };
            self.outbox.push((to, [segment.head, body].concat().into()));
        }
        Ok(segments.len())
    }
    fn receive(&mut self, sink: &mut dyn FnMut(Arrival, &mut [u8])) -> io::Result<usize> {
        let mut count = 0;
        while let Some((at, from, via, bytes)) = self.inbox.front()
            && *at <= self.now
            && count < 64
        {
            self.scratch.clear();
            self.scratch.extend_from_slice(bytes);
            sink(Arrival::at_once(*from, *via), &mut self.scratch);
            self.inbox.pop_front();
            count += 1;
        }
        Ok(count)
    }
    fn listen(&mut self, _: SocketAddr) {}
    fn kernel_drops(&self) -> u64 {
        0
    }
}

/// Executes each job at once.
struct AtOnce<F>(F);

impl<F: FnMut(SenderJob) -> SenderDone> Jobs<SenderJob, SenderDone> for AtOnce<F> {
    fn submit(&mut self, job: SenderJob) -> Option<SenderDone> {
        Some((self.0)(job))
    }
    fn finished(&mut self) -> Option<SenderDone> {
        None
    }
    fn source_unreadable(&mut self, why: String) -> SenderDone {
        SenderDone::SourceFailed(why)
    }
}

impl<F: FnMut(ReceiverJob) -> ReceiverDone> Jobs<ReceiverJob, ReceiverDone> for AtOnce<F> {
    fn submit(&mut self, job: ReceiverJob) -> Option<ReceiverDone> {
        Some((self.0)(job))
    }
    fn finished(&mut self) -> Option<ReceiverDone> {
        None
    }
    fn source_unreadable(&mut self, why: String) -> ReceiverDone {
        ReceiverDone::WorkerDied(why)
    }
}

/// An object in memory.
struct Object(Vec<u8>);

impl Source for Object {
    fn extent(&self) -> Extent {
        Extent::sealed(self.0.len() as u64)
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), SourceError> {
        let from = offset as usize;
        buf.copy_from_slice(&self.0[from..from + buf.len()]);
        Ok(())
    }
    fn raw(&self, _: u64, _: usize) -> Option<RawBytes> {
        None
    }
    fn check(&self) -> Result<(), SourceError> {
        Ok(())
    }
}

/// A part file in memory.
#[derive(Clone, Default)]
struct Copy(Arc<Mutex<Vec<u8>>>);

impl Sink for Copy {
    fn probe(&mut self, _: &str, _: Extent) -> Found {
        Found::Nothing
    }
    fn create(&mut self, _: &str, extent: Extent) -> Result<Box<dyn Part>, SinkError> {
        self.0.lock().expect("one thread").resize(extent.size as usize, 0);
        Ok(Box::new(self.clone()))
    }
}

impl Part for Copy {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), SinkError> {
        let from = offset as usize;
        self.0.lock().expect("one thread")[from..from + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), SinkError> {
        let from = offset as usize;
        buf.copy_from_slice(&self.0.lock().expect("one thread")[from..from + buf.len()]);
        Ok(())
    }
    fn commit(&self) -> Result<PathBuf, SinkError> {
        Ok(PathBuf::from("copy"))
    }
    fn discard(&self) {}
}

/// The sender's part of a run. Callgrind counts what is below this function.
#[inline(never)]
fn sender_step<M, W>(engine: &mut Engine<M, Queue, W>, now: Time) -> Step
where
    M: Machine,
    W: Jobs<M::Job, M::Done>,
{
    black_box(engine.step(now, &mut |_, _, _| ()).expect("nothing fails"))
}

/// A device's part of a run. Callgrind counts what is below this function.
#[inline(never)]
fn device_step<W>(
    engine: &mut Engine<Receiver, Queue, W>,
    now: Time,
    outcome: &mut Option<ReceiverOutcome>,
) -> Step
where
    W: Jobs<ReceiverJob, ReceiverDone>,
{
    let mut observe = |_: Time, _: &Receiver, event| {
        if let ReceiverEvent::Finished(end) = event {
            *outcome = Some(end);
        }
    };
    black_box(engine.step(now, &mut observe).expect("nothing fails"))
}

/// Processor time of this thread.
fn processor_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

/// Sends some KiB to `devices` devices. Each of them loses every `lose`th datagram of the group; none if that is 0.
///
/// # Panics
/// If a device does not get the object.
pub fn transfer(kib: usize, devices: usize, lose: u64) -> Traffic {
    let size = kib << 10;
    let mut bytes = vec![0; size];
    fastrand::Rng::with_seed(1).fill(&mut bytes);
    let object = Arc::new(Object(bytes));
    let layout = Layout::choose(size as u64, DEFAULT_SYMBOL_SIZE).expect("a valid layout");
    let (key, agreement, counter) = (SigningKey::new(&Secret::new([5; 32])), [6; 32], Counter(1));
    let mut config = SenderConfig::new(Task::copy(TASK, "copy"), layout, GROUP, (key, agreement, counter));
    config.rate = RateMode::Fixed(Rate(RATE));
    config.feedback = FeedbackBudget::of(Rate(RATE), 2);
    config.wait = Duration::from_secs(600);
    config.task.options.expected = Some(devices as u32);
    let session = SenderConfig::session(&config.signing_key, agreement, counter);
    let (plans, store) = (PlanCache::default(), SharedStore::new(MemoryStore::new()));
    let source: Arc<dyn Source> = object.clone();
    let stream =
        Stream { session, symbol_size: layout.symbol_size(), source: Arc::clone(&source), seal: None };
    let mut buffer = Vec::new();
    let work = AtOnce(|job: SenderJob| match job.is_for_store() {
        true => run_store_job(job, TASK, &store),
        false => run_sender_job(job, &*source, &plans, &mut buffer),
    });
    let mut sender = Engine::new(Sender::new(config, Time::ZERO), Queue::default(), work, Some(stream));
    let copies: Vec<Copy> = (0..devices).map(|_| Copy::default()).collect();
    let mut receivers: Vec<_> = copies
        .iter()
        .zip(1_u32..)
        .map(|(copy, n)| {
            let mut agreement = [7; 32];
            agreement[..4].copy_from_slice(&n.to_be_bytes());
            let config = ReceiverConfig::new(
                (DeviceId(u128::from(n).to_be_bytes()), format!("device {n}")),
                vec![GROUP],
                (u64::from(n), agreement),
            );
            let (files, plans) = (ReceiverFiles::new(Box::new(copy.clone())), PlanCache::default());
            let work = AtOnce(move |job| run_receiver_job(job, &files, &plans));
            (Engine::new(Receiver::new(config, Time::ZERO), Queue::default(), work, None), None)
        })
        .collect();
    let (mut traffic, mut now) = (Traffic::default(), Time::ZERO);
    let mut wakes = vec![Time::ZERO; devices + 1];
    let mut symbols = vec![0_u64; devices];
    while wakes.iter().any(|wake| *wake != Time::NEVER) {
        let arrivals = receivers.iter().map(|(engine, _)| engine.net()).chain([sender.net()]);
        let arrivals = arrivals.filter_map(|net| net.inbox.front()).map(|(at, ..)| *at);
        now = arrivals.chain(wakes.iter().copied()).min().unwrap_or(now).max(now);
        let due = |net: &Queue, wake: Time| {
            wake <= now || wake != Time::NEVER && net.inbox.front().is_some_and(|(at, ..)| *at <= now)
        };
        if due(sender.net(), wakes[0]) {
            sender.net_mut().now = now;
            let began = processor_time();
            let step = sender_step(&mut sender, now);
            traffic.whole += processor_time() - began;
            if sender.machine().overview().phase == Phase::Gathering {
                (traffic.gathered, traffic.gathering) = (now.since(Time::ZERO), traffic.whole);
            }
            traffic.ended = now.since(Time::ZERO);
            wakes[0] = if step.finished { Time::NEVER } else { step.wake.max(now) };
            for (to, bytes) in std::mem::take(&mut sender.net_mut().outbox) {
                traffic.sent += 1;
                traffic.wire_bytes += (bytes.len() + FRAMING) as u64;
                for (n, (engine, _)) in receivers.iter_mut().enumerate() {
                    let via = if to == GROUP { Via::Group } else { Via::Unicast };
                    if to != GROUP && to != address(n + 1) {
                        continue;
                    }
                    // Each device loses others than its neighbour.
                    symbols[n] += 1;
                    if lose == 0 || to != GROUP || !(symbols[n] + 7 * n as u64).is_multiple_of(lose) {
                        engine.net_mut().inbox.push_back((now + DELAY, address(0), via, bytes.clone()));
                    }
                }
            }
        }
        for (n, (engine, outcome)) in receivers.iter_mut().enumerate() {
            if !due(engine.net(), wakes[n + 1]) {
                continue;
            }
            engine.net_mut().now = now;
            let step = device_step(engine, now, outcome);
            wakes[n + 1] = if step.finished { Time::NEVER } else { step.wake.max(now) };
            for (_, bytes) in std::mem::take(&mut engine.net_mut().outbox) {
                traffic.feedback += 1;
                sender.net_mut().inbox.push_back((now + DELAY, address(n + 1), Via::Unicast, bytes));
            }
        }
        // What arrives after the end is dropped.
        for (net, wake) in receivers.iter_mut().map(|(e, _)| e.net_mut()).zip(&wakes[1..]) {
            if *wake == Time::NEVER {
                net.inbox.clear();
            }
        }
        if wakes[0] == Time::NEVER {
            sender.net_mut().inbox.clear();
        }
        assert!(now < Time::ZERO + Duration::from_secs(600), "the transfer does not end");
    }
    for (copy, (_, outcome)) in copies.iter().zip(&receivers) {
        assert!(matches!(outcome, Some(ReceiverOutcome::Complete { .. })), "{outcome:?}");
        assert!(*copy.0.lock().expect("one thread") == object.0, "a copy differs");
    }
    traffic
}
