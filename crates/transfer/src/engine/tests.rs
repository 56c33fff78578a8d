use super::run::{Host, Observer, Pollable};
use super::workers::{FailureResults, Workers};
use super::*;
use crate::layout::Layout;
use crate::net::{Body, Segment};
use crate::protocol::Payload;
use crate::sim::source::SimSource;
use crate::units::{Arrival, BlockIndex, Esi, SessionId, Via};
use crate::wire::{Message, PacketNumber, decode_plain};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

type Out = Output<u32, String>;

/// Says what it is told to say and remembers what it was told.
#[derive(Default)]
struct Toy {
    out: VecDeque<Out>,
    heard: Vec<String>,
    timeout: Option<Time>,
    polls: usize,
    done: bool,
}

impl Machine for Toy {
    type Job = u32;
    type Done = String;
    type Event = String;

    fn handle_datagram(&mut self, _: Time, arrival: Arrival, bytes: &mut [u8]) {
        self.heard.push(format!("{} from {}", String::from_utf8_lossy(bytes), arrival.from.port()));
        self.done |= bytes == b"end";
    }
    fn handle_timeout(&mut self, now: Time) {
        self.heard.push(format!("timeout {}", now.0));
        self.timeout = None;
    }
    fn handle_job_done(&mut self, _: Time, done: String) {
        self.heard.push(done);
    }
    fn handle_absence(&mut self, _: Time, away: Duration) {
        self.heard.push(format!("away {away:?}"));
    }
    fn handle_control(&mut self, _: Time, control: Control) {
        self.heard.push(format!("{control:?}"));
        self.done = true;
    }
    fn set_most(&mut self, most: Rate) {
        self.heard.push(format!("most {}", most.0));
    }
    fn set_kernel_drops(&mut self, drops: u64) {
        self.heard.push(format!("drops {drops}"));
    }
    fn poll(&mut self, _: Time) -> Option<Out> {
        self.polls += 1;
        self.out.pop_front()
    }
    fn next_timeout(&self) -> Time {
        self.timeout.unwrap_or(Time::NEVER)
    }
    fn is_finished(&self) -> bool {
        self.done && self.out.is_empty()
    }
}

/// Takes `room` datagrams and then no more.
#[derive(Default)]
struct ToyNet {
    room: usize,
    fault: Option<i32>,
    sent: Vec<(SocketAddr, Vec<u8>)>,
    inbox: VecDeque<(SocketAddr, Vec<u8>)>,
    drops: u64,
    groups: Vec<SocketAddr>,
    source: Option<SimSource>,
}

