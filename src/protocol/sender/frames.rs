//! Large datagrams that a path does not carry, because a switch or a device on it has a smaller MTU than the sender.
//! Nobody says so: the frames are dropped, and only the small ones of control messages arrive.

use super::Sender;
use crate::limits::DEFAULT_SYMBOL_SIZE;
use crate::task::State;
use crate::time::Time;
use crate::units::DeviceIndex;
use crate::wire::Progress;

/// From this number of lost datagrams on, a device that got hardly any others gets no symbols at all ...
const MANY: u64 = 500;
/// ... if it lost this many for each one that it got.
const FOR_EACH: u64 = 25;

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
        let on_the_way = report.lost.saturating_sub(report.kernel_drops);
        let none = on_the_way >= MANY && report.received.saturating_mul(FOR_EACH) < on_the_way;
        let hint = self.size_hint(index);
        if !none || hint.is_empty() || report.verified > 0 || self.devices.get(index).is_final() {
            return false;
        }
        self.set_state(index, State::Failed(format!("got none of {on_the_way} datagrams{hint}")), now);
        self.end_if_done(now);
        true
    }
}
