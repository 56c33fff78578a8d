//! Arguments as typed, each checked by itself. `config` derives the configuration from all of them.

use super::compression::parse_compression;
use clap::{Args, Parser, Subcommand};
pub use doctor::DoctorArgs;
pub use key::{KeyArgs, KeyCommand};
use mcp_transfer::limits::{
    DEFAULT_PORT, MAX_DEVICES, MAX_LABEL, MAX_SYMBOL_SIZE, MIN_SYMBOL_SIZE, SYMBOL_ALIGN,
};
use mcp_transfer::protocol::sender::{Compression, FOREVER, SlowPolicy};
pub use mcp_transfer::session::RateChoice;
use mcp_transfer::storage::name_objection;
use mcp_transfer::units::{Rate, SenderKey};
pub use one_way::{OneWayArgs, Repeat};
pub use relay::RelayArgs;
pub use show::OutputArgs;
use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;
pub use stream::StreamArgs;

pub mod book;
pub mod doctor;
pub mod key;
pub mod one_way;
pub mod relay;
pub mod show;
pub mod stream;

/// Policy for a device whose path carries less than half of what the others' paths carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Slow {
    /// The group continues without the device; the sender serves it alone afterwards
    Defer,
    /// The group slows down to the device's pace
    Keep,
    /// The device fails, and the others continue
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
/// Fastest rate that is accepted; anything above is a typing error.
pub const MAX_RATE: Rate = Rate(1_000_000_000_000);

const EXAMPLES: &str = "\
Quick start:
  mcp recv                     on each machine that wants the file
  mcp send image.iso           on the machine that has it

'mcp help send', 'mcp help recv' and 'mcp help key' say more, and so do
'mcp help exit-codes' and 'mcp help rates'. 'mcp doctor' finds out what is wrong.";

const SEND_AFTER: &str = "\
The stream starts when N devices are ready (-n) or all that are listed (--devices),
when the time of --wait is over, or when you press Enter. Without these options it
starts 2 s after the last device joined.

Examples:
  mcp send image.iso                       to every machine that runs 'mcp recv'
  mcp send image.iso -n 30 -w 5m -r 800M   to 30 devices, or those ready in 5 minutes
  mcp send image.iso --devices lab.txt     to the devices on this list and to nobody else
  mcp send image.iso 239.1.1.1 -i eth1     to this group, through this interface
  mcp send lab-image/                      a directory with all in it
  mcp send a.iso b.iso notes.txt           several files together
  mcp send /dev/sda                        a whole disk, which must not change meanwhile
  tar c lab | mcp send - --name lab.tar    what another program writes, while it is written
  mcp send /dev/sda2 --pipe 'partclone.ext4 -c -s - -o -'   complete only if the command succeeds
  mcp send image.iso --linger 10m --report done.json
  mcp send --one-way -r 600M image.iso 239.1.1.1   over a line without a way back
  mcp send -- -odd-name                    a name that begins with a dash

Exit codes:
  0    every expected device is complete (with --one-way: all was sent)
  1    the file, the disk or the network failed, or a bug
  2    the command line is invalid
  3    some devices did not complete
  4    no device completed, or none joined
  130  interrupted";

const RECV_AFTER: &str = r#"Examples:
  mcp recv                                 receives the next file into this directory
  mcp recv -o /srv/images --timeout 5m     waits 5 minutes for a sender
  mcp recv -o new.iso --force              replaces an existing file
  mcp recv -o /srv/                        a directory appears as /srv/NAME once it is whole
  mcp recv --from image-1.iso              fetches only what changed since this version
  mcp recv -o /dev/sdb                     onto this disk, in place; its sender must be known
  mcp recv 239.1.1.1 --id lab-07 --json    from this group, under this name
  mcp recv --then 'tar -xf "$MCP_PATH"'    unpacks the file; its sender must be known
  mcp recv --loop --force                  takes each new version, until Ctrl-C
  mcp recv --one-way 239.1.1.1             sends nothing, not one datagram
  mcp recv -o - | zstd -d > disk.img       passes it on in order; check the exit codes of both
  mcp recv -o - --pipe 'zstd -d > disk.img'   succeeds only if the command does

Exit codes:
  0    the file is verified and in place (or was already), or passed on whole
  1    the disk or the network failed, or a bug
  2    the command line is invalid
  5    no sender in time
  6    the transfer broke off or was refused
  7    the command of --pipe failed, or the file is in place but the command of --then failed
  130  interrupted

