//! Sends datagrams without a protocol: no check, no repair. Its rate is the capacity of kernel and
//! machine through the same port to the network as mcp's ([`UdpNet`]): segmented sends out of the mapped
//! file, receiving with GRO and `recvmmsg`.

use mcp::limits::{DEFAULT_SYMBOL_SIZE, SYMBOL_HEADER_LEN};
use mcp::net::{Body, Destination, Families, Features, Marking, Net, Segment, UdpNet, choose};
use mcp::storage::{FileSource, Source};
use mio::{Events, Poll, Token};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

const GROUP: &str = "239.77.0.2:7419";
/// Bytes of a datagram: the same as mcp's.
pub const DATAGRAM: usize = SYMBOL_HEADER_LEN + DEFAULT_SYMBOL_SIZE as usize;
/// Marks the end. Shorter than the last datagram is likely to be.
const END: &[u8] = b"no more";
/// Number of end marks: the receivers' buffers are full at the end, and a single mark would be lost.
const ENDS: u32 = 10;
const BETWEEN_ENDS: Duration = Duration::from_millis(30);
/// A receiver that hears nothing for this time has missed the end marks.
const SILENCE: Duration = Duration::from_secs(3);
/// A receiver gives up if nothing arrives for this time.
const PATIENCE: Duration = Duration::from_secs(30);

/// The two ends, as hidden subcommands.
#[derive(clap::Subcommand)]
#[command(hide = true)]
pub enum Role {
    /// Sends a file's bytes.
    Blast {
        /// At the IP level; 0: no limit.
        #[arg(long)]
        mbit: u64,
        #[arg(long)]
        batch: usize,
        file: PathBuf,
    },
    /// Counts received datagrams.
    Catch,
}

impl Role {
    /// Runs to the end.
    pub fn play(&self) -> Result<(), Box<dyn Error>> {
        match self {
            Self::Blast { mbit, batch, file } => blast(file, *mbit, *batch),
            Self::Catch => catch(),
        }
    }
}

fn blast(file: &Path, mbit: u64, batch: usize) -> Result<(), Box<dyn Error>> {
    let source = FileSource::open(file)?;
    let to = Destination::parse(GROUP, 0)?;
    let mut net = UdpNet::sender(
        &choose(Some("eth0"), &to)?,
        &to,
        Marking::default(),
        Some(0),
        (Features::default(), None),
    )?;
    let mut poll = Poll::new()?;
    net.register(poll.registry(), 0)?;
    let size = source.extent().size;
    let step = (batch.max(1) * DATAGRAM) as u64;
    let (start, mut offset) = (Instant::now(), 0);
    let mut segments = Vec::with_capacity(batch);
    while offset < size {
        if let Some(nanos) = (offset * 8 * 1000).checked_div(mbit) {
            let due = start + Duration::from_nanos(nanos);
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        let end = size.min(offset + step);
        segments.clear();
        segments.extend((offset..end).step_by(DATAGRAM).map(|at| Segment {
            head: &[],
            body: source.raw(at, DATAGRAM.min((end - at) as usize)).map_or(Body::None, Body::Raw),
        }));
        send_all(&mut net, &mut poll, &to, &segments)?;
        offset = end;
    }
    for _ in 0..ENDS {
        send_all(&mut net, &mut poll, &to, &[Segment { head: END, body: Body::None }])?;
        thread::sleep(BETWEEN_ENDS);
    }
    Ok(())
}

/// Sends the segments, and waits while the socket is full.
fn send_all(
    net: &mut UdpNet,
    poll: &mut Poll,
    to: &Destination,
    mut segments: &[Segment<'_>],
) -> Result<(), Box<dyn Error>> {
    let mut events = Events::with_capacity(1);
    while !segments.is_empty() {
        let sent = net.send(to.addr, segments)?;
        segments = &segments[sent..];
        if !segments.is_empty() {
            poll.poll(&mut events, Some(Duration::from_secs(1)))?;
        }
    }
    Ok(())
}

fn catch() -> Result<(), Box<dyn Error>> {
    let to = Destination::parse(GROUP, 0)?;
    let interface = choose(Some("eth0"), &to)?;
    let families = Families::of(&to.addr);
    let mut net = UdpNet::receiver(
        std::slice::from_ref(&interface),
        to.addr.port(),
        families,
        (Features::default(), None),
    )?;
    net.listen(to.addr);
    let mut poll = Poll::new()?;
    net.register(poll.registry(), Token(0).0)?;
    let mut events = Events::with_capacity(8);
    let (mut bytes, mut datagrams, mut ended) = (0, 0_u64, false);
    let mut times: Option<(Instant, Instant)> = None;
    while !ended {
        poll.poll(&mut events, Some(if times.is_some() { SILENCE } else { PATIENCE }))?;
        if events.is_empty() {
            break;
        }
        loop {
            let had = bytes;
            let count = net.receive(&mut |_, datagram| {
                if datagram == END {
                    ended = true;
                } else {
                    bytes += datagram.len();
                    datagrams += 1;
                }
            })?;
            if bytes > had {
                let now = Instant::now();
                times = Some((times.map_or(now, |(first, _)| first), now));
            }
            if count == 0 {
                break;
            }
        }
    }
    let seconds = times.map_or(0.0, |(first, last)| (last - first).as_secs_f64());
    let drops = net.kernel_drops();
    println!(r#"{{"bytes":{bytes},"datagrams":{datagrams},"seconds":{seconds},"kernel_drops":{drops}}}"#);
    Ok(())
}
