//! The event queue: it delivers events to nodes in the order of their times, until all nodes have ended.

use super::network::{Arrival, Attachment, Network, NodeId, Stage, VOLLEY, address};
use super::node::{Actor, Sent};
use crate::time::Time;
use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::net::SocketAddr;
use std::time::Duration;

/// Most steps of one node at one instant. More mean an endless loop.
const LIVELOCK: u32 = 200_000;

enum Happening {
    Arrival(Stage, Arrival),
    Wake(NodeId),
    /// An event of the director, by its number.
    Cue(u32),
}

struct Event {
    at: Time,
    /// Order of creation. Events of one instant happen in this order.
    order: u64,
    what: Happening,
}

impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Event {}
impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Event {
    /// The earliest event is the greatest, because `BinaryHeap` pops the greatest first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

/// The speed of a node.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    /// Time that the node's loop takes for each received datagram.
    pub per_datagram: Duration,
}

struct Slot<A> {
    actor: Option<A>,
    finished: bool,
    pace: Pace,
    busy_until: Time,
    /// Time at which the node wants to run.
    wake: Time,
    /// The earliest wake event in the queue.
    queued: Time,
}

/// Observes and disturbs a world.
pub trait Director<A> {
    /// Handles the cue with this number.
    fn cue(&mut self, world: &mut World<A>, number: u32);
    /// Observes a datagram that a node has sent.
    fn sent(&mut self, now: Time, node: NodeId, to: SocketAddr, bytes: &[u8]);
    /// Observes a step of a node. Returns false if the node loses power: it is switched off in its
    /// present state, and [`Director::died`] follows.
    fn stepped(&mut self, now: Time, node: NodeId, actor: &A) -> bool;
    /// Handles a node that has lost power and is switched off.
    fn died(&mut self, world: &mut World<A>, node: NodeId);
}

/// The world.
pub struct World<A> {
    now: Time,
    queue: BinaryHeap<Event>,
    made: u64,
    slots: Vec<Slot<A>>,
    /// The network between the nodes.
    pub network: Network,
    /// Engine steps so far.
    pub steps: u64,
}

