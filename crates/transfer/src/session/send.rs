//! A send session: sends one file, or one stream, to the devices that join.

use super::budget::EgressBudget;
use super::events::Events;
use super::handle::{Desk, Detail, Running};
use super::hashes::Hashes;
use super::launch::Launch;
use super::sent::{SendInfo, SendOutcome, SendSnapshot};
use super::{StartError, Target, cores, random_bytes, read_label};
use crate::content::TreeHead;
use crate::crypto::derive::Secret;
use crate::crypto::group::GroupKey;
use crate::crypto::seal::fastest;
use crate::crypto::sign::SigningKey;
use crate::engine::jobs::manifest_of;
use crate::engine::run::RunError;
use crate::layout::Layout;
use crate::limits::{DEFAULT_BLOCK_LOG2, DEFAULT_GROUP_V4, DEFAULT_GROUP_V6, FeedbackBudget, MAX_BLOCKS};
use crate::net::{AddressKind, Destination, Features, Interface, InterfaceError, Marking, UdpNet, choose};
use crate::pacing::RateMode;
use crate::protocol::Control;
use crate::protocol::carousel::{Carousel, Repetition};
use crate::protocol::event::{SenderEvent, SenderOverview};
use crate::protocol::provenance::Provenance;
use crate::protocol::sender::{Compression, RepairPolicy, Sender, SenderConfig, SlowPolicy};
use crate::storage::{FileSource, Source, Spool, TreeSource};
use crate::store::SharedStore;
use crate::task::{DeviceList, Task, TaskOptions};
use crate::text;
use crate::time::Time;
use crate::units::{Counter, DeviceId, DeviceKey, Extent, Rate, TaskId};
use crate::wire::ObjectKind;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Ceiling of the rate if the link's speed is unknown.
const CEILING_UNKNOWN: Rate = Rate(40_000_000_000);
/// Without an expected number, the stream starts this long after the last device has joined.
pub const SETTLE: Duration = Duration::from_secs(2);
/// The longest time to gather.
pub const WAIT: Duration = Duration::from_secs(600);

/// How the rate is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateChoice {
    /// Found while sending, up to a ceiling (`None`: the link's speed).
    Auto(Option<Rate>),
    /// A fixed rate.
    Fixed(Rate),
}

/// Builder of a send session. Every option has a default.
pub struct SendSession {
    source: Arc<dyn Source>,
    name: String,
    /// The source, if it is a file. Its hashes may be stored.
    file: Option<Arc<FileSource>>,
    /// What is announced of the source, if it is a tree, and its block size.
    tree: Option<(TreeHead, u8)>,
    target: Target,
    interface: Option<String>,
    rate: RateChoice,
    slow: SlowPolicy,
    compression: Compression,
    expected: Option<u32>,
    devices: Option<DeviceList>,
    known_devices: BTreeMap<DeviceId, DeviceKey>,
    wait: Duration,
    wait_first: Option<Duration>,
    settle: Duration,
    linger: Duration,
    max_time: Option<Duration>,
    marking: Marking,
    symbol_size: Option<u16>,
    group_key: Option<GroupKey>,
    signing_key: Option<(SigningKey, Counter)>,
    store: SharedStore,
    budget: Option<EgressBudget>,
    state_dir: Option<PathBuf>,
    one_way: Option<Repetition>,
    relayed: Option<Provenance>,
}

/// A send session that runs; see [`SendSession::start`]. Dropping it stops the session and waits for its end.
pub struct SendHandle {
    pub(super) running: Running<SenderEvent, SendSnapshot, Result<SendOutcome, RunError>>,
    pub(super) info: SendInfo,
}

impl SendHandle {
    /// The properties of the session.
    #[must_use]
    pub const fn info(&self) -> &SendInfo {
        &self.info
    }
    /// The events of the session, from its start.
    #[must_use]
    pub fn events(&self) -> Events<SenderEvent> {
        self.running.events()
    }
    /// The present time of the session's clock.
    #[must_use]
    pub fn now(&self) -> Time {
        self.running.now()
    }
    /// Starts the stream with the devices that have joined.
    pub fn start_now(&self) {
        self.running.control(Control::StartNow);
    }
    /// Ends the session, and tells the devices.
    pub fn stop(&self) {
        self.running.control(Control::Interrupt);
    }
    /// The session at present, or at its end, with a row for each device. `None` if its thread has panicked.
    #[must_use]
    pub fn snapshot(&self) -> Option<SendSnapshot> {
        self.running.snapshot(Detail::All)
    }
    /// The same without the rows, at a cost that does not grow with the number of devices.
    #[must_use]
    pub fn overview(&self) -> Option<SenderOverview> {
        self.running.snapshot(Detail::Overview).map(|snapshot| snapshot.sender.overview)
    }
    /// Whether it has ended.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.running.is_over()
    }
    /// Waits for the end.
    ///
    /// # Errors
    /// If the network failed for good.
    pub fn wait(self) -> Result<SendOutcome, RunError> {
        self.running.wait()
    }
}

