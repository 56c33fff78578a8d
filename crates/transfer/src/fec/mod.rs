//! L1: forward error correction; the only user of the `raptorq` crate (RFC 6330). It holds the encoder,
//! coding with few symbols (`few`), the assembly of received blocks (`assembly`, `complete`), and block buffers (`buffer`),
//! which begin at pages unless other memory is given to them. It does no I/O.
//!
//! ```text
//!  sender     block --> repair(first, count) --> repair symbols
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
mod few;
mod octets;
mod simd;

pub use assembly::{Added, BlockAssembly};
pub use buffer::{Buffer, Memory, OwnMemory, Slots};
pub use codec::{Encoder, PlanCache, repair_once};
pub use complete::Undecodable;
pub use few::repair;

#[cfg(test)]
mod tests;
