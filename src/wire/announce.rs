//! ANNOUNCE: describes the session.

use super::Invitation;
use super::reader::{Reader, Result};
use super::writer::Writer;
use crate::limits::{
    MAX_BLOCK_LOG2, MAX_NAME, MAX_OBJECT_SIZE, MAX_SYMBOL_SIZE, MIN_BLOCK_LOG2, MIN_SYMBOL_SIZE, SYMBOL_ALIGN,
};
use crate::units::{AgreementKey, BlockIndex, Digest, Rate, SenderKey, Suite, TaskId};
use std::net::SocketAddr;

/// What the session is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Waiting for devices.
    Gathering = 0,
    /// Sending source symbols (repairs in between).
    Streaming = 1,
    /// All source symbols sent; repairing.
    Repairing = 2,
    /// The devices known are done; staying for late ones.
    Lingering = 3,
}

impl Phase {
    const fn from_wire(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Gathering,
            1 => Self::Streaming,
            2 => Self::Repairing,
            3 => Self::Lingering,
            _ => return None,
        })
    }
}

/// Describes the session; repeated for as long as it lasts, so that joining late is normal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announce {
    /// Who sends; the message is signed with it.
    pub sender: SenderKey,
    /// The sender's half of what it agrees on with each device, made for this session.
    pub agreement: AgreementKey,
    /// How datagrams between the sender and single devices are sealed.
    pub suite: Suite,
    /// The task.
    pub task: TaskId,
    /// What the session is doing.
    pub phase: Phase,
    /// Bytes of the object, at most [`MAX_OBJECT_SIZE`].
    pub object_size: u64,
    /// log2 of the block size in bytes, from [`MIN_BLOCK_LOG2`] to [`MAX_BLOCK_LOG2`].
    pub block_log2: u8,
    /// Bytes of a symbol: a multiple of [`SYMBOL_ALIGN`] from [`MIN_SYMBOL_SIZE`] to
    /// [`MAX_SYMBOL_SIZE`].
    pub symbol_size: u16,
    /// Where group data goes: a multicast group, a broadcast address or one host. Neither the
    /// address nor the port is 0.
    pub data: SocketAddr,
    /// Blocks below this have been streamed.
    pub position: BlockIndex,
    /// Which devices not yet admitted send a join, and when.
    pub invitation: Invitation,
    /// Devices the sender is serving; they spread their unasked reports by it.
    pub gsize: u32,
    /// Sending rate; what a device may show and plan by.
    pub rate: Rate,
    /// Root hash of the object, once the sender knows it.
    pub root: Option<Digest>,
    /// The object's name: a single path component, 1 to 255 bytes of UTF-8 without NUL. Untrusted.
    pub name: String,
}

impl Announce {
    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Self> {
        let sender = SenderKey(r.array("sender")?);
        let agreement = AgreementKey(r.array("agreement")?);
        let suite = match r.u8("suite")? {
            0 => Suite::Aes256Gcm,
            1 => Suite::ChaCha20Poly1305,
            _ => return Err(r.out_of_range("suite")),
        };
        let task = TaskId(r.array("task")?);
        let phase = r.u8("phase")?;
        let phase = Phase::from_wire(phase).ok_or(r.out_of_range("phase"))?;
        let object_size = r.u64("object size")?;
        r.check(object_size <= MAX_OBJECT_SIZE, "object size")?;
        let block_log2 = r.u8("block size")?;
        r.check((MIN_BLOCK_LOG2..=MAX_BLOCK_LOG2).contains(&block_log2), "block size")?;
        let symbol_size = r.u16("symbol size")?;
        let in_range = (MIN_SYMBOL_SIZE..=MAX_SYMBOL_SIZE).contains(&symbol_size);
        r.check(in_range && symbol_size.is_multiple_of(SYMBOL_ALIGN), "symbol size")?;
        let data = r.socket_addr("data address")?;
        let position = BlockIndex(r.u32("position")?);
        let invitation = Invitation::decode(r)?;
        let gsize = r.u32("gsize")?;
        let rate = Rate(r.u64("rate")?);
        let root = if r.flag("root")? { Some(r.digest("root")?) } else { None };
        let name = r.text(MAX_NAME, "name")?;
        r.check(!name.is_empty() && !name.contains('\0'), "name")?;
        let name = name.to_owned();
        Ok(Self {
            sender,
            agreement,
            suite,
            task,
            phase,
            object_size,
            block_log2,
            symbol_size,
            data,
            position,
            invitation,
            gsize,
            rate,
            root,
            name,
        })
    }

