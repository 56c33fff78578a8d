//! Provisional sessions change nothing, and end nothing but themselves.

use super::*;
use crate::crypto::device::Claim;
use crate::limits::{MAX_PROVISIONAL_SESSIONS, SENDER_SILENCE};
use crate::protocol::trust::Strangers;
use crate::sim::sham::SHAM;
use crate::units::Ticket;
use crate::wire::{Abort, AdmitVerdict, MessageKind, Retry};

impl Bench {
    /// Another session is announced from now on; the sender of the one before is given back.
    fn other(&mut self, counter: u64) -> FakeSender {
        std::mem::replace(&mut self.sender, FakeSender::new(counter))
    }

    /// Whether the session with this counter is a provisional one.
    fn considers(&self, counter: u64) -> bool {
        self.receiver.provisional.position(FakeSender::new(counter).session()).is_some()
    }

    fn abort(&mut self) {
        let abort = Abort { code: AbortCode::Finished, reason: "all devices are served".into() };
        self.hear(&abort.into());
    }

    /// The counter of the session that has its turn.
    fn current(&self) -> Option<u64> {
        self.receiver.provisional.current().map(|provisional| provisional.session.counter.0)
    }

    fn joins(&self) -> usize {
        self.kinds().into_iter().filter(|kind| *kind == MessageKind::Join).count()
    }
}

#[test]
fn an_abort_drops_one_session_and_ends_nobody() {
    let mut bench = Bench::asking(small_blocks(8), Holdings::Nothing);
    bench.abort();
    assert_eq!((bench.current(), &bench.outcome), (None, &None));
    // The same when it has not been asked yet, and while it is being looked up what is held.
    let first = bench.other(10);
    bench.announce();
    assert_eq!(bench.current(), Some(10));
    let second = std::mem::replace(&mut bench.sender, first);
    bench.announce();
    bench.sender = second;
    bench.abort();
    assert_eq!(bench.current(), Some(COUNTER), "the other one's turn has begun");
    assert!(bench.outcome.is_none());
    assert_eq!(bench.jobs.len(), 1, "one look at a time: {:?}", bench.jobs);
    bench.probed(Holdings::Nothing);
    bench.sender = FakeSender::new(COUNTER);
    bench.sender.leap(ChannelId::GROUP, 1_000);
    bench.ask(Holdings::Nothing);
    bench.hear_alone(&Message::Admit(ADMITTED));
    assert!(matches!(bench.jobs[..], [ReceiverJob::Open { .. }]), "{:?}", bench.jobs);
}

#[test]
fn it_goes_on_waiting_until_its_time_is_up_whatever_is_played_back() {
    let mut bench = Bench::new(small_blocks(8));
    for session in 100..300 {
        bench.other(session);
        bench.announce();
        while let Some(ReceiverJob::Probe { .. }) = bench.jobs.first() {
            bench.probed(Holdings::Nothing);
        }
        whole_block(&mut bench, 0);
        bench.page();
        bench.pass(Duration::from_millis(200));
        if session % 3 == 0 {
            bench.abort();
        }
        assert!(bench.receiver.snapshot().buffered <= 48 << 20);
    }
    assert!(bench.outcome.is_none());
    assert!(bench.jobs.iter().all(|job| matches!(job, ReceiverJob::Probe { .. })), "{:?}", bench.jobs);
    bench.pass(Duration::from_secs(60));
    assert_eq!(bench.outcome, Some(ReceiverOutcome::NoSender));
}

