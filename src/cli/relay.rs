//! `mcp relay`: receives one file as `mcp recv` does, and then sends it as `mcp send` does, with the proof of its origin.

use super::again::Past;
use super::args::{OneWayArgs, RateChoice, RelayArgs, Slow, StreamArgs};
use super::config::{Gather, RecvConfig, SendConfig, Surroundings, TIMEOUT, strangers, style};
use super::console::Console;
use super::exit::Exit;
use super::identity::{DeviceIdentity, StateDir};
use super::objects::Objects;
use super::recv::{self, End};
use super::report::{self, Error};
use super::send;
use mcp_transfer::net::Marking;
use mcp_transfer::protocol::sender::Compression;
use mcp_transfer::session::send::{SETTLE, WAIT};
use mcp_transfer::storage::FileSource;
use mcp_transfer::text::escape;

/// Receives one file, passes it on, and returns the exit code.
#[must_use]
pub fn run(args: RelayArgs, surroundings: Surroundings) -> Exit {
    match try_run(args, surroundings) {
        Ok(exit) => exit,
        Err(error) => {
            report::error(&error);
            error.exit()
        }
    }
}

fn try_run(args: RelayArgs, surroundings: Surroundings) -> Result<Exit, Error> {
    let (receiving, sending) = halves(args, surroundings);
    if receiving.is_passed_on() {
        return Err(Error::Usage(
            "a relay saves what it passes on; name a file or a directory with -o".to_owned(),
        ));
    }
    let state = StateDir::find()?;
    let identity = DeviceIdentity::find(receiving.id.as_deref(), state.dir.as_deref())
        .map_err(|e| Error::Environment(format!("no randomness from the system: {e}")))?;
    let mut console = Console::new(sending.gather.enter)
        .map_err(|e| Error::Environment(format!("cannot wait for signals: {e}")))?;
    let events = sending.events.as_deref().map(super::event_file).transpose()?;
    let end = recv::once(&receiving, &identity, &mut console, &mut Past::default(), events.as_ref())?;
    let End { exit: Exit::Complete, saved, .. } = end else { return Ok(end.exit) };
    let Some((path, provenance)) = saved else {
        return Err(Error::Peer("the sender gave no proof of the file's origin, so it cannot be relayed; send it with this version of mcp".to_owned()));
    };
    if path.is_dir() {
        return Err(Error::Environment(format!(
            "{} is a directory, and only single files are passed on; send it from here with 'mcp send'",
            escape(&path.to_string_lossy())
        )));
    }
    let file =
        FileSource::open_as(&path, Some(&provenance.name)).map_err(|e| Error::Environment(e.to_string()))?;
    send::send(&sending, (Objects::Relayed(file, provenance), None), &mut console, events.as_ref())
}

/// What both halves are to do.
fn halves(args: RelayArgs, surroundings: Surroundings) -> (RecvConfig, SendConfig) {
    let style = style(&args.show, surroundings);
    let events = args.show.json.flatten();
    let recv = RecvConfig {
        group: args.group,
        name: args.name,
        output: args.output,
        interface: args.from,
        port: args.port,
        source: None,
        id: args.id,
        timeout: args.timeout.unwrap_or(TIMEOUT),
        key: args.key.clone(),
        require_key: args.require_key,
        strangers: strangers(args.require_signed || !args.sender.is_empty(), surroundings.stderr_terminal),
        senders: args.sender,
        relayed: args.relayed,
        any_sender: false,
        force: args.force,
        merge: false,
        archive: false,
        verify: false,
        from: None,
        pipe: None,
        spool: None,
        then: None,
        again: false,
        one_way: false,
        retake: false,
        report: None,
        events: events.clone(),
        style,
    };
    let send = SendConfig {
        files: Vec::new(),
        archive: false,
        name: None,
        group: args.to_group,
        interface: args.to,
        port: args.port,
        rate: args.rate.unwrap_or(RateChoice::Auto(None)),
        slow: Slow::Defer,
        compress: Compression::Off,
        devices: None,
        gather: Gather {
            expected: args.receivers,
            at_most: args.wait.unwrap_or(WAIT),
            wait_first: None,
            settle: args.wait.unwrap_or(SETTLE),
            enter: surroundings.stdin_terminal,
        },
        linger: args.linger,
        max_time: None,
        marking: Marking::default(),
        symbol_size: None,
        key: args.key,
        require_key: args.require_key,
        stream: StreamArgs::default(),
        report: None,
        one_way: OneWayArgs::default(),
        events,
        style,
    };
    (recv, send)
}
