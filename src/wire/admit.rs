//! ADMIT: the sender's answer to a join.

use super::reader::{Reader, Result};
use super::writer::Writer;
use crate::units::ChannelId;

/// What the status table said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum AdmitVerdict {
    /// Take part.
    Admitted = 0,
    /// The table says this device already has the object.
    AlreadyComplete = 1,
    /// The session serves as many devices as it can.
    Full = 2,
}

impl AdmitVerdict {
    const fn from_wire(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Admitted,
            1 => Self::AlreadyComplete,
            2 => Self::Full,
            _ => return None,
        })
    }
}

/// The sender's answer to a join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admit {
    /// Its verdict.
    pub verdict: AdmitVerdict,
    /// The channel that the device speaks on from now on, and is spoken to on alone; not 0 if it is admitted.
    pub channel: ChannelId,
}

impl Admit {
    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Self> {
        let verdict = r.u8("verdict")?;
        let verdict = AdmitVerdict::from_wire(verdict).ok_or(r.out_of_range("verdict"))?;
        let channel = ChannelId(r.u16("channel")?);
        r.check((channel != ChannelId::GROUP) == (verdict == AdmitVerdict::Admitted), "channel")?;
        Ok(Self { verdict, channel })
    }

    pub(super) fn encode(&self, w: &mut Writer) {
        w.u8(self.verdict as u8);
        w.u16(self.channel.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::MessageKind;
    use crate::wire::testing::{golden, refuses};

    #[test]
    fn golden_bytes() {
        golden(Admit { verdict: AdmitVerdict::Admitted, channel: ChannelId(0x0203) }, &[0, 2, 3]);
        golden(Admit { verdict: AdmitVerdict::AlreadyComplete, channel: ChannelId::GROUP }, &[1, 0, 0]);
        golden(Admit { verdict: AdmitVerdict::Full, channel: ChannelId::GROUP }, &[2, 0, 0]);
    }

    #[test]
    fn each_bad_field_is_named() {
        refuses(MessageKind::Admit, &[3, 0, 0], 0, &[], "verdict");
        refuses(MessageKind::Admit, &[0, 0, 0], 0, &[], "channel");
        refuses(MessageKind::Admit, &[1, 0, 1], 0, &[], "channel");
    }
}
