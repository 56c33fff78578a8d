//! L1: forward error correction; the only user of the `raptorq` crate (RFC 6330).

mod assembly;
mod codec;

pub use assembly::{Added, BlockAssembly};
pub use codec::{Encoder, PlanCache};
