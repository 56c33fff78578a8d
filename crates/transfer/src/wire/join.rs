//! JOIN: a device asks to be served.

use super::extension::{self, DEVICE_KEY, DeviceProof, TICKET};
use super::reader::{Reader, Result};
use super::writer::Writer;
use super::{Capabilities, Versions};
use crate::limits::MAX_LABEL;
use crate::units::{DeviceId, Digest, Ticket};

/// What a device holds of the object before the transfer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Holdings {
    /// Nothing.
    #[default]
    Nothing,
    /// Bytes that may be of the object.
    Some,
    /// An object with this root hash.
    All(Digest),
    /// Nothing, and it keeps nothing: it passes the object on. That it completed an earlier run says nothing of this
    /// one.
    Passing,
}

/// A device asks to be served. The message is sealed. The device's agreement key, its cookie and a proof of
/// the group key stand in clear before the sealed part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Join {
    /// Its stable identifier.
    pub device: DeviceId,
    /// Versions that it speaks.
    pub versions: Versions,
    /// Capabilities that it has.
    pub supported: Capabilities,
    /// What the device holds.
    pub holdings: Holdings,
    /// The device's name for people, 0 to 64 bytes of UTF-8; cut if longer. Untrusted.
    pub label: String,
    /// The ticket from an earlier ADMIT of this session.
    pub ticket: Option<Ticket>,
    /// Its key, with a signature; none of a device that has no key.
    pub proof: Option<DeviceProof>,
}

impl Join {
    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Self> {
        Ok(Self {
            device: r.device()?,
            versions: Versions::decode(r)?,
            supported: Capabilities::decode(r, "capabilities")?,
            holdings: match r.u8("holdings")? {
                0 => Holdings::Nothing,
                1 => Holdings::Some,
                2 => Holdings::All(r.digest("holdings")?),
                3 => Holdings::Passing,
                _ => return Err(r.out_of_range("holdings")),
            },
            label: r.text(MAX_LABEL, "label")?.to_owned(),
            ticket: None,
            proof: None,
        })
    }

    /// Takes an extension, if it belongs to this message.
    pub(super) fn extension(&mut self, number: u16, r: &mut Reader<'_>) -> Result<bool> {
        match number {
            TICKET => self.ticket = Some(extension::decode_ticket(r)?),
            DEVICE_KEY => self.proof = Some(DeviceProof::decode(r)?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    pub(super) fn encode(&self, w: &mut Writer) {
        w.bytes(&self.device.0);
        self.versions.encode(w);
        self.supported.encode(w);
        match self.holdings {
            Holdings::Nothing => w.u8(0),
            Holdings::Some => w.u8(1),
            Holdings::All(root) => {
                w.u8(2);
                w.bytes(&root.0);
            }
            Holdings::Passing => w.u8(3),
        }
        w.text(&self.label, MAX_LABEL);
        if let Some(ticket) = self.ticket {
            extension::encode_ticket(ticket, w);
        }
        if let Some(proof) = &self.proof {
            proof.encode(w);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::DeviceKey;
    use crate::wire::testing::{DEVICE, HEADER, datagram, golden, refuses, takes};
    use crate::wire::{Message, MessageKind, decode_plain, encode_plain};

    #[rustfmt::skip]
    const BODY: [u8; 30] = [
        0xd0, 0xd1, 0xd2, 0xd3, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8, 0xd9, 0xda, 0xdb, 0xdc, 0xdd, 0xde, 0xdf,
        1, 2,
        0, 0, 0, 5,
        1,
        6, b'l', b'a', b'b', b'-', b'0', b'7',
    ];

    fn join() -> Join {
        Join {
            device: DEVICE,
            versions: Versions { min: 1, max: 2 },
            supported: Capabilities(5),
            holdings: Holdings::Some,
            label: "lab-07".into(),
            ticket: None,
            proof: None,
        }
    }

    #[test]
    fn golden_bytes() {
        golden(join(), &BODY);
        let all = [&BODY[..22], &[2], &[7; 32], &BODY[23..]].concat();
        golden(Join { holdings: Holdings::All(Digest([7; 32])), ..join() }, &all);
        let ticket = [&BODY[..], &[0, 3, 0, 16], &[9; 16]].concat();
        let bytes = datagram(MessageKind::Join as u8, &ticket);
        let with_ticket = Join { ticket: Some(Ticket([9; 16])), ..join() };
        assert_eq!(encode_plain(HEADER, &with_ticket.clone().into()), bytes);
        assert_eq!(decode_plain(&bytes), Ok((HEADER, with_ticket.into())));
        // Its number is not that of a critical one, and it has one length.
        refuses(MessageKind::Join, &ticket, 30, &[0x80], "extensions");
        let longer = [&BODY[..], &[0, 3, 0, 17], &[9; 17]].concat();
        refuses(MessageKind::Join, &longer, 0, &[], "extensions");
        let proof = DeviceProof { key: DeviceKey([8; 32]), signature: [7; 64] };
        let both = [&ticket[..], &[0, 4, 0, 96], &[8; 32], &[7; 64]].concat();
        let bytes = datagram(MessageKind::Join as u8, &both);
        let with_both = Join { ticket: Some(Ticket([9; 16])), proof: Some(proof), ..join() };
        assert_eq!(encode_plain(HEADER, &with_both.clone().into()), bytes);
        assert_eq!(decode_plain(&bytes), Ok((HEADER, with_both.into())));
        let longer = [&BODY[..], &[0, 4, 0, 97], &[8; 97]].concat();
        refuses(MessageKind::Join, &longer, 0, &[], "extensions");
    }

    #[test]
    fn each_bad_field_is_named() {
        takes(MessageKind::Join, &BODY[..24], 23, &[0]);
        let mut long = BODY[..23].to_vec();
        long.push(64);
        long.extend([b'x'; 64]);
        takes(MessageKind::Join, &long, 0, &[]);
        long.push(b'x');
        refuses(MessageKind::Join, &long, 23, &[65], "label");
        refuses(MessageKind::Join, &BODY, 29, &[0xc3], "label");
        [0, 3].iter().for_each(|&holds| takes(MessageKind::Join, &BODY, 22, &[holds]));
        refuses(MessageKind::Join, &BODY, 22, &[4], "holdings");
        refuses(MessageKind::Join, &BODY, 16, &[0], "lowest version");
        refuses(MessageKind::Join, &BODY, 16, &[3], "highest version");
    }

    #[test]
    fn a_long_label_is_cut_between_characters() {
        let label = format!("{}\u{e9}", "x".repeat(63));
        let bytes = encode_plain(HEADER, &Join { label, ..join() }.into());
        let Ok((_, Message::Join(join))) = decode_plain(&bytes) else { panic!() };
        assert_eq!(join.label, "x".repeat(63));
    }
}
