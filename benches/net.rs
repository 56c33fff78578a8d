//! Batches of datagrams over loopback multicast, sent and received by one thread, in every
//! permutation of segmentation (GSO), coalescing (GRO) and many datagrams a system call (mmsg):
//! `cargo bench --bench net`.
//!
//! Throughput is that of the payload, for sending and receiving together on one core.

use divan::Bencher;
use divan::counter::BytesCount;
use mcp::limits::{DEFAULT_SYMBOL_SIZE, SYMBOL_HEADER_LEN};
use mcp::net::{Body, Destination, Families, Features, Interface, MAX_BATCH, Net, Segment, UdpNet};
use std::fmt;
use std::io;

const GROUP: &str = "239.255.74.100:7499";
const SYMBOL: usize = DEFAULT_SYMBOL_SIZE as usize;
/// Batches an iteration: long enough that the clock does not matter.
const BATCHES: usize = 16;

fn main() {
    divan::main();
}

/// One way of using the kernel.
struct Way(Features);

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = |on: bool, word: &'static str| if on { word } else { "-" };
        let Features { gso, gro, mmsg } = self.0;
        write!(f, "{:<4}{:<4}{:<4}", word(gso, "gso"), word(gro, "gro"), word(mmsg, "mmsg"))
    }
}

/// All eight.
fn ways() -> impl Iterator<Item = Way> {
    (0..8).map(|n| Way(Features { mmsg: n & 1 != 0, gro: n & 2 != 0, gso: n & 4 != 0 }))
}

/// A sender and a receiver on `lo`.
fn pair(features: Features) -> io::Result<(UdpNet, UdpNet, Destination)> {
    let all = Interface::list()?;
    let lo = all.iter().find(|i| i.loopback).ok_or_else(|| io::Error::other("no loopback interface"))?;
    let to = Destination::parse(GROUP, 0).map_err(io::Error::other)?;
    let sender = UdpNet::sender(lo, &to, 1, Some(0), features)?;
    let families = Families::of(&to.addr);
    let mut receiver = UdpNet::receiver(std::slice::from_ref(lo), to.addr.port(), families, features)?;
    receiver.listen(to.addr);
    Ok((sender, receiver, to))
}

#[divan::bench(args = ways(), sample_count = 200)]
fn batches(bencher: Bencher, way: &Way) {
    let (mut sender, mut receiver, to) = pair(way.0).expect("sockets on the loopback interface");
    let symbols = vec![0x5a; SYMBOL * MAX_BATCH];
    let head = [0; SYMBOL_HEADER_LEN];
    let segments: Vec<_> =
        symbols.chunks(SYMBOL).map(|body| Segment { head: &head, body: Body::Bytes(body) }).collect();
    bencher.counter(BytesCount::new(BATCHES * symbols.len())).bench_local(|| {
        let mut received = 0;
        for _ in 0..BATCHES {
            assert_eq!(sender.send(to.addr, &segments).expect("to send"), MAX_BATCH);
            // Loopback delivers before a send returns.
            while receiver.receive(&mut |_, _, _| received += 1).expect("to receive") > 0 {}
        }
        assert_eq!(received, BATCHES * MAX_BATCH, "datagrams were lost");
    });
    assert_eq!((sender.features(), receiver.features()), (way.0, way.0), "the kernel refused one");
}
