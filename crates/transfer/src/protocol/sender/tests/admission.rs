//! Which devices are admitted, and what the others can do.

use super::*;
use crate::crypto::derive::Secret;
use crate::units::Ticket;
use crate::units::{ChannelId, DeviceIndex};
use crate::wire::{Join, Progress};

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
fn a_device_that_has_moved_gets_no_more_bytes_than_came_from_there() {
    let mut bench = Bench::new(4, |config| config.wait = Duration::from_secs(100));
    bench.join(1, 1);
    let mut came = [0; 2];
    for n in 0..40 {
        // From a second address, and now and then from a third.
        let which = usize::from(n % 4 == 3);
        let at = address(98 + which as u8);
        let nothing = Nak {
            round: 0,
            largest_received: PacketNumber::new(ChannelId::GROUP, 0),
            ack_delay_us: 0,
            incomplete: 0,
            pages: vec![],
            deficits: vec![],
        };
        let bytes = bench.run(1).seal_message(&Message::Nak(nothing), |_| ());
        came[which] += bytes.len();
        bench.take(at, bytes);
        bench.pass(Duration::from_millis(100));
        let went = sent_to(&bench, at, 0);
        assert!(went <= came[which], "{went} bytes for {}", came[which]);
    }
    assert!(sent_to(&bench, address(98), 0) > 0);
}

/// That is, as many as a RETRY has, which is longer with a group key. They count once.
#[test]
fn a_device_that_has_moved_is_answered_as_soon_as_enough_bytes_came_from_there() {
    for group_key in [None, Some(Secret::new([7; 32]))] {
        let mut bench = Bench::new(4, |config| {
            config.wait = Duration::from_secs(100);
            config.group_key = group_key.clone();
        });
        let (session, announce) = (bench.sender.side.session(), bench.sender.announced());
        let fake = FakeDevice::of(session, &announce, group_key.as_ref(), [1; 32]).expect("the key is right");
        bench.runs.insert((1, 1), fake);
        bench.send_join(1, 1, address(1));
        let answer = sent_to(&bench, address(1), 0);
        bench.answered(1, 1, address(1), 0);
        bench.send_join(1, 1, address(1));
        let (index, at) = (keys(&bench, 1).expect("it has joined"), address(98));
        let mut went = |bytes: usize| {
            bench.sender.moved(index, at, bytes, bench.now);
            bench.drain();
            sent_to(&bench, at, 0)
        };
        assert_eq!([went(answer - 1), went(1), went(answer - 1), went(1)], [0, answer, answer, answer * 2]);
    }
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
    let most = crate::limits::AGREEMENTS_PER_SECOND as usize / 10;
    assert!(bench.sender.devices.len() <= most, "{}", bench.sender.devices.len());
}

