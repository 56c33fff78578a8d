//! L1: cryptography. Every primitive is from a reviewed crate. `protocol` uses it to protect packets,
//! `keyring` to store keys.
//!
//! - `digest`: BLAKE3 of the object by its blocks. `derive`: keys from secrets (BLAKE3's KDF).
//! - `sign`: who the sender is (Ed25519). `agree`: a secret that two share (X25519). `primitives`: both as
//!   a port.
//! - `origin`: who made an object, whoever sends it.
//! - `seal`: one datagram kept secret and unforged (AES-256-GCM or ChaCha20-Poly1305).
//! - `window`: packet numbers that have been seen.
//! - `device`: who a device is, and what it signs to say so.
//! - `group`, `sender`, `device`: keys as text that people carry (`key_text`: how it is written and checked).

pub mod agree;
pub mod derive;
pub mod device;
pub mod digest;
pub mod group;
mod key_text;
pub mod origin;
pub mod primitives;
pub mod seal;
pub mod sender;
pub mod sign;
pub mod window;

pub use key_text::LineError;
