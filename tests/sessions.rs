//! Several sessions in one process, over loopback: they share the ports and the interface's budget, and do not
//! disturb one another. The tests print figures that depend on the machine, and assert that every copy is complete
//! and right.

mod support;

use mcp::net::Destination;
use mcp::protocol::event::{ReceiverOutcome, SenderEvent, SenderOutcome};
use mcp::session::{
    Discovery, EgressBudget, Listen, RateChoice, ReceiveHandle, ReceiveSession, SendHandle, SendSession,
    Target, Wanted, What,
};
use mcp::storage::{FileSink, FileSource};
use mcp::units::Rate;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};
use support::files::{TempDir, assert_empty, assert_only_copy};
use support::mcp::Network;

const MIB: u64 = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(120);

/// A group and port of its own.
fn group() -> Destination {
    let network = Network::loopback();
    Destination::parse(&network.group.unwrap(), network.port.unwrap()).unwrap()
}

/// Another group at the same port.
fn beside(group: &Destination, n: u8) -> Destination {
    Destination::parse(&format!("239.78.{}.{n}", group.addr.port() % 251), group.addr.port()).unwrap()
}

fn send(file: &Path, to: Destination) -> SendSession {
    SendSession::builder(FileSource::open(file).unwrap(), Target::At(to))
        .interface(Some("lo".into()))
        .expected(Some(1))
        .gather(PATIENCE, PATIENCE)
}

fn on_loopback() -> Listen {
    Listen { interface: Some("lo".into()), ..Listen::default() }
}

fn receive(out: &Path, group: Destination) -> ReceiveSession {
    ReceiveSession::builder(Wanted::First, FileSink::new(Some(out.to_owned()), false))
        .listen(Listen { group: Some(group), ..on_loopback() })
        .timeout(PATIENCE)
}

/// Waits for the end of both, and asserts that the copy is right.
#[track_caller]
fn both_complete(sender: SendHandle, receiver: ReceiveHandle, source: &Path, out: &Path) {
    let sent = sender.wait().expect("no error");
    assert_eq!(sent.outcome, SenderOutcome::Ended);
    assert!(sent.rows().iter().all(|row| row.assignment.is_complete()), "{:?}", sent.rows());
    assert_eq!(sent.rows().len(), 1);
    let received = receiver.wait().expect("no error");
    assert_eq!(received.outcome, ReceiverOutcome::Complete { acknowledged: true });
    assert_only_copy(source, out);
}

