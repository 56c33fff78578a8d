//! L1: forward error correction; the only user of the `raptorq` crate (RFC 6330).
//!
//! ```text
//!  sender     block --> Encoder::repair(first, count) --> repair symbols
//!                          ^ plans by K (PlanCache)
//!  receiver   symbols --> BlockAssembly::add --> deficit() == 0 --> complete() --> bytes()
//!                             |        ^
//!                 spans_to_spill()   buffer_mut(), filled by spilled_runs()
//!                             v        |
//!                            the part file (not our business here)
//! ```
//!
//! `raptorq` panics on symbols it does not expect. Nothing reaches it here that an assembly has
//! not checked before: ids below 2^24, each once, payloads of one symbol.

mod assembly;
mod buffer;
mod codec;
mod complete;
mod likely;
mod syndrome;

pub use assembly::{Added, BlockAssembly};
pub use buffer::Buffer;
pub use codec::{Encoder, PlanCache};
pub use complete::Undecodable;
pub use likely::Likely;

#[cfg(test)]
mod tests;
