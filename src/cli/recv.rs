//! `mcp recv`: builds a receive session from the configuration, and shows its events in a view.

use super::again::{self, Past};
use super::config::RecvConfig;
use super::console::{Asked, Console};
use super::exit::Exit;
use super::identity::{DeviceIdentity, StateDir};
use super::one_way;
use super::output::Output;
use super::report::{self, Error};
use super::trust::{self, Keys};
use crate::ui::receipt_file::Receipt;
use crate::ui::{EventFile, Mode, ReceiverIntro, ReceiverView, receiver_view, refused};
use mcp_transfer::command::{Hook, ShellHook};
use mcp_transfer::keyring::{CompletedSessions, Keyring, KnownSender};
use mcp_transfer::net::{AddressKind, Destination, is_source_specific};
use mcp_transfer::protocol::event::{ReceiverEvent, ReceiverOutcome, ReceiverSnapshot};
use mcp_transfer::protocol::provenance::Provenance;
use mcp_transfer::protocol::trust::TrustDecision;
use mcp_transfer::session::{
    Listen, ReceiveHandle, ReceiveOutcome, ReceiveSession, SessionEvent, Wanted, What,
};
use mcp_transfer::storage::{
    DeviceNote, DeviceNotes, Earlier, EarlierFile, FileTickets, Tickets, check_whole,
};
use mcp_transfer::time::Time;
use mcp_transfer::units::{Digest, SenderKey, SessionId};
use std::io::IsTerminal;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// Receives one file, or one after the other, and returns the exit code.
#[must_use]
pub fn run(config: RecvConfig) -> Exit {
    match try_run(&config) {
        Ok(exit) => exit,
        Err(error) => {
            report::error(&error);
            error.exit()
        }
    }
}

fn try_run(config: &RecvConfig) -> Result<Exit, Error> {
    config.check(std::io::stdout().is_terminal()).map_err(|e| Error::Usage(e.to_owned()))?;
    let state = StateDir::find()?;
    let identity = DeviceIdentity::find(config.id.as_deref(), state.dir.as_deref())
        .map_err(|e| Error::Environment(format!("no randomness from the system: {e}")))?;
    let mut console =
        Console::new(false).map_err(|e| Error::Environment(format!("cannot wait for signals: {e}")))?;
    let events = config.events.as_deref().map(super::event_file).transpose()?;
    if config.again {
        return again::run(config, &identity, &mut console, events.as_ref());
    }
    once(config, &identity, &mut console, &mut Past::default(), events.as_ref()).map(|end| end.exit)
}

/// How one transfer ended.
pub(super) struct End {
    pub exit: Exit,
    pub outcome: ReceiverOutcome,
    /// Whether the user asked to stop.
    pub stopped: bool,
    /// How long it took.
    pub elapsed: Duration,
    /// The session that it took part in.
    pub session: Option<SessionId>,
    /// The object that is in place.
    pub root: Option<Digest>,
    /// Its path, and where it comes from.
    pub saved: Option<(PathBuf, Provenance)>,
}

