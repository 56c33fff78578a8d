//! Any bytes as a manifest: what is accepted is the one encoding of what it says, and leads nowhere it must not.
//! And any entries: what can be said comes through.

use mcp::content::{Entry, Extents, Manifest, Modified, OptionalField};
use mcp::limits::{MAX_MANIFEST, MAX_MANIFEST_OBJECT, MAX_OBJECT_SIZE};

/// The first byte says what the rest is: an encoding, or what entries are made of.
///
/// # Panics
/// When a manifest is not what it should be.
pub fn fuzz_manifest(bytes: &[u8]) {
    let Some((&choice, bytes)) = bytes.split_first() else { return };
    if choice & 1 == 0 {
        if let Ok(manifest) = Manifest::decode(bytes) {
            assert_eq!(manifest.encoded(), bytes);
            check(&manifest);
        }
    } else if let Ok(manifest) = Manifest::new(bytes.chunks(48).filter_map(entry).collect()) {
        check(&manifest);
        assert_eq!(Manifest::decode(manifest.encoded()).as_ref(), Ok(&manifest));
    }
}

/// An entry made of these bytes, if they are good for one.
fn entry(bytes: &[u8]) -> Option<Entry> {
    let (mode, rest) = bytes.split_first_chunk()?;
    let (seconds, rest) = rest.split_first_chunk()?;
    let (nanoseconds, rest) = rest.split_first_chunk()?;
    let (&counts, rest) = rest.split_first()?;
    let (lengths, rest) = rest.split_at_checked(usize::from(counts >> 5))?;
    let (fields, path) = rest.split_at_checked(usize::from(counts & 3))?;
    let modified =
        Modified { seconds: i64::from_be_bytes(*seconds), nanoseconds: u32::from_be_bytes(*nanoseconds) };
    let lengths = lengths.iter().map(|&log2| 1_u64.checked_shl(u32::from(log2)).unwrap_or(0)).collect();
    let extents = Extents::from_lengths(lengths).ok()?;
    let entry = Entry::file(path, u16::from_be_bytes(*mode), modified, extents).ok()?;
    let fields =
        fields.iter().map(|&n| OptionalField { number: u16::from(n) * 257, value: vec![n; n.into()] });
    entry.with_optional(fields.collect()).ok()
}

fn check(manifest: &Manifest) {
    assert!(manifest.encoded().len() <= MAX_MANIFEST_OBJECT && manifest.content_size() <= MAX_OBJECT_SIZE);
    assert_eq!(manifest.digest().0, *blake3::hash(manifest.encoded()).as_bytes());
    assert!(manifest.entries().windows(2).all(|pair| pair[0].path() < pair[1].path()));
    for entry in manifest.entries() {
        let mut next = 0;
        let mut before = None;
        for extent in entry.extents().into_iter().flat_map(Extents::iter) {
            assert!(extent.len > 0 && extent.start == next && before != Some(extent.kind));
            next = extent.start + extent.len;
            before = Some(extent.kind);
        }
        assert_eq!(next, entry.size());
        let sound = |part: &[u8]| !part.is_empty() && part != b"." && part != b".." && part.len() <= 255;
        assert!(entry.path().split(|&byte| byte == b'/').all(sound) && !entry.path().contains(&0));
    }
    if let Some(file) = manifest.single()
        && file.optional().is_empty()
        && file.extents().is_some_and(Extents::is_solid)
    {
        assert!(!file.path().contains(&b'/') && manifest.encoded().len() <= MAX_MANIFEST);
    }
}
