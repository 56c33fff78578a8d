//! Sends and receives one datagram with one system call, which works on every Unix. Other systems than Linux
//! always use this, and Linux does when batches are switched off.

use super::{Segment, sys};
use crate::limits::MAX_DATAGRAM;
use socket2::SockAddr;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;

/// Most datagrams that one [`receive`] takes.
const BATCH: usize = 32;

/// Sends the segments one by one until one is refused. Returns how many were sent, at least one.
///
/// # Errors
/// The system's error for the first segment.
pub fn send(socket: &UdpSocket, to: &SockAddr, segments: &[Segment<'_>]) -> io::Result<usize> {
    for (sent, segment) in segments.iter().enumerate() {
        match sys::send_one(socket.as_fd(), to, segment) {
            Ok(()) => {}
            Err(e) if sent == 0 => return Err(e),
            Err(_) => return Ok(sent),
        }
    }
    Ok(segments.len())
}

/// Receives at most [`BATCH`] waiting datagrams, and passes each to `sink`, except those longer than
/// [`MAX_DATAGRAM`]. Returns how many arrived, those included. `buffer` is longer than [`MAX_DATAGRAM`].
///
/// # Errors
/// The system's error; `WouldBlock` if none is waiting.
pub fn receive(
    socket: &UdpSocket,
    buffer: &mut [u8],
    sink: &mut dyn FnMut(SocketAddr, &mut [u8]),
) -> io::Result<usize> {
    debug_assert!(buffer.len() > MAX_DATAGRAM);
    let mut count = 0;
    while count < BATCH {
        match socket.recv_from(buffer) {
            Ok((len, from)) => {
                count += 1;
                if len <= MAX_DATAGRAM {
                    sink(from, &mut buffer[..len]);
                }
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if count == 0 => return Err(e),
            Err(_) => break,
        }
    }
    Ok(count)
}
