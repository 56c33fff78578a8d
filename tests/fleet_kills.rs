//! The server of a fleet is killed: at each change of its first start, in and after each commit of a run, and at random
//! moments. Whatever was acknowledged is there, every task ends right, and each handler runs as often as it should.

mod support;

use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use support::fleet::{Device, Fleet, SOON, id, json, manifest, wait_for};
use support::inject::can_inject;
use support::process::{End, Proc};
use support::traced::{Traced, strace};
use support::{StopOnDrop, beside_others};

/// Notes its word and its run. With the word `broken`, it fails until it is repaired.
const NOTE: &str = r#"#!/bin/sh
echo "$1 $MCP_RUN" >>/srv/notes
[ "$1" != broken ] || [ -e /srv/repaired ]
"#;

/// Where in a commit a server dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Moment {
    /// In the middle of its first writes: nothing of it is left.
    Torn,
    /// Before the sync: it is there, and nobody was told.
    BeforeSync,
    /// After the sync: the same.
    AfterSync,
}

/// Each commit is torn first, and kept the next time, before anybody was told.
const MOMENTS: [Moment; 4] = [Moment::Torn, Moment::BeforeSync, Moment::Torn, Moment::AfterSync];

/// A fleet whose server dies at every commit of what is asked of it: at the first one, then at the second, until it is done.
struct Mortal {
    fleet: Fleet,
    server: Option<(Traced, Moment)>,
    device: Device,
    agent: Option<Proc>,
    /// Servers that have died, by the moment.
    deaths: BTreeMap<Moment, u32>,
    starts: usize,
    /// Starts for what is asked at present.
    tries: usize,
    /// Writes to the log of the database that the last start took.
    writes: usize,
}

impl Mortal {
    fn wal(&self) -> PathBuf {
        self.fleet.tmp.join("server/serve/fleet.db-wal")
    }

    /// Starts the next server, if there is none that lives. Then the agent starts anew too: it would wait for seconds.
    fn revive(&mut self) {
        match self.server.as_mut().map(|(server, moment)| (server.has_ended(), *moment)) {
            Some((false, _)) => return,
            Some((true, moment)) => *self.deaths.entry(moment).or_default() += 1,
            None => {}
        }
        if let Some(mut agent) = self.agent.take() {
            agent.signal("TERM");
            // With 0, or by the signal if it has hardly begun.
            agent.finish(SOON);
        }
        self.server = None;
        while self.server.is_none() {
            let moment = MOMENTS[self.starts % MOMENTS.len()];
            // One for the line that it prints; each of the others twice.
            let commit = 2 + self.tries / 2;
            (self.starts, self.tries) = (self.starts + 1, self.tries + 1);
            let fault = match moment {
                // A commit takes some six writes, and four at least.
                Moment::Torn => format!("pwrite64:signal=KILL:when={}", self.writes + 3 + 6 * (commit - 2)),
                Moment::BeforeSync => format!("fsync:signal=KILL:when={commit}"),
                Moment::AfterSync => format!("fsync:signal=STOP:when={commit}"),
            };
            let log = self.fleet.tmp.join(format!("server-{}.log", self.starts));
            let words = strace(&log, "pwrite64,fsync", &[self.wal()], &[fault]);
            let proc = self.fleet.serving().through(words).spawn();
            let mut server = Traced::new(proc, &log, 1);
            let serves = server.proc.line_or_end(SOON).is_some();
            if serves {
                let text = fs::read_to_string(&log).expect("a log");
                let start = text.split_inclusive('\n').take_while(|line| !line.contains("fsync"));
                self.writes = start.filter(|line| line.contains("pwrite64")).count();
                self.server = Some((server, moment));
            }
        }
        self.agent = self.device.state("identity.json").exists().then(|| self.device.run(&[]));
    }

    /// Tries until it succeeds.
    #[track_caller]
    fn insist<T>(&mut self, what: &str, mut attempt: impl FnMut(&mut Self) -> Option<T>) -> T {
        let deadline = Instant::now() + SOON;
        self.tries = 0;
        loop {
            self.revive();
            if let Some(done) = attempt(self) {
                return done;
            }
            assert!(Instant::now() < deadline, "no {what} within {SOON:?}");
        }
    }

    /// A command. It may fail only if the server has died.
    fn ask(&mut self, words: &[&str]) -> Option<End> {
        let end = self.fleet.command(words).run(SOON);
        if end.code == Some(0) {
            return Some(end);
        }
        self.must_have_died(&end);
        None
    }

