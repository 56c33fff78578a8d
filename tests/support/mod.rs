//! What the tests through the real binary share: files, processes, and a lab of network namespaces.
//!
//! Nothing here leaves the machine: traffic runs over `lo` or inside namespaces that are made for
//! one test and removed with it.
#![allow(dead_code, reason = "every test binary compiles this module and uses its own part of it")]

pub mod files;
pub mod inject;
pub mod junk;
pub mod lab;
pub mod mcp;
pub mod measure;
pub mod process;

use std::io::Write;

/// Says out loud that a test does not run, and why: straight to standard error, which the test
/// harness does not swallow. With `MCP_TESTS_MUST_RUN` set, as a continuous build should have it,
/// a skipped test is a failed one.
pub fn skip(why: &str) {
    assert!(std::env::var_os("MCP_TESTS_MUST_RUN").is_none(), "would be skipped: {why}");
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
}

/// Whether this process has root's rights, without asking libc.
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
