//! Starts a send session's machine, with feedback or without, on a thread of its own.

use super::StartError;
use super::budget::EgressShare;
use super::handle::{Desk, Detail, Part};
use super::hashes::Hashes;
use super::send::SendHandle;
use super::sender_workers::sender_workers;
use super::sent::{SendInfo, SendOutcome, SendSnapshot};
use crate::engine::jobs::final_snapshot;
use crate::engine::{Egress, Engine, Stream};
use crate::layout::Layout;
use crate::net::UdpNet;
use crate::protocol::Machine;
use crate::protocol::carousel::Carousel;
use crate::protocol::event::{SenderEvent, SenderOutcome, SenderOverview, SenderSnapshot};
use crate::protocol::job::{SenderDone, SenderJob};
use crate::protocol::packet_protection::SymbolSeal;
use crate::protocol::sender::Sender;
use crate::storage::Source;
use crate::store::SharedStore;
use crate::task::State;
use crate::time::Time;
use crate::units::{Digest, TaskId};
use std::sync::Arc;

/// A machine that sends.
pub(super) trait Sending:
    Machine<Job = SenderJob, Done = SenderDone, Event = SenderEvent> + Send + Sized + 'static
{
    /// With the chaining values of an earlier run, and which blocks are zeros.
    fn with_values(self, blocks: Vec<(Digest, bool)>) -> Self;
    /// The same of the whole object, once they are known.
    fn hashed_blocks(&self) -> Option<Vec<(Digest, bool)>>;
    /// The seal of its symbols.
    fn symbol_seal(&self) -> Option<SymbolSeal>;
    /// The session at a glance, without rows.
    fn overview(&self) -> SenderOverview;
    /// The session at a glance, with a row for each device.
    fn snapshot(&self, now: Time) -> SenderSnapshot;
    /// The last snapshot, with the rows of the store.
    fn last_snapshot(&self, task: TaskId, store: &SharedStore, now: Time) -> SenderSnapshot;
}

impl Sending for Sender {
    fn with_values(self, blocks: Vec<(Digest, bool)>) -> Self {
        self.with_values(blocks)
    }
    fn hashed_blocks(&self) -> Option<Vec<(Digest, bool)>> {
        self.hashed_blocks()
    }
    fn symbol_seal(&self) -> Option<SymbolSeal> {
        self.symbol_seal()
    }
    fn overview(&self) -> SenderOverview {
        self.overview()
    }
    fn snapshot(&self, now: Time) -> SenderSnapshot {
        self.snapshot(now)
    }
    fn last_snapshot(&self, task: TaskId, store: &SharedStore, now: Time) -> SenderSnapshot {
        final_snapshot(self, task, store, now)
    }
}

impl Sending for Carousel {
    fn with_values(self, blocks: Vec<(Digest, bool)>) -> Self {
        self.with_values(blocks)
    }
    fn hashed_blocks(&self) -> Option<Vec<(Digest, bool)>> {
        self.hashed_blocks()
    }
    fn symbol_seal(&self) -> Option<SymbolSeal> {
        self.symbol_seal()
    }
    fn overview(&self) -> SenderOverview {
        self.overview()
    }
    fn snapshot(&self, _: Time) -> SenderSnapshot {
        self.snapshot()
    }
    fn last_snapshot(&self, _: TaskId, _: &SharedStore, _: Time) -> SenderSnapshot {
        self.snapshot()
    }
}

/// Everything that a session has besides its machine.
pub(super) struct Launch {
    pub desk: Desk<SenderEvent, SendSnapshot>,
    pub net: UdpNet,
    pub source: Arc<dyn Source>,
    pub store: SharedStore,
    pub info: SendInfo,
    pub egress: Option<EgressShare>,
    pub hashes: Option<Hashes>,
    /// Whether the chaining values were known from an earlier run.
    pub from_cache: bool,
}

impl Launch {
    /// Starts the session.
    ///
    /// # Errors
    /// If the system refuses a thread.
    pub fn start<M: Sending>(
        self,
        machine: M,
        known: Option<Vec<(Digest, bool)>>,
        layout: Layout,
    ) -> Result<SendHandle, StartError> {
        let Self { desk, net, source, store, info, egress, hashes, from_cache } = self;
        let machine = machine.with_values(known.unwrap_or_default());
        let task = info.task;
        let workers = sender_workers(desk.host.wake(), &source, (task, &store))?;
        let input = Arc::clone(&source);
        let stream = Stream {
            session: info.session,
            symbol_size: layout.symbol_size(),
            source,
            seal: machine.symbol_seal(),
        };
        let part = SenderPart { egress: egress.clone(), root: None, outcome: None };
        let running = desk.run(
            format!("send {}", info.name),
            part,
            move || {
                let egress = egress.map(|share| Box::new(share) as Box<dyn Egress>);
                Engine::new(machine, net, workers, Some(stream)).with_egress(egress)
            },
            move |now, run, engine, side| {
                input.stop();
                let errors = engine.net().send_errors();
                if let Some(latest) = &errors.latest {
                    side.tell(now, format!("{} datagrams not sent; last: {latest}", errors.datagrams));
                }
                let sender = engine.machine().last_snapshot(task, &store, now);
                if let Some(hashes) = hashes.filter(|_| run.is_ok()) {
                    let mismatch = matches!(side.part.outcome, Some(SenderOutcome::SourceFailed(_)));
                    let failed = mismatch
                        || sender
                            .devices
                            .iter()
                            .any(|row| matches!(row.assignment.state(), State::Failed(_)));
                    if let Err(e) = hashes.keep(from_cache, failed, engine.machine().hashed_blocks()) {
                        side.tell(now, format!("cannot remember the hashes of the file: {e}"));
                    }
                }
                run.map(|()| SendOutcome {
                    outcome: side.part.outcome.take().unwrap_or(SenderOutcome::Ended),
                    root: side.part.root,
                    elapsed: now.since(Time::ZERO),
                    snapshot: SendSnapshot {
                        sender,
                        egress: side.part.egress.as_ref().map(EgressShare::view),
                    },
                })
            },
        );
        let running = running.map_err(StartError::no_thread)?;
        Ok(SendHandle { running, info })
    }
}

/// Keeps the root hash and the outcome for the end of the session.
struct SenderPart {
    egress: Option<EgressShare>,
    root: Option<Digest>,
    outcome: Option<SenderOutcome>,
}

impl<M: Sending> Part<M> for SenderPart {
    type Snapshot = SendSnapshot;

    fn note(&mut self, event: &SenderEvent) {
        match event {
            SenderEvent::Hashed(root) => self.root = Some(*root),
            SenderEvent::Finished(outcome) => self.outcome = Some(outcome.clone()),
            _ => {}
        }
    }

    fn snapshot(&self, now: Time, machine: &M, detail: Detail) -> SendSnapshot {
        let sender = match detail {
            Detail::Overview => SenderSnapshot { overview: machine.overview(), devices: Vec::new() },
            Detail::All => machine.snapshot(now),
        };
        SendSnapshot { sender, egress: self.egress.as_ref().map(EgressShare::view) }
    }
}
