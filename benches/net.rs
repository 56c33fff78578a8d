//! Batches of datagrams over loopback multicast, sent and received by one thread, in every combination of
//! segmentation (GSO) and coalescing (GRO).
//!
//! Prints Gbit/s of payload for the sender and the receiver together on one core. Run with `cargo bench
//! --bench net`, or `cargo bench --bench net -- 64` for 64 MiB a combination instead of 256.

use mcp::limits::{DEFAULT_SYMBOL_SIZE, SYMBOL_HEADER_LEN};
use mcp::net::{Body, Destination, Families, Features, Interface, MAX_BATCH, Marking, Net, Segment, UdpNet};
use std::error::Error;
use std::time::Instant;

const GROUP: &str = "239.255.74.100:7499";
const MIB_A_PERMUTATION: usize = 256;

fn main() -> Result<(), Box<dyn Error>> {
    // Cargo adds `--bench` to the arguments.
    let mib = std::env::args().skip(1).find_map(|a| a.parse().ok()).unwrap_or(MIB_A_PERMUTATION);
    let all = Interface::list()?;
    let lo = all.iter().find(|i| i.loopback).ok_or("no loopback interface")?;
    println!(
        "{mib} MiB in datagrams of {} bytes over {lo}",
        SYMBOL_HEADER_LEN + usize::from(DEFAULT_SYMBOL_SIZE)
    );
    println!("{:>5} {:>5} {:>8} {:>8}", "gso", "gro", "Gbit/s", "lost");
    for n in 0..4 {
        let features = Features { gro: n & 1 != 0, gso: n & 2 != 0 };
        let (rate, lost) = run(lo, features, mib << 20)?;
        let Features { gso, gro } = features;
        println!("{:>5} {:>5} {rate:>8.2} {lost:>8}", mark(gso), mark(gro));
    }
    Ok(())
}

fn mark(on: bool) -> &'static str {
    if on { "on" } else { "-" }
}

/// Sends `total` bytes and receives after every batch. Returns Gbit/s and the number of lost datagrams.
fn run(lo: &Interface, features: Features, total: usize) -> Result<(f64, usize), Box<dyn Error>> {
    let to = Destination::parse(GROUP, 0)?;
    let mut sender = UdpNet::sender(lo, &to, Marking::default(), Some(0), (features, None))?;
    let mut receiver =
        UdpNet::receiver(std::slice::from_ref(lo), to.addr.port(), Families::of(&to.addr), (features, None))?;
    receiver.listen(to.addr);
    let symbols = vec![0x5a; usize::from(DEFAULT_SYMBOL_SIZE) * MAX_BATCH];
    let head = [0; SYMBOL_HEADER_LEN];
    let segments: Vec<_> = symbols
        .chunks(usize::from(DEFAULT_SYMBOL_SIZE))
        .map(|body| Segment { head: &head, body: Body::Bytes(body) })
        .collect();
    let (mut sent, mut received, mut bytes) = (0, 0, 0);
    let start = Instant::now();
    while sent * usize::from(DEFAULT_SYMBOL_SIZE) < total {
        sent += sender.send(to.addr, &segments)?;
        while receiver.receive(&mut |_, datagram| bytes += datagram.len())? > 0 {}
        received = bytes / segments[0].len();
    }
    let seconds = start.elapsed().as_secs_f64();
    if sender.features() != features || receiver.features() != features {
        return Err(format!("the kernel refused one of: {features}").into());
    }
    Ok((bytes as f64 * 8.0 / 1e9 / seconds, sent - received))
}
