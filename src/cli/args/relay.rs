//! Arguments of `mcp relay`.

use super::{
    OutputArgs, RateChoice, parse_duration, parse_name, parse_object_name, parse_rate_choice,
    parse_receivers, parse_time_or_forever,
};
use clap::Args;
use mcp_transfer::limits::DEFAULT_PORT;
use mcp_transfer::units::SenderKey;
use std::path::PathBuf;
use std::time::Duration;

const AFTER: &str = "\
The file is received, verified and saved as 'mcp recv' does it. Then it is sent as 'mcp send'
does it, with the proof of the machine that sent it first. Devices that know that machine
take it from here with 'mcp recv --relayed': they trust the proof, and not the relay.

Examples:
  mcp relay --from eth0 --to eth1          to the segment at eth1, where multicast does not reach
  mcp send image.iso 10.2.0.7              at the origin: by unicast to the relay 10.2.0.7
  mcp relay --to eth0 -n 30                at the relay: to 30 devices around it
  mcp recv --relayed --sender KEY          on each device, with the origin's 'mcp key show'

Exit codes:
  0    every expected device is complete
  1    the file, the disk or the network failed, or a bug
  2    the command line is invalid
  3    some devices did not complete
  4    no device completed, or none joined
  5    no sender in time
  6    the transfer to the relay broke off or was refused
  130  interrupted";

/// `mcp relay`.
#[derive(Debug, Args)]
#[command(after_help = AFTER)]
pub struct RelayArgs {
    /// Multicast group or address to listen on, beside the default [default: 239.255.74.17]
    pub group: Option<String>,
    /// Multicast group, broadcast address or single host to send to [default: 239.255.74.17]
    #[arg(long, value_name = "GROUP")]
    pub to_group: Option<String>,
    /// Network interface to receive from, by name or by one of its addresses [default: chosen, see -v]
    #[arg(long, value_name = "NAME|ADDR")]
    pub from: Option<String>,
    /// Network interface to send from, by name or by one of its addresses [default: chosen, see -v]
    #[arg(long, value_name = "NAME|ADDR")]
    pub to: Option<String>,
    /// UDP port
    #[arg(short, long, value_name = "N", default_value_t = DEFAULT_PORT, value_parser = clap::value_parser!(u16).range(1..))]
    pub port: u16,
    /// Take only a file of this name, and wait until one is sent [default: the first file]
    #[arg(long, value_name = "NAME", value_parser = parse_object_name)]
    pub name: Option<String>,
    /// Directory to save into, or file name to save as
    #[arg(short, long, value_name = "PATH", default_value = ".")]
    pub output: PathBuf,
    /// Replace an existing file
    #[arg(long)]
    pub force: bool,
    /// Name that identifies this device to the sender [default: a stored identifier, shown as the host name]
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    pub id: Option<String>,
    /// Give up if no sender is found in this time [default: 24h]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub timeout: Option<Duration>,
    /// Bits per second on the wire, as for 'mcp send' [default: auto, up to the link's speed]
    #[arg(short, long, value_name = "auto[:MAX]|BITS", value_parser = parse_rate_choice)]
    pub rate: Option<RateChoice>,
    /// Start when N devices are ready; N devices are expected to complete
    #[arg(short = 'n', long, value_name = "N", value_parser = parse_receivers)]
    pub receivers: Option<u32>,
    /// Start after this time with the devices that have joined, or sooner with -n [default: 10m]
    #[arg(short, long, value_name = "TIME", value_parser = parse_duration)]
    pub wait: Option<Duration>,
    /// Stay this long after the end to complete late devices, or forever, also if no device comes at all
    #[arg(long, value_name = "TIME|forever", default_value = "0", value_parser = parse_time_or_forever)]
    pub linger: Duration,
    /// Group key of both transfers: an installed one, a key file, or none. MCP_KEY may hold the line itself
    /// [default: the installed key]
    #[arg(short, long, value_name = "NAME|FILE|none")]
    pub key: Option<PathBuf>,
    /// Refuse to receive or send without a group key
    #[arg(long)]
    pub require_key: bool,
    /// Take files from this sender only, given by the output of its 'mcp key show'; may be repeated
    #[arg(long, value_name = "KEY", value_parser = SenderKey::from_line)]
    pub sender: Vec<SenderKey>,
    /// Take files only from known senders and those given with --sender
    #[arg(long)]
    pub require_signed: bool,
    /// Also take files from relays and other senders, if a known sender or one of --sender has signed them
    #[arg(long)]
    pub relayed: bool,
    /// Output options.
    #[command(flatten)]
    pub show: OutputArgs,
}
