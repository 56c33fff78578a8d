//! L1: cryptography. Every primitive is from a reviewed crate. `protocol` uses it to protect packets,
//! `keyring` to store keys.
//!
//! - `digest`: BLAKE3 of the object from its blocks. `derive`: keys from secrets (BLAKE3's KDF).
//! - `sign`: signatures of a sender (Ed25519). `agree`: key agreement of two sides (X25519).
//! - `seal`: authenticated encryption of one datagram (AES-256-GCM or ChaCha20-Poly1305).
//! - `window`: replay protection by packet numbers.
//! - `group`, `sender`: keys as text that people carry (`key_text`: its coding and check).

pub mod agree;
pub mod derive;
pub mod digest;
pub mod group;
mod key_text;
pub mod seal;
pub mod sender;
pub mod sign;
pub mod window;

pub use key_text::LineError;
