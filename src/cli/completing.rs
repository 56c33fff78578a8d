//! Completions in shells. The scripts ask the program, so that they also know what is on this machine, or at its server:
//! interfaces, keys, senders, tasks, devices.

use super::args::Cli;
use super::identity::StateDir;
#[cfg(feature = "fleet")]
use super::identity::state_dir;
use super::report::Error;
use clap::{Arg, Command, CommandFactory};
use clap_complete::Shell;
use clap_complete::engine::{
    ArgValueCandidates, ArgValueCompleter, CompletionCandidate, PathCompleter, ValueCompleter,
};
use clap_complete::env::{CompleteEnv, Shells};
#[cfg(feature = "fleet")]
use mcp_fleet::commands::{Named, names};
use mcp_transfer::keyring::Keyring;
use mcp_transfer::net::Interface;
use std::ffi::OsStr;

/// The environment variable by which a script asks.
const VARIABLE: &str = "MCP_COMPLETE";

/// Answers the script of a shell, if it was that which started this program. Returns whether it was.
pub fn answered() -> bool {
    let here = std::env::current_dir().ok();
    let asked =
        CompleteEnv::with_factory(command).var(VARIABLE).try_complete(std::env::args_os(), here.as_deref());
    // Whoever types a command is told nothing of failures.
    asked.unwrap_or(true)
}

/// The script of a shell.
///
/// # Errors
///
/// If there is none for it.
pub fn script(shell: Shell) -> Result<Vec<u8>, Error> {
    let unknown = || Error::Usage(format!("there are no completions for {shell}"));
    let shells = Shells::builtins();
    let mut script = Vec::new();
    let completer = shells.completer(&shell.to_string()).ok_or_else(unknown)?;
    completer.write_registration(VARIABLE, "mcp", "mcp", "mcp", &mut script).map_err(|_| unknown())?;
    if shell == Shell::Zsh {
        // When zsh has loaded it by itself, it wants an answer at once.
        script.extend_from_slice(b"[ \"$funcstack[1]\" = \"_mcp\" ] && _clap_dynamic_completer_mcp \"$@\"\n");
    }
    Ok(script)
}

/// The command line, with what its values can be.
fn command() -> Command {
    with_values(Cli::command(), "")
}

fn with_values(command: Command, path: &str) -> Command {
    let inside = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path} {name}") };
    let command = command.mut_args(|arg| with_value(arg, path));
    command.mut_subcommands(|sub| {
        let path = inside(sub.get_name());
        with_values(sub, &path)
    })
}

/// What the value of an argument of the command `path` can be.
fn with_value(arg: Arg, path: &str) -> Arg {
    let id = arg.get_id().as_str().to_owned();
    match (path, id.as_str()) {
        (_, "interface") | ("relay", "from" | "to") => arg.add(ArgValueCandidates::new(interfaces)),
        ("send" | "recv" | "relay", "key") => arg.add(ArgValueCompleter::new(key)),
        ("key show" | "key remove" | "key rotate", "name") => arg.add(ArgValueCandidates::new(keys)),
        ("key forget", "sender") => arg.add(ArgValueCandidates::new(senders)),
        #[cfg(feature = "fleet")]
        _ => match named(path, &id) {
            Some(of) => arg.add(ArgValueCandidates::new(move || at_server(of))),
            None => arg,
        },
        #[cfg(not(feature = "fleet"))]
        _ => arg,
    }
}

#[cfg(feature = "fleet")]
fn named(path: &str, id: &str) -> Option<Named> {
    let (of, _) = path.split_once(' ')?;
    match (of, id) {
        ("task", "id") => Some(Named::Tasks),
        ("task" | "device", "device" | "devices") => Some(Named::Devices),
        ("operator", "name") if path.ends_with("remove") => Some(Named::Operators),
        ("enrol", "id") => Some(Named::Lines),
        ("hook", "id") => Some(Named::Hooks),
        _ => None,
    }
}

fn candidate(value: impl Into<std::ffi::OsString>, words: &str) -> CompletionCandidate {
    CompletionCandidate::new(value).help((!words.is_empty()).then(|| words.to_owned().into()))
}

fn interfaces() -> Vec<CompletionCandidate> {
    let all = Interface::list().unwrap_or_default();
    let words = |interface: &Interface| {
        let addresses = [false, true].into_iter().filter_map(|v6| interface.address(v6));
        addresses.map(|address| address.to_string()).collect::<Vec<_>>().join(" ")
    };
    all.iter().map(|interface| candidate(&interface.name, &words(interface))).collect()
}

fn ring() -> Option<Keyring> {
    StateDir::find().ok()?.ring
}

fn keys() -> Vec<CompletionCandidate> {
    let names = ring().and_then(|ring| ring.names().ok()).unwrap_or_default();
    names.into_iter().map(|name| candidate(name, "group key")).collect()
}

/// An installed key, a file, or none.
fn key(current: &OsStr) -> Vec<CompletionCandidate> {
    let mut found = keys();
    found.push(candidate("none", "no group key"));
    found.retain(|known| known.get_value().as_encoded_bytes().starts_with(current.as_encoded_bytes()));
    found.extend(PathCompleter::file().complete(current));
    found
}

fn senders() -> Vec<CompletionCandidate> {
    let known = ring().and_then(|ring| ring.known_senders(&mut Vec::new()).ok()).unwrap_or_default();
    known.iter().map(|known| candidate(known.address.to_string(), &known.label)).collect()
}

#[cfg(feature = "fleet")]
fn at_server(of: Named) -> Vec<CompletionCandidate> {
    let names = state_dir().map(|state| names(of, &state)).unwrap_or_default();
    names.iter().map(|(name, words)| candidate(name, words)).collect()
}
