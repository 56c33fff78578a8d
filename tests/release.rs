//! What can be said of a release without building one: what the script refuses, and that its users notice a changed file, a
//! changed list and another key. The commands are those of `docs/releasing.md`.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use support::files::TempDir;
use support::{has_program, skip};

const DOCUMENT: &str = include_str!("../docs/releasing.md");

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging").join(name)
}

fn bash(dir: &Path, line: &str) -> Output {
    Command::new("bash").args(["-c", line]).env("HOME", dir).current_dir(dir).output().expect("bash")
}

#[track_caller]
fn must(dir: &Path, line: &str) {
    let output = bash(dir, line);
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The line of the document that begins like this.
#[track_caller]
fn line(beginning: &str) -> &'static str {
    DOCUMENT.lines().find(|line| line.starts_with(beginning)).expect("a line of the document")
}

#[test]
fn who_gets_a_release_notices_what_is_wrong_with_it() {
    if !has_program("ssh-keygen") {
        return skip("no program ssh-keygen");
    }
    let tmp = TempDir::new();
    let (dir, dist) = (tmp.path(), tmp.dir("dist"));
    for (file, text) in [("mcp-1.tar.gz", "sources"), ("mcp-1-static", "program")] {
        fs::write(dist.join(file), text).expect("a file");
    }
    fs::create_dir(dir.join(".ssh")).expect("a directory");
    for key in ["mcp-release", "other"] {
        must(dir, &format!("ssh-keygen -q -t ed25519 -N '' -f .ssh/{key}"));
    }
    let sign = |key: &str| must(dir, &format!("'{}' dist .ssh/{key}", script("sign").display()));
    sign("mcp-release");
    must(dir, line("echo \"mcp-release"));
    fs::copy(dir.join("mcp-release.signers"), dist.join("mcp-release.signers")).expect("the line of the key");
    let signed = || bash(&dist, line("ssh-keygen -Y verify")).status.success();
    let whole = || bash(&dist, line("sha256sum --check")).status.success();
    assert!(signed() && whole());
    // A user has only what is for his machine.
    fs::remove_file(dist.join("mcp-1.tar.gz")).expect("removed");
    assert!(signed() && whole());
    fs::write(dist.join("mcp-1-static"), "prograM").expect("a changed file");
    assert!(signed() && !whole());
    let sums = fs::read_to_string(dist.join("SHA256SUMS")).expect("hashes");
    fs::write(dist.join("SHA256SUMS"), sums.replacen('a', "b", 1)).expect("a changed list");
    assert!(!signed());
    sign("other");
    assert!(whole() && !signed(), "somebody else has signed");
}

#[test]
fn a_release_is_not_made_of_what_nobody_committed_or_signs() {
    for program in ["git", "ssh-keygen"] {
        if !has_program(program) {
            return skip(&format!("no program {program}"));
        }
    }
    let tmp = TempDir::new();
    // A repository of the script's own, and tools that must not run.
    let (dir, bin) = (tmp.dir("repository"), tmp.dir("bin"));
    for tool in ["cargo", "cargo-cyclonedx", "dh", "rpmbuild"] {
        fs::write(bin.join(tool), "#!/bin/sh\nexit 99\n").expect("a tool");
    }
    must(tmp.path(), "chmod +x bin/*; ssh-keygen -q -t ed25519 -N '' -f key");
    must(
        &dir,
        &format!(
            "mkdir packaging; cp '{}' '{}' packaging",
            script("release").display(),
            script("identity").display()
        ),
    );
    must(&dir, "git init -q; git add .; git -c user.name=a -c user.email=a@b commit -qm a");
    let path = |bin: &Path| format!("PATH='{}':/usr/bin:/bin", bin.display());
    let refuses = |line: &str, code: i32, why: &str| {
        let output = bash(&dir, line);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(code) && said.contains(why), "{line}: {said}");
    };
    let release = format!("{} packaging/release", path(&bin));
    refuses(&format!("{release} ../dist"), 2, "usage: packaging/release DIR KEY");
    refuses(&format!("{release} ../dist ../nokey"), 1, "there is no key ../nokey");
    refuses(&format!("{} packaging/release ../dist ../key", path(&tmp.dir("none"))), 1, "is missing");
    refuses(&format!("{release} ../bin ../key"), 1, "../bin is not empty");
    must(&dir, "touch forgotten");
    refuses(&format!("{release} ../dist ../key"), 1, "not as they are in the commit");
    must(&dir, "rm forgotten; echo >>packaging/identity");
    refuses(&format!("{release} ../dist ../key"), 1, "not as they are in the commit");
}
