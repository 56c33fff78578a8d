//! A stream: its object grows while it is received.

use super::*;
use crate::fec::Buffer;
use crate::limits::MAX_BLOCKS;

fn growing(blocks: u64) -> Extent {
    Extent { size: blocks << 10, sealed: false }
}

impl Bench {
    /// One that takes part in a session whose object has so many blocks of one symbol so far.
    fn streaming(blocks: u64) -> Self {
        let mut bench = Self::new(Layout::of(growing(blocks), 10, 1024).unwrap());
        bench.root = None;
        bench.announce();
        bench.ask(Holdings::Nothing);
        bench.hear_alone(&Message::Admit(ADMITTED));
        bench.done(opened());
        bench
    }

    fn known(&self) -> Extent {
        self.receiver.blocks.as_ref().unwrap().layout().extent()
    }

    /// The sender announces this, whether that may follow or not.
    fn announce_extent(&mut self, extent: Extent) {
        let mut announce = self.announce_now();
        (announce.objects[0].size, announce.objects[0].sealed) = (extent.size, extent.sealed);
        self.hear(&Message::Announce(announce));
    }

    /// A block of which all has arrived is in the part file.
    fn stored(&mut self, block: u32) {
        whole_block(self, block);
        let value = Digest([block as u8; 32]);
        self.done(ReceiverDone::Stored { block: BlockIndex(block), value, buffer: Buffer::default() });
    }
}

#[test]
fn it_grows_by_what_its_sender_announces_only() {
    let mut bench = Bench::streaming(3);
    assert_eq!(bench.known(), growing(3));
    bench.layout = bench.layout.grown(growing(5)).unwrap();
    // Signed by nobody, signed wrongly, and of another session.
    let announce = bench.announce_now();
    let id = bench.receiver.session.as_ref().unwrap().id;
    let packet_number = PacketNumber::new(ChannelId::GROUP, 500);
    let header = Header { session: id, packet_number };
    bench.take(SENDER, wire::encode_plain(header, &Message::Announce(announce.clone())));
    let mut damaged = bench.sender.to_all(ChannelId::GROUP, &Message::Announce(announce.clone()), |_| ());
    *damaged.last_mut().unwrap() ^= 1;
    bench.take(SENDER, damaged);
    let mut other = FakeSender::new(COUNTER + 1);
    let bytes = other.to_all(ChannelId::GROUP, &Message::Announce(announce), |_| ());
    bench.take(SENDER, bytes);
    assert_eq!(bench.known(), growing(3));
    bench.announce();
    assert_eq!(bench.known(), growing(5));
    // What is late, what shrinks, and what cannot be.
    for extent in [growing(4), Extent::sealed(5 << 10), growing(u64::from(MAX_BLOCKS) + 1)] {
        bench.announce_extent(extent);
        assert_eq!(bench.known(), growing(5), "{extent:?}");
    }
    bench.announce_extent(Extent::sealed((5 << 10) + 1));
    let sealed = Extent::sealed((5 << 10) + 1);
    assert_eq!(bench.known(), sealed);
    for extent in [growing(6), Extent::sealed(6 << 10), growing(5)] {
        bench.announce_extent(extent);
        assert_eq!(bench.known(), sealed, "{extent:?}");
    }
}

#[test]
fn a_stream_is_complete_only_when_it_is_sealed_and_all_is_there() {
    let mut bench = Bench::streaming(2);
    (0..2).for_each(|block| bench.stored(block));
    bench.page();
    // Blocks that are not announced yet.
    whole_block(&mut bench, 2);
    bench.pass(Duration::from_secs(15));
    bench.announce();
    bench.pass(Duration::from_secs(15));
    assert!(bench.jobs.is_empty(), "{:?}", bench.jobs);
    let snapshot = bench.receiver.snapshot();
    assert_eq!((snapshot.verified, snapshot.growing), (2, true));
    bench.layout = bench.layout.grown(Extent::sealed(3 << 10)).unwrap();
    let values: Vec<Digest> = (0..3).map(|block| Digest([block; 32])).collect();
    bench.root = Some(crate::crypto::digest::root(&values));
    bench.announce();
    assert!(bench.jobs.is_empty(), "{:?}", bench.jobs);
    // The page has grown too, and a poll tells that it lacks the rest.
    assert!(!bench.lacks().is_empty());
    bench.page();
    bench.stored(2);
    let [ReceiverJob::Commit { layout, .. }] = bench.jobs[..] else { panic!("{:?}", bench.jobs) };
    assert_eq!(layout.object_size(), 3072);
}

#[test]
fn an_earlier_run_may_have_had_more_than_is_announced() {
    let mut bench = Bench::new(Layout::of(growing(1), 10, 1024).unwrap());
    bench.root = None;
    bench.announce();
    bench.ask(Holdings::Some);
    bench.hear_alone(&Message::Admit(ADMITTED));
    bench.done(written(&[0, 2, 5], 6));
    bench.page();
    bench.done(ReceiverDone::Checked { block: BlockIndex(0), agrees: true });
    assert!(bench.jobs.is_empty(), "{:?}", bench.jobs);
    bench.layout = bench.layout.grown(growing(4)).unwrap();
    bench.announce();
    // It asks for what no earlier run had.
    let whole = |first, count| wire::Deficit::Whole { first: BlockIndex(first), count };
    assert_eq!(bench.lacks(), [whole(1, 1), whole(3, 1)]);
    bench.page();
    assert!(matches!(bench.jobs[..], [ReceiverJob::Check { block: BlockIndex(2), .. }]), "{:?}", bench.jobs);
    bench.done(ReceiverDone::Checked { block: BlockIndex(2), agrees: true });
    bench.layout = bench.layout.grown(Extent::sealed(5 << 10)).unwrap();
    bench.announce();
    assert_eq!(bench.lacks(), [whole(1, 1), whole(3, 2)]);
    assert_eq!(bench.receiver.blocks.as_ref().unwrap().candidates(), 0, "block 5 is behind the end");
}

#[test]
fn a_stream_that_broke_off_is_kept() {
    for (sealed, kept) in [(false, true), (true, false)] {
        let mut bench = Bench::streaming(2);
        (0..2).for_each(|block| bench.stored(block));
        bench.page();
        if sealed {
            bench.announce_extent(Extent::sealed(3 << 10));
        }
        let abort = wire::Abort { code: AbortCode::Source, reason: "the producer died".into() };
        bench.hear(&Message::Abort(abort));
        assert_eq!(matches!(bench.jobs[..], [ReceiverJob::Keep]), kept, "{:?}", bench.jobs);
    }
}

#[test]
fn the_sender_of_a_stream_hears_soon_of_a_block_that_is_verified_late() {
    let mut bench = Bench::streaming(2);
    bench.page();
    whole_block(&mut bench, 0);
    // What has arrived is reported while the disk is still busy with it.
    bench.pass(Duration::from_millis(500));
    bench.sent.clear();
    let value = Digest([0; 32]);
    bench.done(ReceiverDone::Stored { block: BlockIndex(0), value, buffer: Buffer::default() });
    bench.pass(Duration::from_millis(60));
    let said = bench.said();
    let below = said.iter().filter_map(|plain| match wire::decode_plain(plain) {
        Ok((_, Message::Progress(report))) => Some(report.below.0),
        _ => None,
    });
    // Once, as it is no news later.
    assert_eq!(below.collect::<Vec<_>>(), [1]);
}