With --loop, the code says why the loop ended, and errors of a transfer do not end it."#;

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
    /// The subcommand.
    #[command(subcommand)]
    pub command: Command,
    /// With --version: also the commit, the features, and what the kernel offers of what mcp uses
    #[arg(short, long, requires = "version")]
    pub verbose: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Send files, a directory, a disk or a stream to every device that asks for it
    Send(SendArgs),
    /// Receive what is sent
    Recv(RecvArgs),
    /// Receive one file and send it on, as its origin signed it
    Relay(RelayArgs),
    /// Make, install and list keys
    Key(KeyArgs),
    /// Find out why a transfer does not work, or is slow
    Doctor(DoctorArgs),
    /// What is for reading.
    #[command(flatten)]
    Book(book::BookCommand),
    /// The standing half.
    #[cfg(feature = "fleet")]
    #[command(flatten)]
    Fleet(mcp_fleet::commands::Command),
}

/// `mcp send`.
#[derive(Debug, Args)]
#[command(after_help = SEND_AFTER)]
pub struct SendArgs {
    /// File, directory or block device to send; - sends standard input, whose end is taken as the end of the stream
    #[arg(required_unless_present = "pipe")]
    pub file: Option<PathBuf>,
    /// More files and directories, which arrive together. The last one may be the multicast group, broadcast address or
    /// single host to send to, unless there is such a file [default: 239.255.74.17]
    #[arg(value_name = "FILE|GROUP")]
    pub more: Vec<OsString>,
    /// Send owners, all extended attributes, access lists and device nodes of directories too; needs root
    #[arg(long)]
    pub archive: bool,
    /// Name under which the devices get the file or the directory [default: its own, or stdin]
    #[arg(long, value_name = "NAME", value_parser = parse_object_name)]
    pub name: Option<String>,
    /// Network interface, by name or by one of its addresses [default: chosen, see -v]
    #[arg(short, long, value_name = "NAME|ADDR")]
    pub interface: Option<String>,
    /// UDP port
    #[arg(short, long, value_name = "N", default_value_t = DEFAULT_PORT, value_parser = clap::value_parser!(u16).range(1..))]
    pub port: u16,
    /// Bits per second on the wire: auto finds the capacity of the slowest path, auto:800M does so
    /// up to 800 Mbit/s, 800M is fixed [default: auto, up to the link's speed]
    #[arg(short, long, value_name = "auto[:MAX]|BITS", value_parser = parse_rate_choice)]
    pub rate: Option<RateChoice>,
    /// A device whose path carries less than half of what the others carry: defer serves it alone
    /// after the stream, keep slows all devices down to it, drop fails it
    #[arg(
        long,
        value_name = "defer|keep|drop",
        value_enum,
        default_value_t = Slow::Defer,
        hide_possible_values = true
    )]
    pub slow: Slow,
    /// Compress blocks that shrink by 5 % or more: auto as well as there is time for, 1 to 19 at this level of zstd.
    /// Zeros and holes are never sent
    #[arg(long, value_name = "off|auto|LEVEL", default_value = "off", value_parser = parse_compression)]
    pub compress: Compression,
    /// Start when N devices are ready; N devices are expected to complete
    #[arg(short = 'n', long, value_name = "N", value_parser = parse_receivers)]
    pub receivers: Option<u32>,
    /// Serve only the devices that FILE lists, one a line: a name, or a name and the key that
    /// 'mcp key device' prints there; all of them are expected to complete
    #[arg(long, value_name = "FILE", conflicts_with = "receivers")]
    pub devices: Option<PathBuf>,
    /// Start after this time with the devices that have joined, or sooner with -n or --devices [default: 10m]
    #[arg(short, long, value_name = "TIME", value_parser = parse_duration)]
    pub wait: Option<Duration>,
    /// Wait this long, or forever, for the first device, and count the time of --wait from then on
    #[arg(long, value_name = "TIME|forever", value_parser = parse_time_or_forever)]
    pub wait_first: Option<Duration>,
    /// Stay this long after the end to complete late devices, or forever, also if no device comes at all
    #[arg(long, value_name = "TIME|forever", default_value = "0", value_parser = parse_time_or_forever)]
    pub linger: Duration,
    /// End after this time in all; devices that are not complete then have failed [default: no limit]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub max_time: Option<Duration>,
    /// Number of routers that the datagrams may cross, plus one
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub ttl: u8,
    /// Class of the datagrams for routers and switches (DSCP): 0 to 63, or a name such as ef, af21, cs1 or le
    #[arg(long, value_name = "CLASS", default_value = "0", value_parser = parse_dscp)]
    pub dscp: u8,
    /// Data bytes in a datagram, a multiple of 64 [default: from the interface's MTU]
    #[arg(long, value_name = "BYTES", value_parser = parse_symbol_size)]
    pub symbol_size: Option<u16>,
    /// Group key to seal with: an installed one, a key file, or none. MCP_KEY may hold the line itself
    /// [default: the installed key]
    #[arg(short, long, value_name = "NAME|FILE|none")]
    pub key: Option<PathBuf>,
    /// Refuse to send without a group key
    #[arg(long)]
    pub require_key: bool,
    /// Options for streams.
    #[command(flatten)]
    pub stream: StreamArgs,
    /// Write the final table of devices to FILE as JSON
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Options for lines without a way back.
    #[command(flatten)]
    pub one_way: OneWayArgs,
    /// Output options.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `mcp recv`.
