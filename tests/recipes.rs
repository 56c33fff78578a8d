//! The recipes of `docs/guide/recipes.md`, run as they stand there, between machines in namespaces. Only what names a
//! machine's own things is replaced: addresses, devices, directories, counts and times.

mod support;

use std::fs;
use std::path::Path;
use support::beside_others;
use support::files::b3;
use support::loops::Loop;
use support::mcp::SOON;
use support::process::Proc;
use support::site::{Site, must};

const DOCUMENT: &str = include_str!("../docs/guide/recipes.md");
const MIB: u64 = 1 << 20;

/// The headings of the recipes that the tests below run.
const KEY: &str = "A key for all of them";
const IMAGE: &str = "A classroom's image";
const SYNC: &str = "A lab in step with the teacher";
const KIOSK: &str = "A kiosk loop";
const DIODE: &str = "A data diode";
const FLEET: &str = "An update of a fleet";

/// The blocks of commands of a recipe. Their number is part of what a test knows, so a new one needs to be run too.
#[track_caller]
fn recipe<const BLOCKS: usize>(heading: &str) -> [&'static str; BLOCKS] {
    let section = DOCUMENT.split("\n## ").find(|section| section.lines().next() == Some(heading));
    let section = section.unwrap_or_else(|| panic!("no recipe {heading:?}"));
    let blocks = section.split("```sh\n").skip(1);
    let blocks: Vec<_> =
        blocks.map(|block| block.split_once("\n```").expect("the end of a block").0).collect();
    blocks.try_into().unwrap_or_else(|blocks| panic!("{heading}: {BLOCKS} blocks are run, not {blocks:?}"))
}

/// A site whose host 0 sends, and where all have the group key.
fn keyed(hosts: usize, programs: &[&str]) -> Option<Site> {
    let site = Site::new(DOCUMENT, hosts, programs)?;
    let [new, add] = recipe(KEY);
    site.run(0, "server", new, &[]).expect(0, SOON);
    for host in 1..hosts {
        let dir = site.tmp.dir(&format!("host-{host}"));
        fs::copy(site.tmp.join("server/lab.key"), dir.join("lab.key")).expect("carry the key");
        site.run(host, &format!("host-{host}"), add, &[]).expect(0, SOON);
    }
    Some(site)
}

/// Waits for a file with this content.
#[track_caller]
fn appears(path: &Path, wanted: &str) {
    support::fleet::wait_for(&format!("{wanted:?} in {}", path.display()), || {
        fs::read_to_string(path).is_ok_and(|text| text == wanted)
    });
}

fn stop(mut process: Proc, signal: &str) {
    process.signal(signal);
    process.finish(SOON);
}

#[test]
fn every_recipe_is_run() {
    let headings: Vec<_> = DOCUMENT.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    assert_eq!(headings, [KEY, IMAGE, SYNC, KIOSK, DIODE, FLEET]);
}

#[test]
fn a_classrooms_disks() {
    let _cores = beside_others();
    let Some(site) = keyed(3, &["losetup", "bash"]) else { return };
    let [recv, send] = recipe(IMAGE);
    let disks = [1, 2].map(|n| Loop::sized(&site.tmp.join(format!("{n}.disk")), 8 << 20));
    for seed in [1, 2] {
        let image = site.tmp.file("server/golden.img", 8 * MIB, seed);
        let mut machines = [1, 2].map(|n| {
            let replaced = [("/dev/sda", disks[n - 1].path()), ("reboot", "'touch rebooted'")];
            site.run(n, &format!("host-{n}"), recv, &replaced)
        });
        site.run(0, "server", send, &[("-n 30", "-n 2")]).expect(0, SOON);
        for (machine, disk) in machines.iter_mut().zip(&disks) {
            machine.expect(0, SOON);
            must(&format!("cmp '{}' {}", image.display(), disk.path()));
        }
        for n in [1, 2] {
            fs::remove_file(site.tmp.join(format!("host-{n}/rebooted"))).expect("it was run");
        }
        assert!(
            fs::read_to_string(site.tmp.join("server/classroom.json")).is_ok_and(|r| r.contains("complete"))
        );
    }
}

