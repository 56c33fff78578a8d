//! Which of two runs with one identifier is which device: silence, stragglers, several runs at a time, tickets of listed
//! devices.

use super::*;
use crate::limits::{AGREEMENTS_PER_SECOND, MAX_QUEUED_OUTPUTS};
use crate::task::{Assignment, DeviceList, Listed};
use crate::units::Ticket;
use crate::wire::{Admit, AdmitVerdict, Join};

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Device 1 has joined, and more are expected. Nobody keeps a ticket.
fn joined() -> Bench {
    let mut bench = Bench::new(4, |config| config.task.options.expected = Some(9));
    bench.join(1, 1);
    bench
}

fn devices(bench: &Bench) -> usize {
    bench.sender.devices.len()
}

/// Another run of device 1, from its address, asks to join.
fn ask(bench: &mut Bench, run: u64) {
    let first = bench.current[&1];
    bench.join_from(1, run, address(1), false);
    bench.current.insert(1, first);
}

/// A run of device `device` presents a ticket, from the device's address. The answer.
fn present(
    bench: &mut Bench,
    (device, run): (u8, u64),
    label: &str,
    ticket: Option<Ticket>,
) -> Option<Admit> {
    let at = address(device);
    let from = bench.sent.len();
    bench.send_join(device, run, at);
    bench.answered(device, run, at, from);
    let fake = bench.runs.get_mut(&(device, run)).unwrap();
    fake.admit = None;
    let bytes = fake.join(Join { label: label.into(), ticket, ..any_join(id(device), Holdings::Nothing) });
    let from = bench.sent.len();
    bench.take(at, bytes);
    bench.answered(device, run, at, from);
    bench.runs[&(device, run)].admit.clone()
}

#[test]
fn two_seconds_of_silence_make_a_successor_and_less_does_not() {
    let mut bench = joined();
    bench.report(1, 0);
    bench.pass(ms(1_500));
    ask(&mut bench, 2);
    assert!(bench.runs[&(1, 2)].admit.is_none(), "it may still be on the way");
    bench.pass(ms(600));
    ask(&mut bench, 2);
    assert!(bench.runs[&(1, 2)].admit.is_some());
    assert_eq!(devices(&bench), 1);
}

/// It spoke in the same instant in which the new run asked first: before, for all that is known.
#[test]
fn only_what_is_said_later_makes_a_duplicate() {
    let mut bench = joined();
    bench.report(1, 0);
    for _ in 0..4 {
        ask(&mut bench, 2);
        bench.pass(ms(700));
    }
    assert_eq!(devices(&bench), 1);
}

#[test]
fn runs_that_ask_at_the_same_time_are_decided_one_after_the_other() {
    let mut bench = joined();
    for _ in 0..6 {
        for run in [2, 3] {
            bench.report(1, 0);
            ask(&mut bench, run);
            bench.pass(ms(300));
        }
    }
    assert_eq!(devices(&bench), 3, "none keeps the others from being decided");
    // One that asks no more does not keep another one out for long.
    let mut bench = joined();
    ask(&mut bench, 2);
    let mut decided = None;
    for n in 0..14_u64 {
        bench.pass(ms(500));
        bench.report(1, 0);
        ask(&mut bench, 3);
        decided = decided.or((devices(&bench) == 2).then_some(n));
    }
    // Four seconds after the other one, it is its turn. It speaks after the device, half a second later.
    assert_eq!(decided, Some(8));
}

#[test]
fn a_join_that_is_repeated_by_others_is_no_sign_of_life() {
    let mut bench = joined();
    // The device joins again, because its ADMIT was lost.
    let join = bench.run(1).join(any_join(id(1), Holdings::Nothing));
    let (heard, admitted) = (bench.sender.counters.feedback, bench.sent.len());
    bench.take(address(1), join.clone());
    assert_eq!(bench.sender.counters.feedback, heard + 1);
    assert!(bench.sent.len() > admitted, "it is admitted again");
    for _ in 0..30 {
        bench.pass(Duration::from_secs(1));
        bench.take(address(1), join.clone());
    }
    assert_eq!(bench.state(1), State::Lost);
}