/// Whether the stream has begun, by what the sender says.
fn until_streaming(sender: &SendHandle) {
    let end = Instant::now() + PATIENCE;
    while sender.snapshot().is_none_or(|s| s.sender.overview.source_symbols == 0) {
        assert!(Instant::now() < end && !sender.is_over(), "no stream");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn two_and_two_on_one_budget() {
    const BUDGET: u64 = 400_000_000;
    let tmp = TempDir::new();
    let group = group();
    let budget = EgressBudget::new(Rate(BUDGET));
    let all: Vec<_> = (0..2)
        .map(|n| {
            let source = tmp.file(format!("image-{n}"), 48 * MIB + n, n);
            let (out, to) = (tmp.dir(&format!("out-{n}")), beside(&group, n as u8 + 1));
            let receiver = receive(&out, to).start().unwrap();
            let sender = send(&source, to).budget(budget.clone()).start().unwrap();
            (sender, receiver, source, out)
        })
        .collect();
    // While both run: what each has on the wire from a time on at which both stream.
    all.iter().for_each(|(sender, ..)| until_streaming(sender));
    let wire = || {
        let snapshots = all.iter().map(|(sender, ..)| sender.snapshot().unwrap());
        (Instant::now(), snapshots.map(|s| s.sender.overview.wire_bytes).collect::<Vec<_>>())
    };
    let (since, from) = wire();
    let mut last = (since, from.clone());
    while all.iter().all(|(sender, ..)| {
        !sender.is_over() && sender.snapshot().unwrap().sender.overview.streamed < 44 * MIB
    }) {
        last = wire();
        thread::sleep(Duration::from_millis(20));
    }
    let seconds = (last.0 - since).as_secs_f64();
    let rates: Vec<f64> =
        last.1.iter().zip(&from).map(|(to, from)| (to - from) as f64 * 8.0 / seconds / 1e6).collect();
    let sum: f64 = rates.iter().sum();
    println!(
        "for {seconds:.2} s, in Mbit/s on the wire: {:.1} and {:.1}, together {sum:.1} of 400",
        rates[0], rates[1]
    );
    println!("parts: {:.1} % and {:.1} %", rates[0] / 4.0, rates[1] / 4.0);
    for (n, (sender, receiver, source, out)) in all.into_iter().enumerate() {
        let view = sender.snapshot().and_then(|s| s.egress).expect("there is a budget");
        assert_eq!(view.budget, Rate(BUDGET));
        both_complete(sender, receiver, &source, &out);
        println!("session {n} is complete; {view:?}");
    }
}

#[test]
fn eight_at_once_to_groups_hosts_and_everybody() {
    let tmp = TempDir::new();
    let group = group();
    let port = group.addr.port();
    let parse = |ip: &str| Destination::parse(ip, port).unwrap();
    let budget = EgressBudget::new(Rate(600_000_000));
    // To single machines and to everybody, sessions are told apart by nothing but their numbers, so that
    // each receiver takes the session that it has been given.
    let targets: Vec<Destination> = (1..=6).map(|n| beside(&group, n)).collect();
    let others = [parse("127.0.0.1"), parse("127.255.255.255")];
    let mut all: Vec<_> = (0_u64..)
        .zip(&targets)
        .map(|(n, &to)| {
            let (source, out) = (tmp.file(format!("f-{n}"), 2 * MIB + n, n), tmp.dir(&format!("out-{n}")));
            let receiver = receive(&out, to).start().unwrap();
            (send(&source, to).budget(budget.clone()).start().unwrap(), receiver, source, out)
        })
        .collect();
    let discovery = Discovery::start(Listen { group: Some(others[0]), ..on_loopback() }).unwrap();
    for (n, to) in (6_u64..).zip(others) {
        let (source, out) = (tmp.file(format!("f-{n}"), 2 * MIB + n, n), tmp.dir(&format!("out-{n}")));
        let sender = send(&source, to).budget(budget.clone()).start().unwrap();
        let id = sender.info().session;
        let events = discovery.events();
        let found = std::iter::from_fn(|| events.next_within(PATIENCE)).find_map(|event| match event.what {
            What::Changed(mcp::session::DiscoveryEvent::Found(found)) if found.session == id => Some(found),
            _ => None,
        });
        let found = found.expect("it is announced");
        assert_eq!((found.size, found.name.as_str()), (2 * MIB + n, format!("f-{n}").as_str()));
        let sink = FileSink::new(Some(out.clone()), false);
        let receiver = ReceiveSession::builder(Wanted::This(found), sink)
            .listen(Listen { port, ..on_loopback() })
            .timeout(PATIENCE)
            .start()
            .unwrap();
        all.push((sender, receiver, source, out));
    }
    assert!(discovery.sessions().iter().filter(|s| s.size >= 2 * MIB).count() >= 2);
    discovery.stop().unwrap();
    for (sender, receiver, source, out) in all {
        both_complete(sender, receiver, &source, &out);
    }
}

#[test]
fn a_handle_that_is_dropped_ends_its_session_and_tells_the_other_side() {
    let tmp = TempDir::new();
    let group = group();
    let source = tmp.file("image", 64 * MIB, 1);
    let out = tmp.dir("out");
    let receiver = receive(&out, group).start().unwrap();
    let sender = send(&source, group).rate(RateChoice::Fixed(Rate(100_000_000))).start().unwrap();
    until_streaming(&sender);
    let events = sender.events();
    drop(sender);
    let last = std::iter::from_fn(|| events.next()).last().expect("there was something to read");
    assert_eq!(last.what, What::Changed(SenderEvent::Finished(SenderOutcome::Interrupted)));
    let told = receiver.wait().unwrap().outcome;
    assert!(matches!(told, ReceiverOutcome::SenderAborted(..)), "{told:?}");

    let waiting = receive(&out, group).start().unwrap();
    let events = waiting.events();
    drop(waiting);
    assert!(std::iter::from_fn(|| events.next()).count() > 0);
}

#[test]
fn controls_and_snapshots() {
    let tmp = TempDir::new();
    let group = group();
    let (source, out) = (tmp.file("image", MIB, 1), tmp.dir("out"));
    let receiver = receive(&out, group).start().unwrap();
    let sender = send(&source, group).expected(Some(2)).start().unwrap();
    let end = Instant::now() + PATIENCE;
    while sender.snapshot().unwrap().sender.devices.is_empty() {
        assert!(Instant::now() < end);
        thread::sleep(Duration::from_millis(10));
    }
    // A second one is waited for, but not if somebody says so.
    assert_eq!(sender.snapshot().unwrap().sender.overview.source_symbols, 0);
    sender.start_now();
    assert_eq!(receiver.wait().unwrap().outcome, ReceiverOutcome::Complete { acknowledged: true });
    let sent = sender.wait().unwrap();
    assert_eq!((sent.rows().len(), sent.outcome), (1, SenderOutcome::Ended));
    assert_only_copy(&source, &out);

    let sender = send(&source, group).start().unwrap();
    sender.stop();
    let events = sender.events();
    while !events.is_over() {
        events.next_within(Duration::from_secs(1));
    }
    // What has ended can be looked at all the same.
    assert!(sender.snapshot().is_some_and(|s| s.sender.devices.is_empty()));
    assert_eq!(sender.wait().unwrap().outcome, SenderOutcome::Interrupted);
}

#[test]
fn an_error_in_one_session_leaves_the_others_alone() {
    let tmp = TempDir::new();
    let group = group();
    let [good, bad] = [1, 2].map(|n| beside(&group, n));
    let (source, out) = (tmp.file("image", 24 * MIB, 1), tmp.dir("out"));
    let (shrinks, nowhere) = (tmp.file("shrinks", 64 * MIB, 2), tmp.dir("nowhere"));
    let rate = RateChoice::Fixed(Rate(100_000_000));
    let receivers = [receive(&out, good).start().unwrap(), receive(&nowhere, bad).start().unwrap()];
    let sender = send(&source, good).rate(rate).start().unwrap();
    let failing = send(&shrinks, bad).rate(rate).start().unwrap();
    until_streaming(&sender);
    until_streaming(&failing);
    // One that is not admitted would wait for another sender.
    let end = Instant::now() + PATIENCE;
    while receivers[1].snapshot().is_none_or(|s| s.verified_bytes == 0) {
        assert!(Instant::now() < end && !receivers[1].is_over(), "nothing arrives");
        thread::sleep(Duration::from_millis(5));
    }
    fs::File::options().write(true).open(&shrinks).unwrap().set_len(0).unwrap();
    let failed = failing.wait().unwrap();
    assert!(matches!(failed.outcome, SenderOutcome::SourceFailed(_)), "{:?}", failed.outcome);
    let [receiver, left] = receivers;
    let left = left.wait().unwrap().outcome;
    assert!(matches!(left, ReceiverOutcome::SenderAborted(..)), "{left:?}");
    both_complete(sender, receiver, &source, &out);
    // Nor does one that cannot start.
    let refused = send(&source, good).interface(Some("no such interface".into())).start();
    assert!(refused.is_err_and(|e| e.to_string().contains("no such interface")));
}

#[test]
fn who_does_not_read_the_events_holds_up_nothing() {
    let tmp = TempDir::new();
    let group = group();
    let (source, out) = (tmp.file("image", 8 * MIB, 1), tmp.dir("out"));
    let receiver = receive(&out, group).start().unwrap();
    let sender = send(&source, group).start().unwrap();
    let events = (sender.events(), receiver.events());
    both_complete(sender, receiver, &source, &out);
    // All of what matters is still there, in its order.
    let said: Vec<_> = std::iter::from_fn(|| events.0.next()).map(|event| event.what).collect();
    let place = |f: &dyn Fn(&SenderEvent) -> bool| {
        said.iter().position(|what| matches!(what, What::Changed(event) if f(event)))
    };
    let joined = place(&|event| matches!(event, SenderEvent::Joined { .. })).expect("joined");
    let hashed = place(&|event| matches!(event, SenderEvent::Hashed(_)));
    let finished = place(&|event| matches!(event, SenderEvent::Finished(_))).expect("finished");
    assert!(joined < finished && hashed.is_some() && finished == said.len() - 1, "{said:?}");
    assert!(std::iter::from_fn(|| events.1.next()).count() > 3);
}

#[test]
fn one_that_never_begins_leaves_nothing_behind() {
    let tmp = TempDir::new();
    let out = tmp.dir("out");
    let receiver = receive(&out, group()).timeout(Duration::from_millis(300)).start().unwrap();
    assert_eq!(receiver.wait().unwrap().outcome, ReceiverOutcome::NoSender);
    assert_empty(&out);
}
