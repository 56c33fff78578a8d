//! The agent of a device is killed in every step of a task with a handler, and machines restart in the middle of an
//! update. What was interrupted is resumed, rolled back or reported, as the handler's manifest says: never run twice
//! unnoticed, never left out unnoticed.

mod support;

use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use support::beside_others;
use support::fleet::{Device, Fleet, SOON, id, manifest, wait_for};
use support::inject::can_inject;
use support::process::Proc;
use support::traced::{Traced, strace};

/// The calls that change what the agent stores.
const CALLS: &str = "write,fsync,rename,fallocate,ftruncate";

/// Notes the beginning and the end of each run. After either it waits while there is a FIFO to wait at.
const STEP: &str = r#"#!/bin/sh
if [ "$2" = undo ]; then echo "$1 undo $MCP_RUN" >>/srv/notes; exit 0; fi
echo "$1 begin $MCP_RUN" >>/srv/notes
if [ -p /srv/begun ]; then read -r go </srv/begun; fi
echo "$1 end $MCP_RUN" >>/srv/notes
if [ -p /srv/ended ]; then read -r go </srv/ended; fi
case $1 in reboot*) exit 100 ;; esac
"#;
/// What each machine has.
const OLD: [&str; 2] = ["--attribute", "version=1.0"];
/// What an update does that has asked for a restart.
const WAITS: &str = "waits for a restart of the machine";

/// What the manifest of [`STEP`] has beside the usual.
const MORE: &str = r#"
[rollback]
exec = "/etc/mcp/handlers.d/step"
args = ["{arg.word}", "undo"]

[exit]
reboot-needed = [100]
"#;

/// One device of a fleet with the handler `step`.
struct Bench<'a> {
    fleet: &'a Fleet,
    device: Device,
    tasks: u8,
}

impl<'a> Bench<'a> {
    fn new(fleet: &'a Fleet, name: &str, interrupted: &str) -> Self {
        let device = fleet.device(name);
        device.handler("step", STEP, &manifest("step", interrupted, MORE));
        Self { fleet, device, tasks: 0 }
    }

    /// Adds an update, and returns its number and the word that its handler is given, which begins with `what`.
    fn update(&mut self, what: &str) -> (i64, String) {
        self.tasks += 1;
        let word = format!("{what}{}", letters(self.tasks));
        let name = format!("{}-{}", self.device.name, self.tasks);
        let file = self.fleet.tmp.file(&name, 2000, 1);
        let (arg, version) = (format!("word={word}"), format!("1.{}", self.tasks));
        let words = ["task", "add", "update", file.to_str().expect("UTF-8"), "--handler", "step", "--to"];
        // Once it is completed, the device has the version, and the condition does not hold any more.
        let when = format!("version < {version}");
        let more =
            [&self.device.name, "--name", &name, "--arg", &arg, "--version", &version, "--when", &when];
        (id(&self.fleet.operate(&[&words[..], &more].concat())), word)
    }

    /// Starts the agent under `strace`; it dies after the call with the number `last`.
    fn traced(&self, last: u32) -> Traced {
        let log = self.device.dir.join(format!("{}-{last}.log", self.tasks));
        let journal = ["journal", "journal/journal", "journal/journal.new", "tasks", "completed.json"];
        let paths: Vec<PathBuf> = journal.iter().map(|name| self.device.state(name)).collect();
        let stop = format!("{CALLS}:signal=STOP");
        let words = strace(&log, CALLS, &paths, &[stop]);
        Traced::new(self.device.running_under(&OLD, &words).spawn(), &log, last)
    }

    /// From now on handlers wait at this moment.
    fn hold(&self, moment: &str) {
        let made = Command::new("mkfifo").arg(self.device.path(moment)).status();
        assert!(made.is_ok_and(|status| status.success()), "mkfifo");
    }

    /// Lets a handler go that waits.
    fn go(&self, moment: &str) {
        fs::write(self.device.path(moment), "go\n").expect("write");
    }

    /// Runs the agent, which dies after the call with the number `last`. Whether it came to that.
    fn dies_at(&self, last: u32) -> bool {
        let mut agent = self.traced(last);
        wait_for("end of the agent or of its task", || agent.has_ended() || self.is_idle());
        agent.has_ended()
    }

    /// Whether the agent has no task left, and the server knows.
    fn is_idle(&self) -> bool {
        let works = self.device.works();
        works.len() == usize::from(self.tasks) && works.iter().all(|work| work["reported"] == true)
    }

