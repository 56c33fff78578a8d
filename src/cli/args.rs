//! The arguments as typed, checked one by one. What follows from them together is `config.rs`.

use crate::limits::{DEFAULT_PORT, MAX_DEVICES, MAX_LABEL, MAX_SYMBOL_SIZE, MIN_SYMBOL_SIZE, SYMBOL_ALIGN};
use crate::protocol::sender::SlowPolicy;
pub use crate::session::RateChoice;
use crate::units::{Rate, SenderKey};
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use std::time::Duration;

/// What becomes of a device that carries less than half of what the others do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Slow {
    /// The group goes on without it; it is served alone afterwards
    Defer,
    /// All go at its pace
    Keep,
    /// It fails, and the others go on
    Drop,
}

impl From<Slow> for SlowPolicy {
    fn from(slow: Slow) -> Self {
        match slow {
            Slow::Defer => Self::Defer,
            Slow::Keep => Self::Keep,
            Slow::Drop => Self::Drop,
        }
    }
}

/// Slowest rate that still carries a session's own messages.
pub const MIN_RATE: Rate = Rate(64_000);
/// Fastest rate that makes sense of the digits typed.
pub const MAX_RATE: Rate = Rate(1_000_000_000_000);

const EXAMPLES: &str = "\
Quick start:
  mcp recv                     on each machine that is to have the file
  mcp send image.iso           on the one that has it

'mcp help send', 'mcp help recv' and 'mcp help key' say more.";

const SEND_AFTER: &str = "\
The stream starts when N devices are ready (-n), when the time to gather is over
(--wait), or when Enter is pressed. Without -n and --wait it starts 2 s after the
last device joined.

Examples:
  mcp send image.iso                       to whoever runs 'mcp recv'
  mcp send image.iso -n 30 -w 5m -r 800M   to 30, or those there by then
  mcp send image.iso 239.1.1.1 -i eth1     to a group and by a card you choose
  mcp send image.iso --linger 10m --report done.json
  mcp send -- -odd-name                    a name that begins with a dash

Exit codes:
  0    every expected device is complete
  1    the file, the disk or the network refused, or a bug
  2    the command line makes no sense
  3    some devices did not complete
  4    no device completed, or none came
  130  interrupted";

const RECV_AFTER: &str = "\
Examples:
  mcp recv                                 takes what is sent next, to here
  mcp recv -o /srv/images --timeout 5m     waits 5 minutes for a sender
  mcp recv -o new.iso --force              replaces an existing file
  mcp recv --from image-1.iso              fetches only what is not in an earlier version
  mcp recv 239.1.1.1 --id lab-07 --json    a group and a name you choose

Exit codes:
  0    the file is verified and in place (or this device already had it)
  1    the disk or the network refused, or a bug
  2    the command line makes no sense
  5    no sender in time
  6    the transfer broke off or was refused
  130  interrupted";

const KEY_AFTER: &str = "\
A group key seals a transfer: who does not have it can neither read nor disturb it.

Examples:
  mcp key new lab              makes one and prints its line
  mcp key add                  on each other machine: paste the line
  mcp key show                 this machine's own key as a sender
  mcp key forget 10.0.0.5      after the sender there was set up anew

Exit codes:
  0    done
  1    the disk refused, or a file is damaged
  2    the command line or the line given makes no sense";

/// Copies one file to many machines at once, by multicast.
#[derive(Debug, Parser)]
#[command(
    name = "mcp",
    version,
    after_help = EXAMPLES,
    arg_required_else_help = true,
    max_term_width = 110
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Send a file to every device that asks for it
    Send(SendArgs),
    /// Receive a file
    Recv(RecvArgs),
    /// Make, install and list keys
    Key(KeyArgs),
}