#[test]
fn one_session_after_the_other_is_asked() {
    let mut bench = Bench::asking(small_blocks(8), Holdings::Nothing);
    assert_eq!(bench.joins(), 1);
    let mut past = bench.other(10);
    bench.announce();
    assert_eq!(bench.current(), Some(COUNTER), "its turn is not over");
    bench.pass(Duration::from_millis(1_100));
    assert_eq!(bench.current(), Some(10));
    bench.ask(Holdings::Nothing);
    assert_eq!(bench.joins(), 2);
    // Neither answers: it is the first one's turn again.
    bench.pass(Duration::from_millis(1_100));
    assert_eq!(bench.current(), Some(COUNTER));
    // One that is not heard has a short turn, and one that says nothing that could be answered a longer one.
    bench.pass(Duration::from_millis(1_100));
    assert_eq!(bench.current(), Some(10));
    bench.page();
    bench.pass(Duration::from_millis(1_100));
    assert_eq!(bench.current(), Some(10));
    bench.pass(Duration::from_millis(1_100));
    assert_eq!(bench.current(), Some(COUNTER));
    bench.pass(Duration::from_millis(1_100));
    assert_eq!(bench.current(), Some(10));
    // A late answer counts all the same.
    for bytes in &bench.sent {
        past.hear(OWN, bytes);
    }
    let admit = past.to_one(ChannelId(1), &Message::Admit(ADMITTED), |_| ()).unwrap();
    bench.take(SENDER, admit);
    assert_eq!(bench.receiver.session.as_ref().map(|session| session.id), Some(past.session()));
    assert!(matches!(bench.jobs[..], [ReceiverJob::Open { .. }]), "{:?}", bench.jobs);
    assert_eq!(bench.current(), None);
}

#[test]
fn a_retry_that_comes_after_the_turn_is_answered_once() {
    let mut bench = Bench::asking(small_blocks(8), Holdings::Nothing);
    let past = bench.other(10);
    bench.announce();
    // The way to the sender and back takes longer than a turn.
    bench.pass(Duration::from_millis(1_100));
    assert_eq!((bench.current(), bench.joins()), (Some(10), 1));
    bench.sender = past;
    for _ in 0..3 {
        let agreement =
            bench.receiver.provisional.get(bench.sender.session()).unwrap().session.side.agreement();
        bench.hear(&Message::Retry(Retry { agreement, cookie: crate::units::Cookie([7; 16]) }));
        bench.pass(Duration::from_millis(150));
    }
    assert_eq!(bench.joins(), 2);
    assert_eq!(bench.current(), Some(10), "the other one's turn goes on");
}

#[test]
fn a_provisional_session_lasts_so_long_and_no_longer_whatever_it_says_to_all() {
    let mut bench = Bench::asking(small_blocks(8), Holdings::Nothing);
    for _ in 0..100 {
        bench.pass(SENDER_SILENCE / 110);
        bench.announce();
    }
    assert_eq!(bench.current(), Some(COUNTER));
    bench.pass(SENDER_SILENCE / 10);
    assert_eq!(bench.current(), None);
    bench.announce();
    assert_eq!(bench.current(), Some(COUNTER), "it may be live after all");
}

#[test]
fn provisional_sessions_are_few_and_the_newest_of_a_sender_comes_next() {
    let mut bench = Bench::new(small_blocks(8));
    let most = 10 + MAX_PROVISIONAL_SESSIONS as u64;
    for counter in 10..most {
        bench.other(counter);
        bench.announce();
    }
    assert_eq!(bench.current(), Some(10));
    bench.other(1);
    bench.announce();
    assert!(!bench.considers(1), "nobody has had a turn, and it is older");
    bench.sender = FakeSender::of(1, sham::signing_key(2), [9; 32], None);
    let stranger = bench.sender.session();
    bench.announce();
    assert!(bench.receiver.provisional.position(stranger).is_none(), "nobody has had a turn");
    bench.other(100);
    bench.announce();
    assert!(bench.considers(100) && !bench.considers(11) && bench.considers(10));
    assert_eq!(bench.current(), Some(10), "the turn goes on");
    bench.pass(Duration::from_millis(2_100));
    assert_eq!(bench.current(), Some(100));
    // Now one has had its turn in vain, and gives way to whoever comes.
    bench.other(1);
    bench.announce();
    assert!(bench.considers(1) && !bench.considers(10) && bench.considers(most - 1));
    bench.pass(Duration::from_millis(1_100));
    assert_eq!(bench.current(), Some(most - 1));
}

