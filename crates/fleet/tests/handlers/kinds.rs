//! Agents of other kinds: one that has a control group of its own, one that is not root.

use super::*;
use mcp_fleet::journal::Verdict;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// A control group of version 2, removed when it is dropped.
struct Delegated(PathBuf);

impl Delegated {
    /// `None` where there is none, or this process may not make one.
    fn new() -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
        let mount = mounts.lines().find_map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            (words[2] == "cgroup2").then(|| words[1].to_owned())
        })?;
        let dir = Path::new(&mount).join(format!("mcp-test-{}", std::process::id()));
        fs::create_dir(&dir).ok()?;
        Some(Self(dir))
    }

    fn groups(&self) -> usize {
        fs::read_dir(&self.0).unwrap().flatten().filter(|entry| entry.path().is_dir()).count()
    }
}

impl Drop for Delegated {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn a_run_has_a_control_group_that_goes_with_it() {
    let Some(lab) = Lab::new() else { return };
    let Some(delegated) = Delegated::new() else {
        let _ = writeln!(std::io::stderr(), "skipped: no control groups of version 2");
        return;
    };
    let marker = marker();
    let script = format!("cat /proc/self/cgroup; setsid sh -c 'sleep {marker} & sleep {marker}' & sleep 0.2");
    lab.handler("fork", &script, "", "");
    let config = |lab: &Lab| Config {
        directory: lab.path("handlers.d"),
        helper: Helper { program: env!("CARGO_BIN_EXE_mcp-exec-handler").into(), args: Vec::new() },
        cgroups: Some(delegated.0.clone()),
    };
    let runner = Runner::new(config(&lab));
    let (journal, _) = lab.open();
    let canceller = Canceller::new().unwrap();
    let report = runner.perform(&journal, lab.next_step(), &job("fork"), &canceller).unwrap();
    assert_eq!(report.outcome.verdict, Verdict::Done, "{report:?}");
    assert!(report.output.contains(&format!("mcp-test-{}/mcp-handler-", std::process::id())), "{report:?}");
    assert_eq!((delegated.groups(), processes(&marker).len()), (0, 0));
    // What an agent that was killed has left is ended by the next one.
    let left = delegated.0.join("mcp-handler-1-0");
    fs::create_dir(&left).unwrap();
    let mut child = Command::new("sleep").arg(&marker).spawn().unwrap();
    fs::write(left.join("cgroup.procs"), child.id().to_string()).unwrap();
    let _ = Runner::new(config(&lab));
    child.wait().unwrap();
    assert_eq!((delegated.groups(), processes(&marker).len()), (0, 0));
}

/// An agent that is not root, in the lab that the environment names.
#[test]
#[ignore = "is run by the test of other users"]
fn child() {
    let Some(root) = std::env::var_os("LAB") else { return };
    let lab = Lab::at(root.into());
    let report = lab.run("look");
    println!("{}\n{}", report.outcome.text, report.output);
    println!("{}", lab.run("other").outcome.text);
}

#[test]
fn an_agent_that_is_not_root_confines_its_handlers_too() {
    let Some(lab) = Lab::new() else { return };
    if fs::read_to_string("/proc/sys/user/max_user_namespaces").is_ok_and(|n| n.trim() == "0") {
        assert!(std::env::var_os("MCP_TESTS_MUST_RUN").is_none(), "would be skipped: no user namespaces");
        let _ = writeln!(std::io::stderr(), "skipped: no user namespaces");
        return;
    }
    const NOBODY: u32 = 65534;
    let script = "id -u; grep CapBnd /proc/self/status; touch \"$OUT/made\" && echo made\n\
        touch \"$OUT/../forbidden\" 2>/dev/null && echo forbidden; cat /proc/net/dev | grep -c :; ls /proc | grep -c '^[0-9]'";
    lab.handler("look", script, "", "");
    lab.handler("other", "id", "user = \"games\"", "");
    // The machine's administrator has written the manifests; the agent has the rest.
    for name in ["", "journal", "out"] {
        let path: PathBuf = lab.path(name).components().collect();
        std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "kinds::child", "--ignored", "--nocapture"])
        .env("LAB", &lab.root)
        .uid(NOBODY)
        .gid(NOBODY)
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    // To itself it seems to be root; it has the loopback interface only, and sees its own processes.
    let words = "exited with 0\n0\nCapBnd:    0000000000000000\nmade\n1\n";
    assert!(said.contains(words), "{said}");
    assert!(said.contains("it wants another user than the agent's; run the agent as root"), "{said}");
    let made = fs::metadata(lab.path("out/made")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&made), NOBODY);
}
