//! Routes datagrams between the sessions of this process that share a port.
//!
//! A datagram can arrive at the socket of another session than its own: several senders have sockets at the
//! feedback port, and all receivers on the same interfaces share one socket for the group's port. The session that
//! receives a datagram reads its label (the session identifier, and whether it is an announcement). It handles its
//! own datagrams in place, and copies the others to the mailboxes of their sessions. With one session at a port, no
//! label is read and nothing is copied.
//!
//! Of the sessions that share one socket, one is the leader: only it waits for the socket and receives from it. It
//! is the session that gets most of the datagrams.

use crate::limits::MAX_MAILBOX_BYTES;
use crate::units::{Arrival, SessionId};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::Instant;

/// What a datagram reveals about its session without any keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label {
    /// The session.
    pub session: SessionId,
    /// Whether it is also for sessions that look for senders.
    pub for_all: bool,
}

/// Reads a datagram's label; `None` if it has none.
pub type ReadLabel = fn(&[u8]) -> Option<Label>;

/// Most datagrams handed out at a time.
const AT_ONCE: usize = 256;

/// No code panics while it holds one of these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug)]
struct Item {
    arrival: Arrival,
    /// When it was handed over.
    at: Instant,
    len: usize,
}

/// A sequence of datagrams.
#[derive(Debug, Default)]
struct Post {
    bytes: Vec<u8>,
    items: Vec<Item>,
}

/// Datagrams that were handed over to a session and not taken yet.
#[derive(Default)]
pub(super) struct Mailbox {
    post: Mutex<Post>,
    /// Whether the mailbox has datagrams, or something has changed.
    waiting: AtomicBool,
    wake: OnceLock<Box<dyn Fn() + Send + Sync>>,
    /// Datagrams that did not fit.
    drops: AtomicU64,
}

impl Mailbox {
    /// Registers a function to call when datagrams are handed over.
    pub fn wake_by(&self, wake: Box<dyn Fn() + Send + Sync>) {
        // An endpoint is registered once.
        let _ = self.wake.set(wake);
    }

    fn wake(&self) {
        self.waiting.store(true, Ordering::Release);
        if let Some(wake) = self.wake.get() {
            wake();
        }
    }

    pub fn drops(&self) -> u64 {
        self.drops.load(Ordering::Relaxed)
    }

    fn put(&self, arrival: Arrival, at: Instant, bytes: &[u8]) {
        let mut post = lock(&self.post);
        if post.bytes.len() + bytes.len() > MAX_MAILBOX_BYTES {
            self.drops.fetch_add(1, Ordering::Relaxed);
            return;
        }
        post.bytes.extend_from_slice(bytes);
        post.items.push(Item { arrival, at, len: bytes.len() });
    }
}

impl std::fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mailbox").field("drops", &self.drops).finish_non_exhaustive()
    }
}

/// Datagrams that were taken from the mailbox and not handed out yet.
#[derive(Debug, Default)]
pub(super) struct Taken {
    post: Post,
    next: usize,
    at: usize,
}

impl Taken {
    /// Hands out some of the datagrams in `mailbox`. Returns how many.
    pub fn receive(&mut self, mailbox: &Mailbox, sink: &mut dyn FnMut(Arrival, &mut [u8])) -> usize {
        if self.next == self.post.items.len() {
            if !mailbox.waiting.swap(false, Ordering::Acquire) {
                return 0;
            }
            self.post.items.clear();
            self.post.bytes.clear();
            (self.next, self.at) = (0, 0);
            std::mem::swap(&mut self.post, &mut *lock(&mailbox.post));
        }
        let end = self.post.items.len().min(self.next + AT_ONCE);
        let now = Instant::now();
        for item in &self.post.items[self.next..end] {
            let waited = item.arrival.waited + now.saturating_duration_since(item.at);
            sink(Arrival { waited, ..item.arrival }, &mut self.post.bytes[self.at..self.at + item.len]);
            self.at += item.len;
        }
        end - std::mem::replace(&mut self.next, end)
    }
}

/// Identifies a member.
pub(super) type MemberId = u64;

#[derive(Debug)]
struct Member {
    id: MemberId,
    mailbox: Arc<Mailbox>,
    /// The sessions that it takes part in.
    sessions: Vec<SessionId>,
    /// Whether it wants announcements of all sessions.
    open: bool,
    /// Recent bytes of its datagrams.
    bytes: AtomicU64,
}

