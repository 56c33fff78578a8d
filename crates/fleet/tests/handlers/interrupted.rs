//! Agents that are killed while handlers run.

use super::*;
use mcp_fleet::journal::{Begin, Outcome, Verdict};
use serde_json::json;
use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Steps of the task.
const STEPS: u32 = 4;

fn step(part: u32) -> StepId {
    StepId { task: [9; 32], attempt: 1, part, action: Action::Run }
}

fn job_of(handler: &str, part: u32) -> Job {
    Job { arguments: Values::from([("step".into(), json!(part))]), ..job(handler) }
}

/// An agent: recovers what was interrupted, then performs all steps of a task, in the lab that the environment names.
#[test]
#[ignore = "is run by the tests of killed agents"]
fn child() {
    let (Some(root), Ok(handler)) = (std::env::var_os("LAB"), std::env::var("HANDLER")) else { return };
    let lab = Lab::at(root.into());
    let (journal, unfinished) = lab.open();
    let runner = lab.runner();
    let recovered = runner.recover(&journal, unfinished).unwrap();
    assert!(recovered.others.is_empty());
    for part in 0..STEPS {
        let canceller = Canceller::new().unwrap();
        runner.perform(&journal, step(part), &job_of(&handler, part), &canceller).unwrap();
    }
    lab.write("out/finished", "", 0o644);
}

/// Kills agents at random moments until one finishes. Returns how many were killed, and what the journal says of each
/// step.
fn kill_agents(lab: &Lab, handler: &str, marker: &str, seed: u64) -> (u32, Vec<Outcome>) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut killed = 0;
    while !lab.path("out/finished").exists() {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "interrupted::child", "--ignored", "--nocapture"])
            .env("LAB", &lab.root)
            .env("HANDLER", handler)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        if killed < 14 {
            std::thread::sleep(Duration::from_millis(rng.u64(10..500)));
            // It may have ended by itself.
            let _ = child.kill();
        }
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!said.contains("panicked"), "{said}");
        killed += u32::from(!output.status.success());
        // What it ran dies with it.
        for _ in 0..200 {
            if processes(marker).is_empty() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(processes(marker), Vec::<u32>::new());
    }
    let (journal, unfinished) = lab.open();
    assert!(unfinished.is_empty(), "{unfinished:?}");
    let journal = journal.lock().unwrap();
    let outcomes = (0..STEPS).map(|part| journal.outcome(&step(part)).unwrap().clone()).collect();
    (killed, outcomes)
}

/// A handler that takes a while and says what it does; each line of `out/log`: the step, a word, the run.
fn slow(lab: &Lab, marker: &str, policy: &str) {
    let say = |word: &str| format!("echo \"$1 {word} $MCP_RUN\" >>\"$OUT/log\"");
    let script = format!("{}\n(sleep 0.15; exit) & : {marker}\nsleep 0.15\n{}", say("start"), say("end"));
    let script = script.replace("(sleep 0.15; exit)", &format!("(sh -c 'sleep 0.15' {marker})"));
    let rollback = format!("#!/bin/sh\nsleep 0.1; {}\n", say("undone"));
    let rollback = lab.write("bin/rollback", &rollback, 0o755);
    let more = format!(
        "args = [\"{{arg.step}}\"]\n[rollback]\nexec = \"{}\"\nargs = [\"{{arg.step}}\"]\n\
         [arguments.step]\ntype = \"integer\"\nmin = 0\nmax = 99",
        rollback.display()
    );
    lab.handler("slow", &script, &format!("interrupted = \"{policy}\""), &more);
}

/// The lines of the log: for each step, the words and runs.
fn log(lab: &Lab) -> BTreeMap<u32, Vec<(String, u32)>> {
    let mut steps: BTreeMap<u32, Vec<(String, u32)>> = BTreeMap::new();
    for line in lab.out("log").lines() {
        let words: Vec<&str> = line.split(' ').collect();
        steps
            .entry(words[0].parse().unwrap())
            .or_default()
            .push((words[1].into(), words[2].parse().unwrap()));
    }
    steps
}

fn count(lines: &[(String, u32)], word: &str) -> usize {
    lines.iter().filter(|(said, _)| said == word).count()
}

#[test]
fn steps_that_can_be_resumed_are_and_each_run_is_counted() {
    let Some(lab) = Lab::new() else { return };
    let marker = marker();
    slow(&lab, &marker, "resume");
    let (killed, outcomes) = kill_agents(&lab, "slow", &marker, 1);
    assert!(killed >= 3, "{killed}");
    let mut resumed = 0;
    for (part, lines) in log(&lab) {
        let runs: Vec<u32> = lines.iter().filter(|(word, _)| word == "start").map(|(_, run)| *run).collect();
        assert!(runs.is_sorted_by(|a, b| a < b), "step {part}: a run happened twice: {lines:?}");
        resumed += runs.iter().filter(|run| **run > 1).count();
        match outcomes[part as usize].verdict {
            Verdict::Done => assert!(count(&lines, "end") >= 1, "{lines:?}"),
            // It was interrupted too often.
            verdict => assert!(verdict == Verdict::Interrupted && runs.last() >= Some(&4), "{lines:?}"),
        }
    }
    assert!(resumed > 0, "no run was interrupted");
}

