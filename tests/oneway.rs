//! Lines without a way back, by the real binary: receivers whose every datagram is dropped and counted, and none is
//! ever sent. Loss, an outage, forged symbols, killed receivers, senders that end too early or never.

mod support;

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use support::files::{TempDir, assert_only_copy};
use support::junk::forge_clear_symbols;
use support::lab::Lab;
use support::mcp::{MCP, Network, SOON, is_event};
use support::process::{Cmd, Proc};
use support::{StopOnDrop, alone, beside_others, is_root, skip};

const MIB: u64 = 1 << 20;

/// Commands of one test, each with a state directory of its own.
struct Line<'a> {
    network: Network,
    tmp: &'a TempDir,
}

impl<'a> Line<'a> {
    fn new(network: Network, tmp: &'a TempDir) -> Self {
        Self { network, tmp }
    }
    fn common(&self, name: &str, command: &str) -> Cmd {
        let Network { port, interface, .. } = &self.network;
        let (port, interface) = (port.unwrap_or(7417).to_string(), interface.clone().expect("an interface"));
        let cmd = Cmd::new(name, MCP).args([command, "--json", "--one-way", "-p", &port, "-i", &interface]);
        cmd.env("MCP_STATE_DIR", self.tmp.dir(&format!("state-{name}")))
    }
    fn group(&self) -> &str {
        self.network.group.as_deref().expect("a group")
    }
    /// `mcp send --one-way`, with these options.
    fn send(&self, file: &Path, options: &[&str]) -> Cmd {
        self.common("sender", "send").args(options).tail(file).tail(self.group())
    }
    fn out(&self, name: &str) -> PathBuf {
        self.tmp.dir(&format!("out-{name}"))
    }
    /// `mcp recv --one-way`, into a directory of its own.
    fn recv(&self, name: &str) -> Cmd {
        self.recv_within(name, "60s")
    }
    fn recv_within(&self, name: &str, timeout: &str) -> Cmd {
        self.common(name, "recv")
            .arg("-o")
            .arg(self.out(name))
            .args(["--timeout", timeout])
            .tail(self.group())
    }
    #[track_caller]
    fn assert_copy(&self, source: &Path, name: &str) {
        assert_only_copy(source, &self.out(name));
    }
}

/// A laboratory in which all hosts but the first are mute.
fn mute_lab(hosts: usize) -> Option<Lab> {
    let lab = Lab::new(hosts)?;
    lab.single_packets(0);
    (1..hosts).for_each(|host| lab.mute(host));
    Some(lab)
}

fn names(lab: &Lab) -> Vec<String> {
    (1..lab.hosts()).map(|host| format!("h{host}")).collect()
}

#[track_caller]
fn assert_silence(lab: &Lab) {
    for host in 1..lab.hosts() {
        assert_eq!(lab.spoken(host), 0, "host {host} has sent datagrams");
    }
}

/// Sends to eight mute receivers, some with loss.
#[track_caller]
fn eight(options: &[&str], key: bool) {
    let _cores = alone();
    let Some(lab) = mute_lab(9) else { return };
    let tmp = TempDir::new();
    let source = tmp.file("image.bin", 16 * MIB + 77, 1);
    let line = Line::new(Network::new("239.77.1.1", 7417, "eth0"), &tmp);
    for host in 1..9 {
        let per_mille = [0, 50, 200][host % 3];
        if per_mille > 0 {
            lab.lose(host, per_mille);
        }
    }
    let key_line =
        mcp::crypto::group::GroupKey::new("lab", mcp::crypto::derive::Secret::new([9; 32])).expect("a key");
    let with_key = |cmd: Cmd| if key { cmd.env("MCP_KEY", key_line.line().as_str()) } else { cmd };
    let mut receivers: Vec<Proc> =
        (1..9).map(|host| lab.on(host, with_key(line.recv(&format!("h{host}")))).spawn()).collect();
    let mut sender = lab.on(0, with_key(line.send(&source, options))).spawn();
    for (receiver, name) in receivers.iter_mut().zip(names(&lab)) {
        let end = receiver.expect(0, SOON);
        line.assert_copy(&source, &name);
        let last = end.last_event();
        assert_eq!((&last["outcome"], &last["acknowledged"]), (&"complete".into(), &false.into()));
    }
    let end = sender.expect(0, SOON);
    assert_eq!(end.last_event()["outcome"], "sent_one_way");
    assert_silence(&lab);
}

#[test]
fn eight_receivers_that_cannot_send() {
    eight(&["-r", "100M", "--repair", "30%", "--repeat", "3"], false);
}

#[test]
fn eight_receivers_with_a_group_key() {
    eight(&["-r", "100M", "--repair", "30%", "--repeat", "3"], true);
}