#[test]
fn what_comes_before_the_admission_is_stored_after_it() {
    let mut bench = Bench::joined(small_blocks(8), false);
    (0..3).for_each(|block| whole_block(&mut bench, block));
    bench.page();
    assert!(bench.jobs.is_empty(), "nothing is stored for it: {:?}", bench.jobs);
    bench.hear_alone(&Message::Admit(ADMITTED));
    whole_block(&mut bench, 3);
    assert!(matches!(bench.jobs[..], [ReceiverJob::Open { .. }]), "{:?}", bench.jobs);
    bench.done(written(&[2], 8));
    let stored = bench.jobs.iter().filter(|job| matches!(job, ReceiverJob::Store { .. })).count();
    assert_eq!(stored, 4, "{:?}", bench.jobs);
    whole_block(&mut bench, 4);
    assert_eq!(bench.jobs.len(), 5);
}

#[test]
fn what_comes_before_the_admission_takes_no_more_than_the_buffers() {
    let mut bench = Bench::new(Layout::new(64 << 20, 20, 1024).unwrap());
    let config = ReceiverConfig { buffer_bytes: 8 << 20, ..bench.receiver.config.clone() };
    bench.receiver = Receiver::new(config, Time::ZERO);
    bench.announce();
    for block in 0..64 {
        for id in [0, 1] {
            let symbol = Symbol { block: BlockIndex(block), esi: Esi(id), payload: &[0; 1024] };
            bench.hear(&Message::Symbol(symbol));
        }
    }
    let seen = bench.receiver.snapshot();
    assert!(seen.buffered <= 8 << 20, "{seen:?}");
    assert_eq!(seen.overrun_drops, 0, "a session that may be dead is no slow disk");
    assert!(matches!(bench.jobs[..], [ReceiverJob::Probe { .. }]), "{:?}", bench.jobs);
}

#[test]
fn a_refusal_is_told_once_the_session_is_live() {
    let mut bench = Bench::joined(small_blocks(8), false);
    bench.hear_alone(&Message::Admit(ADMITTED));
    bench.done(ReceiverDone::Failed(AbortCode::Name, "f exists already".into()));
    assert!(bench.kinds().contains(&MessageKind::Abort), "{:?}", bench.kinds());
    bench.hear_alone(&Message::Acknowledge(wire::Acknowledge));
    bench.done(ReceiverDone::Discarded);
    let reason = "f exists already".to_owned();
    assert_eq!(bench.outcome, Some(ReceiverOutcome::Failed(AbortCode::Name, reason)));
}

#[test]
fn a_file_that_is_in_place_already_is_confirmed_if_it_is_the_object() {
    let root = Digest([3; 32]);
    for (holding, known) in [(root, true), (root, false), (Digest([4; 32]), true)] {
        let mut bench = Bench::new(small_blocks(8));
        bench.root = known.then_some(root);
        bench.announce();
        bench.ask(Holdings::All(holding));
        bench.hear_alone(&Message::Admit(ADMITTED));
        if !known {
            assert!(bench.jobs.is_empty(), "it is not known which file it is: {:?}", bench.jobs);
            bench.root = Some(root);
            bench.announce();
        }
        if holding != root {
            assert!(matches!(bench.jobs[..], [ReceiverJob::Open { .. }]), "{:?}", bench.jobs);
            continue;
        }
        assert!(matches!(bench.jobs[..], [ReceiverJob::Adopt { .. }]), "{:?}", bench.jobs);
        bench.sent.clear();
        bench.done(ReceiverDone::Committed("f".into()));
        assert!(bench.kinds().contains(&MessageKind::Complete), "{:?}", bench.kinds());
        bench.hear_alone(&Message::Acknowledge(wire::Acknowledge));
        assert_eq!(bench.outcome, Some(ReceiverOutcome::Complete { acknowledged: true }));
    }
    // A sender that says nothing more ends it.
    let mut bench = Bench::new(small_blocks(8));
    bench.root = None;
    bench.announce();
    bench.ask(Holdings::All(root));
    bench.hear_alone(&Message::Admit(ADMITTED));
    bench.pass(SENDER_SILENCE);
    bench.done(ReceiverDone::Discarded);
    assert_eq!(bench.outcome, Some(ReceiverOutcome::SenderSilent));
}

