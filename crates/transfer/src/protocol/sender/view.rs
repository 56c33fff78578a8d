//! What the sender tells the user: an overview, rows of its devices, and an event when a row has changed.

use super::Sender;
use super::service::Service;
use crate::protocol::event::{SenderEvent, SenderOverview, SenderSnapshot};
use crate::protocol::statistics::DeviceRow;
use crate::task::State;
use crate::time::Time;
use crate::units::DeviceIndex;
use crate::wire::Phase;

impl Sender {
    /// The sender at a glance, without rows. Its cost does not depend on the number of devices.
    #[must_use]
    pub fn overview(&self) -> SenderOverview {
        let position = self.stream.position;
        SenderOverview {
            phase: self.phase,
            blocks: self.config.layout.block_count(),
            position,
            object_size: self.config.layout.object_size(),
            growing: !self.config.layout.is_sealed(),
            streamed: (u64::from(position) << self.config.layout.block_log2())
                .min(self.config.layout.object_size()),
            skipped: self.skipped(),
            rate: self.pace.rate(),
            wire_bytes: self.counters.wire_bytes,
            source_symbols: self.counters.source,
            repair_symbols: self.counters.repair,
            unicast_symbols: self.counters.unicast,
            feedback: self.counters.feedback,
            ignored: self.counters.ignored,
            unknown_kinds: self.counters.unknown_kinds,
            not_understood: self.counters.not_understood,
            suspects: self.inquiries.count,
            expected: self.config.task.options.expected(),
            devices: self.devices.counts().recorded + self.records.absent.summary(),
            missing: self.records.absent.summary().open(),
            passes: None,
        }
    }

    /// The sender at a glance, with a row for each device.
    #[must_use]
    pub fn snapshot(&self, now: Time) -> SenderSnapshot {
        let devices = self.devices.iter().map(|(index, _)| self.row(index, now));
        let absent = self.records.absent.rows().cloned().map(DeviceRow::of_absent);
        SenderSnapshot { overview: self.overview(), devices: devices.chain(absent).collect() }
    }

    fn row(&self, index: DeviceIndex, now: Time) -> DeviceRow {
        self.devices.get(index).row(self.gather.started, self.config.layout.block_count(), now)
    }

    /// Changes a device's state, if the new one can follow. The user is told once the store has recorded it.
    pub(super) fn set_state(&mut self, index: DeviceIndex, state: State, now: Time) {
        let ends = state.is_final();
        let device = self.devices.get_mut(index);
        // A state that cannot follow is outdated: a complete device stays complete.
        if device.assignment.set(state) != Ok(true) {
            return;
        }
        if ends {
            device.service = Service::Ended { at: now };
        }
        self.records.changed(index);
        if ends {
            self.end_unicast_repair(index);
        }
    }

    /// Emits a row event if the recorded state or the activity differs from the last event.
    pub(super) fn tell_if_changed(&mut self, index: DeviceIndex, now: Time) {
        let gathering = self.phase == Phase::Gathering;
        let device = self.devices.get_mut(index);
        let Some(recorded) = &device.recorded else { return };
        if device.is_final() && !device.is_recorded() {
            return;
        }
        let state = Some((recorded.state().clone(), device.activity(gathering)));
        if device.told != state {
            device.told = state;
            let row = self.row(index, now);
            self.event(SenderEvent::Device(row));
        }
    }
}
