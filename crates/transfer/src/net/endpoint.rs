//! The real network: [`UdpNet`], for a sender or a receiver.
//!
//! ```text
//! sender    own socket :7418 ──▶ group, and repairs to single devices
//!                            ◀── feedback of the devices
//! receiver  group sockets, one per family and port, for receiving only
//!           own sockets, one per family, any port ──▶ feedback to the sender
//!                                                 ◀── repairs by unicast
//! ```
//!
//! A receiver sends from its own sockets only. So several receivers on one machine have distinct addresses, although
//! they share the group's port. `share` and `exchange` handle the ports that sessions of one process share.

use super::destination::{AddressKind, Destination, Marking, Membership};
use super::exchange::{Mailbox, ReadLabel, Taken};
use super::features::Features;
use super::inbound::Arena;
use super::interface::Interface;
use super::outage::{Aim, Outage, is_outage};
use super::rebind::Rebind;
use super::registration::Registration;
use super::send_errors::{SendErrors, is_passing};
use super::share::{self, Sharing};
use super::socket::{BUFFER_BYTES, Role, Socket, is_unavailable};
use super::transmit::transmit;
use super::{Net, Segment};
use crate::text::bytes;
use crate::units::{Arrival, SessionId, Via};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// UDP port at which a sender receives feedback, unless it is taken or another one is requested.
pub const FEEDBACK_PORT: u16 = 7418;

/// Passing errors in a row at one socket before the next socket's turn.
const RECEIVE_ATTEMPTS: usize = 4;

/// Full batches in a row at one socket before the next socket's turn.
const MAX_IN_A_ROW: usize = 8;

/// IP families to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Families {
    /// IPv4.
    pub v4: bool,
    /// IPv6.
    pub v6: bool,
}

impl Families {
    /// The families that the machine has.
    pub const ANY: Self = Self { v4: true, v6: true };

    /// The family of an address.
    #[must_use]
    pub fn of(address: &SocketAddr) -> Self {
        Self { v4: address.is_ipv4(), v6: address.is_ipv6() }
    }
}

/// UDP sockets as the engine's [`Net`].
pub struct UdpNet {
    /// The sockets. The index is the token's distance from the first one.
    pub(super) sockets: Vec<Socket>,
    /// The sending socket of each family: IPv4, IPv6.
    pub(super) senders: [Option<usize>; 2],
    /// The next socket to receive from.
    next: usize,
    /// Full batches in a row from this socket.
    in_a_row: usize,
    /// The interfaces on which groups are joined, or the one that a sender uses.
    pub(super) interfaces: Vec<Interface>,
    /// The groups that were requested.
    pub(super) groups: Vec<SocketAddr>,
    /// A group, and the only source of its datagrams.
    source: Option<(IpAddr, IpAddr)>,
    /// How a receiver follows its network.
    pub(super) rebind: Option<Rebind>,
    /// Datagrams received since a receiver last checked its interfaces, and whether it should check in any
    /// case.
    pub(super) heard: usize,
    pub(super) look: bool,
    /// The destination of a sender's task. Send errors there end the task.
    pub(super) destination: Option<SocketAddr>,
    pub(super) aim: Option<Aim>,
    /// The outage of a sender's interface or queue, if there is one.
    pub(super) outage: Option<Outage>,
    pub(super) stuck: Option<Outage>,
    /// Messages for the user.
    pub(super) notices: Vec<String>,
    pub(super) features: Features,
    arena: Arena,
    /// Sharing of ports with other sessions of the process, if enabled.
    pub(super) sharing: Option<Sharing>,
    /// Datagrams that other sessions have handed over.
    pub(super) mailbox: Arc<Mailbox>,
    taken: Taken,
    /// The sessions that this endpoint takes part in.
    pub(super) sessions: Vec<SessionId>,
    send_errors: SendErrors,
    pub(super) registration: Option<Registration>,
}

impl UdpNet {
    /// Most sockets of one endpoint, and so most tokens that it uses.
    pub const MAX_SOCKETS: usize = 16;