    /// The one good reason for a command that failed.
    fn must_have_died(&mut self, end: &End) {
        let (server, _) = self.server.as_mut().expect("a server");
        wait_for(&format!("reason for: {}", end.stderr), || server.has_ended());
    }

    /// Tries a command until it succeeds.
    #[track_caller]
    fn operate(&mut self, words: &[&str]) -> End {
        self.insist(&words.join(" "), |mortal| mortal.ask(words))
    }

    /// Adds a task as a careful operator does: an attempt that was not acknowledged is looked for before it is repeated.
    fn add(&mut self, name: &str, words: &[&str]) -> i64 {
        let file = self.fleet.tmp.file(name, 3000, 1);
        let file = file.to_str().expect("UTF-8").to_owned();
        let arg = format!("word={name}");
        let common = ["task", "add", "batch", &file, "--handler", "note", "--to", "all", "--name", name];
        let words = [&common[..], &["--arg", &arg], words].concat();
        self.insist(name, |mortal| {
            let there = mortal.tasks(name)?;
            assert!(there.len() <= 1, "added twice: {there:?}");
            there.first().copied().or_else(|| mortal.ask(&words).map(|end| id(&end)))
        })
    }

    /// The tasks of a name, unless the server has died.
    fn tasks(&mut self, name: &str) -> Option<Vec<i64>> {
        let all = self.ask(&["task", "list", "--json"])?;
        let all = json(&all).as_array().cloned().unwrap_or_default();
        let named = all.iter().filter(|task| task["task"]["name"] == name);
        Some(named.map(|task| task["id"].as_i64().expect("a number")).collect())
    }

    /// Waits until a task is so at the device.
    #[track_caller]
    fn becomes(&mut self, task: i64, state: &str) {
        let number = task.to_string();
        self.insist(&format!("{state} task {task}"), |mortal| {
            let view = json(&mortal.ask(&["task", "show", &number, "--json"])?);
            let reached = view["actions"][0]["state"] == state;
            if !reached {
                thread::sleep(Duration::from_millis(50));
            }
            reached.then_some(())
        });
    }
}

#[test]
fn killed_at_every_change_of_the_first_start_and_every_commit_after_it() {
    if !can_inject() {
        return;
    }
    let _cores = beside_others();
    let Some(fleet) = Fleet::new() else { return };
    let mut first = 0;
    let server = loop {
        first += 1;
        let log = fleet.tmp.join(format!("first-{first}.log"));
        let stop = "fsync,rename:signal=STOP".to_owned();
        let proc = fleet.serving().through(strace(&log, "fsync,rename", &[], &[stop])).spawn();
        let mut server = Traced::new(proc, &log, first);
        if server.proc.line_or_end(SOON).is_some() {
            break server;
        }
    };
    assert!(first > 5, "the changes were not seen");
    drop(server);

    let device = fleet.machine("bench-1");
    device.handler("note", NOTE, &manifest("note", "report", ""));
    let (deaths, agent) = (BTreeMap::new(), None);
    let mut mortal = Mortal { fleet, server: None, device, agent, deaths, starts: 0, tries: 0, writes: 6 };

    let line = mortal.operate(&["enrol", "new"]).lines.concat();
    mortal.insist("device", |mortal| {
        let end = mortal.device.mcp(&["join", &line, "--id", "bench-1"]).run(SOON);
        if end.code != Some(0) {
            mortal.must_have_died(&end);
        }
        (end.code == Some(0)).then_some(())
    });
    mortal.agent = Some(mortal.device.run(&[]));

    let done = mortal.add("done", &[]);
    mortal.becomes(done, "finished");
    let held = mortal.add("held", &["--start-in", "1h"]);
    mortal.becomes(held, "running");
    mortal.operate(&["task", "cancel", &held.to_string()]);
    mortal.becomes(held, "cancelled");
    let broken = mortal.add("broken", &[]);
    mortal.becomes(broken, "failed");
    fs::write(mortal.device.path("repaired"), "").expect("write");
    mortal.operate(&["task", "retry", &broken.to_string()]);
    mortal.becomes(broken, "finished");

    assert_eq!(mortal.device.notes(), ["done 1", "broken 1", "broken 1"]);
    let trail = json(&mortal.operate(&["operator", "audit", "--json"]));
    let held = held.to_string();
    for (what, subject) in
        [("add task", "done 1"), ("add task", "held 1"), ("add task", "broken 1"), ("cancel task", &held[..])]
    {
        let told = |entry: &Value| entry["what"] == what && entry["subject"] == subject;
        let entries = trail.as_array().expect("entries");
        assert!(entries.iter().any(told), "{what} {subject} is missing in {trail:#}");
    }
    for name in ["done", "held", "broken"] {
        let tasks = mortal.insist("list", |mortal| mortal.tasks(name));
        assert_eq!(tasks.len(), 1, "{name}");
    }
    eprintln!("{first} first starts; servers that died: {:?}", mortal.deaths);
    assert!(MOMENTS.iter().all(|moment| mortal.deaths[moment] >= 10), "{:?}", mortal.deaths);
    drop(mortal.server.take());
    whole(&mortal.fleet);
}