    /// Lets the agent do what there is to do, and stops it. Returns what the server knows of a task then.
    fn settle(&self, task: i64) -> Value {
        let mut agent = self.device.run(&OLD);
        wait_for("end of the tasks", || self.is_idle());
        stop(&mut agent);
        self.fleet.action(task, &self.device.name)
    }

    /// What the handler noted with this word.
    fn notes(&self, word: &str) -> Vec<String> {
        let notes = self.device.notes().into_iter();
        notes.filter_map(|note| Some(note.strip_prefix(word)?.trim_start().to_owned())).collect()
    }

    /// Whether the handler, the server and the manifest agree. Returns how it was interrupted.
    #[track_caller]
    fn check(&self, policy: &str, word: &str, action: &Value) -> &'static str {
        let notes = self.notes(word);
        let told = action["message"].as_str().unwrap_or_default();
        let about = format!("{policy} {word}: {notes:?} {action}");
        let count = |what: &str| notes.iter().filter(|note| note.starts_with(what)).count();
        let (begun, ended, undone) = (count("begin"), count("end"), count("undo"));
        let mut runs = notes.clone();
        runs.dedup();
        assert_eq!(runs, notes, "a run happened twice: {about}");
        match (action["state"].as_str(), policy) {
            (Some("finished"), _) => {
                assert!(notes.last().is_some_and(|note| note.starts_with("end")), "{about}");
                assert!((begun, ended, undone) == (1, 1, 0) || policy == "resume", "{about}");
                assert!(!told.contains("not needed"), "{about}");
                if begun > 1 { "resumed" } else { "" }
            }
            (Some("failed"), "report") => {
                assert!(begun <= 1 && undone == 0 && told.contains("then retry the task"), "{about}");
                "reported"
            }
            (Some("failed"), "rollback") => {
                assert!(begun <= 1 && undone >= 1 && told.contains("it was rolled back"), "{about}");
                "rolled back"
            }
            _ => panic!("{about}"),
        }
    }
}

/// 27 is `ba`.
fn letters(n: u8) -> String {
    [n / 26, n % 26].map(|n| char::from(b'a' + n)).iter().collect()
}

/// Ends an agent as a service manager does.
fn stop(agent: &mut Proc) {
    agent.signal("TERM");
    // With 0, or by the signal if it has hardly begun.
    agent.finish(SOON);
}

/// Kills an agent after each call of a task that changes what it stores, while the handler runs, and after each call of
/// what follows then. Returns what came of it.
fn kill_at_each_call(fleet: &Fleet, policy: &str) -> Vec<&'static str> {
    let mut bench = Bench::new(fleet, policy, policy);
    let mut found = Vec::new();
    for last in 1.. {
        let (task, word) = bench.update("step");
        let died = bench.dies_at(last);
        let action = bench.settle(task);
        found.push(bench.check(policy, &word, &action));
        if !died {
            break;
        }
    }
    assert!(found.len() > 8, "the calls were not seen: {found:?}");

    for (moment, note) in [("begun", "begin 1"), ("ended", "end 1")] {
        for last in 1.. {
            let (task, word) = bench.update("step");
            bench.hold(moment);
            let mut agent = bench.device.run(&OLD);
            wait_for(note, || bench.notes(&word).iter().any(|noted| noted == note));
            agent.signal("KILL");
            agent.finish(SOON);
            fs::remove_file(bench.device.path(moment)).expect("remove");
            let died = bench.dies_at(last);
            let action = bench.settle(task);
            let what = bench.check(policy, &word, &action);
            assert_ne!(what, "", "{policy}: it was interrupted: {action}");
            found.push(what);
            if !died || moment == "ended" {
                break;
            }
        }
    }

    let left: Vec<_> =
        walk(&bench.device.state("")).into_iter().filter(|name| name.ends_with(".tmp")).collect();
    assert!(left.is_empty(), "left behind: {left:?}");
    found
}

fn walk(dir: &std::path::Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).expect("a directory").flatten() {
        match entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            true => names.extend(walk(&entry.path())),
            false => names.push(entry.path().display().to_string()),
        }
    }
    names
}

#[test]
fn killed_at_each_call_of_each_step() {
    if !can_inject() {
        return;
    }
    let _cores = beside_others();
    let Some((fleet, _server)) = Fleet::start() else { return };
    thread::scope(|scope| {
        let fleet = &fleet;
        let sweep = |policy| scope.spawn(move || (policy, kill_at_each_call(fleet, policy)));
        let threads = ["report", "resume", "rollback"].map(sweep);
        for thread in threads {
            let (policy, found) = thread.join().expect("a device");
            eprintln!("{policy}: {found:?}");
        }
    });
}

