//! The manual and the completions: every command has a page that `mandoc` accepts, every shell accepts its
//! completions. Real binary. Where a program is missing, a test says so and passes.

mod support;

use std::fs;
use std::process::Command;
use support::files::{TempDir, names};
use support::mcp::{MCP, SOON};
use support::process::Cmd;
use support::{has_program, skip};

/// Writes the pages.
fn manual() -> TempDir {
    let tmp = TempDir::new();
    Cmd::new("manual", MCP).arg("manual").arg(tmp.path()).spawn().expect(0, SOON);
    tmp
}

#[test]
fn every_command_has_a_page_with_its_sections() {
    let tmp = manual();
    let pages = names(tmp.path());
    for page in [
        "mcp.1",
        "mcp-send.1",
        "mcp-recv.1",
        "mcp-key.1",
        "mcp-key-new.1",
        "mcp-doctor.1",
        "mcp-completions.1",
    ] {
        assert!(pages.iter().any(|name| name == page), "{page}: {pages:?}");
    }
    assert!(!pages.iter().any(|name| name.contains("manual") || name.contains("rates")), "{pages:?}");
    for page in &pages {
        let text = fs::read_to_string(tmp.join(page)).expect("a page");
        for section in ["NAME", "SYNOPSIS", "DESCRIPTION", "ENVIRONMENT", "FILES", "SECURITY", "SEE ALSO"] {
            let found = text.lines().any(|line| {
                line.trim_end() == format!(".SH {section}") || line == format!(".SH \"{section}\"")
            });
            assert!(found, "{page} has no {section}");
        }
    }
    for page in ["mcp-send.1", "mcp-recv.1", "mcp-doctor.1", "mcp-key.1"] {
        let text = fs::read_to_string(tmp.join(page)).expect("a page");
        for section in ["EXAMPLES", "EXIT STATUS"] {
            assert!(text.contains(&format!(".SH \"{section}\"")), "{page} has no {section}");
        }
    }
}

#[test]
fn mandoc_accepts_every_page() {
    if !has_program("mandoc") {
        return skip("pages are checked with mandoc");
    }
    let tmp = manual();
    let lint = |pages: &[String]| {
        let mut mandoc = Command::new("mandoc");
        let done = mandoc.args(["-T", "lint", "-W", "warning"]).args(pages).current_dir(tmp.path()).output();
        let done = done.expect("run mandoc");
        (done.status.success(), String::from_utf8_lossy(&done.stdout).into_owned())
    };
    let (fine, says) = lint(&names(tmp.path()));
    assert!(fine, "{says}");
    // It would say so.
    fs::write(tmp.join("bad.1"), ".TH BAD 1\n.SH NAME\n.FOO\n.SH EMPTY\n").expect("write");
    assert!(!lint(&["bad.1".to_owned()]).0);
}

#[test]
fn shells_accept_their_completions() {
    for shell in ["bash", "zsh", "fish"] {
        let end = Cmd::new(shell, MCP).args(["completions", shell]).run(SOON);
        assert_eq!(end.code, Some(0), "{}", end.stderr);
        let script = end.lines.join("\n");
        for word in ["doctor", "send", "compress", "completions"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
        if !has_program(shell) {
            skip(&format!("completions are checked with {shell}"));
            continue;
        }
        let tmp = TempDir::new();
        fs::write(tmp.join("script"), script).expect("write");
        let done = Command::new(shell).arg("-n").arg(tmp.join("script")).output().expect("run a shell");
        assert!(done.status.success(), "{shell}: {}", String::from_utf8_lossy(&done.stderr));
    }
}

#[test]
fn pages_of_help_beside_those_of_commands() {
    for (topic, says) in [("exit-codes", "no sender in time"), ("rates", "mcp send --rate auto:800M")] {
        let help = Cmd::new("help", MCP).args(["help", topic]).run(SOON);
        let alone = Cmd::new("help", MCP).arg(topic).run(SOON);
        assert_eq!((help.code, alone.code), (Some(0), Some(0)));
        assert!(help.lines.concat().contains(says), "{:?}", help.lines);
        assert_eq!(help.lines.join("\n").trim(), alone.lines.join("\n").trim());
    }
    let end = Cmd::new("help", MCP).arg("--help").run(SOON);
    assert!(!end.lines.iter().any(|line| line.contains("exit-codes  ")), "{:?}", end.lines);
}
