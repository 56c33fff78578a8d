//! The static binary where there is next to nothing: no library, no home, no state directory, no environment, a
//! read-only root, closed standard input, and the same host name everywhere; a state directory that can only be read; a clock in 1970. `MCP_STATIC` names the binary, which `cargo
//! static` builds; without it, or without root and namespaces, the test says so and passes.

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use support::files::{TempDir, assert_only_copy, names};
use support::lab::Lab;
use support::mcp::{Network, Report, SOON, is_event};
use support::process::{Cmd, End};
use support::{has_program, is_root, skip};

/// Prepares the root `$1`, with nothing in it but /sys, /dev/null (without which no Rust program starts with a closed
/// standard input), the binary `$2`, and with the directory `$3` as `/data`. Then it runs the rest there.
const ENTER: &str = "root=$1 mcp=$2 data=$3; shift 3
mount -t tmpfs none $root && mkdir $root/sys $root/data $root/dev && mknod $root/dev/null c 1 3 && cp $mcp $root/mcp && mount -t sysfs none $root/sys &&
mount --bind $data $root/data && mount -o remount,ro $root && exec env -i $(command -v chroot) $root \"$@\" <&-";

/// Makes a command run in a root of its own, in which `data` is `/data`.
fn inside(cmd: Cmd, binary: &Path, root: &Path, data: &Path) -> Cmd {
    let words = ["unshare", "--mount", "sh", "-c", ENTER, "sh"].map(PathBuf::from);
    let words = words.into_iter().chain([root, binary, data].map(Path::to_owned));
    cmd.program("/mcp").through(words)
}

#[test]
fn one_file_is_all_that_is_needed() {
    let Some(binary) = std::env::var_os("MCP_STATIC").map(PathBuf::from) else {
        return skip("MCP_STATIC names no static binary; 'cargo static' builds one");
    };
    let Some(lab) = Lab::new(3) else { return };
    let (tmp, network) = (TempDir::new(), Network::new("239.77.4.1", 7417, "eth0"));
    let roots = [0, 1, 2].map(|host| tmp.dir(&format!("root{host}")));
    let data = [0, 1, 2].map(|host| tmp.dir(&format!("data{host}")));
    let source = tmp.file("data0/image.bin", 5 << 20, 1);
    let on = |host: usize, cmd| lab.on(host, inside(cmd, &binary, &roots[host], &data[host]));
    let mut receivers: Vec<_> = (1..3)
        .map(|host| {
            let recv = Cmd::new("recv", "mcp").args(["recv", "--json", "--timeout", "60", "-o", "/data"]);
            on(host, recv).spawn()
        })
        .collect();
    let send = network.send("/data/image.bin", 2).args(["--report", "/data/report"]);
    let sender = on(0, send).spawn().expect(0, SOON);
    for receiver in &mut receivers {
        let end = receiver.expect(0, SOON);
        assert!(!end.stderr.contains("--id"), "{}", end.stderr);
    }
    (1..3).for_each(|host| assert_only_copy(&source, &data[host]));
    // The machines are told apart by their hardware, although all have one name.
    assert!(!sender.events().iter().any(|event| is_event(event, "duplicate_id")));
    let report = Report::read(&data[0].join("report"));
    let labels: Vec<&str> = report.rows().iter().map(|row| row["label"].as_str().unwrap()).collect();
    let host = rustix::system::uname().nodename().to_str().unwrap().to_owned();
    assert_eq!(labels.len(), 2);
    assert!(
        labels[0] != labels[1] && labels.iter().all(|label| label.starts_with(&format!("{host}-"))),
        "{labels:?}"
    );
    // Nothing was written beside the file.
    assert_eq!(names(&data[1]), ["image.bin"]);
    assert!(roots.iter().all(|root| names(root).is_empty()));
}

/// Makes a command see the directory as read-only.
fn read_only(cmd: Cmd, dir: &Path) -> Cmd {
    let script = "mount --bind \"$1\" \"$1\" && mount -o remount,bind,ro \"$1\" && shift && exec \"$@\"";
    let words = ["unshare", "--mount", "sh", "-c", script, "sh"].map(PathBuf::from).into_iter();
    cmd.through(words.chain([dir.to_owned()])).env("MCP_STATE_DIR", dir)
}