/// `mcp send`.
#[derive(Debug, Args)]
#[command(after_help = SEND_AFTER)]
pub struct SendArgs {
    /// File to send
    pub file: PathBuf,
    /// Multicast group, broadcast address or single host [default: 239.255.74.17]
    pub group: Option<String>,
    /// Network interface, by name or by one of its addresses [default: chosen, see -v]
    #[arg(short, long, value_name = "NAME|ADDR")]
    pub interface: Option<String>,
    /// UDP port
    #[arg(short, long, value_name = "N", default_value_t = DEFAULT_PORT, value_parser = clap::value_parser!(u16).range(1..))]
    pub port: u16,
    /// Bits per second on the wire: auto finds what the path to the devices carries, auto:800M the
    /// same but never above, 800M is fixed [default: auto, up to the link's speed]
    #[arg(short, long, value_name = "auto[:MAX]|BITS", value_parser = parse_rate_choice)]
    pub rate: Option<RateChoice>,
    /// A device that carries less than half of what the others do: defer serves it alone after the
    /// stream, keep slows all down to it, drop lets it fail
    #[arg(
        long,
        value_name = "defer|keep|drop",
        value_enum,
        default_value_t = Slow::Defer,
        hide_possible_values = true
    )]
    pub slow: Slow,
    /// Start when N devices are ready; N are expected to complete
    #[arg(short = 'n', long, value_name = "N", value_parser = parse_receivers)]
    pub receivers: Option<u32>,
    /// Gather devices for so long, then start with those present; -n ends it sooner [default: 10m]
    #[arg(short, long, value_name = "TIME", value_parser = parse_duration)]
    pub wait: Option<Duration>,
    /// Stay so long after the end to complete late devices
    #[arg(long, value_name = "TIME", default_value = "0", value_parser = parse_duration)]
    pub linger: Duration,
    /// Routers that multicast may pass, plus one
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub ttl: u8,
    /// Data bytes in a datagram, a multiple of 64 [default: from the interface's MTU]
    #[arg(long, value_name = "BYTES", value_parser = parse_symbol_size)]
    pub symbol_size: Option<u16>,
    /// Group key to seal with: an installed one, a key file, or none. MCP_KEY may hold the line itself
    /// [default: the one that is installed]
    #[arg(short, long, value_name = "NAME|FILE|none")]
    pub key: Option<PathBuf>,
    /// Write the final table of devices to FILE as JSON
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// How to show things.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `mcp recv`.
#[derive(Debug, Args)]
#[command(after_help = RECV_AFTER)]
pub struct RecvArgs {
    /// Multicast group or address to listen on, beside the default [default: 239.255.74.17]
    pub group: Option<String>,
    /// Directory to save into, or the file name to save as
    #[arg(short, long, value_name = "PATH", default_value = ".")]
    pub output: PathBuf,
    /// Network interface, by name or by one of its addresses [default: chosen, see -v]
    #[arg(short, long, value_name = "NAME|ADDR")]
    pub interface: Option<String>,
    /// UDP port
    #[arg(short, long, value_name = "N", default_value_t = DEFAULT_PORT, value_parser = clap::value_parser!(u16).range(1..))]
    pub port: u16,
    /// Name this device is known by [default: a kept identifier, shown as the host name]
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    pub id: Option<String>,
    /// Give up when no sender is found in this time
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = parse_duration)]
    pub timeout: Duration,
    /// Take only what is sealed with this group key: an installed one, a key file, or none for what is
    /// not sealed. MCP_KEY may hold the line itself [default: all that are installed]
    #[arg(short, long, value_name = "NAME|FILE|none")]
    pub key: Option<PathBuf>,
    /// Take files from this sender only, by what 'mcp key show' prints there; may be repeated
    #[arg(long, value_name = "KEY", value_parser = SenderKey::from_line)]
    pub sender: Vec<SenderKey>,
    /// Take files only from senders that are known or given with --sender
    #[arg(long)]
    pub require_signed: bool,
    /// Replace an existing file
    #[arg(long)]
    pub force: bool,
    /// Earlier version of the file (or a disk with it): what has not changed is taken from there
    #[arg(long, value_name = "OLD")]
    pub from: Option<PathBuf>,
    /// How to show things.
    #[command(flatten)]
    pub show: OutputArgs,
}

/// `mcp key`.
#[derive(Debug, Args)]
#[command(after_help = KEY_AFTER)]
pub struct KeyArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: KeyCommand,
}

