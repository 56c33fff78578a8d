//! Arguments of what is for reading: completions, the manual, and pages of help beside those of the commands.

use clap::Subcommand;
use clap_complete::Shell;
use std::path::PathBuf;

/// `mcp help exit-codes`.
pub const EXIT_CODES: &str = "\
Exit codes of mcp:
  0    done. send: every expected device is complete; with --one-way, all was sent.
       recv: the file is verified and in place, or was already. doctor: nothing is broken
  1    the file, the disk, the network or the server failed, or a bug. doctor: something
       is broken
  2    the command line is invalid
  3    send, and task with --wait: some devices did not complete
  4    send, and task with --wait: no device completed, or there is none
  5    recv: no sender in time
  6    recv: the transfer broke off or was refused
  7    recv: the command of --pipe failed, or the file is in place but the command of
       --then failed
  130  interrupted; the other side was told, and no incomplete file has a final name

With 'recv --loop', the code says why the loop ended. relay ends as recv does if it gets no
file, and else as send does.";

/// `mcp help rates`.
pub const RATES: &str = "\
Rates are bits per second on the wire, headers included: 950k, 800M, 2.5G. The units are
decimal, and may be written in either case. 64k is the least.

  mcp send --rate auto FILE        finds the rate of the slowest path, up to the link's speed
  mcp send --rate auto:800M FILE   the same, but never above 800 Mbit/s
  mcp send --rate 800M FILE        sends at 800 Mbit/s, whatever is lost

auto is the default. The sender starts slowly, raises the rate while all paths carry it,
and holds it below the point where queues grow. A path that carries less than half of what
the others carry does not slow them down: --slow says whether its device is served alone
afterwards (defer), waited for (keep) or given up (drop).

A fixed rate suits a line of known capacity, or one without a way back (--one-way). Of a
line with other traffic, name what is left. 'mcp doctor --to HOST' measures a line.";

/// Commands of which users rarely think.
#[derive(Debug, Subcommand)]
pub enum BookCommand {
    /// Print completions of arguments for a shell
    #[command(after_help = "Examples:
  mcp completions bash > /etc/bash_completion.d/mcp
  mcp completions zsh > /usr/share/zsh/site-functions/_mcp
  mcp completions fish > /usr/share/fish/vendor_completions.d/mcp.fish")]
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Write the manual, one page for each command, into a directory
    #[command(hide = true)]
    Manual {
        /// The directory, which must exist
        dir: PathBuf,
    },
    /// What the exit codes mean
    #[command(hide = true, help_template = "{about-with-newline}", long_about = EXIT_CODES)]
    ExitCodes,
    /// How rates are written and found
    #[command(hide = true, help_template = "{about-with-newline}", long_about = RATES)]
    Rates,
}