impl Member {
    fn wants(&self, label: &Label) -> bool {
        label.for_all && self.open || self.sessions.contains(&label.session)
    }
}

/// The sessions that share a port.
#[derive(Debug)]
pub(super) struct Exchange {
    members: RwLock<Vec<Member>>,
    leader: AtomicU64,
    joined: AtomicU64,
    read_label: ReadLabel,
}

impl Exchange {
    pub fn new(read_label: ReadLabel) -> Self {
        let zero = AtomicU64::new(0);
        Self { members: RwLock::default(), leader: AtomicU64::new(0), joined: zero, read_label }
    }

    fn members(&self) -> std::sync::RwLockReadGuard<'_, Vec<Member>> {
        self.members.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn members_mut(&self) -> std::sync::RwLockWriteGuard<'_, Vec<Member>> {
        self.members.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a member. With `open` it gets announcements of all sessions. The first member leads.
    pub fn join(&self, mailbox: Arc<Mailbox>, open: bool) -> MemberId {
        let mut members = self.members_mut();
        let id = self.joined.fetch_add(1, Ordering::Relaxed) + 1;
        if members.is_empty() {
            self.leader.store(id, Ordering::Release);
        }
        members.push(Member { id, mailbox, sessions: Vec::new(), open, bytes: AtomicU64::new(0) });
        id
    }

    /// Removes a member. Wakes the new leader.
    pub fn leave(&self, id: MemberId) {
        let mut members = self.members_mut();
        members.retain(|member| member.id != id);
        if self.leads(id)
            && let Some(next) = members.first()
        {
            self.leader.store(next.id, Ordering::Release);
            next.mailbox.wake();
        }
    }

    pub fn leads(&self, id: MemberId) -> bool {
        self.leader.load(Ordering::Acquire) == id
    }

    /// Sets the sessions that a member takes part in.
    pub fn attend(&self, id: MemberId, sessions: &[SessionId]) {
        if let Some(member) = self.members_mut().iter_mut().find(|member| member.id == id) {
            member.sessions = sessions.to_vec();
        }
    }

    /// Makes the member with the most recent bytes the leader, if that is clearly not `id`.
    pub fn elect(&self, id: MemberId) {
        let members = self.members();
        if members.len() < 2 || !self.leads(id) {
            return;
        }
        let (mut own, mut best): (u64, Option<(u64, &Member)>) = (0, None);
        for member in members.iter() {
            let bytes = member.bytes.swap(0, Ordering::Relaxed);
            if member.id == id {
                own = bytes;
            } else if best.is_none_or(|(most, _)| bytes > most) {
                best = Some((bytes, member));
            }
        }
        if let Some((bytes, member)) = best
            && bytes > own.saturating_mul(2)
        {
            self.leader.store(member.id, Ordering::Release);
            member.mailbox.wake();
        }
    }