#[test]
fn only_what_is_sealed_to_this_run_admits_it() {
    let mut bench = Bench::joined(small_blocks(8), false);
    let agreement = bench.receiver.provisional.current().unwrap().session.side.agreement();
    let retry = Retry { agreement, cookie: crate::units::Cookie([1; 16]) };
    bench.hear(&retry.into());
    let turned_away = [
        AdmitVerdict::AlreadyComplete,
        AdmitVerdict::Full,
        AdmitVerdict::Unsupported,
        AdmitVerdict::NotListed,
    ];
    for admit in turned_away.map(Admit::turned_away).into_iter().chain([any_admit(ChannelId(1))]) {
        // Signed, but to all.
        bench.hear(&Message::Admit(admit.clone()));
        let bytes = bench.sender.to_all(ChannelId::REPLIES, &Message::Admit(admit), |_| ());
        bench.take(SENDER, bytes);
    }
    assert!(bench.receiver.session.is_none() && bench.outcome.is_none() && bench.jobs.is_empty());
}

/// Who is trusted, as the user is told, and the sender's address of then.
fn trusted(bench: &Bench) -> Option<(TrustDecision, SocketAddr)> {
    bench.told.iter().rev().find_map(|event| match event {
        ReceiverEvent::SenderTrusted { decision, address, .. } => Some((*decision, *address)),
        _ => None,
    })
}

/// One for whom somebody watches.
fn watched() -> Bench {
    let mut bench = Bench::new(small_blocks(8));
    bench.receiver.config.trust.strangers = Strangers::Pin;
    bench
}

#[test]
fn an_announce_alone_makes_nobody_known() {
    let mut bench = watched();
    bench.announce();
    bench.ask(Holdings::Nothing);
    bench.pass(Duration::from_secs(5));
    assert_eq!(trusted(&bench), None, "the address has not answered");
    bench.ask_again();
    bench.hear_alone(&Message::Admit(ADMITTED));
    assert_eq!(trusted(&bench), Some((TrustDecision::FirstUse, SENDER)));
}

/// A host announces a session of its own in the sender's name, lures the second join to itself, and answers in the
/// sender's name again.
#[test]
fn an_address_that_has_not_answered_itself_is_not_remembered() {
    let lure: SocketAddr = "10.0.0.66:7418".parse().unwrap();
    let mut bench = watched();
    bench.announce();
    bench.ask(Holdings::Nothing);
    let announce = bench.announce_now();
    let bytes = bench.sender.to_all(ChannelId::GROUP, &announce.into(), |_| ());
    bench.take(lure, bytes);
    bench.ask_again();
    assert_eq!(bench.receiver.provisional.current().map(|p| p.session.sender), Some(lure));
    bench.hear_alone(&Message::Admit(ADMITTED));
    let (decision, address) = trusted(&bench).expect("the session is taken part in");
    assert_eq!((decision, address), (TrustDecision::Unverified, SENDER), "it must not be remembered");
}

/// The same where the address is known to be another sender's.
#[test]
fn a_session_that_moves_to_the_address_of_a_known_sender_is_none() {
    let lure: SocketAddr = "10.0.0.66:7418".parse().unwrap();
    for known in [None, Some(FakeSender::new(COUNTER).key())] {
        let mut bench = watched();
        bench.receiver.config.trust.known.insert(SENDER.ip(), SenderKey([9; 32]));
        bench.receiver.config.trust.known.extend(known.map(|key| (lure.ip(), key)));
        let announce = bench.announce_now();
        let bytes = bench.sender.to_all(ChannelId::GROUP, &announce.into(), |_| ());
        bench.take(lure, bytes);
        bench.probed(Holdings::Nothing);
        bench.ask_again();
        // The answer comes in the known sender's name.
        bench.hear_alone(&Message::Admit(ADMITTED));
        assert_eq!((trusted(&bench), bench.receiver.session.is_some()), (None, false));
        let refused = bench.told.iter().any(|event| matches!(event, ReceiverEvent::SenderRefused { .. }));
        assert!(refused && bench.outcome.is_none());
    }
}

