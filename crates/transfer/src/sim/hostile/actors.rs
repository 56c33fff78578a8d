//! A hostile actor: the timing of its actions, and its means of sending.

use super::flood::Flooder;
use super::insider::Insider;
use super::outsider::Outsider;
use super::{Air, Attack, HostilePlan};
use crate::engine::{EngineError, Step};
use crate::sim::actors::{DATA, RENDEZVOUS};
use crate::sim::network::{NodeId, address};
use crate::sim::node::{Actor, Sent, SimNet};
use crate::time::Time;
use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;

enum Role {
    Outsider(Box<Outsider>),
    Insider(Box<Insider>),
    Flooder(Box<Flooder>),
}

/// An actor's means: randomness, sockets, and knowledge.
pub(super) struct Means {
    pub rng: fastrand::Rng,
    pub air: Rc<RefCell<Air>>,
    pub attack: Attack,
    pub grouped: bool,
    left: u32,
    net: SimNet,
}

impl Means {
    /// Sends a datagram, from the address `spoofed` if given.
    pub fn send(&mut self, spoofed: Option<SocketAddr>, to: SocketAddr, bytes: Vec<u8>) {
        if self.left == 0 || bytes.is_empty() {
            return;
        }
        self.left -= 1;
        self.air.borrow_mut().struck.count(self.attack.class());
        self.net.outbox.push(Sent { spoofed, to, bytes: bytes.into() });
    }
    /// The address of an honest device.
    pub fn any_device(&mut self) -> SocketAddr {
        let honest = self.air.borrow().honest;
        address(1 + self.rng.u32(..honest))
    }
}

/// A hostile actor; see the module's description.
pub struct Hostile {
    means: Means,
    role: Role,
    plan: HostilePlan,
    next: Time,
}

impl Hostile {
    /// The actor at `node` with its own `seed`. `grouped` is true if the session has a group key.
    #[must_use]
    pub fn new(plan: HostilePlan, node: NodeId, seed: u64, grouped: bool, air: Rc<RefCell<Air>>) -> Self {
        let mut net = SimNet::new(4_096, None);
        let role = if let Attack::JoinFlood(joins) = plan.attack {
            Role::Flooder(Box::new(Flooder::new(joins, seed, grouped)))
        } else if plan.attack.is_insider() {
            net.listens.extend([DATA, RENDEZVOUS]);
            Role::Insider(Box::new(Insider::new(node)))
        } else {
            Role::Outsider(Box::new(Outsider::new(seed, grouped)))
        };
        let (rng, attack) = (fastrand::Rng::with_seed(seed), plan.attack);
        let means = Means { rng, air, attack, grouped, left: attack.most(), net };
        Self { means, role, next: plan.start, plan }
    }
}

impl Actor for Hostile {
    fn step(&mut self, now: Time) -> Result<Step, EngineError> {
        let Self { means, role, plan, next } = self;
        let mut datagrams = Vec::new();
        // Receiving from memory never fails.
        let _ = crate::net::Net::receive(&mut means.net, &mut |how, bytes| {
            datagrams.push((how.from, bytes.to_vec()))
        });
        let received = datagrams.len();
        for (from, bytes) in &datagrams {
            match role {
                Role::Outsider(outsider) => outsider.hear(means, *from, bytes),
                Role::Insider(insider) => insider.hear(means, now, bytes),
                Role::Flooder(flooder) => flooder.hear(means, bytes),
            }
        }
        if now >= *next {
            *next = now + plan.every;
            for _ in 0..plan.burst {
                match role {
                    Role::Outsider(outsider) => outsider.act(means),
                    Role::Insider(insider) => insider.act(means, now),
                    Role::Flooder(flooder) => flooder.act(means),
                }
            }
        }
        let finished = now >= plan.end || means.air.borrow().over;
        let wake = if means.net.waiting() > 0 { now } else { *next };
        Ok(Step { wake, writable: false, finished, received })
    }
    fn net(&mut self) -> &mut SimNet {
        &mut self.means.net
    }
    fn next_done(&self) -> Time {
        Time::NEVER
    }
}
