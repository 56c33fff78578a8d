//! The layers of the sandbox, one by one: each test shows what one layer does where the others would allow it, and fails without that layer.
//! A layer that cannot be had keeps the handler from running.

use super::*;
use mcp_fleet::journal::Verdict;
use std::process::Command;

/// What a script prints as a handler with these lines in its manifest.
#[track_caller]
fn inside(lab: &Lab, script: &str, top: &str, more: &str) -> String {
    lab.handler("inside", script, top, more);
    let report = lab.run("inside");
    assert_eq!(report.outcome.verdict, Verdict::Done, "{report:?}");
    report.output
}

/// A sandbox with this beside the usual.
fn sandbox(more: &str) -> String {
    format!("[sandbox]\nwrite = [\"OUT\"]\n{more}")
}

/// What the kernel says of a process: the value behind a name in a file of `/proc`.
fn value<'a>(text: &'a str, name: &str) -> &'a str {
    text.lines()
        .find_map(|line| line.strip_prefix(name))
        .unwrap_or_else(|| panic!("no {name} in {text}"))
        .trim()
}

#[test]
fn no_new_privileges() {
    let Some(lab) = Lab::new() else { return };
    for user in ["root", "nobody"] {
        let said = inside(&lab, "cat /proc/self/status", &format!("user = \"{user}\""), "");
        assert_eq!(value(&said, "NoNewPrivs:"), "1", "{user}");
    }
}

#[test]
fn a_session_of_its_own_without_a_terminal() {
    let Some(lab) = Lab::new() else { return };
    // Process, state, parent, group, session, terminal. The session of a process outside the namespace would be 0.
    let said = inside(
        &lab,
        "read -r pid comm state parent group session tty rest </proc/self/stat; echo $session $tty",
        "",
        "",
    );
    assert_eq!(said, "1 0");
}

#[test]
fn namespaces_of_its_own() {
    let Some(lab) = Lab::new() else { return };
    let names = ["pid", "mnt", "ipc", "uts", "net"];
    let script = format!("for name in {}; do readlink /proc/self/ns/$name; done", names.join(" "));
    let ours = |name: &str| fs::read_link(format!("/proc/self/ns/{name}")).unwrap().display().to_string();
    let apart = |said: &str| -> Vec<&str> {
        let theirs = said.lines().zip(names);
        theirs.filter(|(theirs, name)| *theirs != ours(name)).map(|(_, name)| name).collect()
    };
    assert_eq!(apart(&inside(&lab, &script, "", "")), names);
    let said = inside(&lab, &script, "", &sandbox("network = true"));
    assert_eq!(apart(&said), ["pid", "mnt", "ipc", "uts"], "{said}");
}

#[test]
fn mounts_of_its_own() {
    let Some(lab) = Lab::new() else { return };
    let name = format!("mcp-layers-{}", std::process::id());
    let dirs = ["/tmp", "/dev/shm", "/run"].map(Path::new).into_iter().filter(|dir| dir.is_dir());
    let markers: Vec<PathBuf> = dirs.map(|dir| dir.join(&name)).collect();
    markers.iter().for_each(|path| fs::write(path, "").unwrap());
    let looks = markers.iter().map(|path| format!("test -e {0} && echo {0}; ", path.display()));
    // What Landlock forbids to read can be seen all the same.
    let script =
        format!("{}ls /proc | grep -c '^[0-9]'; grep ' /tmp ' /proc/mounts", looks.collect::<String>());
    let said = inside(&lab, &script, "", "[limits]\ntmp = 8");
    let shared = inside(&lab, &script, "", &sandbox("services = true"));
    markers.iter().for_each(|path| fs::remove_file(path).unwrap());
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 2, "{said}");
    // The helper, the shell, `ls` and `grep`.
    assert!(lines[0].parse::<u32>().is_ok_and(|n| n <= 4), "{said}");
    for option in ["tmpfs", "nosuid", "nodev", "size=8192k"] {
        assert!(lines[1].contains(option), "{said}");
    }
    assert!(shared.starts_with(&format!("/run/{name}\n")), "{shared}");
}

#[test]
fn landlock_where_modes_allow_everything() {
    let Some(lab) = Lab::new() else { return };
    let (dir, open) = (lab.path("open"), lab.path("open/file"));
    fs::create_dir(&dir).unwrap();
    fs::set_permissions(&dir, Permissions::from_mode(0o777)).unwrap();
    lab.write("open/file", "open", 0o666);
    let script = format!(
        "cat {0} 2>/dev/null && echo; (echo x >>{0}) 2>/dev/null && echo written; touch {1}/new 2>/dev/null && echo made; echo tried",
        open.display(),
        dir.display()
    );
    assert_eq!(inside(&lab, &script, "", ""), "tried");
    let read = format!("read = [\"/usr\", \"/bin\", \"/lib\", \"/lib64\", \"/etc\", \"/proc\", {dir:?}]");
    assert_eq!(inside(&lab, &script, "", &sandbox(&read)), "open\ntried");
    let said = inside(&lab, &script, "", &format!("[sandbox]\nwrite = [{dir:?}]"));
    assert_eq!(said, "open\nwritten\nmade\ntried");
}

