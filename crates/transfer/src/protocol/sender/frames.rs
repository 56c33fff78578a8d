//! Large datagrams that a path does not carry, because a switch or a device on it has a smaller MTU than the sender.
//! Nobody says so: the frames are dropped, and only the small ones of control messages arrive.

use super::Sender;
use crate::limits::DEFAULT_SYMBOL_SIZE;
use crate::task::State;
use crate::time::Time;
use crate::units::DeviceIndex;
use crate::wire::Progress;
use std::time::Duration;

/// A device is watched for this time, and for this number of datagrams to the group ...
const WATCHED: (Duration, u64) = (Duration::from_secs(2), 500);
/// ... of which it must have got one in so many. If it got fewer, but some, no symbol came.
const ONE_IN: u64 = 25;

/// The beginning of a stretch of the group's datagrams. What the device says is lost does not count: forged packet
/// numbers can make that any number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stretch {
    at: Time,
    /// Datagrams that were sent to the group before it.
    sent: u64,
    /// Those that the device had got.
    received: u64,
    /// Those that its kernel had dropped.
    dropped: u64,
}

impl Sender {
    /// Why a device that got no block fails, if that may be the size of the datagrams; otherwise empty.
    pub(super) fn size_hint(&self, index: DeviceIndex) -> String {
        let size = self.config.layout.symbol_size();
        if size <= DEFAULT_SYMBOL_SIZE || self.devices.get(index).reported.verified > 0 {
            return String::new();
        }
        format!(
            "; its path may not carry datagrams of {size} bytes, so send with --symbol-size {DEFAULT_SYMBOL_SIZE}"
        )
    }

    /// Fails a device to which control messages come, and no symbols, if those are larger than usual. Returns whether it
    /// did.
    pub(super) fn fails_by_size(&mut self, index: DeviceIndex, report: &Progress, now: Time) -> bool {
        let hint = self.size_hint(index);
        if hint.is_empty() || report.verified > 0 || self.devices.get(index).is_final() {
            return false;
        }
        let (sent, dropped) = (self.group.sent(), report.kernel_drops);
        let here = Stretch { at: now, sent, received: report.received, dropped };
        let stretch = &mut self.devices.get_mut(index).reported.stretch;
        let begun = *stretch.get_or_insert(here);
        let sent = sent - begun.sent;
        if now.since(begun.at) < WATCHED.0 || sent < WATCHED.1 {
            return false;
        }
        *stretch = Some(here);
        let received = report.received.saturating_sub(begun.received);
        let on_the_way = sent.saturating_sub(dropped.saturating_sub(begun.dropped));
        // A device that the group does not reach at all is served by unicast.
        if received == 0 || received.saturating_mul(ONE_IN) >= on_the_way {
            return false;
        }
        self.set_state(index, State::Failed(format!("got {received} of {sent} datagrams{hint}")), now);
        self.end_if_done(now);
        true
    }
}
