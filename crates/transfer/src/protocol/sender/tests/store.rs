//! A store that fails, is slow or silent, or has newer rows: when receipts are acknowledged, and how the session ends.

use super::*;
use crate::limits::STORE_PATIENCE;
use crate::task::{Assignment, Step};
use crate::wire::MessageKind;

/// Messages of this kind that went to a device since `from`.
fn sent(bench: &Bench, device: u8, kind: MessageKind, from: usize) -> usize {
    let to_it = bench.sent[from..].iter().filter(|transmit| transmit.to == address(device));
    let kinds = to_it.filter_map(|transmit| match &transmit.payload {
        Payload::Message(bytes) => crate::wire::head(bytes).ok().map(|head| head.kind),
        _ => None,
    });
    kinds.filter(|&k| k == kind).count()
}

fn acknowledged(bench: &Bench, device: u8) -> usize {
    sent(bench, device, MessageKind::Acknowledge, 0)
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// So many devices, all that are expected, to whom everything has been sent.
fn streamed(devices: u8) -> Bench {
    let mut bench = Bench::new(4, |config| config.task.options.expected = Some(devices.into()));
    (1..=devices).for_each(|device| bench.join(device, 1));
    bench.pass(Duration::from_millis(5));
    assert!(bench.sender.stream_done());
    bench
}

#[test]
fn a_receipt_is_acknowledged_once_it_is_in_the_store() {
    let mut bench = streamed(2);
    bench.complete(1);
    assert_eq!((acknowledged(&bench, 1), bench.kept(1)), (1, Some(State::Complete)));
    bench.store_is = StoreIs::Failing;
    for second in 0..20 {
        // It says so again and again, and is served no more.
        bench.complete(2);
        bench.pass(seconds(1));
        assert_eq!((bench.state(2), bench.activity(2)), (State::Complete, Some(Activity::Recording)));
        assert_eq!((acknowledged(&bench, 2), bench.kept(2)), (0, Some(State::Active)), "{second}");
        assert_eq!(bench.outcome, None);
    }
    let overview = bench.sender.overview();
    assert_eq!((overview.devices.complete, overview.devices.active), (1, 1), "what the store has");
    assert!(!bench.sender.is_recorded());
    bench.store_is = StoreIs::Sound;
    bench.pass(seconds(6));
    assert_eq!((acknowledged(&bench, 2), bench.kept(2)), (1, Some(State::Complete)));
    assert_eq!(
        (bench.outcome.clone(), bench.store_told.clone()),
        (Some(SenderOutcome::Ended), vec![true, false])
    );
    assert!(bench.sender.is_recorded());
    let steps = bench.sender.recorded_assignments().remove(1).steps().to_vec();
    assert_eq!(steps, [Step::Transfer]);
}

#[test]
fn what_a_failing_device_says_is_answered_once_it_is_in_the_store_too() {
    let mut bench = streamed(2);
    bench.store_is = StoreIs::Failing;
    bench.abort(1);
    bench.pass(seconds(3));
    bench.abort(1);
    assert_eq!(acknowledged(&bench, 1), 0);
    bench.store_is = StoreIs::Sound;
    bench.report(2, 0);
    bench.pass(seconds(6));
    assert_eq!((acknowledged(&bench, 1), bench.kept(1)), (1, Some(State::Failed("disk full".into()))));
    // One that was given up has said nothing, and gets no answer.
    bench.pass(seconds(20));
    assert_eq!((bench.kept(2), acknowledged(&bench, 2)), (Some(State::Lost), 0));
    assert_eq!(bench.outcome, Some(SenderOutcome::Ended));
}

#[test]
fn a_device_that_waits_for_a_failing_store_is_let_in_before_the_end() {
    let mut bench = streamed(1);
    bench.store_is = StoreIs::Failing;
    bench.join(2, 1);
    bench.pass_reporting(10, &[(1, 1)]);
    bench.store_is = StoreIs::Sound;
    bench.complete(1);
    bench.pass(seconds(1));
    assert_eq!((bench.kept(1), bench.outcome.clone()), (Some(State::Complete), None));
    assert_eq!(bench.state(2), State::Active);
}

#[test]
fn a_store_that_fails_is_asked_ever_more_seldom_and_given_up() {
    for store in [StoreIs::Failing, StoreIs::Silent] {
        let mut bench = streamed(2);
        bench.store_is = store;
        bench.complete(1);
        bench.pass_reporting(50, &[(2, 1)]);
        assert_eq!((bench.outcome.clone(), bench.activity(2)), (None, Some(Activity::Receiving)));
        bench.pass_reporting(15, &[(2, 2)]);
        // It is gone for good. The other device is served to its end all the same.
        assert_eq!((bench.outcome.clone(), bench.store_told.clone()), (None, vec![true]), "{store:?}");
        bench.pass_reporting(30, &[(2, 3)]);
        let before = bench.sent.len();
        bench.pass(seconds(2));
        assert!(bench.sent.len() > before, "it is still served");
        // Nobody else is let in, and nobody is acknowledged, even if the store should come back.
        bench.store_is = StoreIs::Sound;
        bench.join(3, 1);
        assert!(bench.sender.pending_joins.is_empty());
        bench.complete(2);
        bench.pass(seconds(1));
        assert_eq!(bench.sender.devices.len(), 2);
        assert_eq!((acknowledged(&bench, 1), acknowledged(&bench, 2)), (0, 0));
        let why = if store == StoreIs::Silent { "it does not answer" } else { "disk full" };
        assert_eq!(bench.outcome, Some(SenderOutcome::StoreFailed(why.into())));
        assert!(!bench.sender.is_recorded());
        let known: Vec<State> =
            bench.sender.recorded_assignments().iter().map(|known| known.state().clone()).collect();
        assert_eq!(known, [State::Active, State::Active]);
    }
}

#[test]
fn a_failing_store_is_not_asked_all_the_time() {
    let mut bench = streamed(2);
    bench.store_is = StoreIs::Failing;
    bench.complete(1);
    let mut asked = 0;
    for _ in 0..400 {
        bench.pass(Duration::from_millis(100));
        bench.complete(1);
        bench.report(2, 0);
        let trouble = bench.sender.records.next_timeout();
        assert!(trouble > bench.now && trouble < bench.now + seconds(6), "{trouble:?}");
        asked += usize::from(trouble > bench.now + Duration::from_millis(4_900));
    }
    assert!((4..12).contains(&asked), "{asked} times in 40 s");
    // Time in which nobody ran us is not the store's.
    bench.now = bench.now + STORE_PATIENCE;
    bench.sender.handle_absence(bench.now, STORE_PATIENCE);
    bench.pass(Duration::from_millis(10));
    assert_eq!(bench.sender.records.given_up(), None);
}

#[test]
fn whoever_comes_while_the_store_is_away_is_let_in_once_it_is_back() {
    let mut bench = Bench::new(4, |config| config.task.options.expected = Some(2));
    bench.store_is = StoreIs::Failing;
    for _ in 0..30 {
        // Longer than anybody is waited for otherwise.
        bench.join(1, 1);
        bench.pass(seconds(1));
    }
    assert_eq!((bench.sender.devices.len(), bench.outcome.clone()), (0, None));
    bench.store_is = StoreIs::Sound;
    bench.pass(seconds(6));
    assert_eq!(bench.state(1), State::Active, "the time to gather is over");
    // What it was told went unheard.
    bench.join(1, 1);
    bench.complete(1);
    bench.pass(seconds(1));
    assert_eq!(bench.outcome, Some(SenderOutcome::Ended));
    // Where it does not come back, that is what is said, and not that nobody came.
    let mut bench = Bench::new(4, |_| {});
    bench.store_is = StoreIs::Silent;
    bench.join(1, 1);
    bench.pass(STORE_PATIENCE + seconds(1));
    assert_eq!(bench.outcome, Some(SenderOutcome::StoreFailed("it does not answer".into())));
}

#[test]
fn an_interrupt_waits_for_the_store_only_so_long() {
    for (store, most) in [(StoreIs::Sound, 200), (StoreIs::Silent, 2_200)] {
        let mut bench = streamed(2);
        bench.store_is = store;
        bench.complete(1);
        bench.sender.handle_control(bench.now, Control::Interrupt);
        bench.drain();
        bench.pass(Duration::from_millis(most));
        assert_eq!(bench.outcome, Some(SenderOutcome::Interrupted), "{store:?}");
        assert_eq!(bench.sender.is_recorded(), store == StoreIs::Sound);
        assert_eq!(bench.sender.next_timeout(), Time::NEVER);
    }
    // What comes in while the goodbyes are said still counts.
    let mut bench = streamed(2);
    bench.store_is = StoreIs::Silent;
    bench.complete(1);
    bench.sender.handle_control(bench.now, Control::Interrupt);
    bench.drain();
    bench.pass(Duration::from_millis(500));
    assert_eq!(bench.outcome, None);
    bench.answer_store();
    assert_eq!((bench.outcome.clone(), acknowledged(&bench, 1)), (Some(SenderOutcome::Interrupted), 1));
}

#[test]
fn requests_that_come_up_together_go_together() {
    let mut bench = Bench::new(4, |config| config.task.options.expected = Some(200));
    bench.store_is = StoreIs::Silent;
    (1..=200).for_each(|device| {
        bench.join(device, 1);
        bench.pass(Duration::from_millis(2));
    });
    assert_eq!(bench.asked.len(), 1, "one at a time");
    while !bench.asked.is_empty() {
        bench.answer_store();
    }
    let counts = bench.answered.clone();
    assert_eq!(bench.sender.devices.len(), 200);
    // The first look-up, the others, and their records: pending, and active.
    assert!(counts.len() <= 6 && counts.iter().sum::<usize>() <= 3 * 200, "{counts:?}");
    assert!((1..=200).all(|device| bench.kept(device) == Some(State::Active)));
}

#[test]
fn what_another_session_has_recorded_holds() {
    let mut bench = Bench::new(4, |config| config.task.options.expected = Some(2));
    let kept = |device: u8, attempts: u32, state: State| {
        let mut kept = Assignment::new(TASK, id(device), "d".into());
        (0..attempts).for_each(|_| kept.take_up());
        kept.set(state).unwrap();
        kept
    };
    // What it had done before it comes here.
    bench.store.record(&[kept(1, 1, State::Complete), kept(2, 3, State::Lost)]).unwrap();
    let from = bench.sent.len();
    bench.join(1, 1);
    assert_eq!(sent(&bench, 1, MessageKind::Admit, from), 1);
    assert_eq!(bench.sender.devices.len(), 0);
    bench.join(2, 1);
    bench.join(3, 1);
    let all = bench.store.assignments(TASK).unwrap();
    assert_eq!(all.iter().map(|kept| kept.attempts).collect::<Vec<_>>(), [1, 4, 1]);
    // What is written while it is here.
    bench.store.record(&[kept(2, 9, State::Active), kept(3, 1, State::Complete)]).unwrap();
    bench.abort(2);
    bench.abort(3);
    bench.pass(seconds(1));
    let all = bench.store.assignments(TASK).unwrap();
    assert_eq!((all[1].attempts, all[1].state()), (10, &State::Failed("disk full".into())));
    assert_eq!(all[2].state(), &State::Complete);
    assert_eq!(bench.state(3), State::Complete);
    assert_eq!((acknowledged(&bench, 2), acknowledged(&bench, 3)), (1, 1));
    assert_eq!(bench.outcome, Some(SenderOutcome::Ended));
}

#[test]
fn a_device_that_was_given_up_and_comes_through_all_the_same_is_complete() {
    let mut bench = streamed(2);
    bench.pass_reporting(70, &[(1, 1), (2, 4)]);
    assert!(matches!(bench.state(1), State::Failed(_)), "{:?}", bench.state(1));
    bench.complete(1);
    assert_eq!((bench.kept(1), acknowledged(&bench, 1)), (Some(State::Complete), 1));
    let attempts: Vec<u32> =
        bench.store.assignments(TASK).unwrap().iter().map(|kept| kept.attempts).collect();
    assert_eq!(attempts, [2, 1]);
}

#[test]
fn an_end_that_the_store_does_not_record_in_time_is_no_success() {
    for (waits, outcome) in [(false, SenderOutcome::Ended), (true, SenderOutcome::StoreFailed(String::new()))]
    {
        let mut bench = Bench::new(4, |config| {
            config.task.options.expected = Some(1);
            config.max_time = Some(seconds(30));
        });
        bench.join(1, 1);
        for second in 1..60 {
            bench.report(1, second);
            bench.pass(seconds(1));
            // It fails just before the time is up, for longer than the end takes, or for a little.
            let back = if waits { 50 } else { 33 };
            bench.store_is = if (29..back).contains(&second) { StoreIs::Failing } else { StoreIs::Sound };
        }
        let ended = bench.outcome.clone().expect("an end");
        assert_eq!(std::mem::discriminant(&ended), std::mem::discriminant(&outcome), "{ended:?}");
        assert_eq!(bench.sender.is_recorded(), !waits);
    }
}

#[test]
fn when_the_time_is_up_a_store_that_was_given_up_is_no_success_either() {
    let mut bench = Bench::new(4, |config| {
        config.task.options.expected = Some(1);
        config.max_time = Some(STORE_PATIENCE * 2);
    });
    bench.join(1, 1);
    bench.pass(seconds(1));
    bench.store_is = StoreIs::Failing;
    bench.join(2, 1);
    for second in 1..STORE_PATIENCE.as_secs() * 3 {
        bench.report(1, second as u32);
        bench.pass(seconds(1));
    }
    assert_eq!(bench.outcome, Some(SenderOutcome::StoreFailed("disk full".into())));
}