#[test]
fn seccomp_where_the_user_may() {
    let Some(lab) = Lab::new() else { return };
    // Two filters. One refuses what any process may do without a capability: to make a namespace of users.
    let script =
        "grep -E '^Seccomp' /proc/self/status; unshare -U true 2>/dev/null && echo unshared; echo tried";
    let said = inside(&lab, script, "", "");
    assert_eq!((value(&said, "Seccomp:"), value(&said, "Seccomp_filters:")), ("2", "2"));
    assert!(!said.contains("unshared"), "{said}");
    let said = inside(&lab, script, "", &sandbox("syscalls = [\"unshare\"]"));
    assert!(said.ends_with("unshared\ntried"), "{said}");
}

#[test]
fn capabilities_of_root_are_given_up() {
    let Some(lab) = Lab::new() else { return };
    let script = "cat /proc/self/status; touch $OUT/file; chown 65534 $OUT/file 2>/dev/null && echo chowned; rm $OUT/file";
    for (sandbox, kept, works) in [
        (sandbox(""), "0000000000000000", false),
        (sandbox("capabilities = [\"CHOWN\"]"), "0000000000000001", true),
    ] {
        let said = inside(&lab, script, "user = \"root\"", &sandbox);
        for set in ["CapBnd:", "CapEff:", "CapPrm:"] {
            assert_eq!(value(&said, set), kept, "{set}");
        }
        assert_eq!(said.ends_with("chowned"), works);
    }
}

#[test]
fn limits_of_each_process() {
    let Some(lab) = Lab::new() else { return };
    let more = "[limits]\nmemory = 300\nfile = 5\nprocesses = 70\nfiles = 80";
    let said = inside(&lab, "cat /proc/self/limits", "", more);
    for (name, limit) in [
        ("Max core file size", 0),
        ("Max file size", 5 << 20),
        ("Max processes", 70),
        ("Max open files", 80),
        ("Max locked memory", 1 << 20),
        // No control group counts memory in this test.
        ("Max address space", 300 << 20),
    ] {
        let limits: Vec<&str> = value(&said, name).split_whitespace().take(2).collect();
        assert_eq!(limits, [limit.to_string(), limit.to_string()], "{name}");
    }
}

/// Runs the handler `inside` with a helper whose calls of `call` are not made: they end as `end` says.
fn tampered(lab: &Lab, call: &str, end: &str) -> Report {
    let inject = format!("inject={call}:{end}");
    let strace = ["-D", "-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}"), "-e", &inject];
    let helper = Helper {
        program: "/usr/bin/strace".into(),
        args: strace.into_iter().chain([env!("CARGO_BIN_EXE_mcp-exec-handler")]).map(Into::into).collect(),
    };
    let runner = Runner::new(Config { directory: lab.path("handlers.d"), helper, cgroups: None });
    let (journal, _) = lab.open();
    runner.perform(&journal, lab.next_step(), &job("inside"), &Canceller::new().unwrap()).unwrap()
}

fn has_strace() -> bool {
    let has = Command::new("/usr/bin/strace").arg("-V").output().is_ok_and(|output| output.status.success());
    if !has {
        assert!(std::env::var_os("MCP_TESTS_MUST_RUN").is_none(), "would be skipped: needs strace");
        let _ = writeln!(std::io::stderr(), "skipped: needs strace");
    }
    has
}

#[test]
fn a_layer_that_cannot_be_had_keeps_the_handler_from_running() {
    let Some(lab) = Lab::new().filter(|_| has_strace()) else { return };
    lab.handler("inside", "echo ran; touch $OUT/ran", "", "");
    // It runs under strace, if nothing is refused.
    assert_eq!(tampered(&lab, "swapon", "error=EPERM").output, "ran");
    fs::remove_file(lab.path("out/ran")).unwrap();
    for (call, why) in [
        ("unshare", "namespaces cannot be made"),
        ("setsid", "a session cannot be made"),
        ("mount", "cannot be mounted"),
        ("prlimit64", "cannot be set"),
        ("landlock_create_ruleset", "Landlock"),
        ("landlock_restrict_self", "Landlock"),
        ("seccomp", "seccomp cannot be set up"),
    ] {
        let Report { outcome, output } = tampered(&lab, call, "error=EPERM");
        assert_eq!(outcome.verdict, Verdict::Failed, "{call}: {outcome:?}");
        assert!(outcome.text.contains(why), "{call}: {outcome:?}");
        assert!(!output.contains("ran") && !lab.path("out/ran").exists(), "{call}: {output}");
    }
}