#[test]
fn a_burst_and_an_outage_cost_a_pass() {
    let _cores = beside_others();
    let Some(lab) = mute_lab(3) else { return };
    let tmp = TempDir::new();
    let source = tmp.file("image.bin", 16 * MIB, 2);
    let line = Line::new(Network::new("239.77.1.2", 7417, "eth0"), &tmp);
    let mut receivers: Vec<Proc> =
        (1..3).map(|host| lab.on(host, line.recv(&format!("h{host}"))).spawn()).collect();
    let mut sender = lab.on(0, line.send(&source, &["-r", "60M", "--repeat", "forever"])).spawn();
    receivers[0].received(4 * MIB);
    lab.line(1, false);
    std::thread::sleep(Duration::from_millis(700));
    lab.line(1, true);
    for (receiver, name) in receivers.iter_mut().zip(names(&lab)) {
        receiver.expect(0, SOON);
        line.assert_copy(&source, &name);
    }
    assert_silence(&lab);
    sender.signal("TERM");
    let end = sender.expect(130, SOON);
    assert_eq!(end.last_event()["outcome"], "interrupted");
}

struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn forged_symbols_are_survived_without_a_way_back() {
    if !is_root() {
        return skip("only root can send in another's name");
    }
    let _cores = alone();
    let tmp = TempDir::new();
    let source = tmp.file("image.bin", 8 * MIB + 5, 3);
    let line = Line::new(Network::loopback(), &tmp);
    let group: Ipv4Addr = line.group().parse().expect("an IPv4 group");
    let port = line.network.port.expect("a port");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        let forger = scope.spawn(|| forge_clear_symbols(group, port, &stop));
        // Whatever fails here, the forger ends.
        let _stop = StopAtEnd(&stop);
        let mut receiver = line.recv("a").spawn();
        let mut sender = line.send(&source, &["-r", "40M", "--repeat", "forever"]).spawn();
        let end = receiver.expect(0, SOON);
        line.assert_copy(&source, "a");
        let rejected = end.events().into_iter().filter(|e| is_event(e, "block_rejected")).count();
        assert!(rejected > 0, "nothing that was forged was taken");
        sender.signal("INT");
        sender.expect(130, SOON);
        stop.store(true, Ordering::Relaxed);
        let forged = forger.join().expect("the forger");
        assert!(forged >= 100, "only {forged} forged symbols");
    });
}

#[test]
fn passes_begin_no_sooner_than_they_may() {
    let _cores = beside_others();
    let Some(lab) = mute_lab(2) else { return };
    let tmp = TempDir::new();
    let source = tmp.file("image.bin", MIB, 9);
    let line = Line::new(Network::new("239.77.1.9", 7417, "eth0"), &tmp);
    let mut receiver = lab.on(1, line.recv("h1")).spawn();
    let begun = Instant::now();
    let options = ["-r", "200M", "--repeat", "3", "--every", "2s"];
    lab.on(0, line.send(&source, &options)).spawn().expect(0, SOON);
    // The last of three passes began four seconds after the first. How long a pass takes is not judged.
    assert!(begun.elapsed() >= Duration::from_secs(4));
    receiver.expect(0, SOON);
    line.assert_copy(&source, "h1");
}

#[test]
fn what_is_missing_is_told_and_the_next_run_goes_on() {
    let _cores = beside_others();
    let Some(lab) = mute_lab(2) else { return };
    let tmp = TempDir::new();
    let source = tmp.file("image.bin", 24 * MIB, 4);
    let line = Line::new(Network::new("239.77.1.3", 7417, "eth0"), &tmp);
    lab.lose(1, 2);
    let report = tmp.join("receipt.json");
    let recv = || lab.on(1, line.recv("h1").arg("--report").arg(&report));
    let receipt = || -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(&report).expect("a report")).expect("JSON")
    };
    let mut receiver = recv().spawn();
    let options = ["-r", "100M", "--repair", "0%", "--repeat", "1"];
    lab.on(0, line.send(&source, &options)).spawn().expect(0, SOON);
    let end = receiver.expect(6, SOON);
    let (last, told) = (end.last_event(), receipt());
    let missing = told["missing_blocks"].as_u64().expect("a number");
    assert!((1..24).contains(&missing), "{told}");
    assert_eq!(
        (&last["outcome"], &last["reason"]),
        (&"lacking".into(), &format!("lacks {missing} of 24 blocks").into())
    );
    assert!(end.stderr.contains(&format!("lacks {missing} of 24 blocks")), "{}", end.stderr);
    // It is killed in the middle of the next one.
    let mut receiver = recv().spawn();
    let mut sender = lab.on(0, line.send(&source, &["-r", "60M", "--repeat", "forever"])).spawn();
    receiver.event("resumed");
    receiver.signal("KILL");
    receiver.finish(SOON);
    let mut receiver = recv().spawn();
    let end = receiver.expect(0, SOON);
    line.assert_copy(&source, "h1");
    let resumed = end.events().into_iter().find(|e| is_event(e, "resumed")).expect("it goes on");
    assert!(resumed["bytes"].as_u64() >= Some((24 - missing - 1) * MIB), "{resumed}");
    let told = receipt();
    assert_eq!((&told["missing_blocks"], &told["exit_code"]), (&0.into(), &0.into()));
    assert_silence(&lab);
    // The same session is not taken again, unless that is asked for.
    std::fs::remove_file(line.out("h1").join("image.bin")).expect("the copy");
    let mut receiver = lab.on(1, line.recv_within("h1", "4s")).spawn();
    receiver.event("old_session");
    receiver.expect(5, SOON);
    let mut receiver = lab.on(1, line.recv("h1").arg("--again")).spawn();
    receiver.expect(0, SOON);
    line.assert_copy(&source, "h1");
    sender.signal("INT");
    sender.expect(130, SOON);
    assert_silence(&lab);
}

