//! Trees of files: directories and several files as one object. Real binary, real sockets on `lo` or in namespaces.

mod support;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};
use support::files::{TempDir, assert_only_part, names, seeded};
use support::lab::Lab;
use support::mcp::{MCP, Network, Report, SOON, is_event};
use support::process::{Cmd, Proc};
use support::{has_program, is_root};

const MIB: u64 = 1 << 20;
const RATE: [&str; 2] = ["--rate", "200M"];
/// 16 MiB take 3.5 s: time to do something in the middle.
const SLOW: [&str; 2] = ["--rate", "40M"];

/// What is there below a directory, by path: mode, time and size, content or target, and the first name of its file.
type Look = BTreeMap<PathBuf, (u32, (i64, i64), Vec<u8>, Option<PathBuf>)>;

fn look(dir: &Path) -> Look {
    fn walk(top: &Path, path: PathBuf, inodes: &mut BTreeMap<u64, PathBuf>, all: &mut Look) {
        let full = top.join(&path);
        let meta = fs::symlink_metadata(&full).unwrap_or_else(|e| panic!("{}: {e}", full.display()));
        let content = if meta.is_symlink() {
            fs::read_link(&full).unwrap().as_os_str().as_bytes().to_owned()
        } else if meta.is_file() {
            blake3::hash(&fs::read(&full).unwrap()).as_bytes().to_vec()
        } else {
            meta.rdev().to_be_bytes().to_vec()
        };
        let first = (!meta.is_dir()).then(|| inodes.entry(meta.ino()).or_insert(path.clone()).clone());
        all.insert(path.clone(), (meta.mode(), (meta.mtime(), meta.mtime_nsec()), content, first));
        if meta.is_dir() {
            let mut below: Vec<_> = fs::read_dir(&full).unwrap().map(|e| e.unwrap().file_name()).collect();
            below.sort();
            below.into_iter().for_each(|name| walk(top, path.join(name), inodes, all));
        }
    }
    let (mut all, mut inodes) = (Look::new(), BTreeMap::new());
    walk(dir, PathBuf::new(), &mut inodes, &mut all);
    all
}

#[track_caller]
fn assert_same(a: &Path, b: &Path) {
    let (a, b) = (look(a), look(b));
    for (path, entry) in &a {
        assert_eq!(b.get(path), Some(entry), "{}", path.display());
    }
    assert_eq!(a.len(), b.len());
}

/// Asserts that rsync, which compares attributes too, would change nothing.
#[track_caller]
fn assert_same_to_rsync(a: &Path, b: &Path) {
    if !has_program("rsync") {
        return;
    }
    let slash = |path: &Path| format!("{}/", path.display());
    let args = ["-aHAXni", "--checksum", "--delete"];
    let output = Command::new("rsync").args(args).args([slash(a), slash(b)]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && text.is_empty(), "{text}{}", String::from_utf8_lossy(&output.stderr));
}

fn name(bytes: &[u8]) -> &OsStr {
    OsStr::from_bytes(bytes)
}

/// A tree with everything in it that needs no rights; some 6 MiB.
fn sample(tmp: &TempDir, called: &str) -> PathBuf {
    let tree = tmp.dir(called);
    fs::create_dir_all(tree.join("sub/deep/er")).unwrap();
    fs::create_dir(tree.join("empty")).unwrap();
    for (n, (file, size)) in [
        (&b"large.bin"[..], 4 * MIB + 4321),
        (b"block", MIB),
        (b"none", 0),
        (b"aux.c", 100),
        (b"back\\slash", 5),
        (b"new\nline", 6),
        (b"not-\xff-utf8", 7),
        (b"sub/x", 300_000),
        (b"sub-1", 70_000),
        (b"sub/deep/er/z", 1),
    ]
    .into_iter()
    .enumerate()
    {
        seeded(&tree.join(name(file)), size, n as u64);
    }
    let sparse = fs::File::create(tree.join("sparse")).unwrap();
    sparse.set_len(256 * MIB).unwrap();
    sparse.write_all_at(&[7; 5000], 100 * MIB).unwrap();
    symlink("aux.c", tree.join("link")).unwrap();
    symlink("/etc/passwd", tree.join("sub/absolute")).unwrap();
    fs::hard_link(tree.join("block"), tree.join("sub/hard")).unwrap();
    fs::set_permissions(tree.join("aux.c"), fs::Permissions::from_mode(0o444)).unwrap();
    fs::set_permissions(tree.join("empty"), fs::Permissions::from_mode(0o555)).unwrap();
    for (n, path) in ["aux.c", "sub/deep", "sub", "."].into_iter().enumerate() {
        let time = UNIX_EPOCH + Duration::new(1_000_000_000 + n as u64, 123_456_789);
        fs::File::open(tree.join(path)).unwrap().set_modified(time).unwrap();
    }
    tree
}