/// The destination with all defaults resolved.
struct Route {
    destination: Destination,
    interface: Interface,
    rendezvous: Vec<SocketAddr>,
    rate: RateMode,
    symbol_size: u16,
}

impl SendSession {
    /// A session that sends `source` to `target`.
    #[must_use]
    pub fn builder(source: FileSource, target: Target) -> Self {
        let (name, file) = (source.name().to_owned(), Arc::new(source));
        Self { file: Some(Arc::clone(&file)), ..Self::of(file, name, target) }
    }

    /// A session that passes on `source`, which is an object of another origin, to `target`. It fails if the source is not
    /// what the origin has signed.
    #[must_use]
    pub fn relaying(source: FileSource, relayed: Provenance, target: Target) -> Self {
        let name = relayed.name.clone();
        Self { relayed: Some(relayed), name, ..Self::builder(source, target) }
    }

    /// A session that sends a stream under this name to `target`.
    #[must_use]
    pub fn stream(spool: Spool, name: String, target: Target) -> Self {
        Self::of(Arc::new(spool), name, target)
    }

    /// A session that sends directories or several files to `target`.
    #[must_use]
    pub fn tree(source: TreeSource, target: Target) -> Self {
        let (name, tree) = (source.name().to_owned(), Some((source.head(), source.block_log2())));
        Self { tree, ..Self::of(Arc::new(source), name, target) }
    }

    fn of(source: Arc<dyn Source>, name: String, target: Target) -> Self {
        Self {
            source,
            name,
            file: None,
            tree: None,
            target,
            interface: None,
            rate: RateChoice::Auto(None),
            slow: SlowPolicy::Defer,
            compression: Compression::Off,
            expected: None,
            devices: None,
            known_devices: BTreeMap::new(),
            wait: WAIT,
            wait_first: None,
            settle: SETTLE,
            linger: Duration::ZERO,
            max_time: None,
            marking: Marking::default(),
            symbol_size: None,
            group_key: None,
            signing_key: None,
            store: SharedStore::default(),
            budget: None,
            state_dir: None,
            one_way: None,
            relayed: None,
        }
    }

