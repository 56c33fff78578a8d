//! Tells the program its commit, for `mcp --version -v`.
//!
//! `MCP_COMMIT` says it where there is no repository. Otherwise git does, for release builds only: a development build
//! would be made anew after each commit. Sources without either have no commit, and the program says so.

use std::path::Path;
use std::process::Command;

/// What the program is built from.
const SOURCES: [&str; 5] = ["Cargo.toml", "Cargo.lock", "build.rs", "src", "crates"];

fn main() {
    println!("cargo::rerun-if-env-changed=MCP_COMMIT");
    println!("cargo::rerun-if-changed=build.rs");
    let given = std::env::var("MCP_COMMIT").ok().filter(|commit| !commit.is_empty());
    let release = std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    if let Some(commit) = given.or_else(|| if release { committed() } else { None }) {
        println!("cargo::rustc-env=MCP_BUILD_COMMIT={commit}");
    }
}

/// The commit of this repository, and whether the sources differ from it.
fn committed() -> Option<String> {
    // The sources may lie within another project's repository.
    if !git(&["rev-parse", "--show-prefix"])?.is_empty() {
        return None;
    }
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    let changes = git(&[&["status", "--porcelain", "--untracked-files=no", "--"], &SOURCES[..]].concat())?;
    // Git appends to this file when HEAD moves.
    let moves = git(&["rev-parse", "--git-path", "logs/HEAD"])?;
    for path in SOURCES.into_iter().chain([&*moves]).filter(|path| Path::new(path).exists()) {
        println!("cargo::rerun-if-changed={path}");
    }
    Some(if changes.is_empty() { commit } else { format!("{commit}, with changes") })
}

fn git(words: &[&str]) -> Option<String> {
    let output = Command::new("git").args(words).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}
