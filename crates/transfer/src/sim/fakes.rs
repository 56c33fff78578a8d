//! Fake peers for tests. They use the real packet protection and send any message that a test gives them.

use crate::crypto::derive::Secret;
use crate::crypto::device::Claim;
use crate::crypto::sign::SigningKey;
use crate::limits::{FEEDBACK_PER_SECOND, HEADER_LEN, WIRE_VERSION};
use crate::protocol::packet_protection::{
    DeviceKeys, Found, Membership, ReceiverSide, SenderSide, announce_key, find, open, seal, session_id,
};
use crate::sim::sham::{self, SHAM};
use crate::units::{
    BlockIndex, ChannelId, Cookie, Counter, DeviceId, DeviceKey, SenderKey, SessionId, Suite, TaskId,
};
use crate::wire::{
    self, Admit, AdmitVerdict, Announce, Capabilities, DeviceProof, Header, Holdings, Invitation, Join,
    Message, MessageKind, Object, PacketNumber, Phase, Progress, Protection, TaskKind, Versions, decode_body,
    encode_plain,
};
use std::collections::BTreeMap;
use std::time::Duration;

/// An announce of a small object, with the keys of a sender.
#[must_use]
pub fn announce_of(side: &SenderSide) -> Announce {
    Announce {
        versions: Versions::OURS,
        required: Capabilities::default(),
        optional: Capabilities::default(),
        sender: side.key(),
        agreement: side.agreement(),
        counter: side.counter(),
        suite: side.suite(),
        task: TaskId([1; 16]),
        task_kind: TaskKind::COPY,
        phase: Phase::Gathering,
        symbol_size: 1408,
        data: std::net::SocketAddr::from(([239, 1, 1, 1], 7417)),
        position: BlockIndex(0),
        invitation: Invitation { probability: u16::MAX, window: Duration::ZERO },
        gsize: 0,
        rate: crate::units::Rate(1_000_000),
        feedback_budget: FEEDBACK_PER_SECOND as u16,
        objects: vec![Object::file(1, 20)],
        name: "f".into(),
        manifest: Vec::new(),
        one_way: None,
        origin: None,
    }
}

/// A join of a device with this program's version and capabilities.
#[must_use]
pub fn any_join(device: DeviceId, holdings: Holdings) -> Join {
    Join {
        device,
        versions: Versions::OURS,
        supported: Capabilities::OURS,
        holdings,
        label: "d".into(),
        ticket: None,
        proof: None,
    }
}

/// An ADMIT that gives a device this channel.
#[must_use]
pub const fn any_admit(channel: ChannelId) -> Admit {
    Admit {
        verdict: AdmitVerdict::Admitted,
        channel,
        version: WIRE_VERSION,
        capabilities: Capabilities(0),
        ticket: None,
    }
}

/// A progress report with this number of verified symbols and nothing else to report.
#[must_use]
pub const fn any_report(verified: u32) -> Progress {
    Progress {
        verified,
        received: 1,
        lost: 0,
        kernel_drops: 0,
        overrun_drops: 0,
        storage_delay_us: 0,
        room: BlockIndex(u32::MAX),
        below: BlockIndex(0),
        ticket_kept: false,
        arrivals: None,
    }
}

/// Moves an announce from one group to another, as a member of both can without the sender's key: opens the seal
/// of `from`, if any, and seals it for `to`, if any. `None` if the announce does not belong to `from`.
#[must_use]
pub fn moved_to_group(announce: &[u8], from: Option<&Secret>, to: Option<&Secret>) -> Option<Vec<u8>> {
    let head = wire::head(announce).ok()?;
    let (mut bytes, session, number) = (announce.to_vec(), head.header.session, head.header.packet_number.0);
    match (head.protection, from) {
        (Protection::Signed, None) => {}
        (Protection::Group(suite), Some(group)) => {
            let len = open(&announce_key(group, suite, session), number, HEADER_LEN, &mut bytes)?.len();
            bytes.truncate(HEADER_LEN + len);
        }
        _ => return None,
    }
    match to {
        None => Protection::Signed.mark(&mut bytes),
        Some(group) => {
            let suite = Suite::default();
            Protection::Group(suite).mark(&mut bytes);
            seal(&announce_key(group, suite, session), number, HEADER_LEN, &mut bytes);
        }
    }
    Some(bytes)
}

/// A fake device, to test senders.
#[derive(Debug)]
pub struct FakeDevice {
    side: ReceiverSide,
    sent: u64,
    /// The cookie that it returns in joins.
    pub cookie: Cookie,
    /// The last ADMIT that it received.
    pub admit: Option<Admit>,
    /// Rounds of the polls that it has opened, by channel.
    pub rounds: BTreeMap<ChannelId, u32>,
}

