//! Send errors that do not end a transfer: counted, and the latest kept for the log.

use std::fmt;
use std::io;
use std::net::SocketAddr;

/// One error.
#[derive(Debug)]
pub struct SendError {
    /// The operation, such as `send to`.
    pub what: &'static str,
    /// The address.
    pub address: SocketAddr,
    /// The system's error.
    pub error: io::Error,
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {} {}: {}", self.what, self.address, self.error)
    }
}

/// Send errors so far.
#[derive(Debug, Default)]
pub struct SendErrors {
    /// Datagrams given up as lost.
    pub datagrams: u64,
    /// Groups and sockets with errors.
    pub refusals: u64,
    /// The latest error.
    pub latest: Option<SendError>,
}

impl SendErrors {
    pub(super) fn lost(&mut self, datagrams: usize, to: SocketAddr, error: io::Error) {
        self.datagrams += datagrams as u64;
        self.latest = Some(SendError { what: "send to", address: to, error });
    }

    pub(super) fn refused(&mut self, what: &'static str, address: SocketAddr, error: io::Error) {
        self.refusals += 1;
        self.latest = Some(SendError { what, address, error });
    }
}

/// Whether an error is temporary or concerns one path only, so that continuing makes sense.
pub(super) fn is_passing(e: &io::Error) -> bool {
    matches!(
        e.raw_os_error(),
        Some(
            libc::ENOBUFS
                | libc::ENOMEM
                | libc::ENETUNREACH
                | libc::EHOSTUNREACH
                | libc::ECONNREFUSED
                | libc::ENETDOWN
                | libc::EHOSTDOWN
                | libc::ENETRESET
                | libc::EPERM
                | libc::EADDRNOTAVAIL
        )
    )
}
