//! Tasks that try to get more than the manifest allows, handlers that misbehave, files that others can write.

use super::*;
use mcp_fleet::journal::Verdict;
use serde_json::{Value, json};
use std::os::unix::fs::{chown, symlink};
use std::process::Command;
use std::time::{Duration, Instant};

#[test]
fn arguments_stay_arguments() {
    let Some(lab) = Lab::new() else { return };
    let arguments = "args = [\"-x\", \"{arg.free}\", \"--to={arg.path}\", \"last\"]\n\
        [arguments.free]\ntype = \"string\"\npattern = \".*\"\n\
        [arguments.path]\ntype = \"path\"\nbelow = \"/srv/data\"\noptional = true";
    lab.handler("echo", "for word; do printf '<%s>' \"$word\"; done", "", arguments);
    let run = |free: Value, path: Option<&str>| {
        let mut arguments = Values::from([("free".to_owned(), free)]);
        arguments.extend(path.map(|path| ("path".to_owned(), json!(path))));
        lab.perform(&Job { arguments, ..job("echo") })
    };
    for text in
        ["", "a b", "$(touch /tmp/x)", "`id`", "; rm -rf /", "a'b\"c", "{object}", "{arg.path}", "*", "é\\"]
    {
        let report = run(json!(text), None);
        assert_eq!(report.output, format!("<-x><{text}><last>"), "{report:?}");
    }
    let report = run(json!("x"), Some("/srv/data/a b"));
    assert_eq!(report.output, "<-x><x><--to=/srv/data/a b><last>");
    for (free, path) in [
        (json!("--option"), None),
        (json!("-"), None),
        (json!("a\nb"), None),
        (json!("a\0b"), None),
        (json!("x".repeat(300)), None),
        (json!(7), None),
        (json!("x"), Some("/srv/data/../../etc/passwd")),
        (json!("x"), Some("/etc/passwd")),
        (json!("x"), Some("-/srv/data/x")),
        (json!("x"), Some("/srv/data/x\n--yes")),
    ] {
        let report = run(free.clone(), path);
        assert_eq!(report.outcome.verdict, Verdict::Failed, "{free} {path:?}");
        assert!(report.outcome.text.starts_with("handler echo: its argument "), "{report:?}");
        assert!(report.output.is_empty());
    }
    for name in ["../bin/echo", "/etc/passwd", "echo.toml", "echo\0", "", "no-such"] {
        let report = lab.run(name);
        assert!(report.outcome.text.starts_with("this machine has no handler"), "{report:?}");
    }
    for name in ["../x", "-rf", "a\nb", "a b"] {
        lab.handler("object", "cat \"$MCP_OBJECT\"", "object = \"required\"", "");
        let object = ObjectFile { name: name.into(), ..lab.object("x", b"x") };
        let report = lab.perform(&Job { object: Some(object), ..job("object") });
        assert!(report.outcome.text.contains("name"), "{report:?}");
    }
}

#[test]
fn what_others_can_write_is_not_used() {
    let Some(lab) = Lab::new() else { return };
    lab.handler("x", "echo ran", "", "");
    let (manifest, exec) = (lab.path("handlers.d/x.toml"), lab.path("bin/x"));
    let mode = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    let refused = |path: &Path, why: &str| {
        let report = lab.run("x");
        assert_eq!(report.outcome.verdict, Verdict::Failed, "{path:?}");
        let text = &report.outcome.text;
        assert!(text.contains(path.to_str().unwrap()) && text.contains(why), "{text}");
        assert!(report.output.is_empty());
    };
    for path in [&manifest, &exec] {
        for bad in [0o646, 0o664] {
            mode(path, bad | 0o111);
            refused(path, "chmod go-w");
        }
        mode(path, 0o755);
        chown(path, Some(65534), None).unwrap();
        refused(path, "chown root");
        chown(path, Some(0), None).unwrap();
    }
    for dir in ["handlers.d", "bin", ""] {
        let dir = lab.path(dir);
        // Without the slash that an empty name leaves at its end.
        let dir: PathBuf = dir.components().collect();
        mode(&dir, 0o1777);
        refused(&dir, "chmod go-w");
        mode(&dir, 0o755);
    }
    assert_eq!(lab.run("x").output, "ran");
    // A link in place of the manifest, even to a good one.
    fs::rename(&manifest, lab.path("elsewhere.toml")).unwrap();
    symlink(lab.path("elsewhere.toml"), &manifest).unwrap();
    refused(&manifest, "symbolic link");
    fs::remove_file(&manifest).unwrap();
    sh("mkfifo x.toml", &lab.path("handlers.d"));
    refused(&manifest, "regular file");
    fs::remove_file(&manifest).unwrap();
    fs::rename(lab.path("elsewhere.toml"), &manifest).unwrap();
    // A link to the executable is fine, one through a directory of others is not.
    fs::rename(&exec, lab.path("bin/real")).unwrap();
    symlink("real", &exec).unwrap();
    assert_eq!(lab.run("x").output, "ran");
    fs::remove_file(&exec).unwrap();
    let open = lab.path("open");
    fs::create_dir(&open).unwrap();
    symlink(lab.path("bin/real"), open.join("x")).unwrap();
    symlink(open.join("x"), &exec).unwrap();
    assert_eq!(lab.run("x").output, "ran");
    mode(&open, 0o777);
    refused(&open, "chmod go-w");
}

