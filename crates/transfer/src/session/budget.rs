//! The egress budget: what the sessions of this process may send together on one interface.
//!
//! A token bucket of two levels. The tokens of the interface's rate are dealt out in equal parts to the sessions
//! whose buckets are not full. A session that sends less than its part has a full bucket most of the time, so the
//! others get the rest (max-min fairness), and it gets its part back at once when it wants it. No byte is counted
//! twice, and none is sent that was not paid for.
//!
//! ```text
//!             rate of the interface
//!          ┌──────────┼──────────┐   equal parts, to those that are not full
//!          ▼          ▼          ▼
//!       session    session    session   each at most DEPTH; a batch may overdraw it
//! ```
//!
//! `Pool` is the arithmetic, with the time as an argument. [`EgressBudget`] shares one between threads.

use crate::engine::Egress;
use crate::net::Interface;
use crate::time::Time;
use crate::units::Rate;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

const NANOS: u128 = 1_000_000_000;
/// The sum of all buckets, in time at the interface's rate.
const DEPTH: Duration = Duration::from_millis(10);
/// A bucket holds at least two full batches; otherwise a session would wait within a batch.
const LEAST_DEPTH: u64 = 128 << 10;
/// Fewer bytes than this for each session are not dealt out, because rounding would make the parts unequal.
const GRAIN: u64 = 64;
/// Longest unsent time after late wake-ups that is caught up, in time at the interface's rate.
const RESERVE: Duration = Duration::from_millis(50);
/// While catching up, the rate is higher by the rate divided by this: no burst.
const RESERVE_SHARE: u64 = 4;
/// The interval over which the sent bytes are measured.
const WINDOW: Duration = Duration::from_millis(100);
/// A session that waits asks again after this time. Meanwhile others may have left some of their part.
const PATIENCE: Duration = Duration::from_millis(5);
/// A limited session may aim at this much more than it sends, in percent: enough to notice spare rate, too
/// little to matter when the others end.
const HEADROOM_PERCENT: u64 = 10;

/// One session's bucket.
#[derive(Clone, Copy, Debug, Default)]
struct Member {
    /// Bytes that it may send; negative after a batch that was larger.
    tokens: i64,
    /// Whether it was refused and has not asked again.
    waits: bool,
    window: Window,
    /// The last complete interval.
    last: Window,
}

/// What a session did in one interval.
#[derive(Clone, Copy, Debug, Default)]
struct Window {
    since: Time,
    lasted: Duration,
    sent: u64,
    refused: bool,
}

impl Window {
    fn rate(&self) -> u64 {
        let nanos = self.lasted.as_nanos().max(1);
        u64::try_from(u128::from(self.sent) * 8 * NANOS / nanos).unwrap_or(u64::MAX)
    }
}

/// The buckets of one interface's sessions.
#[derive(Debug)]
struct Pool {
    rate: u64,
    members: BTreeMap<u64, Member>,
    joined: u64,
    refilled: Time,
    /// The rest of the last refill, in bits x nanoseconds.
    remainder: u128,
    reserve: u64,
}

impl Pool {
    fn new(rate: Rate) -> Self {
        let rate = rate.0.max(1);
        Self { rate, members: BTreeMap::new(), joined: 0, refilled: Time::ZERO, remainder: 0, reserve: 0 }
    }

    fn join(&mut self, now: Time) -> u64 {
        self.refill(now);
        self.joined += 1;
        let window = Window { since: now, ..Window::default() };
        self.members.insert(self.joined, Member { window, ..Member::default() });
        self.joined
    }

    fn depth(&self) -> i64 {
        let share = bytes_in(self.rate, DEPTH) / self.members.len().max(1) as u64;
        i64::try_from(share.max(LEAST_DEPTH)).unwrap_or(i64::MAX)
    }

    /// Fewest bytes that are dealt out.
    fn grain(&self) -> u64 {
        GRAIN * self.members.len().max(1) as u64
    }

