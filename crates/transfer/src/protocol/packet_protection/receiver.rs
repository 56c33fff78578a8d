//! The device's side: checks signatures, opens what is sealed for the group or for this device, and seals the
//! device's messages.

use super::{
    DeviceKeys, GroupIdentity, Membership, Transcript, announce_key, clear_len, encode, group_identity,
    is_signed, open, seal, session_id, to_all, transcript,
};
use crate::crypto::agree::Agreement;
use crate::crypto::derive::Secret;
use crate::crypto::primitives::Primitives;
use crate::crypto::sign::{Purpose, SIGNATURE_LEN};
use crate::crypto::window::ReplayWindow;
use crate::limits::HEADER_LEN;
use crate::units::{AgreementKey, ChannelId, Cookie, SenderKey, SessionId, Suite};
use crate::wire::{
    self, Announce, DecodeError, Head, Header, Join, Message, MessageKind, Protection, decode_body,
};
use std::sync::Arc;

/// An announced session.
#[derive(Debug)]
pub struct Found {
    /// The announcement, whose signature was verified.
    pub announce: Announce,
    /// The index of the group key that opened it.
    pub group_key: Option<usize>,
}

/// An opened datagram of the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened<'a> {
    /// What follows the header.
    pub body: &'a [u8],
    /// Whether it was signed or sealed, so that nobody else can have made it. A plain symbol is not.
    pub authentic: bool,
    /// Whether it is authentic and newer than every other datagram of its channel.
    pub newest: bool,
}

/// See the module's description.
#[derive(Debug)]
pub struct ReceiverSide {
    primitives: &'static dyn Primitives,
    session: SessionId,
    sender: SenderKey,
    suite: Suite,
    agreement: AgreementKey,
    membership: Arc<Membership>,
    keys: DeviceKeys,
    /// The replay windows of the group's channel, the device's own, and that of replies.
    windows: [ReplayWindow; 3],
    transcript: Transcript,
    own_channel: ChannelId,
}

/// Why a datagram announces no session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FindError {
    /// It is no announcement, not meant for this device, damaged or forged.
    Ignored,
    /// This sender has signed an announcement that requires something that this program does not have.
    NotUnderstood(SenderKey, DecodeError),
    /// The announcement requires another signature algorithm, so its signature cannot be checked.
    SignedOtherwise(DecodeError),
}

/// As [`examine`], without the reason.
#[must_use]
pub fn find(
    primitives: &dyn Primitives,
    groups: &[Secret],
    head: &Head,
    datagram: &mut [u8],
) -> Option<Found> {
    examine(primitives, groups, head, datagram).ok()
}

/// Opens and verifies the announcement of an unknown session. With group keys, only sealed announcements
/// count. The caller bounds the number of calls: each takes some 40 us.
///
/// # Errors
/// If it is no such announcement, or none that this program understands.
pub fn examine(
    primitives: &dyn Primitives,
    groups: &[Secret],
    head: &Head,
    datagram: &mut [u8],
) -> Result<Found, FindError> {
    if head.kind != MessageKind::Announce {
        return Err(FindError::Ignored);
    }
    let suite = match head.protection {
        Protection::Signed if groups.is_empty() => {
            let announce = verified_announce(primitives, head, datagram, &group_identity(None))?;
            return Ok(Found { announce, group_key: None });
        }
        Protection::Group(suite) => suite,
        _ => return Err(FindError::Ignored),
    };
    for (i, group) in groups.iter().enumerate() {
        // Opening in place destroys a datagram that does not open.
        let mut copy = datagram.to_vec();
        let key = announce_key(group, suite, head.header.session);
        if let Some(len) =
            open(&key, head.header.packet_number.0, HEADER_LEN, &mut copy).map(|body| HEADER_LEN + body.len())
        {
            let announce = verified_announce(primitives, head, &copy[..len], &group_identity(Some(group)))?;
            return Ok(Found { announce, group_key: Some(i) });
        }
    }
    Err(FindError::Ignored)
}

