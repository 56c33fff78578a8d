//! A receive session: takes part in one session and puts what comes into a sink.

use super::discovery::Discovered;
use super::events::Events;
use super::handle::{Desk, Part, Running};
use super::listening::{Listen, Listening};
use super::{StartError, random_bytes, worker_count};
use crate::crypto::sign::SigningKey;
use crate::engine::Engine;
use crate::engine::jobs::{ReceiverFiles, run_receiver_job};
use crate::engine::run::RunError;
use crate::engine::workers::{FailureResults, Workers};
use crate::fec::PlanCache;
use crate::net::UdpNet;
use crate::protocol::event::{ReceiverEvent, ReceiverOutcome, ReceiverSnapshot};
use crate::protocol::job::ReceiverDone;
use crate::protocol::receiver::{Receiver, ReceiverConfig};
use crate::protocol::{Control, Machine};
use crate::storage::{Earlier, Sink};
use crate::time::Time;
use crate::units::{Arrival, DeviceId, Via};
use crate::wire::AbortCode;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Which session to take part in.
#[derive(Clone, Debug)]
pub enum Wanted {
    /// The first that is found and whose sender is trusted.
    First,
    /// This one.
    This(Box<Discovered>),
}

/// A receive session in the making. What is not said has its default.
pub struct ReceiveSession {
    wanted: Wanted,
    sink: Box<dyn Sink>,
    earlier: Option<Box<dyn Earlier>>,
    listen: Listen,
    device: Option<(DeviceId, String)>,
    device_key: Option<SigningKey>,
    timeout: Duration,
}

/// What a receive session turned out to be.
#[derive(Clone, Debug)]
pub struct ReceiveInfo {
    /// This device.
    pub device: DeviceId,
    /// Its label.
    pub label: String,
    /// Where it listens first of all.
    pub group: SocketAddr,
    /// Names of the group keys that sessions are taken with.
    pub group_keys: Vec<String>,
}

/// How a receive session ended.
#[derive(Clone, Debug)]
pub struct ReceiveOutcome {
    /// How the run ended.
    pub outcome: ReceiverOutcome,
    /// How long it ran.
    pub elapsed: Duration,
    /// The session at its end.
    pub snapshot: ReceiverSnapshot,
}

/// A receive session that runs; see [`ReceiveSession::start`]. Dropping it stops the session and waits for its end.
pub struct ReceiveHandle {
    running: Running<ReceiverEvent, ReceiverSnapshot, Result<ReceiveOutcome, RunError>>,
    info: ReceiveInfo,
}

impl ReceiveHandle {
    /// What it turned out to be.
    #[must_use]
    pub const fn info(&self) -> &ReceiveInfo {
        &self.info
    }
    /// What it says, from the start on.
    #[must_use]
    pub fn events(&self) -> Events<ReceiverEvent> {
        self.running.events()
    }
    /// The session's time now.
    #[must_use]
    pub fn now(&self) -> Time {
        self.running.now()
    }
    /// Tells the sender, cleans up, and ends.
    pub fn stop(&self) {
        self.running.control(Control::Interrupt);
    }
    /// The session at a glance; once it has ended, as it was then. `None` if its thread has died.
    #[must_use]
    pub fn snapshot(&self) -> Option<ReceiverSnapshot> {
        self.running.snapshot()
    }
    /// Whether it has ended.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.running.is_over()
    }
    /// Waits for the end.
    ///
    /// # Errors
    /// When the network fails for good.
    pub fn wait(self) -> Result<ReceiveOutcome, RunError> {
        self.running.wait()
    }
}

impl ReceiveSession {
    /// A session that takes part in the `wanted` one and puts the object into `sink`.
    #[must_use]
    pub fn builder(wanted: Wanted, sink: impl Sink + 'static) -> Self {
        Self {
            wanted,
            sink: Box::new(sink),
            earlier: None,
            listen: Listen::default(),
            device: None,
            device_key: None,
            timeout: Duration::from_secs(24 * 60 * 60),
        }
    }

    /// Take from this earlier version of the object what has not changed.
    #[must_use]
    pub fn earlier(mut self, earlier: Option<Box<dyn Earlier>>) -> Self {
        self.earlier = earlier;
        self
    }
    /// Where to listen, and whom to trust.
    #[must_use]
    pub fn listen(mut self, listen: Listen) -> Self {
        self.listen = listen;
        self
    }
    /// Who this device is: its stable identifier, and its name for people of 1 to 64 bytes without control
    /// characters [default: somebody nobody has seen before].
    #[must_use]
    pub fn device(mut self, id: DeviceId, label: String) -> Self {
        self.device = Some((id, label));
        self
    }
    /// The device's key, which it shows to senders [default: none].
    #[must_use]
    pub fn device_key(mut self, key: Option<SigningKey>) -> Self {
        self.device_key = key;
        self
    }
    /// Give up when no sender was found in this time [default: 24 hours].
    #[must_use]
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Starts the session, on a thread of its own.
    ///
    /// # Errors
    /// When no interface will do, or the system refuses a socket or a thread.
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
        config.group_keys = self.listen.secrets();
        config.trust = self.listen.trust;
        config.wanted = match &self.wanted {
            Wanted::First => None,
            Wanted::This(discovered) => Some(discovered.session),
        };
        let mut machine = Receiver::new(config, desk.host.now());
        if let Wanted::This(discovered) = self.wanted {
            let arrival = Arrival::at_once(discovered.address, Via::Group);
            machine.handle_datagram(desk.host.now(), arrival, &mut discovered.announce.clone());
        }
        let reports = FailureResults {
            worker_died: ReceiverDone::WorkerDied,
            source_unreadable: |why| ReceiverDone::Failed(AbortCode::Internal, why),
        };
        let files = Arc::new(ReceiverFiles::new(self.sink).with_earlier(self.earlier));
        let plans = Arc::new(PlanCache::default());
        let workers = Workers::start(worker_count(), reports, desk.host.wake(), move || {
            let (files, plans) = (Arc::clone(&files), Arc::clone(&plans));
            Box::new(move |job| run_receiver_job(job, &files, &plans))
        });
        let workers = workers.map_err(StartError::no_thread)?;
        let running = desk.run(
            format!("recv {}", info.label),
            ReceiverPart { outcome: None },
            move || Engine::new(machine, net, workers, None),
            |now, run, engine: &Engine<Receiver, UdpNet, _>, side| {
                if let Some(latest) = &engine.net().send_errors().latest {
                    side.tell(now, format!("the last trouble on the network: {latest}"));
                }
                run.map(|()| ReceiveOutcome {
                    outcome: side.part.outcome.take().unwrap_or(ReceiverOutcome::Interrupted),
                    elapsed: now.since(Time::ZERO),
                    snapshot: engine.machine().snapshot(),
                })
            },
        );
        let running = running.map_err(StartError::no_thread)?;
        Ok(ReceiveHandle { running, info })
    }
}

/// Keeps what is told at the end.
struct ReceiverPart {
    outcome: Option<ReceiverOutcome>,
}

impl Part<Receiver> for ReceiverPart {
    type Snapshot = ReceiverSnapshot;

    fn note(&mut self, event: &ReceiverEvent) {
        if let ReceiverEvent::Finished(outcome) = event {
            self.outcome = Some(outcome.clone());
        }
    }

    fn snapshot(&self, _: Time, machine: &Receiver) -> ReceiverSnapshot {
        machine.snapshot()
    }
}