    /// An endpoint for a sender to `destination` on `interface`. The number of hops applies to multicast. Feedback
    /// arrives at `port` (0: any free port), which must be free. Without `port` it arrives at
    /// [`FEEDBACK_PORT`], or at any free port if that is taken.
    ///
    /// # Errors
    /// If the family is not available, the port is taken, or the interface is gone.
    pub fn sender(
        interface: &Interface,
        destination: &Destination,
        marking: Marking,
        port: Option<u16>,
        (mut features, read_label): (Features, Option<ReadLabel>),
    ) -> io::Result<Self> {
        let mailbox = Arc::new(Mailbox::default());
        let sharing = Sharing::new(read_label, &mailbox);
        let v6 = destination.is_v6();
        // Devices answer to the source address of the announcements. On a machine with several addresses,
        // routing could choose another one for datagrams to single devices.
        let own = match destination.kind {
            AddressKind::Multicast => interface.address_v4().filter(|_| !v6).map(IpAddr::V4),
            AddressKind::Broadcast | AddressKind::Unicast => None,
        };
        let mut open = |port| share::open_sender((v6, own, port), sharing.as_ref(), &mut features);
        let socket = match port {
            Some(port) => open(port)?,
            None => match open(FEEDBACK_PORT) {
                Err(e) if e.kind() == io::ErrorKind::AddrInUse => open(0)?,
                other => other?,
            },
        };
        socket.aim(interface, destination, marking)?;
        let mut net = Self::empty(std::slice::from_ref(interface), features, (mailbox, sharing));
        net.destination = Some(destination.on(interface).addr);
        net.aim = Some(Aim {
            interface: interface.name.clone(),
            destination: *destination,
            marking,
            bound: own.is_some(),
        });
        net.senders[usize::from(v6)] = Some(0);
        net.sockets.push(socket);
        Ok(net)
    }

    /// An endpoint for a receiver that listens at `port` and joins groups on each of `interfaces`. A family
    /// that the machine lacks is left out.
    ///
    /// # Errors
    /// If the machine has none of the families, or another program holds the port exclusively.
    pub fn receiver(
        interfaces: &[Interface],
        port: u16,
        families: Families,
        (mut features, read_label): (Features, Option<ReadLabel>),
    ) -> io::Result<Self> {
        let mailbox = Arc::new(Mailbox::default());
        let sharing = Sharing::new(read_label, &mailbox);
        let mut sockets = Vec::new();
        let mut senders = [None; 2];
        let mut lacking = None;
        for v6 in [false, true] {
            if !(if v6 { families.v6 } else { families.v4 }) {
                continue;
            }
            let own = match Socket::open(v6, None, 0, Role::Own, &mut features) {
                Err(e) if is_unavailable(&e) => {
                    lacking = Some(e);
                    continue;
                }
                other => other?,
            };
            senders[usize::from(v6)] = Some(sockets.len());
            sockets.push(own);
            sockets.push(share::open_group((v6, port), interfaces, sharing.as_ref(), &mut features)?);
        }
        if sockets.is_empty() {
            return Err(lacking.unwrap_or_else(|| io::Error::from_raw_os_error(libc::EAFNOSUPPORT)));
        }
        let mut net = Self::empty(interfaces, features, (mailbox, sharing));
        (net.sockets, net.senders) = (sockets, senders);
        Ok(net)
    }

    fn empty(
        interfaces: &[Interface],
        features: Features,
        (mailbox, sharing): (Arc<Mailbox>, Option<Sharing>),
    ) -> Self {
        Self {
            sockets: Vec::new(),
            senders: [None; 2],
            next: 0,
            in_a_row: 0,
            interfaces: interfaces.to_vec(),
            groups: Vec::new(),
            source: None,
            rebind: None,
            heard: 0,
            look: false,
            destination: None,
            aim: None,
            outage: None,
            stuck: None,
            notices: Vec::new(),
            features,
            arena: Arena::new(),
            sharing,
            mailbox,
            taken: Taken::default(),
            sessions: Vec::new(),
            send_errors: SendErrors::default(),
            registration: None,
        }
    }

    /// The port of the family's own socket: a sender gets feedback there, and a receiver repairs.
    #[must_use]
    pub fn own_port(&self, v6: bool) -> Option<u16> {
        self.senders[usize::from(v6)].map(|i| self.sockets[i].port)
    }

