//! L1: cryptography, every primitive from a reviewed crate.
//!
//! - `digest`: BLAKE3 of the object by its blocks. `derive`: keys from secrets (BLAKE3's KDF).
//! - `sign`: who the sender is (Ed25519). `agree`: a secret that two share (X25519).
//! - `seal`: one datagram kept secret and unforged (AES-256-GCM or ChaCha20-Poly1305).
//! - `window`: packet numbers that have been seen.

pub mod agree;
pub mod derive;
pub mod digest;
pub mod seal;
pub mod sign;
pub mod window;