#[test]
fn a_run_that_is_resumed_cannot_be_cancelled_any_more() {
    let _cores = beside_others();
    let Some((fleet, _server)) = Fleet::start() else { return };
    let mut bench = Bench::new(&fleet, "bench-1", "resume");
    let (task, word) = bench.update("step");
    bench.hold("begun");
    let mut agent = bench.device.run(&OLD);
    wait_for("first run", || bench.notes(&word) == ["begin 1"]);
    agent.signal("KILL");
    agent.finish(SOON);
    fleet.operate(&["task", "cancel", &task.to_string()]);
    let mut agent = bench.device.run(&OLD);
    wait_for("second run", || bench.notes(&word) == ["begin 1", "begin 2"]);
    wait_for("refusal to stop", || {
        let action = fleet.action(task, "bench-1");
        action["state"] == "running" && action["task_state"] == "cancelled"
    });
    bench.go("begun");
    wait_for("end", || bench.is_idle());
    stop(&mut agent);
    assert_eq!(bench.notes(&word), ["begin 1", "begin 2", "end 2"]);
    assert_eq!(fleet.action(task, "bench-1")["state"], "finished");
}

#[test]
fn an_update_waits_for_a_restart_of_the_machine_and_is_confirmed_after_it_once() {
    let _cores = beside_others();
    let Some((fleet, _server)) = Fleet::start() else { return };
    let mut bench = Bench::new(&fleet, "bench-1", "report");
    let (task, word) = bench.update("reboot");
    let waits = |bench: &Bench<'_>| {
        let status = bench.device.mcp(&["status", "--json"]).run(SOON);
        let status: Value = serde_json::from_str(&status.lines.concat()).unwrap_or_default();
        status["tasks"][0]["doing"].as_str().is_some_and(|doing| doing.starts_with(WAITS))
    };
    for how in ["TERM", "KILL", "KILL"] {
        // A restart of the agent alone changes nothing.
        bench.device.boot(1);
        let mut agent = bench.device.run(&OLD);
        wait_for("wait for a restart", || waits(&bench));
        wait_for("word of it at the server", || fleet.action(task, "bench-1")["message"] == WAITS);
        assert_eq!(fleet.action(task, "bench-1")["state"], "running");
        agent.signal(how);
        agent.finish(SOON);
        fs::remove_file(bench.device.state("status.json")).expect("remove");
    }
    bench.device.boot(2);
    let action = bench.settle(task);
    assert_eq!(bench.check("report", &word, &action), "", "{action}");
    assert_eq!(action["message"], "the machine was restarted after it", "{action}");
    // And after another restart there is nothing left to do.
    bench.device.boot(3);
    fs::remove_file(bench.device.state("status.json")).expect("remove");
    let mut agent = bench.device.run(&OLD);
    wait_for("check-in", || bench.device.state("status.json").exists());
    stop(&mut agent);
    assert_eq!(fleet.action(task, "bench-1"), action);
    assert_eq!(bench.notes(&word), ["begin 1", "end 1"]);
}

#[test]
fn a_machine_that_restarts_at_any_call_of_an_update_needs_no_second_restart() {
    if !can_inject() {
        return;
    }
    let _cores = beside_others();
    let Some((fleet, _server)) = Fleet::start() else { return };
    let mut bench = Bench::new(&fleet, "bench-1", "report");
    let mut found = Vec::new();
    for last in 2.. {
        bench.device.boot(3 * last);
        let (task, word) = bench.update("reboot");
        let mut agent = bench.traced(last);
        let waits = || fleet.action(task, "bench-1")["message"] == WAITS;
        wait_for("end of the agent or a wait for a restart", || agent.has_ended() || waits());
        let died = agent.has_ended();
        drop(agent);
        let had_begun = !bench.notes(&word).is_empty();
        bench.device.boot(3 * last + 1);
        if !had_begun {
            // It runs now, and asks for another restart.
            let mut agent = bench.device.run(&OLD);
            wait_for("end of the task or a wait for a restart", || bench.is_idle() || waits());
            stop(&mut agent);
            bench.device.boot(3 * last + 2);
        }
        let action = bench.settle(task);
        found.push(bench.check("report", &word, &action));
        if !died {
            break;
        }
    }
    eprintln!("restarts of the machine: {found:?}");
    assert!(found.contains(&"reported") && found.ends_with(&["", ""]), "{found:?}");
}
