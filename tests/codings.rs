//! Zeros, holes and compression: the real binary, over `lo` and in namespaces with loss. What is on the wire, and what is
//! stored.

mod support;

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use support::files::{TempDir, assert_only_copy, names};
use support::lab::Lab;
use support::loops::Loop;
use support::mcp::{Network, Report, SOON};
use support::process::Proc;
use support::{has_program, is_root, skip};

const MIB: u64 = 1 << 20;
const RATE: [&str; 2] = ["--rate", "200M"];

/// A file of `size` bytes with random bytes in `data`, and holes.
fn file(path: &Path, size: u64, data: &[(u64, u64)]) {
    let file = File::create(path).expect("create");
    file.set_len(size).expect("size");
    let mut rng = fastrand::Rng::with_seed(size);
    for &(offset, len) in data {
        let mut bytes = vec![0; len as usize];
        rng.fill(&mut bytes);
        file.write_all_at(&bytes, offset).expect("write");
    }
}

/// 256 MiB of which nearly 6 MiB are random, 8 MiB are zeros that are stored, and the rest is holes.
fn sparse(tmp: &TempDir) -> (PathBuf, u64) {
    let path = tmp.join("image.bin");
    file(&path, 256 * MIB + 123, &[(0, 4096), (40 * MIB, 5 * MIB + 700_000), (256 * MIB, 123)]);
    let stored = OpenOptions::new().write(true).open(&path).expect("open");
    stored.write_all_at(&vec![0; 8 << 20], 100 * MIB).expect("write");
    (path, 4096 + 5 * MIB + 700_000 + 123)
}

fn stored(path: &Path) -> u64 {
    fs::metadata(path).expect("metadata").blocks() * 512
}

#[test]
fn a_sparse_file_takes_its_data_on_the_wire_and_on_the_disk() {
    let Some(lab) = Lab::new(5) else { return };
    let tmp = TempDir::new();
    let (source, data) = sparse(&tmp);
    let network = Network::new("239.77.0.1", 7417, "eth0");
    (1..5).for_each(|host| lab.lose(host, 10));
    let dir = |host: usize| tmp.dir(&format!("h{host}"));
    let receiver = |host| lab.on(host, network.recv(&format!("h{host}"), dir(host))).spawn();
    let mut receivers: Vec<Proc> = (1..5).map(receiver).collect();
    let report = tmp.join("report.json");
    let before = lab.tx_bytes(0);
    let sender = network.send(&source, 4).args(RATE).arg("--report").arg(&report);
    lab.on(0, sender).spawn().expect(0, SOON);
    receivers.iter_mut().for_each(|receiver| drop(receiver.expect(0, SOON)));
    let wire = lab.tx_bytes(0) - before;
    assert!(wire > data && wire < data * 3 / 2, "{wire} bytes on the wire for {data}");
    for host in 1..5 {
        assert_only_copy(&source, &dir(host));
        let stored = stored(&dir(host).join("image.bin"));
        // Blocks with data are stored whole.
        assert!(stored < data + 2 * MIB, "h{host} stores {stored} bytes");
    }
    let report = Report::read(&report);
    assert!((1..5).all(|host| report.status(&format!("h{host}")) == "complete"));
}

/// What was read is in the page cache, holes too.
#[test]
fn holes_are_not_read() {
    if !has_program("fincore") {
        return skip("no program fincore");
    }
    let (tmp, network) = (TempDir::new(), Network::loopback());
    let source = tmp.join("image.bin");
    file(&source, 256 * MIB, &[(100 * MIB, MIB)]);
    let cached = |file: &Path| -> u64 {
        let output = Command::new("fincore").args(["-b", "-n", "-o", "RES"]).arg(file).output();
        let text = String::from_utf8(output.expect("fincore").stdout).expect("a number");
        text.trim().parse().unwrap_or_else(|e| panic!("fincore says {text:?}: {e}"))
    };
    let read = tmp.join("read.bin");
    file(&read, 256 * MIB, &[(100 * MIB, MIB)]);
    fs::read(&read).expect("the file");
    if cached(&read) < 200 * MIB {
        eprintln!("this file system keeps no holes in memory, so the test says nothing here");
    }
    let mut receiver = network.recv("r", tmp.dir("out")).spawn();
    network.send(&source, 1).args(RATE).spawn().expect(0, SOON);
    receiver.expect(0, SOON);
    let sent = cached(&source);
    assert!(sent < 16 * MIB, "{sent} bytes of a file with 1 MiB were read");
}

