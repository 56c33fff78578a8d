//! Sends a batch by the fastest method that the kernel supports: `UDP_SEGMENT`, else `sendmmsg`. Segmentation is
//! tried while running, because support depends on the kernel, the driver and the route, and no option reports all
//! three.

use super::features::Features;
use super::{Segment, sys};
use socket2::SockAddr;
use std::io;
use std::net::UdpSocket;
use std::os::fd::AsFd;

/// Most bytes of one segmented send: an IP packet of 65,535 less the headers of IPv6 and UDP.
const MAX_SEGMENTED: usize = 65_535 - 40 - 8;

/// Sends segments until all are sent or one is refused. Returns how many were sent, and the error for the next one.
/// Switches segmentation off if the batch succeeds only without it.
pub fn transmit(
    socket: &UdpSocket,
    to: &SockAddr,
    segments: &[Segment<'_>],
    features: &mut Features,
) -> (usize, Option<io::Error>) {
    let mut sent = 0;
    while sent < segments.len() {
        match some(socket, to, &segments[sent..], features) {
            Ok(n) => sent += n,
            Err(e) => return (sent, Some(e)),
        }
    }
    (sent, None)
}

/// Sends the first few segments: at least one, or an error for the first one.
fn some(
    socket: &UdpSocket,
    to: &SockAddr,
    segments: &[Segment<'_>],
    features: &mut Features,
) -> io::Result<usize> {
    let size = segments[0].len();
    let count = if features.gso { run(segments, size) } else { 1 };
    if count > 1
        && let Ok(size) = u16::try_from(size)
    {
        match sys::send_segmented(socket.as_fd(), to, &segments[..count], size) {
            Ok(()) => return Ok(count),
            Err(e) if may_be_unsupported(&e) => {
                // These errors have other causes too (a datagram longer than the MTU). Only success without
                // segmentation shows that segmentation was the cause.
                let sent = sys::send_many(socket.as_fd(), to, &segments[..count])?;
                features.gso = false;
                return Ok(sent);
            }
            Err(e) => return Err(e),
        }
    }
    sys::send_many(socket.as_fd(), to, segments)
}

/// How many of the first segments one segmented send may take: all of the same length, but the last may be
/// shorter. Counted here, so that a caller's mistake cannot cut datagrams wrongly.
fn run(segments: &[Segment<'_>], size: usize) -> usize {
    if size == 0 {
        return 1;
    }
    let most = (MAX_SEGMENTED / size).clamp(1, super::MAX_BATCH);
    let equal = segments.iter().take(most).take_while(|s| s.len() == size).count();
    let shorter = segments.get(equal).is_some_and(|s| equal < most && (1..size).contains(&s.len()));
    equal + usize::from(shorter)
}

/// Errors that may mean that a kernel, a driver or a route cannot segment.
fn may_be_unsupported(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::EIO | libc::EINVAL | libc::ENOPROTOOPT | libc::EOPNOTSUPP))
}

#[cfg(test)]
mod tests {
    use super::super::Body;
    use super::*;

    #[test]
    fn runs_end_where_the_length_changes() {
        let bytes = [0u8; 2000];
        let lens = |lens: &[usize]| {
            let segments: Vec<_> =
                lens.iter().map(|&n| Segment { head: &bytes[..n], body: Body::None }).collect();
            run(&segments, segments[0].len())
        };
        assert_eq!(lens(&[5]), 1);
        assert_eq!(lens(&[5, 5, 5]), 3);
        assert_eq!(lens(&[5, 5, 3]), 3);
        assert_eq!(lens(&[5, 5, 3, 3]), 3);
        assert_eq!(lens(&[5, 5, 6]), 2);
        assert_eq!(lens(&[5, 5, 0]), 2);
        assert_eq!(lens(&[0, 0]), 1);
        assert_eq!(lens(&[2000; 64]), 32);
        assert_eq!(lens(&[10; 70]), 64);
    }
}
