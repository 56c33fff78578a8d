//! Block devices on both sides: loop devices, the real binary, `lo`. Needs root.

mod support;

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};
use support::files::{TempDir, b3, seeded};
use support::inject::{Call, calls, can_inject};
use support::loops::Loop;
use support::mcp::{Network, Report, SOON, is_event, number};
use support::process::{Cmd, End, Proc};
use support::{has_program, skip};

const MIB: u64 = 1 << 20;
const RATE: [&str; 2] = ["--rate", "300M"];
/// 8 MiB take 3.5 s: time to do something in the middle.
const SLOW: [&str; 2] = ["--rate", "20M"];

/// Runs a program and returns what it prints.
fn run(program: &str, args: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(args).output().map_err(|e| format!("{program}: {e}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

#[track_caller]
fn must(program: &str, args: &[&str]) -> String {
    run(program, args).unwrap_or_else(|why| panic!("{program} {args:?}: {why}"))
}

/// Whether this machine has loop devices and these programs.
fn can(programs: &[&str]) -> bool {
    let missing = programs.iter().find(|program| !has_program(program));
    if let Some(program) = missing {
        skip(&format!("no program {program}"));
    }
    missing.is_none() && Loop::possible()
}

impl Loop {
    /// The bytes of the device, from its file.
    fn bytes(&self, offset: u64, len: u64) -> Vec<u8> {
        must("sync", &[self.file.to_str().expect("UTF-8")]);
        let mut bytes = vec![0; len as usize];
        File::open(&self.file).expect("open").read_exact_at(&mut bytes, offset).expect("read");
        bytes
    }
    #[track_caller]
    fn assert_holds(&self, source: &Path) {
        let want = fs::read(source).expect("read");
        let same = self.bytes(0, want.len() as u64) == want;
        assert!(same, "{} is not {}", self.path(), source.display());
    }
    /// Bytes that its file takes.
    fn stored(&self) -> u64 {
        fs::metadata(&self.file).expect("metadata").blocks() * 512
    }
}

/// A mounted file system that writes nothing until this is dropped.
struct Frozen(PathBuf);

impl Frozen {
    fn new(mount: &Path) -> Self {
        must("fsfreeze", &["-f", mount.to_str().expect("UTF-8")]);
        Self(mount.to_owned())
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = run("fsfreeze", &["-u", self.0.to_str().unwrap_or_default()]);
    }
}

/// A mount, undone on drop.
struct Mount(PathBuf);

impl Mount {
    #[track_caller]
    fn new(tmp: &TempDir, name: &str, args: &[&str]) -> Self {
        let point = tmp.dir(name);
        must("mount", &[args, &[point.to_str().expect("UTF-8")]].concat());
        Self(point)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = run("umount", &[self.0.to_str().expect("UTF-8")]);
    }
}

fn onto(network: &Network, id: &str, device: &str) -> Cmd {
    network.recv(id, device).arg("--any-sender")
}

fn warns(end: &End, text: &str) -> bool {
    end.events().iter().any(|e| is_event(e, "warning") && e.to_string().contains(text))
}

/// An image of 48 MiB and a bit, of which 16 MiB in the middle are zeros, with the header of a GPT for its size.
fn image(tmp: &TempDir, seed: u64) -> PathBuf {
    let path = tmp.file("image", 48 * MIB + 5 * 512, seed);
    let file = OpenOptions::new().write(true).open(&path).expect("open");
    file.write_all_at(&vec![0; 16 * MIB as usize], 20 * MIB).expect("zeros");
    file.write_all_at(b"EFI PART", 512).expect("header");
    file.write_all_at(&(48 * 2048 + 4_u64).to_le_bytes(), 512 + 32).expect("header");
    path
}

#[test]
fn a_whole_disk_is_copied_to_disks_and_to_a_file() {
    if !can(&[]) {
        return;
    }
    let tmp = TempDir::new();
    let source = Loop::over(&image(&tmp, 1), &[]);
    let size = fs::metadata(&source.file).expect("metadata").len();
    let same = Loop::sized(&tmp.join("same"), size);
    let larger = Loop::sized(&tmp.join("larger"), 64 * MIB);
    // What is behind the image stays, and what is in the place of its zeros does not.
    seeded(&larger.file, 64 * MIB, 2);
    let behind = larger.bytes(size, 64 * MIB - size);
    let (out, report) = (tmp.dir("out"), tmp.join("report.json"));
    let link = tmp.join("link");
    std::os::unix::fs::symlink(&larger.device, &link).expect("link");

    let network = Network::loopback();
    let mut a = onto(&network, "a", same.path()).arg("--verify").spawn();
    let mut b = onto(&network, "b", link.to_str().expect("UTF-8")).spawn();
    let mut c = network.recv("c", &out).arg("--verify").spawn();
    let mut sender = network.send(source.path(), 3).args(RATE).arg("--report").arg(&report).spawn();
    sender.expect(0, SOON);
    let ends = [a.expect(0, SOON), b.expect(0, SOON), c.expect(0, SOON)];
    same.assert_holds(&source.file);
    larger.assert_holds(&source.file);
    assert!(larger.bytes(size, 64 * MIB - size) == behind, "the rest of the larger disk");
    let name = source.device.file_name().expect("name");
    assert_eq!(b3(&out.join(name)), b3(&source.file));
    for device in [&same, &larger] {
        let limit = if device.path() == same.path() { 34 } else { 50 };
        assert!(device.stored() < limit * MIB, "zeros are stored: {}", device.stored());
    }
    // The path is that of the device, links followed.
    let committed = ends[1].events().into_iter().find(|e| is_event(e, "committed")).expect("committed");
    assert_eq!(committed["path"], larger.path());
    assert!(warns(&ends[1], &format!("sgdisk -e {}", larger.path())), "{:?}", ends[1].lines);
    assert!(!warns(&ends[0], "sgdisk"), "{:?}", ends[0].lines);
    assert_eq!(Report::read(&report).status("a"), "complete");
}

#[test]
fn a_file_system_arrives_sound() {
    if !can(&["mkfs.ext4", "fsck.ext4", "mount", "fsfreeze"]) {
        return;
    }
    let tmp = TempDir::new();
    let tree = tmp.dir("tree");
    for n in 0..200 {
        let dir = tree.join(format!("d{}", n % 10));
        fs::create_dir_all(&dir).expect("directory");
        seeded(&dir.join(format!("f{n}")), 100 * n, n);
    }
    let image = tmp.join("fs");
    File::create(&image).expect("create").set_len(64 * MIB).expect("size");
    must("mkfs.ext4", &["-q", "-d", tree.to_str().expect("UTF-8"), image.to_str().expect("UTF-8")]);
    let (source, target) = (Loop::over(&image, &[]), Loop::sized(&tmp.join("target"), 64 * MIB));
    let network = Network::loopback();
    let told = tmp.join("told");
    // The device is released when the command runs: it can be checked and mounted.
    let command =
        format!("fsck.ext4 -fn \"$MCP_PATH\" >/dev/null 2>&1 && echo \"$MCP_PATH\" >{}", told.display());
    let mut receiver = onto(&network, "r", target.path()).args(["--then", &command]).spawn();
    network.send(source.path(), 1).args(RATE).spawn().expect(0, SOON);
    receiver.expect(0, SOON);
    assert_eq!(fs::read_to_string(&told).expect("told").trim(), target.path());
    let mount = Mount::new(&tmp, "mnt", &["-o", "ro", target.path()]);
    let differs = run("diff", &["-r", "-x", "lost+found", mount.0.to_str().unwrap(), tree.to_str().unwrap()]);
    assert_eq!(differs, Ok(String::new()));
    drop(mount);

    // A mounted source is warned of; this one is at rest. Without that, the file system may write its superblock.
    let rest = Mount::new(&tmp, "rest", &[source.path()]);
    let frozen = Frozen::new(&rest.0);
    let copy = Loop::sized(&tmp.join("copy"), 64 * MIB);
    let mut receiver = onto(&network, "r", copy.path()).spawn();
    let end = network.send(source.path(), 1).args(RATE).spawn().expect(0, SOON);
    receiver.expect(0, SOON);
    assert!(warns(&end, &format!("is mounted on {}", rest.0.display())), "{:?}", end.lines);
    drop(frozen);
}

/// A disk of 8 MiB with one partition from its second MiB to its end, and the partition's device.
fn partitioned(tmp: &TempDir, name: &str) -> (Loop, PathBuf) {
    let disk = Loop::sized(&tmp.join(name), 8 * MIB);
    let file = OpenOptions::new().write(true).open(&disk.device).expect("open");
    let mut entry = [0; 16];
    entry[4] = 0x83;
    entry[8..12].copy_from_slice(&2048_u32.to_le_bytes());
    entry[12..].copy_from_slice(&(7 * 2048_u32).to_le_bytes());
    file.write_all_at(&entry, 446).expect("table");
    file.write_all_at(&[0x55, 0xaa], 510).expect("table");
    drop(file);
    // Perhaps a run that was killed has left one.
    let _ = run("delpart", &[disk.path(), "1"]);
    must("partx", &["-a", disk.path()]);
    let partition = PathBuf::from(format!("{}p1", disk.path()));
    let until = Instant::now() + Duration::from_secs(5);
    while !partition.exists() && Instant::now() < until {
        thread::sleep(Duration::from_millis(20));
    }
    (disk, partition)
}

#[test]
fn a_disk_is_locked_while_it_is_written_and_its_table_is_read_again() {
    if !can(&["partx", "flock", "strace"]) {
        return;
    }
    let (tmp, network) = (TempDir::new(), Network::loopback());
    let image = OpenOptions::new().write(true).open(tmp.file("source", 8 * MIB, 31)).expect("an image");
    image.write_all_at(&[0; 512], 0).expect("room for a table");
    let (source, _) = partitioned(&tmp, "source");
    let blank = tmp.join("target");
    File::create(&blank).and_then(|file| file.set_len(8 * MIB)).expect("a blank disk");
    // Without the option, the kernel refuses to look for partitions.
    let (target, log) = (Loop::over(&blank, &["-P"]), tmp.join("ioctls"));
    let locked = || run("flock", &["-n", target.path(), "true"]).is_err();
    assert!(!locked());
    let traced = ["strace", "-f", "-e", "trace=ioctl", "-o", log.to_str().expect("UTF-8")];
    let mut receiver = onto(&network, "r", target.path()).through(traced).spawn();
    let mut sender = network.send(source.path(), 1).args(SLOW).spawn();
    receiver.received(2 * MIB);
    assert!(locked(), "udev and other programs could open it meanwhile");
    sender.expect(0, SOON);
    receiver.expect(0, SOON);
    assert!(!locked());
    target.assert_holds(&source.file);
    // Whether partitions appear depends on the kernel, which may know no tables.
    let calls = fs::read_to_string(&log).expect("a log");
    let again = calls.lines().any(|call| call.contains("BLKRRPART") && call.ends_with("= 0"));
    assert!(again, "{calls}");
}

/// A device that cannot unmap has the kernel write its zeros.
#[test]
fn zeros_are_left_to_the_kernel_where_nothing_can_be_unmapped() {
    if !can(&["strace", "mount"]) {
        return;
    }
    let (tmp, network) = (TempDir::new(), Network::loopback());
    let source = tmp.file("image", 2 * MIB, 41);
    File::options()
        .write(true)
        .open(&source)
        .and_then(|file| file.set_len(12 * MIB))
        .expect("zeros behind it");
    // Files there have no holes.
    let memory = Mount::new(&tmp, "memory", &["-t", "ramfs", "none"]);
    let (disk, log) = (memory.0.join("disk"), tmp.join("ioctls"));
    fs::write(&disk, vec![9; 12 << 20]).expect("a disk with something on it");
    let target = Loop::over(&disk, &[]);
    let traced = ["strace", "-f", "-e", "trace=ioctl", "-o", log.to_str().expect("UTF-8")];
    let mut receiver = onto(&network, "r", target.path()).through(traced).spawn();
    network.send(&source, 1).args(RATE).spawn().expect(0, SOON);
    receiver.expect(0, SOON);
    target.assert_holds(&source);
    let calls = fs::read_to_string(&log).expect("a log");
    let zeroed = calls.lines().any(|call| call.contains("BLKZEROOUT") && call.ends_with("= 0"));
    assert!(zeroed, "{calls}");
}

struct Swap(String);

impl Drop for Swap {
    fn drop(&mut self) {
        let _ = run("swapoff", &[&self.0]);
    }
}

#[test]
fn what_must_not_be_written_to_is_refused_with_its_reason() {
    if !can(&["mkfs.ext4", "mount", "partx", "mkswap", "swapon"]) {
        return;
    }
    let tmp = TempDir::new();
    let source = tmp.file("image", 6 * MIB + 17, 3);
    let blank = |name| Loop::sized(&tmp.join(name), 8 * MIB);

    let mounted = blank("mounted");
    must("mkfs.ext4", &["-q", mounted.path()]);
    let mount = Mount::new(&tmp, "mnt here", &["-o", "ro", mounted.path()]);
    let (disk, partition) = partitioned(&tmp, "disk");
    must("mkfs.ext4", &["-q", partition.to_str().unwrap()]);
    let below = Mount::new(&tmp, "below", &[partition.to_str().unwrap()]);
    let swap = blank("swap");
    // The kernel may write to its swap space at any time, so only the beginning is that: 64 KiB.
    must("mkswap", &[swap.path(), "64"]);
    must("chmod", &["600", swap.path()]);
    must("swapon", &[swap.path()]);
    let swapped = Swap(swap.path().to_owned());
    let covered = blank("covered");
    let above = Loop::over(covered.path().as_ref(), &[]);
    let held = blank("held");
    let holder =
        OpenOptions::new().read(true).custom_flags(libc::O_EXCL).open(&held.device).expect("exclusive");
    let read_only = Loop::over(&tmp.file("read-only", 8 * MIB, 4), &["-r"]);
    let small = Loop::sized(&tmp.join("small"), 6 * MIB);
    let fine = blank("fine");
    let busy = blank("forced");
    must("mkfs.ext4", &["-q", busy.path()]);
    let forced = Mount::new(&tmp, "forced-mnt", &["-o", "ro", busy.path()]);

    let point = |mount: &Mount| mount.0.display().to_string();
    let part_name = partition.file_name().unwrap().to_string_lossy().into_owned();
    let above_name = above.device.file_name().unwrap().to_string_lossy().into_owned();
    let cases = [
        ("mounted", &mounted, format!("is in use: it is mounted on {}; unmount it first", point(&mount))),
        ("disk", &disk, format!("is in use: {part_name} is mounted on {}; unmount it first", point(&below))),
        ("swap", &swap, "is in use: it is used as swap space; turn it off with swapoff first".to_owned()),
        (
            "covered",
            &covered,
            format!("the loop device {above_name} is over it; detach that with losetup -d"),
        ),
        ("held", &held, format!("(process {}) holds it; end that program first", std::process::id())),
        ("read-only", &read_only, "is read-only; check its switch, make it writable".to_owned()),
        (
            "small",
            &small,
            "is too small: it has 6291456 bytes and 6291473 are needed; give a larger".to_owned(),
        ),
    ];
    let content = |id: &str, device: &Loop| device.bytes(if id == "swap" { MIB } else { 0 }, 6 * MIB);
    let before: Vec<_> = cases.iter().map(|(id, device, _)| content(id, device)).collect();
    let (network, report) = (Network::loopback(), tmp.join("report.json"));
    let mut refused = cases.each_ref().map(|(id, device, _)| onto(&network, id, device.path()).spawn());
    let mut good = onto(&network, "fine", fine.path()).spawn();
    let mut by_force = onto(&network, "forced", busy.path()).arg("--force").spawn();
    let mut sender = network.send(&source, 9).args(RATE).arg("--report").arg(&report).spawn();
    sender.expect(3, SOON);
    good.expect(0, SOON);
    fine.assert_holds(&source);
    by_force.expect(0, SOON);
    let report = Report::read(&report);
    for (((id, device, why), receiver), before) in cases.iter().zip(&mut refused).zip(before) {
        let end = receiver.expect(1, SOON);
        assert!(end.stderr.contains(why) && end.stderr.contains(device.path()), "{id}: {}", end.stderr);
        assert!(warns(&end, why) == (*id != "small"), "it says so at once: {:?}", end.lines);
        assert_eq!(report.status(id), "failed");
        assert!(content(id, device) == before, "{id} was written to");
    }
    drop((mount, below, swapped, above, holder, forced));

    // A partition of a disk at rest, and character devices and missing ones, which are no block devices.
    let mut receiver = onto(&network, "p", partition.to_str().unwrap()).spawn();
    network.send(&source, 1).args(RATE).spawn().expect(0, SOON);
    receiver.expect(0, SOON);
    assert!(disk.bytes(MIB, 6 * MIB + 17) == fs::read(&source).unwrap(), "the partition");
    let end = onto(&network, "missing", "/dev/mcp-no-such-disk").run(SOON);
    assert_eq!(end.code, Some(1));
    assert!(end.stderr.contains("there is no device /dev/mcp-no-such-disk; check -o"), "{}", end.stderr);
    let mut receiver = onto(&network, "null", "/dev/null").spawn();
    network.send(&source, 1).args(RATE).spawn().expect(4, SOON);
    assert!(receiver.expect(1, SOON).stderr.contains("/dev/null is a device and is not replaced"));
}

#[test]
fn a_stream_whose_length_nobody_knows_goes_to_devices() {
    if !can(&[]) {
        return;
    }
    let tmp = TempDir::new();
    let source = tmp.file("image.bin", 24 * MIB + 512, 20);
    // What is behind the stream is in the last MiB of the device.
    let (large, small) =
        (Loop::sized(&tmp.join("large"), 25 * MIB), Loop::sized(&tmp.join("small"), 16 * MIB));
    let end = [7; 512];
    let device = OpenOptions::new().write(true).open(&large.device).expect("open");
    device.write_all_at(&end, 25 * MIB - 512).expect("write");
    device.sync_all().expect("sync");
    drop(device);
    let network = Network::loopback();
    let report = tmp.join("report.json");
    let mut all =
        [("large", &large), ("small", &small)].map(|(id, to)| onto(&network, id, to.path()).spawn());
    let script = format!("(head -c 5000000; sleep 5; cat) <'{}' | \"$0\" \"$@\"", source.display());
    let sender = network.send("-", 2).args(RATE).arg("--report").arg(&report);
    let mut sender = sender.through(["sh", "-c", &script]).spawn();
    all[0].verified(3 * MIB);
    assert_eq!(large.bytes(0, MIB), vec![0; MIB as usize], "its head comes last");
    sender.expect(3, SOON);
    all[0].expect(0, SOON);
    all[1].expect(1, SOON);
    large.assert_holds(&source);
    assert_eq!(large.bytes(25 * MIB - 512, 512), end);
    let report = Report::read(&report);
    assert_eq!((report.status("large"), report.status("small")), ("complete", "failed"));
    assert!(report.reason("small").contains("too small"), "{}", report.reason("small"));
}

#[test]
fn a_device_that_runs_out_of_space_fails_alone() {
    if !can(&["mount"]) {
        return;
    }
    let tmp = TempDir::new();
    let source = tmp.file("image", 24 * MIB, 5);
    let disk = Mount::new(&tmp, "small", &["-t", "tmpfs", "-o", "size=10m", "none"]);
    let file = disk.0.join("thin");
    File::create(&file).unwrap().set_len(24 * MIB).unwrap();
    let thin = Loop::over(&file, &[]);
    let fine = Loop::sized(&tmp.join("fine"), 24 * MIB);
    let (network, report) = (Network::loopback(), tmp.join("report.json"));
    let mut bad = onto(&network, "thin", thin.path()).spawn();
    let mut good = onto(&network, "fine", fine.path()).spawn();
    let mut sender = network.send(&source, 2).args(RATE).arg("--report").arg(&report).spawn();
    sender.expect(3, SOON);
    good.expect(0, SOON);
    fine.assert_holds(&source);
    let end = bad.expect(1, SOON);
    assert!(end.stderr.contains(&format!("cannot write to {}", thin.path())), "{}", end.stderr);
    assert!(Report::read(&report).reason("thin").contains("cannot write to"), "the sender is told");
    // It does not look like the image.
    assert!(thin.bytes(0, MIB).iter().all(|&byte| byte == 0));
}

#[test]
fn a_killed_receiver_leaves_no_head_and_goes_on_where_it_was() {
    if !can(&[]) {
        return;
    }
    let tmp = TempDir::new();
    let source = tmp.file("image", 24 * MIB + 1000, 6);
    let device = Loop::sized(&tmp.join("disk"), 32 * MIB);
    seeded(&device.file, 32 * MIB, 7);
    let old = device.bytes(0, 32 * MIB);
    let network = Network::loopback();
    let mut receiver = onto(&network, "r", device.path()).spawn();
    let mut sender = network.send(&source, 1).args(["--rate", "40M"]).spawn();
    receiver.verified(10 * MIB);
    // The ends are zeros while the transfer is under way, and what comes after the image is untouched.
    let zeros = |bytes: Vec<u8>| bytes.iter().all(|&byte| byte == 0);
    assert!(zeros(device.bytes(0, MIB)) && zeros(device.bytes(23 * MIB + 4096, MIB - 4096)));
    assert!(device.bytes(25 * MIB, 7 * MIB) == old[25 * MIB as usize..]);
    receiver.signal("KILL");
    receiver.finish(SOON);
    sender.signal("INT");
    sender.finish(SOON);
    assert!(zeros(device.bytes(0, MIB)));
    assert!(device.bytes(MIB, MIB) == fs::read(&source).unwrap()[MIB as usize..2 * MIB as usize]);

    let mut receiver = onto(&network, "r", device.path()).spawn();
    network.send(&source, 1).args(RATE).spawn().expect(0, SOON);
    let end = receiver.expect(0, SOON);
    device.assert_holds(&source);
    assert!(end.received_share() < 0.75, "{}", end.last_event());
    assert!(number(&end.last_event(), "resumed_bytes") > (8 * MIB) as f64, "{}", end.last_event());

    // The next version of the image, and then the same once more: nothing is sent, and nothing is written.
    let next = tmp.join("next");
    fs::copy(&source, &next).unwrap();
    let file = OpenOptions::new().write(true).open(&next).unwrap();
    [0, 3, 9, 24].iter().for_each(|block| file.write_all_at(b"changed", block * MIB + 50).unwrap());
    for (blocks, resumed) in [(4, 20), (0, 24)] {
        let report = tmp.join("report.json");
        let mut receiver = onto(&network, "r", device.path()).spawn();
        network.send(&next, 1).args(RATE).arg("--report").arg(&report).spawn().expect(0, SOON);
        let end = receiver.expect(0, SOON);
        device.assert_holds(&next);
        let last = end.last_event();
        assert!(number(&last, "resumed_bytes") >= (resumed * MIB) as f64, "{last}");
        let wire = Report::read(&report).counter("wire_bytes") / MIB as f64;
        assert!(wire < f64::from(blocks) * 1.2 + 0.5, "{wire} MiB for {blocks} blocks");
    }
}

#[test]
fn a_source_that_changes_ends_the_task() {
    if !can(&[]) {
        return;
    }
    let tmp = TempDir::new();
    let source = Loop::over(&tmp.file("image", 12 * MIB, 8), &[]);
    let (target, out) = (Loop::sized(&tmp.join("target"), 12 * MIB), tmp.dir("out"));
    let network = Network::loopback();
    let mut receivers = [onto(&network, "a", target.path()).spawn(), network.recv("b", &out).spawn()];
    let mut sender = network.send(source.path(), 2).args(SLOW).spawn();
    receivers[0].received(MIB);
    let device = OpenOptions::new().write(true).open(&source.device).unwrap();
    device.write_all_at(&[1; 4096], 9 * MIB).unwrap();
    device.sync_all().unwrap();
    let end = sender.expect(1, SOON);
    assert!(
        end.stderr.contains("changed while it was being sent (block 9); send it again"),
        "{}",
        end.stderr
    );
    for mut receiver in receivers {
        assert!(receiver.expect(6, SOON).stderr.contains("changed while it was being sent"));
    }
    assert!(target.bytes(0, MIB).iter().all(|&byte| byte == 0), "no head");
}

#[test]
fn reading_back_finds_what_the_disk_has_lost() {
    if !can(&[]) {
        return;
    }
    let tmp = TempDir::new();
    let source = tmp.file("image", 8 * MIB, 9);
    let (checked, trusting) =
        (Loop::sized(&tmp.join("checked"), 8 * MIB), Loop::sized(&tmp.join("trusting"), 8 * MIB));
    let network = Network::loopback();
    let mut a = onto(&network, "checked", checked.path()).arg("--verify").spawn();
    let mut b = onto(&network, "trusting", trusting.path()).spawn();
    let mut sender = network.send(&source, 2).args(SLOW).spawn();
    a.verified(4 * MIB);
    b.verified(4 * MIB);
    for device in [&checked, &trusting] {
        let file = OpenOptions::new().write(true).open(&device.file).unwrap();
        file.write_all_at(b"rotten", 2 * MIB + 99).unwrap();
        file.sync_all().unwrap();
    }
    sender.expect(3, SOON);
    let end = a.expect(1, SOON);
    assert!(end.stderr.contains("is not what was written to it; replace the disk"), "{}", end.stderr);
    assert!(checked.bytes(0, MIB).iter().all(|&byte| byte == 0), "it looks whole");
    // Nobody else can know.
    b.expect(0, SOON);
    assert!(trusting.bytes(2 * MIB + 99, 6) == b"rotten");
}

#[test]
fn a_device_needs_a_known_sender() {
    if !can(&[]) {
        return;
    }
    let tmp = TempDir::new();
    let device = Loop::sized(&tmp.join("disk"), 8 * MIB);
    let network = Network::loopback();
    let end = network.recv("r", device.path()).env("MCP_STATE_DIR", tmp.dir("state")).run(SOON);
    assert_eq!(end.code, Some(2), "{}", end.stderr);
    for part in
        [&format!("-o {} needs a sender that is known", device.path()), "--sender KEY", "--any-sender"]
    {
        assert!(end.stderr.contains(part), "{}", end.stderr);
    }
}

#[test]
fn a_loop_writes_each_image_to_the_device() {
    if !can(&[]) {
        return;
    }
    let tmp = TempDir::new();
    let (device, log) = (Loop::sized(&tmp.join("disk"), 8 * MIB), tmp.join("log"));
    let network = Network::loopback();
    let command = format!("echo $MCP_NAME $MCP_PATH >>{}", log.display());
    let mut receiver = onto(&network, "r", device.path()).args(["--loop", "--then", &command]).spawn();
    let images = [tmp.file("one", 6 * MIB, 10), tmp.file("two", 7 * MIB, 11)];
    for image in &images {
        network.send(image, 1).args(RATE).spawn().expect(0, SOON);
        assert_eq!(receiver.event("finished")["outcome"], "complete");
        device.assert_holds(image);
        // Between two transfers the device is free.
        OpenOptions::new().read(true).custom_flags(libc::O_EXCL).open(&device.device).expect("it is free");
    }
    receiver.signal("INT");
    receiver.expect(130, SOON);
    let want = format!("one {0}\ntwo {0}\n", device.path());
    assert_eq!(fs::read_to_string(&log).unwrap(), want);
}

#[test]
fn another_device_under_the_same_name_is_refused() {
    if !can(&[]) {
        return;
    }
    let tmp = TempDir::new();
    let (source, link) = (tmp.file("image", MIB, 12), tmp.join("link"));
    let [meant, other] = ["meant", "other"].map(|name| Loop::sized(&tmp.join(name), 2 * MIB));
    std::os::unix::fs::symlink(&meant.device, &link).expect("link");
    let network = Network::loopback();
    let mut receiver = onto(&network, "r", link.to_str().unwrap()).spawn();
    receiver.event("start");
    fs::remove_file(&link).expect("remove");
    std::os::unix::fs::symlink(&other.device, &link).expect("link");
    network.send(&source, 1).args(RATE).spawn().expect(4, SOON);
    let end = receiver.expect(1, SOON);
    assert!(end.stderr.contains("is another device now than when mcp was started"), "{}", end.stderr);
    for device in [meant, other] {
        assert!(device.bytes(0, 2 * MIB).iter().all(|&byte| byte == 0));
    }
}

/// Receives under `strace` onto a device of its own, and expects I1 of it: its first page is the old one, zeros, or that
/// of the whole image. `fate` is what happens at which call.
struct Fate {
    device: Loop,
    receiver: Proc,
    what: String,
}

impl Fate {
    fn new(tmp: &TempDir, network: &Network, call: &Call, fate: &str) -> Self {
        let what = format!("{}-{}-{}", call.name, call.nth, fate.rsplit('=').next().unwrap_or(fate));
        let device = Loop::sized(&tmp.join(&what), DISK);
        seeded(&device.file, DISK, 21);
        let log = tmp.join(format!("{what}.log"));
        let command = onto(network, &what, device.path());
        let receiver = command.injected(&log, &[call.meets(fate)]).spawn();
        Self { device, receiver, what }
    }

    /// Returns the exit code, and whether the image is whole.
    #[track_caller]
    fn judge(&mut self, image: &[u8]) -> (Option<i32>, bool) {
        let code = self.receiver.finish(SOON).code;
        let held = self.device.bytes(0, image.len() as u64);
        let mut old = vec![0; DISK as usize];
        fastrand::Rng::with_seed(21).fill(&mut old[..MIB as usize]);
        let zeros = held[..4096].iter().all(|&byte| byte == 0);
        let whole = held == image;
        assert!(whole || zeros || held[..4096] == old[..4096], "{}: a head without its body", self.what);
        (code, whole)
    }
}

const DISK: u64 = 5 * MIB;

#[test]
fn killed_or_failing_at_each_call_the_device_never_looks_whole_without_being_so() {
    if !can(&[]) || !can_inject() {
        return;
    }
    let tmp = TempDir::new();
    let source = tmp.file("image", 4 * MIB + 777, 20);
    let file = OpenOptions::new().write(true).open(&source).expect("open");
    file.write_all_at(&vec![0; MIB as usize], MIB).expect("zeros");
    let image = fs::read(&source).expect("read");

    let clean = Loop::sized(&tmp.join("clean"), DISK);
    seeded(&clean.file, DISK, 21);
    let (network, log) = (Network::loopback(), tmp.join("clean.log"));
    let mut receiver = onto(&network, "clean", clean.path()).injected(&log, &[]).spawn();
    network.send(&source, 1).args(["--rate", "60M"]).spawn().expect(0, SOON);
    receiver.expect(0, SOON);
    clean.assert_holds(&source);
    let calls: Vec<Call> = calls(&log).into_iter().filter(|call| call.name != "unlinkat").collect();
    let count = |name: &str| calls.iter().filter(|call| call.name.starts_with(name)).count();
    assert!(count("fallocate") >= 3 && count("pwrite64") >= 5 && count("fsync") >= 3, "{calls:?}");

    for fate in ["signal=KILL", "error=EIO"] {
        let network = Network::loopback();
        let mut fates: Vec<Fate> = calls.iter().map(|call| Fate::new(&tmp, &network, call, fate)).collect();
        let sender = network.send(&source, calls.len()).args(["--rate", "60M", "-w", "8s"]).spawn();
        let mut whole = 0;
        for fate in &mut fates {
            let (code, is_whole) = fate.judge(&image);
            assert!(is_whole || code != Some(0), "{} is called complete", fate.what);
            assert!(!is_whole || code != Some(1), "{} is called failed", fate.what);
            whole += usize::from(is_whole);
        }
        assert!(whole < calls.len() / 2, "{whole} of {} are whole", calls.len());
        sender.signal("KILL");
    }
}