/// Receives one file. `past` has the earlier rounds of a loop.
pub(super) fn once(
    config: &RecvConfig,
    identity: &DeviceIdentity,
    console: &mut Console,
    past: &mut Past,
    events: Option<&EventFile>,
) -> Result<End, Error> {
    let environment = |e: &dyn std::fmt::Display| Error::Environment(e.to_string());
    let group = match &config.group {
        None => None,
        Some(text) => Some(Destination::parse(text, config.port).map_err(|e| Error::Usage(e.to_string()))?),
    };
    check_source(group.as_ref(), config.source).map_err(Error::Usage)?;
    if config.archive && !rustix::process::geteuid().is_root() {
        return Err(Error::Environment("--archive needs root; run mcp as root or leave it out".to_owned()));
    }
    // An earlier tree belongs to the output.
    let from = config.from.as_deref().filter(|from| !from.is_dir());
    let earlier = from.map(EarlierFile::open).transpose();
    let earlier = earlier.map_err(|e| environment(&e))?;
    let state = StateDir::find()?;
    let mut warnings = identity.warnings.clone();
    let keys = Keys {
        asked: config.key.as_deref(),
        variable: std::env::var_os("MCP_KEY"),
        state: &state,
        required: config.require_key,
    };
    let keys = keys.for_receiving(&mut warnings)?;
    let tickets = state.dir.as_deref().filter(|_| identity.slot.is_some() && state.lacking.is_none());
    let tickets = tickets.map(|dir| FileTickets::new(dir, identity.device, &config.output));
    let ring = state.ring;
    let device_key = trust::device_key(ring.as_ref(), identity.slot, &mut warnings);
    let mut trust = trust::trust(&config.senders, config.strangers, ring.as_ref(), &mut warnings)?;
    let CompletedSessions { one_way, objects } = one_way::completed(config, ring.as_ref(), &mut warnings)?;
    if let Some(path) = &config.report {
        // Fail now, and not after an hour's transfer.
        check_whole(path).map_err(|e| report_refused(path, &e))?;
    }
    let output = Output::of(config).map_err(|e| environment(&e))?;
    if let Some(option) = config.needs_known_sender(output.is_device()) {
        trust = trust::known_only(trust, !keys.is_empty(), &option)?;
    }
    if config.relayed && output.is_device() {
        return Err(Error::Usage(
            "--relayed does not go with a device, which is written to before the whole is known to be sound; receive into a \
             file"
                .to_owned(),
        ));
    }
    if let Err(e) = output.check() {
        // The user may correct it before a sender comes; otherwise the sender is told too.
        warnings.push(e.to_string());
    }
    let listen = Listen {
        group,
        source: config.source,
        port: config.port,
        interface: config.interface.clone(),
        group_keys: keys,
        trust,
    };
    let json = config.style.mode == Mode::Json;
    let hook = config.then.clone().map(|command| Arc::new(ShellHook::new(command, json)) as Arc<dyn Hook>);
    let notes = output.notes();
    let session = ReceiveSession::builder(Wanted::First, output.into_sink())
        .earlier(earlier.map(|file| Box::new(file) as Box<dyn Earlier>))
        .tickets(tickets.map(|tickets| Box::new(tickets) as Box<dyn Tickets>))
        .listen(listen)
        .device(identity.device, identity.label.clone())
        .device_key(device_key)
        .timeout(config.timeout)
        .verify(config.verify)
        .hook(hook, past.hook_rule())
        .command(config.pipe.is_some())
        .name(config.name.clone())
        .ignored(past.ignored(Instant::now()))
        .quiet(config.one_way)
        .completed(one_way)
        .relayed(config.relayed.then_some(objects))
        .start()
        .map_err(|e| environment(&e))?;
    let intro = intro(&session, config.name.clone());
    let mut view = receiver_view(config.style, intro, config.is_passed_on(), events);
    for warning in warnings.iter().filter(|warning| past.is_news(warning)) {
        view.warn(session.now(), warning);
    }
    let mut show =
        Show { view, ring, notes, refused: None, other: None, root: None, path: None, stopped: false };
    show.watch(&session, console)?;
    show.tell_notes(session.now());
    let last = session.snapshot();
    let now = session.now();
    let end = match session.wait() {
        Ok(end) => end,
        Err(e) => {
            if let Some(last) = last {
                show.view.finish(now, &last, Exit::Environment);
            }
            return Err(environment(&e));
        }
    };
    let exit = Exit::of_receiver(&end.outcome);
    if config.relayed
        && let Some(provenance) = &end.provenance
    {
        for warning in one_way::remember_object(show.ring.as_ref(), provenance, &end.snapshot) {
            show.view.warn(now, &warning);
        }
    }
    show.view.finish(now, &end.snapshot, exit);
    let nobody = end.outcome == ReceiverOutcome::NoSender;
    match (&show.refused, &show.other) {
        (Some(why), _) if nobody => report::error(&report::none_trusted(why)),
        (None, Some((name, address))) if nobody => report::error(&report::none_named(name, *address)),
        _ if config.again && show.stopped && end.snapshot.session.is_none() => {
            report::error(&Error::Environment("interrupted while waiting for the next transfer".to_owned()));
        }
        _ => report::of_receiver(&end.outcome, end.snapshot.kept_bytes).iter().for_each(report::error),
    }
    let (stopped, root) = (show.stopped, show.root);
    let ReceiveOutcome { outcome, elapsed, snapshot, missing, provenance } = end;
    if let Some(path) = &config.report {
        let document = Receipt { snapshot: &snapshot, root, missing: &missing, exit };
        document.write(path).map_err(|e| report_refused(path, &e))?;
    }
    let saved = show.path.zip(provenance);
    Ok(End { exit, outcome, stopped, elapsed, session: snapshot.session, root, saved })
}

/// Checks that the group and the only source of its datagrams fit.
fn check_source(group: Option<&Destination>, source: Option<IpAddr>) -> Result<(), String> {
    let Some(group) = group else { return Ok(()) };
    let address = group.addr.ip();
    match source {
        None if is_source_specific(address) => {
            Err(format!("{address} is a source-specific group; give the sender's address with --source"))
        }
        Some(_) if group.kind != AddressKind::Multicast => {
            Err(format!("{address} is no multicast group, so it takes no --source; leave it out"))
        }
        Some(source) if source.is_ipv4() != address.is_ipv4() => Err(format!(
            "{source} cannot send to {address}; give an address of the group's family with --source"
        )),
        Some(source) if source.is_multicast() || source.is_unspecified() => {
            Err(format!("{source} is not the address of a sender; give that with --source"))
        }
        _ => Ok(()),
    }
}

fn intro(session: &ReceiveHandle, name: Option<String>) -> ReceiverIntro {
    let info = session.info();
    let names = trust::named(info.group_keys.iter().map(String::as_str));
    ReceiverIntro {
        device: info.device,
        label: info.label.clone(),
        name,
        group: info.group.to_string(),
        sealed_with: Some(names).filter(|names| !names.is_empty()),
    }
}

