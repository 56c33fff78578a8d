//! A receive session: takes part in one session and writes the object to a sink.

use super::discovery::Discovered;
use super::events::Events;
use super::handle::{Desk, Detail, Part, Running};
use super::listening::{Listen, Listening};
use super::{StartError, random_bytes, worker_count};
use crate::command::Hook;
use crate::crypto::origin::OriginName;
use crate::crypto::sign::SigningKey;
use crate::engine::Engine;
use crate::engine::jobs::{ReceiverFiles, run_receiver_job};
use crate::engine::run::RunError;
use crate::engine::workers::{FailureResults, Runner, Workers};
use crate::fec::PlanCache;
use crate::net::UdpNet;
use crate::protocol::event::{ReceiverEvent, ReceiverOutcome, ReceiverSnapshot};
use crate::protocol::job::{ReceiverDone, ReceiverJob};
use crate::protocol::provenance::Provenance;
use crate::protocol::receiver::{HookRule, Receiver, ReceiverConfig};
use crate::protocol::{Control, Machine};
use crate::storage::{Earlier, Sink, Tickets};
use crate::time::Time;
use crate::units::{Arrival, Counter, DeviceId, SenderKey, SessionId, Via};
use crate::wire::AbortCode;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// The session to take part in.
#[derive(Clone, Debug)]
pub enum Wanted {
    /// The first session with a trusted sender.
    First,
    /// This session.
    This(Box<Discovered>),
}

/// Builder of a receive session. Every option has a default.
pub struct ReceiveSession {
    wanted: Wanted,
    sink: Box<dyn Sink>,
    earlier: Option<Box<dyn Earlier>>,
    tickets: Option<Box<dyn Tickets>>,
    listen: Listen,
    device: Option<(DeviceId, String)>,
    device_key: Option<SigningKey>,
    timeout: Duration,
    verify: bool,
    hook: Option<(Arc<dyn Hook>, HookRule)>,
    command: bool,
    name: Option<String>,
    ignored: BTreeMap<SessionId, Duration>,
    quiet: bool,
    completed: BTreeMap<SenderKey, Counter>,
    relayed: Option<BTreeMap<OriginName, Counter>>,
}

/// The resolved properties of a receive session.
#[derive(Clone, Debug)]
pub struct ReceiveInfo {
    /// The identifier of this device.
    pub device: DeviceId,
    /// Its label.
    pub label: String,
    /// The group that it listens to first of all.
    pub group: SocketAddr,
    /// Names of the group keys that it accepts.
    pub group_keys: Vec<String>,
}

/// How a receive session ended.
#[derive(Clone, Debug)]
pub struct ReceiveOutcome {
    /// The outcome of the run.
    pub outcome: ReceiverOutcome,
    /// The duration of the run.
    pub elapsed: Duration,
    /// The last snapshot.
    pub snapshot: ReceiverSnapshot,
    /// The blocks that are missing, as ranges of first block and count.
    pub missing: Vec<(u32, u32)>,
    /// Where the object comes from, if it is in place: what is needed to pass it on.
    pub provenance: Option<Provenance>,
}

/// Handle of a running receive session; see [`ReceiveSession::start`]. Dropping it stops the session and
/// waits for its end.
pub struct ReceiveHandle {
    running: Running<ReceiverEvent, ReceiverSnapshot, Result<ReceiveOutcome, RunError>>,
    info: ReceiveInfo,
}

impl ReceiveHandle {
    /// The properties of the session.
    #[must_use]
    pub const fn info(&self) -> &ReceiveInfo {
        &self.info
    }
    /// The events of the session, from its start.
    #[must_use]
    pub fn events(&self) -> Events<ReceiverEvent> {
        self.running.events()
    }
    /// The present time of the session's clock.
    #[must_use]
    pub fn now(&self) -> Time {
        self.running.now()
    }
    /// Ends the session, and tells the sender.
    pub fn stop(&self) {
        self.running.control(Control::Interrupt);
    }
    /// The session at present, or at its end. `None` if its thread has panicked.
    #[must_use]
    pub fn snapshot(&self) -> Option<ReceiverSnapshot> {
        self.running.snapshot(Detail::All)
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
    pub fn wait(self) -> Result<ReceiveOutcome, RunError> {
        self.running.wait()
    }
}

impl ReceiveSession {
    /// A session that takes part in the `wanted` session and writes the object to `sink`.
    #[must_use]
    pub fn builder(wanted: Wanted, sink: impl Sink + 'static) -> Self {
        Self {
            wanted,
            sink: Box::new(sink),
            earlier: None,
            tickets: None,
            listen: Listen::default(),
            device: None,
            device_key: None,
            timeout: Duration::from_secs(24 * 60 * 60),
            verify: false,
            hook: None,
            command: false,
            name: None,
            ignored: BTreeMap::new(),
            quiet: false,
            completed: BTreeMap::new(),
            relayed: None,
        }
    }