#[test]
fn an_executable_that_is_replaced_while_it_is_started_runs_as_one_or_the_other() {
    let Some(lab) = Lab::new() else { return };
    lab.handler("x", "echo one; echo one", "", "");
    let runs = AtomicU32::new(0);
    std::thread::scope(|scope| {
        let swap = scope.spawn(|| {
            let mut swaps = 0u32;
            // A bound, in case that the runs end early.
            while runs.load(Ordering::Relaxed) < 20 && swaps < 1_000_000 {
                let word = ["one", "two"][swaps as usize % 2];
                lab.write("bin/next", &format!("#!/bin/sh\necho {word}; echo {word}\n"), 0o755);
                fs::rename(lab.path("bin/next"), lab.path("bin/x")).unwrap();
                swaps += 1;
            }
            swaps
        });
        while runs.fetch_add(1, Ordering::Relaxed) < 20 {
            let report = lab.run("x");
            let output = &report.output[..];
            assert!(output == "one\none" || output == "two\ntwo", "{report:?}");
        }
        assert!(swap.join().unwrap() > 20);
    });
}

#[test]
fn nothing_of_a_handler_is_left() {
    let Some(lab) = Lab::new() else { return };
    for user in ["root", "nobody"] {
        let marker = marker();
        let script = format!(
            "for n in 1 2 3; do (setsid sh -c 'trap \"\" TERM HUP; (setsid sleep {marker} &) ; sleep {marker}' &) ; done\n\
             touch \"$OUT/began\"; sleep 0.3; exit 0"
        );
        lab.handler("fork", &script, &format!("user = \"{user}\""), "");
        // It would take too long if it waited for what was forked away.
        assert_eq!(lab.run("fork").outcome.verdict, Verdict::Done);
        assert_eq!(processes(&marker), Vec::<u32>::new());
    }
}

#[test]
fn time_is_limited_also_for_those_who_do_not_listen() {
    let Some(lab) = Lab::new() else { return };
    let run = |script: &str| {
        lab.handler("slow", script, "", "timeout = \"500ms\"");
        let now = Instant::now();
        let report = lab.run("slow");
        assert_eq!(report.outcome.verdict, Verdict::Failed);
        assert!(report.outcome.text.starts_with("took too long and was ended"), "{report:?}");
        (report, now.elapsed())
    };
    let marker = marker();
    // One that listens, and says so.
    let (report, _) = run("trap 'echo tidied; exit 0' TERM; while :; do sleep 0.05; done");
    assert!(report.output.ends_with("tidied"), "{report:?}");
    let (_, took) =
        run(&format!("trap '' TERM INT HUP; (setsid sleep {marker} &); while :; do sleep 0.05; done"));
    assert!(took > Duration::from_millis(1400), "{took:?}");
    assert_eq!(processes(&marker), Vec::<u32>::new());
    // One that is stopped does not hear SIGTERM either.
    run("kill -STOP $$");
}

