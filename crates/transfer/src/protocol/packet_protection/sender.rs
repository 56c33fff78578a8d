//! The sender's side: signs, seals for the group, and seals for and opens from each device.

use super::{
    DeviceKeys, Membership, Transcript, clear_len, context, encode, is_signed, open, seal, session_id,
    to_all, transcript,
};
use crate::crypto::agree::Agreement;
use crate::crypto::derive::{Secret, same};
use crate::crypto::primitives::Primitives;
use crate::crypto::seal::SealKey;
use crate::crypto::sign::{Purpose, SigningKey};
use crate::limits::{HEADER_LEN, JOIN_CLEAR};
use crate::units::{AgreementKey, Cookie, Counter, SenderKey, SessionId, Suite, Ticket};
use crate::wire::{self, Announce, Head, Header, Message, MessageKind, Protection, grease_datagram};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// The seal of symbols.
#[derive(Clone, Debug)]
pub struct SymbolSeal {
    /// The key for datagrams to the group.
    pub key: Arc<SealKey>,
    /// The protection in their headers.
    pub protection: Protection,
}

/// See the module's description.
#[derive(Debug)]
pub struct SenderSide {
    pub(crate) session: SessionId,
    counter: Counter,
    signing_key: SigningKey,
    agreement: Agreement,
    suite: Suite,
    pub(crate) membership: Membership,
    secret: Secret,
    cookies: Secret,
    transcript: Transcript,
}

/// The clear part of a JOIN.
#[derive(Clone, Copy, Debug)]
pub struct JoinClear {
    /// The device's agreement key.
    pub agreement: AgreementKey,
    /// Whether its cookie is the one for the address that it came from.
    pub reachable: bool,
}

impl SenderSide {
    /// The sender's side of a session. `random` is drawn for it and used for nothing else. Call
    /// [`SenderSide::announce`] next.
    #[must_use]
    pub fn new(
        counter: Counter,
        signing_key: SigningKey,
        random: [u8; 32],
        suite: Suite,
        group: Option<&Secret>,
    ) -> Self {
        let secret = Secret::new(random);
        let agreement = Agreement::new(signing_key.primitives(), secret.derive(context::AGREEMENT, &[]));
        let session = session_id(&signing_key.public(), &agreement.public(), counter);
        let membership = Membership::new(group, suite, session, &signing_key.public());
        let cookies = secret.derive(context::COOKIE, &[]);
        let transcript = Transcript::default();
        Self { session, counter, signing_key, agreement, suite, membership, secret, cookies, transcript }
    }

    /// Binds the keys of all devices that join from now on to the announcement's constant fields.
    pub fn announce(&mut self, announce: &Announce) {
        self.transcript = transcript(announce);
    }

    /// The session counter.
    #[must_use]
    pub const fn counter(&self) -> Counter {
        self.counter
    }

    /// The ticket of the device with this agreement key.
    #[must_use]
    pub fn ticket(&self, device: &AgreementKey) -> Ticket {
        Ticket(self.secret.derive(context::TICKET, &[]).proof(&[&device.0]))
    }

    /// The sender's key.
    #[must_use]
    pub fn key(&self) -> SenderKey {
        self.signing_key.public()
    }