fn list() -> DeviceList {
    let mut list = DeviceList::default();
    for n in [1, 2] {
        list.add(Listed { device: id(n), name: format!("lab-{n}"), key: None }).unwrap();
    }
    list
}

/// Two listed devices have joined; the first one has this ticket.
fn listed() -> (Bench, Option<Ticket>) {
    let mut bench = Bench::new(4, |config| {
        config.task.options.expected = None;
        config.task.options.devices = Some(list());
        config.wait = Duration::from_secs(100);
    });
    let first = present(&mut bench, (1, 1), "lab-1", None).expect("it is listed");
    assert!(present(&mut bench, (2, 1), "lab-2", None).is_some());
    bench.current.extend([(1, 1), (2, 1)]);
    (bench, first.ticket)
}

#[test]
fn the_ticket_of_a_listed_device_is_good_for_its_own_row_alone() {
    let (mut bench, ticket) = listed();
    bench.report(1, 0);
    let other = present(&mut bench, (2, 2), "lab-2", ticket);
    assert_eq!(other, None, "its own row is silent for too short a time");
    let own = present(&mut bench, (1, 2), "lab-1", ticket).expect("at once");
    assert_eq!((own.verdict, devices(&bench)), (AdmitVerdict::Admitted, 2));
    assert_ne!(own.ticket, ticket);
}

/// A listed device has no other row, so what its former run has sent may take its time.
#[test]
fn stragglers_of_a_listed_devices_former_run_do_not_turn_it_away() {
    let (mut bench, _) = listed();
    bench.report(1, 0);
    bench.pass(ms(500));
    assert_eq!(present(&mut bench, (1, 2), "lab-1", None), None);
    bench.pass(ms(1_000));
    bench.report(1, 0);
    assert_eq!(present(&mut bench, (1, 2), "lab-1", None), None, "neither admitted nor turned away");
    bench.pass(ms(2_000));
    let admit = present(&mut bench, (1, 2), "lab-1", None).expect("the former run has ended");
    assert_eq!(admit.verdict, AdmitVerdict::Admitted);
    // One that goes on speaking is another device.
    for n in 0..6 {
        bench.pass(ms(500));
        bench.current.insert(1, 2);
        bench.report(1, 0);
        let verdict = present(&mut bench, (1, 3), "lab-1", None).map(|admit| admit.verdict);
        assert_eq!(verdict, (n == 5).then_some(AdmitVerdict::NotListed), "{n}");
    }
}

#[test]
fn a_duplicate_does_not_inherit_the_rows_earlier_attempts() {
    let mut bench = Bench::new(4, |config| config.task.options.expected = Some(9));
    let mut earlier = Assignment::new(TASK, id(1), "d".into());
    (0..2).for_each(|_| earlier.take_up());
    bench.store.record(&[earlier]).unwrap();
    bench.join(1, 1);
    bench.join_from(1, 2, address(60), false);
    let rows = bench.sender.snapshot(bench.now).devices;
    assert_eq!(rows.iter().map(|row| row.assignment.attempts).collect::<Vec<_>>(), [3, 1]);
}

#[test]
fn a_device_that_joins_late_is_served_alone_up_to_the_block_that_is_being_sent() {
    let mut bench = Bench::new(1, |config| {
        config.layout = Layout::new(64 << 20, 20, 1408).unwrap();
        config.task.options.expected = Some(1);
    });
    bench.join(1, 1);
    bench.pass(Duration::from_secs(2));
    let position = bench.sender.stream.position;
    assert!(position > 2 && !bench.sender.stream_done());
    bench.join(2, 1);
    let index = bench.sender.devices.index_of(id(2)).unwrap();
    let service = bench.sender.devices.get(index).service;
    assert_eq!(service, super::super::service::Service::Behind { below: position + 1 });
    let late = |event: &SenderEvent| match event {
        SenderEvent::Joined { late, .. } => Some(*late),
        _ => None,
    };
    assert_eq!(bench.told.iter().filter_map(late).collect::<Vec<_>>(), [false, true]);
}