    /// Deals out the tokens that have accrued until `now`, if there are enough.
    fn refill(&mut self, now: Time) {
        let elapsed = now.since(self.refilled).as_nanos();
        let accrued = u128::from(self.rate) * elapsed + self.remainder;
        let bytes = u64::try_from(accrued / (8 * NANOS)).unwrap_or(u64::MAX);
        if bytes < self.grain() {
            return;
        }
        self.refilled = self.refilled.max(now);
        self.remainder = accrued % (8 * NANOS);
        let extra = (bytes / RESERVE_SHARE).min(self.reserve);
        self.reserve -= extra;
        let depth = self.depth();
        let mut left = bytes.saturating_add(extra);
        loop {
            let open = self.members.values().filter(|m| m.tokens < depth).count() as u64;
            let Some(part) = left.checked_div(open) else { break };
            if part == 0 {
                // The remainder is dealt out the next time.
                self.remainder += u128::from(left) * 8 * NANOS;
                return;
            }
            for member in self.members.values_mut().filter(|m| m.tokens < depth) {
                let room = u64::try_from(depth.saturating_sub(member.tokens)).unwrap_or(0);
                let taken = part.min(room);
                member.tokens = member.tokens.saturating_add(i64::try_from(taken).unwrap_or(i64::MAX));
                left -= taken;
            }
        }
        // All buckets are full. If a session waits, it woke up late, and the tokens are kept for it.
        // Otherwise they are lost.
        if self.members.values().any(|m| m.waits) {
            self.reserve = self.reserve.saturating_add(left).min(bytes_in(self.rate, RESERVE));
        }
    }

    /// Whether the member may send now; if not, when to ask again.
    fn ready(&mut self, id: u64, now: Time) -> Result<(), Time> {
        self.refill(now);
        self.turn(id, now);
        let open = self.members.values().filter(|m| m.waits || m.tokens <= 0).count().max(1) as u64;
        let rate = u128::from((self.rate / open).max(1));
        let Some(member) = self.members.get_mut(&id) else { return Ok(()) };
        member.waits = member.tokens <= 0;
        if !member.waits {
            return Ok(());
        }
        member.window.refused = true;
        let short = u128::from(member.tokens.unsigned_abs()) + u128::from(GRAIN);
        let nanos = short * 8 * NANOS / rate + 1;
        let wait = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        Err(now + wait.min(PATIENCE))
    }

    fn charge(&mut self, id: u64, bytes: u64) {
        if let Some(member) = self.members.get_mut(&id) {
            member.tokens = member.tokens.saturating_sub(i64::try_from(bytes).unwrap_or(i64::MAX));
            member.window.sent += bytes;
        }
    }

    /// Ends the member's window if it is over.
    fn turn(&mut self, id: u64, now: Time) {
        let Some(member) = self.members.get_mut(&id) else { return };
        let lasted = now.since(member.window.since);
        if lasted >= WINDOW {
            member.last = Window { lasted, ..member.window };
            member.window = Window { since: now, ..Window::default() };
        }
    }

    fn view(&self, id: u64) -> EgressView {
        let window = self.members.get(&id).map(|m| m.last).unwrap_or_default();
        let sending = window.rate();
        let share = self.rate / self.members.len().max(1) as u64;
        let most =
            if window.refused { (sending + sending * HEADROOM_PERCENT / 100).max(share) } else { self.rate };
        EgressView {
            budget: Rate(self.rate),
            sessions: self.members.len(),
            sending: Rate(sending),
            most: Rate(most.min(self.rate)),
            limited: window.refused,
        }
    }
}

fn bytes_in(rate: u64, time: Duration) -> u64 {
    u64::try_from(u128::from(rate) * time.as_nanos() / (8 * NANOS)).unwrap_or(u64::MAX)
}

/// A session's share of its budget. All rates are bits per second on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EgressView {
    /// The budget of all sessions together.
    pub budget: Rate,
    /// The number of sessions that share it.
    pub sessions: usize,
    /// What this session has sent in the last tenth of a second.
    pub sending: Rate,
    /// The highest rate that this session can usefully aim at.
    pub most: Rate,
    /// Whether the budget has limited it in the last tenth of a second.
    pub limited: bool,
}

/// A budget for what several send sessions may send together, in bits per second on the wire. Clones are
/// handles of the same budget. Each session that wants to send has an equal part; those that want more share
/// what the others leave.
#[derive(Clone, Debug)]
pub struct EgressBudget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    epoch: Instant,
    pool: Mutex<Pool>,
}

impl Shared {
    /// The arithmetic never panics, so a poisoned lock guards consistent data.
    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The budgets of this machine's interfaces that sessions use, by index.
fn registry() -> &'static Mutex<BTreeMap<u32, Weak<Shared>>> {
    static REGISTRY: OnceLock<Mutex<BTreeMap<u32, Weak<Shared>>>> = OnceLock::new();
    REGISTRY.get_or_init(Mutex::default)
}

impl EgressBudget {
    /// A budget of `rate`, for the sessions that it is given to.
    #[must_use]
    pub fn new(rate: Rate) -> Self {
        Self(Arc::new(Shared { epoch: Instant::now(), pool: Mutex::new(Pool::new(rate)) }))
    }

