//! Arguments that choose what a command shows.

use clap::Args;
use std::path::PathBuf;

/// Output options of both commands.
#[derive(Debug, Clone, Args)]
pub struct OutputArgs {
    /// Print one JSON event a line on stdout, or on stderr with -o -. With FILE, write the events there, beside what is
    /// shown: to a FIFO, to /dev/fd/3, or at the end of a file
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true)]
    pub json: Option<Option<PathBuf>>,
    /// Print errors only
    #[arg(short, long, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Print details: interface, buffers, features
    #[arg(short, long)]
    pub verbose: bool,
}
