//! L1: forward error correction; the only user of the `raptorq` crate (RFC 6330). It holds the encoder,
//! the assembly of received blocks (`assembly`, `complete`), page-aligned block buffers (`buffer`), and
//! for simulation, buffers that record only where they differ from the expected object (`likely`). It
//! does no I/O.
//!
//! ```text
//!  sender     block --> Encoder::repair(first, count) --> repair symbols
//!                          ^ plans by K (PlanCache)
//!  receiver   symbols --> BlockAssembly::add --> deficit() == 0 --> complete() --> bytes()
//!                             |        ^
//!                 spans_to_spill()   buffer_mut(), filled by spilled_runs()
//!                             v        |
//!                            the part file (of the caller)
//! ```
//!
//! `raptorq` panics on unexpected symbols. An assembly checks every symbol before `raptorq` gets it: ids
//! below 2^24, each id once, payloads of one symbol.

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
