//! Waits out a sender's outage: its interface is down, removed or without its address, or its queue accepts
//! nothing. Most outages pass, so the sender waits for a while. An interface that comes back may have another
//! index or another address; then the socket is replaced.

use super::destination::{AddressKind, Destination, Marking};
use super::endpoint::UdpNet;
use super::interface::Interface;
use super::share::open_sender;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Longest outage of an interface or a queue.
pub(super) const PATIENCE: Duration = Duration::from_secs(15);
/// Interval of checks.
const RETRY: Duration = Duration::from_millis(100);

/// The requested destination of a sender.
#[derive(Clone, Debug)]
pub(super) struct Aim {
    /// Name of the interface; its index may change.
    pub interface: String,
    pub destination: Destination,
    pub marking: Marking,
    /// Whether the socket is bound to an address of the interface.
    pub bound: bool,
}

/// A time in which nothing is sent.
#[derive(Debug)]
pub(super) struct Outage {
    why: String,
    waited: Duration,
    tried: Instant,
    said: bool,
}

impl Outage {
    pub fn new(why: String, now: Instant) -> Self {
        Self { why, waited: Duration::ZERO, tried: now, said: false }
    }
    /// Whether the next try is due. Only the time between tries counts as waiting: a process that was stopped
    /// has not waited.
    pub fn due(&mut self, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.tried);
        let due = elapsed >= RETRY;
        if due {
            self.waited += elapsed.min(RETRY * 2);
            self.tried = now;
        }
        due
    }
    /// The error that ends the run, if the outage has lasted too long.
    pub fn over(&self) -> Option<io::Error> {
        (self.waited >= PATIENCE).then(|| {
            io::Error::other(format!("{}, and nothing could be sent for {} s", self.why, PATIENCE.as_secs()))
        })
    }
}

/// Whether an error means that the machine's own end of the path is missing.
pub(super) fn is_outage(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::ENETDOWN | libc::ENETUNREACH | libc::EADDRNOTAVAIL | libc::ENODEV))
}

/// The interface at present, if it is suitable; otherwise the reason.
fn find(aim: &Aim, all: Vec<Interface>) -> Result<Interface, String> {
    let name = aim.interface.escape_debug();
    let v6 = aim.destination.is_v6();
    match all.into_iter().find(|i| i.name == aim.interface) {
        None => Err(format!("interface {name} has gone")),
        Some(i) if !i.up => Err(format!("interface {name} is down")),
        Some(i) if !i.has_family(v6) => {
            Err(format!("interface {name} has no {} address", if v6 { "IPv6" } else { "IPv4" }))
        }
        Some(i) => Ok(i),
    }
}

impl UdpNet {
    /// Whether a sender may try to send now. While its interface is away, this checks for it at intervals.
    ///
    /// # Errors
    /// If the interface has been away for too long.
    pub(super) fn may_send(&mut self) -> io::Result<bool> {
        let Some(outage) = &mut self.outage else { return Ok(true) };
        if !outage.due(Instant::now()) {
            return Ok(false);
        }
        if let Some(over) = outage.over() {
            return Err(over);
        }
        match self.mend() {
            Ok(()) => Ok(true),
            Err(why) => {
                self.still_out(why);
                Ok(false)
            }
        }
    }

    /// Handles a send error at the task's destination for which [`is_outage`] is true.
    pub(super) fn refused_here(&mut self, e: &io::Error) {
        let name = self.aim.as_ref().map_or("", |aim| aim.interface.as_str()).escape_debug();
        let why = format!("cannot send by interface {name} ({e})");
        match &self.outage {
            None => self.outage = Some(Outage::new(why, Instant::now())),
            // The interface only seemed to be back.
            Some(_) => self.still_out(why),
        }
    }

    fn still_out(&mut self, why: String) {
        let Some(outage) = &mut self.outage else { return };
        outage.why = why;
        if !outage.said {
            outage.said = true;
            self.notices.push(format!("{}; waiting up to {} s for it", outage.why, PATIENCE.as_secs()));
        }
    }

    /// Notes a successful send.
    pub(super) fn sends_again(&mut self) {
        self.stuck = None;
        if let Some(Outage { said: true, .. }) = self.outage.take()
            && let Some(interface) = self.interfaces.first()
        {
            self.notices.push(format!("interface {interface} is back"));
        }
    }