#[test]
fn steps_that_nobody_may_repeat_are_reported() {
    let Some(lab) = Lab::new() else { return };
    let marker = marker();
    slow(&lab, &marker, "report");
    let (_, outcomes) = kill_agents(&lab, "slow", &marker, 2);
    let log = log(&lab);
    for (part, outcome) in outcomes.iter().enumerate() {
        let lines = log.get(&(part as u32)).cloned().unwrap_or_default();
        assert!(count(&lines, "start") <= 1, "{lines:?}");
        match outcome.verdict {
            Verdict::Done => assert_eq!(count(&lines, "end"), 1),
            verdict => {
                assert!(verdict == Verdict::Interrupted && outcome.text.contains("retry"), "{outcome:?}")
            }
        }
    }
    assert!(outcomes.iter().any(|outcome| outcome.verdict == Verdict::Interrupted), "{outcomes:?}");
}

#[test]
fn steps_that_can_be_undone_are() {
    let Some(lab) = Lab::new() else { return };
    let marker = marker();
    slow(&lab, &marker, "rollback");
    let (_, outcomes) = kill_agents(&lab, "slow", &marker, 3);
    let log = log(&lab);
    for (part, outcome) in outcomes.iter().enumerate() {
        let lines = log.get(&(part as u32)).cloned().unwrap_or_default();
        assert!(count(&lines, "start") <= 1, "{lines:?}");
        match outcome.verdict {
            Verdict::Done => assert_eq!((count(&lines, "end"), count(&lines, "undone")), (1, 0)),
            Verdict::Failed => assert!(count(&lines, "undone") >= 1, "{lines:?} {outcome:?}"),
            verdict => panic!("{verdict:?}"),
        }
    }
    assert!(outcomes.iter().any(|outcome| outcome.verdict == Verdict::Failed), "{outcomes:?}");
}

#[test]
fn a_run_that_asked_for_a_restart_is_not_run_again_whenever_the_machine_stops() {
    let Some(lab) = Lab::new() else { return };
    lab.handler(
        "again",
        "echo ran >>\"$OUT/log\"; exit 100",
        "interrupted = \"resume\"",
        "[exit]\nreboot-needed = [100]",
    );
    let restart = |part| StepId { action: Action::Reboot, ..step(part) };
    let (journal, _) = lab.open();
    let report = lab.runner().perform(&journal, step(0), &job("again"), &Canceller::new().unwrap()).unwrap();
    assert_eq!(report.outcome.verdict, Verdict::RebootNeeded, "{report:?}");
    assert!(journal.lock().unwrap().has_begun(&restart(0)));
    // The agent was killed before the run had ended in the journal, and after it had asked.
    {
        let mut journal = journal.lock().unwrap();
        let _ = journal.begin(step(1), &serde_json::to_string(&job("again")).unwrap()).unwrap();
        let _ = journal.begin(restart(1), "").unwrap();
    }
    drop(journal);
    let (journal, unfinished) = lab.open();
    let recovered = lab.runner().recover(&journal, unfinished).unwrap();
    assert_eq!(recovered.reports.len(), 1);
    assert_eq!(recovered.reports[0].1.outcome.verdict, Verdict::RebootNeeded, "{recovered:?}");
    assert_eq!(recovered.others.iter().map(|step| step.id).collect::<Vec<_>>(), [restart(1), restart(0)]);
    assert_eq!(lab.out("log"), "ran\n");
}

#[test]
fn a_check_tells_what_an_interrupted_run_has_done() {
    let Some(lab) = Lab::new() else { return };
    let check = lab.write("bin/check", "#!/bin/sh\n[ -e \"$OUT/it\" ]\n", 0o755);
    lab.handler("make", "touch \"$OUT/it\"", "", &format!("[check]\nexec = \"{}\"", check.display()));
    let note = serde_json::to_string(&job("make")).unwrap();
    let id = step(0);
    let interrupt = |id| {
        let (journal, _) = lab.open();
        let begun = journal.lock().unwrap().begin(id, &note).unwrap();
        drop(begun);
    };
    interrupt(id);
    lab.write("out/it", "", 0o644);
    let (journal, unfinished) = lab.open();
    let reports = lab.runner().recover(&journal, unfinished).unwrap().reports;
    assert_eq!((reports[0].0, reports[0].1.outcome.verdict), (id, Verdict::Done), "{reports:?}");
    drop(journal);
    // A handler that is gone meanwhile is no reason to forget the step.
    fs::remove_file(lab.path("out/it")).unwrap();
    interrupt(step(1));
    fs::remove_file(lab.path("handlers.d/make.toml")).unwrap();
    let (journal, unfinished) = lab.open();
    let reports = lab.runner().recover(&journal, unfinished).unwrap().reports;
    assert_eq!(reports[0].1.outcome.verdict, Verdict::Interrupted);
    assert!(reports[0].1.outcome.text.contains("no handler 'make'"), "{reports:?}");
}

#[test]
fn a_rollback_that_has_ended_is_not_run_again() {
    let Some(lab) = Lab::new() else { return };
    slow(&lab, &marker(), "rollback");
    let note = serde_json::to_string(&job_of("slow", 0)).unwrap();
    // The agent was killed between the end of the rollback and the end of its run.
    {
        let (journal, _) = lab.open();
        let mut journal = journal.lock().unwrap();
        let _ = journal.begin(step(0), &note).unwrap();
        let rollback = StepId { action: Action::Rollback, ..step(0) };
        let Begin::Started(started) = journal.begin(rollback, &note).unwrap() else { panic!("it was begun") };
        journal.end(started, Outcome::new(Verdict::Done, "exited with 0")).unwrap();
    }
    let (journal, unfinished) = lab.open();
    let reports = lab.runner().recover(&journal, unfinished).unwrap().reports;
    assert_eq!((reports.len(), reports[0].1.outcome.verdict), (1, Verdict::Failed));
    assert!(reports[0].1.outcome.text.ends_with("it was rolled back"), "{reports:?}");
    assert_eq!(lab.out("log"), "");
}
