//! Each kind of content to eight devices at once, in namespaces, each behind a line that loses one datagram in a hundred. Every copy
//! is compared.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::beside_others;
use support::files::{TempDir, assert_only_copy, names};
use support::lab::Lab;
use support::loops::Loop;
use support::mcp::{MCP, Network, SOON};
use support::process::{Cmd, End, Proc};

const MIB: u64 = 1 << 20;
const DEVICES: usize = 8;

/// A sender at host 0, and eight devices.
struct Site {
    lab: Lab,
    tmp: TempDir,
    network: Network,
}

impl Site {
    fn new() -> Option<Self> {
        let lab = Lab::new(DEVICES + 1)?;
        lab.single_packets(0);
        (1..=DEVICES).for_each(|host| lab.lose(host, 10));
        Some(Self { lab, tmp: TempDir::new(), network: Network::new("239.77.0.1", 7417, "eth0") })
    }

    /// Where a device puts what it gets.
    fn place(&self, host: usize) -> PathBuf {
        self.tmp.dir(&format!("place-{host}"))
    }

    /// Starts `mcp recv -o OUTPUT` at each device, for any sender, as `more` has it.
    fn receive(&self, output: impl Fn(usize) -> PathBuf, more: impl Fn(usize, Cmd) -> Cmd) -> Vec<Proc> {
        let receive = |host| {
            let recv = self.network.recv(&format!("h{host}"), output(host)).arg("--any-sender");
            let state = self.tmp.dir(&format!("state-{host}"));
            self.lab.on(host, more(host, recv).env("MCP_STATE_DIR", state)).spawn()
        };
        (1..=DEVICES).map(receive).collect()
    }

    /// `mcp send WORDS... GROUP` to all of them.
    fn send(&self, words: &[&str]) -> Cmd {
        let Network { group, port, .. } = &self.network;
        let (port, count) = (port.expect("a port").to_string(), DEVICES.to_string());
        let send = Cmd::new("sender", MCP).args(["send", "--json", "-n", &count, "--rate", "100M"]);
        let send = send.args(["-i", "eth0", "-p", &port]).args(words).tail(group.as_ref().expect("a group"));
        self.lab.on(0, send.env("MCP_STATE_DIR", self.tmp.dir("state-0")))
    }