/// Verifies an unsealed announcement: it is signed by the key that it names, for this group, and its session
/// identifier follows from its fields.
fn verified_announce(
    primitives: &dyn Primitives,
    head: &Head,
    datagram: &[u8],
    group: &GroupIdentity,
) -> Result<Announce, FindError> {
    let (plain, signature) = datagram.split_last_chunk::<SIGNATURE_LEN>().ok_or(FindError::Ignored)?;
    let body = plain.get(HEADER_LEN..).ok_or(FindError::Ignored)?;
    let signed_by = |key| primitives.verify(&key, Purpose::Datagram, &[plain, group], signature);
    match decode_body(head.kind, body) {
        Ok(Message::Announce(announce)) => {
            let session = session_id(&announce.sender, &announce.agreement, announce.counter);
            let sound = session == head.header.session && signed_by(announce.sender);
            sound.then_some(announce).ok_or(FindError::Ignored)
        }
        Err(error) if error.is_not_understood() => match wire::signer(body) {
            Some(key) if signed_by(key) => Err(FindError::NotUnderstood(key, error)),
            Some(_) => Err(FindError::Ignored),
            None => Err(FindError::SignedOtherwise(error)),
        },
        _ => Err(FindError::Ignored),
    }
}

impl ReceiverSide {
    /// Takes part in the session of an announcement from [`find`]. `None` if its agreement key is unusable.
    /// `random` is drawn for this session and used for nothing else.
    #[must_use]
    pub fn new(
        primitives: &'static dyn Primitives,
        session: SessionId,
        announce: &Announce,
        group: Option<&Secret>,
        random: [u8; 32],
    ) -> Option<Self> {
        let agreement = Agreement::new(primitives, Secret::new(random));
        let shared = agreement.shared(&announce.agreement)?;
        let membership = Arc::new(Membership::new(group, announce.suite, session, &announce.sender));
        let own = agreement.public();
        let transcript = transcript(announce);
        let keys =
            DeviceKeys::new(&shared, &membership, announce.suite, (&announce.agreement, &own), &transcript);
        Some(Self {
            primitives,
            session,
            sender: announce.sender,
            suite: announce.suite,
            agreement: own,
            membership,
            keys,
            windows: Default::default(),
            transcript,
            own_channel: ChannelId::GROUP,
        })
    }

    /// Another device of the same session, whose sender has this half of the agreement. It does not derive anew what all
    /// devices share: the simulated world makes them by the thousand.
    #[cfg(any(test, feature = "sim"))]
    #[must_use]
    pub(crate) fn another(&self, sender: &AgreementKey, random: [u8; 32]) -> Option<Self> {
        let agreement = Agreement::new(self.primitives, Secret::new(random));
        let shared = agreement.shared(sender)?;
        let (own, membership) = (agreement.public(), Arc::clone(&self.membership));
        let keys = DeviceKeys::new(&shared, &membership, self.suite, (sender, &own), &self.transcript);
        let (windows, own_channel) = (Default::default(), ChannelId::GROUP);
        Some(Self { agreement: own, membership, keys, windows, own_channel, ..*self })
    }

    /// The session.
    #[must_use]
    pub const fn session(&self) -> SessionId {
        self.session
    }

    /// The session's sender.
    #[must_use]
    pub const fn sender(&self) -> SenderKey {
        self.sender
    }

    /// Whether a later announcement has the same constant fields.
    #[must_use]
    pub fn agrees(&self, announce: &Announce) -> bool {
        transcript(announce) == self.transcript
    }

    /// This run's agreement key.
    #[must_use]
    pub const fn agreement(&self) -> AgreementKey {
        self.agreement
    }

