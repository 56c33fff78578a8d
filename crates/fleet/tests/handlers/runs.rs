//! What a handler finds, and what its end means.

use super::*;
use mcp_fleet::journal::Verdict;
use serde_json::json;
use std::time::Duration;

#[test]
fn a_handler_finds_what_its_manifest_says_and_nothing_else() {
    let Some(lab) = Lab::new() else { return };
    let script = "id -u; id -G; grep -E '^(NoNewPrivs|Seccomp|CapEff|CapBnd):' /proc/self/status\n\
        cut -d' ' -f1,5,6 /proc/self/stat; ls -l /proc/self/fd >&2; env | sort; ls /proc | grep -c '^[0-9]'; cat";
    lab.handler("look", script, "user = \"nobody\"", "");
    let report = lab.run("look");
    assert_eq!(report.outcome.verdict, Verdict::Done, "{report:?}");
    let lines: Vec<&str> = report.output.lines().collect();
    assert_eq!(lines[..2], ["65534", "65534"], "{report:?}");
    assert!(report.output.contains("NoNewPrivs:    1") && report.output.contains("Seccomp:    2"));
    assert!(
        report.output.contains("CapEff:    0000000000000000")
            && report.output.contains("CapBnd:    0000000000000000")
    );
    // The session is that of process 1 of its own namespace.
    let session = lines.iter().find(|line| line.ends_with(" 1 1")).expect("an own session");
    assert!(session.split(' ').next().unwrap().parse::<u32>().unwrap() < 20, "{session}");
    let environment: Vec<&str> =
        lines.iter().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
    assert_eq!(environment, ["MCP_HANDLER", "MCP_RUN", "MCP_TASK", "OUT", "PATH", "PWD"], "{report:?}");
    // Process 1, the shell, grep and ls.
    let processes: u32 = lines.last().unwrap().parse().unwrap();
    assert!(processes <= 5, "{processes}");
}

#[test]
fn the_object_is_what_was_signed_and_cannot_be_written() {
    let Some(lab) = Lab::new() else { return };
    let script = "cmp \"$1\" \"$MCP_OBJECT\" && cat \"$1\" && echo \"$MCP_NAME $MCP_SIZE $MCP_HASH\"\n\
        (echo x >\"$1\") 2>/dev/null && echo written; (echo x >>\"$1\") 2>/dev/null && echo written; exit 0";
    for user in ["root", "nobody"] {
        let top = format!("object = \"required\"\nuser = \"{user}\"");
        lab.handler("read", script, &top, "args = [\"{object}\"]");
        for size in [3, (8 << 20) + 1] {
            let mut bytes = vec![b'a'; size];
            bytes[size - 1] = b'\n';
            let object = lab.object("x.bin", &bytes);
            let report = lab.perform(&Job { object: Some(object.clone()), ..job("read") });
            assert_eq!(report.outcome.verdict, Verdict::Done, "{user} {size}: {report:?}");
            assert!(!report.output.contains("written"), "{user} {size}: {report:?}");
            assert!(
                report
                    .output
                    .contains(&format!("x.bin {size} {}", blake3::Hash::from(object.blake3).to_hex()))
            );
            assert_eq!(fs::read(&object.path).unwrap(), bytes);
        }
    }
    // Without its object, or with one that it does not take, it is not run.
    let report = lab.run("read");
    assert!(report.outcome.text.contains("needs an object"), "{report:?}");
}

#[test]
fn each_end_has_its_meaning() {
    let Some(lab) = Lab::new() else { return };
    let arguments = "args = [\"{arg.code}\"]\n[exit]\ndone = [0, 3]\nreboot-needed = [100]\nretry = [75, 76]\n\
        [arguments.code]\ntype = \"integer\"\nmin = 0\nmax = 255";
    lab.handler("exit", "echo last words; exit $1", "", arguments);
    for (code, verdict) in [
        (0, Verdict::Done),
        (3, Verdict::Done),
        (100, Verdict::RebootNeeded),
        (75, Verdict::Retry),
        (76, Verdict::Retry),
        (1, Verdict::Failed),
        (42, Verdict::Failed),
        (255, Verdict::Failed),
    ] {
        let report =
            lab.perform(&Job { arguments: Values::from([("code".into(), json!(code))]), ..job("exit") });
        assert_eq!(report.outcome.verdict, verdict, "{code}");
        let said = if verdict == Verdict::Failed { ": last words" } else { "" };
        assert_eq!(report.outcome.text, format!("exited with {code}{said}"));
    }
    lab.handler("signal", "kill -KILL $$", "", "");
    assert_eq!(
        lab.run("signal").outcome,
        mcp_fleet::journal::Outcome::new(Verdict::Failed, "was ended by signal 9")
    );
}

#[test]
fn what_is_there_already_is_not_done_again_and_a_step_is_done_once() {
    let Some(lab) = Lab::new() else { return };
    let check = format!(
        "[check]\nexec = \"{}\"",
        lab.write("bin/check", "#!/bin/sh\n[ -e \"$OUT/it\" ]", 0o755).display()
    );
    lab.handler("make", "echo run >>\"$OUT/runs\"; touch \"$OUT/it\"", "", &check);
    let (journal, _) = lab.open();
    let (runner, canceller) = (lab.runner(), Canceller::new().unwrap());
    let id = lab.next_step();
    let first = runner.perform(&journal, id, &job("make"), &canceller).unwrap();
    let again = runner.perform(&journal, id, &job("make"), &canceller).unwrap();
    assert_eq!((&first.outcome, first.outcome.verdict), (&again.outcome, Verdict::Done));
    let other = runner.perform(&journal, lab.next_step(), &job("make"), &canceller).unwrap();
    assert_eq!(other.outcome.text, "it was there already");
    assert_eq!(lab.out("runs"), "run\n");
    // A check that fails is not taken for an answer.
    lab.write("bin/check", "#!/bin/sh\necho broken; exit 9", 0o755);
    let failed = runner.perform(&journal, lab.next_step(), &job("make"), &canceller).unwrap();
    assert_eq!(
        (failed.outcome.verdict, &failed.outcome.text[..]),
        (Verdict::Failed, "its check exited with 9: broken")
    );
}