impl FakeDevice {
    /// A device that has received the announce of a sender without a group key.
    ///
    /// # Panics
    /// If `random` gives no valid key.
    #[must_use]
    pub fn new(announce: &Announce, random: [u8; 32]) -> Self {
        let session = session_id(&announce.sender, &announce.agreement, announce.counter);
        Self::of(session, announce, None, random).expect("a sound announce")
    }

    /// A device with or without a group key. `None` if the announced half of the agreement is invalid.
    #[must_use]
    pub fn of(
        session: SessionId,
        announce: &Announce,
        group: Option<&Secret>,
        random: [u8; 32],
    ) -> Option<Self> {
        ReceiverSide::new(SHAM, session, announce, group, random).map(Self::at)
    }

    const fn at(side: ReceiverSide) -> Self {
        Self { side, sent: 0, cookie: Cookie([0; 16]), admit: None, rounds: BTreeMap::new() }
    }

    /// Another device of the same session. Cheaper than [`Self::of`]. `announce` is the session's.
    #[must_use]
    pub fn another(&self, announce: &Announce, random: [u8; 32]) -> Option<Self> {
        self.side.another(&announce.agreement, random).map(Self::at)
    }

    /// The device's session.
    #[must_use]
    pub const fn session(&self) -> SessionId {
        self.side.session()
    }

    /// Sends on this channel from now on, even if the channel belongs to another device.
    pub fn take_channel(&mut self, channel: ChannelId) {
        self.side.admitted(channel);
    }

    /// The device's channel; 0 before admission.
    #[must_use]
    pub const fn channel(&self) -> ChannelId {
        self.side.own_channel()
    }

    fn header(&mut self, channel: ChannelId) -> Header {
        self.sent += 1;
        Header { session: self.side.session(), packet_number: PacketNumber::new(channel, self.sent - 1) }
    }

    /// The proof for a join under this key and identifier.
    #[must_use]
    pub fn proof(&self, key: &SigningKey, device: DeviceId) -> DeviceProof {
        let (sender, agreement) = (self.side.sender(), self.side.agreement());
        let claim =
            Claim { session: self.session(), sender: &sender, agreement: &agreement, device: &device };
        DeviceProof { key: DeviceKey::of(key), signature: claim.sign(key) }
    }

    /// Encodes and protects a join.
    pub fn join(&mut self, join: Join) -> Vec<u8> {
        self.join_with(join, |_| ())
    }

    /// Like [`Self::join`]; `damage` may change the datagram before it is protected.
    pub fn join_with(&mut self, join: Join, damage: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let header = self.header(ChannelId::GROUP);
        let mut plain = encode_plain(header, &join.into());
        damage(&mut plain);
        self.side.join_of(header, self.cookie, &plain)
    }

    /// Encodes and seals a message; `damage` may change the datagram before it is sealed.
    pub fn seal_message(&mut self, message: &Message<'_>, damage: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let header = self.header(self.channel());
        let mut plain = encode_plain(header, message);
        damage(&mut plain);
        self.for_sender(header, plain)
    }

    /// Protects an unprotected datagram.
    #[must_use]
    pub fn for_sender(&self, header: Header, plain: Vec<u8>) -> Vec<u8> {
        let is_join = wire::peek(&plain).is_some_and(|(_, kind)| kind == MessageKind::Join);
        if is_join { self.side.join_of(header, self.cookie, &plain) } else { self.side.for_sender(plain) }
    }

    /// Takes a datagram, and stores its cookie, channel or round. Returns its kind, if it is valid.
    pub fn hear(&mut self, bytes: &[u8]) -> Option<MessageKind> {
        let mut bytes = bytes.to_vec();
        let head = wire::head(&bytes).ok()?;
        let opened = self.side.open(&head, &mut bytes, || true)?;
        match decode_body(head.kind, opened.body).ok()? {
            Message::Retry(retry) if retry.agreement == self.side.agreement() => self.cookie = retry.cookie,
            Message::Admit(admit) => {
                self.side.admitted(admit.channel);
                self.admit = Some(admit);
            }
            Message::Poll(poll) => {
                self.rounds.insert(head.header.packet_number.channel(), poll.round);
            }
            _ => {}
        }
        Some(head.kind)
    }
}

/// A fake sender of one device, to test receivers.
#[derive(Debug)]
pub struct FakeSender {
    side: SenderSide,
    device: Option<DeviceKeys>,
    /// Its different announces: a device uses the first one that it understood.
    announced: Vec<Announce>,
    sent: BTreeMap<ChannelId, u64>,
}

/// Most announces that a fake sender remembers.
const MAX_ANNOUNCED: usize = 16;

impl FakeSender {
    /// A sender without a group key.
    #[must_use]
    pub fn new(counter: u64) -> Self {
        Self::of(counter, sham::signing_key(1), [1; 32], None)
    }

