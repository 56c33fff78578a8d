//! Counts that are the same in each run, compared with the values in `values.txt`. Fails if one is worse.
//!
//! ```text
//! cargo bench --profile dev --bench counts                 (compares; .ci/run does this)
//! cargo bench --profile dev --bench counts -- --accept     (writes the values of this run, to be committed)
//! cargo bench --bench counts -- crowd 100 1000 3000        (processor time of the sender's loop for each device)
//! ```
//!
//! - `instructions`: of the workloads, built with the profile dev, on valgrind's processor (which has AVX2 if the
//!   machine has it). Needs valgrind.
//! - `allocations`, `allocated`: calls and bytes of the whole process in a transfer of 4 MiB.
//! - `datagrams`, `wire`, `feedback`: of a transfer in memory and virtual time, see `pair`.
//! - `syscalls`: of the built program in a transfer between network namespaces, by strace. They depend on the time that
//!   threads take, so the tolerance is wide. Needs root.
//!
//! A line of the values has a name, a value, and by how much per cent it may be exceeded.

#[path = "../../tests/support/mod.rs"]
mod support;

mod pair;
mod programs;
mod values;
mod workloads;

use pair::Traffic;
use std::process::ExitCode;
use std::time::Duration;
use values::Values;
use workloads::ALL;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => check(false),
        ["--accept"] => check(true),
        // This program under valgrind.
        ["crowd", ref counts @ ..] => crowd(counts),
        ["run", name] => match ALL.iter().find(|workload| workload.name == name) {
            Some(workload) => {
                (workload.run)();
                ExitCode::SUCCESS
            }
            None => usage(),
        },
        _ => usage(),
    }
}

fn usage() -> ExitCode {
    eprintln!("usage: counts [--accept]");
    ExitCode::from(2)
}

/// Prints what so many devices cost the sender's loop.
fn crowd(counts: &[&str]) -> ExitCode {
    println!("devices  joined s  each us  the rest s  each us  each us and second  feedback");
    for count in counts {
        let Ok(devices) = count.parse() else { return usage() };
        let Traffic { gathered, ended, gathering, whole, feedback, .. } = pair::transfer(256, devices, 0);
        let each = |time: Duration| time.as_secs_f64() * 1e6 / devices as f64;
        let (rest, cost) = ((ended - gathered).as_secs_f64(), each(whole - gathering));
        println!(
            "{devices:7}{:10.2}{:9.1}{rest:12.2}{cost:9.1}{:20.1}{:10.2}",
            gathered.as_secs_f64(),
            each(gathering),
            each(whole) / ended.as_secs_f64(),
            feedback as f64 / devices as f64
        );
    }
    ExitCode::SUCCESS
}

fn check(accept: bool) -> ExitCode {
    let mut values = Values::read();
    for (name, devices, lose) in [("plain", 2, 0), ("1%-lost", 4, 100)] {
        let (mib, traffic) = (16.0, pair::transfer(16 << 10, devices, lose));
        let per_mib = |count: u64| count as f64 / mib;
        values.met(&format!("datagrams/{name}"), per_mib(traffic.sent), 1);
        values.met(&format!("wire/{name}"), per_mib(traffic.wire_bytes), 1);
        values.met(&format!("feedback/{name}"), per_mib(traffic.feedback), 10);
    }
    programs::under_valgrind(&mut values);
    programs::syscalls(&mut values);
    values.conclude(accept)
}
