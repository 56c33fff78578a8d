//! Which devices are admitted, and what the others can do.

use super::*;
use crate::units::Ticket;
use crate::units::{ChannelId, DeviceIndex};
use crate::wire::Join;

/// Bytes that were sent to an address since the `from`th transmission.
fn sent_to(bench: &Bench, to: SocketAddr, from: usize) -> usize {
    let to_it = bench.sent[from..].iter().filter(|transmit| transmit.to == to);
    to_it
        .map(|transmit| match &transmit.payload {
            Payload::Message(bytes) => bytes.len(),
            _ => panic!("symbols to one that has not joined"),
        })
        .sum()
}

fn keys(bench: &Bench, device: u8) -> Option<DeviceIndex> {
    bench.sender.devices.index_of(id(device))
}

#[test]
fn nothing_is_done_for_one_that_cannot_be_reached_and_less_is_sent_than_came() {
    let mut bench = Bench::new(4, |config| config.wait = Duration::from_secs(100));
    let at = address(1);
    for run in 0..50 {
        let from = bench.sent.len();
        bench.send_join(1, run, at);
        let (sent, join) = (sent_to(&bench, at, from), crate::limits::HEADER_LEN + 64 + 16 + 2 + 1 + 16);
        assert!(sent > 0 && sent < join, "{sent} bytes for a join of about {join}");
        // Nor later on: not a poll, not a goodbye.
        let from = bench.sent.len();
        bench.pass(Duration::from_millis(500));
        assert_eq!(sent_to(&bench, at, from), 0);
    }
    assert_eq!((bench.sender.devices.len(), bench.sender.pending_joins.len()), (0, 0));
}

#[test]
fn the_cookie_of_one_address_is_worth_nothing_at_another() {
    let mut bench = Bench::new(4, |_| {});
    let from = bench.sent.len();
    bench.send_join(1, 1, address(1));
    bench.answered(1, 1, address(1), from);
    bench.send_join(1, 1, address(2));
    assert_eq!(bench.sender.devices.len(), 0, "the cookie went to another address");
    bench.send_join(1, 1, address(1));
    assert_eq!(bench.sender.devices.len(), 1);
}

#[test]
fn agreements_are_made_so_often_a_second_and_no_more() {
    let mut bench = Bench::new(4, |config| config.wait = Duration::from_secs(100));
    let mut tries = 0;
    for device in 0..=255 {
        for run in 0..4 {
            let from = bench.sent.len();
            bench.send_join(device, run, address(device));
            bench.answered(device, run, address(device), from);
            bench.send_join(device, run, address(device));
            tries += 1;
        }
    }
    assert_eq!(tries, 1024);
    let most = AGREEMENTS_PER_SECOND as usize / 10;
    assert!(bench.sender.devices.len() <= most, "{}", bench.sender.devices.len());
}

#[test]
fn what_a_device_says_again_is_not_heard_again() {
    let mut bench = Bench::new(4, |config| config.task.options.expected = Some(2));
    bench.join(1, 1);
    bench.join(2, 1);
    let abort = Abort { code: AbortCode::Disk, reason: "disk full".into() };
    let report = any_report(2);
    let report = bench.run(1).seal_message(&report.into(), |_| ());
    let heard = bench.sender.counters.feedback;
    bench.take(address(1), report.clone());
    assert_eq!(bench.sender.counters.feedback, heard + 1);
    for at in [address(1), address(2), address(9)] {
        let from = bench.sent.len();
        bench.take(at, report.clone());
        assert_eq!(bench.sender.counters.feedback, heard + 1, "a replay is heard");
        assert_eq!(bench.sent.len(), from, "a replay is answered");
    }
    // Another device's words under this one's channel open with no key of it.
    let mut forged = bench.run(2).seal_message(&abort.into(), |_| ());
    forged[13..15].copy_from_slice(&1_u16.to_be_bytes());
    bench.take(address(1), forged);
    assert!(!bench.state(1).is_final());
}

