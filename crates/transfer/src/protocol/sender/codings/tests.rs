use super::*;

fn of(compression: Compression) -> Codings {
    Codings::new(compression, Rate(1_000_000_000))
}

fn auto() -> Codings {
    of(Compression::Auto)
}

#[test]
fn only_what_was_asked_for_is_compressed() {
    assert_eq!(of(Compression::Level(9)).level(), Some(9));
    assert_eq!(of(Compression::Off).level(), None);
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
    assert!(of(Compression::Off).has_room(1000, block, 0));
}
