//! The device's handlers: what a task may run here, and how it is run.
//!
//! The administrator of a machine allows programs by manifests in `/etc/mcp/handlers.d` (`manifest`, opened as `trusted`
//! says). A signed task names one and gives it typed arguments (`arguments`) and a verified object (`object`). It runs
//! without a shell, in namespaces of its own, confined and limited (`sandbox`, `cgroup`), below a helper process (`exec`)
//! that the agent starts and watches (`launch`). [`Runner`] brings this together with the journal, so that each step
//! happens once. Without a manifest nothing runs: then a device only copies.

mod arguments;
mod cgroup;
mod exec;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod launch;
mod manifest;
mod message;
mod object;
mod output;
mod runner;
mod sandbox;
mod trusted;

pub use arguments::Values;
pub use exec::main as exec_main;
pub use launch::{Canceller, Helper};
pub use manifest::{Cancel, Interrupted, Manifest, is_name};
pub use object::ObjectFile;
pub use runner::{Config, Job, Listed, Recovered, Report, Runner};
pub use sandbox::{has_landlock, has_seccomp};

/// Where handlers are described by default.
pub const DIRECTORY: &str = "/etc/mcp/handlers.d";
