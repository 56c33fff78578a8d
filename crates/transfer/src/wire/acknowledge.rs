//! ACKNOWLEDGE: the sender has recorded a device's COMPLETE or ABORT.

use super::reader::{Reader, Result};
use super::writer::Writer;

/// Ends the repetition of a device's [`super::Complete`] or [`super::Abort`]. The channel identifies the
/// device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acknowledge;

impl Acknowledge {
    pub(super) fn decode(_: &mut Reader<'_>) -> Result<Self> {
        Ok(Self)
    }

    pub(super) fn encode(self, _: &mut Writer) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::testing::golden;

    #[test]
    fn golden_bytes() {
        golden(Acknowledge, &[]);
    }
}