impl<A: Actor> World<A> {
    /// An empty world. `seed` drives its network.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let (queue, slots) = (BinaryHeap::new(), Vec::new());
        Self { now: Time::ZERO, queue, made: 0, slots, network: Network::new(seed), steps: 0 }
    }
    /// The present time.
    #[must_use]
    pub const fn now(&self) -> Time {
        self.now
    }
    /// Adds a node, switched off.
    pub fn add(&mut self, attachment: Attachment, pace: Pace) -> NodeId {
        let (busy_until, wake, queued) = (Time::ZERO, Time::NEVER, Time::NEVER);
        self.slots.push(Slot { actor: None, finished: false, pace, busy_until, wake, queued });
        self.network.attach(attachment)
    }
    /// Switches a node on.
    pub fn start(&mut self, node: NodeId, actor: A) {
        let slot = &mut self.slots[node as usize];
        slot.actor = Some(actor);
        slot.finished = false;
        slot.busy_until = self.now;
        self.wake_at(node, self.now);
    }
    /// Switches a node off in its present state, and returns its actor.
    pub fn stop(&mut self, node: NodeId) -> Option<A> {
        self.network.leave(node);
        let slot = &mut self.slots[node as usize];
        slot.wake = Time::NEVER;
        slot.actor.take()
    }
    /// The node's actor, if it is switched on (or has finished).
    #[must_use]
    pub fn actor(&self, node: NodeId) -> Option<&A> {
        self.slots[node as usize].actor.as_ref()
    }
    /// The node's actor, to change it. The node is stepped afterwards.
    pub fn actor_mut(&mut self, node: NodeId) -> Option<&mut A> {
        if self.slots[node as usize].actor.is_some() {
            self.wake_at(node, self.now);
        }
        self.slots[node as usize].actor.as_mut()
    }
    /// Whether the node's machine has ended.
    #[must_use]
    pub fn is_finished(&self, node: NodeId) -> bool {
        self.slots[node as usize].finished
    }
    /// Whether the node is switched on and its machine has not ended.
    #[must_use]
    pub fn is_running(&self, node: NodeId) -> bool {
        self.actor(node).is_some() && !self.is_finished(node)
    }
    /// Gives the director a cue at `at`.
    pub fn cue(&mut self, at: Time, number: u32) {
        self.push(at, Happening::Cue(number));
    }

    /// Runs events until `until`, or until none is left; false if some are left.
    ///
    /// # Panics
    /// If an engine fails or a node runs in an endless loop.
    pub fn run(&mut self, until: Time, director: &mut impl Director<A>) -> bool {
        while let Some(event) = self.queue.pop() {
            if event.at > until {
                self.queue.push(event);
                self.now = until;
                return false;
            }
            self.now = event.at;
            match event.what {
                Happening::Cue(number) => director.cue(self, number),
                Happening::Arrival(Stage::Line, arrival) => {
                    let mut later = Later { queue: &mut self.queue, made: &mut self.made };
                    self.network.enter(self.now, &arrival, &mut |at, stage, a| later.push(at, stage, a));
                }
                Happening::Arrival(Stage::Socket, arrival) => self.arrive(arrival, director),
                Happening::Wake(node) => {
                    let slot = &mut self.slots[node as usize];
                    if slot.queued == self.now {
                        slot.queued = Time::NEVER;
                    }
                    if slot.wake <= self.now {
                        self.step(node, director);
                    } else if slot.wake < slot.queued {
                        // The node has set a later wake-up since.
                        self.wake_at(node, self.slots[node as usize].wake);
                    }
                }
            }
        }
        true
    }

    fn push(&mut self, at: Time, what: Happening) {
        self.made += 1;
        self.queue.push(Event { at, order: self.made, what });
    }

    fn wake_at(&mut self, node: NodeId, at: Time) {
        let slot = &mut self.slots[node as usize];
        slot.wake = at;
        if at < slot.queued {
            slot.queued = at;
            self.push(at, Happening::Wake(node));
        }
    }

    fn arrive(&mut self, arrival: Arrival, director: &mut impl Director<A>) {
        let node = arrival.node;
        let slot = &mut self.slots[node as usize];
        let Some(actor) = slot.actor.as_mut().filter(|_| !slot.finished) else {
            self.network.counts.unroutable += u64::from(arrival.count());
            return;
        };
        let dropped = actor.net().arrive(arrival);
        if dropped > 0 {
            self.network.socket_dropped(self.now, node, dropped);
        }
        if slot.busy_until <= self.now {
            self.step(node, director);
        } else if slot.busy_until < slot.wake {
            self.wake_at(node, self.slots[node as usize].busy_until);
        }
    }

    /// Steps a node until it waits, and carries its datagrams.
    fn step(&mut self, node: NodeId, director: &mut impl Director<A>) {
        let now = self.now;
        let slot = &mut self.slots[node as usize];
        let Some(actor) = slot.actor.as_mut().filter(|_| !slot.finished) else { return };
        let mut rounds = 0;
        let step = loop {
            rounds += 1;
            assert!(rounds < LIVELOCK, "node {node} runs in circles at {now:?}");
            self.steps += 1;
            let net = actor.net();
            let waiting = net.waiting();
            net.room = self.network.room(node, now);
            let step = match actor.step(now) {
                Ok(step) => step,
                Err(e) => panic!("the engine of node {node} failed at {now:?}: {e}"),
            };
            let net = actor.net();
            let received = waiting - net.waiting();
            for group in net.listens.drain(..) {
                self.network.listen(node, group);
            }
            let mut outbox = std::mem::take(&mut net.outbox).into_iter().peekable();
            while let Some(Sent { spoofed, to, bytes }) = outbox.next() {
                let mut volley = vec![bytes];
                while volley.len() < VOLLEY
                    && let Some(next) = outbox.next_if(|next| (next.spoofed, next.to) == (spoofed, to))
                {
                    volley.push(next.bytes);
                }
                let from = (node, spoofed.unwrap_or_else(|| address(node)));
                volley.iter().for_each(|bytes| director.sent(now, node, to, bytes));
                let mut later = Later { queue: &mut self.queue, made: &mut self.made };
                self.network.carry(now, from, to, volley, &mut |at, stage, a| later.push(at, stage, a));
            }
            if !director.stepped(now, node, actor) {
                drop(self.stop(node));
                director.died(self, node);
                return;
            }
            slot.busy_until = now + slot.pace.per_datagram * received as u32;
            if step.finished || step.writable || step.wake > now || slot.busy_until > now {
                break step;
            }
        };
        slot.finished = step.finished;
        let mut wake = step.wake.min(actor.next_done());
        if step.writable {
            wake = wake.min(self.network.writable_at(node, now).max(Time(now.0 + 1)));
        }
        wake = wake.max(slot.busy_until);
        if step.finished {
            self.network.leave(node);
            wake = Time::NEVER;
        }
        self.wake_at(node, wake);
    }
}

/// Queues the arrivals that the network delivers.
struct Later<'a> {
    queue: &'a mut BinaryHeap<Event>,
    made: &'a mut u64,
}

impl Later<'_> {
    fn push(&mut self, at: Time, stage: Stage, arrival: Arrival) {
        *self.made += 1;
        self.queue.push(Event { at, order: *self.made, what: Happening::Arrival(stage, arrival) });
    }
}
