//! What the crate above makes of the end of a run: its exit codes, its reports and its events. It is not known here, so
//! the world hands each end to it.

use crate::protocol::event::{
    ReceiverEvent, ReceiverOutcome, ReceiverSnapshot, SenderEvent, SenderOutcome, SenderSnapshot,
};
use crate::time::Time;
use crate::units::DeviceId;

/// The end of a sender's run.
#[derive(Clone, Copy, Debug)]
pub struct SenderEnd<'a> {
    /// How it ended.
    pub outcome: &'a SenderOutcome,
    /// How many devices the sender expected, if it was told.
    pub expected: Option<u32>,
    /// The sender's last word.
    pub snapshot: &'a SenderSnapshot,
    /// Size of the object in bytes.
    pub size: u64,
    /// The events of the run.
    pub log: &'a [(Time, SenderEvent)],
    /// The time of the end.
    pub now: Time,
}

/// The end of a device's last run.
#[derive(Clone, Debug)]
pub struct DeviceEnd<'a> {
    /// How it ended.
    pub outcome: &'a ReceiverOutcome,
    /// The device's identifier.
    pub device: DeviceId,
    /// The device's label.
    pub label: String,
    /// The device's last word.
    pub snapshot: &'a ReceiverSnapshot,
    /// The events of the run.
    pub log: &'a [(Time, ReceiverEvent)],
    /// The time of the end.
    pub now: Time,
}

/// Checks what the user is told of the ends of runs. Panics if it is not right.
pub trait Surface: Sync {
    /// A sender has ended.
    fn sender_ended(&self, end: &SenderEnd<'_>);
    /// A device has ended.
    fn device_ended(&self, end: &DeviceEnd<'_>);
}

/// Nobody is told anything.
impl Surface for () {
    fn sender_ended(&self, _: &SenderEnd<'_>) {}
    fn device_ended(&self, _: &DeviceEnd<'_>) {}
}
