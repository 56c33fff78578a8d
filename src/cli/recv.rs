//! `mcp recv`: the configuration made into a running receiver.

use super::config::RecvConfig;
use super::exit::Exit;
use super::identity::{DeviceIdentity, state_dir};
use super::random_bytes;
use super::report::{self, Error};
use super::trust::{self, Keys};
use crate::crypto::group::GroupKeys;
use crate::engine::Engine;
use crate::engine::jobs::{ReceiverFiles, run_receiver_job};
use crate::engine::run::{Host, Observer};
use crate::engine::workers::{FailureResults, Workers};
use crate::fec::PlanCache;
use crate::keyring::{Keyring, KnownSender};
use crate::limits::{DEFAULT_GROUP_V4, DEFAULT_GROUP_V6, RECEIVER_BUFFER_BYTES};
use crate::net::endpoint::Families;
use crate::net::{AddressKind, Destination, Features, Interface, InterfaceError, ReceiveChoice, UdpNet};
use crate::protocol::event::{ReceiverEvent, ReceiverOutcome};
use crate::protocol::job::ReceiverDone;
use crate::protocol::receiver::{Receiver, ReceiverConfig};
use crate::protocol::trust::TrustDecision;
use crate::storage::{Earlier, EarlierFile, FileSink};
use crate::time::Time;
use crate::ui::{ReceiverIntro, ReceiverView, receiver_view, refused};
use crate::units::SenderKey;
use crate::wire::AbortCode;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::SystemTime;

/// Receives one file and says how it ended.
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

/// Where to listen, all defaults resolved.
struct Listening {
    group: Option<Destination>,
    interfaces: Vec<Interface>,
    /// To be made again when the network changes.
    choice: ReceiveChoice,
    /// Why there is no interface yet.
    lacking: Option<InterfaceError>,
    groups: Vec<SocketAddr>,
    families: Families,
    port: u16,
}

fn listening(config: &RecvConfig) -> Result<Listening, Error> {
    let group = match &config.group {
        None => None,
        Some(text) => Some(Destination::parse(text, config.port).map_err(|e| Error::Usage(e.to_string()))?),
    };
    let mut choice = ReceiveChoice::new(config.interface.clone(), group);
    let (interfaces, lacking) = match choice.choose() {
        Ok(interfaces) => (interfaces, None),
        // A machine that starts may be quicker than its network.
        Err(e) if e.may_pass() => (Vec::new(), Some(e)),
        Err(e) => return Err(Error::Environment(e.to_string())),
    };
    let port = group.as_ref().map_or(config.port, |group| group.addr.port());
    let families = group.as_ref().map_or(Families::ANY, |group| Families::of(&group.addr));
    let mut groups = Vec::new();
    if families.v4 {
        groups.push(SocketAddr::from((DEFAULT_GROUP_V4, port)));
    }
    if families.v6 {
        groups.push(SocketAddr::from((DEFAULT_GROUP_V6, port)));
    }
    if let Some(group) = &group
        && group.kind == AddressKind::Multicast
        && !groups.contains(&group.addr)
    {
        groups.push(group.addr);
    }
    Ok(Listening { group, interfaces, choice, lacking, groups, families, port })
}