/// The kernel is made to say that a layer is there which is not: what the tests above look for shows it.
#[test]
fn a_layer_that_is_left_out_is_seen() {
    let Some(lab) = Lab::new().filter(|_| has_strace()) else { return };
    lab.write("open", "open", 0o666);
    let marker = PathBuf::from(format!("/tmp/mcp-layers-left-out-{}", std::process::id()));
    fs::write(&marker, "").unwrap();
    let script = format!(
        "read -r pid comm state parent group session tty rest </proc/self/stat; [ $session = 1 ] || echo session\n\
         test -e {} && echo mounts\n\
         grep -q '^NoNewPrivs:.0' /proc/self/status && echo privileges\n\
         grep -q '^CapBnd:.*[1-9a-f]' /proc/self/status && echo capabilities\n\
         cat {} >/dev/null 2>&1 && echo landlock\n\
         unshare -U true 2>/dev/null && echo seccomp\n\
         true",
        marker.display(),
        lab.path("open").display()
    );
    lab.handler("inside", &script, "", "");
    for (call, end, left_out) in [
        ("swapon", "retval=0", ""),
        ("setsid", "retval=1", "session"),
        // The number of the session is that of the host's `/proc`, too.
        ("mount", "retval=0", "session\nmounts"),
        ("prctl", "retval=0", "privileges\ncapabilities"),
        ("landlock_restrict_self", "retval=0", "landlock"),
        ("seccomp", "retval=0", "seccomp"),
    ] {
        let Report { outcome, output } = tampered(&lab, call, end);
        assert_eq!(outcome.verdict, Verdict::Done, "{call}: {outcome:?}");
        assert_eq!(output, left_out, "{call}");
    }
    fs::remove_file(marker).unwrap();
}

#[test]
fn what_a_control_group_would_limit_is_said_where_there_is_none() {
    let Some(lab) = Lab::new() else { return };
    let said = lab.runner().shortfalls();
    assert!(said.iter().any(|text| text.contains("no control group")), "{said:?}");
}

/// What an agent of root says whose capabilities are bounded as this unit, or this addition to one, bounds them.
fn bounded(lab: &Lab, unit: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/systemd").join(unit);
    let text = fs::read_to_string(path).unwrap();
    // An empty one undoes those before.
    let mut sets = text.lines().filter_map(|line| line.strip_prefix("CapabilityBoundingSet="));
    let set = sets.next_back().unwrap().to_lowercase().replace("cap_", "");
    let set = match set.strip_prefix('~') {
        Some(without) => without.split(' ').map(|name| format!("-{name}")).collect::<Vec<_>>().join(","),
        None => format!("-all,+{}", set.replace(' ', ",+")),
    };
    let output = Command::new("setpriv")
        .args(["--inh-caps=-all", &format!("--bounding-set={set}")])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "kinds::child", "--ignored", "--nocapture"])
        .env("LAB", &lab.root)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said} {}", String::from_utf8_lossy(&output.stderr));
    said
}

#[test]
fn the_unit_bounds_the_agent_to_copies_and_its_addition_leaves_what_handlers_need() {
    for (unit, runs) in [("mcp-agent.service", false), ("mcp-agent.service.d/handlers.conf", true)] {
        let Some(lab) = Lab::new() else { return };
        lab.handler("look", "id -u", "", "");
        lab.handler("other", "touch $OUT/other", "user = \"games\"", "");
        let said = bounded(&lab, unit);
        let text = if runs { "exited with 0" } else { "namespaces cannot be made" };
        assert_eq!(said.matches(text).count(), 2, "{unit}: {said}");
        assert_eq!(lab.path("out/other").exists(), runs, "{unit}");
    }
}

#[test]
fn systemd_takes_the_units_and_rates_their_exposure_as_documented() {
    let analyze = |words: &[&str]| Command::new("systemd-analyze").args(words).output();
    if analyze(&["--version"]).is_err() {
        assert!(std::env::var_os("MCP_TESTS_MUST_RUN").is_none(), "would be skipped: needs systemd-analyze");
        let _ = writeln!(std::io::stderr(), "skipped: needs systemd-analyze");
        return;
    }
    let units = concat!(env!("CARGO_MANIFEST_DIR"), "/../../packaging/systemd");
    let addition = "mcp-agent.service.d/handlers.conf";
    // Tenths, and no more than docs/operating.md says.
    for (unit, addition, exposure) in [
        ("mcp-agent.service", None, "--threshold=23"),
        ("mcp-agent.service", Some(addition), "--threshold=57"),
        ("mcp-serve.service", None, "--threshold=12"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(unit);
        // It is not installed on this machine.
        let text = fs::read_to_string(format!("{units}/{unit}")).unwrap();
        assert!(text.contains("\nExecStart=/usr/bin/mcp "), "{text}");
        fs::write(&path, text.replace("/usr/bin/mcp ", "/bin/true ")).unwrap();
        if let Some(addition) = addition {
            fs::create_dir(dir.path().join("mcp-agent.service.d")).unwrap();
            fs::copy(format!("{units}/{addition}"), dir.path().join(addition)).unwrap();
        }
        let path = path.to_str().unwrap();
        for words in [&["verify", "--man=no", path][..], &["security", "--offline=true", exposure, path]] {
            let output = analyze(words).unwrap();
            assert!(output.status.success(), "{words:?}: {output:?}");
        }
    }
}