/// Asserts that the database of a server that was killed is in order.
fn whole(fleet: &Fleet) {
    let copy = fleet.tmp.join("copy.db");
    fleet.operate(&["serve", "backup", copy.to_str().expect("UTF-8")]);
}

#[test]
fn killed_at_fifty_random_moments_while_small_tasks_are_in_flight() {
    const KILLS: u32 = 50;
    const TASKS: usize = 12;
    let _cores = beside_others();
    let seed = std::env::var("MCP_KILLS_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| fastrand::u64(..1 << 32));
    eprintln!("random kills: MCP_KILLS_SEED={seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let Some((fleet, mut server)) = Fleet::start() else { return };
    let devices: Vec<Device> = (1..=3).map(|n| fleet.device(&format!("bench-{n}"))).collect();
    devices.iter().for_each(|device| device.handler("note", NOTE, &manifest("note", "report", "")));
    let agents: Vec<Proc> = devices.iter().map(|device| device.run(&[])).collect();
    let name = |n: usize| format!("task{}", char::from(b'a' + n as u8));
    let files: Vec<PathBuf> = (0..TASKS).map(|n| fleet.tmp.file(name(n), 20_000, n as u64)).collect();

    let over = AtomicBool::new(false);
    let ids: Vec<i64> = thread::scope(|scope| {
        let _over = StopOnDrop(&over);
        let operator = scope.spawn(|| (0..TASKS).map(|n| add(&fleet, &name(n), &files[n], &over)).collect());
        for kill in 0..KILLS {
            thread::sleep(Duration::from_millis(rng.u64(0..900)));
            server.signal("KILL");
            server.finish(SOON);
            server = fleet.serving().spawn();
            if kill + 1 < KILLS && rng.u8(..4) == 0 {
                // While it starts.
                thread::sleep(Duration::from_millis(rng.u64(0..60)));
            } else {
                server.next_line(SOON);
            }
        }
        operator.join().expect("an operator")
    });
    for (n, task) in ids.iter().enumerate() {
        let number = task.to_string();
        let mut watch = fleet.command(&["task", "show", &number, "--watch", "--json"]).spawn();
        let end = watch.finish(SOON * 2);
        assert_eq!(end.code, Some(0), "{}: {}", name(n), watch.transcript());
    }
    let mut expected: Vec<String> = (0..TASKS).map(|n| format!("{} 1", name(n))).collect();
    expected.sort();
    for device in &devices {
        let mut notes = device.notes();
        notes.sort();
        assert_eq!(notes, expected, "{}", device.name);
    }
    drop(agents);
    server.signal("KILL");
    server.finish(SOON);
    whole(&fleet);
}

/// Adds a task while the server comes and goes.
fn add(fleet: &Fleet, name: &str, file: &Path, over: &AtomicBool) -> i64 {
    let (arg, file) = (format!("word={name}"), file.to_str().expect("UTF-8"));
    let words =
        ["task", "add", "batch", file, "--handler", "note", "--to", "all", "--name", name, "--arg", &arg];
    let deadline = Instant::now() + SOON * 2;
    loop {
        assert!(Instant::now() < deadline && !over.load(Ordering::Relaxed), "{name} could not be added");
        let list = fleet.command(&["task", "list", "--json"]).run(SOON);
        if list.code == Some(0) {
            let all = json(&list).as_array().cloned().unwrap_or_default();
            let there: Vec<_> = all.iter().filter(|task| task["task"]["name"] == name).collect();
            assert!(there.len() <= 1, "added twice: {there:?}");
            if let Some(task) = there.first() {
                return task["id"].as_i64().expect("a number");
            }
            let end = fleet.command(&words).run(SOON);
            if end.code == Some(0) {
                // The operator does something else in between.
                thread::sleep(Duration::from_millis(700));
                return id(&end);
            }
        }
        thread::sleep(Duration::from_millis(30));
    }
}
