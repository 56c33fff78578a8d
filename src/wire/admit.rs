//! ADMIT: the sender's answer to a join.

use super::reader::{Reader, Result};
use super::writer::Writer;
use crate::units::DeviceId;

/// What the status table said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Verdict {
    /// Take part.
    Admitted = 0,
    /// The table says this device already has the object.
    AlreadyComplete = 1,
    /// The session serves as many devices as it can.
    Full = 2,
}

impl Verdict {
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
    /// Whom it answers.
    pub device: DeviceId,
    /// The instance it answers.
    pub instance: u64,
    /// Its verdict.
    pub verdict: Verdict,
}

impl Admit {
    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Self> {
        let device = r.device()?;
        let instance = r.u64("instance")?;
        let verdict = r.u8("verdict")?;
        let verdict = Verdict::from_wire(verdict).ok_or(r.out_of_range("verdict"))?;
        Ok(Self { device, instance, verdict })
    }

    pub(super) fn encode(&self, w: &mut Writer) {
        w.bytes(&self.device.0);
        w.u64(self.instance);
        w.u8(self.verdict as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Kind;
    use crate::wire::testing::{DEVICE, golden, refuses, takes};

    #[rustfmt::skip]
    const BODY: [u8; 25] = [
        0xd0, 0xd1, 0xd2, 0xd3, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8, 0xd9, 0xda, 0xdb, 0xdc, 0xdd, 0xde, 0xdf,
        0, 0, 0, 0, 0, 0, 0, 5,
        1,
    ];

    #[test]
    fn golden_bytes() {
        golden(Admit { device: DEVICE, instance: 5, verdict: Verdict::AlreadyComplete }, &BODY);
    }

    #[test]
    fn each_bad_field_is_named() {
        takes(Kind::Admit, &BODY, 24, &[0]);
        takes(Kind::Admit, &BODY, 24, &[2]);
        refuses(Kind::Admit, &BODY, 24, &[3], "verdict");
    }
}