#[test]
fn output_is_bounded_and_harmless() {
    let Some(lab) = Lab::new() else { return };
    lab.handler("flood", "echo first; yes | head -c 100000000; echo last", "", "");
    let report = lab.run("flood");
    assert_eq!(report.outcome.verdict, Verdict::Done, "{:?}", report.outcome);
    assert!(report.output.len() < 17_000, "{}", report.output.len());
    assert!(report.output.starts_with("first\ny\n") && report.output.ends_with("y\nlast"));
    assert!(report.output.contains("bytes left out"));
    lab.handler("endless", "yes", "", "timeout = \"500ms\"");
    assert!(lab.run("endless").outcome.text.starts_with("took too long"));
    lab.handler("escape", "printf 'a\\033[2Jb\\0c\\377\\n' >&2; exit 1", "", "");
    let report = lab.run("escape");
    assert_eq!(report.output, "a\\u{1b}[2Jb\\u{0}c\u{fffd}");
    assert!(report.outcome.text.ends_with(&report.output), "{report:?}");
}

#[test]
fn memory_and_files_are_limited() {
    let Some(lab) = Lab::new() else { return };
    // It holds one line of 400 MB.
    lab.handler(
        "eat",
        "head -c 400000000 /dev/zero | tail -c 400000000 | wc -c",
        "",
        "[limits]\nmemory = 64",
    );
    let report = lab.run("eat");
    assert!(!report.output.contains("400000000"), "{report:?}");
    let script = "head -c 9000000 /dev/zero >\"$OUT/big\"; head -c 9000000 /dev/zero >/tmp/big; wc -c <\"$OUT/big\" ; wc -c </tmp/big";
    lab.handler("fill", script, "", "[limits]\nfile = 8\ntmp = 4");
    let report = lab.run("fill");
    let sizes: Vec<u64> = report.output.lines().filter_map(|line| line.parse().ok()).collect();
    assert_eq!(sizes, [8 << 20, 4 << 20], "{report:?}");
    let script = "for n in $(seq 100); do sleep 5 & done 2>/dev/null; jobs -p | wc -l";
    lab.handler("forks", script, "user = \"games\"", "[limits]\nprocesses = 20");
    let report = lab.run("forks");
    assert!(
        report.output.lines().last().and_then(|n| n.parse::<u32>().ok()).is_none_or(|n| n < 20),
        "{report:?}"
    );
}

#[test]
fn a_handler_reaches_only_what_it_may() {
    let Some(lab) = Lab::new() else { return };
    let secret = lab.write("secret", "precious", 0o600);
    let socket = PathBuf::from(format!("/run/mcp-handler-test-{}.sock", std::process::id()));
    let _ = fs::remove_file(&socket);
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = tcp.local_addr().unwrap().port();
    // A process whose number the handler's own do not reach.
    let mut parent = Command::new("sleep").arg("1000").spawn().unwrap();
    while parent.id() < 200 {
        parent.kill().unwrap();
        parent.wait().unwrap();
        parent = Command::new("sleep").arg("1000").spawn().unwrap();
    }
    let tries = [
        ("read", format!("cat {}", secret.display())),
        ("write", format!("echo x >{}/new", lab.root.display())),
        ("append", format!("echo x >>{}", secret.display())),
        ("truncate", format!("truncate -s 0 {}", secret.display())),
        ("remove", format!("rm -f {}", secret.display())),
        ("link", format!("ln {} $OUT/link", secret.display())),
        ("chmod-set-id", "cp /bin/sh $OUT/sh && chown 65534 $OUT/sh".into()),
        ("etc", "echo x >/etc/mcp-handler-test".into()),
        ("shadow", "exec 9>>/etc/shadow".into()),
        ("mount", "mount -t tmpfs tmpfs /tmp".into()),
        ("unmount", "umount /proc".into()),
        ("device", "mknod $OUT/disk b 254 0".into()),
        ("disk", "head -c 1 /dev/vda".into()),
        ("namespace", "unshare -U true".into()),
        ("see", format!("test -d /proc/{}", parent.id())),
        ("kill", format!("kill -0 {}", parent.id())),
        ("socket", format!("test -e {}", socket.display())),
        ("network", format!("exec 9<>/dev/tcp/127.0.0.1/{port}")),
        ("hostname", "hostname $(uname -n)".into()),
        ("clock", "date -s @$(date +%s)".into()),
        ("chroot", "chroot / true".into()),
        ("kernel", "dmesg".into()),
    ];
    let script: String = tries
        .iter()
        .map(|(name, command)| format!("bash -c '{command}' >/dev/null 2>&1 && echo reached {name}\n"))
        .collect();
    for user in ["root", "nobody"] {
        lab.handler("reach", &format!("{script}echo tried"), &format!("user = \"{user}\""), "");
        let report = lab.run("reach");
        assert_eq!(report.output, "tried", "{user}: {:?}", report.outcome);
    }
    drop(listener);
    fs::remove_file(&socket).unwrap();
    assert_eq!(fs::read_to_string(secret).unwrap(), "precious");
    assert!(!Path::new("/etc/mcp-handler-test").exists());
    // The same tries succeed without a sandbox: they test something.
    let reachable = ["read", "see", "kill", "socket", "network", "chroot", "namespace"];
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    for (_, command) in tries.iter().filter(|(name, _)| reachable.contains(name)) {
        sh(&format!("bash -c '{command}' >/dev/null"), &lab.root);
    }
    parent.kill().unwrap();
    parent.wait().unwrap();
    fs::remove_file(&socket).unwrap();
}

