//! Ports that the sessions of this process share.
//!
//! Each sender has a socket of its own for its destination. All of them are bound to the feedback port, unless
//! another process has it. The kernel delivers an answer to any of them, and the [`Exchange`] routes it to its
//! session. Receivers on the same interfaces have one socket for a group's port; one of them is its leader.

use super::destination::Membership;
use super::exchange::{Exchange, Mailbox, MemberId, ReadLabel};
use super::features::Features;
use super::inbound::Inner;
use super::interface::Interface;
use super::socket::{Role, Socket};
use socket2::SockRef;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

/// If something arrived within this time, a group that other sessions have joined is seldom joined again: for
/// a moment nothing would arrive.
const HEARD: Duration = Duration::from_secs(1);
/// Interval of joins in that case. What arrived may belong to another group.
const SELDOM: Duration = Duration::from_secs(30);

/// Identifies a shared port: family, number, and for groups the interfaces.
type Key = (bool, u16, Option<Vec<u32>>);

/// A shared port.
#[derive(Debug)]
pub(super) struct Port {
    key: Key,
    exchange: Exchange,
    /// The sockets that are bound to it.
    sockets: Mutex<Vec<Weak<Inner>>>,
    /// The members of each group on each interface.
    joined: Mutex<BTreeMap<(Membership, u32), Joined>>,
}

/// The members of a group, and when it was last joined.
#[derive(Debug)]
struct Joined {
    members: BTreeSet<MemberId>,
    at: Instant,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The ports of this process that are shared at present.
fn ports() -> MutexGuard<'static, BTreeMap<Key, Weak<Port>>> {
    static PORTS: Mutex<BTreeMap<Key, Weak<Port>>> = Mutex::new(BTreeMap::new());
    lock(&PORTS)
}

/// Everything that a session needs for sharing ports.
#[derive(Clone, Debug)]
pub(super) struct Sharing {
    pub read_label: ReadLabel,
    pub mailbox: Arc<Mailbox>,
}

impl Sharing {
    /// `None` if labels cannot be read.
    pub fn new(read_label: Option<ReadLabel>, mailbox: &Arc<Mailbox>) -> Option<Self> {
        read_label.map(|read_label| Self { read_label, mailbox: Arc::clone(mailbox) })
    }
}

/// A session's membership of a port. Ends when dropped.
#[derive(Debug)]
pub(super) struct Member {
    port: Arc<Port>,
    id: MemberId,
    /// Whether all members have the same socket, and only the leader receives from it.
    pub led: bool,
}

impl Member {
    fn new(port: Arc<Port>, mailbox: Arc<Mailbox>, led: bool) -> Self {
        let id = port.exchange.join(mailbox, led);
        Self { port, id, led }
    }

    pub fn exchange(&self) -> &Exchange {
        &self.port.exchange
    }

    pub const fn id(&self) -> MemberId {
        self.id
    }

    /// Whether this session receives from the socket.
    pub fn receives(&self) -> bool {
        !self.led || self.port.exchange.leads(self.id)
    }

    /// Notes that the session wants `group` on an interface. True if it is to be joined, or joined again.
    pub fn wants(&self, group: Membership, interface: &Interface, socket: &Socket) -> bool {
        let mut all = lock(&self.port.joined);
        let joined = all
            .entry((group, interface.index))
            .or_insert_with(|| Joined { members: BTreeSet::new(), at: Instant::now() });
        let first = joined.members.insert(self.id);
        let alone = joined.members.len() == 1;
        let due = alone || !first && (socket.silent_for() >= HEARD || joined.at.elapsed() >= SELDOM);
        if due {
            joined.at = Instant::now();
        }
        due
    }

    /// Notes that the session no longer wants `group` on that interface. True if no session wants it.
    pub fn unwants(&self, group: Membership, interface: &Interface) -> bool {
        let mut all = lock(&self.port.joined);
        let Some(joined) = all.get_mut(&(group, interface.index)) else { return true };
        joined.members.remove(&self.id);
        let none = joined.members.is_empty();
        if none {
            all.remove(&(group, interface.index));
        }
        none
    }