    /// Calls `receive` with a sink that passes the datagrams of `id` to `sink` and hands the others over.
    /// Datagrams of no member are passed to `sink` too.
    pub fn deal<R>(
        &self,
        id: MemberId,
        sink: &mut dyn FnMut(Arrival, &mut [u8]),
        receive: impl FnOnce(&mut dyn FnMut(Arrival, &mut [u8])) -> R,
    ) -> R {
        let members = self.members();
        if members.len() < 2 {
            drop(members);
            return receive(sink);
        }
        let now = Instant::now();
        let mut told = vec![false; members.len()];
        let result = receive(&mut |arrival, bytes| {
            let Some(label) = (self.read_label)(bytes) else { return sink(arrival, bytes) };
            let (mut own, mut others) = (false, false);
            for (member, told) in members.iter().zip(&mut told).filter(|(member, _)| member.wants(&label)) {
                member.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                if member.id == id {
                    own = true;
                } else {
                    (others, *told) = (true, true);
                    member.mailbox.put(arrival, now, bytes);
                }
            }
            if own || !others {
                sink(arrival, bytes);
            }
        });
        for (member, _) in members.iter().zip(told).filter(|(_, told)| *told) {
            member.mailbox.wake();
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Via;

    /// The first byte is the session; 0 is for all.
    fn label(bytes: &[u8]) -> Option<Label> {
        let &first = bytes.first()?;
        Some(Label { session: SessionId(u64::from(first)), for_all: first == 0 })
    }

    struct Peer {
        id: MemberId,
        mailbox: Arc<Mailbox>,
        taken: Taken,
        woken: Arc<AtomicU64>,
    }

    impl Peer {
        fn new(exchange: &Exchange, open: bool, sessions: &[u64]) -> Self {
            let mailbox = Arc::new(Mailbox::default());
            let woken = Arc::new(AtomicU64::new(0));
            let count = Arc::clone(&woken);
            mailbox.wake_by(Box::new(move || {
                count.fetch_add(1, Ordering::Relaxed);
            }));
            let id = exchange.join(Arc::clone(&mailbox), open);
            exchange.attend(id, &sessions.iter().map(|&n| SessionId(n)).collect::<Vec<_>>());
            Self { id, mailbox, taken: Taken::default(), woken }
        }

        /// What comes out when these come in by this one's socket.
        fn receive(&self, exchange: &Exchange, datagrams: &[&[u8]]) -> Vec<Vec<u8>> {
            let mut own = Vec::new();
            let from = ([127, 0, 0, 1], 9).into();
            exchange.deal(self.id, &mut |_, bytes| own.push(bytes.to_vec()), |sink| {
                datagrams.iter().for_each(|d| sink(Arrival::at_once(from, Via::Group), &mut d.to_vec()));
            });
            own
        }

        fn taken(&mut self) -> Vec<Vec<u8>> {
            let mut all = Vec::new();
            while self.taken.receive(&self.mailbox, &mut |_, bytes| all.push(bytes.to_vec())) > 0 {}
            all
        }
    }

    #[test]
    fn everybody_gets_what_is_his_in_its_order_and_what_is_for_all() {
        let exchange = Exchange::new(label);
        let mut a = Peer::new(&exchange, true, &[1]);
        assert_eq!(a.receive(&exchange, &[b"\x07z", b""]), [b"\x07z".to_vec(), vec![]], "alone: all of it");
        let mut b = Peer::new(&exchange, true, &[2, 3]);
        let mut c = Peer::new(&exchange, false, &[1]);
        let own = a.receive(&exchange, &[b"\x01a", b"\x02b", b"\x00c", b"\x03d", b"\x09e", b""]);
        assert_eq!(own, [&b"\x01a"[..], b"\x00c", b"\x09e", b""], "what nobody wants is not lost either");
        assert_eq!(b.taken(), [b"\x02b", b"\x00c", b"\x03d"]);
        assert_eq!(c.taken(), [b"\x01a"]);
        assert!(a.taken().is_empty() && b.taken().is_empty());
        assert_eq!([&a, &b, &c].map(|p| p.woken.load(Ordering::Relaxed)), [0, 1, 1], "once a batch");
        exchange.leave(b.id);
        assert_eq!(a.receive(&exchange, &[b"\x02b"]), [b"\x02b"]);
    }

    #[test]
    fn a_mailbox_that_nobody_empties_is_bounded() {
        let exchange = Exchange::new(label);
        let a = Peer::new(&exchange, true, &[1]);
        let mut b = Peer::new(&exchange, true, &[2]);
        let datagram = vec![2; 8192];
        let many = MAX_MAILBOX_BYTES / 8192 + 10;
        (0..many).for_each(|_| assert!(a.receive(&exchange, &[&datagram]).is_empty()));
        assert_eq!(b.mailbox.drops(), 10);
        assert_eq!(b.taken().len(), many - 10);
    }

    #[test]
    fn the_busiest_leads_and_the_lead_is_inherited() {
        let exchange = Exchange::new(label);
        let [a, b, c] = [1, 2, 3].map(|n| Peer::new(&exchange, true, &[n]));
        assert!(exchange.leads(a.id));
        let (most, some): (&[u8], &[u8]) = (&[2; 900], &[1; 500]);
        a.receive(&exchange, &[most, some]);
        exchange.elect(a.id);
        assert!(exchange.leads(a.id), "no clear difference");
        a.receive(&exchange, &[most, most, most, some]);
        exchange.elect(b.id);
        assert!(exchange.leads(a.id), "only the leader gives it away");
        exchange.elect(a.id);
        assert!(exchange.leads(b.id) && b.woken.load(Ordering::Relaxed) == 3);
        exchange.leave(b.id);
        assert!(exchange.leads(a.id) && a.woken.load(Ordering::Relaxed) == 1);
        exchange.leave(c.id);
        exchange.leave(a.id);
        let d = Peer::new(&exchange, true, &[]);
        assert!(exchange.leads(d.id));
    }
}