/// Sends to these receivers, which have begun, and expects all of them to be complete.
#[track_caller]
fn all_complete(sender: Cmd, mut receivers: Vec<Proc>) {
    let mut sender = sender.spawn();
    sender.expect(0, SOON);
    receivers.iter_mut().for_each(|receiver| drop(receiver.expect(0, SOON)));
}

#[test]
fn a_tree_with_everything_in_it_reaches_several_devices_over_a_lossy_network() {
    let Some(lab) = Lab::new(4) else { return };
    let tmp = TempDir::new();
    let tree = sample(&tmp, "lab-image");
    // What needs root, which the lab has.
    fs::write(tree.join("setuid"), "x").unwrap();
    std::os::unix::fs::chown(tree.join("setuid"), Some(1234), Some(5678)).unwrap();
    fs::set_permissions(tree.join("setuid"), fs::Permissions::from_mode(0o6755)).unwrap();
    assert!(Command::new("mknod").arg(tree.join("null")).args(["c", "1", "3"]).status().unwrap().success());
    for (program, args) in [
        ("setfattr", vec!["-n", "user.note", "-v", "a note", "large.bin"]),
        ("setfattr", vec!["-n", "trusted.t", "-v", "t", "sub"]),
        ("setfacl", vec!["-m", "u:1234:rw", "sub/x"]),
    ] {
        if has_program(program) {
            assert!(Command::new(program).args(args).current_dir(&tree).status().unwrap().success());
        }
    }
    let network = Network::new("239.77.0.1", 7417, "eth0");
    (1..4).for_each(|host| lab.lose(host, 10));
    lab.single_packets(0);
    let out = |host: usize| tmp.dir(&format!("h{host}"));
    let receiver = |host: usize| {
        let cmd = network.recv(&format!("h{host}"), out(host)).args(["--archive", "--any-sender"]);
        lab.on(host, cmd).spawn()
    };
    let receivers = (1..4).map(receiver).collect();
    let report = tmp.join("report.json");
    let sender = network.send(&tree, 3).args(RATE).arg("--archive").arg("--report").arg(&report);
    all_complete(lab.on(0, sender), receivers);
    for host in 1..4 {
        assert_eq!(names(&out(host)), ["lab-image"]);
        assert_same(&tree, &out(host).join("lab-image"));
        assert_same_to_rsync(&tree, &out(host).join("lab-image"));
        let sparse = fs::metadata(out(host).join("lab-image/sparse")).unwrap();
        assert!(sparse.blocks() * 512 < MIB, "its holes were written");
    }
    let report: serde_json::Value = serde_json::from_slice(&fs::read(&report).unwrap()).unwrap();
    assert_eq!(report["object"]["entries"], 21);
}