#[test]
fn a_lab_in_step() {
    let _cores = beside_others();
    let Some(site) = keyed(2, &["bash"]) else { return };
    let [recv, send] = recipe(SYNC);
    let (theirs, ours) = (site.tmp.dir("theirs"), site.tmp.dir("ours/course"));
    let machine = site.run(1, "host-1", recv, &[("/srv/", &format!("{}/", theirs.display()))]);
    for (seed, version) in [(1, "first\n"), (2, "second\n")] {
        site.tmp.file("ours/course/movie", 2 * MIB, seed);
        fs::write(ours.join("version"), version).expect("write");
        let replaced = [("/srv/course", &*ours.display().to_string()), ("-n 30", "-n 1")];
        site.run(0, "server", send, &replaced).expect(0, SOON);
        must(&format!("diff -r '{}' '{}/course'", ours.display(), theirs.display()));
    }
    stop(machine, "INT");
}

#[test]
fn kiosks_that_come_at_any_time() {
    let _cores = beside_others();
    let Some(site) = keyed(3, &["bash"]) else { return };
    let [recv, send] = recipe(KIOSK);
    let restart = [("systemctl restart kiosk", "b3sum=$MCP_HASH; echo $b3sum >>restarts")];
    let kiosk = |n| site.run(n, &format!("host-{n}"), recv, &restart);
    let restarts = |n: usize| site.tmp.join(format!("host-{n}/restarts"));
    let first = b3(&site.tmp.file("server/kiosk.img", 2 * MIB, 1));
    let one = kiosk(1);
    let sender = site.run(0, "server", send, &[]);
    appears(&restarts(1), &format!("{first}\n"));
    // The other is switched on when the first one has it.
    let other = kiosk(2);
    appears(&restarts(2), &format!("{first}\n"));
    stop(sender, "INT");
    let second = b3(&site.tmp.file("server/kiosk.img", 2 * MIB, 2));
    let sender = site.run(0, "server", send, &[]);
    for n in [1, 2] {
        appears(&restarts(n), &format!("{first}\n{second}\n"));
    }
    for process in [sender, one, other] {
        stop(process, "INT");
    }
}

#[test]
fn files_behind_a_diode() {
    let _cores = beside_others();
    let Some(site) = keyed(2, &["bash"]) else { return };
    let [recv, send] = recipe(DIODE);
    site.lab.mute(1);
    site.lab.lose(1, 20);
    let inside = site.tmp.dir("in");
    let receiver = site.run(1, "host-1", recv, &[("/srv/in/", &format!("{}/", inside.display()))]);
    for (name, seed) in [("update.tar", 1), ("second.tar", 2)] {
        let file = site.tmp.file(format!("server/{name}"), 4 * MIB, seed);
        site.run(0, "server", send, &[("600M", "100M"), ("update.tar", name)]).expect(0, SOON);
        let copy = inside.join(name);
        support::fleet::wait_for(name, || copy.is_file());
        assert_eq!(b3(&copy), b3(&file));
    }
    assert_eq!(site.lab.spoken(1), 0);
    stop(receiver, "INT");
}

#[test]
fn a_fleets_update() {
    let _cores = beside_others();
    let Some(site) = Site::new(DOCUMENT, 3, &["bash", "unshare"]) else { return };
    let [serve, enrol, agent, add] = recipe(FLEET);
    let here = site.lab.address(0);
    let mut server = site.run(0, "server", serve, &[("updates.example.org", &here), ("1m", "1s")]);
    // An enrolment line, which it prints once it listens.
    server.next_line(SOON);
    site.run(0, "server", enrol, &[]).expect(0, SOON);
    let mut agents = [1, 2].map(|n| {
        let (name, srv) = (format!("host-{n}"), site.tmp.dir(&format!("srv-{n}")));
        fs::copy(site.tmp.join("server/enrolment"), site.tmp.dir(&name).join("enrolment"))
            .expect("carry the line");
        let own = format!(
            "exec unshare --mount bash -c 'mount --bind {} /srv && exec mcp agent run'",
            srv.display()
        );
        // All hosts of this machine have its name.
        let join = format!("mcp agent join --id {name}");
        site.run(n, &name, agent, &[("mcp agent join", &join), ("mcp agent run", &own)])
    });
    for agent in &mut agents {
        let said = agent.next_line(SOON);
        assert!(said.starts_with("joined"), "{said}");
    }
    let file = site.tmp.file("server/menu.db", MIB, 1);
    site.run(0, "server", add, &[]).expect(0, SOON);
    for n in [1, 2] {
        assert_eq!(b3(&site.tmp.join(format!("srv-{n}/kiosk/menu.db"))), b3(&file));
    }
    for process in agents.into_iter().chain([server]) {
        stop(process, "TERM");
    }
}