    /// Whether the group's datagrams are sealed.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        self.membership.seals.is_some()
    }

    /// The device's channel; 0 until it is admitted.
    #[must_use]
    pub const fn own_channel(&self) -> ChannelId {
        self.own_channel
    }

    /// Sets the channel from an ADMIT.
    pub fn admitted(&mut self, channel: ChannelId) {
        self.own_channel = channel;
    }

    /// A JOIN with a cookie.
    #[must_use]
    pub fn join(&self, header: Header, cookie: Cookie, join: Join) -> Vec<u8> {
        self.join_of(header, cookie, &encode(header, &join.into()))
    }

    /// Protects an encoded JOIN.
    pub(crate) fn join_of(&self, header: Header, cookie: Cookie, plain: &[u8]) -> Vec<u8> {
        let mut datagram = plain[..HEADER_LEN].to_vec();
        Protection::Join(self.suite).mark(&mut datagram);
        datagram.extend_from_slice(&self.agreement.0);
        datagram.extend_from_slice(&cookie.0);
        let proof = self.membership.join.proof(&[&datagram[..HEADER_LEN], &self.agreement.0, &cookie.0]);
        datagram.extend_from_slice(&proof);
        datagram.extend_from_slice(&plain[HEADER_LEN..]);
        let clear = clear_len(MessageKind::Join);
        seal(&self.keys.up, header.packet_number.0, clear, &mut datagram);
        datagram
    }

    /// A message from this device, sealed for the sender.
    #[must_use]
    pub fn message(&self, counter: u64, message: &Message<'_>) -> Vec<u8> {
        let packet_number = crate::wire::PacketNumber::new(self.own_channel, counter);
        self.for_sender(encode(Header { session: self.session, packet_number }, message))
    }

    /// Protects an encoded message to the sender.
    pub(crate) fn for_sender(&self, mut datagram: Vec<u8>) -> Vec<u8> {
        let Ok(head) = wire::head(&datagram) else { return datagram };
        Protection::Device(self.suite).mark(&mut datagram);
        seal(&self.keys.up, head.header.packet_number.0, HEADER_LEN, &mut datagram);
        datagram
    }

    fn window(&mut self, channel: ChannelId) -> Option<&mut ReplayWindow> {
        match channel {
            ChannelId::GROUP => Some(&mut self.windows[0]),
            ChannelId::REPLIES => Some(&mut self.windows[2]),
            own if own == self.own_channel => Some(&mut self.windows[1]),
            _ => None,
        }
    }

    /// Opens a datagram of this session and checks its signature. The order is session (the caller's check),
    /// replay window, seal, signature. `may_verify` is called before a signature is checked.
    /// `None` if the datagram is forged, replayed, damaged, or not for this device.
    pub fn open<'a>(
        &mut self,
        head: &Head,
        datagram: &'a mut [u8],
        may_verify: impl FnOnce() -> bool,
    ) -> Option<Opened<'a>> {
        let number = head.header.packet_number;
        let (kind, protection) = (head.kind, head.protection);
        if kind == MessageKind::Symbol && !self.is_sealed() {
            let body = &datagram[HEADER_LEN..];
            let clear = protection == Protection::Clear;
            return clear.then_some(Opened { body, authentic: false, newest: false });
        }
        if !self.window(number.channel())?.is_new(number.counter()) {
            return None;
        }
        let mut authentic = true;
        let len = if protection.is_device() {
            // A message sealed for one device is never of a signed kind, except POLL and ABORT, which exist
            // in both forms.
            let for_one = matches!(
                kind,
                MessageKind::Admit | MessageKind::Poll | MessageKind::Acknowledge | MessageKind::Abort
            );
            if protection != Protection::Device(self.suite) || !for_one {
                return None;
            }
            let body = open(&self.keys.down, number.0, HEADER_LEN, datagram)?;
            HEADER_LEN + body.len()
        } else {
            if protection != to_all(kind, self.is_sealed().then_some(self.suite)) {
                return None;
            }
            let len = match &self.membership.seals {
                Some(group) => {
                    let key = if kind == MessageKind::Announce { &group.announce } else { &*group.stream };
                    HEADER_LEN + open(key, number.0, HEADER_LEN, datagram)?.len()
                }
                None => datagram.len(),
            };
            match kind {
                _ if is_signed(kind) => {
                    if !may_verify() {
                        return None;
                    }
                    let (plain, signature) = datagram[..len].split_last_chunk::<SIGNATURE_LEN>()?;
                    let parts = [plain, &self.membership.identity];
                    let key = &self.sender;
                    if plain.len() < HEADER_LEN
                        || !self.primitives.verify(key, Purpose::Datagram, &parts, signature)
                    {
                        return None;
                    }
                    plain.len()
                }
                // A symbol is checked with its block. A RETRY need not be authentic: the device only returns
                // its cookie.
                MessageKind::Symbol => len,
                MessageKind::Retry => {
                    // Any member can seal a RETRY, so it must not move the window either.
                    authentic = false;
                    len
                }
                _ => return None,
            }
        };
        let mut newest = false;
        if kind == MessageKind::Symbol {
            // Any member can forge a symbol, so it must not push the sender's signed messages out of the
            // window.
            let window = self.window(number.channel())?;
            if number.counter() < window.end() && !window.note(number.counter()) {
                return None;
            }
        } else if authentic {
            let window = self.window(number.channel())?;
            newest = number.counter() >= window.end();
            if !window.note(number.counter()) {
                return None;
            }
        }
        Some(Opened { body: &datagram[HEADER_LEN..len], authentic, newest })
    }
}

