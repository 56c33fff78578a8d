//! `mcp` copies the same bytes to many machines at once, by multicast. This crate is what a user touches: arguments,
//! bars, events and exit codes. The copying is done by [`mcp_transfer`], whose modules it offers under its own name;
//! `docs/architecture.md` has the layers, and [`session`] is the way to use them from another program.

pub use mcp_transfer::{
    command, content, crypto, engine, fec, keyring, layout, limits, net, pacing, pack, protocol, ranges,
    session, storage, store, task, text, time, units, wire,
};

pub mod cli;
pub mod doctor;
pub mod ui;

#[cfg(any(test, feature = "sim"))]
pub mod agreement;
#[cfg(any(test, feature = "sim"))]
pub use mcp_transfer::{fuzzing, sim};