#[test]
fn every_changed_bit_of_what_a_device_says_is_noticed() {
    let mut bench = Bench::new(4, |config| config.task.options.expected = Some(2));
    bench.join(1, 1);
    let abort = Abort { code: AbortCode::Disk, reason: String::new() };
    let said = bench.run(1).seal_message(&abort.into(), |_| ());
    for bit in 0..said.len() * 8 {
        let mut damaged = said.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        bench.pass(Duration::from_millis(5));
        bench.take(address(1), damaged);
        assert!(!bench.state(1).is_final(), "bit {bit}");
    }
    bench.take(address(1), said);
    assert!(bench.state(1).is_final());
    // The same of a join, with its cookie.
    let from = bench.sent.len();
    bench.send_join(2, 1, address(2));
    bench.answered(2, 1, address(2), from);
    let fake = bench.runs.get_mut(&(2, 1)).unwrap();
    let join = fake.join(any_join(id(2), Holdings::Nothing));
    for bit in 0..join.len() * 8 {
        let mut damaged = join.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        bench.pass(Duration::from_millis(5));
        bench.take(address(2), damaged);
        assert_eq!(bench.sender.devices.len(), 1, "bit {bit}");
    }
    bench.take(address(2), join);
    assert_eq!(bench.sender.devices.len(), 2);
}

#[test]
fn a_device_that_moves_is_served_where_it_is_once_it_has_shown_that_it_is_there() {
    let mut bench = Bench::new(4, |config| config.task.options.expected = Some(2));
    bench.join(1, 1);
    let (old, new) = (address(1), address(77));
    let report = |bench: &mut Bench, at| {
        let report = any_report(0);
        let bytes = bench.run(1).seal_message(&report.into(), |_| ());
        bench.take(at, bytes);
    };
    let from = bench.sent.len();
    report(&mut bench, new);
    let index = keys(&bench, 1).unwrap();
    assert_eq!(bench.sender.devices.get(index).address, old, "it has not shown that it receives there");
    assert!(sent_to(&bench, new, from) > 0);
    bench.answered(1, 1, new, from);
    bench.send_join(1, 1, new);
    assert_eq!(bench.sender.devices.get(index).address, new);
    assert_eq!(bench.sender.devices.len(), 1);
}

#[test]
fn a_device_that_starts_again_takes_its_place_and_a_clone_gets_one_of_its_own() {
    // Started again: its former run is silent.
    let mut bench = Bench::new(4, |config| config.task.options.expected = Some(9));
    bench.join(1, 1);
    bench.pass(Duration::from_millis(500));
    for _ in 0..10 {
        bench.join(1, 2);
        bench.pass(Duration::from_millis(400));
    }
    assert_eq!(bench.sender.devices.len(), 1);
    let run = bench.run(1);
    assert_eq!(run.channel(), ChannelId(1));
    bench.abort(1);
    assert!(bench.state(1).is_final(), "the new run speaks for it");

    // A clone: both go on speaking.
    let mut bench = Bench::new(4, |config| config.task.options.expected = Some(9));
    bench.join(1, 1);
    for _ in 0..5 {
        bench.pass(Duration::from_millis(400));
        bench.current.insert(1, 1);
        bench.report(1, 0);
        bench.join_from(1, 2, address(2), false);
    }
    assert_eq!(bench.sender.devices.len(), 2, "they are two");
    let rows = bench.sender.snapshot(bench.now).devices;
    assert_ne!(rows[0].assignment.device, rows[1].assignment.device);
    assert!(rows[1].assignment.label.contains("duplicate"), "{}", rows[1].assignment.label);
    // What one says is not the other's.
    bench.current.insert(1, 2);
    let abort = Abort { code: AbortCode::Disk, reason: "disk full".into() };
    let bytes = bench.run(1).seal_message(&abort.into(), |_| ());
    bench.take(address(2), bytes);
    let rows = bench.sender.snapshot(bench.now).devices;
    assert!(!rows[0].assignment.state().is_final() && rows[1].assignment.state().is_final());
}

#[test]
fn a_device_that_floods_is_heard_no_more_often_than_it_may() {
    let mut bench = Bench::new(4, |config| config.task.options.expected = Some(2));
    bench.join(1, 1);
    let before = bench.sender.counters.feedback;
    for _ in 0..20_000 {
        bench.report(1, 0);
    }
    let heard = bench.sender.counters.feedback - before;
    assert!(heard <= u64::from(crate::limits::DEVICE_MESSAGES_PER_SECOND), "{heard}");
}

