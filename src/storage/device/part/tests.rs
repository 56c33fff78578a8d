use super::*;

#[test]
fn the_ends_take_and_give_what_is_theirs() {
    let mut ends = Ends { head: PageAligned::zeroed(10), tail: PageAligned::zeroed(5), tail_start: 20 };
    let object: Vec<u8> = (1..=25).collect();
    // Pieces across both ends, and none that touch neither.
    for (from, to) in [(0, 3), (3, 12), (12, 19), (19, 22), (22, 25)] {
        ends.put(from as u64, &object[from..to]);
    }
    assert_eq!((&*ends.head, &*ends.tail), (&object[..10], &object[20..]));
    let mut buf = vec![0; 25];
    ends.get(0, &mut buf);
    assert_eq!(buf[..10], object[..10]);
    assert_eq!(buf[10..20], [0; 10]);
    assert_eq!(buf[20..], object[20..]);
    let mut buf = vec![0; 6];
    ends.get(8, &mut buf);
    assert_eq!(buf, [9, 10, 0, 0, 0, 0]);
    assert_eq!((overlap(0, 4, 4, 4), overlap(5, 0, 5, 3)), (None, None));
}
