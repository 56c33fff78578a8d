//! `mcp send`: the configuration made into a running sender.

use super::args::{RateChoice, Slow};
use super::config::SendConfig;
use super::exit::Exit;
use super::identity::state_dir;
use super::random_bytes;
use super::report::{self, Error};
use super::trust::{self, Keys};
use crate::engine::jobs::{final_snapshot, manifest_of, run_sender_job, run_store_job};
use crate::engine::run::{Host, Observer};
use crate::engine::workers::{FailureResults, Workers};
use crate::engine::{Engine, Stream};
use crate::fec::PlanCache;
use crate::keyring::Keyring;
use crate::layout::Layout;
use crate::limits::{DEFAULT_GROUP_V4, DEFAULT_GROUP_V6, MAX_BLOCKS};
use crate::net::{AddressKind, Destination, Features, Interface, InterfaceError, UdpNet, choose};
use crate::pacing::RateMode;
use crate::protocol::event::{SenderEvent, SenderOutcome};
use crate::protocol::job::{SenderDone, SenderJob};
use crate::protocol::sender::{RepairPolicy, Sender, SenderConfig, SlowPolicy};
use crate::storage::{FileSource, HashCache, Source, check_whole};
use crate::store::SharedStore;
use crate::task::{State, Task};
use crate::text;
use crate::time::Time;
use crate::ui::report_file::Report;
use crate::ui::{SenderIntro, SenderView, sender_view};
use crate::units::{Counter, Digest, Rate, TaskId};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

/// The rate goes no higher than this where the link's speed is unknown.
const CEILING_UNKNOWN: Rate = Rate(40_000_000_000);

/// Sends the file and says how it ended.
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

/// Where the file goes and how, all defaults resolved.
struct Route {
    destination: Destination,
    interface: Interface,
    rendezvous: Vec<SocketAddr>,
    rate: RateMode,
    symbol_size: u16,
}

/// Where the file goes, and by which interface: as asked, or to the default group of a family that
/// the interface has.
fn meet(config: &SendConfig) -> Result<(Destination, Interface), Error> {
    let named = config.interface.as_deref();
    let parse = |group: &str| Destination::parse(group, config.port).map_err(|e| Error::Usage(e.to_string()));
    let environment = |e: InterfaceError| Error::Environment(e.to_string());
    if let Some(group) = &config.group {
        let destination = parse(group)?;
        return Ok((destination, choose(named, &destination).map_err(environment)?));
    }
    let v4 = parse(&DEFAULT_GROUP_V4.to_string())?;
    match choose(named, &v4) {
        Ok(interface) => Ok((v4, interface)),
        Err(lacking @ (InterfaceError::NoAddress { .. } | InterfaceError::Nothing { .. })) => {
            let v6 = parse(&DEFAULT_GROUP_V6.to_string())?;
            choose(named, &v6).map(|interface| (v6, interface)).map_err(|_| environment(lacking))
        }
        Err(e) => Err(environment(e)),
    }
}

fn route(config: &SendConfig) -> Result<Route, Error> {
    let (destination, interface) = meet(config)?;
    let destination = destination.on(&interface);
    let v6 = destination.is_v6();
    let port = destination.addr.port();
    let rendezvous = match (destination.kind, v6) {
        (AddressKind::Multicast, false) => vec![SocketAddr::from((DEFAULT_GROUP_V4, port))],
        (AddressKind::Multicast, true) => vec![SocketAddr::from((DEFAULT_GROUP_V6, port))],
        // Who named a machine, or all of a network, wants nobody else bothered.
        _ => Vec::new(),
    };
    let ceiling =
        if interface.loopback { CEILING_UNKNOWN } else { interface.link_rate().unwrap_or(CEILING_UNKNOWN) };
    let rate = match config.rate {
        RateChoice::Fixed(rate) => RateMode::Fixed(rate),
        RateChoice::Auto(chosen) => RateMode::Auto(chosen.unwrap_or(ceiling)),
    };
    let symbol_size = config.symbol_size.unwrap_or_else(|| interface.symbol_size(v6));
    Ok(Route { destination, interface, rendezvous, rate, symbol_size })
}

