//! Arguments of `mcp doctor`.

use super::parse_duration;
use clap::Args;
use mcp_transfer::limits::DEFAULT_PORT;
use std::path::PathBuf;
use std::time::Duration;

const AFTER: &str = "\
Nothing is changed. Checks that need root say so. The speed of the disk is measured with a file
without a name, which is gone afterwards.

Examples:
  mcp doctor                        this machine
  mcp doctor -o /srv/images         the same, for a directory to receive into
  mcp doctor --listen-for 130s      also waits for a querier, which asks every two minutes
  mcp doctor --listen               on one machine, until Ctrl-C, for the doctor of another one:
  mcp doctor --to 10.0.0.7          measures the path to it: multicast, unicast, lengths, loss, order
  mcp doctor --to 239.255.74.17     the same for all that listen

Exit codes:
  0    nothing is broken
  1    something is broken
  2    the command line is invalid";

/// `mcp doctor`.
#[derive(Debug, Args)]
#[command(after_help = AFTER)]
pub struct DoctorArgs {
    /// Multicast group or address that transfers use [default: 239.255.74.17]
    #[arg(conflicts_with = "to")]
    pub group: Option<String>,
    /// Listen for the doctor of another machine, and answer it
    #[arg(long)]
    pub listen: bool,
    /// Measure the path to the machines on which a doctor listens
    #[arg(long, value_name = "HOST|GROUP", conflicts_with = "listen")]
    pub to: Option<String>,
    /// With --to: see for so long whether the group still arrives, because switches may forget members [default: 5m]
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true, requires = "to", value_parser = parse_duration)]
    pub long: Option<Option<Duration>>,
    /// Network interface, by name or by one of its addresses [default: as for send and recv]
    #[arg(short, long, value_name = "NAME|ADDR")]
    pub interface: Option<String>,
    /// UDP port
    #[arg(short, long, value_name = "N", default_value_t = DEFAULT_PORT, value_parser = clap::value_parser!(u16).range(1..))]
    pub port: u16,
    /// What 'mcp recv -o' would write to
    #[arg(short, long, value_name = "PATH", default_value = ".")]
    pub output: PathBuf,
    /// How long to listen: for a querier of group members [default: not at all], with --listen [default: until
    /// Ctrl-C], with --to for the first answer [default: 5s]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub listen_for: Option<Duration>,
    /// Print one JSON object on stdout
    #[arg(long)]
    pub json: bool,
}
