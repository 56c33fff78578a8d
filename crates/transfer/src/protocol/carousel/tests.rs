use super::*;
use crate::layout::Layout;
use crate::limits::HEADER_LEN;
use crate::sim::sham;
use crate::task::Task;
use crate::units::{Coding, Counter, SymbolDigest, TaskId};
use crate::wire::{self, Announce, OneWay, SymbolDigests};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

const RATE: Rate = Rate(20_000_000);
/// A block of zeros.
const ZEROS: u32 = 20;

/// 40 blocks of 16 KiB, and a short one.
fn layout() -> Layout {
    Layout::new((40 << 14) + 3000, 14, 1024).unwrap()
}

fn carousel(passes: Option<u32>, sealed: bool) -> Carousel {
    let who = (sham::signing_key(1), [2; 32], Counter(7));
    let data = "239.1.1.1:7417".parse().unwrap();
    let mut config = SenderConfig::new(Task::copy(TaskId([3; 16]), "f"), layout(), data, who);
    config.rate = RateMode::Fixed(RATE);
    config.rendezvous = vec!["239.255.74.17:7417".parse().unwrap()];
    config.group_key = sealed.then(|| crate::crypto::derive::Secret::new([9; 32]));
    Carousel::new(
        config,
        Repetition { overhead_per_mille: 200, count: passes, pause: Duration::ZERO },
        Time::ZERO,
    )
}

/// What was sent: when, what, and bytes on the wire.
#[derive(Debug)]
enum Sent {
    Announce(Box<Announce>),
    Page(u32),
    Digests(SymbolDigests),
    /// Block and ESIs.
    Symbols(u32, Range<u32>),
    Abort(AbortCode),
    Other,
}

struct Play {
    machine: Carousel,
    now: Time,
    sent: Vec<(Time, Sent)>,
    events: Vec<SenderEvent>,
    /// The value of each block, when it is hashed.
    value: fn(u32) -> Digest,
}

impl Play {
    fn new(machine: Carousel) -> Self {
        let value = |block| Digest([block as u8; 32]);
        Self { machine, now: Time::ZERO, sent: Vec::new(), events: Vec::new(), value }
    }

    fn done(&self, job: SenderJob) -> SenderDone {
        let digests = |count: usize| vec![SymbolDigest([1; 16]); count];
        match job {
            SenderJob::Hash { block, layout, level: None } => {
                let recipe =
                    if block.0 == ZEROS { Recipe::ZERO } else { Recipe::raw(layout.source_symbols(block)) };
                SenderDone::Hashed { block, value: (self.value)(block.0), recipe, packed: None }
            }
            SenderJob::Digest { block, layout, .. } => {
                SenderDone::Digested(block, digests(layout.source_symbols(block) as usize))
            }
            SenderJob::Encode { block, first, count, layout, .. } => {
                let bytes = count as usize * usize::from(layout.symbol_size());
                SenderDone::Encoded { block, first, symbols: vec![0; bytes].into() }
            }
            SenderJob::Vouch { block, first, symbols, symbol_size } => {
                SenderDone::Vouched(block, first, digests(symbols.len() / usize::from(symbol_size)))
            }
            SenderJob::CheckSource => SenderDone::SourceChecked,
            other => panic!("it needs no {other:?}"),
        }
    }

    fn note(&mut self, transmit: Transmit) {
        // What goes to the rendezvous group is the same.
        if transmit.to != self.machine.config.data {
            return;
        }
        let layout = layout();
        let sent = match transmit.payload {
            Payload::Source { block, ids, .. } => Sent::Symbols(block.0, ids),
            Payload::Repair { block, first, range, .. } => {
                let count = (range.len() / usize::from(layout.symbol_size())) as u32;
                Sent::Symbols(block.0, first.0..first.0 + count)
            }
            Payload::Message(_) if self.machine.config.group_key.is_some() => Sent::Other,
            Payload::Message(bytes) => {
                let head = wire::head(&bytes).unwrap();
                let body = &bytes[HEADER_LEN..bytes.len() - 64];
                match wire::decode_body(head.kind, body).unwrap() {
                    Message::Announce(announce) => Sent::Announce(Box::new(announce)),
                    Message::HashPage(page) => {
                        assert!(page.blocks.iter().all(|entry| entry.coding == Coding::Raw), "{page:?}");
                        Sent::Page(page.first.0)
                    }
                    Message::SymbolDigests(digests) => Sent::Digests(digests),
                    Message::Abort(abort) => Sent::Abort(abort.code),
                    other => panic!("{other:?}"),
                }
            }
        };
        self.sent.push((self.now, sent));
    }

