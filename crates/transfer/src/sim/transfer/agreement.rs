//! What a run leaves: the sender's last word, its rows, and what the surface makes of them.

use super::super::actors::{SimActor, TASK, device_id, device_label};
use super::super::network::address;
use super::super::scenario::Scenario;
use super::super::surface::{DeviceEnd, SenderEnd, Surface};
use super::super::totals::Totals;
use super::super::world::World;
use super::{Device, SENDER, Trace, Transfer};
use crate::engine::jobs::final_snapshot;
use crate::protocol::event::{SenderOutcome, SenderSnapshot};
use crate::protocol::statistics::DeviceRow;
use crate::task::State;

/// Like [`run`](super::run). `surface` checks what the user is told of each end.
///
/// # Panics
/// As for [`run`](super::run), and if `surface` does.
#[must_use]
pub fn run_below(surface: &dyn Surface, scenario: &Scenario, trace: Option<Trace<'_>>) -> Totals {
    let mut transfer = Transfer::new(surface, scenario, trace);
    let world = transfer.play(World::new(scenario.seed ^ 0x0f_f1ce));
    transfer.totals(&world)
}

impl Transfer<'_, '_> {
    /// The sender's last word, if it has come to its end.
    pub(super) fn last_word(&self, world: &World<SimActor>) -> Option<SenderSnapshot> {
        let Some(SimActor::Sender(node)) = world.actor(SENDER) else { return None };
        let (store, clock) = &self.store;
        clock.set(world.now());
        Some(final_snapshot(node.engine.machine(), TASK, store, world.now()))
    }

    /// The rows that are left: of a sender that lost power, what its store has.
    pub(super) fn last_rows(&self, world: &World<SimActor>) -> Vec<DeviceRow> {
        let (store, clock) = &self.store;
        clock.set(world.now());
        let rows = || store.with(|store| store.assignments(TASK)).unwrap_or_default();
        self.last_word(world).map_or_else(|| DeviceRow::join(rows(), Vec::new()), |word| word.devices)
    }

    /// How far a device is, as the rows have it. Where another one came with its identifier first, its runs have
    /// other rows, and are known by their address. Where a host on the path repeated its join, its row may have
    /// that host's address, and is known by the identifier, or by the label if another one has that.
    pub(super) fn state_of(&self, rows: &[DeviceRow], index: u32) -> Option<State> {
        let at = address(index + 1);
        let mut own: Vec<_> = rows
            .iter()
            .filter(|row| match row.transfer.address {
                Some(address) => address == at,
                None => row.assignment.device == device_id(index),
            })
            .collect();
        if own.is_empty() {
            let duplicate = format!("device {index} (duplicate ");
            let is_its = |row: &&DeviceRow| {
                row.assignment.device == device_id(index) || row.assignment.label.starts_with(&duplicate)
            };
            own = rows.iter().filter(is_its).collect();
        }
        // Of several runs, the last one that came to an end.
        own.sort_by_key(|row| {
            let failed = matches!(row.assignment.state(), State::Failed(_));
            (!row.assignment.is_complete(), !failed, row.assignment.device != device_id(index))
        });
        own.first().map(|row| row.assignment.state().clone())
    }

    /// Whether the rows agree with the sender's outcome, and the surface with both.
    pub(super) fn check_agreement(&self, world: &World<SimActor>) {
        let (Some(SimActor::Sender(node)), Some(word)) = (world.actor(SENDER), self.last_word(world)) else {
            return;
        };
        let Some(outcome) = &self.sender_outcome else { return };
        let (rows, expected) = (&word.devices, self.scenario.expected);
        let about = || format!("{outcome:?}, expected {expected:?}, {rows:#?}");
        self.surface.sender_ended(&SenderEnd {
            outcome,
            expected,
            snapshot: &word,
            size: self.scenario.layout.object_size(),
            log: &node.log,
            now: world.now(),
        });
        if self.scenario.listed {
            // Nobody can be added to the list, and nobody on it be spoken for.
            assert!(rows.len() <= self.devices.len(), "{}", about());
            let complete = rows.iter().filter(|row| row.assignment.is_complete()).count();
            let wanted = rows.len().max(expected.map_or(0, |n| n as usize));
            let all = *outcome == SenderOutcome::Ended && complete > 0 && complete == wanted;
            let has = |device: &Device| device.has_object(&self.checker);
            assert!(!all || self.devices.iter().all(has), "{}", about());
        }
        if *outcome == SenderOutcome::Ended {
            // An end as planned leaves nothing that the store does not have.
            assert!(rows.iter().all(|row| row.transfer.activity.is_none()), "{}", about());
            let open = |row: &DeviceRow| !row.assignment.state().is_final() && !row.is_missing();
            assert!(!rows.iter().any(open), "{}", about());
        }
    }

    /// Whether the surface says of a device's last run what it was.
    pub(super) fn check_device_agreement(&self, world: &World<SimActor>, index: u32) {
        let Some(SimActor::Receiver(node)) = world.actor(index + 1) else { return };
        let Some(outcome) = &self.devices[index as usize].outcome else { return };
        self.surface.device_ended(&DeviceEnd {
            outcome,
            device: device_id(index),
            label: device_label(index),
            snapshot: &node.engine.machine().snapshot(),
            log: &node.log,
            now: world.now(),
        });
    }
}