impl Net for ToyNet {
    fn send(&mut self, to: SocketAddr, segments: &[Segment<'_>]) -> io::Result<usize> {
        if let Some(errno) = self.fault {
            return Err(io::Error::from_raw_os_error(errno));
        }
        let count = segments.len().min(self.room);
        self.room -= count;
        for segment in &segments[..count] {
            let mut bytes = segment.head.to_vec();
            match segment.body {
                Body::None => {}
                Body::Bytes(b) => bytes.extend_from_slice(b),
                Body::Raw(raw) => {
                    bytes.extend_from_slice(self.source.as_ref().unwrap().resolve(raw).unwrap())
                }
            }
            self.sent.push((to, bytes));
        }
        Ok(count)
    }
    fn receive(&mut self, sink: &mut dyn FnMut(Arrival, &mut [u8])) -> io::Result<usize> {
        let Some((from, mut bytes)) = self.inbox.pop_front() else { return Ok(0) };
        sink(Arrival::at_once(from, Via::Unicast), &mut bytes);
        Ok(1)
    }
    fn listen(&mut self, group: SocketAddr) {
        self.groups.push(group);
    }
    fn kernel_drops(&self) -> u64 {
        self.drops
    }
}

/// Answers odd jobs at once; even ones never end by themselves.
#[derive(Default)]
struct ToyJobs {
    taken: Vec<u32>,
    done: VecDeque<String>,
}

impl Jobs<u32, String> for ToyJobs {
    fn submit(&mut self, job: u32) -> Option<String> {
        self.taken.push(job);
        (job % 2 == 1).then(|| format!("at once {job}"))
    }
    fn finished(&mut self) -> Option<String> {
        self.done.pop_front()
    }
    fn source_unreadable(&mut self, why: String) -> String {
        why
    }
}

type ToyEngine = Engine<Toy, ToyNet, ToyJobs>;

fn to() -> SocketAddr {
    "10.0.0.1:7".parse().unwrap()
}

fn stream(size: usize) -> (Stream, SimSource) {
    let source = SimSource::new(Arc::new((0..size).map(|i| i as u8).collect()));
    (Stream { session: SessionId(5), symbol_size: 64, source: Arc::new(source.clone()), seal: None }, source)
}

fn engine(out: impl IntoIterator<Item = Out>, size: usize) -> ToyEngine {
    let (stream, source) = stream(size);
    let machine = Toy { out: out.into_iter().collect(), ..Toy::default() };
    let net = ToyNet { room: usize::MAX, source: Some(source), ..ToyNet::default() };
    Engine::new(machine, net, ToyJobs::default(), Some(stream))
}

fn message(bytes: &[u8]) -> Out {
    Output::Transmit(Transmit { to: to(), payload: Payload::Message(bytes.to_vec()) })
}

fn symbols(ids: std::ops::Range<u32>) -> Out {
    symbols_of(16_384, ids)
}

/// Symbols of the second block of an object of `size` bytes.
fn symbols_of(size: u64, ids: std::ops::Range<u32>) -> Out {
    let layout = Layout::new(size, 13, 64).unwrap();
    let packet_number = PacketNumber(100);
    Output::Transmit(Transmit {
        to: to(),
        payload: Payload::Source { packet_number, block: BlockIndex(1), layout, ids },
    })
}

fn step(engine: &mut ToyEngine, now: u64) -> Step {
    engine.step(Time(now), &mut |_, _, _| {}).unwrap()
}

#[test]
fn inputs_go_in_and_outputs_come_out() {
    let group = "239.1.1.1:7".parse().unwrap();
    let out = [message(b"hello"), Output::Job(2), Output::Job(3), Output::Listen(group)];
    let mut engine = engine(out, 0);
    engine.machine.out.push_back(Output::Event("event".to_owned()));
    engine.machine.timeout = Some(Time(10));
    engine.net.drops = 4;
    engine.net.inbox.push_back((to(), b"datagram".to_vec()));
    engine.jobs.done.push_back("done".to_owned());
    let mut events = Vec::new();
    let first = engine.step(Time(10), &mut |at, _, event| events.push((at, event))).unwrap();
    assert_eq!(first, Step { wake: Time(10), writable: false, finished: false, received: 1 });
    assert_eq!(engine.machine.heard, ["drops 4", "done", "datagram from 7", "timeout 10", "at once 3"]);
    assert_eq!(events, [(Time(10), "event".to_owned())]);
    assert_eq!(engine.net.sent, [(to(), b"hello".to_vec())]);
    assert_eq!((engine.net.groups.clone(), engine.in_flight()), (vec![group], 1));
    // Nothing is left: it wants to wake never.
    assert_eq!(
        step(&mut engine, 11),
        Step { wake: Time::NEVER, writable: false, finished: false, received: 0 }
    );
    engine.control(Time(12), Control::Interrupt);
    assert!(step(&mut engine, 12).finished);
}

#[test]
fn a_held_up_transmission_keeps_its_place_and_inputs_still_come_in() {
    let mut engine = engine([symbols(0..100), message(b"after")], 16_384);
    engine.net.room = 70;
    engine.machine.timeout = Some(Time(1));
    engine.net.inbox.push_back((to(), b"in".to_vec()));
    let held = step(&mut engine, 0);
    assert_eq!(held, Step { wake: Time(0), writable: true, finished: false, received: 1 });
    let polls = engine.machine.polls;
    assert_eq!(
        step(&mut engine, 5),
        Step { wake: Time::NEVER, writable: true, finished: false, received: 0 }
    );
    assert_eq!(engine.machine.polls, polls);
    assert_eq!(engine.machine.heard, ["in from 7"]);
    engine.net.room = usize::MAX;
    assert!(!step(&mut engine, 6).writable);
    assert_eq!(engine.machine.heard, ["in from 7", "timeout 6"]);
    assert_eq!(engine.net.sent.len(), 101);
    for (i, (_, bytes)) in engine.net.sent[..100].iter().enumerate() {
        let (header, decoded) = decode_plain(bytes).unwrap();
        assert_eq!((header.session, header.packet_number), (SessionId(5), PacketNumber(100 + i as u64)));
        let Message::Symbol(symbol) = decoded else { panic!("{decoded:?}") };
        assert_eq!((symbol.block, symbol.esi), (BlockIndex(1), Esi(i as u32)));
        let expected: Vec<u8> = (8_192 + i * 64..).take(64).map(|b| b as u8).collect();
        assert_eq!(symbol.payload, expected);
    }
    assert_eq!(engine.net.sent[100].1, b"after");
}

#[test]
fn time_in_which_nothing_could_be_done_is_told() {
    let second = 1_000_000_000;
    let mut engine = engine([message(b"a"), message(b"b"), message(b"c")], 0);
    engine.net.room = 0;
    assert!(step(&mut engine, 0).writable);
    // Each time one goes out and the next is held up.
    for (at, heard) in [(1, None), (8, Some("away 7s"))] {
        engine.net.room = 1;
        assert!(step(&mut engine, at * second).writable);
        assert_eq!(engine.machine.heard.pop().as_deref(), heard);
    }
    // A stop meanwhile is told at once, and not once more.
    engine.absent(Time(14 * second), Duration::from_secs(6));
    assert_eq!(engine.machine.heard.pop().as_deref(), Some("away 6s"));
    engine.net.room = 1;
    assert!(!step(&mut engine, 15 * second).writable);
    assert!(engine.machine.heard.is_empty(), "{:?}", engine.machine.heard);
}

#[test]
fn after_an_interrupt_nothing_is_held_up_for_long() {
    let mut engine = engine([symbols(0..100), message(b"goodbye")], 16_384);
    engine.net.room = 0;
    engine.control(Time(0), Control::Interrupt);
    assert!(step(&mut engine, 0).writable);
    assert!(step(&mut engine, 1_900_000_000).writable);
    assert!(step(&mut engine, 2_000_000_000).finished);
    assert!(engine.net.sent.is_empty());
}

#[test]
fn repair_symbols_carry_on_where_the_range_begins() {
    let symbols: Vec<u8> = (0..80u8).flat_map(|i| [i; 64]).collect();
    let payload = Payload::Repair {
        packet_number: PacketNumber(9),
        block: BlockIndex(0),
        first: Esi(500),
        symbols: Arc::new(symbols),
        range: 64..79 * 64,
    };
    let mut engine = engine([Output::Transmit(Transmit { to: to(), payload })], 16_384);
    step(&mut engine, 0);
    assert_eq!(engine.net.sent.len(), 78);
    for (i, (_, bytes)) in engine.net.sent.iter().enumerate() {
        let Ok((header, Message::Symbol(symbol))) = decode_plain(bytes) else { panic!() };
        assert_eq!(header.packet_number, PacketNumber(9 + i as u64));
        assert_eq!((symbol.esi, symbol.payload), (Esi(500 + i as u32), &[i as u8 + 1; 64][..]));
    }
}

#[test]
fn the_last_symbol_of_a_block_is_cut_short() {
    let mut engine = engine([symbols_of(8_192 + 100, 0..2)], 8_192 + 100);
    step(&mut engine, 0);
    let lengths: Vec<usize> = engine.net.sent.iter().map(|(_, b)| b.len()).collect();
    let head = crate::limits::SYMBOL_HEADER_LEN;
    assert_eq!(lengths, [head + 64, head + 36]);
}

#[test]
fn a_source_that_cannot_be_read_is_told_to_the_machine() {
    let mut engine = engine([symbols(0..2), message(b"after")], 16_384);
    engine.net.fault = Some(libc::EFAULT);
    // The message after it fails with the same fault here; what counts is that nothing ends.
    step(&mut engine, 0);
    assert!(engine.machine.heard[0].contains("could not be read"), "{:?}", engine.machine.heard);
    engine.net.fault = Some(libc::ENODEV);
    engine.machine.out.push_back(message(b"x"));
    assert!(matches!(engine.step(Time(1), &mut |_, _, _| {}), Err(EngineError::Net(_))));
}

#[test]
fn broken_promises_are_errors() {
    let mut engine = engine((0..2_000).map(|_| Output::Job(2)), 0);
    let mut last = Ok(Step { wake: Time::ZERO, writable: false, finished: false, received: 0 });
    for _ in 0..40 {
        last = engine.step(Time::ZERO, &mut |_, _, _| {});
        if last.is_err() {
            break;
        }
    }
    assert!(matches!(last, Err(EngineError::TooManyJobs)));
    let mut engine = self::engine([symbols(0..1)], 100);
    engine.stream = None;
    assert!(matches!(engine.step(Time::ZERO, &mut |_, _, _| {}), Err(EngineError::NoStream)));
}

#[test]
fn a_machine_that_is_done_is_not_kept_by_what_still_comes_in() {
    let mut engine = engine([], 0);
    engine.net_mut().inbox.extend([(to(), b"end".to_vec()), (to(), b"more".to_vec())]);
    assert!(step(&mut engine, 1).finished);
}

#[test]
fn one_step_drains_a_bounded_number_of_outputs() {
    let mut engine = engine((0..100).map(|_| message(b"x")), 0);
    assert_eq!(step(&mut engine, 7).wake, Time(7));
    assert_eq!(engine.net.sent.len(), OUTPUTS_PER_STEP);
    assert_eq!(step(&mut engine, 7).wake, Time::NEVER);
    assert_eq!(engine.net.sent.len(), 100);
}

fn failure_results() -> FailureResults<String> {
    FailureResults { worker_died: |why| format!("died: {why}"), source_unreadable: |why| why }
}

#[test]
fn workers_work_survive_panics_and_are_joined() {
    let made = Arc::new(AtomicUsize::new(0));
    let woken = Arc::new(AtomicUsize::new(0));
    let (counter, wakes) = (Arc::clone(&made), Arc::clone(&woken));
    let wake = move || {
        wakes.fetch_add(1, Ordering::SeqCst);
    };
    let mut workers = Workers::start(2, failure_results(), wake, move || {
        counter.fetch_add(1, Ordering::SeqCst);
        Box::new(|job: u32| {
            assert_ne!(job, 13, "thirteen");
            format!("did {job}")
        })
    })
    .unwrap()
    .with_lane(
        "slow",
        |job| *job == 7,
        || {
            Box::new(|job| {
                std::thread::sleep(Duration::from_secs(3600));
                format!("did {job}")
            })
        },
    )
    .unwrap();
    // Several that hang keep nobody from working, nor from leaving.
    for _ in 0..3 {
        assert_eq!(workers.submit(7), None);
    }
    for job in [1, 13, 2, 3] {
        assert_eq!(workers.submit(job), None);
    }
    let mut done = Vec::new();
    while done.len() < 4 {
        match workers.finished() {
            Some(d) => done.push(d),
            None => std::thread::sleep(Duration::from_millis(1)),
        }
    }
    done.sort();
    assert_eq!(done[..3], ["did 1", "did 2", "did 3"]);
    assert!(done[3].starts_with("died: ") && done[3].contains("thirteen"), "{done:?}");
    drop(workers);
    assert_eq!(woken.load(Ordering::SeqCst), 4);
    // The one that panicked made itself a new runner, if it had another job.
    assert!((1..=3).contains(&made.load(Ordering::SeqCst)));
}

/// One real socket.
struct OneSocket(mio::net::UdpSocket);

impl Net for OneSocket {
    fn send(&mut self, to: SocketAddr, segments: &[Segment<'_>]) -> io::Result<usize> {
        for segment in segments {
            self.0.send_to(segment.head, to)?;
        }
        Ok(segments.len())
    }
    fn receive(&mut self, sink: &mut dyn FnMut(Arrival, &mut [u8])) -> io::Result<usize> {
        let mut bytes = [0; 2_000];
        match self.0.recv_from(&mut bytes) {
            Ok((len, from)) => {
                sink(Arrival::at_once(from, Via::Unicast), &mut bytes[..len]);
                Ok(1)
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(0),
            Err(e) => Err(e),
        }
    }
    fn listen(&mut self, _: SocketAddr) {}
    fn kernel_drops(&self) -> u64 {
        0
    }
}

impl Pollable for OneSocket {
    fn room(&self) -> usize {
        1000
    }
    fn tend(&mut self) -> Vec<String> {
        vec!["tended".to_owned()]
    }
    fn register(&mut self, registry: &mio::Registry, first_token: usize) -> io::Result<()> {
        let interest = mio::Interest::READABLE | mio::Interest::WRITABLE;
        registry.register(&mut self.0, mio::Token(first_token), interest)
    }
}

#[derive(Default)]
struct Log {
    asked: Arc<AtomicUsize>,
    warnings: Vec<String>,
    events: Vec<String>,
}

impl Observer<Toy> for Log {
    fn event(&mut self, _: Time, _: &Toy, event: String) {
        self.events.push(event);
    }
    fn warn(&mut self, _: Time, text: &str) {
        self.warnings.push(text.to_owned());
    }
    fn control(&mut self, _: Time, _: &Toy) -> Option<Control> {
        (self.asked.swap(0, Ordering::Relaxed) > 0).then_some(Control::Interrupt)
    }
}

#[test]
fn the_real_driver_wakes_for_sockets_workers_timeouts_and_controls() {
    let mut host = Host::new().unwrap();
    let socket = mio::net::UdpSocket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    let jobs =
        Workers::start(1, failure_results(), host.wake(), || Box::new(|job: u32| format!("did {job}")))
            .unwrap();
    let hello = Output::Transmit(Transmit { to: address, payload: Payload::Message(b"hello".to_vec()) });
    let mut machine = Toy { out: [Output::Job(4), hello].into(), ..Toy::default() };
    machine.timeout = Some(host.now() + Duration::from_millis(120));
    machine.out.push_back(Output::Event("event".to_owned()));
    let mut engine = Engine::new(machine, OneSocket(socket), jobs, None);
    let mut log = Log::default();
    let (asked, wake) = (Arc::clone(&log.asked), host.wake());
    let end = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(250));
        asked.store(1, Ordering::Relaxed);
        wake();
    });
    host.run(&mut engine, &mut log).unwrap();
    end.join().unwrap();
    let heard = &engine.machine().heard;
    assert!(heard.contains(&"did 4".to_owned()), "{heard:?}");
    assert!(heard.contains(&format!("hello from {}", address.port())), "{heard:?}");
    // A busy machine may be late, but not early.
    let timeout = heard.iter().find_map(|h| h.strip_prefix("timeout ")?.parse().ok());
    assert!(timeout.is_some_and(|at: u64| (120_000_000..1_000_000_000).contains(&at)), "{heard:?}");
    assert_eq!(heard.last().map(String::as_str), Some("Interrupt"));
    assert_eq!(log.events, ["event"]);
    assert!((2..=5).contains(&log.warnings.len()), "{:?}", log.warnings);
    assert!(log.warnings.iter().all(|text| text == "tended"), "{:?}", log.warnings);
}