#[test]
fn a_device_that_is_not_listed_is_told_so() {
    let mut bench = Bench::asking(small_blocks(8), Holdings::Nothing);
    bench.hear_alone(&Message::Admit(Admit::turned_away(AdmitVerdict::NotListed)));
    bench.done(ReceiverDone::Discarded);
    assert_eq!(bench.outcome, Some(ReceiverOutcome::NotListed));
}

#[test]
fn a_join_shows_the_key_of_its_device_for_this_session_alone() {
    let mut bench = Bench::new(small_blocks(8));
    let key = sham::signing_key(77);
    bench.receiver.config.device_key = Some(key.clone());
    bench.announce();
    bench.ask(Holdings::Nothing);
    let (_, plain) = bench.sent.iter().rev().find_map(|bytes| bench.sender.hear(OWN, bytes)).expect("a join");
    let Ok((_, Message::Join(join))) = wire::decode_plain(&plain) else { panic!("no join") };
    let proof = join.proof.expect("a proof");
    assert_eq!(proof.key, DeviceKey::of(&key));
    let session = &bench.receiver.provisional.current().unwrap().session;
    let (sender, agreement) = (session.side.sender(), session.side.agreement());
    let claim = Claim { session: session.id, sender: &sender, agreement: &agreement, device: &DEVICE };
    assert!(claim.verify(SHAM, &proof.key, &proof.signature));
    assert!(!Claim { session: SessionId(1), ..claim }.verify(SHAM, &proof.key, &proof.signature));
}

#[test]
fn the_ticket_is_kept_by_a_job_and_the_next_run_presents_it() {
    let ticket = Ticket([0x5c; 16]);
    let mut bench = Bench::asking(small_blocks(8), Holdings::Nothing);
    bench.hear_alone(&Message::Admit(Admit { ticket: Some(ticket), ..ADMITTED }));
    let keeps =
        |job: &ReceiverJob| matches!(job, ReceiverJob::KeepTicket { ticket: kept, .. } if *kept == ticket);
    assert!(keeps(&bench.jobs[0]) && matches!(bench.jobs[1], ReceiverJob::Open { .. }), "{:?}", bench.jobs);
    // The device says that it is kept once it is, and not before.
    let says = |bench: &mut Bench| {
        bench.sent.clear();
        bench.pass(Duration::from_secs(2));
        let said = bench.said();
        let mut reports = said.iter().filter_map(|bytes| match wire::decode_plain(bytes) {
            Ok((_, Message::Progress(report))) => Some(report.ticket_kept),
            _ => None,
        });
        reports.next_back()
    };
    assert_eq!(says(&mut bench), Some(false));
    bench.done(ReceiverDone::TicketKept(true));
    assert_eq!(says(&mut bench), Some(true));
    assert!(!bench.receiver.is_settled());
    // The next run finds it before it joins.
    let mut next = Bench::new(small_blocks(8));
    next.announce();
    let ReceiverJob::Probe { session, .. } = next.jobs[0] else { panic!("{:?}", next.jobs) };
    next.done(ReceiverDone::Probed { session, holding: Holdings::Some, ticket: Some(ticket) });
    next.ask_again();
    let said = next.said();
    let joins = said.iter().filter_map(|bytes| match wire::decode_plain(bytes) {
        Ok((_, Message::Join(join))) => Some(join.ticket),
        _ => None,
    });
    assert_eq!(joins.collect::<Vec<_>>(), [Some(ticket)]);
}