    /// The budget of all sessions of this process on `interface`: its link's rate, or `asked` if that is
    /// higher, because the user knows better than the driver. `None` if the link's rate is unknown.
    #[must_use]
    pub fn of(interface: &Interface, asked: Option<Rate>) -> Option<Self> {
        let link = interface.link_rate().filter(|_| !interface.loopback)?;
        let rate = asked.map_or(link, |asked| asked.max(link));
        let mut registry = registry().lock().unwrap_or_else(PoisonError::into_inner);
        registry.retain(|_, budget| budget.strong_count() > 0);
        let budget = match registry.get(&interface.index).and_then(Weak::upgrade) {
            Some(shared) => Self(shared),
            None => Self::new(rate),
        };
        registry.insert(interface.index, Arc::downgrade(&budget.0));
        let mut pool = budget.0.pool();
        pool.rate = pool.rate.max(rate.0);
        drop(pool);
        Some(budget)
    }

    /// The budget of all sessions together.
    #[must_use]
    pub fn rate(&self) -> Rate {
        Rate(self.0.pool().rate)
    }

    /// A part of the budget for one session, whose time starts at `start`.
    #[must_use]
    pub fn share(&self, start: Instant) -> EgressShare {
        let ahead = start.saturating_duration_since(self.0.epoch);
        let id = self.0.pool().join(Time::ZERO + ahead);
        EgressShare(Arc::new(Seat { shared: Arc::clone(&self.0), id, ahead }))
    }
}

/// One session's part of an [`EgressBudget`]. Clones are handles of the same part, which ends with the last
/// of them.
#[derive(Clone, Debug)]
pub struct EgressShare(Arc<Seat>);

#[derive(Debug)]
struct Seat {
    shared: Arc<Shared>,
    id: u64,
    /// How much later the session's time starts than the budget's.
    ahead: Duration,
}

impl EgressShare {
    /// The session's share at present.
    #[must_use]
    pub fn view(&self) -> EgressView {
        self.0.shared.pool().view(self.0.id)
    }
}