#[test]
fn several_files_arrive_under_their_own_names() {
    let (tmp, network) = (TempDir::new(), Network::loopback());
    let files =
        [tmp.file("a.iso", 2 * MIB + 5, 1), tmp.file("b.iso", 3 * MIB, 2), tmp.file("notes.txt", 77, 3)];
    let out = tmp.dir("out");
    let mut receiver = network.recv("r", &out).spawn();
    let mut hooked = network.recv("h", tmp.dir("hooked")).args(["--any-sender", "--then"]);
    hooked = hooked
        .arg(format!("test -f \"$MCP_PATH/b.iso\" && echo \"$MCP_NAME\" >{}", tmp.join("name").display()));
    let mut hooked = hooked.spawn();
    let mut wrong = network.recv("w", tmp.join("no/such")).spawn();
    let sender = Network { group: None, ..network.clone() }.send(&files[0], 3).args(RATE);
    let sender = sender.tail(files[1].as_os_str()).tail(files[2].as_os_str());
    let mut sender = sender.tail(network.group.clone().unwrap()).spawn();
    sender.expect(3, SOON);
    receiver.expect(0, SOON);
    hooked.expect(0, SOON);
    assert!(wrong.expect(1, SOON).stderr.contains("directory"));
    assert_eq!(names(&out), ["a.iso", "b.iso", "notes.txt"]);
    for file in &files {
        assert_eq!(fs::read(file).unwrap(), fs::read(out.join(file.file_name().unwrap())).unwrap());
    }
    assert_eq!(fs::read_to_string(tmp.join("name")).unwrap(), "a.iso and 2 more\n");
}

#[test]
fn several_files_that_are_in_place_are_not_sent_again() {
    let (tmp, network) = (TempDir::new(), Network::loopback());
    let files = [tmp.file("a.iso", 2 * MIB + 5, 1), tmp.file("b.iso", 3 * MIB, 2)];
    let out = tmp.dir("out");
    let send = || {
        let sender = Network { group: None, ..network.clone() }.send(&files[0], 1).args(RATE);
        sender.tail(files[1].as_os_str()).tail(network.group.clone().unwrap()).spawn()
    };
    // The first time, the second time, and after one of them was removed.
    for most in [1.2, 0.2, 0.6] {
        let mut receiver = network.recv("r", &out).spawn();
        send().expect(0, SOON);
        let end = receiver.expect(0, SOON);
        let last = end.last_event();
        let (received, size) = (last["received_bytes"].as_f64().unwrap(), last["size"].as_f64().unwrap());
        assert!(received < size * most, "{received} of {size}, at most {most}");
        assert_eq!(names(&out), ["a.iso", "b.iso"]);
        for file in &files {
            assert_eq!(fs::read(file).unwrap(), fs::read(out.join(file.file_name().unwrap())).unwrap());
        }
        if most < 0.5 {
            fs::remove_file(out.join("a.iso")).unwrap();
        }
    }
    // A changed one is refused.
    fs::write(out.join("a.iso"), "mine").unwrap();
    let mut receiver = network.recv("r", &out).spawn();
    send().expect(4, SOON);
    let end = receiver.expect(1, SOON);
    assert!(end.stderr.contains("a.iso exists already; use --force"), "{}", end.stderr);
    assert_eq!(fs::read_to_string(out.join("a.iso")).unwrap(), "mine");
}

#[test]
fn a_killed_receiver_goes_on_with_its_tree() {
    let (tmp, network) = (TempDir::new(), Network::loopback());
    let tree = tmp.dir("lab");
    for n in 0..4 {
        seeded(&tree.join(format!("large-{n}")), 5 * MIB + n, n);
    }
    for n in 0..500 {
        seeded(&tree.join(format!("small-{n:03}")), 20_000 + n, 100 + n);
    }
    let out = tmp.dir("out");
    let mut first = network.recv("r", &out).spawn();
    let mut sender = network.send(&tree, 1).args(SLOW).args(["--linger", "60s"]).spawn();
    let enough = |e: &serde_json::Value| {
        is_event(e, "progress") && e["verified_bytes"].as_u64().is_some_and(|bytes| bytes >= 18 * MIB)
    };
    first.until("18 MiB verified", SOON, enough);
    first.signal("KILL");
    first.finish(SOON);
    assert_only_part(&out);
    assert!(!out.join("lab").exists());
    let mut second = network.recv("r", &out).spawn();
    let end = second.expect(0, SOON);
    let last = end.last_event();
    let (received, size) = (last["received_bytes"].as_f64().unwrap(), last["size"].as_f64().unwrap());
    assert!(received < size * 0.7, "{received} of {size} were received again");
    assert_same(&tree, &out.join("lab"));
    assert_eq!(names(&out), ["lab"]);
    sender.signal("INT");
    sender.finish(SOON);
}