    /// Sends, and waits until the sender and all devices say that it is complete. Returns the ends of the devices.
    #[track_caller]
    fn complete(&self, sender: Cmd, mut devices: Vec<Proc>) -> Vec<End> {
        sender.spawn().expect(0, SOON);
        devices.iter_mut().map(|device| device.expect(0, SOON)).collect()
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[track_caller]
fn assert_same(a: &Path, b: &Path) {
    let same = Command::new("diff").arg("-r").args([a, b]).status().is_ok_and(|status| status.success());
    assert!(same, "{} is not {}", b.display(), a.display());
}

#[test]
fn a_disk_onto_disks() {
    let _shared = beside_others();
    if !Loop::possible() {
        return;
    }
    let Some(site) = Site::new() else { return };
    let image = site.tmp.file("image", 6 * MIB, 1);
    // The second half of the disk is empty.
    let source = Loop::sized(&image, 12 * MIB);
    let disks: Vec<Loop> =
        (1..=DEVICES).map(|host| Loop::sized(&site.tmp.join(format!("disk-{host}")), 12 * MIB)).collect();
    let devices = site.receive(|host| disks[host - 1].device.clone(), |_, recv| recv);
    site.complete(site.send(&[source.path()]), devices);
    disks.iter().for_each(|disk| assert_same(&image, &disk.file));
}

#[test]
fn a_directory() {
    let _shared = beside_others();
    let Some(site) = Site::new() else { return };
    let tree = site.tmp.dir("lab-image");
    site.tmp.file("lab-image/large", 3 * MIB, 2);
    for number in 0..40 {
        let dir = tree.join(format!("d{}", number % 4));
        fs::create_dir_all(&dir).expect("directory");
        fs::write(dir.join(format!("f{number}")), vec![number; 3000]).expect("file");
    }
    std::os::unix::fs::symlink("large", tree.join("link")).expect("link");
    let devices = site.receive(|host| site.place(host), |_, recv| recv);
    site.complete(site.send(&[&format!("{}/", text(&tree))]), devices);
    for host in 1..=DEVICES {
        assert_eq!(names(&site.place(host)), ["lab-image"]);
        assert_same(&tree, &site.place(host).join("lab-image"));
    }
}

#[test]
fn several_files() {
    let _shared = beside_others();
    let Some(site) = Site::new() else { return };
    let files = [("a.iso", 2 * MIB + 1), ("b.iso", MIB), ("notes.txt", 77)];
    let files = files.map(|(name, size)| site.tmp.file(name, size, size));
    let devices = site.receive(|host| site.place(host), |_, recv| recv);
    site.complete(site.send(&files.each_ref().map(|file| text(file))), devices);
    for host in 1..=DEVICES {
        assert_eq!(names(&site.place(host)), ["a.iso", "b.iso", "notes.txt"]);
        files.iter().for_each(|file| assert_same(file, &site.place(host).join(file.file_name().unwrap())));
    }
}

#[test]
fn a_pipeline_into_pipelines() {
    let _shared = beside_others();
    let Some(site) = Site::new() else { return };
    let source = site.tmp.file("image", 5 * MIB + 99, 3);
    let devices = site.receive(
        |_| "-".into(),
        |host, recv| {
            let script = format!("set -o pipefail; \"$0\" \"$@\" | cat >'{}/copy'", text(&site.place(host)));
            recv.args(["--name", "d1p2"]).through(["bash", "-c", &script])
        },
    );
    let script = format!("cat '{}' | \"$0\" \"$@\"", text(&source));
    let sender = site.send(&["-", "--name", "d1p2"]).through(["bash", "-c", &script]);
    site.complete(sender, devices);
    (1..=DEVICES).for_each(|host| assert_same(&source, &site.place(host).join("copy")));
}

#[test]
fn a_disk_through_commands_at_both_ends() {
    let _shared = beside_others();
    if !Loop::possible() {
        return;
    }
    let Some(site) = Site::new() else { return };
    let image = site.tmp.file("image", 4 * MIB, 4);
    let source = Loop::sized(&image, 4 * MIB);
    let devices = site.receive(
        |_| "-".into(),
        |host, recv| recv.args(["--pipe", &format!("gzip -d >'{}/copy'", text(&site.place(host)))]),
    );
    site.complete(site.send(&[source.path(), "--pipe", "gzip -1"]), devices);
    (1..=DEVICES).for_each(|host| assert_same(&image, &site.place(host).join("copy")));
}

#[test]
fn a_file_again_and_again_with_a_command_afterwards() {
    let _shared = beside_others();
    let Some(site) = Site::new() else { return };
    let mut devices = site.receive(
        |host| site.place(host),
        |host, recv| {
            let log = site.tmp.join(format!("log-{host}"));
            recv.args([
                "--loop",
                "--force",
                "--then",
                &format!("b3sum=$MCP_HASH; echo $b3sum >>'{}'", text(&log)),
            ])
        },
    );
    let mut hashes = String::new();
    for (seed, size) in [(5, 2 * MIB), (6, 3 * MIB)] {
        let kiosk = site.tmp.file("kiosk.img", size, seed);
        let mut sender = site.send(&[text(&kiosk), "--linger", "forever"]).spawn();
        for device in &mut devices {
            assert_eq!(device.event("finished")["outcome"], "complete");
        }
        sender.signal("INT");
        sender.expect(130, SOON);
        hashes += &format!("{}\n", support::files::b3(&kiosk));
        (1..=DEVICES).for_each(|host| assert_only_copy(&kiosk, &site.place(host)));
    }
    for (host, device) in (1..).zip(&mut devices) {
        device.signal("INT");
        device.expect(130, SOON);
        let log = fs::read_to_string(site.tmp.join(format!("log-{host}"))).expect("a log");
        assert_eq!(log, hashes, "host {host}");
    }
}
