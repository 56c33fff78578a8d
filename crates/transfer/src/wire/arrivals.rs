//! Arrivals, a part of PROGRESS: how a stretch of a channel's datagrams arrived. The sender learns from them what the
//! path carries.

use super::PacketNumber;
use super::reader::{Reader, Result};
use super::writer::Writer;

/// How the datagrams `first..=last` of a channel arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrivals {
    /// The first.
    pub first: PacketNumber,
    /// The last, of the same channel; above `first`.
    pub last: PacketNumber,
    /// How many of them arrived, at least 2.
    pub received: u32,
    /// Microseconds from the arrival of the first to that of the last.
    pub elapsed_us: u32,
    /// Arrival of the last by the device's own clock, in microseconds.
    pub last_at_us: u64,
}

impl Arrivals {
    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Option<Self>> {
        match r.u8("arrivals")? {
            0 => return Ok(None),
            1 => {}
            _ => return Err(r.out_of_range("arrivals")),
        }
        let arrivals = Self {
            first: PacketNumber(r.u64("arrivals")?),
            last: PacketNumber(r.u64("arrivals")?),
            received: r.u32("arrivals")?,
            elapsed_us: r.u32("arrivals")?,
            last_at_us: r.u64("arrivals")?,
        };
        let one_channel = arrivals.first.channel() == arrivals.last.channel();
        let sound = one_channel && arrivals.first < arrivals.last && arrivals.received >= 2;
        r.check(sound, "arrivals")?;
        Ok(Some(arrivals))
    }

    pub(super) fn encode(arrivals: Option<&Self>, w: &mut Writer) {
        w.u8(u8::from(arrivals.is_some()));
        if let Some(arrivals) = arrivals {
            w.u64(arrivals.first.0);
            w.u64(arrivals.last.0);
            w.u32(arrivals.received);
            w.u32(arrivals.elapsed_us);
            w.u64(arrivals.last_at_us);
        }
    }
}