    /// The features in use.
    #[must_use]
    pub fn features(&self) -> Features {
        self.features
    }

    /// Send errors that did not end the run.
    #[must_use]
    pub fn send_errors(&self) -> &SendErrors {
        &self.send_errors
    }

    /// The `sysctl` line that gives a receiver a larger buffer, if the kernel has granted less than was requested.
    #[must_use]
    pub fn larger_buffer(&self) -> Option<String> {
        let granted = self.sockets.iter().map(|c| c.receive_buffer).min()?;
        (granted < BUFFER_BYTES).then(|| format!("sysctl -w net.core.rmem_max={BUFFER_BYTES}"))
    }

    /// Lines for `-v`: interfaces, ports, buffers, features.
    #[must_use]
    pub fn describe(&self) -> Vec<String> {
        let interfaces = self.interfaces.iter().map(|i| format!("interface {i}, MTU {}", i.mtu));
        let sockets = self.sockets.iter().map(|c| {
            format!(
                "UDP port {} ({}, {}), buffers: {} to receive, {} to send",
                c.port,
                if c.v6 { "IPv6" } else { "IPv4" },
                if c.via == Via::Group { "shared" } else { "own" },
                bytes(c.receive_buffer as u64),
                bytes(c.send_buffer as u64)
            )
        });
        let features = std::iter::once(format!("kernel features: {}", self.features));
        interfaces.chain(sockets).chain(features).collect()
    }

    /// Handles a send error after `sent` of `all` datagrams.
    pub(super) fn settle(
        &mut self,
        socket: usize,
        to: SocketAddr,
        (sent, all): (usize, usize),
        longest: usize,
        refusal: Option<io::Error>,
    ) -> io::Result<usize> {
        if sent > 0 {
            self.sends_again();
        }
        let Some(e) = refusal else {
            self.want_writable(socket, false)?;
            return Ok(sent);
        };
        if e.kind() == io::ErrorKind::WouldBlock {
            if sent == 0 {
                self.is_stuck()?;
            }
            self.want_writable(socket, true)?;
            return Ok(sent);
        }
        if e.raw_os_error() == Some(libc::EFAULT) {
            return Err(e);
        }
        // Every error of a single device is temporary: its address came from the network, and must not stop
        // the others.
        let ours = self.of_the_task(to).is_some();
        if ours && is_outage(&e) {
            self.refused_here(&e);
            return Ok(sent);
        }
        if !ours || is_passing(&e) {
            self.send_errors.lost(all - sent, to, e);
            return Ok(all);
        }
        if e.raw_os_error() == Some(libc::EMSGSIZE) {
            let mtu = self.interfaces.first().map_or(0, |i| i.mtu);
            let text = format!(
                "a datagram of {longest} bytes does not fit the interface's mtu ({mtu}); choose a smaller \
                 --symbol-size"
            );
            return Err(io::Error::new(e.kind(), text));
        }
        Err(io::Error::new(e.kind(), format!("cannot send to {to}: {e}; check the network and --interface")))
    }

    /// Joins a group, or joins it again, on all interfaces in use.
    pub(super) fn join(&mut self, group: SocketAddr) {
        let v6 = group.is_ipv6();
        let i = match self.group_channel(v6, group.port()) {
            Ok(i) => i,
            Err(e) => return self.send_errors.refused("listen to", group, e),
        };
        if !group.ip().is_multicast() {
            return;
        }
        let mut tried = false;
        for interface in self.interfaces.iter().filter(|i| i.has_family(v6)) {
            tried = true;
            if let Err(e) = self.sockets[i].join(self.membership(group.ip()), interface) {
                self.send_errors.refused("join", group, e);
            }
        }
        if !tried {
            let e = io::Error::other(format!(
                "no interface in use has an {} address",
                if v6 { "IPv6" } else { "IPv4" }
            ));
            self.send_errors.refused("join", group, e);
        }
    }

    /// From now on, takes datagrams of `group` only from `source`. Call before joining it.
    pub fn only_from(&mut self, group: IpAddr, source: IpAddr) {
        self.source = Some((group, source));
    }

    /// How to be a member of a group.
    pub(super) fn membership(&self, group: IpAddr) -> Membership {
        let source = self.source.filter(|(of, _)| *of == group).map(|(_, source)| source);
        Membership { group, source }
    }