#[cfg(test)]
mod tests {
    use super::super::SenderSide;
    use super::*;
    use crate::sim::fakes::announce_of;
    use crate::sim::sham::{self, SHAM};
    use crate::units::{BlockIndex, Counter, Esi};
    use crate::wire::{PacketNumber, Symbol, encode_plain, head};

    #[test]
    fn a_members_forged_symbol_does_not_push_what_the_sender_says_out_of_the_window() {
        let group = Secret::new([5; 32]);
        let sender =
            SenderSide::new(Counter(3), sham::signing_key(1), [1; 32], Suite::default(), Some(&group));
        let session = sender.session();
        let mut side =
            ReceiverSide::new(SHAM, session, &announce_of(&sender), Some(&group), [2; 32]).unwrap();
        let mut hears = |counter, message: Message<'_>| {
            let packet_number = PacketNumber::new(ChannelId::GROUP, counter);
            let mut bytes = sender.to_all(Header { session, packet_number }, &message);
            let head = head(&bytes).unwrap();
            side.open(&head, &mut bytes, || true).is_some()
        };
        let symbol = || Symbol { block: BlockIndex(0), esi: Esi(0), payload: &[7; 64] }.into();
        let announce = || announce_of(&sender).into();
        assert!(hears(10, announce()));
        assert!(hears(PacketNumber::MAX_COUNTER, symbol()));
        assert!(hears(11, announce()));
        // What is sure to be sent already is not taken twice.
        assert!(hears(9, symbol()) && !hears(9, symbol()));
        assert!(!hears(11, announce()));
        assert!(hears(9_000, announce()) && !hears(12, symbol()));
    }

    /// Whoever has the group key can seal a RETRY; nobody signs it.
    #[test]
    fn a_members_forged_retry_does_not_push_what_the_sender_says_out_of_the_window() {
        let group = Secret::new([5; 32]);
        let sender =
            SenderSide::new(Counter(3), sham::signing_key(1), [1; 32], Suite::default(), Some(&group));
        let session = sender.session();
        let announce = announce_of(&sender);
        // The member has the group key and no other.
        let member = Membership::new(Some(&group), Suite::default(), session, &announce.sender);
        let mut side = ReceiverSide::new(SHAM, session, &announce, Some(&group), [2; 32]).unwrap();
        for channel in [ChannelId::GROUP, ChannelId::REPLIES] {
            let packet_number = PacketNumber::new(channel, PacketNumber::MAX_COUNTER);
            let retry = crate::wire::Retry { agreement: AgreementKey([9; 32]), cookie: Cookie::default() };
            let mut forged = encode_plain(Header { session, packet_number }, &retry.into());
            Protection::Group(Suite::default()).mark(&mut forged);
            let key = &member.seals.as_ref().unwrap().stream;
            seal(key, packet_number.0, HEADER_LEN, &mut forged);
            let forged_head = head(&forged).unwrap();
            let _ = side.open(&forged_head, &mut forged, || true);
            let packet_number = PacketNumber::new(channel, 7);
            let mut genuine = sender.to_all(Header { session, packet_number }, &announce.clone().into());
            let genuine_head = head(&genuine).unwrap();
            assert!(side.open(&genuine_head, &mut genuine, || true).is_some(), "channel {channel}");
        }
    }
}
