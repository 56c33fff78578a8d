//! The real binary when networks and machines go away and come back: interfaces that are switched off, created anew
//! or renumbered, memberships that a switch forgets, processes that are stopped. No traffic leaves the machine. Needs
//! what `netns.rs` needs.

mod support;

use serde_json::Value;
use std::cell::Cell;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use support::files::{TempDir, assert_only_copy};
use support::lab::Lab;
use support::mcp::{Network, Report, SOON, is_event};
use support::process::{Cmd, Proc};

const MIB: u64 = 1 << 20;
/// Slow enough for something to happen in mid-transfer, and for tests beside each other.
const RATE: &str = "24M";
const GROUP: &str = "239.77.0.3";

/// A file on its way from host 0 to the others, which run receivers.
struct Scene {
    lab: Lab,
    tmp: TempDir,
    source: PathBuf,
    network: Network,
}

impl Scene {
    fn new(hosts: usize, size: u64) -> Option<Self> {
        let lab = Lab::new(hosts)?;
        let tmp = TempDir::new();
        let source = tmp.file("image.bin", size, size);
        Some(Self { lab, tmp, source, network: Network::new(GROUP, 7417, "eth0") })
    }
    fn dir(&self, host: usize) -> PathBuf {
        self.tmp.dir(&format!("h{host}"))
    }
    fn receiver(&self, host: usize) -> Proc {
        self.lab.on(host, self.network.recv(&format!("h{host}"), self.dir(host))).spawn()
    }
    fn receivers(&self) -> Vec<Proc> {
        (1..self.lab.hosts()).map(|host| self.receiver(host)).collect()
    }
    fn sender(&self) -> Cmd {
        self.sender_at(RATE)
    }
    fn sender_at(&self, rate: &str) -> Cmd {
        let cmd = self.network.send(&self.source, self.lab.hosts() - 1).args(["--rate", rate]);
        self.lab.on(0, cmd.arg("--report").arg(self.tmp.join("report.json")))
    }
    #[track_caller]
    fn completes(&self, host: usize, receiver: &mut Proc) {
        receiver.expect(0, SOON);
        assert_only_copy(&self.source, &self.dir(host));
    }
    /// All complete, the sender last.
    #[track_caller]
    fn all_complete(&self, receivers: &mut [Proc], sender: &mut Proc) -> Report {
        for (host, receiver) in (1..).zip(receivers) {
            self.completes(host, receiver);
        }
        sender.expect(0, SOON);
        Report::read(&self.tmp.join("report.json"))
    }
}

/// Waits for a warning with these words in it.
#[track_caller]
fn warned(process: &mut Proc, words: &str) -> Value {
    process.until(&format!("warning of \"{words}\""), SOON, |e| {
        is_event(e, "warning") && e["text"].as_str().is_some_and(|text| text.contains(words))
    })
}

/// Time that passes because that is what is tested.
fn pass(seconds: u64) {
    std::thread::sleep(Duration::from_secs(seconds));
}

#[test]
fn receiver_off_the_network_for_a_while() {
    let Some(scene) = Scene::new(3, 16 * MIB) else { return };
    let mut receivers = scene.receivers();
    let mut sender = scene.sender().spawn();
    receivers[1].received(2 * MIB);
    scene.lab.ip(2, "link set eth0 down");
    pass(3);
    scene.lab.ip(2, "link set eth0 up");
    scene.all_complete(&mut receivers, &mut sender);
}

#[test]
fn ipv6_off_the_network_for_a_while() {
    let Some(mut scene) = Scene::new(3, 8 * MIB) else { return };
    scene.network.group = Some("ff15::77:3".into());
    let mut receivers = scene.receivers();
    let mut sender = scene.sender().spawn();
    receivers[1].received(2 * MIB);
    // The kernel forgets IPv6 addresses of what is switched off; who gave them gives them again.
    for host in [0, 2] {
        scene.lab.ip(host, "link set eth0 down");
    }
    pass(2);
    for host in [2, 0] {
        scene.lab.ip(host, "link set eth0 up");
        scene.lab.ip(host, &format!("address add {}/64 dev eth0 nodad", scene.lab.address6(host)));
    }
    scene.all_complete(&mut receivers, &mut sender);
}

