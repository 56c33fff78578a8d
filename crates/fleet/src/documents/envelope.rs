//! The envelope: exact payload bytes and signatures over them. Like DSSE, it needs no canonical JSON.
//!
//! A signature covers `mcp document v1 KIND LENGTH PAYLOAD`, where KIND is `task`, `list`, `root`, `request` or `join` and LENGTH the decimal
//! number of payload bytes. So a signature of one kind of document is none of another kind.

use super::keys::{Hash, PublicKey, SIGNATURE_LEN, SecretKey};
use super::refusal::{DocumentError, Refusal};
use super::root::Role;
use crate::limits::{MAX_ENVELOPE, MAX_SIGNATURES};
use data_encoding::{BASE64, BASE64URL_NOPAD};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// What a payload is. Part of what is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A task, by operators.
    Task,
    /// A list, by the server.
    List,
    /// A root.
    Root,
    /// An operator's request to the server.
    Request,
    /// A device's request to join.
    Join,
}

impl Kind {
    /// Its name in signatures and messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Task => "task",
            Self::List => "list",
            Self::Root => "root",
            Self::Request => "request",
            Self::Join => "join",
        }
    }
}

/// A payload with its signatures. That it exists says nothing about their validity: see [`Envelope::signers`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    payload: Vec<u8>,
    signatures: Vec<(PublicKey, [u8; SIGNATURE_LEN])>,
}

#[derive(Serialize, Deserialize)]
struct Text {
    payload: String,
    signatures: Vec<SignatureText>,
}

#[derive(Serialize, Deserialize)]
struct SignatureText {
    keyid: String,
    sig: String,
}

impl Envelope {
    /// Puts `payload` into an envelope without signatures.
    #[must_use]
    pub fn unsigned(payload: Vec<u8>) -> Self {
        Self { payload, signatures: Vec::new() }
    }

    /// Parses an envelope from its JSON.
    ///
    /// Signatures with a key identifier that is no Ed25519 key, or of another length, are dropped: they may be of an algorithm
    /// that a later version knows.
    ///
    /// # Errors
    /// If it is too large, has too many signatures, or cannot be read.
    pub fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        if bytes.len() > MAX_ENVELOPE {
            return Err(DocumentError::TooLarge { what: "envelope", limit: MAX_ENVELOPE });
        }
        let text: Text =
            serde_json::from_slice(bytes).map_err(|_| DocumentError::Unreadable("an envelope"))?;
        if text.signatures.len() > MAX_SIGNATURES {
            return Err(DocumentError::TooLarge { what: "number of signatures", limit: MAX_SIGNATURES });
        }
        let payload = BASE64.decode(text.payload.as_bytes());
        let payload = payload.map_err(|_| DocumentError::Unreadable("an envelope's payload"))?;
        let read = |s: SignatureText| {
            let signature = BASE64.decode(s.sig.as_bytes()).ok()?.try_into().ok()?;
            Some((s.keyid.parse().ok()?, signature))
        };
        Ok(Self { payload, signatures: text.signatures.into_iter().filter_map(read).collect() })
    }

    /// Parses the base64url of an envelope's JSON, without padding: the value of the metadata `mcp.task`.
    ///
    /// # Errors
    /// As [`Envelope::parse`].
    pub fn from_metadata(text: &str) -> Result<Self, DocumentError> {
        // Before it is decoded into memory.
        if text.len() > MAX_ENVELOPE.div_ceil(3) * 4 {
            return Err(DocumentError::TooLarge { what: "envelope", limit: MAX_ENVELOPE });
        }
        let bytes = BASE64URL_NOPAD.decode(text.trim_end_matches('=').as_bytes());
        Self::parse(&bytes.map_err(|_| DocumentError::Unreadable("an envelope's base64url"))?)
    }

    /// The JSON that [`Envelope::parse`] reads.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let signature = |(key, signature): &(PublicKey, [u8; SIGNATURE_LEN])| SignatureText {
            keyid: key.to_string(),
            sig: BASE64.encode(signature),
        };
        let text = Text {
            payload: BASE64.encode(&self.payload),
            signatures: self.signatures.iter().map(signature).collect(),
        };
        // A structure of strings always has a JSON.
        serde_json::to_vec(&text).unwrap_or_default()
    }

    /// The text that [`Envelope::from_metadata`] reads.
    #[must_use]
    pub fn to_metadata(&self) -> String {
        BASE64URL_NOPAD.encode(&self.to_bytes())
    }

    /// The payload, signed or not.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// The BLAKE3 hash of the payload. It names the document: further signatures do not change it.
    #[must_use]
    pub fn hash(&self) -> Hash {
        Hash::of(&self.payload)
    }

    /// Adds the signature of `key` as a document of this kind; replaces an earlier one of the same key.
    pub fn sign(&mut self, kind: Kind, key: &SecretKey) {
        let signature = key.sign(&signed_bytes(kind, &self.payload));
        self.signatures.retain(|(public, _)| *public != key.public());
        self.signatures.push((key.public(), signature));
    }

    /// The distinct keys whose signature of this payload, as a document of this kind, is valid.
    #[must_use]
    pub fn signers(&self, kind: Kind) -> BTreeSet<PublicKey> {
        let message = signed_bytes(kind, &self.payload);
        let valid = |(key, signature): &&(PublicKey, _)| key.verifies(&message, signature);
        self.signatures.iter().filter(valid).map(|(key, _)| *key).collect()
    }

    /// The key that signed this document, if exactly one did and the signature is valid. Costs one check, however many signatures a stranger
    /// puts into an envelope.
    #[must_use]
    pub fn sole_signer(&self, kind: Kind) -> Option<PublicKey> {
        let [(key, signature)] = &self.signatures[..] else { return None };
        key.verifies(&signed_bytes(kind, &self.payload), signature).then_some(*key)
    }

    /// The keys of `role` that signed this document, if they reach its threshold.
    ///
    /// # Errors
    /// If fewer distinct keys of the role signed it.
    pub(super) fn signed_by(&self, kind: Kind, role: &Role) -> Result<BTreeSet<PublicKey>, Refusal> {
        let signers: BTreeSet<_> = self.signers(kind).intersection(&role.keys).copied().collect();
        if role.accepts(&signers) {
            return Ok(signers);
        }
        Err(Refusal::Signatures { kind, valid: signers.len(), threshold: role.threshold })
    }
}

fn signed_bytes(kind: Kind, payload: &[u8]) -> Vec<u8> {
    let mut bytes = format!("mcp document v1 {} {} ", kind.name(), payload.len()).into_bytes();
    bytes.extend_from_slice(payload);
    bytes
}
