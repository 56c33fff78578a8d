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
  sudo mcp doctor --listen-for 130s    also waits for a querier, which asks every two minutes

Exit codes:
  0    nothing is broken
  1    something is broken
  2    the command line is invalid";

/// `mcp doctor`.
#[derive(Debug, Args)]
#[command(after_help = AFTER)]
pub struct DoctorArgs {
    /// Multicast group or address that transfers use [default: 239.255.74.17]
    pub group: Option<String>,
    /// Network interface, by name or by one of its addresses [default: as for send and recv]
    #[arg(short, long, value_name = "NAME|ADDR")]
    pub interface: Option<String>,
    /// UDP port
    #[arg(short, long, value_name = "N", default_value_t = DEFAULT_PORT, value_parser = clap::value_parser!(u16).range(1..))]
    pub port: u16,
    /// What 'mcp recv -o' would write to
    #[arg(short, long, value_name = "PATH", default_value = ".")]
    pub output: PathBuf,
    /// Listen so long for a querier of group members
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub listen_for: Option<Duration>,
    /// Print one JSON object on stdout
    #[arg(long)]
    pub json: bool,
}
