//! Which sockets the poll of a session reports: its own, and of the shared ones those that it leads. It asks for
//! writability only after a send would have blocked.

use super::endpoint::UdpNet;
use super::socket::Socket;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use std::io;
use std::os::fd::AsRawFd;

/// A poll that reports a session's sockets.
pub(super) struct Registration {
    registry: Registry,
    first_token: usize,
}

impl UdpNet {
    /// Makes `registry`'s poll report the sockets, with tokens from `first_token` on, fewer than
    /// [`Self::MAX_SOCKETS`]. This includes sockets that [`Net::listen`](crate::net::Net::listen) opens
    /// later. Events are edge-triggered: after one, receive until it returns 0. Writability is reported only
    /// after a send that would have blocked.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn register(&mut self, registry: &Registry, first_token: usize) -> io::Result<()> {
        let registration = Registration { registry: registry.try_clone()?, first_token };
        self.registration = Some(registration);
        (0..self.sockets.len()).try_for_each(|at| self.settle_registration(at))
    }

    pub(super) fn want_writable(&mut self, socket: usize, wanted: bool) -> io::Result<()> {
        let c = &mut self.sockets[socket];
        if c.blocked == wanted && !wanted {
            return Ok(());
        }
        c.blocked = wanted;
        // Registering again arms the edge again.
        match &self.registration {
            Some(registration) => registration.change(c, socket),
            None => Ok(()),
        }
    }

    /// Replaces a socket.
    pub(super) fn replace(&mut self, at: usize, socket: Socket) -> io::Result<()> {
        if let Some(registration) = &self.registration {
            let fd = self.sockets[at].socket.as_raw_fd();
            registration.registry.deregister(&mut SourceFd(&fd))?;
        }
        self.introduce(&socket);
        self.sockets[at] = socket;
        self.settle_registration(at)
    }

    /// Tells the sessions that share a socket's port which sessions this one takes part in.
    pub(super) fn introduce(&self, socket: &Socket) {
        if let Some(share) = &socket.share {
            share.exchange().attend(share.id(), &self.sessions);
        }
    }

    /// Registers a socket with the poll exactly if this session receives from it.
    pub(super) fn settle_registration(&mut self, at: usize) -> io::Result<()> {
        let Some(registration) = &self.registration else { return Ok(()) };
        let socket = &mut self.sockets[at];
        let receives = socket.receives();
        if receives == socket.registered {
            return Ok(());
        }
        if receives {
            registration.add(socket, at)?;
        } else {
            let fd = socket.socket.as_raw_fd();
            registration.registry.deregister(&mut SourceFd(&fd))?;
        }
        socket.registered = receives;
        Ok(())
    }

    /// Registers a function to call when another session has handed a datagram over.
    pub fn wake_by(&self, wake: Box<dyn Fn() + Send + Sync>) {
        self.mailbox.wake_by(wake);
    }

    /// Makes the session with the most datagrams the leader of each shared socket.
    pub(super) fn elect(&self) {
        for share in self.sockets.iter().filter_map(|s| s.share.as_ref()).filter(|share| share.led) {
            share.exchange().elect(share.id());
        }
    }
}

impl Registration {
    fn add(&self, socket: &Socket, i: usize) -> io::Result<()> {
        let fd = socket.socket.as_raw_fd();
        self.registry.register(&mut SourceFd(&fd), Token(self.first_token + i), interest(socket))
    }

    fn change(&self, socket: &Socket, i: usize) -> io::Result<()> {
        let fd = socket.socket.as_raw_fd();
        self.registry.reregister(&mut SourceFd(&fd), Token(self.first_token + i), interest(socket))
    }
}

/// A UDP socket is writable nearly always, and an edge for each datagram sent would wake the
/// engine for nothing.
fn interest(socket: &Socket) -> Interest {
    if socket.blocked { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE }
}
