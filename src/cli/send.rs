//! `mcp send`: builds a send session from the configuration, and shows its events in a view.

use super::config::SendConfig;
use super::console::{Asked, Console};
use super::devices;
use super::exit::Exit;
use super::identity::StateDir;
use super::objects::Objects;
use super::one_way;
use super::report::{self, Error};
use super::stream;
use super::trust::{self, Keys};
use crate::ui::report_file::Report;
use crate::ui::{EventFile, SenderIntro, SenderView, sender_view};
use mcp_transfer::keyring::KnownDevice;
use mcp_transfer::net::Destination;
use mcp_transfer::protocol::carousel::Repetition;
use mcp_transfer::protocol::event::{SenderEvent, SenderSnapshot};
use mcp_transfer::session::{SendHandle, SessionEvent, Target, What};
use mcp_transfer::storage::check_whole;
use mcp_transfer::units::{Counter, DeviceId};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::SystemTime;

/// Sends the file and returns the exit code.
#[must_use]
pub fn run(config: SendConfig) -> Exit {
    match try_run(&config) {
        Ok(exit) => exit,
        Err(error) => {
            report::error(&error);
            error.exit()
        }
    }
}

fn try_run(config: &SendConfig) -> Result<Exit, Error> {
    let passes = one_way::repetition(config)?;
    let streams = stream::is_wanted(config);
    if let Some(file) = config.files.first().filter(|file| !streams && !file.exists())
        && let Some(address) = file.to_str()
        && Destination::parse(address, config.port).is_ok()
    {
        return Err(Error::Usage(format!(
            "{address} is no file but an address; the file comes first: mcp send FILE {address}"
        )));
    }
    let objects = Objects::open(config)?;
    let events = config.events.as_deref().map(super::event_file).transpose()?;
    let mut console = Console::new(config.gather.enter)
        .map_err(|e| Error::Environment(format!("cannot wait for signals: {e}")))?;
    send(config, (objects, passes), &mut console, events.as_ref())
}

/// Sends what was opened, so often if nothing comes back, and returns the exit code.
///
/// # Errors
/// If the session cannot begin, or the network fails for good.
pub(super) fn send(
    config: &SendConfig,
    (objects, passes): (Objects, Option<Repetition>),
    console: &mut Console,
    events: Option<&EventFile>,
) -> Result<Exit, Error> {
    let environment = |e: &dyn std::fmt::Display| Error::Environment(e.to_string());
    if let Some(path) = &config.report {
        // Fail now, and not after an hour's transfer.
        check_whole(path).map_err(|e| report_refused(path, &e))?;
    }
    let target = match &config.group {
        None => Target::Rendezvous(config.port),
        Some(group) => {
            let parsed = Destination::parse(group, config.port);
            Target::At(parsed.map_err(|e| Error::Usage(format!("{e}")))?)
        }
    };
    let devices = config.devices.as_deref().map(devices::read).transpose()?;
    let state = StateDir::find()?;
    let mut warnings = objects.warnings();
    let keys = Keys {
        asked: config.key.as_deref(),
        variable: std::env::var_os("MCP_KEY"),
        state: &state,
        required: config.require_key,
    };
    let group_key = keys.for_sending(&mut warnings)?;
    let ring = state.ring;
    let known = trust::known_devices(ring.as_ref(), &mut warnings);
    let signing_key = trust::signing_key(ring.as_ref(), &mut warnings)?;
    let counter = Counter(trust::session_counter(ring.as_ref(), &mut warnings));
    let started = SystemTime::now();
    let session = objects
        .session(config, target)?
        .interface(config.interface.clone())
        .rate(config.rate)
        .slow(config.slow.into())
        .compress(config.compress)
        .expected(config.gather.expected)
        .devices(devices)
        .known_devices(known)
        .gather(config.gather.at_most, config.gather.settle)
        .wait_first(config.gather.wait_first)
        .linger(config.linger)
        .max_time(config.max_time)
        .marking(config.marking)
        .symbol_size(config.symbol_size)
        .group_key(group_key)
        .signing_key(signing_key, counter)
        .remember_in(state.dir)
        .one_way(passes)
        .start()
        .map_err(|e| environment(&e))?;
    let intro = intro(&session, config.gather.enter);
    let mut view = sender_view(config.style, intro.clone(), events);
    for warning in &warnings {
        view.warn(session.now(), warning);
    }
    let seen = watch(&session, console, &mut *view)?;
    for warning in trust::remember_devices(ring.as_ref(), seen) {
        view.warn(session.now(), &warning);
    }
    let last = session.snapshot();
    let now = session.now();
    let end = match session.wait() {
        Ok(end) => end,
        Err(e) => {
            if let Some(last) = last {
                view.finish(now, &last.sender, Exit::Environment);
            }
            return Err(environment(&e));
        }
    };
    let snapshot = &end.snapshot.sender;
    let expected = snapshot.overview.expected;
    let exit = Exit::of_sender(&end.outcome, end.rows(), expected);
    view.finish(now, snapshot, exit);
    let interrupted = one_way::interrupted(&end.outcome, &snapshot.overview);
    if let Some(error) = interrupted.or_else(|| report::of_sender(&end.outcome, end.rows(), expected)) {
        report::error(&error);
    }
    let Some(path) = &config.report else { return Ok(exit) };
    let document = Report { intro: &intro, snapshot, root: end.root, started, elapsed: end.elapsed, exit };
    if let Err(e) = document.write(path) {
        report::error(&report_refused(path, &e));
        return Ok(if exit == Exit::Complete { Exit::Environment } else { exit });
    }
    Ok(exit)
}