#[test]
fn a_complete_device_is_told_so_once_the_store_has_it() {
    let mut bench = Bench::new(4, |config| config.task.options.expected = Some(2));
    bench.join(1, 1);
    bench.join(2, 1);
    bench.pass(ms(5));
    bench.store_is = StoreIs::Silent;
    bench.complete(1);
    let again = |bench: &mut Bench| {
        bench.run(1).admit = None;
        let join = bench.run(1).join(any_join(id(1), Holdings::Nothing));
        let from = bench.sent.len();
        bench.take(address(1), join);
        bench.answered(1, 1, address(1), from);
        bench.runs[&(1, 1)].admit.as_ref().map(|admit| admit.verdict)
    };
    assert_eq!(again(&mut bench), None, "a crash could still undo it");
    bench.store_is = StoreIs::Sound;
    while !bench.asked.is_empty() {
        bench.answer_store();
    }
    bench.pass(ms(5));
    assert_eq!(again(&mut bench), Some(AdmitVerdict::AlreadyComplete));
}

#[test]
fn joins_are_not_answered_while_too_much_waits_to_be_sent() {
    let mut bench = joined();
    let joins: Vec<_> =
        (0..2 * MAX_QUEUED_OUTPUTS).map(|_| bench.run(1).join(any_join(id(1), Holdings::Nothing))).collect();
    for join in joins {
        // The network takes nothing.
        bench.now = bench.now + ms(5);
        bench.sender.handle_datagram(
            bench.now,
            Arrival::at_once(address(1), Via::Unicast),
            &mut join.clone(),
        );
    }
    assert!(bench.sender.out.len() <= MAX_QUEUED_OUTPUTS, "{}", bench.sender.out.len());
}

/// Agreeing on keys is what is dear in a join.
#[test]
fn a_device_that_waits_for_the_store_is_agreed_with_once() {
    let mut bench = joined();
    bench.store_is = StoreIs::Silent;
    bench.join(2, 1);
    for _ in 0..AGREEMENTS_PER_SECOND {
        bench.send_join(2, 1, address(2));
    }
    assert_eq!(bench.sender.pending_joins.len(), 1);
    // So there is room for the next one at this address.
    bench.join_from(3, 1, address(2), false);
    assert_eq!(bench.sender.pending_joins.len(), 2);
}

/// While the store is away, one host cannot take all the places of those that wait.
#[test]
fn one_address_waits_with_no_more_than_its_share_and_once_for_each_run() {
    let most = crate::limits::MAX_PENDING_JOINS / 4;
    let mut bench = joined();
    bench.store_is = StoreIs::Silent;
    let announce = bench.sender.announced();
    let waits = |bench: &mut Bench, n: u32, at: SocketAddr| {
        let mut random = [0x3c; 32];
        random[..4].copy_from_slice(&n.to_be_bytes());
        let mut fake = FakeDevice::new(&announce, random);
        let mut device = [7; 16];
        device[..4].copy_from_slice(&n.to_be_bytes());
        let before = bench.sender.pending_joins.len();
        // The first gets a cookie; the second waits; the third changes nothing.
        for _ in 0..3 {
            let from = bench.sent.len();
            let bytes = fake.join(any_join(DeviceId(device), Holdings::Nothing));
            bench.take(at, bytes);
            for transmit in bench.sent[from..].iter().filter(|transmit| transmit.to == at) {
                if let Payload::Message(bytes) = &transmit.payload {
                    fake.hear(bytes);
                }
            }
        }
        bench.pass(ms(20));
        bench.sender.pending_joins.len() - before
    };
    let one: usize = (0..most as u32 + 20).map(|n| waits(&mut bench, n, address(66))).sum();
    assert_eq!(one, most);
    let others: usize = (0..20).map(|n| waits(&mut bench, 100_000 + n, address(67))).sum();
    assert_eq!(others, 20);
}
