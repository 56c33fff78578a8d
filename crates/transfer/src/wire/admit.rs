//! ADMIT: the sender's answer to a join.

use super::Capabilities;
use super::extension::{self, TICKET};
use super::reader::{Reader, Result};
use super::writer::Writer;
use crate::units::{ChannelId, Ticket};

/// The answer of the status table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum AdmitVerdict {
    /// The device takes part.
    Admitted = 0,
    /// The table has this device as complete.
    AlreadyComplete = 1,
    /// The session serves as many devices as it can.
    Full = 2,
    /// The device speaks no version that the sender speaks, or lacks a required capability.
    Unsupported = 3,
    /// The session is for certain devices, and this is none of them.
    NotListed = 4,
    /// The session keeps only the last part of its stream, and its beginning is gone.
    TooLate = 5,
}

impl AdmitVerdict {
    const fn from_wire(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Admitted,
            1 => Self::AlreadyComplete,
            2 => Self::Full,
            3 => Self::Unsupported,
            4 => Self::NotListed,
            5 => Self::TooLate,
            _ => return None,
        })
    }
}

/// The sender's answer to a join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admit {
    /// The verdict.
    pub verdict: AdmitVerdict,
    /// The channel between the sender and this device from now on. This field and the next two are 0 unless
    /// the device is admitted; then the channel is not 0.
    pub channel: ChannelId,
    /// The version that both sides speak from now on; at least 1.
    pub version: u8,
    /// The announced capabilities that the device has.
    pub capabilities: Capabilities,
    /// The ticket that finds the device's row if it joins again.
    pub ticket: Option<Ticket>,
}

impl Admit {
    /// An answer that does not admit the device.
    #[must_use]
    pub const fn turned_away(verdict: AdmitVerdict) -> Self {
        Self { verdict, channel: ChannelId::GROUP, version: 0, capabilities: Capabilities(0), ticket: None }
    }

    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Self> {
        let verdict = r.u8("verdict")?;
        let verdict = AdmitVerdict::from_wire(verdict).ok_or(r.out_of_range("verdict"))?;
        let admitted = verdict == AdmitVerdict::Admitted;
        let channel = ChannelId(r.u16("channel")?);
        r.check((channel != ChannelId::GROUP) == admitted, "channel")?;
        let version = r.u8("version")?;
        r.check((version != 0) == admitted, "version")?;
        let capabilities = Capabilities::decode(r, "capabilities")?;
        r.check(admitted || capabilities.is_empty(), "capabilities")?;
        Ok(Self { verdict, channel, version, capabilities, ticket: None })
    }

    /// Takes an extension, if it belongs to this message.
    pub(super) fn extension(&mut self, number: u16, r: &mut Reader<'_>) -> Result<bool> {
        if number == TICKET {
            self.ticket = Some(extension::decode_ticket(r)?);
        }
        Ok(number == TICKET)
    }

    pub(super) fn encode(&self, w: &mut Writer) {
        w.u8(self.verdict as u8);
        w.u16(self.channel.0);
        w.u8(self.version);
        self.capabilities.encode(w);
        if let Some(ticket) = self.ticket {
            extension::encode_ticket(ticket, w);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::testing::{HEADER, datagram, golden, refuses};
    use crate::wire::{MessageKind, decode_plain, encode_plain};

    const BODY: [u8; 8] = [0, 2, 3, 1, 0, 0, 0, 5];

    #[test]
    fn golden_bytes() {
        let admit = Admit {
            verdict: AdmitVerdict::Admitted,
            channel: ChannelId(0x0203),
            version: 1,
            capabilities: Capabilities(5),
            ticket: None,
        };
        golden(admit.clone(), &BODY);
        let away = [
            AdmitVerdict::AlreadyComplete,
            AdmitVerdict::Full,
            AdmitVerdict::Unsupported,
            AdmitVerdict::NotListed,
        ];
        for verdict in away {
            golden(Admit::turned_away(verdict), &[verdict as u8, 0, 0, 0, 0, 0, 0, 0]);
        }
        let with_ticket = Admit { ticket: Some(Ticket([9; 16])), ..admit };
        let bytes = datagram(MessageKind::Admit as u8, &[&BODY[..], &[0, 3, 0, 16], &[9; 16]].concat());
        assert_eq!(encode_plain(HEADER, &with_ticket.clone().into()), bytes);
        assert_eq!(decode_plain(&bytes), Ok((HEADER, with_ticket.into())));
    }

    #[test]
    fn each_bad_field_is_named() {
        refuses(MessageKind::Admit, &BODY, 0, &[6], "verdict");
        refuses(MessageKind::Admit, &BODY, 1, &[0, 0], "channel");
        refuses(MessageKind::Admit, &BODY, 3, &[0], "version");
        let away = [1, 0, 0, 0, 0, 0, 0, 0];
        refuses(MessageKind::Admit, &away, 2, &[1], "channel");
        refuses(MessageKind::Admit, &away, 3, &[1], "version");
        refuses(MessageKind::Admit, &away, 7, &[1], "capabilities");
    }
}