/// Lets something through at certain times only.
#[derive(Default)]
struct ToyEgress {
    open: Arc<std::sync::atomic::AtomicBool>,
    charged: Arc<AtomicUsize>,
}

impl Egress for ToyEgress {
    fn ready(&mut self, now: Time) -> Result<(), Time> {
        if self.open.swap(false, Ordering::Relaxed) { Ok(()) } else { Err(now + Duration::from_millis(3)) }
    }
    fn charge(&mut self, bytes: u64) {
        self.charged.fetch_add(bytes as usize, Ordering::Relaxed);
    }
    fn most(&self) -> Rate {
        Rate(7)
    }
}

#[test]
fn while_others_have_their_turn_nothing_is_sent_and_pacing_stands_still() {
    let egress = ToyEgress::default();
    let (open, charged) = (Arc::clone(&egress.open), Arc::clone(&egress.charged));
    let message = |text: &str| {
        let to = "239.1.1.1:7417".parse().unwrap();
        Output::Transmit(Transmit { to, payload: Payload::Message(text.into()) })
    };
    let machine =
        Toy { out: [message("a"), message("b")].into(), timeout: Some(Time::ZERO), ..Toy::default() };
    let net = ToyNet { room: 10, ..ToyNet::default() };
    let mut engine = Engine::new(machine, net, ToyJobs::default(), None).with_egress(Some(Box::new(egress)));
    let step = |engine: &mut Engine<_, _, _>, ms| {
        engine.step(Time::ZERO + Duration::from_millis(ms), &mut |_, _, _| {}).unwrap()
    };
    let held = step(&mut engine, 1);
    assert_eq!((held.wake, held.writable), (Time::ZERO + Duration::from_millis(4), false));
    assert!(engine.machine().heard.iter().all(|h| h == "most 7"), "not told the time either");
    assert_eq!(engine.machine().polls, 0);
    open.store(true, Ordering::Relaxed);
    let held = step(&mut engine, 4);
    assert_eq!(engine.net().sent.len(), 1, "one turn, one transmission");
    assert_eq!(held.wake, Time::ZERO + Duration::from_millis(7));
    assert_eq!(charged.load(Ordering::Relaxed), 1 + 66, "with what is around it on the wire");
    // Who interrupts does not wait for ever.
    engine.control(Time::ZERO, Control::Interrupt);
    assert!(!step(&mut engine, 1_000).finished);
    assert!(step(&mut engine, 2_000).finished);
    assert_eq!(engine.net().sent.len(), 2);
}
