//! The manual and the completions: every command has a page that `mandoc` accepts, every shell accepts its
//! completions. Real binary. Where a program is missing, a test says so and passes.

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;
use support::files::{TempDir, names};
use support::fleet::Fleet;
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

/// A shell's completions of a command line, which ends where the user is: its words, and a new one.
fn completed(shell: &str, state: &Path, words: &[&str]) -> Option<String> {
    if !has_program(shell) {
        skip(&format!("completions are checked with {shell}"));
        return None;
    }
    let tmp = TempDir::new();
    let script = Cmd::new(shell, MCP).args(["completions", shell]).spawn().expect(0, SOON);
    fs::write(tmp.join("_mcp"), script.lines.join("\n") + "\n").expect("write");
    let (line, count) = (words.join(" "), words.len());
    let ask = match shell {
        "bash" => format!(
            "source ./_mcp; complete -p mcp >/dev/null || exit 1; COMP_WORDS=({line} ''); COMP_CWORD={count}; COMP_TYPE=9; \
             _clap_complete_mcp mcp '' {}; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            words[count - 1]
        ),
        // As zsh loads it by itself, at the first use.
        "zsh" => format!(
            "fpath=(. $fpath); autoload -U _mcp; compdef() {{ }}; _describe() {{ print -l -- ${{(P)3}} ${{(P)4}} }}; \
             words=({line} ''); CURRENT={}; _mcp",
            count + 1
        ),
        _ => format!("source ./_mcp; complete -C '{line} '"),
    };
    let program = Path::new(MCP).parent().and_then(Path::to_str).expect("UTF-8");
    let path = format!("{program}:{}", std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new(shell);
    let none = if shell == "bash" { "--norc" } else { "-f" };
    let command = if shell == "fish" { command.arg("--no-config") } else { command.arg(none) };
    let done =
        command.args(["-c", &ask]).current_dir(tmp.path()).env("PATH", path).env("MCP_STATE_DIR", state);
    let done = done.output().expect("run a shell");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success() && said.is_empty(), "{shell}: {ask}: {said}");
    Some(String::from_utf8_lossy(&done.stdout).into_owned())
}

const SHELLS: [&str; 3] = ["bash", "zsh", "fish"];

#[test]
fn shells_complete_commands_and_what_this_machine_has() {
    let state = TempDir::new();
    Cmd::new("key", MCP)
        .args(["key", "new", "lab-seven"])
        .env("MCP_STATE_DIR", state.path())
        .spawn()
        .expect(0, SOON);
    for shell in SHELLS {
        for (words, wanted) in [
            (&["mcp"][..], "doctor"),
            (&["mcp", "send", "--compress", "auto", "--slow"], "defer"),
            (&["mcp", "recv", "--interface"], "lo"),
            (&["mcp", "relay", "--to"], "lo"),
            (&["mcp", "key", "show"], "lab-seven"),
            (&["mcp", "send", "--key"], "lab-seven"),
        ] {
            let Some(offered) = completed(shell, state.path(), words) else { break };
            let found =
                offered.lines().any(|line| line.split(['\t', ':']).next().map(str::trim) == Some(wanted));
            assert!(found, "{shell} {words:?}: {offered}");
        }
    }
}

#[test]
fn shells_complete_what_the_server_knows() {
    let Some((fleet, server)) = Fleet::start() else { return };
    fleet.operate(&["device", "accept", "bench-1"]);
    let file = fleet.tmp.file("image", 1000, 1);
    let file = file.to_str().expect("UTF-8");
    fleet.operate(&["task", "add", "copy", file, "--to", "all", "--at", "/srv/", "--name", "picture"]);
    let state = fleet.tmp.join("server");
    for shell in SHELLS {
        for (words, wanted) in [
            (&["mcp", "device", "show"][..], "bench-1"),
            (&["mcp", "task", "retry", "1", "--device"], "bench-1"),
            (&["mcp", "task", "pause"], "1"),
        ] {
            let Some(offered) = completed(shell, &state, words) else { break };
            let found =
                offered.lines().any(|line| line.split(['\t', ':']).next().map(str::trim) == Some(wanted));
            assert!(found, "{shell} {words:?}: {offered}");
        }
    }
    let tasks = completed("fish", &state, &["mcp", "task", "show"]);
    assert!(tasks.is_none_or(|tasks| tasks.contains("picture, running")), "its name is beside its number");
    // Without a server nothing is offered, and nothing said.
    drop(server);
    for shell in SHELLS {
        let offered = completed(shell, &state, &["mcp", "device", "show"]);
        assert!(offered.is_none_or(|offered| !offered.contains("bench-1")), "{shell}");
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
