//! `mcp recv`: the configuration made into a running receiver.

use super::config::RecvConfig;
use super::exit::Exit;
use super::identity::Identity;
use super::random_bytes;
use super::report::{self, Error};
use crate::engine::Engine;
use crate::engine::jobs::{ReceiverFiles, run_receiver_job};
use crate::engine::run::{Host, Observer};
use crate::engine::workers::{Reports, Workers};
use crate::fec::PlanCache;
use crate::limits::{DEFAULT_GROUP_V4, DEFAULT_GROUP_V6, RECEIVER_BUFFER_BYTES};
use crate::net::endpoint::Families;
use crate::net::{Destination, Features, Interface, Kind, UdpNet, choose_all_for_receive};
use crate::protocol::event::{ReceiverEvent, ReceiverOutcome};
use crate::protocol::job::ReceiverDone;
use crate::protocol::receiver::{Receiver, ReceiverConfig};
use crate::protocol::trust::Trust;
use crate::storage::FileDestination;
use crate::time::Time;
use crate::ui::{ReceiverIntro, ReceiverView, receiver_view};
use crate::wire::AbortCode;
use std::net::SocketAddr;
use std::sync::Arc;

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
    groups: Vec<SocketAddr>,
    families: Families,
    port: u16,
}

fn listening(config: &RecvConfig) -> Result<Listening, Error> {
    let group = match &config.group {
        None => None,
        Some(text) => Some(Destination::parse(text, config.port).map_err(|e| Error::Usage(e.to_string()))?),
    };
    let interfaces = choose_all_for_receive(config.interface.as_deref(), group.as_ref())
        .map_err(|e| Error::Environment(e.to_string()))?;
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
        && group.kind == Kind::Multicast
        && !groups.contains(&group.addr)
    {
        groups.push(group.addr);
    }
    Ok(Listening { group, interfaces, groups, families, port })
}

fn try_run(config: &RecvConfig) -> Result<Exit, Error> {
    let listening = listening(config)?;
    let identity = Identity::find(config.id.as_deref())
        .map_err(|e| Error::Environment(format!("no randomness from the system: {e}")))?;
    let random = |e: getrandom::Error| Error::Environment(format!("no randomness from the system: {e}"));
    let mut host = Host::new(false)
        .map_err(|e| Error::Environment(format!("cannot wait for signals and sockets: {e}")))?;
    let net =
        UdpNet::receiver(&listening.interfaces, listening.port, listening.families, Features::default())
            .map_err(|e| {
                Error::Environment(format!(
                    "cannot listen on port {}: {e}; use another one on both sides with --port",
                    listening.port
                ))
            })?;
    let destination = FileDestination::new(Some(config.output.clone()), config.force);
    let shown = listening.group.as_ref().map_or(listening.groups[0], |group| group.addr);
    let intro =
        ReceiverIntro { device: identity.device, label: identity.label.clone(), group: shown.to_string() };
    let mut view = receiver_view(config.style, intro);
    for warning in &identity.warnings {
        view.warn(host.now(), warning);
    }
    if let Err(e) = destination.check() {
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
            agreement: random_bytes()?,
            group_keys: Vec::new(),
            trust: Trust::anybody(),
        },
        host.now(),
    );
    let reports = Reports {
        worker_died: ReceiverDone::WorkerDied,
        source_unreadable: |why| ReceiverDone::Failed(AbortCode::Internal, why),
    };
    let files = Arc::new(ReceiverFiles::new(Box::new(destination)));
    let plans = Arc::new(PlanCache::default());
    let workers = Workers::start(super::worker_count(), reports, host.wake(), move || {
        let (files, plans) = (Arc::clone(&files), Arc::clone(&plans));
        Box::new(move |job| run_receiver_job(job, &files, &plans))
    })
    .map_err(|e| Error::Environment(format!("the system gives no threads: {e}")))?;
    let mut engine = Engine::new(machine, net, workers, None);
    let mut show = Show { view, outcome: None };
    let run = host.run(&mut engine, &mut show);
    let snapshot = engine.machine().snapshot();
    let outcome = match run {
        Ok(()) => show.outcome.take().unwrap_or(ReceiverOutcome::Interrupted),
        Err(e) => {
            show.view.finish(host.now(), &snapshot, Exit::Environment);
            return Err(Error::Environment(e.to_string()));
        }
    };
    if let Some(latest) = &engine.net().troubles().latest {
        show.view.note(host.now(), &format!("the last trouble on the network: {latest}"));
    }
    let exit = Exit::of_receiver(&outcome);
    show.view.finish(host.now(), &snapshot, exit);
    if let Some(error) = report::of_receiver(&outcome) {
        report::error(&error);
    }
    Ok(exit)
}

/// Shows what the machine says.
struct Show {
    view: Box<dyn ReceiverView>,
    outcome: Option<ReceiverOutcome>,
}

impl Observer<Receiver> for Show {
    fn event(&mut self, now: Time, machine: &Receiver, event: ReceiverEvent) {
        if let ReceiverEvent::Finished(outcome) = &event {
            self.outcome = Some(outcome.clone());
        }
        self.view.event(now, &event, &machine.snapshot());
    }

    fn tick(&mut self, now: Time, machine: &Receiver) {
        self.view.tick(now, &machine.snapshot());
    }
}
