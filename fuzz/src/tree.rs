//! Any manifest of a tree, written into a directory: nothing appears outside, what is refused leaves nothing, and what
//! is accepted is there. Several trees come one after the other, and may find what an interrupted one has left.

use super::scratch::Scratch;
use mcp::content::{Entry, EntryKind, Extents, Manifest, Modified, Owner, Placement, TreeHead, Xattr};
use mcp::storage::{FileSink, Part, Sink, TreeOptions, TreeShape};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// Larger objects are not made.
const MAX_BYTES: u64 = 1 << 20;
const BLOCK: u8 = 10;
/// Names that meet each other.
const NAMES: [&[u8]; 8] = [b"t", b"a", b"b", b"A", b"a-1", b"\xff\n\\", b"link", b"out"];

/// The input is a list of trees, separated by 0xff 0xff. Of each, the first byte says how it is received, and the second
/// one how its manifest is given: its encoding, or what entries are made of.
///
/// # Panics
/// When something appears where it must not.
pub fn fuzz_tree(bytes: &[u8]) {
    let scratch = Scratch::new();
    let (out, outside) = (scratch.join("out"), scratch.join("outside"));
    fs::create_dir(&out).expect("room");
    fs::create_dir(&outside).expect("room");
    fs::write(outside.join("a"), "untouched").expect("room");
    let mut rest = bytes;
    for _ in 0..4 {
        let end = rest.windows(2).position(|pair| pair == [0xff, 0xff]);
        let (one, behind) = rest.split_at(end.unwrap_or(rest.len()));
        receive(one, &out, &outside);
        let listed: Vec<_> =
            fs::read_dir(&outside).expect("there").flatten().map(|e| e.file_name()).collect();
        assert_eq!(listed, ["a"]);
        assert_eq!(fs::read(outside.join("a")).expect("there"), b"untouched");
        assert_eq!(fs::read_dir(scratch.path()).expect("there").count(), 2);
        rest = behind.get(2..).unwrap_or_default();
    }
}

fn receive(bytes: &[u8], out: &Path, outside: &Path) {
    let [how, form, bytes @ ..] = bytes else { return };
    let manifest = if form & 1 == 0 {
        Manifest::decode(bytes).ok()
    } else {
        let mut entries = BTreeMap::new();
        for chunk in bytes.chunks(12) {
            if let Some(entry) = made(chunk, outside) {
                let parts: Vec<Vec<u8>> = entry.path().split(|&b| b == b'/').map(<[u8]>::to_vec).collect();
                entries.insert(parts, entry);
            }
        }
        Manifest::new(entries.into_values().collect()).ok()
    };
    let Some(manifest) = manifest else { return };
    let Ok(placement) = Placement::new(&manifest, BLOCK) else { return };
    let sizes = manifest.content_size();
    if placement.size() > MAX_BYTES || sizes > 1 << 40 || manifest.entries().is_empty() {
        return;
    }
    if how & 0x80 != 0 {
        // A link in the way.
        let _ = symlink(outside, out.join("t"));
    }
    let mut object = manifest.encoded().to_vec();
    object.resize(placement.size() as usize, 0);
    placement.files().iter().for_each(|file| {
        object[file.start as usize..(file.start + file.len) as usize].fill(file.entry as u8 | 1);
    });
    let head = TreeHead::of(&manifest, form & 2 != 0);
    let shape = TreeShape { size: placement.size(), block_log2: BLOCK, head };
    let top = String::from_utf8_lossy(manifest.entries()[0].path()).into_owned();
    let name = if head.tops == 1 { top } else { "t".to_owned() };
    let options = TreeOptions { force: how & 1 != 0, merge: how & 2 != 0, archive: how & 4 != 0 };
    let sink = FileSink::new(Some(out.to_owned()), options.force);
    let mut sink = sink.trees(options, (how & 8 != 0).then_some(out)).expect("a directory");
    let _ = sink.probe_tree(&name, &shape);
    let parts = || fs::read_dir(out).expect("there").flatten().filter(|e| is_part(&e.path())).count();
    let before = parts();
    let Ok(part) = sink.create_tree(&name, &shape) else { return };
    match write(&*part, &object, &placement, *how) {
        Some(path) => {
            assert!(path.starts_with(out), "{path:?}");
            assert!(parts() <= before, "a part is left");
            check(&manifest, &path, head.tops == 1, options);
        }
        None if how & 0x40 != 0 => drop(part),
        None => {
            part.discard();
            assert!(parts() <= before, "a part is left");
        }
    }
}