#[test]
fn a_plain_receiver_is_quiet_too_and_a_quiet_one_takes_nothing_else() {
    let _cores = beside_others();
    let Some(lab) = mute_lab(3) else { return };
    let tmp = TempDir::new();
    let source = tmp.file("image.bin", 2 * MIB, 5);
    let network = Network::new("239.77.1.4", 7417, "eth0");
    let line = Line::new(network.clone(), &tmp);
    let mut plain = lab.on(1, network.recv("h1", line.out("h1"))).spawn();
    let mut quiet = lab.on(2, line.recv_within("h2", "60s")).spawn();
    // This one waits for answers.
    let mut sender = lab.on(0, network.send(&source, 1).args(["-w", "3s"])).spawn();
    quiet.event("sender_needs");
    sender.expect(4, SOON);
    // The plain one would have answered that sender.
    let before = lab.spoken(1);
    assert!(before > 0 && lab.spoken(2) == 0);
    let mut sender = lab.on(0, line.send(&source, &["-r", "50M"])).spawn();
    for (receiver, name) in [(&mut plain, "h1"), (&mut quiet, "h2")] {
        receiver.expect(0, SOON);
        line.assert_copy(&source, name);
    }
    sender.expect(0, SOON);
    assert_eq!((lab.spoken(1), lab.spoken(2)), (before, 0));
}

#[test]
fn a_directory_arrives_without_a_way_back() {
    let _cores = beside_others();
    let Some(lab) = mute_lab(2) else { return };
    let tmp = TempDir::new();
    let dir = tmp.dir("image");
    std::fs::rename(tmp.file("part", 3 * MIB + 1, 8), dir.join("data")).expect("a file in the directory");
    std::fs::write(dir.join("zeros"), vec![0; 2 << 20]).expect("another one");
    let line = Line::new(Network::new("239.77.1.5", 7417, "eth0"), &tmp);
    lab.lose(1, 20);
    let mut receiver = lab.on(1, line.recv("h1")).spawn();
    let mut sender = lab.on(0, line.send(&dir, &["-r", "50M", "--repair", "20%"])).spawn();
    receiver.expect(0, SOON);
    sender.expect(0, SOON);
    for name in ["data", "zeros"] {
        let read = |dir: &Path| std::fs::read(dir.join(name)).expect("a file");
        assert!(read(&dir) == read(&line.out("h1").join("image")), "{name}");
    }
    assert_silence(&lab);
}

#[test]
fn options_that_need_answers_are_refused() {
    let tmp = TempDir::new();
    let source = tmp.file("image.bin", 10, 6);
    let line = Line::new(Network::loopback(), &tmp);
    for (options, says) in [
        (&["--repeat", "1"][..], "needs a fixed --rate"),
        (&["-r", "auto"], "needs a fixed --rate"),
        (&["-r", "1M", "-n", "2"], "cannot be used with"),
        (&["-r", "1M", "--linger", "5s"], "cannot be used with"),
        (&["-r", "1M", "--slow", "keep"], "cannot be used with"),
    ] {
        let end = line.send(&source, options).run(SOON);
        assert_eq!(end.status.code(), Some(2), "{options:?}: {}", end.stderr);
        assert!(end.stderr.contains(says), "{options:?}: {}", end.stderr);
    }
    let end = line.send(Path::new("-"), &["-r", "1M"]).run(SOON);
    assert!(
        end.status.code() == Some(2) && end.stderr.contains("write the stream to a file"),
        "{}",
        end.stderr
    );
}