impl Egress for EgressShare {
    fn ready(&mut self, now: Time) -> Result<(), Time> {
        let Seat { shared, id, ahead } = &*self.0;
        shared.pool().ready(*id, now + *ahead).map_err(|at| at - *ahead)
    }
    fn charge(&mut self, bytes: u64) {
        self.0.shared.pool().charge(self.0.id, bytes);
    }
    fn most(&self) -> Rate {
        self.view().most
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.shared.pool().members.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: u64 = 400_000_000;
    const BATCH: u64 = 64 << 10;

    fn at(us: u64) -> Time {
        Time::ZERO + Duration::from_micros(us)
    }

    /// A session that wants to send so many bits per second (at most), and comes so late each time.
    struct Sender {
        id: u64,
        wants: u64,
        late: Duration,
        from: Time,
        until: Time,
        next: Time,
        sent: u64,
    }

    impl Sender {
        fn new(pool: &mut Pool, wants: u64, from: Time) -> Self {
            let id = pool.join(from);
            Self { id, wants, late: Duration::ZERO, from, until: Time::NEVER, next: from, sent: 0 }
        }

        fn step(&mut self, pool: &mut Pool) {
            let now = self.next;
            self.next = match pool.ready(self.id, now) {
                Err(at) => at + self.late,
                Ok(()) => {
                    pool.charge(self.id, BATCH);
                    self.sent += BATCH;
                    // At its own rate.
                    let due = u128::from(self.sent) * 8 * NANOS / u128::from(self.wants);
                    (self.from + Duration::from_nanos(due as u64)).max(now)
                }
            };
        }

        /// Bits per second over so long a time.
        fn rate(&self, time: Duration) -> u64 {
            (self.sent as f64 * 8.0 / time.as_secs_f64()) as u64
        }
    }

    fn play(pool: &mut Pool, senders: &mut [Sender], end: Time) {
        while let Some(i) = (0..senders.len())
            .filter(|&i| senders[i].next < end.min(senders[i].until))
            .min_by_key(|&i| senders[i].next)
        {
            senders[i].step(pool);
        }
    }

    #[test]
    fn hungry_sessions_have_equal_parts_and_the_sum_is_the_budget() {
        for n in [1, 2, 3, 8] {
            let mut pool = Pool::new(Rate(RATE));
            // Each could send all of it, at different paces.
            let mut senders: Vec<_> =
                (0..n).map(|i| Sender::new(&mut pool, RATE * (1 + i), Time::ZERO)).collect();
            let second = Duration::from_secs(1);
            play(&mut pool, &mut senders, Time::ZERO + second);
            let rates: Vec<u64> = senders.iter().map(|s| s.rate(second)).collect();
            let sum: u64 = rates.iter().sum();
            assert!(sum.abs_diff(RATE) < RATE / 50, "{n}: {rates:?}");
            for rate in &rates {
                assert!(rate.abs_diff(RATE / n) < RATE / n / 20, "{n}: {rates:?}");
            }
        }
    }

    #[test]
    fn what_one_leaves_goes_to_the_others_in_equal_parts() {
        let mut pool = Pool::new(Rate(RATE));
        let mut senders: Vec<_> =
            [RATE / 10, RATE, RATE * 2].map(|wants| Sender::new(&mut pool, wants, Time::ZERO)).into();
        let second = Duration::from_secs(1);
        play(&mut pool, &mut senders, Time::ZERO + second);
        let rates: Vec<u64> = senders.iter().map(|s| s.rate(second)).collect();
        for (rate, wanted) in rates.iter().zip([RATE / 10, RATE * 9 / 20, RATE * 9 / 20]) {
            assert!(rate.abs_diff(wanted) < wanted / 20, "{rates:?}");
        }
    }

    #[test]
    fn a_session_that_comes_has_its_part_at_once_and_one_that_ends_leaves_it() {
        let mut pool = Pool::new(Rate(RATE));
        let mut first = vec![Sender::new(&mut pool, RATE * 2, Time::ZERO)];
        play(&mut pool, &mut first, at(500_000));
        let alone = first[0].sent;
        assert!((alone * 8 * 2).abs_diff(RATE) < RATE / 20, "{alone}");
        let mut both = first;
        both.push(Sender::new(&mut pool, RATE * 2, at(500_000)));
        both[1].until = at(1_000_000);
        play(&mut pool, &mut both, at(1_000_000));
        let shared = [both[0].sent - alone, both[1].sent];
        for sent in shared {
            assert!((sent * 8 * 4).abs_diff(RATE) < RATE / 10, "{shared:?}");
        }
        pool.members.remove(&both[1].id);
        let before = both[0].sent;
        play(&mut pool, &mut both, at(1_500_000));
        assert!(((both[0].sent - before) * 8 * 2).abs_diff(RATE) < RATE / 20);
    }

    #[test]
    fn late_wake_ups_cost_nothing_and_idle_times_are_not_saved_up() {
        let mut pool = Pool::new(Rate(RATE));
        let mut senders: Vec<_> = (0..2).map(|_| Sender::new(&mut pool, RATE * 4, Time::ZERO)).collect();
        senders.iter_mut().for_each(|s| s.late = Duration::from_millis(8));
        play(&mut pool, &mut senders, at(2_000_000));
        let sum: u64 = senders.iter().map(|s| s.rate(Duration::from_secs(2))).sum();
        assert!(sum.abs_diff(RATE) < RATE / 20, "{sum}");

        let mut pool = Pool::new(Rate(RATE));
        let id = pool.join(Time::ZERO);
        let later = at(3_600_000_000);
        let mut burst = 0;
        while pool.ready(id, later).is_ok() {
            pool.charge(id, BATCH);
            burst += BATCH;
        }
        assert!(burst <= bytes_in(RATE, DEPTH) + BATCH, "{burst}");
    }

    #[test]
    fn who_is_held_back_is_told_what_to_aim_at() {
        let mut pool = Pool::new(Rate(RATE));
        let mut senders: Vec<_> =
            [RATE * 4, RATE / 10].map(|wants| Sender::new(&mut pool, wants, Time::ZERO)).into();
        play(&mut pool, &mut senders, at(1_000_000));
        let [hungry, modest] = [0, 1].map(|i: usize| pool.view(senders[i].id));
        assert!(hungry.limited && hungry.sending.0.abs_diff(RATE * 9 / 10) < RATE / 20, "{hungry:?}");
        assert!(hungry.most >= hungry.sending && hungry.most.0 <= RATE, "{hungry:?}");
        assert_eq!((modest.limited, modest.most, modest.sessions), (false, Rate(RATE), 2), "{modest:?}");
        // Half of the budget is each one's by right.
        senders[1].wants = RATE * 4;
        play(&mut pool, &mut senders, at(1_500_000));
        let view = pool.view(senders[0].id);
        assert!(view.limited && view.most.0.abs_diff(RATE * 11 / 20) < RATE / 20, "{view:?}");
    }

    #[test]
    fn shares_count_their_time_from_their_own_start() {
        let budget = EgressBudget::new(Rate(8_000_000));
        let mut late = budget.share(budget.0.epoch + Duration::from_secs(10));
        let mut soon = budget.share(budget.0.epoch + Duration::from_secs(10));
        assert_eq!(soon.view().sessions, 2);
        late.charge(1 << 20);
        let Err(again) = late.ready(Time::ZERO + Duration::from_millis(100)) else { panic!("overdrawn") };
        assert!(again > at(100_000) && again <= at(100_000) + PATIENCE, "{again:?}");
        assert!(soon.ready(at(100_000)).is_ok());
        drop(late);
        assert_eq!(soon.view().sessions, 1);
    }
}
