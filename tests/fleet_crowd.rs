//! Ten thousand devices that check in at once, over real HTTP with a real server: each is answered, nothing is lost, a
//! download under way goes on, and memory stays bounded. How fast it is, `crates/fleet/examples/check_ins.rs` measures.

mod support;

use rustix::process::{Resource, getrlimit, setrlimit};
use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Barrier;
use std::thread;
use support::alone;
use support::fleet::{Fleet, SOON, json};

const DEVICES: usize = 10_000;
/// Connections of one thread.
const EACH: usize = 500;
/// What is being downloaded meanwhile.
const SIZE: u64 = 100_000_000;
/// The most that the server may need, in KiB: 40 KiB for each connection, beside what it has for itself.
const MEMORY: u64 = 40 * DEVICES as u64 + 60 * 1024;

/// A check-in of each of these devices, all sent before the first answer is read. The status of each.
fn check_in(address: &str, token: &str, devices: &[usize], together: &Barrier) -> Vec<(usize, String)> {
    let connect = |device: &usize| {
        let mut stream = TcpStream::connect(address).expect("a connection");
        stream.set_read_timeout(Some(SOON)).expect("a time");
        let request = format!(
            "GET /DEFAULT/controller/v1/device-{device} HTTP/1.1\r\nHost: {address}\r\nAuthorization: GatewayToken {token}\r\n\
             Connection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).expect("a request");
        stream
    };
    together.wait();
    let streams: Vec<TcpStream> = devices.iter().map(connect).collect();
    let answer = |(device, mut stream): (&usize, TcpStream)| {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap_or_else(|error| panic!("device-{device}: {error}"));
        let head = answer.split("\r\n\r\n").next().expect("a head").to_ascii_lowercase();
        let status = head.split(' ').nth(1).expect("a status").to_owned();
        let told = status == "200" && answer.contains("\"sleep\"") || head.contains("\r\nretry-after: ");
        assert!(told, "device-{device} knows when to come again: {answer}");
        (*device, status)
    };
    devices.iter().zip(streams).map(answer).collect()
}

/// A round of check-ins: how many devices got which status, and which were told to come later.
fn round(address: &str, token: &str, devices: &[usize]) -> (BTreeMap<String, usize>, Vec<usize>) {
    let groups: Vec<&[usize]> = devices.chunks(EACH).collect();
    let together = Barrier::new(groups.len());
    let statuses = thread::scope(|scope| {
        let together = &together;
        let threads: Vec<_> = groups
            .iter()
            .map(|group| scope.spawn(move || check_in(address, token, group, together)))
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("a group")).collect::<Vec<_>>()
    });
    let mut counts = BTreeMap::new();
    statuses.iter().for_each(|(_, status)| *counts.entry(status.clone()).or_default() += 1);
    let later = statuses.into_iter().filter(|(_, status)| status != "200").map(|(device, _)| device);
    (counts, later.collect())
}

#[test]
fn ten_thousand_devices_check_in_at_once() {
    let _cores = alone();
    let mut files = getrlimit(Resource::Nofile);
    files.current = files.maximum;
    setrlimit(Resource::Nofile, files).expect("more files");
    let Some(fleet) = Fleet::new() else { return };
    let plain = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").to_string();
    let mut server =
        fleet.serving_by(&["--listen-plain", &plain, "--no-multicast", "--http-rate", "20M"]).spawn();
    server.next_line(SOON);
    server.watch_memory();
    let token = fleet.operate(&["enrol", "new", "--gateway"]).lines.concat();
    let accepted = fleet.operate(&["device", "accept", "loader", "--token"]).lines.concat();
    let own = accepted.strip_prefix("loader ").expect("a token");
    let file = fleet.tmp.file("image.iso", SIZE, 1);
    let path = file.to_str().expect("UTF-8");
    fleet.operate(&["task", "add", "copy", path, "--to", "loader", "--at", "/srv/"]);

    let (first, second) = thread::scope(|scope| {
        let mut loading = TcpStream::connect(&plain).expect("a connection");
        let request = format!(
            "GET /DEFAULT/controller/v1/loader/softwaremodules/1/artifacts/image.iso HTTP/1.1\r\nHost: {plain}\r\n\
             Authorization: TargetToken {own}\r\nConnection: close\r\n\r\n"
        );
        loading.write_all(request.as_bytes()).expect("a request");
        let mut begun = [0; 1000];
        loading.read_exact(&mut begun).expect("it has begun");
        let loaded = scope.spawn(move || {
            let mut answer = begun.to_vec();
            loading.read_to_end(&mut answer).expect("all of it");
            answer
        });
        // All are unknown at first, and are written down; then they are known. Who is told to, comes again.
        let all: Vec<usize> = (0..DEVICES).collect();
        let mut rounds = Vec::new();
        for _ in 0..2 {
            let (counts, mut later) = round(&plain, &token, &all);
            assert!(counts.keys().all(|status| status == "200" || status == "503"), "{counts:?}");
            assert_eq!(counts.values().sum::<usize>(), DEVICES, "{counts:?}");
            while !later.is_empty() {
                let (counts, again) = round(&plain, &token, &later);
                assert!(counts.keys().all(|status| status == "200" || status == "503"), "{counts:?}");
                later = again;
            }
            rounds.push(counts);
        }
        let answer = loaded.join().expect("the download");
        let body = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("a head") + 4;
        assert!(answer[body..] == fs::read(&file).expect("read"), "the download is whole");
        (rounds.remove(0), rounds.remove(0))
    });
    assert!(first["200"] > 0 && second["200"] > 0, "{first:?} {second:?}");

    // Nobody is lost who was answered, and what follows works.
    let devices = json(&fleet.operate(&["device", "list", "--json"]));
    let devices = devices.as_array().expect("devices");
    assert_eq!(devices.len(), DEVICES + 1);
    assert!(devices.iter().all(|device| device["state"] == "accepted"));
    let peak = server.memory().anonymous >> 10;
    assert!(peak < MEMORY, "{peak} KiB, {first:?}, {second:?}");
    server.signal("TERM");
    server.expect(0, SOON);
}