    /// Checks signatures.
    #[must_use]
    pub fn primitives(&self) -> &'static dyn Primitives {
        self.signing_key.primitives()
    }
    /// The session's agreement key.
    #[must_use]
    pub const fn agreement(&self) -> AgreementKey {
        self.agreement.public()
    }

    /// The AEAD of all seals.
    #[must_use]
    pub const fn suite(&self) -> Suite {
        self.suite
    }

    /// The seal of the group's symbols, if the session has a group key.
    #[must_use]
    pub fn symbols(&self) -> Option<SymbolSeal> {
        let seals = self.membership.seals.as_ref()?;
        Some(SymbolSeal { key: Arc::clone(&seals.stream), protection: Protection::Group(self.suite) })
    }

    /// Encodes and protects a message that is not sealed for one device.
    #[must_use]
    pub fn to_all(&self, header: Header, message: &Message<'_>) -> Vec<u8> {
        self.for_all(encode(header, message))
    }

    /// Protects an encoded message that is not sealed for one device.
    pub(crate) fn for_all(&self, mut datagram: Vec<u8>) -> Vec<u8> {
        let Ok(head) = wire::head(&datagram) else { return datagram };
        to_all(head.kind, self.membership.seals.as_ref().map(|_| self.suite)).mark(&mut datagram);
        if is_signed(head.kind) {
            let parts = [&datagram[..], &self.membership.identity];
            let signature = self.signing_key.sign(Purpose::Datagram, &parts);
            datagram.extend_from_slice(&signature);
        }
        if let Some(seals) = &self.membership.seals {
            let key = if head.kind == MessageKind::Announce { &seals.announce } else { &*seals.stream };
            seal(key, head.header.packet_number.0, HEADER_LEN, &mut datagram);
        }
        datagram
    }

    /// A grease datagram, protected like a symbol.
    #[must_use]
    pub fn grease(&self, header: Header) -> Vec<u8> {
        let mut datagram = grease_datagram(header, header.packet_number.counter());
        if let Some(seals) = &self.membership.seals {
            Protection::Group(self.suite).mark(&mut datagram);
            seal(&seals.stream, header.packet_number.0, HEADER_LEN, &mut datagram);
        }
        datagram
    }

    /// Encodes a message and seals it for the device with these keys.
    #[must_use]
    pub fn to_one(&self, keys: &DeviceKeys, header: Header, message: &Message<'_>) -> Vec<u8> {
        self.for_one(keys, encode(header, message))
    }

    /// Seals an encoded message for one device.
    pub(crate) fn for_one(&self, keys: &DeviceKeys, mut datagram: Vec<u8>) -> Vec<u8> {
        let Ok(head) = wire::head(&datagram) else { return datagram };
        Protection::Device(self.suite).mark(&mut datagram);
        seal(&keys.down, head.header.packet_number.0, HEADER_LEN, &mut datagram);
        datagram
    }

    /// The cookie of a device at an address.
    #[must_use]
    pub fn cookie(&self, at: SocketAddr, device: &AgreementKey) -> Cookie {
        Cookie(self.cookies.proof(&[&octets(at.ip()), &at.port().to_be_bytes(), &device.0]))
    }

    /// A number for an address that strangers cannot foresee: by it, addresses get their part of what strangers
    /// may have.
    #[must_use]
    pub fn place(&self, ip: IpAddr) -> u16 {
        let [high, low, ..] = self.cookies.proof(&[b"place", &octets(ip)]);
        u16::from_be_bytes([high, low])
    }

    /// Reads the clear part of a JOIN. `None` if it is too short or does not prove the group key. Costs two
    /// short hashes, which is all that an unknown device can cause.
    #[must_use]
    pub fn join_clear(&self, from: SocketAddr, datagram: &[u8]) -> Option<JoinClear> {
        let (header, rest) = datagram.split_first_chunk::<HEADER_LEN>()?;
        let (agreement, rest) = rest.split_first_chunk::<32>()?;
        let (cookie, rest) = rest.split_first_chunk::<16>()?;
        let (proof, _) = rest.split_first_chunk::<16>()?;
        if !same(proof, &self.membership.join.proof(&[header, agreement, cookie])) {
            return None;
        }
        let agreement = AgreementKey(*agreement);
        let reachable = same(cookie, &self.cookie(from, &agreement).0);
        Some(JoinClear { agreement, reachable })
    }

    /// Agrees on keys with a device, which takes some 40 us. `None` if its key is unusable.
    #[must_use]
    pub fn agree(&self, device: &AgreementKey) -> Option<DeviceKeys> {
        let shared = self.agreement.shared(device)?;
        Some(DeviceKeys::new(
            &shared,
            &self.membership,
            self.suite,
            (&self.agreement(), device),
            &self.transcript,
        ))
    }

    /// Opens a datagram from the device with these keys, a JOIN included. Returns its body if it is valid.
    #[must_use]
    pub fn from_one<'a>(keys: &DeviceKeys, head: &Head, datagram: &'a mut [u8]) -> Option<&'a [u8]> {
        let expected = match head.kind {
            MessageKind::Join => Protection::Join(keys.suite),
            _ => Protection::Device(keys.suite),
        };
        if head.protection != expected {
            return None;
        }
        open(&keys.up, head.header.packet_number.0, clear_len(head.kind), datagram).map(|body| &*body)
    }

    /// The session.
    #[must_use]
    pub const fn session(&self) -> SessionId {
        self.session
    }
}

fn octets(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

const _: () = assert!(JOIN_CLEAR == 32 + 16 + 16);