    /// Takes unchanged blocks from this earlier version of the object.
    #[must_use]
    pub fn earlier(mut self, earlier: Option<Box<dyn Earlier>>) -> Self {
        self.earlier = earlier;
        self
    }
    /// Where to keep the ticket that gives the next run of this device its row at the sender back [default: nowhere].
    #[must_use]
    pub fn tickets(mut self, tickets: Option<Box<dyn Tickets>>) -> Self {
        self.tickets = tickets;
        self
    }
    /// Where to listen, and which senders to trust.
    #[must_use]
    pub fn listen(mut self, listen: Listen) -> Self {
        self.listen = listen;
        self
    }
    /// The identity of this device: its stable identifier, and its name for people, 1 to 64 bytes without
    /// control characters [default: a new, unknown device].
    #[must_use]
    pub fn device(mut self, id: DeviceId, label: String) -> Self {
        self.device = Some((id, label));
        self
    }
    /// The device's key, which it proves to senders [default: none].
    #[must_use]
    pub fn device_key(mut self, key: Option<SigningKey>) -> Self {
        self.device_key = key;
        self
    }
    /// Gives up if no sender is found in this time [default: 24 hours].
    #[must_use]
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// With `verify`, reads the object back from the disk, and hashes it again, before it is committed [default: no].
    #[must_use]
    pub const fn verify(mut self, verify: bool) -> Self {
        self.verify = verify;
        self
    }

    /// Runs `hook` once the object is in place, by this rule. Its end is the device's [default: none].
    #[must_use]
    pub fn hook(mut self, hook: Option<Arc<dyn Hook>>, rule: HookRule) -> Self {
        self.hook = hook.map(|hook| (hook, rule));
        self
    }
    /// Whether the sink passes the object on to a command, and waits for it [default: no].
    #[must_use]
    pub const fn command(mut self, command: bool) -> Self {
        self.command = command;
        self
    }
    /// Takes only an object of this name [default: of any name].
    #[must_use]
    pub fn name(mut self, name: Option<String>) -> Self {
        self.name = name;
        self
    }
    /// Takes no part in these sessions before these times from the start [default: none].
    #[must_use]
    pub fn ignored(mut self, sessions: BTreeMap<SessionId, Duration>) -> Self {
        self.ignored = sessions;
        self
    }
    /// Sends nothing at all, and so takes part in sessions without feedback only [default: answers where it is asked].
    #[must_use]
    pub const fn quiet(mut self, quiet: bool) -> Self {
        self.quiet = quiet;
        self
    }
    /// The counter of the last session without feedback that was completed from each sender. Sessions that are no newer
    /// may be recordings, and do not count [default: none].
    #[must_use]
    pub fn completed(mut self, completed: BTreeMap<SenderKey, Counter>) -> Self {
        self.completed = completed;
        self
    }

    /// Takes objects of pinned and known origins from whoever sends them, too, unless they are older than the last one of
    /// that name that was completed, by the counter of its session [default: takes objects from trusted senders only]. Not
    /// for devices and pipes: they take blocks before the object is known to be what the origin has signed.
    #[must_use]
    pub fn relayed(mut self, completed: Option<BTreeMap<OriginName, Counter>>) -> Self {
        self.relayed = completed;
        self
    }