#[derive(Debug, Args)]
#[command(after_help = RECV_AFTER)]
pub struct RecvArgs {
    /// Multicast group or address to listen on, beside the default [default: 239.255.74.17]
    pub group: Option<String>,
    /// Take only a file of this name, and wait until one is sent [default: the first file]
    #[arg(long, value_name = "NAME", value_parser = parse_object_name)]
    pub name: Option<String>,
    /// Directory to save into, file or directory name to save as, or block device to write to; on a device, the old
    /// content is lost from the first write on. Several files that are sent together need a directory
    #[arg(short, long, value_name = "PATH", default_value = ".")]
    pub output: PathBuf,
    /// Network interface, by name or by one of its addresses [default: chosen, see -v]
    #[arg(short, long, value_name = "NAME|ADDR")]
    pub interface: Option<String>,
    /// UDP port
    #[arg(short, long, value_name = "N", default_value_t = DEFAULT_PORT, value_parser = clap::value_parser!(u16).range(1..))]
    pub port: u16,
    /// Take the group's datagrams only from this address: the sender's, for source-specific groups
    /// (232.0.0.0/8, ff3x::/32)
    #[arg(long, value_name = "ADDR", requires = "group")]
    pub source: Option<IpAddr>,
    /// Name that identifies this device [default: a stored identifier, shown as the host name]
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    pub id: Option<String>,
    /// Give up if no sender is found in this time [default: 24h; with --loop no limit]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub timeout: Option<Duration>,
    /// Take only transfers sealed with this group key: an installed one, a key file, or none for
    /// unsealed transfers. MCP_KEY may hold the line itself [default: all installed keys]
    #[arg(short, long, value_name = "NAME|FILE|none")]
    pub key: Option<PathBuf>,
    /// Refuse to receive without a group key
    #[arg(long)]
    pub require_key: bool,
    /// Take files from this sender only, given by the output of its 'mcp key show'; may be repeated
    #[arg(long, value_name = "KEY", value_parser = SenderKey::from_line)]
    pub sender: Vec<SenderKey>,
    /// Take files only from known senders and those given with --sender
    #[arg(long)]
    pub require_signed: bool,
    /// With --then, --pipe, --archive, --loop or a device: take files from any sender, also from one that is not known
    #[arg(long, conflicts_with_all = ["sender", "require_signed"])]
    pub any_sender: bool,
    /// Replace an existing file or directory, or write to a device that is in use
    #[arg(long)]
    pub force: bool,
    /// Put the files of a directory that is received into the existing one, each by one rename; files of the same names
    /// are replaced, others stay
    #[arg(long, conflicts_with = "force")]
    pub merge: bool,
    /// Restore owners, set-id bits, all extended attributes, access lists and device nodes of a directory, if the sender
    /// used --archive; needs root
    #[arg(long)]
    pub archive: bool,
    /// Read the file or the device back from the disk, and hash it again, before it counts as complete
    #[arg(long)]
    pub verify: bool,
    /// With -o -: pass the object to this shell command instead of standard output, and wait for its end; if it
    /// fails, the device has failed. MCP_NAME and, unless it is a stream, MCP_SIZE are in its environment
    #[arg(long, value_name = "CMD")]
    pub pipe: Option<OsString>,
    /// With -o -: keep what arrives out of order in an unnamed file in this directory
    #[arg(long, value_name = "DIR")]
    pub spool: Option<PathBuf>,
    /// Earlier version of the file (or a disk that holds it) or of the directory: take what is unchanged from there
    #[arg(long, value_name = "OLD")]
    pub from: Option<PathBuf>,
    /// Run this shell command once the file is in place, with MCP_PATH, MCP_NAME, MCP_HASH, MCP_SIZE,
    /// MCP_SENDER and MCP_SENDER_KEY in its environment; if it fails, the device has failed
    #[arg(long, value_name = "CMD")]
    pub then: Option<OsString>,
    /// After each transfer, wait for the next one
    #[arg(long = "loop")]
    pub again: bool,
    /// Send nothing at all, and take only what is sent with 'mcp send --one-way'
    #[arg(long)]
    pub one_way: bool,
    /// Also take files from relays and other senders, if a known sender or one of --sender has signed them
    #[arg(long, conflicts_with_all = ["any_sender", "one_way", "pipe"])]
    pub relayed: bool,
    /// Take a one-way or relayed transfer that is no newer than the last one completed from its sender, too
    #[arg(long = "again")]
    pub retake: bool,
    /// Write what is missing at the end, and the outcome, to FILE as JSON
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Output options.
    #[command(flatten)]
    pub show: OutputArgs,
}