/// Lines of a log: they shrink to a fifth.
fn log(path: &Path, size: usize) {
    let mut rng = fastrand::Rng::with_seed(7);
    let mut text = String::with_capacity(size + 100);
    while text.len() < size {
        let (n, what) = (rng.u32(..), ["mounted", "started", "failed", "removed"][rng.usize(..4)]);
        text.push_str(&format!(
            "Nov 22 04:15:{:02} host{:03} service[{n}]: it was {what}\n",
            n % 60,
            n % 300
        ));
    }
    fs::write(path, &text.as_bytes()[..size]).expect("write");
}

#[test]
fn compressed_blocks_are_repaired_and_unpacked() {
    let Some(lab) = Lab::new(4) else { return };
    for compress in ["auto", "3"] {
        let tmp = TempDir::new();
        let source = tmp.join("log");
        log(&source, (12 << 20) + 999);
        let network = Network::new("239.77.0.1", 7417, "eth0");
        (1..4).for_each(|host| lab.lose(host, 20));
        let dir = |host: usize| tmp.dir(&format!("h{host}"));
        let receiver = |host| lab.on(host, network.recv(&format!("h{host}"), dir(host))).spawn();
        let mut receivers: Vec<Proc> = (1..4).map(receiver).collect();
        let before = lab.tx_bytes(0);
        let sender = network.send(&source, 3).args(["--rate", "50M", "--compress", compress]);
        lab.on(0, sender).spawn().expect(0, SOON);
        receivers.iter_mut().for_each(|receiver| drop(receiver.expect(0, SOON)));
        let wire = lab.tx_bytes(0) - before;
        assert!(wire < 6 * MIB, "{wire} bytes on the wire with --compress {compress}");
        (1..4).for_each(|host| assert_only_copy(&source, &dir(host)));
    }
}

/// An interrupted sparse file is resumed: nothing that it has is sent again, and its holes stay.
#[test]
fn a_sparse_part_file_is_resumed() {
    let tmp = TempDir::new();
    let source = tmp.join("image.bin");
    file(&source, 64 * MIB, &[(8 * MIB, 12 * MIB), (50 * MIB, 2 * MIB)]);
    let (out, network) = (tmp.dir("out"), Network::loopback());
    let mut receiver = network.recv("r", &out).spawn();
    let mut sender = network.send(&source, 1).args(["--rate", "20M"]).spawn();
    // 50 MiB of it are zeros.
    receiver.received(58 * MIB);
    receiver.signal("KILL");
    sender.signal("INT");
    sender.finish(SOON);
    receiver.finish(SOON);
    let part = names(&out);
    assert!(part.len() == 1 && part[0].ends_with(".mcp-part"), "{part:?}");
    let report = tmp.join("report.json");
    let mut receiver = network.recv("r", &out).spawn();
    let mut sender = network.send(&source, 1).args(RATE).arg("--report").arg(&report).spawn();
    sender.expect(0, SOON);
    receiver.expect(0, SOON);
    assert_only_copy(&source, &out);
    let stored = stored(&out.join("image.bin"));
    assert!(stored < 15 * MIB, "{stored} bytes are stored");
    let wire = Report::read(&report).counter("wire_bytes");
    assert!(wire < 9.0 * MIB as f64, "{wire} bytes on the wire");
}