    pub(super) fn encode(&self, w: &mut Writer) {
        w.bytes(&self.sender.0);
        w.bytes(&self.agreement.0);
        w.u8(match self.suite {
            Suite::Aes256Gcm => 0,
            Suite::ChaCha20Poly1305 => 1,
        });
        w.bytes(&self.task.0);
        w.u8(self.phase as u8);
        w.u64(self.object_size);
        w.u8(self.block_log2);
        w.u16(self.symbol_size);
        w.socket_addr(self.data);
        w.u32(self.position.0);
        self.invitation.encode(w);
        w.u32(self.gsize);
        w.u64(self.rate.0);
        w.u8(self.root.is_some().into());
        if let Some(root) = self.root {
            w.bytes(&root.0);
        }
        debug_assert!(self.name.len() <= MAX_NAME);
        w.text(&self.name, MAX_NAME);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::MessageKind;
    use crate::wire::testing::{golden, refuses, takes};
    use std::time::Duration;

    #[rustfmt::skip]
    const V4: [u8; 66] = [
        0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf,
        1,                                              // 16 phase: streaming
        0, 0, 0, 1, 0x80, 0, 0, 0,                      // 17 object size
        20,                                             // 25 block size
        0x05, 0x80,                                     // 26 symbol size 1408
        4, 239, 255, 74, 17, 0x1c, 0xf9,                // 28 data, port 7417
        0, 0, 2, 1,                                     // 35 position
        0x80, 0, 0x03, 0xe8,                            // 39 invitation
        0, 0, 0, 30,                                    // 43 gsize
        0, 0, 0, 0, 0x3b, 0x9a, 0xca, 0,                // 47 rate 1e9
        0,                                              // 55 no root
        9, b'i', b'm', b'a', b'g', b'e', b'.', b'i', b's', b'o',
    ];

    #[rustfmt::skip]
    const V6: [u8; 104] = [
        0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf,
        3,
        0x80, 0, 0, 0, 0, 0, 0, 0,
        26,
        0x22, 0xc0,
        6, 0xff, 0x15, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x4d, 0x43, 0x74, 0x17, 0x1c, 0xf9,
        0xff, 0xff, 0xff, 0xff,
        0, 0, 0, 0,
        0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0,
        1,
        1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16,
        17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32,
        3, 0xe2, 0x82, 0xac,                            // 100 name: the euro sign
    ];

    /// What the golden bodies begin with: sender, agreement, suite.
    fn head(suite: u8) -> Vec<u8> {
        [&[0x51; 32][..], &[0x52; 32], &[suite]].concat()
    }
    const HEAD: usize = 65;

    fn task() -> TaskId {
        TaskId(std::array::from_fn(|i| 0xa0 + i as u8))
    }

    #[test]
    fn golden_bytes() {
        let v4 = Announce {
            sender: SenderKey([0x51; 32]),
            agreement: AgreementKey([0x52; 32]),
            suite: Suite::Aes256Gcm,
            task: task(),
            phase: Phase::Streaming,
            object_size: 0x1_8000_0000,
            block_log2: 20,
            symbol_size: 1408,
            data: "239.255.74.17:7417".parse().unwrap(),
            position: BlockIndex(0x201),
            invitation: Invitation { probability: 0x8000, window: Duration::from_secs(1) },
            gsize: 30,
            rate: Rate(1_000_000_000),
            root: None,
            name: "image.iso".into(),
        };
        golden(v4, &[&head(0)[..], &V4].concat());
        let v6 = Announce {
            sender: SenderKey([0x51; 32]),
            agreement: AgreementKey([0x52; 32]),
            suite: Suite::ChaCha20Poly1305,
            task: task(),
            phase: Phase::Lingering,
            object_size: MAX_OBJECT_SIZE,
            block_log2: 26,
            symbol_size: 8896,
            data: "[ff15::4d43:7417]:7417".parse().unwrap(),
            position: BlockIndex(u32::MAX),
            invitation: Invitation { probability: 0, window: Duration::ZERO },
            gsize: 0,
            rate: Rate(0),
            root: Some(Digest(std::array::from_fn(|i| i as u8 + 1))),
            name: "\u{20ac}".into(),
        };
        golden(v6, &[&head(1)[..], &V6].concat());
    }

    #[test]
    fn each_bad_field_is_named() {
        let body = [&head(0)[..], &V4].concat();
        refuses(MessageKind::Announce, &body, HEAD - 1, &[2], "suite");
        let no = |at, patch: &[u8], field| refuses(MessageKind::Announce, &body, HEAD + at, patch, field);
        let yes = |at, patch: &[u8]| takes(MessageKind::Announce, &body, HEAD + at, patch);
        yes(16, &[3]);
        no(16, &[4], "phase");
        yes(17, &[0x80, 0, 0, 0, 0, 0, 0, 0]);
        no(17, &[0x80, 0, 0, 0, 0, 0, 0, 1], "object size");
        yes(25, &[10]);
        no(25, &[9], "block size");
        yes(25, &[MAX_BLOCK_LOG2]);
        no(25, &[MAX_BLOCK_LOG2 + 1], "block size");
        yes(26, &[0, 64]);
        no(26, &[0, 0], "symbol size");
        no(26, &[0, 63], "symbol size");
        no(26, &[0x05, 0x81], "symbol size");
        no(26, &[0x23, 0x00], "symbol size");
        no(28, &[5], "data address");
        no(29, &[0, 0, 0, 0], "data address");
        no(33, &[0, 0], "data address");
        no(55, &[2], "root");
        no(57, b"a\0b", "name");
        no(57, &[0xff], "name");
        // The name cut to nothing leaves trailing bytes, so the datagram ends with the length.
        refuses(MessageKind::Announce, &body[..HEAD + 57], HEAD + 56, &[0], "name");
    }

    #[test]
    fn the_longest_announcement_fits() {
        let mut body = [&head(0)[..], &V6].concat();
        body.truncate(HEAD + 100);
        body.push(255);
        body.extend([b'n'; 255]);
        takes(MessageKind::Announce, &body, 0, &[]);
        assert!(body.len() + 20 <= 512, "the capacity that encode reserves");
    }
}
