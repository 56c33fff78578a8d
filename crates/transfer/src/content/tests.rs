use super::*;

const TIME: Modified = Modified { seconds: 1_700_000_000, nanoseconds: 123_456_789 };

fn entry(path: &str, size: u64) -> Entry {
    Entry::file(path.as_bytes(), 0o644, TIME, Extents::solid(size)).unwrap()
}

fn directory(path: &str) -> Entry {
    Entry::new(path.as_bytes(), EntryKind::Directory, 0o755, TIME).unwrap()
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

#[test]
fn one_file_is_a_few_dozen_bytes() {
    let manifest = Manifest::new(vec![entry("image.iso", 5_000_000)]).unwrap();
    let golden = "82 01 a5  00 49 696d6167652e69736f  01 01  02 1a 004c4b40  03 19 01a4  04 82 1a 6553f100 1a 075bcd15";
    assert_eq!(manifest.encoded(), hex(golden));
    assert_eq!(manifest.digest(), Digest(*blake3::hash(&hex(golden)).as_bytes()));
    let again = Manifest::decode(manifest.encoded()).unwrap();
    assert_eq!(again, manifest);
    let file = again.single().unwrap();
    assert_eq!((file.path(), file.size(), file.mode()), (&b"image.iso"[..], 5_000_000, 0o644));
    assert_eq!((file.modified(), again.content_size()), (TIME, 5_000_000));
    assert!(file.extents().unwrap().is_solid());
}

#[test]
fn holes_optional_fields_and_times_before_1970_come_through() {
    let extents = Extents::from_lengths(vec![0, 4096, 100, 1 << 40]).unwrap();
    let early = Modified { seconds: -1, nanoseconds: 999_999_999 };
    let field = |number, value: &[u8]| OptionalField { number, value: value.to_owned() };
    let sparse = Entry::file(b"sparse", 0o7777, early, extents).unwrap();
    let sparse =
        sparse.with_optional(vec![field(0, b""), field(7, b"x"), field(u16::MAX, &[0; 300])]).unwrap();
    let manifest = Manifest::new(vec![directory("a"), entry("a/b", 0), sparse]).unwrap();
    let again = Manifest::decode(manifest.encoded()).unwrap();
    assert_eq!(again, manifest);
    assert_eq!(again.single(), None);
    let found: Vec<Extent> = again.entries()[2].extents().unwrap().iter().collect();
    let extent = |kind, start, len| Extent { kind, start, len };
    assert_eq!(
        found,
        [
            extent(ExtentKind::Hole, 0, 4096),
            extent(ExtentKind::Data, 4096, 100),
            extent(ExtentKind::Hole, 4196, 1 << 40)
        ]
    );
    assert_eq!(again.entries()[1].extents().unwrap().iter().count(), 0);
    assert_eq!(again.content_size(), (1 << 40) + 4196);
    assert_eq!(Manifest::new(vec![entry("a/b", 1)]), Err(ManifestError::Parent), "it is in no directory");
}

#[test]
fn there_is_one_spelling_only() {
    let sound = "82 01 a5 00 41 61 01 01 02 05 03 00 04 82 00 00";
    assert!(Manifest::decode(&hex(sound)).is_ok());
    for (other, why) in [
        ("82 01 a5 00 41 61 01 01 02 1805 03 00 04 82 00 00", "a longer number"),
        ("82 01 a5 00 41 61 01 01 02 1b0000000000000005 03 00 04 82 00 00", "the longest number"),
        ("9f 01 a5 00 41 61 01 01 02 05 03 00 04 82 00 00 ff", "a list without a length"),
        ("82 01 bf 00 41 61 01 01 02 05 03 00 04 82 00 00 ff", "a map without a length"),
        ("82 01 a5 00 5f 41 61 ff 01 01 02 05 03 00 04 82 00 00", "bytes in pieces"),
        ("82 01 a5 01 01 00 41 61 02 05 03 00 04 82 00 00", "keys out of order"),
        ("82 01 a6 00 41 61 00 41 61 01 01 02 05 03 00 04 82 00 00", "a key twice"),
        ("82 01 a6 00 41 61 01 01 02 05 03 00 04 82 00 00 05 81 05", "extents without a hole"),
        ("82 01 a5 00 41 61 01 01 02 05 03 00 04 82 00 00 00", "a byte more"),
        ("81 01 a5 00 41 61 01 01 02 05 03 00 04 82 00 00", "an entry more than said"),
        ("83 01 a5 00 41 61 01 01 02 05 03 00 04 82 00 00", "an entry less than said"),
        ("9b ffffffffffffffff 01 a5 00 41 61", "entries without end"),
        ("82 01 a6 00 41 61 01 01 02 05 03 00 04 82 00 00 0b 00", "a field that is not known"),
        ("82 01 a6 00 41 61 01 01 02 05 03 00 04 82 00 00 06 41 61", "a file with a target"),
        ("82 01 a6 00 41 61 01 01 02 05 03 00 04 82 00 00 20 00", "an optional field that is no bytes"),
        ("82 01 a5 00 41 61 01 07 02 05 03 00 04 82 00 00", "another kind"),
        ("82 01 a5 00 41 61 01 02 02 05 03 00 04 82 00 00", "a directory with a size"),
        ("82 01 a4 00 41 61 01 01 02 05 03 00", "no time"),
        ("82 01 a4 00 41 61 02 05 03 00 04 82 00 00", "no kind"),
        ("82 01 a6 00 41 61 01 01 02 05 03 00 04 82 00 00 05 82 01 05", "extents of another size"),
        ("82 01 a6 00 41 61 01 01 02 05 03 00 04 82 00 00 05 83 05 00 00", "empty extents"),
        ("82 01 a5 00 41 61 01 01 02 05 03 19 1000 04 82 00 00", "a mode out of range"),
        ("82 01 a5 00 41 61 01 01 02 05 03 00 04 82 00 1a 3b9aca00", "a second of nanoseconds"),
        ("82 01 a5 00 41 61 01 01 02 1b 8000000000000001 03 00 04 82 00 00", "a size out of range"),
        ("", "nothing"),
    ] {
        assert!(Manifest::decode(&hex(other)).is_err(), "{why}");
    }
    for cut in 0..hex(sound).len() {
        assert!(Manifest::decode(&hex(sound)[..cut]).is_err(), "cut off at {cut}");
    }
    assert_eq!(Manifest::decode(&hex("82 02 00")), Err(ManifestError::Version(2)));
}

#[test]
fn paths_lead_nowhere_else_and_ascend() {
    let file = |path: &[u8]| Entry::file(path, 0o600, TIME, Extents::solid(1));
    for path in [&b""[..], b"/", b"/a", b"a/", b"a//b", b".", b"..", b"a/../b", b"a\0b", &[b'x'; 256]] {
        assert_eq!(file(path), Err(EntryError::Path), "{path:?}");
    }
    for path in [&b"..."[..], b"a\\x2d", b"aux.c", b"\xff", &[b'x'; 255]] {
        assert!(file(path).is_ok(), "{path:?}");
    }
    assert_eq!(Manifest::new(vec![entry("b", 1), entry("a", 1)]), Err(ManifestError::Order));
    assert_eq!(Manifest::new(vec![entry("a", 1), entry("a", 1)]), Err(ManifestError::Order));
    assert_eq!(
        Manifest::new(vec![entry("a", 1 << 63), entry("b", 1)]),
        Err(ManifestError::Entry(EntryError::Size))
    );
}

#[test]
fn its_size_is_bounded() {
    let value = vec![7; 60_000];
    let entries = |count: usize| {
        let large = |i| {
            let xattr = Xattr { name: b"user.x".to_vec(), value: value.clone() };
            entry(&format!("{i:08}"), 1).with_xattrs(vec![xattr]).unwrap()
        };
        (0..count).map(large).collect::<Vec<_>>()
    };
    let fits = MAX_MANIFEST_OBJECT / 60_100;
    assert!(Manifest::new(entries(fits)).is_ok());
    assert!(matches!(Manifest::new(entries(fits + 20)), Err(ManifestError::TooLarge(_))));
    assert_eq!(
        Manifest::decode(&vec![0; MAX_MANIFEST_OBJECT + 1]),
        Err(ManifestError::TooLarge(MAX_MANIFEST_OBJECT + 1))
    );
    let many = |count: usize| (0..count).map(|i| entry(&format!("{i:08}"), 0)).collect::<Vec<_>>();
    assert!(Manifest::new(many(MAX_TREE_ENTRIES)).is_ok());
    assert_eq!(Manifest::new(many(MAX_TREE_ENTRIES + 1)), Err(ManifestError::TooMany));
    // A count that is false reserves nothing.
    let mut bytes = vec![0x9b, 0, 0, 0, 1, 0, 0, 0, 0, 1];
    bytes.extend([0xa2, 0, 0x41, 0x61, 1, 2]);
    assert!(Manifest::decode(&bytes).is_err());
    // The longest name of a single file leaves room in an announcement.
    let longest = Manifest::new(vec![entry(&"x".repeat(255), 1 << 63)]).unwrap();
    assert!(longest.encoded().len() <= crate::limits::MAX_MANIFEST, "{}", longest.encoded().len());
}

#[test]
fn damage_is_refused_or_means_something_else() {
    let extents = Extents::from_lengths(vec![10, 20, 30]).unwrap();
    let manifest =
        Manifest::new(vec![entry("a", 7), Entry::file(b"b", 0o755, TIME, extents).unwrap()]).unwrap();
    for at in 0..manifest.encoded().len() * 8 {
        let mut bytes = manifest.encoded().to_vec();
        bytes[at / 8] ^= 1 << (at % 8);
        if let Ok(other) = Manifest::decode(&bytes) {
            assert_ne!(other, manifest, "bit {at}");
            assert_ne!(other.digest(), manifest.digest(), "bit {at}");
        }
    }
}

#[test]
fn a_tree_comes_through_with_all_its_kinds() {
    let xattr = |name: &str| Xattr { name: name.as_bytes().to_vec(), value: b"v".to_vec() };
    let new = |path: &str, kind, mode| Entry::new(path.as_bytes(), kind, mode, TIME).unwrap();
    let link = Entry::new(b"t/hard", EntryKind::HardLink(1), 0, Modified::default()).unwrap();
    let node = EntryKind::Device { block: true, major: 8, minor: 1 };
    let owner = Some(Owner { user: 1000, group: u32::MAX });
    let entries = vec![
        directory("t").with_owner(owner).with_xattrs(vec![xattr("system.posix_acl_default")]).unwrap(),
        entry("t/a", 5).with_xattrs(vec![xattr("security.capability"), xattr("user.x")]).unwrap(),
        // A directory is followed by what is in it, whatever bytes sort before a slash.
        directory("t/b"),
        entry("t/b/x", 1),
        entry("t/b-1", 1),
        new("t/c", node, 0o600).with_owner(owner),
        link,
        new("t/sym", EntryKind::Symlink(b"../../etc/passwd".to_vec()), 0),
    ];
    let manifest = Manifest::new(entries.clone()).unwrap();
    assert_eq!(Manifest::decode(manifest.encoded()).unwrap().entries(), entries);
    assert_eq!((manifest.content_size(), manifest.single()), (7, None));
    assert_eq!(manifest.entries()[3].parent(), Some(&b"t/b"[..]));
}

#[test]
fn what_is_unsound_in_a_tree_is_refused() {
    let link = |path: &str, to| {
        Entry::new(path.as_bytes(), EntryKind::HardLink(to), 0, Modified::default()).unwrap()
    };
    let of = |entries: Vec<Entry>| Manifest::new(entries).map(drop);
    assert_eq!(of(vec![entry("a", 1), entry("a/b", 1)]), Err(ManifestError::Parent), "a child of a file");
    assert_eq!(of(vec![directory("a"), entry("b/c", 1)]), Err(ManifestError::Parent), "of nothing");
    assert_eq!(of(vec![directory("a"), entry("a/b/c", 1)]), Err(ManifestError::Parent), "of a gap");
    assert_eq!(of(vec![directory("a"), entry("ab", 1), entry("ab/c", 1)]), Err(ManifestError::Parent));
    assert_eq!(of(vec![directory("a"), directory("b"), entry("a/x", 1)]), Err(ManifestError::Order));
    assert_eq!(of(vec![directory("a"), entry("a-b", 1), entry("a/x", 1)]), Err(ManifestError::Order));
    assert_eq!(of(vec![directory("a"), directory("a")]), Err(ManifestError::Order));
    assert_eq!(of(vec![link("a", 0)]), Err(ManifestError::Link), "to itself");
    assert_eq!(of(vec![link("a", 1), entry("b", 1)]), Err(ManifestError::Link), "to a later one");
    assert_eq!(of(vec![directory("a"), link("b", 0)]), Err(ManifestError::Link), "to a directory");
    assert_eq!(of(vec![entry("a", 1), link("b", 0), link("c", 1)]), Err(ManifestError::Link), "to a link");
    assert_eq!(of(vec![entry("a", 1), link("b", u32::MAX)]), Err(ManifestError::Link));
    for target in [&b""[..], b"a\0b", &[b'x'; 4097]] {
        let kind = EntryKind::Symlink(target.to_vec());
        assert_eq!(Entry::new(b"l", kind, 0, TIME), Err(EntryError::Target), "{target:?}");
    }
    let with = |xattrs: Vec<(&str, usize)>| {
        let xattr = |(name, len): (&str, usize)| Xattr { name: name.into(), value: vec![0; len] };
        entry("f", 1).with_xattrs(xattrs.into_iter().map(xattr).collect()).map(drop)
    };
    assert!(with(vec![("security.x", 0), ("trusted.x", 1), ("user.x", 65_536)]).is_ok());
    for xattrs in [
        vec![("user.", 1)],
        vec![("user.x\0", 1)],
        vec![("system.other", 1)],
        vec![("", 1)],
        vec![("user.x", 65_537)],
        vec![("user.x", 1), ("user.x", 1)],
        vec![("user.x", 1), ("security.x", 1)],
    ] {
        assert_eq!(with(xattrs.clone()), Err(EntryError::Xattrs), "{xattrs:?}");
    }
    let deep = |depth: usize| vec!["d"; depth].join("/");
    let at = |depth| Entry::file(deep(depth).as_bytes(), 0, TIME, Extents::solid(1));
    assert!(at(crate::limits::MAX_TREE_DEPTH).is_ok());
    assert_eq!(at(crate::limits::MAX_TREE_DEPTH + 1), Err(EntryError::Path));
}

#[test]
fn data_is_found_between_the_holes() {
    let extents = Extents::from_lengths(vec![10, 100, 20, 100, 5, 3]).unwrap();
    let runs = |from, len| extents.runs_of_data(from, len).collect::<Vec<_>>();
    assert_eq!((extents.data_len(), extents.size()), (35, 238));
    assert_eq!(runs(0, 35), [(0, 10), (110, 20), (230, 5)]);
    assert_eq!(runs(9, 2), [(9, 1), (110, 1)]);
    assert_eq!(runs(29, 1), [(129, 1)]);
    assert_eq!(runs(30, 5), [(230, 5)]);
    assert_eq!(runs(35, 0), []);
    let begins_with_a_hole = Extents::from_lengths(vec![0, 7, 4]).unwrap();
    assert_eq!(begins_with_a_hole.runs_of_data(1, 3).collect::<Vec<_>>(), [(8, 3)]);
}

#[test]
fn a_file_says_how_much_of_it_is_stored() {
    let extents = || Extents::from_lengths(vec![100, 50, 200]).unwrap();
    let file = || Entry::file(b"a", 0o644, Modified::default(), extents()).unwrap();
    assert_eq!(file().stored(), 300);
    assert_eq!(file().with_stored(300), file());
    let told = file().with_stored(17);
    let manifest = Manifest::new(vec![told.clone()]).unwrap();
    assert_eq!(Manifest::decode(manifest.encoded()).unwrap().entries()[0].stored(), 17);
    assert_eq!(told.with_stored(18).stored(), 18);
    // No more than all of it, and nothing from a field of another form.
    for (value, stored) in [(u64::MAX.to_be_bytes().to_vec(), 300), (vec![1], 300), (vec![0; 8], 0)] {
        let entry = file().with_optional(vec![OptionalField { number: 0, value }]).unwrap();
        assert_eq!(entry.stored(), stored);
    }
}
