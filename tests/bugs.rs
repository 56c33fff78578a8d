//! Deliberate bugs: each patch in `tests/bugs` undoes one defence, and the simulated world has to find it within a
//! thousand seeds.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use support::files::TempDir;

/// Seeds within which each bug is caught.
const SEEDS: &str = "0..1000";

/// Each patch, and what the world says of it.
const BUGS: [(&str, &str); 6] = [
    ("join-without-cookie", "amplification: "),
    ("block-without-its-hash", "I1: "),
    ("complete-before-the-sync", "I2: "),
    ("stranger-taken", "it should be complete: "),
    ("time-never-up", "I5: "),
    ("answers-without-shares", "RETRYs in a second to "),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn patch(name: &str) -> PathBuf {
    root().join("tests/bugs").join(name).with_extension("patch")
}

/// `git apply`, which works without a repository too.
fn apply(tree: &Path, name: &str, how: &[&str]) -> Output {
    let mut command = Command::new("git");
    command.current_dir(tree).env("GIT_CEILING_DIRECTORIES", tree.parent().unwrap_or(tree));
    command.arg("apply").args(how).arg(patch(name)).output().expect("git runs")
}

fn assert_done(what: &str, output: &Output) {
    assert!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
}

fn copy(from: &Path, to: &Path) {
    if !from.is_dir() {
        fs::copy(from, to).expect("copy");
        return;
    }
    fs::create_dir_all(to).expect("make a directory");
    for entry in fs::read_dir(from).expect("a directory") {
        let name = entry.expect("an entry").file_name();
        copy(&from.join(&name), &to.join(&name));
    }
}

/// A copy of all that is needed to build the runner.
fn copy_tree(to: &Path) {
    fs::create_dir_all(to).expect("make a directory");
    for part in ["Cargo.toml", "Cargo.lock", "README.md", "src", "crates", "examples", "benches"] {
        copy(&root().join(part), &to.join(part));
    }
}

#[test]
fn each_patch_still_applies_and_is_known() {
    let mut there: Vec<String> = fs::read_dir(root().join("tests/bugs"))
        .expect("the patches")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("a plain name"))
        .collect();
    there.sort();
    let mut known = BUGS.map(|(name, _)| format!("{name}.patch"));
    known.sort();
    assert_eq!(there, known);
    for (name, _) in BUGS {
        assert_done(name, &apply(root(), name, &["--check"]));
    }
}

#[test]
#[ignore = "builds the program once for each bug: minutes"]
fn each_bug_is_caught_within_a_thousand_seeds() {
    let tmp = TempDir::new();
    let tree = tmp.join("tree");
    copy_tree(&tree);
    for (name, words) in BUGS {
        assert_done(name, &apply(&tree, name, &[]));
        let cargo = Command::new(env!("CARGO"))
            .current_dir(&tree)
            .env("CARGO_TARGET_DIR", tmp.join("target"))
            .args(["run", "--release", "--features", "sim", "--example", "simulate", "--"])
            .args(["--seeds", SEEDS, "--show", "1000"])
            .output()
            .expect("cargo runs");
        let said = String::from_utf8_lossy(&cargo.stderr);
        let caught = said.lines().filter(|line| line.starts_with("seed ") && line.contains(words)).count();
        assert!(!cargo.status.success() && caught > 0, "{name} is not caught: {said}");
        println!("{name}: caught by {caught} of {SEEDS}");
        assert_done(name, &apply(&tree, name, &["-R"]));
    }
}
