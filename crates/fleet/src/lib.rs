//! The standing half of `mcp`: `mcp serve`, which knows what each device should have, `mcp agent` on every device, and
//! the operator's commands. The async runtime lives in this crate only, so the data plane cannot come to depend on it.

pub mod agent;
mod cause;
pub mod commands;
pub mod ddi;
pub mod documents;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod handlers;
pub mod journal;
pub mod lacking;
pub mod limits;
mod lock;
mod log;
pub mod neighbour;
pub mod objects;
pub mod pin;
pub mod server;
pub mod store;