fn try_run(config: &RecvConfig) -> Result<Exit, Error> {
    let listening = listening(config)?;
    let earlier = config.from.as_deref().map(EarlierFile::open).transpose();
    let earlier = earlier.map_err(|e| Error::Environment(e.to_string()))?;
    let identity = DeviceIdentity::find(config.id.as_deref())
        .map_err(|e| Error::Environment(format!("no randomness from the system: {e}")))?;
    let ring = state_dir().map(Keyring::new);
    let mut warnings = identity.warnings.clone();
    let keys =
        Keys { asked: config.key.as_deref(), variable: std::env::var_os("MCP_KEY"), ring: ring.as_ref() };
    let keys = keys.for_receiving(&mut warnings)?;
    let trust = trust::trust(&config.senders, config.strangers, ring.as_ref(), &mut warnings)?;
    let random = |e: getrandom::Error| Error::Environment(format!("no randomness from the system: {e}"));
    let mut host = Host::new(false)
        .map_err(|e| Error::Environment(format!("cannot wait for signals and sockets: {e}")))?;
    let mut net =
        UdpNet::receiver(&listening.interfaces, listening.port, listening.families, Features::default())
            .map_err(|e| {
                Error::Environment(format!(
                    "cannot listen on port {}: {e}; use another one on both sides with --port",
                    listening.port
                ))
            })?;
    net.rebind(listening.choice);
    let sink = FileSink::new(Some(config.output.clone()), config.force);
    let shown = listening.group.as_ref().map_or(listening.groups[0], |group| group.addr);
    let names = trust::named(keys.iter().map(|keys| keys.current().name()));
    let intro = ReceiverIntro {
        device: identity.device,
        label: identity.label.clone(),
        group: shown.to_string(),
        sealed_with: Some(names).filter(|names| !names.is_empty()),
    };
    let mut view = receiver_view(config.style, intro);
    for warning in &warnings {
        view.warn(host.now(), warning);
    }
    if let Some(e) = listening.lacking {
        view.warn(host.now(), &format!("{e}; waiting for it"));
    }
    if let Err(e) = sink.check() {
        // It may be mended before a sender comes; if not, the sender is told as well.
        view.warn(host.now(), &e.to_string());
    }
    for note in net.describe() {
        view.note(host.now(), &note);
    }
    let machine = Receiver::new(
        ReceiverConfig {
            seed: getrandom::u64().map_err(random)?,
            device: identity.device,
            label: identity.label.clone(),
            timeout: config.timeout,
            groups: listening.groups,
            only: listening.group.as_ref().map(|group| group.addr.ip()),
            buffer_bytes: RECEIVER_BUFFER_BYTES,
            agreement: *random_bytes()?,
            group_keys: keys.iter().flat_map(GroupKeys::secrets).cloned().collect(),
            trust,
        },
        host.now(),
    );
    let failure_results = FailureResults {
        worker_died: ReceiverDone::WorkerDied,
        source_unreadable: |why| ReceiverDone::Failed(AbortCode::Internal, why),
    };
    let earlier = earlier.map(|file| Box::new(file) as Box<dyn Earlier>);
    let files = Arc::new(ReceiverFiles::new(Box::new(sink)).with_earlier(earlier));
    let plans = Arc::new(PlanCache::default());
    let workers = Workers::start(super::worker_count(), failure_results, host.wake(), move || {
        let (files, plans) = (Arc::clone(&files), Arc::clone(&plans));
        Box::new(move |job| run_receiver_job(job, &files, &plans))
    })
    .map_err(|e| Error::Environment(format!("the system gives no threads: {e}")))?;
    let mut engine = Engine::new(machine, net, workers, None);
    let mut show = Show { view, ring, refused: None, outcome: None };
    let run = host.run(&mut engine, &mut show);
    let snapshot = engine.machine().snapshot();
    let outcome = match run {
        Ok(()) => show.outcome.take().unwrap_or(ReceiverOutcome::Interrupted),
        Err(e) => {
            show.view.finish(host.now(), &snapshot, Exit::Environment);
            return Err(Error::Environment(e.to_string()));
        }
    };
    if let Some(latest) = &engine.net().send_errors().latest {
        show.view.note(host.now(), &format!("the last network error: {latest}"));
    }
    let exit = Exit::of_receiver(&outcome);
    show.view.finish(host.now(), &snapshot, exit);
    match show.refused {
        Some(why) if outcome == ReceiverOutcome::NoSender => report::error(&report::none_trusted(&why)),
        _ => report::of_receiver(&outcome, snapshot.kept_bytes).iter().for_each(report::error),
    }
    Ok(exit)
}

/// Shows what the machine says.
struct Show {
    view: Box<dyn ReceiverView>,
    ring: Option<Keyring>,
    /// Why the first sender that was refused was refused.
    refused: Option<String>,
    outcome: Option<ReceiverOutcome>,
}

impl Show {
    /// Keeps a sender that was seen for the first time. The one write to the disk that the loop waits
    /// for, before any data comes.
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

impl Observer<Receiver> for Show {
    fn event(&mut self, now: Time, machine: &Receiver, event: ReceiverEvent) {
        self.view.event(now, &event, &machine.snapshot());
        match event {
            ReceiverEvent::Finished(outcome) => self.outcome = Some(outcome),
            ReceiverEvent::SenderTrusted { key, address, decision: TrustDecision::FirstUse } => {
                self.remember(now, key, address.ip());
            }
            ReceiverEvent::SenderRefused { key, address, decision } => {
                self.refused.get_or_insert_with(|| refused(&key, address.ip(), decision));
            }
            _ => {}
        }
    }

    fn warn(&mut self, now: Time, text: &str) {
        self.view.warn(now, text);
    }

    fn tick(&mut self, now: Time, machine: &Receiver) {
        self.view.tick(now, &machine.snapshot());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::trust::Strangers;
    use crate::ui::{Mode, Style};
    use crate::units::DeviceId;

    #[test]
    fn a_sender_that_is_seen_for_the_first_time_is_known_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let ring = Keyring::new(dir.path().join("state"));
        let trust = || trust::trust(&[], Strangers::Pin, Some(&ring), &mut Vec::new()).unwrap();
        let intro = ReceiverIntro {
            device: DeviceId([1; 16]),
            label: "d".into(),
            group: "g".into(),
            sealed_with: None,
        };
        let view = receiver_view(Style { mode: Mode::Quiet, verbose: false }, intro);
        let mut show = Show { view, ring: Some(ring.clone()), refused: None, outcome: None };
        let (key, other, at) = (SenderKey([1; 32]), SenderKey([2; 32]), IpAddr::from([10, 0, 0, 5]));
        assert_eq!(trust().decide(&key, at), TrustDecision::FirstUse);
        show.remember(Time::ZERO, key, at);
        assert_eq!(trust().decide(&key, at), TrustDecision::Known);
        assert_eq!(trust().decide(&other, at), TrustDecision::Changed { expected: key });
        ring.forget("10.0.0.5", &mut Vec::new()).unwrap();
        assert_eq!(trust().decide(&other, at), TrustDecision::FirstUse);
    }
}