    /// The group socket of the family and port. Opens it if there is none.
    pub(super) fn group_channel(&mut self, v6: bool, port: u16) -> io::Result<usize> {
        let here = |c: &Socket| c.via == Via::Group && c.v6 == v6 && c.port == port;
        if let Some(i) = self.sockets.iter().position(here) {
            return Ok(i);
        }
        let i = self.sockets.len();
        if i == Self::MAX_SOCKETS {
            return Err(io::Error::other("too many ports to listen at"));
        }
        let socket =
            share::open_group((v6, port), &self.interfaces, self.sharing.as_ref(), &mut self.features)?;
        self.introduce(&socket);
        self.sockets.push(socket);
        self.settle_registration(i)?;
        Ok(i)
    }
}

impl UdpNet {
    /// Approximate number of datagrams that fit the smallest receive buffer. The kernel charges some two
    /// kilobytes for each, against twice the size that it reports.
    #[must_use]
    pub fn room(&self) -> usize {
        self.sockets.iter().map(|c| c.receive_buffer).min().unwrap_or(0) / 1500
    }
}

impl Net for UdpNet {
    fn send(&mut self, to: SocketAddr, segments: &[Segment<'_>]) -> io::Result<usize> {
        let sender = self.senders[usize::from(to.is_ipv6())];
        // The kernel refuses an unspecified address with errors that look like other failures.
        let (Some(i), false) = (sender, to.port() == 0 || to.ip().is_unspecified()) else {
            let e = io::Error::from_raw_os_error(if sender.is_none() {
                libc::EAFNOSUPPORT
            } else {
                libc::EDESTADDRREQ
            });
            self.send_errors.lost(segments.len(), to, e);
            return Ok(segments.len());
        };
        if !self.may_send()? {
            return Ok(0);
        }
        let address = self.of_the_task(to).unwrap_or(to);
        let (sent, refusal) =
            transmit(&self.sockets[i].socket, &address.into(), segments, &mut self.features);
        let longest = segments.get(sent).map_or(0, Segment::len);
        self.settle(i, to, (sent, segments.len()), longest, refusal)
    }

    fn receive(&mut self, sink: &mut dyn FnMut(Arrival, &mut [u8])) -> io::Result<usize> {
        let handed_over = self.taken.receive(&self.mailbox, sink);
        if handed_over > 0 {
            self.heard += handed_over;
            return Ok(handed_over);
        }
        for _ in 0..self.sockets.len() {
            let at = self.next;
            self.next = (at + 1) % self.sockets.len();
            self.in_a_row += 1;
            self.settle_registration(at)?;
            let socket = &self.sockets[at];
            if !socket.receives() {
                self.in_a_row = 0;
                continue;
            }
            for _ in 0..RECEIVE_ATTEMPTS {
                match socket.receive(&mut self.arena, self.features, sink) {
                    Ok(batch) => {
                        // The socket of the stream usually has more, and the others nothing.
                        if batch.full && self.in_a_row < MAX_IN_A_ROW {
                            self.next = at;
                        } else {
                            self.in_a_row = 0;
                        }
                        self.heard += batch.datagrams;
                        return Ok(batch.datagrams);
                    }
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                        self.in_a_row = 0;
                        break;
                    }
                    // For example an ICMP answer to an earlier datagram.
                    Err(e) if is_passing(&e) => {
                        let at = socket.socket.local_addr().map_err(|_| e.kind())?;
                        self.send_errors.refused("receive at", at, e);
                    }
                    Err(e) => return Err(e),
                }
            }
        }
        Ok(0)
    }

    fn listen(&mut self, group: SocketAddr) {
        // The interfaces are checked again while nothing useful is heard.
        self.look = true;
        if !self.groups.contains(&group) {
            self.groups.push(group);
        }
        self.join(group);
    }

    fn attend(&mut self, sessions: &[SessionId]) {
        self.sessions = sessions.to_vec();
        self.sockets.iter().for_each(|socket| self.introduce(socket));
    }

    fn kernel_drops(&self) -> u64 {
        self.sockets.iter().map(Socket::drops).sum::<u64>() + self.mailbox.drops()
    }
}
