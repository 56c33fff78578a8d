//! Arguments of `mcp key`.

use super::parse_name;
use clap::{Args, Subcommand};
use std::path::PathBuf;

const KEY_AFTER: &str = "\
A group key seals a transfer: nobody without the key can read or disturb it.

Examples:
  mcp key new lab              makes a group key and prints its line
  mcp key add                  on each other machine: paste the line
  mcp key show                 this machine's own key as a sender
  mcp key device               this machine's line for 'mcp send --devices'
  mcp key forget 10.0.0.5      after the sender at this address was reinstalled

Exit codes:
  0    done
  1    the disk failed, or a file is damaged
  2    the command line, or the key's line, is invalid";

/// `mcp key`.
#[derive(Debug, Args)]
#[command(after_help = KEY_AFTER)]
pub struct KeyArgs {
    /// The subcommand.
    #[command(subcommand)]
    pub command: KeyCommand,
}

/// The subcommands of `mcp key`.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Make a group key, install it, and print the line to carry
    New {
        /// Name of the key
        name: String,
    },
    /// Install a group key from its line
    Add {
        /// File with the line [default: -, standard input]
        file: Option<PathBuf>,
    },
    /// List the keys, known senders and known devices of this machine, without secrets
    List,
    /// Print a group key's line; without NAME, this machine's own public key as a sender
    Show {
        /// Name of the group key
        name: Option<String>,
    },
    /// Print this machine's line for a list of devices: its name and its public key as a device
    Device {
        /// Name that the device is to have on the list [default: the host name]
        #[arg(long, value_name = "NAME", value_parser = parse_name)]
        id: Option<String>,
    },
    /// Remove a group key from this machine
    Remove {
        /// Name of the key
        name: String,
        /// Remove only its previous versions, from before it was renewed
        #[arg(long)]
        older: bool,
    },
    /// Renew a group key and print the line to carry; receiving still accepts the previous key
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