#[test]
fn receiver_whose_interface_is_made_anew() {
    let Some(scene) = Scene::new(3, 16 * MIB) else { return };
    let mut receivers = scene.receivers();
    let mut sender = scene.sender().spawn();
    receivers[1].received(2 * MIB);
    let before = scene.lab.index(2);
    scene.lab.unplug(2);
    pass(1);
    scene.lab.plug(2);
    assert_ne!(before, scene.lab.index(2));
    // By the group again, and not to the end from hand to hand.
    receivers[1].received(12 * MIB);
    let report = scene.all_complete(&mut receivers, &mut sender);
    let alone = report.row("h2")["unicast_symbols"].as_u64().expect("a count");
    assert!(alone * 1408 < 12 * MIB, "{:#}", report.0);
}

#[test]
fn receivers_that_start_before_their_network() {
    let Some(scene) = Scene::new(3, 4 * MIB) else { return };
    for host in [1, 2] {
        scene.lab.ip(host, "address flush dev eth0");
    }
    scene.lab.ip(2, "link set eth0 down");
    let anywhere = Network { interface: None, ..scene.network.clone() };
    let mut named = scene.receiver(1);
    let mut any = scene.lab.on(2, anywhere.recv("h2", scene.dir(2))).spawn();
    warned(&mut named, "interface eth0 has no IPv4 address");
    any.event("start");
    let mut sender = scene.sender().spawn();
    pass(1);
    for host in [1, 2] {
        scene.lab.ip(host, "link set eth0 up");
        scene.lab.ip(host, &format!("address add {}/24 dev eth0", scene.lab.address(host)));
    }
    scene.all_complete(&mut [named, any], &mut sender);
}

#[test]
fn sender_off_the_network_for_a_while() {
    let Some(scene) = Scene::new(3, 8 * MIB) else { return };
    let mut receivers = scene.receivers();
    let mut sender = scene.sender().spawn();
    receivers[0].received(2 * MIB);
    scene.lab.ip(0, "link set eth0 down");
    warned(&mut sender, "eth0 is down");
    pass(3);
    scene.lab.ip(0, "link set eth0 up");
    warned(&mut sender, "is back");
    scene.all_complete(&mut receivers, &mut sender);
}

#[test]
fn sender_whose_interface_is_made_anew() {
    let Some(scene) = Scene::new(3, 8 * MIB) else { return };
    let mut receivers = scene.receivers();
    let mut sender = scene.sender().spawn();
    receivers[0].received(2 * MIB);
    scene.lab.unplug(0);
    warned(&mut sender, "interface eth0");
    scene.lab.plug(0);
    scene.all_complete(&mut receivers, &mut sender);
}

fn sender_off_the_network_for_good() {
    let Some(scene) = Scene::new(2, 4 * MIB) else { return };
    let mut receiver = scene.receiver(1);
    let mut sender = scene.sender().spawn();
    receiver.received(MIB);
    let since = Instant::now();
    scene.lab.ip(0, "link set eth0 down");
    let end = sender.expect(1, SOON);
    assert!(since.elapsed() >= Duration::from_secs(10), "it waits a while: {:?}", since.elapsed());
    let error = end.stderr.lines().last().unwrap_or_default().to_owned();
    assert!(error.contains("interface eth0 is down") && error.contains("check the interface"), "{error}");
}

/// Gives a host another address in the place of the one it has.
fn renumber(lab: &Lab, host: usize) {
    lab.ip(host, "address add 10.77.0.99/24 broadcast + dev eth0");
    lab.ip(host, &format!("address delete {}/24 dev eth0", lab.address(host)));
    // The second address of a subnet goes with the first unless it is promoted.
    if !lab.ip(host, "address show dev eth0").contains("10.77.0.99") {
        lab.ip(host, "address add 10.77.0.99/24 broadcast + dev eth0");
    }
}

#[test]
fn receiver_with_another_address() {
    let Some(scene) = Scene::new(3, 8 * MIB) else { return };
    scene.lab.lose(2, 20);
    let mut receivers = scene.receivers();
    let mut sender = scene.sender().spawn();
    receivers[1].received(2 * MIB);
    renumber(&scene.lab, 2);
    scene.all_complete(&mut receivers, &mut sender);
}

#[test]
fn sender_with_another_address() {
    let Some(scene) = Scene::new(3, 8 * MIB) else { return };
    let mut receivers = scene.receivers();
    let mut sender = scene.sender().spawn();
    receivers[1].received(2 * MIB);
    renumber(&scene.lab, 0);
    scene.all_complete(&mut receivers, &mut sender);
}

