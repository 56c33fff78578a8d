//! What devices that serve others and the server say to each other, and the tokens by which a device lets its neighbours load.

use crate::documents::Hash;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// What a device offers to its neighbours, as it tells the server.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// Where it listens; absent if that is the address that the server sees.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// The port.
    pub port: u16,
    /// SHA-256 of its certificate's SubjectPublicKeyInfo.
    pub pin: Hash,
    /// What its tokens are made with. Secret.
    pub key: Hash,
    /// The objects.
    pub objects: Vec<Hash>,
}

/// A device that has an object, as the server names it to another.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Neighbour {
    /// Where it listens.
    pub address: SocketAddr,
    /// SHA-256 of its certificate's SubjectPublicKeyInfo.
    pub pin: Hash,
    /// Lets whoever has it load this object. Secret.
    pub token: Hash,
}

/// The answer to a device that asks for neighbours.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Near {
    /// The devices.
    pub neighbours: Vec<Neighbour>,
}

/// The token for an object: a MAC of its hash, which only the serving device and the server can make.
#[must_use]
pub fn token(key: &Hash, object: &Hash) -> blake3::Hash {
    blake3::keyed_hash(&key.0, &object.0)
}

impl fmt::Debug for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, port, pin, key: _, objects } = self;
        f.debug_struct("Offer")
            .field("address", address)
            .field("port", port)
            .field("pin", pin)
            .field("objects", objects)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Neighbour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, pin, token: _ } = self;
        f.debug_struct("Neighbour").field("address", address).field("pin", pin).finish_non_exhaustive()
    }
}
