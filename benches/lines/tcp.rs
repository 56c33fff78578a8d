//! One TCP flow: a client that sends as much as it can, and a server that reports the number of received
//! bytes.

use socket2::SockRef;
use std::error::Error;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The server's port.
pub const PORT: u16 = 7420;
const CHUNK: usize = 64 << 10;
const EVERY: Duration = Duration::from_millis(100);

/// The two ends, as hidden subcommands.
#[derive(clap::Subcommand)]
#[command(hide = true)]
pub enum Role {
    /// Sends to an address until the server ends or this process is killed.
    Pour {
        /// Its congestion control.
        #[arg(long)]
        control: String,
        address: String,
    },
    /// Accepts one connection, and prints the number of received bytes every 100 ms.
    Drain,
}

impl Role {
    /// Runs until the other end has closed.
    pub fn play(&self) -> Result<(), Box<dyn Error>> {
        match self {
            Self::Pour { control, address } => {
                let mut to = TcpStream::connect((address.as_str(), PORT))?;
                SockRef::from(&to).set_tcp_congestion(control.as_bytes())?;
                let chunk = vec![0x5a; CHUNK];
                while to.write_all(&chunk).is_ok() {}
            }
            Self::Drain => {
                let (mut from, _) = TcpListener::bind(("0.0.0.0", PORT))?.accept()?;
                from.set_read_timeout(Some(EVERY))?;
                let (mut chunk, mut bytes) = (vec![0; CHUNK], 0_u64);
                let mut told = Instant::now();
                loop {
                    match from.read(&mut chunk) {
                        Ok(0) => break,
                        Ok(n) => bytes += n as u64,
                        Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
                        Err(_) => break,
                    }
                    if told.elapsed() >= EVERY {
                        told = Instant::now();
                        println!(r#"{{"unix":{},"bytes":{bytes}}}"#, unix_now());
                    }
                }
            }
        }
        Ok(())
    }
}

/// Seconds of the wall clock, which both processes share.
pub fn unix_now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}