/// What can be done with keys.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Make a group key, install it, and print the line to carry
    New {
        /// Name of the key
        name: String,
    },
    /// Install a group key from such a line
    Add {
        /// File with the line [default: -, standard input]
        file: Option<PathBuf>,
    },
    /// List the keys and known senders of this machine, without secrets
    List,
    /// Print a group key's line; without NAME this machine's own key as a sender
    Show {
        /// Name of the group key
        name: Option<String>,
    },
    /// Remove a group key from this machine
    Remove {
        /// Name of the key
        name: String,
        /// Only what it was before it was renewed
        #[arg(long)]
        older: bool,
    },
    /// Renew a group key, and print the line to carry; the one before is kept for receiving
    Rotate {
        /// Name of the key
        name: String,
    },
    /// Forget a sender that this machine has seen
    Forget {
        /// Its address, its key or its fingerprint
        #[arg(value_name = "ADDRESS|KEY")]
        sender: String,
    },
}

/// How to show things, for both commands.
#[derive(Debug, Clone, Copy, Args)]
pub struct OutputArgs {
    /// Print one JSON event a line on stdout
    #[arg(long)]
    pub json: bool,
    /// Print errors only
    #[arg(short, long, conflicts_with_all = ["verbose", "json"])]
    pub quiet: bool,
    /// Print details: interface, buffers, features
    #[arg(short, long)]
    pub verbose: bool,
}

const RATE_FORM: &str = "write auto, auto:800M, or bits per second as 950k, 800M or 2.5G";

/// `auto`, perhaps with `:` and a rate that it is not to exceed; or a rate to keep to.
fn parse_rate_choice(text: &str) -> Result<RateChoice, String> {
    match text.strip_prefix("auto") {
        Some("") => Ok(RateChoice::Auto(None)),
        Some(rest) => {
            let ceiling = rest.strip_prefix(':').ok_or(RATE_FORM)?;
            parse_rate(ceiling).map(|rate| RateChoice::Auto(Some(rate)))
        }
        None => parse_rate(text).map(RateChoice::Fixed),
    }
}

/// Bits per second: digits, perhaps a fraction, and k, M, G or T (decimal, either case).
fn parse_rate(text: &str) -> Result<Rate, String> {
    let (digits, scale) = match text.char_indices().next_back() {
        Some((at, 'k' | 'K')) => (&text[..at], 1e3),
        Some((at, 'm' | 'M')) => (&text[..at], 1e6),
        Some((at, 'g' | 'G')) => (&text[..at], 1e9),
        Some((at, 't' | 'T')) => (&text[..at], 1e12),
        _ => (text, 1.0),
    };
    let number = parse_number(digits).ok_or(RATE_FORM)? * scale;
    if number < MIN_RATE.0 as f64 {
        return Err("too slow to keep a session alive; write 64k or more".to_owned());
    }
    if number > MAX_RATE.0 as f64 {
        return Err("faster than any link; write 1T or less".to_owned());
    }
    Ok(Rate(number.round() as u64))
}

/// Digits, perhaps a point and more digits; nothing else that `f64` takes.
fn parse_number(text: &str) -> Option<f64> {
    let plain = text.chars().all(|c| c.is_ascii_digit() || c == '.');
    text.parse().ok().filter(|n: &f64| plain && n.is_finite())
}

/// A plain number of seconds, or numbers with units: `90`, `1.5`, `60s`, `1h 30m`.
fn parse_duration(text: &str) -> Result<Duration, String> {
    match parse_number(text) {
        Some(seconds) => Duration::try_from_secs_f64(seconds).map_err(|_| "too long".to_owned()),
        None => humantime::parse_duration(text)
            .map_err(|_| "write a number of seconds, or a time as 60s, 10m or 1h30m".to_owned()),
    }
}

fn parse_receivers(text: &str) -> Result<u32, String> {
    let bad = || format!("write a number from 1 to {MAX_DEVICES}");
    let n: u32 = text.parse().map_err(|_| bad())?;
    if n == 0 || n as usize > MAX_DEVICES { Err(bad()) } else { Ok(n) }
}

fn parse_symbol_size(text: &str) -> Result<u16, String> {
    (text.parse().ok())
        .filter(|n: &u16| (MIN_SYMBOL_SIZE..=MAX_SYMBOL_SIZE).contains(n) && n.is_multiple_of(SYMBOL_ALIGN))
        .ok_or_else(|| {
            format!("write a multiple of {SYMBOL_ALIGN} from {MIN_SYMBOL_SIZE} to {MAX_SYMBOL_SIZE}")
        })
}

fn parse_name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > MAX_LABEL || text.chars().any(char::is_control) {
        return Err(format!("write 1 to {MAX_LABEL} bytes without control characters"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests;