#[test]
fn a_failure_is_rolled_back() {
    let Some(lab) = Lab::new() else { return };
    let rollback =
        lab.write("bin/rollback", "#!/bin/sh\necho undone >>\"$OUT/log\"; exit $(cat \"$OUT/code\")", 0o755);
    let more = format!("[rollback]\nexec = \"{}\"", rollback.display());
    lab.handler("half", "echo half >>\"$OUT/log\"; exit 1", "", &more);
    lab.write("out/code", "0", 0o644);
    let report = lab.run("half");
    assert_eq!(
        (report.outcome.verdict, &report.outcome.text[..]),
        (Verdict::Failed, "exited with 1; it was rolled back")
    );
    lab.write("out/code", "4", 0o644);
    let report = lab.run("half");
    assert_eq!(report.outcome.verdict, Verdict::Interrupted);
    assert!(report.outcome.text.contains("its rollback exited with 4"), "{report:?}");
    assert_eq!(lab.out("log"), "half\nundone\nhalf\nundone\n");
}

/// Runs a handler on another thread, and cancels it once it has written `out/began`.
fn cancel(lab: &Lab, handler: &str) -> (bool, Report) {
    let _ = fs::remove_file(lab.path("out/began"));
    let (journal, _) = lab.open();
    let canceller = Canceller::new().unwrap();
    std::thread::scope(|scope| {
        let run = scope
            .spawn(|| lab.runner().perform(&journal, lab.next_step(), &job(handler), &canceller).unwrap());
        while !lab.path("out/began").exists() {
            std::thread::sleep(Duration::from_millis(5));
            assert!(!run.is_finished(), "it did not begin");
        }
        let accepted = canceller.cancel();
        (accepted, run.join().unwrap())
    })
}

#[test]
fn a_run_is_cancelled_until_its_point_of_no_return() {
    let Some(lab) = Lab::new() else { return };
    let wait = "touch \"$OUT/began\"; sleep 3; echo finished";
    lab.handler("any", wait, "cancel = \"any-time\"", "");
    let (accepted, report) = cancel(&lab, "any");
    assert!(accepted && report.outcome.verdict == Verdict::Cancelled, "{report:?}");
    assert!(!report.output.contains("finished"), "{report:?}");
    lab.handler("never", wait, "", "");
    let (accepted, report) = cancel(&lab, "never");
    assert!(!accepted && report.outcome.verdict == Verdict::Done, "{report:?}");
    // Before it has asked, and after it has got its answer.
    let commit = "eval \"echo begin >&$MCP_COMMIT_FD; read -r answer <&$MCP_COMMIT_FD\"; echo \"$answer\"";
    lab.handler("early", &format!("{wait}; {commit}"), "cancel = \"before-commit\"", "");
    let (accepted, report) = cancel(&lab, "early");
    assert!(accepted && report.outcome.verdict == Verdict::Cancelled, "{report:?}");
    lab.handler("late", &format!("{commit}; {wait}"), "cancel = \"before-commit\"", "");
    let (accepted, report) = cancel(&lab, "late");
    assert!(!accepted && report.outcome.verdict == Verdict::Done, "{report:?}");
    assert_eq!(report.output, "ok\nfinished");
    // Before it starts.
    let canceller = Canceller::new().unwrap();
    assert!(canceller.cancel());
    let (journal, _) = lab.open();
    let report = lab.runner().perform(&journal, lab.next_step(), &job("any"), &canceller).unwrap();
    assert_eq!(report.outcome.text, "it was cancelled before it started");
}

#[test]
fn handlers_are_listed_with_what_is_wrong_with_them() {
    let Some(lab) = Lab::new() else { return };
    lab.handler("good", "true", "", "");
    lab.handler("bad", "true", "", "timeout = \"never\"");
    lab.write("handlers.d/README", "no manifest", 0o644);
    lab.write("handlers.d/b\u{1b}d.toml", "no name", 0o644);
    let listed = lab.runner().list().unwrap();
    let names: Vec<&str> = listed.iter().map(|handler| &handler.name[..]).collect();
    assert_eq!(names, ["b\u{1b}d", "bad", "good"]);
    assert_eq!(listed[2].manifest.as_ref().unwrap().description(), "good");
    assert!(listed[1].manifest.as_ref().unwrap_err().contains("bad.toml:"), "{listed:?}");
    assert!(!listed[0].manifest.as_ref().unwrap_err().contains('\u{1b}'), "{listed:?}");
    // Without a directory there are no handlers, which is fine. One that others can write is not.
    fs::set_permissions(lab.path("handlers.d"), Permissions::from_mode(0o777)).unwrap();
    assert!(lab.runner().list().unwrap_err().contains("chmod go-w"));
    fs::remove_dir_all(lab.path("handlers.d")).unwrap();
    assert!(lab.runner().list().unwrap().is_empty());
}