#[test]
fn a_join_said_again_and_again_costs_the_data_a_twentieth_at_the_most() {
    // A hundred thousand joins a second, from one address or from as many as there are.
    for addresses in [1, 5_000] {
        let symbols = |flooded: bool| {
            let mut bench = Bench::new(1, |config| {
                config.layout = Layout::new(1 << 30, 20, 1408).unwrap();
                config.rate = RateMode::Fixed(Rate(10_000_000));
            });
            bench.join(1, 1);
            bench.pass(Duration::from_millis(100));
            let announce = bench.sender.announced();
            let join = FakeDevice::new(&announce, [7; 32]).join(any_join(id(9), Holdings::Nothing));
            let (from, first, second) = (bench.sent.len(), bench.next_number(), bench.now);
            for n in 0..10_000 {
                // Nobody takes what goes out in the meantime: the network is not writable.
                for i in (0..10).filter(|_| flooded) {
                    let [_, b, c, d] = u32::to_be_bytes((n * 10 + i) % addresses);
                    let at = SocketAddr::from(([10, 1 + b, c, d], 4000));
                    let arrival = Arrival::at_once(at, Via::Unicast);
                    bench.sender.handle_datagram(bench.now, arrival, &mut join.clone());
                }
                assert!(bench.sender.out.len() < 1_200, "{} wait to go out", bench.sender.out.len());
                if n % 5_000 == 4_999 {
                    bench.now = second + Duration::from_micros(100) * n;
                    bench.drain();
                    bench.pass(Duration::from_micros(100));
                }
            }
            let stranger = |t: &&Transmit| t.to != bench.sender.config.data && t.to != address(1);
            let answers = bench.sent[from..].iter().filter(stranger).count();
            println!("{addresses} addresses, flooded {flooded}: {answers} answers");
            bench.next_number() - first
        };
        let (calm, flooded) = (symbols(false), symbols(true));
        assert!(flooded * 100 >= calm * 94, "{flooded} of {calm} symbols in a flood");
    }
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
    let admitted = sent_to(&bench, address(1), 0);
    bench.take(address(1), join.clone());
    assert_eq!(sent_to(&bench, address(1), 0), admitted, "not even the join that it was admitted with");
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

/// The run of device 1 says that its next run will present the ticket.
fn keep_ticket(bench: &mut Bench, run: u64) {
    bench.current.insert(1, run);
    bench.hear(1, &Message::Progress(Progress { ticket_kept: true, ..any_report(0) }));
}

#[test]
fn a_device_that_has_no_ticket_any_more_is_known_by_its_silence_or_by_its_last_word() {
    // Killed before it had stored its ticket; or it could not store it.
    let mut bench = Bench::new(4, |config| config.task.options.expected = Some(9));
    bench.join(1, 1);
    bench.report(1, 0);
    bench.pass(Duration::from_secs(3));
    bench.join_from(1, 2, address(1), false);
    assert_eq!(bench.sender.devices.len(), 1);
    // The new run has not said either that it has stored its ticket.
    keep_ticket(&mut bench, 2);
    bench.pass(Duration::from_secs(3));
    bench.join_from(1, 3, address(1), false);
    assert_eq!(bench.sender.devices.len(), 2);
    // One that has said why it leaves has removed its ticket.
    let mut bench = Bench::new(4, |config| config.task.options.expected = Some(9));
    bench.join(1, 1);
    keep_ticket(&mut bench, 1);
    bench.abort(1);
    bench.join_from(1, 2, address(1), false);
    assert_eq!((bench.sender.devices.len(), bench.state(1)), (1, State::Pending));
}

/// `count` devices of one address join, so many a second, each with a key of its own.
fn join_many(bench: &mut Bench, at: SocketAddr, from: u32, count: u32, per_second: u32) -> u32 {
    let announce = bench.sender.announced();
    let mut admitted = 0;
    for n in from..from + count {
        let mut random = [0x3c; 32];
        random[..4].copy_from_slice(&n.to_be_bytes());
        random[4..8].copy_from_slice(&match at.ip() {
            std::net::IpAddr::V4(ip) => ip.octets(),
            std::net::IpAddr::V6(_) => [0; 4],
        });
        let mut fake = FakeDevice::new(&announce, random);
        let mut device = [0; 16];
        device[..8].copy_from_slice(&random[..8]);
        for _ in 0..2 {
            bench.sent.clear();
            let bytes = fake.join(any_join(DeviceId(device), Holdings::Nothing));
            bench.take(at, bytes);
            for transmit in bench.sent.iter().filter(|transmit| transmit.to == at) {
                if let Payload::Message(bytes) = &transmit.payload {
                    fake.hear(bytes);
                }
            }
        }
        admitted += u32::from(fake.channel() != ChannelId::GROUP);
        bench.pass(Duration::from_secs(1) / per_second);
    }
    admitted
}

#[test]
fn one_host_that_invents_devices_leaves_rows_and_agreements_to_the_others() {
    let mut bench = Bench::new(4, |config| config.wait = Duration::from_secs(1000));
    let taken = join_many(&mut bench, address(66), 0, 9_000, 200);
    assert!((7_000..=8_192).contains(&taken), "{taken}");
    assert_eq!(join_many(&mut bench, address(2), 0, 100, 100), 100);
    // It tries more often than all together may.
    let mut tries = 0;
    for n in 0..200 {
        join_many(&mut bench, address(66), 10_000 + 10 * n, 10, 100_000);
        tries += join_many(&mut bench, address(3), n, 1, 100);
    }
    assert_eq!(tries, 200, "others were kept out");
}

#[test]
fn many_devices_behind_one_address_are_all_admitted() {
    let mut bench = Bench::new(4, |config| config.wait = Duration::from_secs(1000));
    assert_eq!(join_many(&mut bench, address(5), 0, 1_000, 100), 1_000);
}