fn intro(session: &SendHandle, enter_starts: bool) -> SenderIntro {
    let info = session.info();
    SenderIntro {
        task: info.task,
        session: info.session,
        name: info.name.clone(),
        size: info.size,
        holes: info.holes.clone(),
        entries: info.tree.map(|tree| tree.entries),
        group: info.data.to_string(),
        enter_starts,
        sender: info.sender,
        sealed_with: info.sealed_with.clone(),
    }
}

/// Shows the session's events until its end, and passes on the user's requests. Returns the devices that have shown
/// a key.
fn watch(
    session: &SendHandle,
    console: &mut Console,
    view: &mut dyn SenderView,
) -> Result<BTreeMap<DeviceId, KnownDevice>, Error> {
    let mut seen = BTreeMap::new();
    let ask = |asked| match asked {
        Asked::Stop => session.stop(),
        Asked::Start => session.start_now(),
    };
    // The rows of all devices are asked for at ticks only: events may come by the thousand.
    let look = |tick| {
        let rows = || session.snapshot().map(|snapshot| snapshot.sender);
        let no_rows = |overview| SenderSnapshot { overview, devices: Vec::new() };
        if tick { rows() } else { session.overview().map(no_rows) }
    };
    let show = |events: Vec<SessionEvent<SenderEvent>>, snapshot: SenderSnapshot, tick| {
        for event in events {
            match event.what {
                What::Changed(changed) => {
                    view.event(event.at, &changed, &snapshot.overview);
                    if let SenderEvent::Joined { device, label, key: Some(key), .. } = changed {
                        seen.insert(device, KnownDevice { device, key, label });
                    }
                }
                What::Warning(text) => view.warn(event.at, &text),
                What::Note(text) => view.note(event.at, &text),
            }
        }
        if tick {
            view.tick(session.now(), &snapshot);
        }
    };
    console.watch(&session.events(), ask, look, show).map_err(Error::poll)?;
    Ok(seen)
}

fn report_refused(path: &Path, error: &std::io::Error) -> Error {
    Error::Environment(format!("cannot write the report to {} ({error}); check --report", path.display()))
}
