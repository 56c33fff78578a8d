use super::*;

const TIME: Modified = Modified { seconds: 1_700_000_000, nanoseconds: 123_456_789 };

fn entry(path: &str, size: u64) -> Entry {
    Entry::file(path.as_bytes(), 0o644, TIME, Extents::solid(size)).unwrap()
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
    assert!(file.extents().is_solid());
}

#[test]
fn holes_optional_fields_and_times_before_1970_come_through() {
    let extents = Extents::from_lengths(vec![0, 4096, 100, 1 << 40]).unwrap();
    let early = Modified { seconds: -1, nanoseconds: 999_999_999 };
    let field = |number, value: &[u8]| OptionalField { number, value: value.to_owned() };
    let sparse = Entry::file(b"sparse", 0o7777, early, extents).unwrap();
    let sparse =
        sparse.with_optional(vec![field(0, b""), field(7, b"x"), field(u16::MAX, &[0; 300])]).unwrap();
    let manifest = Manifest::new(vec![entry("a/b", 0), sparse]).unwrap();
    let again = Manifest::decode(manifest.encoded()).unwrap();
    assert_eq!(again, manifest);
    assert_eq!(again.single(), None);
    let found: Vec<Extent> = again.entries()[1].extents().iter().collect();
    let extent = |kind, start, len| Extent { kind, start, len };
    assert_eq!(
        found,
        [
            extent(ExtentKind::Hole, 0, 4096),
            extent(ExtentKind::Data, 4096, 100),
            extent(ExtentKind::Hole, 4196, 1 << 40)
        ]
    );
    assert_eq!(again.entries()[0].extents().iter().count(), 0);
    assert_eq!(again.content_size(), (1 << 40) + 4196);
    assert_eq!(Manifest::new(vec![entry("a/b", 1)]).unwrap().single(), None, "it is in a directory");
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
        ("82 01 a6 00 41 61 01 01 02 05 03 00 04 82 00 00 06 00", "a field that is not known"),
        ("82 01 a6 00 41 61 01 01 02 05 03 00 04 82 00 00 20 00", "an optional field that is no bytes"),
        ("82 01 a5 00 41 61 01 02 02 05 03 00 04 82 00 00", "another kind"),
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
    let entries = |count| (0..count).map(|i| entry(&format!("{i:0250}"), 1)).collect::<Vec<_>>();
    assert!(Manifest::new(entries(200)).is_ok());
    assert!(matches!(Manifest::new(entries(300)), Err(ManifestError::TooLarge(_))));
    assert_eq!(
        Manifest::decode(&[0; MAX_MANIFEST_OBJECT + 1]),
        Err(ManifestError::TooLarge(MAX_MANIFEST_OBJECT + 1))
    );
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
