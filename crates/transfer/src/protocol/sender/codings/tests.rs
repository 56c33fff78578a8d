use super::*;

fn auto() -> Codings {
    Codings::new(Compression::Auto)
}

#[test]
fn the_level_falls_when_the_stream_waits_and_rises_while_the_queue_is_full() {
    let mut codings = auto();
    assert_eq!(codings.level(), Some(3));
    codings.waits_for(0);
    codings.waits_for(0);
    assert_eq!(codings.level(), Some(1), "once for each block");
    (1..10).for_each(|block| codings.waits_for(block));
    assert_eq!(codings.level(), None, "nothing is compressed any more");
    // It takes ever longer until it is tried again.
    let rises = |codings: &mut Codings| {
        let before = codings.level();
        (1..).find(|_| {
            codings.begins(true);
            codings.level() != before
        })
    };
    assert_eq!((rises(&mut codings), codings.level()), (Some(MAX_BACKOFF), Some(-5)));
    codings.begins(false);
    assert_eq!(codings.full, 0);
    let mut fresh = auto();
    fresh.waits_for(7);
    assert_eq!((rises(&mut fresh), fresh.level()), (Some(FULL_BEFORE_RISE * BACKOFF), Some(3)));
    (0..10_000).for_each(|_| fresh.begins(true));
    assert_eq!(fresh.level(), Some(3), "there is no higher one");
}

#[test]
fn a_level_that_was_asked_for_stays() {
    let mut codings = Codings::new(Compression::Level(9));
    (0..100).for_each(|block| codings.waits_for(block));
    (0..100).for_each(|_| codings.begins(true));
    assert_eq!((codings.level(), Codings::new(Compression::Off).level()), (Some(9), None));
}

#[test]
fn packed_bytes_are_bounded_and_those_needed_next_stay() {
    let mut codings = auto();
    let bytes = Arc::new(vec![0; SENDER_PACKED_BYTES / 4]);
    (0..4).for_each(|block| codings.keep(block, Arc::clone(&bytes), 0));
    assert_eq!(codings.packed.len(), 4);
    // Those that were streamed go first.
    codings.keep(4, Arc::clone(&bytes), 2);
    assert_eq!(codings.packed.keys().copied().collect::<Vec<_>>(), [1, 2, 3, 4]);
    // If none was, those that are needed last.
    codings.keep(9, Arc::clone(&bytes), 1);
    assert_eq!(codings.packed.keys().copied().collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert!(codings.packed_bytes <= SENDER_PACKED_BYTES);
    // A block larger than that is kept all the same.
    let mut codings = auto();
    codings.keep(0, Arc::new(vec![0; SENDER_PACKED_BYTES + 1]), 0);
    assert_eq!(codings.packed.len(), 1);
}

#[test]
fn workers_pack_no_more_than_there_is_room_for() {
    let mut codings = auto();
    let block = SENDER_PACKED_BYTES as u64 / 8;
    let in_flight = (0..).take_while(|&n| codings.has_room(n, block, 0)).count();
    assert_eq!(in_flight, 8);
    codings.keep(5, Arc::new(vec![0; block as usize]), 0);
    assert!(codings.has_room(6, block, 0) && !codings.has_room(7, block, 0));
    assert!(codings.has_room(7, block, 6), "it was streamed");
    // One block is always packed, however large.
    assert!(auto().has_room(0, block * 100, 0) && !auto().has_room(1, block * 100, 0));
    assert!(Codings::new(Compression::Off).has_room(1000, block, 0));
}
