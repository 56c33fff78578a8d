//! Bounds on the work for devices that are not admitted: RETRY to addresses that are not validated, refusals, key
//! agreements, rows of the table. A keyed hash maps each address to a *place*. Each place gets only a part of each
//! bound, so one host cannot use up the share of the others. `admission` and `gather` use this.

use super::Sender;
use crate::limits::{
    DEVICES_OF_ONE_ADDRESS, MAX_DEVICES, MAX_PENDING_JOINS, MAX_QUEUED_OUTPUTS, STRANGER_PLACES,
    STRANGERS_SHARE_PERCENT,
};
use crate::pacing::udp_overhead;
use crate::protocol::rate_limit::Quota;
use crate::time::Time;
use crate::wire::Phase;
use std::net::{IpAddr, SocketAddr};

/// Bytes of the longest answer: a RETRY, or an ADMIT that turns a device away.
const ANSWER_LEN: u64 = 160;

/// See the module's description.
#[derive(Debug)]
pub(super) struct Strangers {
    answers: Quota,
    agreements: Quota,
    /// Number of rows given to each place. Rows are never given back.
    rows: Vec<u16>,
}

impl Strangers {
    pub fn new() -> Self {
        Self {
            answers: Quota::new(STRANGER_PLACES),
            agreements: Quota::new(STRANGER_PLACES),
            rows: vec![0; STRANGER_PLACES],
        }
    }

    /// Counts a row for a device of this place.
    pub fn took_row(&mut self, place: usize) {
        if let Some(rows) = self.rows.get_mut(place) {
            *rows = rows.saturating_add(1);
        }
    }

    /// Whether a place may get one more row when `taken` rows are taken. A place may have as many rows as are free,
    /// and always [`DEVICES_OF_ONE_ADDRESS`].
    fn may_take_row(&self, place: usize, taken: usize) -> bool {
        let (own, free) = (self.rows.get(place).map_or(0, |&rows| rows.into()), MAX_DEVICES - taken);
        free > 0 && own < free.max(DEVICES_OF_ONE_ADDRESS)
    }
}

impl Sender {
    /// The place of an address.
    pub(super) fn place(&self, ip: IpAddr) -> usize {
        usize::from(self.side.place(ip)) % STRANGER_PLACES
    }

    /// Whether the sender may now send a RETRY or a refusal to an address. If so, counts it.
    pub(super) fn may_answer_stranger(&mut self, to: SocketAddr, now: Time) -> bool {
        let share =
            self.pace.rate().0 * STRANGERS_SHARE_PERCENT / 100 / (8 * (ANSWER_LEN + udp_overhead(to)));
        let answers = self.budget().agreements();
        let most = match self.phase {
            Phase::Gathering => answers,
            _ => answers.min(u32::try_from(share).unwrap_or(u32::MAX)),
        };
        let place = self.place(to.ip());
        self.out.len() < MAX_QUEUED_OUTPUTS && self.strangers.answers.allow(place, most, now)
    }

    /// Whether the sender may now agree on keys with a new device at an address. If so, counts the agreement.
    pub(super) fn may_agree(&mut self, with: SocketAddr, now: Time) -> bool {
        let place = self.place(with.ip());
        let (waiting, most) = (self.pending_joins.len(), self.budget().agreements());
        let own = || self.pending_joins.values().filter(|pending| pending.is_from(with.ip())).count();
        waiting < MAX_PENDING_JOINS
            && (waiting < MAX_PENDING_JOINS / 4 || own() < MAX_PENDING_JOINS / 4)
            && self.strangers.agreements.allow(place, most, now)
    }

    /// Whether a row is available for one more device at an address.
    pub(super) fn has_row_for(&self, at: SocketAddr) -> bool {
        self.strangers.may_take_row(self.place(at.ip()), self.devices.len())
    }
}