    /// Sends from this interface, given by its name or one of its addresses [default: chosen by routing].
    #[must_use]
    pub fn interface(mut self, interface: Option<String>) -> Self {
        self.interface = interface;
        self
    }
    /// Sends at this rate on the wire [default: found while sending].
    #[must_use]
    pub const fn rate(mut self, rate: RateChoice) -> Self {
        self.rate = rate;
        self
    }
    /// What happens to a device much slower than the rest [default: it is served alone, afterwards].
    #[must_use]
    pub const fn slow(mut self, slow: SlowPolicy) -> Self {
        self.slow = slow;
        self
    }
    /// Whether blocks are compressed [default: they are not].
    #[must_use]
    pub const fn compress(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }
    /// Starts as soon as this many devices are ready. This is also the expected number of devices.
    #[must_use]
    pub const fn expected(mut self, devices: Option<u32>) -> Self {
        self.expected = devices;
        self
    }
    /// Serves only these devices, and starts as soon as all of them are ready [default: any device].
    #[must_use]
    pub fn devices(mut self, devices: Option<DeviceList>) -> Self {
        self.devices = devices;
        self
    }
    /// The keys that devices had before; a change causes a warning [default: none].
    #[must_use]
    pub fn known_devices(mut self, known: BTreeMap<DeviceId, DeviceKey>) -> Self {
        self.known_devices = known;
        self
    }
    /// Gathers for `at_most`, and without an expected number for `settle` after the last device has joined
    /// [default: [`WAIT`], [`SETTLE`]].
    #[must_use]
    pub const fn gather(mut self, at_most: Duration, settle: Duration) -> Self {
        (self.wait, self.settle) = (at_most, settle);
        self
    }
    /// Waits so long for the first device, and counts the time to gather from then on [default: from the start].
    #[must_use]
    pub const fn wait_first(mut self, wait: Option<Duration>) -> Self {
        self.wait_first = wait;
        self
    }
    /// How long to wait for late devices [default: not at all].
    #[must_use]
    pub const fn linger(mut self, linger: Duration) -> Self {
        self.linger = linger;
        self
    }
    /// Ends the session after this time, whatever is left to do [default: never].
    #[must_use]
    pub const fn max_time(mut self, time: Option<Duration>) -> Self {
        self.max_time = time;
        self
    }
    /// How its datagrams are marked for the network [default: one hop, code point 0].
    #[must_use]
    pub const fn marking(mut self, marking: Marking) -> Self {
        self.marking = marking;
        self
    }
    /// Bytes of object data in a datagram, a valid symbol size [default: what fits the interface's MTU].
    #[must_use]
    pub const fn symbol_size(mut self, bytes: Option<u16>) -> Self {
        self.symbol_size = bytes;
        self
    }
    /// Seals the session with this key [default: no seal for the group].
    #[must_use]
    pub fn group_key(mut self, key: Option<GroupKey>) -> Self {
        self.group_key = key;
        self
    }
    /// The sender's key, and a counter that rises from session to session of this key [default: a key of this
    /// session's own, which no device knows].
    #[must_use]
    pub fn signing_key(mut self, key: SigningKey, counter: Counter) -> Self {
        self.signing_key = Some((key, counter));
        self
    }
    /// Keeps the devices' assignments in this store [default: in memory, for this session].
    #[must_use]
    pub fn store(mut self, store: SharedStore) -> Self {
        self.store = store;
        self
    }
    /// Shares this budget with other sessions [default: the rate of the interface's link, if it is known; see
    /// [`EgressBudget::of`]].
    #[must_use]
    pub fn budget(mut self, budget: EgressBudget) -> Self {
        self.budget = Some(budget);
        self
    }
    /// Stores the hashes of large files in this directory [default: they are hashed each time].
    #[must_use]
    pub fn remember_in(mut self, state_dir: Option<PathBuf>) -> Self {
        self.state_dir = state_dir;
        self
    }
    /// Sends without feedback, so often, at a fixed rate. Whatever concerns single devices has no effect then
    /// [default: with feedback].
    #[must_use]
    pub const fn one_way(mut self, passes: Option<Repetition>) -> Self {
        self.one_way = passes;
        self
    }

    /// The destination and the interface: as requested, or the default group of a family that the interface
    /// has.
    fn meet(&self) -> Result<(Destination, Interface), StartError> {
        let named = self.interface.as_deref();
        let port = match self.target {
            Target::At(destination) => return Ok((destination, choose(named, &destination)?)),
            Target::Rendezvous(port) => port,
        };
        let v4 = Destination::group(DEFAULT_GROUP_V4.into(), port);
        match choose(named, &v4) {
            Ok(interface) => Ok((v4, interface)),
            Err(lacking @ (InterfaceError::NoAddress { .. } | InterfaceError::Nothing { .. })) => {
                let v6 = Destination::group(DEFAULT_GROUP_V6.into(), port);
                choose(named, &v6).map(|interface| (v6, interface)).map_err(|_| lacking.into())
            }
            Err(e) => Err(e.into()),
        }
    }

    fn route(&self) -> Result<Route, StartError> {
        let (destination, interface) = self.meet()?;
        let destination = destination.on(&interface);
        let v6 = destination.is_v6();
        let port = destination.addr.port();
        let rendezvous = match (destination.kind, v6) {
            (AddressKind::Multicast, false) => vec![SocketAddr::from((DEFAULT_GROUP_V4, port))],
            (AddressKind::Multicast, true) => vec![SocketAddr::from((DEFAULT_GROUP_V6, port))],
            // A user who names a machine or a broadcast address wants no other machine to be disturbed.
            _ => Vec::new(),
        };
        let link = interface.link_rate().filter(|_| !interface.loopback).unwrap_or(CEILING_UNKNOWN);
        let rate = match self.rate {
            RateChoice::Fixed(rate) => RateMode::Fixed(rate),
            RateChoice::Auto(chosen) => RateMode::Auto(chosen.unwrap_or(link)),
        };
        let symbol_size = self.symbol_size.unwrap_or_else(|| interface.symbol_size(v6));
        Ok(Route { destination, interface, rendezvous, rate, symbol_size })
    }

