use super::line::Line;
use super::link::Quality;
use super::network::{Attachment, NodeId, address};
use super::node::{Node, SimJobs, SimNet, Work};
use super::world::{Director, Pace, World};
use crate::engine::Engine;
use crate::protocol::{Control, Machine, Output, Payload, Transmit};
use crate::time::Time;
use crate::units::Arrival;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

/// Requests a number of answers from the other node, one at a time, and repeats a request that gets no
/// answer.
struct Pinger {
    to: Option<SocketAddr>,
    wanted: u32,
    got: u32,
    next: Time,
    out: VecDeque<Output<u32, u32>>,
}

impl Pinger {
    fn send(&mut self, to: SocketAddr, bytes: &[u8]) {
        let payload = Payload::Message(bytes.to_vec());
        self.out.push_back(Output::Transmit(Transmit { to, payload }));
    }
}

impl Machine for Pinger {
    type Job = u32;
    type Done = u32;
    type Event = u32;

    fn handle_datagram(&mut self, now: Time, arrival: Arrival, bytes: &mut [u8]) {
        if self.to.is_none() {
            // The answer takes a job.
            self.out.push_back(Output::Job(u32::from(arrival.from.ip().is_ipv6()) + 1));
            self.send(arrival.from, bytes);
        } else if bytes == self.got.to_be_bytes() {
            self.got += 1;
            self.out.push_back(Output::Event(self.got));
            self.next = now;
        }
    }
    fn handle_timeout(&mut self, now: Time) {
        if let Some(to) = self.to.filter(|_| self.got < self.wanted) {
            self.send(to, &self.got.to_be_bytes());
            self.next = now + Duration::from_millis(50);
        } else {
            self.next = Time::NEVER;
        }
    }
    fn handle_job_done(&mut self, _: Time, done: u32) {
        self.out.push_back(Output::Event(done));
    }
    fn handle_absence(&mut self, _: Time, _: Duration) {}
    fn handle_control(&mut self, _: Time, _: Control) {
        self.wanted = 0;
    }
    fn set_kernel_drops(&mut self, _: u64) {}
    fn poll(&mut self, _: Time) -> Option<Output<u32, u32>> {
        self.out.pop_front()
    }
    fn next_timeout(&self) -> Time {
        self.next
    }
    fn is_finished(&self) -> bool {
        self.to.is_some() && self.got >= self.wanted && self.out.is_empty()
    }
}

fn node(to: Option<SocketAddr>, wanted: u32) -> Node<Pinger> {
    let next = if to.is_some() { Time::ZERO } else { Time::NEVER };
    let machine = Pinger { to, wanted, got: 0, next, out: VecDeque::new() };
    let work = Work {
        run: Box::new(|job, _| job * 100),
        lane: |_| None,
        delay: Box::new(|_, _| Duration::from_millis(3)),
        source_unreadable: |_| 0,
    };
    let engine = Engine::new(machine, SimNet::new(4, None), SimJobs::new(1, work), None);
    Node::new(engine, Box::new(|_, _, _| {}))
}

#[derive(Default)]
struct Witness {
    sent: Vec<(Time, NodeId)>,
    cues: Vec<(Time, u32)>,
    power_cut: Option<(Time, NodeId)>,
    died: Vec<(Time, NodeId)>,
}

impl Director<Node<Pinger>> for Witness {
    fn cue(&mut self, world: &mut World<Node<Pinger>>, number: u32) {
        self.cues.push((world.now(), number));
        if number == 9 {
            drop(world.stop(1));
        }
    }
    fn sent(&mut self, now: Time, node: NodeId, _: SocketAddr, _: &[u8]) {
        self.sent.push((now, node));
    }
    fn stepped(&mut self, now: Time, node: NodeId, _: &Node<Pinger>) -> bool {
        self.power_cut != Some((now, node))
    }
    fn died(&mut self, world: &mut World<Node<Pinger>>, node: NodeId) {
        assert!(world.actor(node).is_none());
        self.died.push((world.now(), node));
    }
}

