use super::*;
use crate::content::{EntryKind, Modified};

fn file(path: &str, extents: Extents) -> Entry {
    Entry::file(path.as_bytes(), 0o644, Modified::default(), extents).unwrap()
}

fn sample() -> Manifest {
    let solid = |path: &str, size| file(path, Extents::solid(size));
    let top = Entry::new(b"t", EntryKind::Directory, 0o755, Modified::default()).unwrap();
    // Its data is shorter than a block, its size is not.
    let sparse = file("t/f", Extents::from_lengths(vec![100, 1 << 30, 200]).unwrap());
    Manifest::new(vec![
        top,
        solid("t/a", 10),
        solid("t/b", 1024),
        solid("t/c", 0),
        solid("t/d", 5000),
        solid("t/e", 1023),
        sparse,
    ])
    .unwrap()
}

#[test]
fn large_files_begin_at_blocks_and_small_ones_are_packed_behind() {
    let manifest = sample();
    let placement = Placement::new(&manifest, 10).unwrap();
    let first = (manifest.encoded().len() as u64).next_multiple_of(1024);
    let placed: Vec<_> = placement.files().iter().map(|f| (f.entry, f.start - first, f.len)).collect();
    let packed = 1024 + 5 * 1024;
    let small = [(1, packed, 10), (5, packed + 10, 1023), (6, packed + 1033, 300)];
    assert_eq!(placed, [&[(2, 0, 1024), (4, 1024, 5000)][..], &small[..]].concat());
    assert_eq!(
        (placement.payload(), placement.packed() - first, placement.size() - first),
        (first, packed, packed + 1333)
    );
    let pieces = |range: Range<u64>| {
        let range = first + range.start..first + range.end;
        placement.pieces(range).map(|p| (p.entry, p.object - first, p.data, p.len)).collect::<Vec<_>>()
    };
    assert_eq!(pieces(0..1024), [(2, 0, 0, 1024)]);
    assert_eq!(pieces(1000..1100), [(2, 1000, 1000, 24), (4, 1024, 0, 76)]);
    assert_eq!(pieces(6024..6144), [], "padding");
    assert_eq!(
        pieces(packed..packed + 1333),
        [(1, packed, 0, 10), (5, packed + 10, 0, 1023), (6, packed + 1033, 0, 300)]
    );
    assert_eq!(pieces(packed + 1040..packed + 1041), [(6, packed + 1040, 7, 1)]);
    assert_eq!(placement.pieces(0..first).count(), 0);
}

#[test]
fn a_tree_without_bytes_is_its_manifest() {
    let empty = Manifest::new(vec![file("a", Extents::solid(0))]).unwrap();
    let placement = Placement::new(&empty, 20).unwrap();
    assert_eq!((placement.size(), placement.files().len()), (empty.encoded().len() as u64, 0));
    let huge = Manifest::new(vec![file("a", Extents::solid(1 << 63))]).unwrap();
    assert!(Placement::new(&huge, 20).is_err(), "there is no room for its manifest");
}

#[test]
fn a_head_is_a_few_bytes_with_one_spelling() {
    let head = TreeHead::of(&sample(), true);
    assert_eq!(
        (head.entries, head.tops, head.bytes, head.archive),
        (7, 1, 6057 + 300 + (1 << 30) + 1000, true)
    );
    let head = TreeHead { manifest: 300, entries: 7, tops: 1, bytes: 70_000, archive: false };
    let golden = [0x86, 1, 0x19, 0x01, 0x2c, 7, 1, 0x1a, 0, 1, 0x11, 0x70, 0];
    assert_eq!(head.encode(), golden);
    assert_eq!(TreeHead::decode(&golden), Ok(head));
    for cut in 0..golden.len() {
        assert!(TreeHead::decode(&golden[..cut]).is_err(), "{cut}");
    }
    let refused = |change: fn(&mut TreeHead)| {
        let mut head = head;
        change(&mut head);
        assert!(TreeHead::decode(&head.encode()).is_err(), "{head:?}");
    };
    refused(|head| head.manifest = 0);
    refused(|head| head.manifest = MAX_MANIFEST_OBJECT as u32 + 1);
    refused(|head| head.entries = 0);
    refused(|head| head.entries = MAX_TREE_ENTRIES as u32 + 1);
    refused(|head| head.tops = 0);
    refused(|head| head.tops = 8);
    refused(|head| head.bytes = MAX_OBJECT_SIZE + 1);
    let with = |at: usize, byte: u8| {
        let mut bytes = golden.to_vec();
        bytes[at] = byte;
        TreeHead::decode(&bytes)
    };
    assert_eq!(with(1, 2), Err(ManifestError::Version(2)));
    assert!(with(12, 2).is_err() && with(12, 1).is_ok());
    assert!(TreeHead::decode(&[&golden[..], &[0]].concat()).is_err());
    // A longer spelling of a number.
    assert!(TreeHead::decode(&[&golden[..5], &[0x18, 7], &golden[6..]].concat()).is_err());
}
