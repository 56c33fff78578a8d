//! The data plane of `mcp`: everything that copies the same bytes to many machines at once, by multicast.
//! `docs/architecture.md` has the layers of these modules; [`session`] is the way to use them from another program.
//!
//! Nothing here knows of the command line, of the terminal or of the standing half, and no async runtime may get in
//! (`docs/decisions/0033-crates.md`).

#[cfg(not(target_os = "linux"))]
compile_error!(
    "mcp runs on Linux; docs/decisions/0019-what-earns-its-lines.md says where a port would begin"
);

pub mod limits;
pub mod ranges;
pub mod text;
pub mod time;
pub mod units;

pub mod content;
pub mod crypto;
pub mod fec;
pub mod layout;
pub mod pacing;
pub mod pack;
pub mod task;
pub mod wire;

pub mod protocol;

pub mod command;
pub mod keyring;
pub mod net;
pub mod storage;
pub mod store;

pub mod engine;
pub mod session;

#[cfg(any(test, feature = "sim"))]
pub mod fuzzing;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
