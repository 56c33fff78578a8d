//! Devices that serve others, with real processes: what is loaded from a neighbour, a neighbour that is killed, and a device without the
//! policy.

mod support;

use std::collections::BTreeSet;
use std::fs;
use support::beside_others;
use support::files::{b3, names};
use support::fleet::{Device, Fleet, SOON, id, wait_for};
use support::process::Proc;

/// The identifiers of the TCP sockets that a process listens on.
fn listening(process: &Proc) -> BTreeSet<String> {
    let dir = format!("/proc/{}/fd", process.pid());
    let links =
        fs::read_dir(dir).expect("the process").flatten().filter_map(|fd| fs::read_link(fd.path()).ok());
    let sockets: BTreeSet<String> = links
        .filter_map(|link| Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    let tables = ["tcp", "tcp6"].map(|name| {
        let table = fs::read_to_string(format!("/proc/{}/net/{name}", process.pid()));
        table.expect("a table of sockets")
    });
    // State 0A is LISTEN; the tenth column is the socket's number.
    let rows =
        tables.iter().flat_map(|table| table.lines()).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let listening =
        rows.filter(|row| row.get(3) == Some(&"0A")).filter_map(|row| row.get(9).map(ToString::to_string));
    listening.filter(|socket| sockets.contains(socket)).collect()
}

/// Waits until a device has checked in with the copy that it keeps for neighbours.
fn offers(device: &Device) {
    let objects = device.state("offered/objects");
    let kept = || {
        let dirs = fs::read_dir(&objects).into_iter().flatten().flatten();
        dirs.filter(|dir| dir.file_name().len() == 2).any(|dir| names(&dir.path()).len() == 2)
    };
    wait_for("copy for neighbours", kept);
    let last = || {
        let text = fs::read(device.state("status.json")).unwrap_or_default();
        serde_json::from_slice::<serde_json::Value>(&text).ok().and_then(|status| status["last"].as_u64())
    };
    let before = last();
    let checked_in = || last().zip(before).is_some_and(|(now, before)| now >= before + 3);
    wait_for("further check-ins", checked_in);
}

#[test]
fn devices_serve_others_by_policy_only_and_may_be_killed() {
    let _cores = beside_others();
    let Some(fleet) = Fleet::new() else { return };
    let mut server = fleet.serving().arg("--neighbours").spawn();
    server.next_line(SOON);
    let devices = ["bench-1", "bench-2", "bench-3"].map(|name| fleet.device(name));
    let [one, two, three] = &devices;
    let image = fleet.tmp.file("image.iso", 5_000_000, 1);
    let file = image.to_str().expect("UTF-8");
    let add = |device: &Device| {
        let name = device.name.as_str();
        id(&fleet.operate(&["task", "add", "copy", file, "--to", name, "--name", name, "--at", "/srv/"]))
    };
    let ends = |task: i64, device: &Device| {
        wait_for("copy", || fleet.action(task, &device.name)["state"] == "finished");
        assert_eq!(b3(&device.path("image.iso")), b3(&image), "{}", device.name);
        fleet.action(task, &device.name)["message"].as_str().expect("a message").to_owned()
    };

    let mut first = one.run(&["--serve-neighbours", "127.0.0.2:0", "--neighbour-rate", "1M"]);
    let task = add(one);
    ends(task, one);
    offers(one);
    let second = two.run(&[]);
    let said = ends(add(two), two);
    assert!(said.ends_with("5000000 bytes from neighbours"), "{said}");
    assert_eq!((listening(&first).len(), listening(&second).len()), (1, 0), "by policy only");
    assert!(!two.state("offered").exists());

    // Killed when the third one has a fifth of the file. Its space is reserved before.
    let task = add(three);
    let _third = three.run(&[]);
    let (bytes, fifth) = (fs::read(&image).expect("the image"), 1_000_000..1_000_100);
    let loaded = || {
        let files = fs::read_dir(three.dir.join("srv")).expect("a directory").flatten();
        let mut parts = files.filter_map(|file| fs::read(file.path()).ok());
        parts.any(|part| part.get(fifth.clone()) == bytes.get(fifth.clone()))
    };
    wait_for("beginning of the copy", loaded);
    first.signal("KILL");
    first.finish(SOON);
    let said = ends(task, three);
    let neighbours = said.strip_suffix(" bytes from neighbours").and_then(|text| text.rsplit(' ').next());
    let bytes: u64 = neighbours.and_then(|bytes| bytes.parse().ok()).unwrap_or_else(|| panic!("{said}"));
    assert!((1 << 20..5_000_000).contains(&bytes), "{said}");

    // Without the policy from now on: what it kept is removed, and nothing listens.
    let first = one.run(&[]);
    wait_for("end of the copies", || !one.state("offered").exists());
    assert_eq!(listening(&first).len(), 0);
}