#[test]
fn membership_that_the_switch_forgets() {
    let Some(scene) = Scene::new(3, 32 * MIB) else { return };
    scene.lab.snoop();
    let mut receivers = scene.receivers();
    let mut sender = scene.sender().spawn();
    receivers[1].received(4 * MIB);
    // Between leaving and joining anew, the bridge may not know it.
    let deadline = Instant::now() + SOON;
    while !scene.lab.forget(2, GROUP) {
        assert!(Instant::now() < deadline, "the bridge never learns who wants the group");
        std::thread::sleep(Duration::from_millis(20));
    }
    let report = scene.all_complete(&mut receivers, &mut sender);
    let alone = report.row("h2")["unicast_symbols"].as_u64().expect("a count");
    assert!(alone * 1408 < 24 * MIB, "the group has it back: {:#}", report.0);
}

/// Groups do not reach the devices any more, from early in the stream on.
#[track_caller]
fn unreachable_by_the_group(hosts: usize, unreachable: std::ops::RangeInclusive<usize>) {
    let Some(scene) = Scene::new(hosts, 8 * MIB) else { return };
    let mut receivers = scene.receivers();
    let mut sender = scene.sender().spawn();
    receivers[0].received(MIB);
    unreachable.for_each(|host| scene.lab.no_groups(host));
    scene.all_complete(&mut receivers, &mut sender);
}

#[test]
fn groups_that_do_not_reach_some_any_more() {
    unreachable_by_the_group(4, 2..=3);
}

#[test]
fn groups_that_do_not_reach_the_only_device_any_more() {
    unreachable_by_the_group(2, 1..=1);
}

/// Most of the time nothing runs in these: together they take no longer than the longest.
#[test]
fn stopped_and_woken_again_and_off_for_good() {
    std::thread::scope(|scope| {
        scope.spawn(sender_off_the_network_for_good);
        scope.spawn(receiver_that_is_stopped);
        scope.spawn(sender_that_wakes_before_its_devices);
        scope.spawn(receivers_that_wake_before_their_sender);
    });
}

fn receiver_that_is_stopped() {
    let Some(scene) = Scene::new(3, 8 * MIB) else { return };
    let mut receivers = scene.receivers();
    let mut sender = scene.sender().args(["--linger", "30s"]).spawn();
    receivers[1].received(2 * MIB);
    receivers[1].signal("STOP");
    // Longer than a device may be silent.
    pass(12);
    receivers[1].signal("CONT");
    for (host, receiver) in (1..).zip(&mut receivers) {
        scene.completes(host, receiver);
    }
    sender.signal("INT");
    sender.finish(SOON);
}

fn sender_that_wakes_before_its_devices() {
    let Some(scene) = Scene::new(3, 8 * MIB) else { return };
    let mut receivers = scene.receivers();
    let mut sender = scene.sender().spawn();
    receivers[1].received(2 * MIB);
    receivers.iter().for_each(|p| p.signal("STOP"));
    // Nothing they have said is left in the sender's socket.
    pass(1);
    sender.signal("STOP");
    pass(11);
    sender.signal("CONT");
    warned(&mut sender, "stood still");
    pass(1);
    receivers.iter().for_each(|p| p.signal("CONT"));
    scene.all_complete(&mut receivers, &mut sender);
    assert!(!sender.has(|e| e["status"] == "lost"), "nobody was given up");
}

fn receivers_that_wake_before_their_sender() {
    let Some(scene) = Scene::new(3, 8 * MIB) else { return };
    let mut receivers = scene.receivers();
    let mut sender = scene.sender().spawn();
    receivers[1].received(2 * MIB);
    sender.signal("STOP");
    pass(1);
    receivers.iter().for_each(|p| p.signal("STOP"));
    // Longer than the sender may be silent.
    pass(20);
    receivers.iter().for_each(|p| p.signal("CONT"));
    receivers.iter_mut().for_each(|p| drop(warned(p, "stood still")));
    sender.signal("CONT");
    scene.all_complete(&mut receivers, &mut sender);
}

#[test]
fn interrupted_while_nothing_can_be_sent() {
    let Some(scene) = Scene::new(2, 64 * MIB) else { return };
    let mut receiver = scene.receiver(1);
    let mut sender = scene.sender_at("1G").spawn();
    receiver.event("receiving");
    scene.lab.hold(0);
    // The queue takes what the socket may hold, and then nothing more.
    let position = |e: &Value| e["streamed_bytes"].as_u64();
    let last = Cell::new(None);
    sender.until("no headway", SOON, |e| {
        let now = is_event(e, "progress").then(|| position(e)).flatten();
        let stuck = now.is_some() && now == last.get();
        last.set(now.or(last.get()));
        stuck
    });
    sender.signal("INT");
    sender.expect(130, SOON);
}