#[test]
fn a_tree_is_replaced_merged_or_left_alone_as_asked() {
    let (tmp, network) = (TempDir::new(), Network::loopback());
    let tree = sample(&tmp, "lab");
    let there = |id: &str| {
        let dir = tmp.dir(id);
        fs::create_dir_all(dir.join("lab/sub")).unwrap();
        fs::write(dir.join("lab/sub/mine"), "mine").unwrap();
        fs::write(dir.join("lab/aux.c"), "old").unwrap();
        dir
    };
    let dirs = ["force", "merge", "plain"].map(there);
    let same = tmp.dir("same");
    assert!(Command::new("cp").arg("-a").arg(&tree).arg(&same).status().unwrap().success());
    let mut force = network.recv("force", &dirs[0]).arg("--force").spawn();
    let mut merge = network.recv("merge", &dirs[1]).arg("--merge").spawn();
    let mut plain = network.recv("plain", &dirs[2]).spawn();
    let mut equal = network.recv("same", &same).spawn();
    let from = tmp.dir("from");
    let mut earlier = network.recv("from", &from).arg("--from").arg(&tree).spawn();
    let report = tmp.join("report.json");
    let mut sender = network.send(&tree, 5).args(RATE).arg("--report").arg(&report).spawn();
    sender.expect(3, SOON);
    force.expect(0, SOON);
    merge.expect(0, SOON);
    assert!(plain.expect(1, SOON).stderr.contains("use --force to replace it, or --merge"));
    equal.expect(0, SOON);
    earlier.expect(0, SOON);
    assert_same(&tree, &dirs[0].join("lab"));
    assert_same(&tree, &same.join("lab"));
    assert_same(&tree, &from.join("lab"));
    assert_eq!(fs::read(dirs[1].join("lab/sub/mine")).unwrap(), b"mine");
    fs::remove_file(dirs[1].join("lab/sub/mine")).unwrap();
    let (merged, sent) = (look(&dirs[1].join("lab")), look(&tree));
    assert!(merged.iter().all(|(path, entry)| path == Path::new("sub") || sent[path] == *entry));
    assert_eq!(fs::read(dirs[2].join("lab/aux.c")).unwrap(), b"old");
    for dir in [&dirs[0], &dirs[1], &dirs[2], &same, &from] {
        assert_eq!(names(dir), ["lab"]);
    }
    assert!(Report::read(&report).reason("plain").contains("exists already"));
}

#[test]
fn what_an_earlier_tree_has_is_not_fetched() {
    let (tmp, network) = (TempDir::new(), Network::loopback());
    let (tree, old, out) = (tmp.dir("lab"), tmp.dir("old"), tmp.dir("out"));
    (0..6).for_each(|n| seeded(&tree.join(format!("large-{n}")), 2 * MIB + n, n));
    (0..100).for_each(|n| seeded(&tree.join(format!("small-{n}")), 40_000, 100 + n));
    assert!(Command::new("cp").arg("-r").arg(&tree).arg(&old).status().unwrap().success());
    fs::write(old.join("lab/large-3"), "something else").unwrap();
    fs::remove_file(old.join("lab/small-7")).unwrap();
    let mut receiver = network.recv("r", &out).arg("--from").arg(old.join("lab")).spawn();
    let mut sender = network.send(&tree, 1).args(SLOW).spawn();
    sender.expect(0, SOON);
    let last = receiver.expect(0, SOON).last_event();
    let (resumed, size) = (last["resumed_bytes"].as_f64().unwrap(), last["size"].as_f64().unwrap());
    assert!(resumed > size * 0.4, "{resumed} of {size} were found");
    assert_same(&tree, &out.join("lab"));
    // The earlier one is only read.
    assert_eq!(fs::read(old.join("lab/large-3")).unwrap(), b"something else");
}