fn try_run(config: &SendConfig) -> Result<Exit, Error> {
    let environment = |e: &dyn std::fmt::Display| Error::Environment(e.to_string());
    if let (Some(address), false) = (config.file.to_str(), config.file.exists())
        && Destination::parse(address, config.port).is_ok()
    {
        return Err(Error::Usage(format!(
            "{address} is no file but an address; the file comes first: mcp send FILE {address}"
        )));
    }
    let source = Arc::new(FileSource::open(&config.file).map_err(|e| environment(&e))?);
    if let Some(path) = &config.report {
        // Now, and not after an hour's transfer.
        check_whole(path).map_err(|e| report_refused(path, &e))?;
    }
    let route = route(config)?;
    let layout = Layout::choose(source.size(), route.symbol_size).map_err(|e| environment(&e))?;
    if layout.block_count() > MAX_BLOCKS {
        return Err(Error::Environment(format!(
            "{} is too large: {} blocks are more than {MAX_BLOCKS}; send it in parts",
            config.file.display(),
            layout.block_count()
        )));
    }
    let ring = state_dir().map(Keyring::new);
    let mut warnings = Vec::new();
    let keys =
        Keys { asked: config.key.as_deref(), variable: std::env::var_os("MCP_KEY"), ring: ring.as_ref() };
    let group_key = keys.for_sending(&mut warnings)?;
    let signing_key = trust::signing_key(ring.as_ref(), &mut warnings)?;
    let started = SystemTime::now();
    let random = |e: getrandom::Error| Error::Environment(format!("no randomness from the system: {e}"));
    let counter = Counter(trust::session_counter(ring.as_ref(), &mut warnings));
    let agreement = *random_bytes()?;
    let session = SenderConfig::session(&signing_key, agreement, counter);
    let mut task = TaskId::default();
    getrandom::fill(&mut task.0).map_err(random)?;
    let mut host = Host::new(config.gather.enter)
        .map_err(|e| Error::Environment(format!("cannot wait for signals and sockets: {e}")))?;
    let net = UdpNet::sender(&route.interface, &route.destination, config.ttl, None, Features::default())
        .map_err(|e| {
            Error::Environment(format!(
                "cannot send to {} on {}: {e}; name another interface with --interface",
                route.destination.addr, route.interface.name
            ))
        })?;
    let intro = SenderIntro {
        task,
        session,
        name: source.name().to_owned(),
        size: source.size(),
        group: route.destination.addr.to_string(),
        enter_starts: config.gather.enter,
        sender: signing_key.public(),
        sealed_with: group_key.as_ref().map(|key| key.name().to_owned()),
    };
    let mut view = sender_view(config.style, intro.clone());
    for warning in &warnings {
        view.warn(host.now(), warning);
    }
    let rate = match route.rate {
        RateMode::Fixed(rate) => text::rate(rate.0),
        RateMode::Auto(ceiling) => format!("found while sending, up to {}", text::rate(ceiling.0)),
    };
    let pace = format!("rate {rate}, symbols of {} bytes", route.symbol_size);
    for note in net.describe().into_iter().chain([pace]) {
        view.note(host.now(), &note);
    }
    let store = SharedStore::default();
    let mut what = Task::copy(task, source.name());
    what.options.expected = config.gather.expected;
    let sender_config = SenderConfig {
        counter,
        task: what,
        manifest: manifest_of(&*source, source.name()),
        layout,
        data: route.destination.addr,
        rendezvous: route.rendezvous,
        rate: route.rate,
        repair: RepairPolicy::interactive(match config.slow {
            Slow::Defer => SlowPolicy::Defer,
            Slow::Keep => SlowPolicy::Keep,
            Slow::Drop => SlowPolicy::Drop,
        }),
        wait: config.gather.at_most,
        settle: config.gather.settle,
        linger: config.linger,
        signing_key,
        agreement,
        group_key: group_key.map(|key| key.secret().clone()),
        suite: crate::crypto::seal::fastest(),
    };
    let mut machine = Sender::new(sender_config, host.now());
    let hashes = Hashes::of(&source, layout);
    let known = hashes.as_ref().and_then(Hashes::load);
    let from_cache = known.is_some();
    if let Some(values) = known {
        view.note(host.now(), "the file has been hashed before; what has not changed since need not be sent to those who have it");
        machine = machine.with_values(values);
    }
    let workers = workers(&host, &source, layout, (task, &store))?;
    let stream = Stream { session, layout, source, seal: machine.symbol_seal() };
    let mut engine = Engine::new(machine, net, workers, Some(stream));
    let mut show = Show { view, root: None, outcome: None };
    let run = host.run(&mut engine, &mut show);
    let snapshot = final_snapshot(engine.machine(), task, &store, host.now());
    let outcome = match run {
        Ok(()) => show.outcome.take().unwrap_or(SenderOutcome::Ended),
        Err(e) => {
            show.view.finish(host.now(), &snapshot, Exit::Environment);
            return Err(Error::Environment(e.to_string()));
        }
    };
    let errors = engine.net().send_errors();
    if let Some(latest) = &errors.latest {
        show.view.note(host.now(), &format!("{} datagrams not sent; last: {latest}", errors.datagrams));
    }
    let rows = &snapshot.devices;
    if let Some(hashes) = hashes {
        let failed = rows.iter().any(|row| matches!(row.assignment.state(), State::Failed(_)));
        if let Err(e) = hashes.keep(from_cache, failed, engine.machine()) {
            show.view.note(host.now(), &format!("cannot remember the hashes of the file: {e}"));
        }
    }
    let exit = Exit::of_sender(&outcome, rows, config.gather.expected);
    show.view.finish(host.now(), &snapshot, exit);
    if let Some(error) = report::of_sender(&outcome, rows, config.gather.expected) {
        report::error(&error);
    }
    let Some(path) = &config.report else { return Ok(exit) };
    let elapsed = host.now().since(Time::ZERO);
    let document = Report { intro: &intro, snapshot: &snapshot, root: show.root, started, elapsed, exit };
    if let Err(e) = document.write(path) {
        report::error(&report_refused(path, &e));
        return Ok(if exit == Exit::Complete { Exit::Environment } else { exit });
    }
    Ok(exit)
}