    /// Starts the session on a thread of its own.
    ///
    /// # Errors
    /// If no interface is suitable, or the system refuses a socket or a thread.
    pub fn start(self) -> Result<ReceiveHandle, StartError> {
        let (device, label) = match self.device {
            Some(device) => device,
            None => {
                let mut id = DeviceId::default();
                getrandom::fill(&mut id.0).map_err(StartError::no_randomness)?;
                (id, "device".to_owned())
            }
        };
        let listening = Listening::new(&self.listen)?;
        let desk = Desk::new().map_err(StartError::cannot_wait)?;
        let net = listening.open(&desk)?;
        net.describe().into_iter().for_each(|note| desk.note(note));
        if let (true, Some(command)) = (self.quiet, net.larger_buffer()) {
            desk.warn(format!(
                "the kernel grants a small receive buffer, and nobody sends again what does not fit; run '{command}' as \
                 root"
            ));
        }
        let info = ReceiveInfo {
            device,
            label: label.clone(),
            group: listening.shown(),
            group_keys: self.listen.group_keys.iter().map(|keys| keys.current().name().to_owned()).collect(),
        };
        let seed = getrandom::u64().map_err(StartError::no_randomness)?;
        let mut config =
            ReceiverConfig::new((device, label), listening.groups.clone(), (seed, *random_bytes()?));
        config.timeout = self.timeout;
        config.device_key = self.device_key;
        config.only = listening.group.as_ref().map(|group| group.addr.ip());
        config.source = self.listen.source;
        config.group_keys = self.listen.secrets();
        config.trust = self.listen.trust;
        config.wanted = match &self.wanted {
            Wanted::First => None,
            Wanted::This(discovered) => Some(discovered.session),
        };
        config.name = self.name;
        let now = desk.host.now();
        config.ignored = self.ignored.into_iter().map(|(session, time)| (session, now + time)).collect();
        (config.quiet, config.completed, config.relayed) = (self.quiet, self.completed, self.relayed);
        let (hook, rule) = self.hook.unzip();
        config.hook = rule;
        config.intake = self.sink.intake();
        config.command = self.command;
        let ordered = config.intake.is_ordered();
        let mut machine = Receiver::new(config, desk.host.now());
        if let Wanted::This(discovered) = self.wanted {
            let arrival = Arrival::at_once(discovered.address, Via::Group);
            machine.handle_datagram(desk.host.now(), arrival, &mut discovered.announce.clone());
        }
        let reports = FailureResults {
            worker_died: ReceiverDone::WorkerDied,
            source_unreadable: |why| ReceiverDone::Failed(AbortCode::Internal, why),
        };
        let files = ReceiverFiles::new(self.sink).with_earlier(self.earlier).with_hook(hook.clone());
        let files = Arc::new(files.with_tickets_in(self.tickets).verifying(self.verify));
        let (shared, plans) = (Arc::clone(&files), Arc::new(PlanCache::default()));
        let runner = move || {
            let (files, plans) = (Arc::clone(&shared), Arc::clone(&plans));
            Box::new(move |job| run_receiver_job(job, &files, &plans)) as Runner<_, _>
        };
        let mut workers = Workers::start(worker_count(), reports, desk.host.wake(), runner.clone())
            .map_err(StartError::no_thread)?;
        if ordered {
            let lane = workers.with_lane("writer", ReceiverJob::is_for_reader, runner);
            workers = lane.map_err(StartError::no_thread)?;
        }
        let running = desk.run(
            format!("recv {}", info.label),
            ReceiverPart { outcome: None, hook },
            move || Engine::new(machine, net, workers, None),
            move |now, run, engine: &Engine<Receiver, UdpNet, _>, side| {
                files.give_up();
                if engine.machine().is_settled() {
                    files.forget_ticket();
                }
                if let Some(latest) = &engine.net().send_errors().latest {
                    side.tell(now, format!("the last trouble on the network: {latest}"));
                }
                run.map(|()| ReceiveOutcome {
                    outcome: side.part.outcome.take().unwrap_or(ReceiverOutcome::Interrupted),
                    elapsed: now.since(Time::ZERO),
                    snapshot: engine.machine().snapshot(),
                    missing: engine.machine().missing(),
                    provenance: engine.machine().provenance(),
                })
            },
        );
        let running = running.map_err(StartError::no_thread)?;
        Ok(ReceiveHandle { running, info })
    }
}

/// Keeps the outcome for the end of the session, and interrupts its hook.
struct ReceiverPart {
    outcome: Option<ReceiverOutcome>,
    hook: Option<Arc<dyn Hook>>,
}

impl Part<Receiver> for ReceiverPart {
    type Snapshot = ReceiverSnapshot;

    fn note(&mut self, event: &ReceiverEvent) {
        if let ReceiverEvent::Finished(outcome) = event {
            self.outcome = Some(outcome.clone());
        }
    }

    fn control(&self, control: Control) {
        if let (Control::Interrupt, Some(hook)) = (control, &self.hook) {
            hook.interrupt();
        }
    }

    fn snapshot(&self, _: Time, machine: &Receiver, _: Detail) -> ReceiverSnapshot {
        machine.snapshot()
    }
}