    /// Notes that the queue has accepted nothing.
    ///
    /// # Errors
    /// If that has lasted for too long.
    pub(super) fn is_stuck(&mut self) -> io::Result<()> {
        let now = Instant::now();
        let name = self.interfaces.first().map_or("", |i| i.name.as_str()).escape_debug();
        let stuck = self
            .stuck
            .get_or_insert_with(|| Outage::new(format!("the queue of interface {name} takes nothing"), now));
        stuck.due(now);
        stuck.over().map_or(Ok(()), Err)
    }

    /// Replaces the socket to fit the interface as it is now. The error says why that is impossible.
    fn mend(&mut self) -> Result<(), String> {
        let (Some(aim), Some(at)) = (self.aim.clone(), self.senders.iter().flatten().copied().next()) else {
            return Ok(());
        };
        let interface = match find(&aim, Interface::list().map_err(|e| e.to_string())?) {
            Ok(interface) => interface,
            // Routing may lead to a single machine by another interface.
            Err(_) if aim.destination.kind == AddressKind::Unicast => return Ok(()),
            Err(why) => return Err(why),
        };
        let refused = |e: io::Error| format!("cannot send by interface {interface} ({e})");
        let local = self.sockets[at].socket.local_addr().map(|a| a.ip()).map_err(refused)?;
        if aim.bound && !interface.addresses.iter().any(|a| a.ip == local) {
            let v6 = aim.destination.is_v6();
            let own = interface.address(v6);
            let port = self.sockets[at].port;
            let mut open = |port| open_sender((v6, own, port), self.sharing.as_ref(), &mut self.features);
            let socket = open(port).or_else(|_| open(0)).map_err(refused)?;
            self.replace(at, socket).map_err(refused)?;
            self.notices.push(format!("sending from another address now: interface {interface}"));
        }
        self.sockets[at].aim(&interface, &aim.destination, aim.marking).map_err(refused)?;
        self.destination = Some(aim.destination.on(&interface).addr);
        self.interfaces = vec![interface];
        Ok(())
    }

    /// Whether `to` is the task's destination, and not a single device. Returns its present address: the
    /// scope may have changed with the interface's index.
    pub(super) fn of_the_task(&self, to: SocketAddr) -> Option<SocketAddr> {
        self.destination.filter(|d| (d.ip(), d.port()) == (to.ip(), to.port()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::interface::tests::made_up;
    use super::*;

    fn aim(to: &str) -> Aim {
        let destination = Destination::parse_with(to, 7417, &[]).unwrap();
        Aim { interface: "eth0".into(), destination, marking: Marking::default(), bound: true }
    }

    #[test]
    fn waiting_is_bounded_and_a_leap_of_the_clock_is_not_waiting() {
        let start = Instant::now();
        let mut outage = Outage::new("interface eth0 is down".into(), start);
        assert!(!outage.due(start) && !outage.due(start + RETRY / 2));
        let mut now = start + Duration::from_secs(3600);
        assert!(outage.due(now) && outage.over().is_none(), "stopped for an hour");
        let mut tries = 0;
        while outage.over().is_none() {
            now += RETRY;
            assert!(outage.due(now));
            tries += 1;
        }
        assert!((140..=150).contains(&tries), "{tries}");
        let text = outage.over().unwrap().to_string();
        assert_eq!(text, "interface eth0 is down, and nothing could be sent for 15 s");
    }

    #[test]
    fn the_interface_is_known_by_its_name() {
        let find = |to, all: &[Interface]| find(&aim(to), all.to_vec());
        let there = made_up(7, "eth0", &["10.0.0.9"]);
        let mut down = there.clone();
        down.up = false;
        assert_eq!(find("239.1.1.1", &[made_up(1, "lo", &["127.0.0.1"]), there.clone()]), Ok(there.clone()));
        assert_eq!(find("239.1.1.1", &[made_up(1, "lo", &[])]).unwrap_err(), "interface eth0 has gone");
        assert_eq!(find("239.1.1.1", &[down]).unwrap_err(), "interface eth0 is down");
        assert_eq!(find("ff15::1", &[there]).unwrap_err(), "interface eth0 has no IPv6 address");
    }
}
