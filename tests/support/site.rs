//! Sites whose machines run the lines of a document as they stand there.

use super::files::TempDir;
use super::lab::Lab;
use super::mcp::MCP;
use super::process::{Cmd, Proc};
use super::{has_program, is_root, skip};
use std::process::Command;

/// Runs a script that must succeed, and returns what it prints.
#[track_caller]
pub fn must(script: &str) -> String {
    let output =
        Command::new("bash").args(["-c", &format!("set -euo pipefail; {script}")]).output().expect("bash");
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    assert!(output.status.success(), "{script}: {text} {}", String::from_utf8_lossy(&output.stderr));
    text
}

/// Hosts in namespaces, each with a state directory of its own, and the document whose lines they run.
pub struct Site {
    pub lab: Lab,
    pub tmp: TempDir,
    document: &'static str,
}

impl Site {
    pub fn new(document: &'static str, hosts: usize, programs: &[&str]) -> Option<Self> {
        if let Some(missing) = programs.iter().find(|program| !has_program(program)) {
            skip(&format!("no program {missing}"));
            return None;
        }
        if !is_root() {
            skip("namespaces and loop devices need root");
            return None;
        }
        let (lab, tmp) = (Lab::new(hosts)?, TempDir::new());
        std::os::unix::fs::symlink(MCP, tmp.dir("bin").join("mcp")).expect("link");
        Some(Self { lab, tmp, document })
    }

    /// Runs lines of the document on a host, in the directory `name`, with some words replaced.
    #[track_caller]
    pub fn run(&self, host: usize, name: &str, line: &str, replaced: &[(&str, &str)]) -> Proc {
        for line in line.lines() {
            assert!(self.document.contains(line), "the document has no line {line:?}");
        }
        let mut script = line.to_owned();
        for (from, to) in replaced {
            assert!(script.contains(from), "{line:?} has no {from:?}");
            script = script.replace(from, to);
        }
        let path =
            format!("{}:{}", self.tmp.join("bin").display(), std::env::var("PATH").unwrap_or_default());
        let cmd = Cmd::new(name, "bash").args(["-c", &format!("set -o pipefail; {script}")]);
        let cmd = cmd.env("PATH", path).env("TERM", "linux").dir(&self.tmp.dir(name));
        self.lab.on(host, cmd.env("MCP_STATE_DIR", self.tmp.dir(&format!("state-{host}")))).spawn()
    }
}