#[test]
fn a_handler_gets_what_its_manifest_asks_for() {
    let Some(lab) = Lab::new() else { return };
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = tcp.local_addr().unwrap().port();
    let secret = lab.write("secret", "precious", 0o600);
    let script = format!(
        "bash -c 'exec 9<>/dev/tcp/127.0.0.1/{port}' && cat {} && chown 65534 $OUT && mount -t tmpfs tmpfs /tmp && test -d /run",
        secret.display()
    );
    let read =
        format!("[\"/usr\", \"/bin\", \"/lib\", \"/lib64\", \"/etc\", \"/proc\", \"{}\"]", secret.display());
    let sandbox = format!(
        "[sandbox]\nread = {read}\nwrite = [\"OUT\"]\nnetwork = true\nservices = true\n\
         capabilities = [\"CHOWN\", \"SYS_ADMIN\"]\nsyscalls = [\"mount\", \"fsopen\", \"fsconfig\", \"fsmount\", \"move_mount\"]"
    );
    lab.handler("may", &script, "", &sandbox);
    let report = lab.run("may");
    // Landlock refuses every mount, also to those who have the capability: nothing in a manifest gives that away.
    assert_eq!(report.outcome.verdict, Verdict::Failed, "{report:?}");
    assert!(
        report.output.starts_with("preciousmount: ") && report.output.contains("permission denied"),
        "{report:?}"
    );
}

#[test]
fn a_handler_that_is_killed_with_its_helper_is_reported() {
    let Some(lab) = Lab::new() else { return };
    let marker = marker();
    lab.handler("wait", &format!("touch \"$OUT/began\"; sleep {marker}"), "", "");
    let (journal, _) = lab.open();
    let canceller = Canceller::new().unwrap();
    std::thread::scope(|scope| {
        let run = scope
            .spawn(|| lab.runner().perform(&journal, lab.next_step(), &job("wait"), &canceller).unwrap());
        while processes(&marker).is_empty() {
            std::thread::sleep(Duration::from_millis(10));
            assert!(!run.is_finished(), "it did not begin");
        }
        // The helper is our child, by way of a thread.
        let helper = processes(env!("CARGO_BIN_EXE_mcp-exec-handler")).into_iter().find(|pid| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let parent =
                stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1)?.parse::<u32>().ok());
            let group = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
            parent == Some(std::process::id()) && descends(&group, &marker)
        });
        sh(&format!("kill -KILL {}", helper.expect("a helper")), &lab.root);
        let report = run.join().unwrap();
        assert_eq!(report.outcome.text, "was ended by signal 9");
    });
    assert_eq!(processes(&marker), Vec::<u32>::new());
}

/// Whether one of these processes, or one below them, has the marker on its command line.
fn descends(pids: &str, marker: &str) -> bool {
    pids.split_whitespace().any(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        line.split(|b| *b == 0).any(|word| word == marker.as_bytes()) || descends(&children, marker)
    })
}