fn world(seed: u64, quality: &Quality) -> World<Node<Pinger>> {
    let mut world = World::new(seed);
    let attachment = Attachment {
        egress: Some(Line::new(10_000_000, 2_000, true)),
        up: quality.clone(),
        down: quality.clone(),
        ..Attachment::default()
    };
    world.add(attachment.clone(), Pace::default());
    world.add(attachment, Pace { per_datagram: Duration::from_micros(200) });
    world.start(0, node(Some(address(1)), 100));
    world.start(1, node(None, 0));
    world
}

#[test]
fn a_seed_replays_the_same_run() {
    let quality = Quality {
        loss: 0.2,
        delay: Duration::from_millis(1),
        jitter: Duration::from_millis(2),
        duplicate: 0.1,
        ..Quality::default()
    };
    let run = |seed| {
        let mut world = world(seed, &quality);
        let mut witness = Witness::default();
        assert!(world.run(Time(60_000_000_000), &mut witness));
        assert!(world.is_finished(0) && !world.is_finished(1));
        assert_eq!(world.actor(0).unwrap().log.len(), 100);
        (witness.sent, world.network.counts)
    };
    let (first, again, other) = (run(1), run(1), run(2));
    assert_eq!(first, again);
    assert_ne!(first, other);
    assert!(first.1.lost > 10 && first.1.duplicated > 5);
}

#[test]
fn time_passes_as_the_links_and_jobs_take_it() {
    let mut world = world(1, &Quality { delay: Duration::from_millis(2), ..Quality::default() });
    let mut witness = Witness::default();
    world.cue(Time(10_000_000), 5);
    assert!(world.run(Time(60_000_000_000), &mut witness));
    assert_eq!(witness.cues, [(Time(10_000_000), 5)]);
    // A hundred round trips: the up and the down link twice each, a little over 8 ms.
    let last = world.actor(0).unwrap().log.last().unwrap().0;
    assert!((Time(800_000_000)..Time(840_000_000)).contains(&last), "{last:?}");
    // Each answer's job ended after its 3 ms.
    let answers = &world.actor(1).unwrap().log;
    assert_eq!((answers.len(), answers[0].1), (100, 100));
    assert!((Time(7_000_000)..Time(7_300_000)).contains(&answers[0].0), "{:?}", answers[0]);
}

#[test]
fn a_node_that_is_switched_off_is_silent() {
    let mut world = world(1, &Quality::default());
    world.cue(Time(5_000_000), 9);
    let mut witness = Witness::default();
    // The first node repeats its request for ever.
    assert!(!world.run(Time(1_000_000_000), &mut witness));
    assert!(world.actor(1).is_none() && !world.is_finished(0));
    assert!(witness.sent.iter().all(|&(at, node)| node == 0 || at <= Time(5_000_000)));
    assert!(world.network.counts.unroutable > 10);
    world.actor_mut(0).unwrap().engine.control(Time::ZERO, Control::Interrupt);
    assert!(world.run(Time(2_000_000_000), &mut witness));
    assert!(world.is_finished(0));
}

/// A small sample of the seeds that `examples/simulate.rs` runs.
#[test]
fn seeds_of_mixed_faults_break_nothing() {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let summary = super::runner::run_seeds(0..100, threads, super::runner::Runs::Mixed, &(), |_, _| {});
    let failures = &summary.failures;
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn a_node_whose_power_goes_is_switched_off_at_that_step() {
    let mut world = world(1, &Quality { delay: Duration::from_millis(2), ..Quality::default() });
    // The other node gets the first datagram some 4 ms after it was sent.
    let mut witness = Witness::default();
    assert!(!world.run(Time(100_000_000), &mut witness) && world.is_running(1));
    let last = witness.sent.iter().rev().find(|(_, node)| *node == 1).expect("an answer").0;
    let mut again = self::world(1, &Quality { delay: Duration::from_millis(2), ..Quality::default() });
    let mut witness = Witness { power_cut: Some((last, 1)), ..Witness::default() };
    assert!(!again.run(Time(100_000_000), &mut witness));
    assert_eq!(witness.died, [(last, 1)]);
    assert!(!again.is_running(1) && again.is_running(0));
    assert!(witness.sent.iter().all(|&(at, node)| node == 0 || at <= last));
}