    /// A sender with this signing key, with or without a group key.
    #[must_use]
    pub fn of(counter: u64, signing_key: SigningKey, random: [u8; 32], group: Option<&Secret>) -> Self {
        let side = SenderSide::new(Counter(counter), signing_key, random, Suite::default(), group);
        Self { side, device: None, announced: Vec::new(), sent: BTreeMap::new() }
    }

    /// Makes it impersonate the sender of another session.
    #[must_use]
    pub fn posing(mut self, session: SessionId, group: Option<&Secret>) -> Self {
        self.side.session = session;
        self.side.membership = Membership::new(group, self.side.suite(), session, &self.side.key());
        self
    }

    /// The session.
    #[must_use]
    pub const fn session(&self) -> SessionId {
        self.side.session()
    }

    /// An announce of a small object.
    #[must_use]
    pub fn any_announce(&self) -> Announce {
        announce_of(&self.side)
    }

    /// The sender's public key.
    #[must_use]
    pub fn key(&self) -> SenderKey {
        self.side.key()
    }

    /// `announce` with this sender's keys, counter and suite.
    #[must_use]
    pub fn announce(&self, announce: Announce) -> Announce {
        Announce {
            sender: self.side.key(),
            agreement: self.side.agreement(),
            counter: self.side.counter(),
            suite: self.side.suite(),
            ..announce
        }
    }

    /// Skips `by` packet numbers of a channel.
    pub fn leap(&mut self, channel: ChannelId, by: u64) {
        let sent = self.sent.entry(channel).or_default();
        *sent = (*sent + by) & PacketNumber::MAX_COUNTER;
    }

    fn header(&mut self, channel: ChannelId) -> Header {
        let sent = self.sent.entry(channel).or_default();
        let packet_number = PacketNumber::new(channel, *sent);
        *sent = (*sent + 1) & PacketNumber::MAX_COUNTER;
        Header { session: self.side.session(), packet_number }
    }

    /// Encodes a message to the group, on any channel, and protects it; `damage` may change it before that.
    pub fn to_all(
        &mut self,
        channel: ChannelId,
        message: &Message<'_>,
        damage: impl FnOnce(&mut Vec<u8>),
    ) -> Vec<u8> {
        let header = self.header(channel);
        let mut plain = encode_plain(header, message);
        damage(&mut plain);
        if let Ok((_, Message::Announce(announce))) = wire::decode_plain(&plain)
            && self.announced.len() < MAX_ANNOUNCED
            && self.announced.iter().all(|known| known.constants() != announce.constants())
        {
            self.announced.push(announce);
        }
        self.side.for_all(plain)
    }

    /// Protects a plain datagram for the group or, if `for_device` and the device has joined, for the device.
    #[must_use]
    pub fn protect(&self, plain: Vec<u8>, for_device: bool) -> Vec<u8> {
        match &self.device {
            Some(keys) if for_device => self.side.for_one(keys, plain),
            _ => self.side.for_all(plain),
        }
    }

    /// Encodes and seals a message to the device; `None` before the device has joined. An ADMIT uses the channel of
    /// replies to devices without a channel.
    pub fn to_one(
        &mut self,
        channel: ChannelId,
        message: &Message<'_>,
        damage: impl FnOnce(&mut Vec<u8>),
    ) -> Option<Vec<u8>> {
        let header =
            self.header(if message.kind() == MessageKind::Admit { ChannelId::REPLIES } else { channel });
        let mut plain = encode_plain(header, message);
        damage(&mut plain);
        Some(self.side.for_one(self.device.as_ref()?, plain))
    }

    /// Takes a datagram of the device. Returns its header and the unprotected datagram, if it is valid.
    pub fn hear(&mut self, from: std::net::SocketAddr, bytes: &[u8]) -> Option<(Header, Vec<u8>)> {
        let mut bytes = bytes.to_vec();
        let head = wire::head(&bytes).ok()?;
        if head.kind == MessageKind::Join {
            let clear = self.side.join_clear(from, &bytes)?;
            let announced = self.announced.clone();
            let mut keys = announced.iter().filter_map(|announce| {
                self.side.announce(announce);
                self.side.agree(&clear.agreement)
            });
            let opens = |keys: &DeviceKeys| SenderSide::from_one(keys, &head, &mut bytes.clone()).is_some();
            self.device = Some(keys.find(opens)?);
        }
        let body = SenderSide::from_one(self.device.as_ref()?, &head, &mut bytes)?;
        decode_body(head.kind, body).ok()?;
        let mut plain = encode_plain(head.header, &wire::Acknowledge.into());
        plain.truncate(HEADER_LEN);
        plain[3] = head.kind as u8;
        plain.extend_from_slice(body);
        Some((head.header, plain))
    }

    /// The session that a receiver without group keys finds in an announce.
    #[must_use]
    pub fn found(bytes: &[u8]) -> Option<Found> {
        let mut bytes = bytes.to_vec();
        let head = wire::head(&bytes).ok()?;
        find(SHAM, &[], &head, &mut bytes)
    }
}
