//! A host that floods the sender with joins. If there is a group key, it has it.

use super::actors::Means;
use super::{group_key, nobody};
use crate::crypto::derive::Secret;
use crate::protocol::packet_protection::find;
use crate::sim::fakes::{FakeDevice, any_join};
use crate::sim::network::address;
use crate::sim::sham;
use crate::units::{Cookie, DeviceId};
use crate::wire::{self, Announce, Holdings, Join, MessageKind};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;

/// Which joins a flood is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joins {
    /// Fresh keys with cookies that nobody gave, from its own address, from devices', and where nobody is.
    MadeUp,
    /// One join of an honest device, from the device's address, from its own, and where nobody is.
    Recorded,
    /// Invented devices, each with a key and an identifier of its own, and with the cookies that they were given.
    Invented,
}

impl Joins {
    /// The class that counts its datagrams.
    pub(super) const fn class(self) -> &'static str {
        match self {
            Self::MadeUp => "flood: join with a fresh key",
            Self::Recorded => "flood: recorded join",
            Self::Invented => "flood: join of an invented device",
        }
    }
}

/// Most invented devices that wait for a cookie.
const WAITING: usize = 16;

/// The flooding host.
pub(super) struct Flooder {
    joins: Joins,
    seed: u64,
    group: Option<Secret>,
    /// The session that it has heard of, and a device in it.
    session: Option<(Announce, FakeDevice)>,
    made: u64,
    /// The recorded join, and the address that it came from.
    recorded: Option<(SocketAddr, Rc<[u8]>)>,
    /// Invented devices without a cookie, the oldest first.
    waiting: VecDeque<(FakeDevice, Join)>,
}

impl Flooder {
    pub fn new(joins: Joins, seed: u64, grouped: bool) -> Self {
        let group = grouped.then(group_key);
        Self { joins, seed, group, session: None, made: 0, recorded: None, waiting: VecDeque::new() }
    }

    pub fn act(&mut self, means: &mut Means) {
        match self.joins {
            Joins::MadeUp => {
                let Some((mut device, join)) = self.invent(means) else { return };
                device.cookie = Cookie([means.rng.u8(..); 16]);
                let from = self.spoofed(means, None);
                means.send(from, address(0), device.join(join));
            }
            Joins::Recorded => {
                self.record(means);
                let Some((from, bytes)) = self.recorded.clone() else { return };
                let from = self.spoofed(means, Some(from));
                means.send(from, address(0), bytes.to_vec());
            }
            Joins::Invented => {
                let Some((mut device, join)) = self.invent(means) else { return };
                means.send(None, address(0), device.join(join.clone()));
                if self.waiting.len() == WAITING {
                    self.waiting.pop_front();
                }
                self.waiting.push_back((device, join));
            }
        }
    }

    /// Handles a datagram to it. An invented device returns the cookie that it is given.
    pub fn hear(&mut self, means: &mut Means, bytes: &[u8]) {
        let given = self.waiting.iter_mut().position(|(device, _)| {
            let before = device.cookie;
            device.hear(bytes) == Some(MessageKind::Retry) && device.cookie != before
        });
        if let Some((mut device, join)) = given.and_then(|index| self.waiting.remove(index)) {
            means.send(None, address(0), device.join(join));
        }
    }

    /// One of its own addresses, or the one in `instead`: half of the floods come from a single address where nobody
    /// is, the others from many.
    fn spoofed(&self, means: &mut Means, instead: Option<SocketAddr>) -> Option<SocketAddr> {
        match means.rng.u8(..4) {
            0 => None,
            1 => Some(instead.unwrap_or_else(|| means.any_device())),
            _ if self.seed.is_multiple_of(2) => Some(nobody(self.seed as u16)),
            _ => Some(nobody(means.rng.u16(..))),
        }
    }

    /// Another device, and its join.
    fn invent(&mut self, means: &mut Means) -> Option<(FakeDevice, Join)> {
        let heard = means.air.borrow().announce.clone()?;
        let head = wire::head(&heard).ok()?;
        if self.session.as_ref().is_none_or(|(_, device)| device.session() != head.header.session) {
            let groups: Vec<_> = self.group.clone().into_iter().collect();
            let found = find(sham::SHAM, &groups, &head, &mut heard.to_vec())?;
            let (session, group) = (head.header.session, self.group.as_ref());
            let device = FakeDevice::of(session, &found.announce, group, [0; 32])?;
            self.session = Some((found.announce, device));
        }
        let (announce, first) = self.session.as_ref()?;
        self.made += 1;
        let mut random = [0; 32];
        random[..8].copy_from_slice(&self.seed.to_be_bytes());
        random[8..16].copy_from_slice(&self.made.to_be_bytes());
        let mut id = [0xf1; 16];
        means.rng.fill(&mut id[4..]);
        let device = first.another(announce, random)?;
        Some((device, any_join(DeviceId(id), Holdings::Some)))
    }

    /// Records the newest join of an honest device, once.
    fn record(&mut self, means: &Means) {
        let air = means.air.borrow();
        let is_join = |bytes: &[u8]| wire::peek(bytes).is_some_and(|(_, kind)| kind == MessageKind::Join);
        if self.recorded.is_none() {
            let join = air.heard.iter().rev().find(|heard| is_join(&heard.bytes));
            self.recorded = join.map(|heard| (heard.from, Rc::clone(&heard.bytes)));
        }
    }
}
