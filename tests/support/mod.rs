//! Helpers of the tests with the real binary: files, processes, and a lab of network namespaces.
//!
//! No traffic leaves the machine: it runs over `lo`, or inside namespaces that are made for one test and
//! removed with it.
#![allow(dead_code, reason = "every test binary compiles this module and uses its own part of it")]

pub mod files;
pub mod fleet;
pub mod inject;
pub mod junk;
pub mod lab;
pub mod loops;
pub mod mcp;
pub mod measure;
pub mod process;
pub mod site;
pub mod traced;

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// The processor cores, which the tests of one program share.
static CORES: RwLock<()> = RwLock::new(());

/// Has all cores while the guard lives: for a test that would measure its neighbours too.
pub fn alone() -> RwLockWriteGuard<'static, ()> {
    CORES.write().unwrap_or_else(PoisonError::into_inner)
}

/// Shares the cores with other tests that mostly wait.
pub fn beside_others() -> RwLockReadGuard<'static, ()> {
    CORES.read().unwrap_or_else(PoisonError::into_inner)
}

/// Tells a thread to stop when it is dropped, also by a panic: a scope would wait for the thread for ever.
pub struct StopOnDrop<'a>(pub &'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Reports that a test is skipped, and why, on standard error directly, which the test harness does not
/// capture. With `MCP_TESTS_MUST_RUN` set, as in continuous integration, a skipped test fails.
pub fn skip(why: &str) {
    assert!(std::env::var_os("MCP_TESTS_MUST_RUN").is_none(), "would be skipped: {why}");
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
}

/// Whether this process runs as root, without calling libc.
pub fn is_root() -> bool {
    std::fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|s| s.lines().find_map(|l| l.strip_prefix("Uid:").map(str::to_owned)))
        .is_some_and(|uids| uids.split_whitespace().nth(1) == Some("0"))
}

/// Whether a program is on the search path.
pub fn has_program(name: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(name).is_file()))
}