    /// Runs it until `until`, or to its end.
    fn run(&mut self, until: Duration) {
        let until = Time::ZERO + until;
        while self.now <= until && !self.machine.is_finished() {
            self.machine.handle_timeout(self.now);
            while let Some(output) = self.machine.poll(self.now) {
                match output {
                    Output::Transmit(transmit) => self.note(transmit),
                    Output::Event(event) => self.events.push(event),
                    Output::Job(job) => {
                        let done = self.done(job);
                        self.machine.handle_job_done(self.now, done);
                    }
                    Output::Listen(group) => panic!("it listens to {group}"),
                }
            }
            let next = self.machine.next_timeout();
            assert!(next > self.now, "it runs in circles at {:?}", self.now);
            self.now = next;
        }
    }

    fn symbols(&self) -> impl Iterator<Item = (Time, u32, Range<u32>)> {
        self.sent.iter().filter_map(|(at, sent)| match sent {
            Sent::Symbols(block, ids) => Some((*at, *block, ids.clone())),
            _ => None,
        })
    }
}

const SOON: Duration = Duration::from_secs(60);

#[test]
fn it_warms_up_sends_its_passes_and_says_farewell() {
    let mut play = Play::new(carousel(Some(2), false));
    play.run(SOON);
    let first = play.symbols().next().unwrap().0;
    assert!(first >= Time::ZERO + WARM_UP);
    let announces = |from: Time, to: Time| {
        play.sent.iter().filter(|(at, s)| *at >= from && *at < to && matches!(s, Sent::Announce(_))).count()
    };
    assert!(announces(Time::ZERO, first) > 200, "the line loses the first hundred or so");
    let last = play.symbols().last().unwrap().0;
    assert!(announces(last, Time::NEVER) > 100);
    let aborts = play.sent.iter().filter(|(_, s)| matches!(s, Sent::Abort(AbortCode::Finished))).count();
    assert!(aborts > 100, "{aborts}");
    assert_eq!(play.events.last(), Some(&SenderEvent::Finished(SenderOutcome::SentOneWay(2))));
    assert!(play.events.iter().any(|event| matches!(event, SenderEvent::Hashed(_))));
    // Everything is told at the end, and each second.
    let all: Vec<_> = play
        .sent
        .iter()
        .filter_map(|(at, s)| if let Sent::Announce(a) = s { Some((*at, a)) } else { None })
        .collect();
    let (_, end) = all.last().unwrap();
    assert_eq!(end.one_way, Some(OneWay { pass: 1, overhead_per_mille: 200 }));
    assert!(end.objects[0].root.is_some() && end.origin.is_some() && end.invitation.probability == 0);
    assert_eq!(end.position, BlockIndex(41));
    let gap = all.windows(2).map(|pair| pair[1].0.since(pair[0].0)).max().unwrap();
    assert!(gap <= ANNOUNCE_INTERVAL + Duration::from_millis(50), "{gap:?}");
}

#[test]
fn no_symbol_is_sent_twice_and_each_pass_has_enough_of_each_block() {
    for sealed in [false, true] {
        let mut play = Play::new(carousel(None, sealed));
        play.run(Duration::from_secs(8));
        let passes = play.machine.pass;
        assert!(passes >= 4, "{passes}");
        let mut seen = BTreeSet::new();
        let mut count = BTreeMap::new();
        for (_, block, ids) in play.symbols() {
            *count.entry(block).or_insert(0) += ids.len() as u32;
            assert!(ids.clone().all(|id| seen.insert((block, id))), "{ids:?} of {block} once more");
        }
        for block in 0..41 {
            let k = layout().source_symbols(BlockIndex(block));
            assert!((0..k).all(|id| seen.contains(&(block, id))));
            assert!(count[&block] >= passes * (k + 2), "{block}: {count:?}");
        }
        play.machine.handle_control(play.now, Control::Interrupt);
        play.run(SOON);
        assert_eq!(play.events.last(), Some(&SenderEvent::Finished(SenderOutcome::Interrupted)));
    }
}