/// Shows the session's events.
struct Show {
    view: Box<dyn ReceiverView>,
    ring: Option<Keyring>,
    /// What the device has to say.
    notes: DeviceNotes,
    /// Why the first refused sender was refused.
    refused: Option<String>,
    /// The name and the sender of the first object that was not taken for its name.
    other: Option<(String, IpAddr)>,
    /// The object that is in place.
    root: Option<Digest>,
    /// Where it is.
    path: Option<PathBuf>,
    /// Whether the user asked to stop.
    stopped: bool,
}

impl Show {
    /// Shows the session's events until its end, and passes on the user's requests.
    fn watch(&mut self, session: &ReceiveHandle, console: &mut Console) -> Result<(), Error> {
        let mut stopped = false;
        let ask = |asked| {
            if asked == Asked::Stop {
                stopped = true;
                session.stop();
            }
        };
        let show = |events: Vec<SessionEvent<ReceiverEvent>>, snapshot: ReceiverSnapshot, tick| {
            for event in events {
                match event.what {
                    What::Changed(changed) => {
                        self.view.event(event.at, &changed, &snapshot);
                        self.take_note(event.at, changed, &snapshot);
                    }
                    What::Warning(text) => self.view.warn(event.at, &text),
                    What::Note(text) => self.view.note(event.at, &text),
                }
            }
            self.tell_notes(session.now());
            if tick {
                self.view.tick(session.now(), &snapshot);
            }
        };
        console.watch(&session.events(), ask, |_| session.snapshot(), show).map_err(Error::poll)?;
        self.stopped = stopped;
        Ok(())
    }

    fn tell_notes(&mut self, now: Time) {
        for note in self.notes.take() {
            match note {
                DeviceNote::Warning(text) => self.view.warn(now, &text),
                DeviceNote::Note(text) => self.view.note(now, &text),
            }
        }
    }

    fn take_note(&mut self, now: Time, event: ReceiverEvent, snapshot: &ReceiverSnapshot) {
        match event {
            ReceiverEvent::SenderTrusted { key, address, decision: TrustDecision::FirstUse, .. } => {
                self.remember(now, key, address.ip());
            }
            ReceiverEvent::SenderRefused { key, address, decision } => {
                self.refused.get_or_insert_with(|| refused(&key, address.ip(), decision));
            }
            ReceiverEvent::OtherName { name, address } => {
                self.other.get_or_insert((name, address.ip()));
            }
            ReceiverEvent::Committed { root, path } => {
                (self.root, self.path) = (Some(root), Some(path));
                for warning in one_way::remember(self.ring.as_ref(), snapshot) {
                    self.view.warn(now, &warning);
                }
            }
            _ => {}
        }
    }

    /// Remembers a sender that was seen for the first time.
    fn remember(&mut self, now: Time, key: SenderKey, address: IpAddr) {
        let label = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        let sender = KnownSender { address, key, label };
        let mut warnings = Vec::new();
        let kept = match &self.ring {
            Some(ring) => ring.remember(sender, &mut warnings).map_err(|e| e.to_string()),
            None => Err("there is no state directory: HOME is not set (set MCP_STATE_DIR)".to_owned()),
        };
        if let Err(why) = kept {
            warnings.push(format!("{why}; this sender is not remembered"));
        }
        for warning in &warnings {
            self.view.warn(now, warning);
        }
    }
}

fn report_refused(path: &Path, error: &std::io::Error) -> Error {
    Error::Environment(format!("cannot write the report to {} ({error}); check --report", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ui::Style;
    use mcp_transfer::protocol::trust::Strangers;
    use mcp_transfer::units::DeviceId;

    #[test]
    fn a_sender_that_is_seen_for_the_first_time_is_known_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let ring = Keyring::new(dir.path().join("state"));
        let trust = || trust::trust(&[], Strangers::Pin, Some(&ring), &mut Vec::new()).unwrap();
        let intro = ReceiverIntro {
            device: DeviceId([1; 16]),
            label: "d".into(),
            name: None,
            group: "g".into(),
            sealed_with: None,
        };
        let view = receiver_view(Style { mode: Mode::Quiet, verbose: false }, intro, false, None);
        let (ring_too, notes) = (Some(ring.clone()), DeviceNotes::default());
        let mut show = Show {
            view,
            ring: ring_too,
            notes,
            refused: None,
            other: None,
            root: None,
            path: None,
            stopped: false,
        };
        let (key, other, at) = (SenderKey([1; 32]), SenderKey([2; 32]), IpAddr::from([10, 0, 0, 5]));
        assert_eq!(trust().decide(&key, at), TrustDecision::FirstUse);
        show.remember(Time::ZERO, key, at);
        assert_eq!(trust().decide(&key, at), TrustDecision::Known);
        assert_eq!(trust().decide(&other, at), TrustDecision::Changed { expected: key });
        ring.forget("10.0.0.5", &mut Vec::new()).unwrap();
        assert_eq!(trust().decide(&other, at), TrustDecision::FirstUse);
    }
}
