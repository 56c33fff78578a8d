//! A forger of symbols on the sender's network. The forged symbols have the sender's address, and reach
//! the devices just before the genuine symbols that they copy.

use super::{Arrival, Network, NodeId, Stage, VOLLEY, Volley};
use crate::layout::Layout;
use crate::time::Time;
use crate::units::{BlockIndex, Esi};
use crate::wire::{Header, Message, PacketNumber, Symbol, decode_plain, encode_plain};
use std::net::SocketAddr;
use std::rc::Rc;

/// The forger.
#[derive(Debug)]
pub struct Forger {
    rng: fastrand::Rng,
    layout: Layout,
    /// Forged symbols for each genuine one.
    share: f64,
}

impl Forger {
    /// A forger that knows the object's layout.
    #[must_use]
    pub fn new(seed: u64, layout: Layout, share: f64) -> Self {
        Self { rng: fastrand::Rng::with_seed(seed), layout, share }
    }

    fn forge(&mut self, header: Header, true_one: &Symbol<'_>) -> Rc<[u8]> {
        let (rng, layout) = (&mut self.rng, &self.layout);
        // The present symbol with a flipped bit, or any other symbol, even one that is far from being
        // sent.
        let (block, id, payload) = if rng.bool() {
            let mut payload = true_one.payload.to_vec();
            let at = rng.usize(..payload.len());
            payload[at] ^= 1 << rng.u8(..8);
            (true_one.block, true_one.esi, payload)
        } else {
            let block = BlockIndex(rng.u32(..layout.block_count()));
            let k = layout.source_symbols(block);
            let id = Esi(if rng.u8(..3) == 0 { k + rng.u32(..1_000) } else { rng.u32(..k) });
            let len = if id.0 < k {
                layout.symbol_range(block, id).len()
            } else {
                usize::from(layout.symbol_size())
            };
            let mut payload = vec![0; len];
            rng.fill(&mut payload);
            (block, id, payload)
        };
        let number = header.packet_number;
        let counter = (number.counter() + rng.u64(..64)).min(PacketNumber::MAX_COUNTER);
        let header = Header { packet_number: PacketNumber::new(number.channel(), counter), ..header };
        encode_plain(header, &Symbol { block, esi: id, payload: &payload }.into()).into()
    }
}

impl Network {
    /// Adds a forger to the network.
    pub fn suffer(&mut self, forger: Forger) {
        self.forger = Some(forger);
    }

    /// Sends the forged symbols of a volley to the same address at the same time.
    pub(super) fn forge(
        &mut self,
        volley: &Volley,
        at: Time,
        (from, to): (NodeId, SocketAddr),
        deliver: &mut impl FnMut(Time, Stage, Arrival),
    ) {
        let Some(forger) = &mut self.forger else { return };
        let mut datagrams = Vec::new();
        for datagram in &volley.datagrams {
            if let Ok((header, Message::Symbol(symbol))) = decode_plain(datagram)
                && datagrams.len() < VOLLEY
                && forger.rng.f64() < forger.share
            {
                datagrams.push(forger.forge(header, &symbol));
            }
        }
        self.counts.forged += datagrams.len() as u64;
        let flights: Vec<(Time, usize)> = (0..datagrams.len()).map(|i| (at, i)).collect();
        if !flights.is_empty() {
            let payloads = Vec::new();
            let forged = Rc::new(Volley { from: volley.from, datagrams, payloads, sent: volley.sent });
            self.fan_out(&forged, &flights, from, to, deliver);
        }
    }
}
