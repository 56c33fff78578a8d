//! L1: cryptography; for now the digests.

pub mod digest;