#[test]
fn pages_and_digests_come_before_their_symbols() {
    let mut play = Play::new(carousel(Some(3), false));
    play.run(SOON);
    let (mut pages, mut told) = (BTreeSet::new(), BTreeSet::new());
    for (_, sent) in &play.sent {
        match sent {
            Sent::Page(first) => drop(pages.insert(*first)),
            Sent::Digests(d) => (0..d.digests.len() as u32).for_each(|i| {
                assert!(told.insert((d.block.0, d.first_esi.0 + i)), "told twice");
            }),
            Sent::Symbols(block, ids) => {
                assert!(pages.contains(&(block / 32 * 32)));
                assert!(ids.clone().all(|id| told.contains(&(*block, id))), "{ids:?} of {block}");
            }
            _ => {}
        }
    }
    let mut sealed = Play::new(carousel(Some(1), true));
    sealed.run(SOON);
    assert_eq!(sealed.machine.counters.source, u64::from(layout().total_source_symbols() as u32));
}

#[test]
fn a_burst_costs_each_block_a_little() {
    let mut play = Play::new(carousel(Some(2), false));
    play.run(SOON);
    let symbols: Vec<_> = play.symbols().collect();
    // Any 64 datagrams in a row, in windows of 32 blocks of 16 symbols.
    for run in symbols.windows(64) {
        let mut lost = BTreeMap::new();
        run.iter().for_each(|(_, block, ids)| *lost.entry(block).or_insert(0) += ids.len());
        // The short window at the end has nine blocks.
        let worst = lost.values().max().unwrap();
        assert!(*worst <= 16, "{lost:?}");
    }
}

#[test]
fn the_pace_is_constant() {
    let mut play = Play::new(carousel(Some(4), false));
    play.run(SOON);
    let (from, to) = (play.symbols().next().unwrap().0, play.symbols().last().unwrap().0);
    let count = play.symbols().map(|(_, _, ids)| ids.len()).sum::<usize>();
    let bits = count as f64 * 8.0 * (1024 + 28 + 66) as f64;
    // Between passes it pauses: they take less than a second.
    let sending = bits / RATE.0 as f64;
    assert!(sending < to.since(from).as_secs_f64());
    for tenth in 0..5 {
        let at = from + Duration::from_millis(50 * tenth);
        let within = play.symbols().filter(|(t, ..)| *t >= at && *t < at + Duration::from_millis(50));
        let rate = within.map(|(_, _, ids)| ids.len()).sum::<usize>() as f64 * 8.0 * 1118.0 / 0.05;
        assert!((0.7..1.1).contains(&(rate / RATE.0 as f64)), "{rate}");
    }
}

#[test]
fn zeros_are_sent_like_all_else_and_remembered() {
    let mut play = Play::new(carousel(Some(1), false));
    assert!(play.machine.hashed_blocks().is_none());
    play.run(SOON);
    let of_zeros = play.symbols().filter(|(_, block, _)| *block == ZEROS);
    assert_eq!(of_zeros.map(|(_, _, ids)| ids.len()).sum::<usize>(), 16 + 4);
    let blocks = play.machine.hashed_blocks().unwrap();
    let zeros = (0..).zip(blocks).filter(|(_, (_, is_zero))| *is_zero);
    assert_eq!(zeros.map(|(block, _)| block).collect::<Vec<u32>>(), [ZEROS]);
}

#[test]
fn a_source_that_changes_ends_it() {
    let mut play = Play::new(carousel(None, false).with_values(vec![(Digest([200; 32]), false); 41]));
    play.run(SOON);
    assert!(matches!(play.events.last(), Some(SenderEvent::Finished(SenderOutcome::SourceFailed(_)))));
    assert!(play.sent.iter().any(|(_, s)| matches!(s, Sent::Abort(AbortCode::Source))));
    assert!(play.machine.root.is_none());
}

#[test]
fn an_empty_object_is_sent_too() {
    let who = (sham::signing_key(1), [2; 32], Counter(7));
    let layout = Layout::new(0, 20, 1024).unwrap();
    let data = "239.1.1.1:7417".parse().unwrap();
    let mut config = SenderConfig::new(Task::copy(TaskId([3; 16]), "f"), layout, data, who);
    config.rate = RateMode::Fixed(RATE);
    let passes = Repetition { overhead_per_mille: 100, count: Some(3), pause: Duration::from_secs(2) };
    let mut play = Play::new(Carousel::new(config, passes, Time::ZERO));
    play.run(SOON);
    assert_eq!(play.events.last(), Some(&SenderEvent::Finished(SenderOutcome::SentOneWay(3))));
    let (last, _) = play.sent.last().unwrap();
    assert!((5_900..6_100).contains(&last.since(Time::ZERO).as_millis()), "{last:?}");
}