    /// Ends the session's memberships of groups. Returns the groups that no session wants any more.
    pub fn forget(&self) -> Vec<(Membership, u32)> {
        let mut all = lock(&self.port.joined);
        let mut gone = Vec::new();
        all.retain(|&what, joined| {
            joined.members.remove(&self.id);
            if joined.members.is_empty() {
                gone.push(what);
            }
            !joined.members.is_empty()
        });
        gone
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut ports = ports();
        self.port.exchange.leave(self.id);
        // The port is dropped after this if only this member and the registry have it.
        if Arc::strong_count(&self.port) == 1 {
            ports.remove(&self.port.key);
        }
    }
}

/// Creates a shared port.
fn new_port(key: Key, socket: &Socket, sharing: &Sharing) -> Arc<Port> {
    Arc::new(Port {
        key,
        exchange: Exchange::new(sharing.read_label),
        sockets: Mutex::new(vec![Arc::downgrade(&socket.inner)]),
        joined: Mutex::default(),
    })
}

/// Opens a sender's socket beside those that other sessions of this process have at the same port.
///
/// # Errors
/// As [`Socket::open`]; also if another process has the port.
pub(super) fn open_sender(
    (v6, address, number): (bool, Option<IpAddr>, u16),
    sharing: Option<&Sharing>,
    features: &mut Features,
) -> io::Result<Socket> {
    let Some(sharing) = sharing else { return Socket::open(v6, address, number, Role::Own, features) };
    let mut ports = ports();
    let here = ports.get(&(v6, number, None)).and_then(Weak::upgrade);
    let (mut socket, port) = match here {
        Some(port) => {
            let mut bound = lock(&port.sockets);
            bound.retain(|socket| socket.strong_count() > 0);
            let others: Vec<_> = bound.iter().filter_map(Weak::upgrade).collect();
            // The kernel lets two sockets share a port while both have the option. The rest of the time other
            // processes are kept out.
            let let_in =
                |yes| others.iter().try_for_each(|other| SockRef::from(&other.socket).set_reuse_address(yes));
            let socket =
                let_in(true).and_then(|()| Socket::open(v6, address, number, Role::Beside, features));
            let_in(false)?;
            let socket = socket?;
            SockRef::from(&socket.socket).set_reuse_address(false)?;
            bound.push(Arc::downgrade(&socket.inner));
            drop(bound);
            (socket, port)
        }
        None => {
            let socket = Socket::open(v6, address, number, Role::Own, features)?;
            let key = (v6, socket.port, None);
            let port = new_port(key.clone(), &socket, sharing);
            ports.insert(key, Arc::downgrade(&port));
            (socket, port)
        }
    };
    socket.share = Some(Member::new(port, Arc::clone(&sharing.mailbox), false));
    Ok(socket)
}

/// Opens the socket of a group's port, or takes the one that other sessions of this process have.
///
/// # Errors
/// As [`Socket::open`].
pub(super) fn open_group(
    (v6, number): (bool, u16),
    interfaces: &[Interface],
    sharing: Option<&Sharing>,
    features: &mut Features,
) -> io::Result<Socket> {
    let Some(sharing) = sharing else { return Socket::open(v6, None, number, Role::Group, features) };
    let mut indexes: Vec<u32> = interfaces.iter().map(|i| i.index).collect();
    indexes.sort_unstable();
    let key = (v6, number, Some(indexes));
    let mut ports = ports();
    let here = ports.get(&key).and_then(Weak::upgrade);
    let there = here.and_then(|port| {
        let inner = lock(&port.sockets).first().and_then(Weak::upgrade)?;
        Some((Socket::new(inner), port))
    });
    let (mut socket, port) = match there {
        Some(there) => there,
        None => {
            let socket = Socket::open(v6, None, number, Role::Group, features)?;
            let port = new_port(key.clone(), &socket, sharing);
            ports.insert(key, Arc::downgrade(&port));
            (socket, port)
        }
    };
    socket.share = Some(Member::new(port, Arc::clone(&sharing.mailbox), true));
    Ok(socket)
}