const RATE_FORM: &str = "write auto, auto:800M, or bits per second as 950k, 800M or 2.5G";

/// Parses `auto`, `auto:` and a ceiling, or a fixed rate.
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

/// Parses bits per second: digits, an optional fraction, and k, M, G or T (decimal, either case).
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

/// Parses digits with an optional point; rejects the other forms that `f64` accepts.
fn parse_number(text: &str) -> Option<f64> {
    let plain = text.chars().all(|c| c.is_ascii_digit() || c == '.');
    text.parse().ok().filter(|n: &f64| plain && n.is_finite())
}

/// Parses a number of seconds, or numbers with units: `90`, `1.5`, `60s`, `1h 30m`.
fn parse_duration(text: &str) -> Result<Duration, String> {
    match parse_number(text) {
        Some(seconds) => Duration::try_from_secs_f64(seconds).map_err(|_| "too long".to_owned()),
        None => humantime::parse_duration(text)
            .map_err(|_| "write a number of seconds, or a time as 60s, 10m or 1h30m".to_owned()),
    }
}

/// Parses a duration, or `forever`.
fn parse_time_or_forever(text: &str) -> Result<Duration, String> {
    if text == "forever" { Ok(FOREVER) } else { parse_duration(text) }
}

/// The code points that have names (RFC 2474, 2597, 3246, 5865, 8622).
fn parse_dscp(text: &str) -> Result<u8, String> {
    let bad = || "write a number from 0 to 63, or ef, va, le, cs0 to cs7, af11 to af43".to_owned();
    if let Ok(number) = text.parse::<u8>() {
        return if number < 64 { Ok(number) } else { Err(bad()) };
    }
    let lower = text.to_ascii_lowercase();
    let digit = |byte: u8, most: u8| (b'0'..=b'0' + most).contains(&byte).then(|| byte - b'0');
    let point = match lower.as_bytes() {
        b"ef" => Some(46),
        b"va" => Some(44),
        b"le" => Some(1),
        [b'c', b's', class] => digit(*class, 7).map(|class| class << 3),
        [b'a', b'f', class, drop] => match (digit(*class, 4), digit(*drop, 3)) {
            (Some(class @ 1..), Some(drop @ 1..)) => Some(class << 3 | drop << 1),
            _ => None,
        },
        _ => None,
    };
    point.ok_or_else(bad)
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

fn parse_object_name(text: &str) -> Result<String, String> {
    let why = |rule| format!("it {rule}; write a plain file name");
    name_objection(text).map_or_else(|| Ok(text.to_owned()), |rule| Err(why(rule)))
}

pub(super) fn parse_name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > MAX_LABEL || text.chars().any(char::is_control) {
        return Err(format!("write 1 to {MAX_LABEL} bytes without control characters"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests;