/// Junk costs a stranger no key: the session and the channels are in clear.
#[test]
fn junk_on_a_devices_channel_does_not_silence_the_device() {
    let mut bench = Bench::new(4, |config| config.task.options.expected = Some(2));
    bench.join(1, 1);
    let before = bench.sender.counters.feedback;
    let mut junk = bench.run(1).seal_message(&crate::wire::Acknowledge.into(), |_| ());
    let last = junk.len() - 1;
    junk[last] ^= 1;
    let mut number = 1_u64 << 40;
    for _ in 0..100 {
        // 10000 a second, from anywhere, beside ten reports a second.
        for _ in 0..1000 {
            number += 1;
            junk[14..20].copy_from_slice(&number.to_be_bytes()[2..]);
            bench.pass(Duration::from_micros(100));
            bench.take(address(99), junk.clone());
        }
        bench.report(1, 0);
    }
    let heard = bench.sender.counters.feedback - before;
    assert!(heard >= 50, "{heard} of 100 reports heard");
}

/// A join is heard again however old it is: whoever has recorded one keeps a dead device alive.
#[test]
fn a_replayed_join_does_not_keep_a_device_alive() {
    let mut bench = Bench::new(4, |config| config.task.options.expected = Some(1));
    let from = bench.sent.len();
    bench.send_join(1, 1, address(1));
    bench.answered(1, 1, address(1), from);
    bench.current.insert(1, 1);
    let join = bench.run(1).join(any_join(id(1), Holdings::Nothing));
    bench.take(address(1), join.clone());
    assert_eq!(bench.sender.devices.len(), 1);
    // The device dies; its datagram lives on.
    for _ in 0..30 {
        bench.pass(Duration::from_secs(1));
        bench.take(address(1), join.clone());
    }
    let status = bench.state(1);
    assert!(status.is_final() || status == State::Lost, "{status:?} after 30 s of silence");
}

/// Joins by a new run from an address, with the cookie that it was given there.
fn join_with_ticket(bench: &mut Bench, run: u64, at: SocketAddr, ticket: Option<Ticket>) {
    let from = bench.sent.len();
    bench.send_join(1, run, at);
    bench.answered(1, run, at, from);
    let fake = bench.runs.get_mut(&(1, run)).unwrap();
    let bytes = fake.join(Join { ticket, ..any_join(id(1), Holdings::Nothing) });
    let from = bench.sent.len();
    bench.take(at, bytes);
    bench.answered(1, run, at, from);
}

fn ticket_of(bench: &Bench, run: u64) -> Option<Ticket> {
    bench.runs[&(1, run)].admit.as_ref()?.ticket
}

#[test]
fn whoever_presents_its_ticket_takes_its_row_at_once() {
    let mut bench = Bench::new(4, |config| config.task.options.expected = Some(9));
    bench.join(1, 1);
    let first = ticket_of(&bench, 1);
    assert!(first.is_some());
    bench.report(1, 2);
    // From elsewhere, and though the former run has just been heard.
    join_with_ticket(&mut bench, 2, address(50), first);
    let rows = bench.sender.snapshot(bench.now).devices;
    assert_eq!((rows.len(), rows[0].assignment.attempts), (1, 2));
    assert_eq!(rows[0].transfer.address, Some(address(50)));
    let second = ticket_of(&bench, 2);
    assert!(second.is_some() && second != first);
    // A ticket is good for one time, and one that was made up never.
    join_with_ticket(&mut bench, 3, address(51), first);
    join_with_ticket(&mut bench, 4, address(52), Some(Ticket([7; 16])));
    let rows = bench.sender.snapshot(bench.now).devices;
    assert_eq!(rows.len(), 3, "they are others");
    // A duplicate, too, has its own row back.
    let third = ticket_of(&bench, 3);
    join_with_ticket(&mut bench, 5, address(53), third);
    let rows = bench.sender.snapshot(bench.now).devices;
    assert_eq!((rows.len(), rows[1].transfer.address), (3, Some(address(53))));
    assert!(rows[1].assignment.label.contains("duplicate"));
}

#[test]
fn without_a_ticket_only_silence_and_the_same_address_make_a_successor() {
    for (same, silent) in [(true, true), (true, false), (false, true), (false, false)] {
        let mut bench = Bench::new(4, |config| config.task.options.expected = Some(9));
        bench.join(1, 1);
        let at = if same { address(1) } else { address(60) };
        for _ in 0..6 {
            bench.pass(Duration::from_millis(400));
            if !silent {
                bench.current.insert(1, 1);
                bench.report(1, 0);
            }
        }
        for _ in 0..3 {
            bench.join_from(1, 2, at, false);
            bench.pass(Duration::from_millis(400));
            if !silent {
                bench.current.insert(1, 1);
                bench.report(1, 0);
            }
        }
        let devices = bench.sender.devices.len();
        assert_eq!(devices, if same && silent { 1 } else { 2 }, "same {same}, silent {silent}");
    }
}