    /// Starts the session on a thread of its own.
    ///
    /// # Errors
    /// If the file is too large, no interface is suitable, or the system refuses a socket or a thread.
    pub fn start(self) -> Result<SendHandle, StartError> {
        let route = self.route()?;
        let (source, name) = (self.source, self.name);
        if self.one_way.is_some() && !(source.extent().sealed && matches!(route.rate, RateMode::Fixed(_))) {
            return Err(StartError::new(
                "without feedback, only what does not grow can be sent, at a fixed rate",
            ));
        }
        let layout = match source.extent() {
            Extent { size, sealed: true } => {
                let given = self.tree.map(|(_, block_log2)| block_log2);
                match given.or(self.relayed.as_ref().map(|relayed| relayed.block_log2)) {
                    Some(block_log2) => Layout::new(size, block_log2, route.symbol_size),
                    None => Layout::choose(size, route.symbol_size),
                }
            }
            growing => Layout::of(growing, DEFAULT_BLOCK_LOG2, route.symbol_size),
        };
        let layout = layout.map_err(StartError::new)?;
        if layout.block_count() > MAX_BLOCKS {
            return Err(StartError::new(format!(
                "{name} is too large: {} blocks are more than {MAX_BLOCKS}; send it in parts",
                layout.block_count()
            )));
        }
        let (signing_key, counter) = match self.signing_key {
            Some(known) => known,
            None => (SigningKey::new(&Secret::new(*random_bytes()?)), Counter(1)),
        };
        let agreement = *random_bytes()?;
        let mut id = TaskId::default();
        getrandom::fill(&mut id.0).map_err(StartError::no_randomness)?;
        let desk = Desk::new().map_err(StartError::cannot_wait)?;
        let net = UdpNet::sender(
            &route.interface,
            &route.destination,
            self.marking,
            None,
            (Features::default(), Some(read_label)),
        )
        .map_err(|e| {
            StartError::new(format!(
                "cannot send to {} on {}: {e}; name another interface with --interface",
                route.destination.addr, route.interface.name
            ))
        })?;
        let info = SendInfo {
            task: id,
            session: SenderConfig::session(&signing_key, agreement, counter),
            name: name.clone(),
            size: layout.extent().total(),
            holes: source.holes().0,
            data: route.destination.addr,
            interface: route.interface.clone(),
            sender: signing_key.public(),
            tree: self.tree.map(|(head, _)| head),
            sealed_with: self.group_key.as_ref().map(|key| key.name().to_owned()),
        };
        let mut task = Task::copy(id, &name);
        task.options = TaskOptions { expected: self.expected, devices: self.devices };
        let who = (signing_key, agreement, counter);
        let mut config = SenderConfig::new(task, layout, route.destination.addr, who);
        config.rendezvous = route.rendezvous;
        config.known_devices = self.known_devices;
        config.rate = route.rate;
        config.feedback = FeedbackBudget::of(route.rate.most(), cores());
        config.repair = RepairPolicy::interactive(self.slow);
        config.compression = self.compression;
        config.manifest = match &self.relayed {
            Some(relayed) => relayed.manifest.clone(),
            None => manifest_of(&*source, &name),
        };
        config.relayed = self.relayed;
        config.window = source.keeps().map(|bytes| (bytes >> layout.block_log2()) as u32);
        if self.file.as_ref().is_some_and(|file| file.is_device()) {
            config.kind = ObjectKind::Device;
        }
        if let Some((head, _)) = self.tree {
            (config.kind, config.manifest) = (ObjectKind::Tree, head.encode());
        }
        (config.wait, config.settle) = (self.wait, self.settle);
        config.wait_first = self.wait_first;
        (config.linger, config.max_time) = (self.linger, self.max_time);
        let group_key = self.group_key.map(|key| key.secret().clone());
        (config.group_key, config.suite) = (group_key, fastest());
        let (rate, asked) = match route.rate {
            RateMode::Fixed(rate) => (text::rate(rate.0), Some(rate)),
            RateMode::Auto(most) => (format!("found while sending, up to {}", text::rate(most.0)), None),
        };
        let pace = format!("rate {rate}, symbols of {} bytes", route.symbol_size);
        net.describe().into_iter().chain([pace]).for_each(|note| desk.note(note));
        let start = desk.host.start();
        let budget = self.budget.or_else(|| EgressBudget::of(&route.interface, asked));
        let egress = budget.map(|budget| budget.share(start));
        let hashes = self.file.and_then(|file| Hashes::of(self.state_dir, &file, layout));
        let known = hashes.as_ref().and_then(Hashes::load);
        let from_cache = known.is_some();
        if from_cache {
            desk.note(
                "the file has been hashed before; what has not changed since need not be sent to those who \
                 have it"
                    .into(),
            );
        }
        let launch = Launch { desk, net, source, store: self.store, info, egress, hashes, from_cache };
        let now = launch.desk.host.now();
        match self.one_way {
            None => launch.start(Sender::new(config, now), known, layout),
            Some(passes) => launch.start(Carousel::new(config, passes, now), known, layout),
        }
    }
}
