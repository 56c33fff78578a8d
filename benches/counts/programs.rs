//! Counts by other programs: instructions by callgrind, allocations by dhat, system calls by strace.

use super::support::files::TempDir;
use super::support::lab::Lab;
use super::support::mcp::Network;
use super::support::{has_program, skip};
use super::values::Values;
use super::workloads::{ALL, Workload};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Bits per second, and bytes, of the transfer whose system calls are counted.
const RATE: &str = "200M";
const SIZE: u64 = 32 << 20;

/// Runs this program under a tool of valgrind, and returns the numbers after `before` in what the tool says.
fn count(tool: &[&str], workload: &str, before: &str) -> Vec<f64> {
    let own = std::env::current_exe().expect("the path of this program");
    let output = Command::new("valgrind").args(tool).arg(own).args(["run", workload]).output();
    let output = output.expect("start valgrind");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "valgrind {tool:?} {workload}: {said}");
    let line = said.lines().find_map(|line| line.split_once(before)).map(|(_, rest)| rest);
    let line = line.unwrap_or_else(|| panic!("valgrind did not say {before:?}: {said}"));
    let words = line.split_whitespace().map(|word| word.replace(',', ""));
    words.filter_map(|word| word.parse().ok()).collect()
}

fn instructions(workload: &Workload) -> f64 {
    let toggle = format!("--toggle-collect=*{}*", workload.below);
    count(&["--tool=callgrind", "--callgrind-out-file=/dev/null", &toggle], workload.name, "Collected :")[0]
}

/// Bytes and calls. The line reads "Total:     48,821 bytes in 1,012 blocks".
fn allocations(workload: &str) -> Vec<f64> {
    count(&["--tool=dhat", "--dhat-out-file=/dev/null"], workload, "Total:")
}

/// Counts the instructions of each workload, and the allocations of transfers.
pub fn under_valgrind(values: &mut Values) {
    if !has_program("valgrind") {
        skip(
            "instructions and allocations are not counted: valgrind is not installed (apt-get install valgrind)",
        );
        return;
    }
    std::thread::scope(|scope| {
        // Two at a time: as many as the smallest machine has cores.
        let (left, right) = ALL.split_at(ALL.len() / 2 + 2);
        let count = |half: &'static [Workload]| half.iter().map(instructions).collect::<Vec<f64>>();
        let other = scope.spawn(move || count(right));
        let mut counted = count(left);
        let transfers = ["receive-4-mib", "receive-2-mib-at-3-1%-lost"].map(|name| (name, allocations(name)));
        counted.extend(other.join().expect("counted"));
        for (workload, counted) in ALL.iter().zip(counted) {
            values.met(&format!("instructions/{}", workload.name), counted, 3);
        }
        for (name, counted) in transfers {
            let name = name.trim_start_matches("receive-");
            values.met(&format!("allocations/{name}"), counted[1], 5);
            values.met(&format!("allocated/{name}"), counted[0], 5);
        }
    });
}

/// The number of calls in a summary of strace.
fn calls(summary: &Path) -> f64 {
    let text = fs::read_to_string(summary).expect("strace's summary");
    let total = text.lines().rev().find(|line| line.trim_end().ends_with("total"));
    let total = total.unwrap_or_else(|| panic!("no total: {text}"));
    total.split_whitespace().nth(3).and_then(|word| word.parse().ok()).expect("a number of calls")
}

/// Counts the system calls of the sender, and of one of two receivers, for each MiB.
pub fn syscalls(values: &mut Values) {
    if !has_program("strace") {
        skip("system calls are not counted: strace is not installed (apt-get install strace)");
        return;
    }
    let Some(lab) = Lab::new(3) else { return };
    let place = TempDir::new();
    let source = place.file("image.bin", SIZE, 1);
    let network = Network::new("239.77.0.1", 7417, "eth0");
    let summary = |name: &str| place.join(format!("{name}.calls"));
    let traced = |name: &str| {
        let words = ["strace", "-f", "-c", "-o"].map(str::to_owned);
        words.into_iter().chain([summary(name).display().to_string()])
    };
    let mut receivers: Vec<_> = (1..=2)
        .map(|host| {
            let cmd = network.recv(&format!("h{host}"), place.dir(&format!("h{host}")));
            let cmd = if host == 1 { cmd.through(traced("receiver")) } else { cmd };
            lab.on(host, cmd).spawn()
        })
        .collect();
    std::thread::sleep(Duration::from_millis(500));
    let send = network.send(&source, 2).args(["--rate", RATE]).through(traced("sender"));
    lab.on(0, send).spawn().expect(0, Duration::from_secs(60));
    for receiver in &mut receivers {
        receiver.expect(0, Duration::from_secs(60));
    }
    let mib = (SIZE >> 20) as f64;
    for name in ["sender", "receiver"] {
        values.met(&format!("syscalls/{name}"), calls(&summary(name)) / mib, 40);
    }
}