#[test]
fn a_sparse_file_goes_through_a_pipe() {
    let tmp = TempDir::new();
    let (source, data) = sparse(&tmp);
    let (out, report, network) = (tmp.join("out"), tmp.join("report.json"), Network::loopback());
    let script = format!("set -o pipefail; \"$0\" \"$@\" | cat >{}", out.display());
    let spool = tmp.dir("spool");
    let mut plain = network.recv("plain", "-").through(["bash", "-c", &script]).spawn();
    let spooled = network.recv("spooled", "-").arg("--spool").arg(&spool);
    let mut spooled =
        spooled.through(["bash", "-c", &format!("\"$0\" \"$@\" | cmp - {}", source.display())]).spawn();
    let mut sender = network.send(&source, 2).args(RATE).arg("--report").arg(&report).spawn();
    sender.expect(0, SOON);
    plain.expect(0, SOON);
    spooled.expect(0, SOON);
    assert!(Command::new("cmp").arg(&source).arg(&out).status().is_ok_and(|status| status.success()));
    assert!(Report::read(&report).counter("wire_bytes") < 1.5 * data as f64);
}

#[test]
fn a_sparse_image_zeroes_what_was_on_a_device() {
    if !Loop::possible() {
        return;
    }
    let tmp = TempDir::new();
    let (source, image) = (tmp.join("image.bin"), tmp.join("disk"));
    file(&source, 32 * MIB, &[(2 * MIB, 3 * MIB)]);
    fs::write(&image, vec![9; 32 << 20]).expect("a disk with something on it");
    let device = Loop::over(&image, &[]);
    let network = Network::loopback();
    let mut receiver = network.recv("r", device.path()).arg("--any-sender").spawn();
    let report = tmp.join("report.json");
    let mut sender = network.send(&source, 1).args(RATE).arg("--report").arg(&report).spawn();
    let (sent, received) = (sender.finish(SOON), receiver.finish(SOON));
    drop(device);
    assert!(sent.code == Some(0) && received.code == Some(0), "{}", received.stderr);
    assert!(Command::new("cmp").arg(&source).arg(&image).status().is_ok_and(|status| status.success()));
    assert!(Report::read(&report).counter("wire_bytes") < 5.0 * MIB as f64);
}

/// What the disk has no room for is refused before the first byte; holes need none.
#[test]
fn a_sparse_file_fits_a_disk_smaller_than_it() {
    if !is_root() {
        skip("a small file system needs root");
        return;
    }
    // More holes than the sender tells one by one.
    let scattered: Vec<(u64, u64)> = (0..12).map(|at| (at * 340 * MIB, 4096)).collect();
    let cases =
        [(vec![(1024 * MIB, 4 * MIB)], true), (vec![(1024 * MIB, 20 * MIB)], false), (scattered, true)];
    for (spots, fits) in cases {
        let tmp = TempDir::new();
        let source = tmp.join("image.bin");
        file(&source, 4096 * MIB, &spots);
        let data: u64 = spots.iter().map(|(_, len)| len).sum();
        let (out, network) = (tmp.dir("out"), Network::loopback());
        let done = tmp.join("blocks");
        let script = format!(
            "\"$0\" \"$@\"; status=$?; stat -c %b {}/* >{}; exit $status",
            out.display(),
            done.display()
        );
        let receiver = network.recv("r", &out).through(["bash", "-c", &script]).with_tmpfs(&out, "size=16m");
        let mut receiver = receiver.spawn();
        let mut sender = network.send(&source, 1).args(RATE).spawn();
        let end = receiver.finish(Duration::from_secs(60));
        sender.finish(SOON);
        assert_eq!(end.code, Some(if fits { 0 } else { 1 }), "{}", end.stderr);
        assert_eq!(end.stderr.contains("no room for"), !fits, "{}", end.stderr);
        if fits {
            let blocks: u64 = fs::read_to_string(&done).expect("blocks").trim().parse().expect("a number");
            // A block of which something is stored may be stored whole.
            assert!(blocks * 512 < data + spots.len() as u64 * MIB, "{blocks}");
        }
    }
}
