//! Discovery on real sockets: who sends, for as long as one likes to know.

use super::StartError;
use super::events::{Events, Weigh, Weight};
use super::handle::{Desk, Part, Running};
use super::listening::Listening;
use crate::crypto::group::GroupKeys;
use crate::crypto::primitives::REAL;
use crate::engine::run::RunError;
use crate::engine::{Engine, Jobs};
use crate::limits::DEFAULT_PORT;
use crate::net::Destination;
use crate::protocol::Control;
pub use crate::protocol::discovery::{Discovered, DiscoveryEvent};
use crate::protocol::discovery::{Discovery as Machine, DiscoveryConfig};
use crate::protocol::trust::Trust;
use crate::time::Time;
use std::convert::Infallible;

/// A discovery in the making. What is not said has its default.
#[derive(Default)]
pub struct Discovery {
    group: Option<Destination>,
    port: Option<u16>,
    interface: Option<String>,
    group_keys: Vec<GroupKeys>,
    trust: Trust,
}

/// A discovery that runs; see [`Discovery::start`]. Dropping it ends it.
pub struct DiscoveryHandle {
    running: Running<DiscoveryEvent, Vec<Discovered>, Result<(), RunError>>,
}

impl DiscoveryHandle {
    /// What it says, from the start on.
    #[must_use]
    pub fn events(&self) -> Events<DiscoveryEvent> {
        self.running.events()
    }
    /// The sessions that are announced now.
    #[must_use]
    pub fn sessions(&self) -> Vec<Discovered> {
        self.running.snapshot().unwrap_or_default()
    }
    /// Waits for the first session whose sender is trusted; `None` if discovery has ended before. Takes events.
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
    /// Ends it.
    ///
    /// # Errors
    /// When the network has failed for good before.
    pub fn stop(self) -> Result<(), RunError> {
        self.running.control(Control::Interrupt);
        self.running.wait()
    }
}

impl Discovery {
    /// Listens at the rendezvous groups.
    #[must_use]
    pub fn builder() -> Self {
        Self::default()
    }
    /// Listen to this group as well, at its port.
    #[must_use]
    pub const fn group(mut self, group: Option<Destination>) -> Self {
        self.group = group;
        self
    }
    /// Listen at this port where no group is named [default: 7417].
    #[must_use]
    pub const fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }
    /// By this interface, given by its name or one of its addresses [default: all that carry groups].
    #[must_use]
    pub fn interface(mut self, interface: Option<String>) -> Self {
        self.interface = interface;
        self
    }
    /// List only sessions sealed with one of these [default: only such as are not sealed].
    #[must_use]
    pub fn group_keys(mut self, keys: Vec<GroupKeys>) -> Self {
        self.group_keys = keys;
        self
    }
    /// Whom files would be taken from [default: anybody, and said to be unverified].
    #[must_use]
    pub fn trust(mut self, trust: Trust) -> Self {
        self.trust = trust;
        self
    }

    /// Starts it, on a thread of its own.
    ///
    /// # Errors
    /// When no interface will do, or the system refuses a socket or a thread.
    pub fn start(self) -> Result<DiscoveryHandle, StartError> {
        let listening = Listening::new(self.interface, self.group, self.port.unwrap_or(DEFAULT_PORT))?;
        let desk = Desk::new().map_err(StartError::cannot_wait)?;
        let (net, warnings) = listening.open()?;
        warnings.into_iter().for_each(|warning| desk.warn(warning));
        let config = DiscoveryConfig {
            groups: listening.groups,
            group_keys: self.group_keys.iter().flat_map(GroupKeys::secrets).cloned().collect(),
            primitives: REAL,
            trust: self.trust,
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
    fn snapshot(&self, _: Time, machine: &Machine) -> Vec<Discovered> {
        machine.sessions()
    }
}

/// For a machine that asks for none.
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