fn report_refused(path: &Path, error: &std::io::Error) -> Error {
    Error::Environment(format!("cannot write the report to {} ({error}); check --report", path.display()))
}

/// A smaller file is hashed in no time.
const WORTH_REMEMBERING: u64 = 16 << 20;

/// What is remembered of the file's hashes from run to run.
struct Hashes {
    cache: HashCache,
    source: Arc<FileSource>,
    layout: Layout,
}

impl Hashes {
    fn of(source: &Arc<FileSource>, layout: Layout) -> Option<Self> {
        let cache = HashCache::new(&state_dir().filter(|_| source.size() >= WORTH_REMEMBERING)?);
        Some(Self { cache, source: Arc::clone(source), layout })
    }

    fn load(&self) -> Option<Vec<Digest>> {
        self.cache.load(self.source.file_id(), self.layout.block_log2(), self.layout.block_count())
    }

    /// Keeps what the run has hashed. If it worked from memory and a device has failed, that may be
    /// because the file is not what it was though nothing tells so: it is hashed again the next time.
    fn keep(&self, from_cache: bool, failed: bool, machine: &Sender) -> std::io::Result<()> {
        let (file, log2) = (self.source.file_id(), self.layout.block_log2());
        if from_cache {
            if failed {
                self.cache.forget(file, log2);
            }
            return Ok(());
        }
        match machine.values().filter(|_| self.source.check().is_ok()) {
            Some(values) => self.cache.store(file, log2, &values),
            None => Ok(()),
        }
    }
}

/// Worker threads for hashing and encoding, and one for the store.
fn workers(
    host: &Host,
    source: &Arc<FileSource>,
    layout: Layout,
    (task, store): (TaskId, &SharedStore),
) -> Result<Workers<SenderJob, SenderDone>, Error> {
    let failures =
        FailureResults { worker_died: SenderDone::WorkerDied, source_unreadable: SenderDone::SourceFailed };
    let plans = Arc::new(PlanCache::default());
    let (source, store) = (Arc::clone(source), store.clone());
    Workers::start(super::worker_count(), failures, host.wake(), move || {
        let (source, plans, mut buffer) = (Arc::clone(&source), Arc::clone(&plans), Vec::new());
        Box::new(move |job| run_sender_job(job, &*source, &layout, &plans, &mut buffer))
    })
    .and_then(|workers| {
        workers.with_lane("store", SenderJob::is_for_store, move || {
            let store = store.clone();
            Box::new(move |job| run_store_job(job, task, &store))
        })
    })
    .map_err(|e| Error::Environment(format!("the system gives no threads: {e}")))
}

/// Shows what the machine says.
struct Show {
    view: Box<dyn SenderView>,
    root: Option<Digest>,
    outcome: Option<SenderOutcome>,
}

impl Observer<Sender> for Show {
    fn event(&mut self, now: Time, machine: &Sender, event: SenderEvent) {
        match &event {
            SenderEvent::Hashed(root) => self.root = Some(*root),
            SenderEvent::Finished(outcome) => self.outcome = Some(outcome.clone()),
            _ => {}
        }
        self.view.event(now, &event, &machine.overview());
    }

    fn warn(&mut self, now: Time, text: &str) {
        self.view.warn(now, text);
    }

    fn tick(&mut self, now: Time, machine: &Sender) {
        self.view.tick(now, &machine.snapshot(now));
    }
}
