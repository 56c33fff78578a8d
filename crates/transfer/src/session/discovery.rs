//! Discovery on real sockets: lists senders until it is stopped.

use super::StartError;
use super::events::{Events, Weigh, Weight};
use super::handle::{Desk, Detail, Part, Running};
use super::listening::{Listen, Listening};
use crate::crypto::primitives::REAL;
use crate::engine::run::RunError;
use crate::engine::{Engine, Jobs};
use crate::protocol::Control;
pub use crate::protocol::discovery::{Discovered, DiscoveryEvent};
use crate::protocol::discovery::{Discovery as Machine, DiscoveryConfig};
use crate::time::Time;
use std::convert::Infallible;

/// Lists senders; see [`Discovery::start`].
pub struct Discovery;

/// Handle of a running discovery; see [`Discovery::start`]. Dropping it ends the discovery.
pub struct DiscoveryHandle {
    running: Running<DiscoveryEvent, Vec<Discovered>, Result<(), RunError>>,
}

impl DiscoveryHandle {
    /// The events of the discovery, from its start.
    #[must_use]
    pub fn events(&self) -> Events<DiscoveryEvent> {
        self.running.events()
    }
    /// The sessions that are announced at present.
    #[must_use]
    pub fn sessions(&self) -> Vec<Discovered> {
        self.running.snapshot(Detail::All).unwrap_or_default()
    }
    /// Waits for the first session with a trusted sender. `None` if the discovery ends before. Reads events.
    #[must_use]
    pub fn first_trusted(&self) -> Option<Discovered> {
        let events = self.events();
        std::iter::from_fn(|| events.next()).find_map(|event| match event.what {
            super::events::What::Changed(DiscoveryEvent::Found(session)) if session.decision.accepted() => {
                Some(*session)
            }
            _ => None,
        })
    }
    /// Ends the discovery.
    ///
    /// # Errors
    /// If the network had failed for good.
    pub fn stop(self) -> Result<(), RunError> {
        self.running.control(Control::Interrupt);
        self.running.wait()
    }
}

impl Discovery {
    /// Starts to listen at the rendezvous groups, and where `listen` says, on a thread of its own.
    ///
    /// # Errors
    /// If no interface is suitable, or the system refuses a socket or a thread.
    pub fn start(listen: Listen) -> Result<DiscoveryHandle, StartError> {
        let listening = Listening::new(&listen)?;
        let desk = Desk::new().map_err(StartError::cannot_wait)?;
        let net = listening.open(&desk)?;
        let config = DiscoveryConfig {
            groups: listening.groups,
            group_keys: listen.secrets(),
            primitives: REAL,
            trust: listen.trust,
        };
        let machine = Machine::new(config, desk.host.now());
        let running = desk.run(
            "discovery".into(),
            Listing,
            move || Engine::new(machine, net, NoJobs, None),
            |_, run, _: &Engine<Machine, _, _>, _| run,
        );
        Ok(DiscoveryHandle { running: running.map_err(StartError::no_thread)? })
    }
}

impl Weigh for DiscoveryEvent {
    fn weight(&self) -> Weight {
        match self {
            Self::Found(_) | Self::Gone(_) => Weight::Passing,
            Self::Phase(session, _) => {
                let mut key = [0; 16];
                key[8..].copy_from_slice(&session.0.to_be_bytes());
                Weight::Latest((3, key))
            }
        }
    }
}

struct Listing;

impl Part<Machine> for Listing {
    type Snapshot = Vec<Discovered>;

    fn note(&mut self, _: &DiscoveryEvent) {}
    fn snapshot(&self, _: Time, machine: &Machine, _: Detail) -> Vec<Discovered> {
        machine.sessions()
    }
}

/// The job port of a machine without jobs.
struct NoJobs;

impl Jobs<Infallible, String> for NoJobs {
    fn submit(&mut self, job: Infallible) -> Option<String> {
        match job {}
    }
    fn finished(&mut self) -> Option<String> {
        None
    }
    fn source_unreadable(&mut self, why: String) -> String {
        why
    }
}