fn is_part(path: &Path) -> bool {
    path.to_string_lossy().ends_with(".mcp-part")
}

/// Writes the object in some order. `None` if it is refused, or broken off.
fn write(part: &dyn Part, object: &[u8], placement: &Placement, how: u8) -> Option<PathBuf> {
    let payload = (placement.payload() as usize).min(object.len());
    let step = 1 << BLOCK;
    let blocks = |from: usize, to: usize| {
        (from..to)
            .step_by(step)
            .try_for_each(|at| part.write_through(at as u64, &object[at..object.len().min(at + step)]))
    };
    // The last blocks may come before the manifest.
    let early =
        if how & 0x10 == 0 { object.len() } else { payload.max(object.len() / 2).next_multiple_of(step) };
    blocks(early.min(object.len()), object.len()).ok()?;
    blocks(0, payload).ok()?;
    part.arrange().ok()?;
    if how & 0x20 != 0 {
        return None;
    }
    blocks(payload, early.min(object.len())).ok()?;
    let mut back = vec![0; object.len() - payload];
    part.read_at(payload as u64, &mut back).expect("what was written");
    assert!(back == object[payload..], "what was written is something else");
    part.commit().ok()
}

/// Checks that all is there.
fn check(manifest: &Manifest, path: &Path, single: bool, options: TreeOptions) {
    for entry in manifest.entries() {
        let below = entry.path();
        let below = match below.iter().position(|&byte| byte == b'/') {
            Some(at) if single => &below[at + 1..],
            None if single => b"",
            _ => below,
        };
        let full =
            if below.is_empty() { path.to_owned() } else { path.join(std::ffi::OsStr::from_bytes(below)) };
        let Ok(meta) = fs::symlink_metadata(&full) else {
            assert!(
                matches!(entry.kind(), EntryKind::Device { .. }) && !options.archive,
                "{full:?} is missing"
            );
            continue;
        };
        match entry.kind() {
            EntryKind::File(extents) => assert!(meta.is_file() && meta.len() == extents.size()),
            EntryKind::Directory => assert!(meta.is_dir()),
            EntryKind::Symlink(_) => assert!(meta.is_symlink()),
            EntryKind::HardLink(_) => assert!(meta.is_file()),
            EntryKind::Device { .. } => assert!(options.archive || options.merge || options.force),
        }
    }
}

/// An entry made of 12 bytes.
fn made(bytes: &[u8], outside: &Path) -> Option<Entry> {
    let [kind, depth, a, b, c, mode, rest @ ..] = bytes else { return None };
    let parts = [a, b, c].map(|&n| NAMES[usize::from(n % 8)]);
    let path = parts[..usize::from(depth % 3) + 1].join(&b'/');
    let number = |at: usize| u64::from(rest.get(at).copied().unwrap_or(0));
    let kind = match kind % 8 {
        0..=2 => {
            let lengths = vec![number(0) * 9, number(1) * 4096, number(2) * 33];
            let solid = Extents::solid(number(0) * 17);
            EntryKind::File(
                Extents::from_lengths(lengths).ok().filter(|_| number(3) & 1 == 1).unwrap_or(solid),
            )
        }
        3 | 4 => EntryKind::Directory,
        5 => EntryKind::Symlink(match number(0) % 3 {
            0 => outside.as_os_str().as_bytes().to_vec(),
            1 => b"../../outside/a".to_vec(),
            _ => b"a".to_vec(),
        }),
        6 => EntryKind::HardLink(number(0) as u32),
        // The null device.
        _ => EntryKind::Device { block: false, major: 1, minor: 3 },
    };
    if matches!(kind, EntryKind::HardLink(_)) {
        return Entry::new(&path, kind, 0, Modified::default()).ok();
    }
    let mode = if matches!(kind, EntryKind::Symlink(_)) { 0 } else { u16::from(*mode) << 3 | 0o400 };
    let modified = Modified { seconds: number(4) as i64 - 99, nanoseconds: 7 };
    let entry = Entry::new(&path, kind, mode, modified).ok()?;
    let owner = (number(5) & 1 == 1).then_some(Owner { user: 1234, group: 1234 });
    let note = Xattr { name: b"user.note".to_vec(), value: vec![7; 3] };
    let xattrs = if number(5) & 2 == 2 { vec![note] } else { Vec::new() };
    entry.with_owner(owner).with_xattrs(xattrs).ok()
}