#[test]
fn a_state_directory_that_is_read_only_is_used_as_it_is() {
    if !is_root() {
        return skip("a read-only mount needs root");
    }
    let (tmp, network) = (TempDir::new(), Network::loopback());
    let states = [tmp.dir("sender"), tmp.dir("receiver")];
    let send = |source: &Path| network.send(source, 1).args(["--rate", "300M"]);
    let key = |end: &End| end.events()[0]["key"].as_str().expect("the sender's key").to_owned();
    let (first, second) = (tmp.file("a.bin", 3 << 20, 1), tmp.file("b.bin", 3 << 20, 2));
    let out = tmp.dir("out");
    // Both make what they keep.
    let mut receiver = network.recv("r", &out).env("MCP_STATE_DIR", &states[1]).spawn();
    let before = send(&first).env("MCP_STATE_DIR", &states[0]).spawn().expect(0, SOON);
    receiver.expect(0, SOON);
    // When it is read-only, the sender is still the same one, and nothing fails.
    let known = ["--sender".to_owned(), key(&before)];
    let mut receiver = read_only(network.recv("r", &out).args(&known), &states[1]).spawn();
    let after = read_only(send(&second), &states[0]).spawn().expect(0, SOON);
    receiver.expect(0, SOON);
    assert_eq!(key(&before), key(&after));
    assert!(std::fs::read(&second).expect("source") == std::fs::read(out.join("b.bin")).expect("copy"));
}

/// A machine whose clock begins in 1970 at each start. Only the program's clock does here: the machine's own is not touched.
const CLOCK: &str = "#define _GNU_SOURCE
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
int clock_gettime(clockid_t id, struct timespec *at) {
    int failed = syscall(SYS_clock_gettime, id, at);
    if (id == CLOCK_REALTIME && !failed) at->tv_sec %= 1000;
    return failed;
}
";

#[test]
fn a_clock_in_1970_is_no_obstacle() {
    if !has_program("cc") {
        return skip("no program cc");
    }
    let (tmp, network) = (TempDir::new(), Network::loopback());
    let (code, library) = (tmp.join("clock.c"), tmp.join("clock.so"));
    std::fs::write(&code, CLOCK).expect("the code");
    let built = Command::new("cc").args(["-shared", "-fPIC", "-o"]).args([&library, &code]).status();
    assert!(built.is_ok_and(|status| status.success()));
    let date = Command::new("date").args(["-u", "+%Y"]).env("LD_PRELOAD", &library).output().expect("date");
    assert_eq!(String::from_utf8_lossy(&date.stdout), "1970\n");
    let (states, out) = ([tmp.dir("sender"), tmp.dir("receiver")], tmp.dir("out"));
    let early = |cmd: Cmd, state: &Path| cmd.env("LD_PRELOAD", &library).env("MCP_STATE_DIR", state);
    // The second run of the sender is newer than the first although its clock is not.
    for (name, seed) in [("a.bin", 1), ("b.bin", 2)] {
        let source = tmp.file(name, 3 << 20, seed);
        let mut receiver = early(network.recv("r", &out), &states[1]).spawn();
        let send = network.send(&source, 1).args(["--rate", "300M"]);
        early(send, &states[0]).spawn().expect(0, SOON);
        receiver.expect(0, SOON);
        assert!(std::fs::read(&source).expect("source") == std::fs::read(out.join(name)).expect("copy"));
    }
    // Nor does it matter when the clock is set.
    let source = tmp.file("c.bin", 3 << 20, 3);
    let mut receiver = network.recv("r", &out).env("MCP_STATE_DIR", &states[1]).spawn();
    let send = network.send(&source, 1).args(["--rate", "auto"]).env("MCP_STATE_DIR", &states[0]);
    send.spawn().expect(0, SOON);
    receiver.expect(0, SOON);
    assert!(std::fs::read(&source).expect("source") == std::fs::read(out.join("c.bin")).expect("copy"));
}