#[test]
fn twenty_thousand_small_files() {
    let (tmp, network) = (TempDir::new(), Network::loopback());
    let tree = tmp.dir("many");
    for dir in 0..200 {
        let dir = tmp.dir(&format!("many/{dir:03}"));
        (0..100).for_each(|n| fs::write(dir.join(format!("{n}")), vec![n as u8; 300 + n]).unwrap());
    }
    let out = tmp.dir("out");
    // Fewer descriptors than files by far.
    let limited = |cmd: Cmd| cmd.through(["bash", "-c", "ulimit -n 200; exec \"$0\" \"$@\""]);
    let mut receiver = limited(network.recv("r", &out)).spawn();
    let mut sender = limited(network.send(&tree, 1).args(RATE)).spawn();
    sender.expect(0, SOON);
    receiver.expect(0, SOON);
    assert_same(&tree, &out.join("many"));
    assert_eq!(names(&out), ["many"]);
}

#[test]
fn a_file_that_changes_while_it_is_sent_ends_the_transfer_and_is_named() {
    let (tmp, network) = (TempDir::new(), Network::loopback());
    let tree = tmp.dir("lab");
    seeded(&tree.join("large"), 16 * MIB, 1);
    seeded(&tree.join("victim"), 1000, 2);
    let out = tmp.dir("out");
    let mut receiver = network.recv("r", &out).spawn();
    let mut sender = network.send(&tree, 1).args(SLOW).spawn();
    receiver.received(2 * MIB);
    fs::write(tree.join("victim"), "other").unwrap();
    let end = sender.expect(1, SOON);
    assert!(end.stderr.contains("victim changed while it was being sent"), "{}", end.stderr);
    receiver.expect(6, SOON);
    assert!(!out.join("lab").exists());
}

#[test]
fn what_does_not_go_together_is_said() {
    let tmp = TempDir::new();
    let (tree, file) = (tmp.dir("d"), tmp.file("f", 10, 1));
    fs::write(tree.join("x"), "x").unwrap();
    fs::create_dir(tmp.join("other")).unwrap();
    fs::write(tmp.join("other/f"), "x").unwrap();
    let fails = |args: &[&OsStr], code: i32, text: &str| {
        let mut cmd = Cmd::new("mcp", MCP);
        for arg in args {
            cmd = cmd.arg(*arg);
        }
        let end = cmd.spawn().expect(code, SOON);
        assert!(end.stderr.contains(text), "{}", end.stderr);
    };
    let word = OsStr::new;
    let other = tmp.join("other/f");
    fails(&[word("send"), file.as_os_str(), other.as_os_str()], 1, "have the same name");
    fails(&[word("send"), word("-"), file.as_os_str()], 2, "one stream");
    fails(&[word("send"), file.as_os_str(), tree.as_os_str(), word("--pipe"), word("cat")], 2, "one stream");
    fails(&[word("send"), tree.as_os_str(), word("--pipe"), word("cat")], 2, "is a directory");
    fails(&[word("send"), file.as_os_str(), word("no-such"), word("239.1.1.1")], 1, "no-such does not exist");
    fails(
        &[
            word("recv"),
            word("-o"),
            word("-"),
            word("--merge"),
            word("--any-sender"),
            word("--pipe"),
            word("cat"),
        ],
        2,
        "--merge",
    );
    if !is_root() {
        fails(&[word("send"), word("--archive"), tree.as_os_str()], 1, "needs root");
    }
    // A pipe takes no tree.
    let network = Network::loopback();
    let mut receiver = network.recv("r", "-").spawn();
    let mut sender = network.send(&tree, 1).args(RATE).spawn();
    sender.expect(4, SOON);
    let end = receiver.expect(1, SOON);
    assert!(end.stderr.contains("need a directory"), "{}", end.stderr);
}
