use super::*;
use crate::content::{Entry, EntryKind, Extents, Manifest, Modified, Placement};
use crate::storage::scratch::Scratch;
use crate::storage::{FileSink, Found, Part, Sink, SinkError, Source, SourceError};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

const BLOCK_LOG2: u8 = 12;

/// A tree as bytes of an object.
struct Object {
    shape: TreeShape,
    name: String,
    bytes: Vec<u8>,
}

impl Object {
    fn of(source: &TreeSource) -> Self {
        let mut bytes = vec![0; source.extent().size as usize];
        source.read_at(0, &mut bytes).unwrap();
        let shape =
            TreeShape { size: source.extent().size, block_log2: source.block_log2(), head: source.head() };
        Self { shape, name: source.name().to_owned(), bytes }
    }

    /// A tree that only somebody else would send.
    fn forged(entries: Vec<Entry>, payload: &[u8]) -> Self {
        let manifest = Manifest::new(entries).unwrap();
        let placement = Placement::new(&manifest, BLOCK_LOG2).unwrap();
        let mut bytes = manifest.encoded().to_vec();
        bytes.resize(placement.size() as usize, 0);
        let at = (placement.payload() as usize).min(bytes.len());
        let len = payload.len().min(bytes.len() - at);
        bytes[at..at + len].copy_from_slice(&payload[..len]);
        let head = TreeHead::of(&manifest, true);
        let name = String::from_utf8_lossy(manifest.entries()[0].path()).into_owned();
        Self { shape: TreeShape { size: placement.size(), block_log2: BLOCK_LOG2, head }, name, bytes }
    }

    fn open(&self, sink: &mut FileSink) -> Result<Box<dyn Part>, SinkError> {
        sink.create_tree(&self.name, &self.shape)
    }

    /// The bytes from the first block behind the manifest on.
    fn payload(&self) -> usize {
        (self.shape.head.manifest as usize).next_multiple_of(1 << self.shape.block_log2).min(self.bytes.len())
    }

    fn write(&self, part: &dyn Part, from: usize, to: usize) {
        let step = 1 << self.shape.block_log2;
        for at in (from..to.min(self.bytes.len())).step_by(step) {
            part.write_through(at as u64, &self.bytes[at..self.bytes.len().min(at + step)]).unwrap();
        }
    }

    /// Receives all of it.
    fn receive(&self, sink: &mut FileSink) -> Result<PathBuf, SinkError> {
        let part = self.open(sink)?;
        self.write(&*part, 0, self.payload());
        let arranged = part.arrange().inspect_err(|_| part.discard());
        arranged?;
        self.write(&*part, self.payload(), self.bytes.len());
        part.commit()
    }
}

fn sink(dir: &Path, options: TreeOptions) -> FileSink {
    FileSink::new(Some(dir.to_owned()), options.force).trees(options, None).unwrap()
}

fn plain(dir: &Path) -> FileSink {
    sink(dir, TreeOptions::default())
}

fn send(path: &Path) -> TreeSource {
    TreeSource::open(&[path.to_owned()], None, false).unwrap()
}

/// Path, kind, mode, time, and content or target of everything below `dir`.
fn look(dir: &Path) -> BTreeMap<Vec<u8>, (u32, i64, i64, Vec<u8>)> {
    fn walk(dir: &Path, below: &Path, found: &mut BTreeMap<Vec<u8>, (u32, i64, i64, Vec<u8>)>) {
        let mut at = vec![below.to_owned()];
        if fs::symlink_metadata(dir.join(below)).unwrap().is_dir() {
            for entry in fs::read_dir(dir.join(below)).unwrap() {
                walk(dir, &below.join(entry.unwrap().file_name()), found);
            }
        }
        for path in at.drain(..) {
            let full = dir.join(&path);
            let meta = fs::symlink_metadata(&full).unwrap();
            let content = if meta.is_symlink() {
                fs::read_link(&full).unwrap().into_os_string().into_vec()
            } else if meta.is_file() {
                fs::read(&full).unwrap()
            } else {
                Vec::new()
            };
            let key = path.as_os_str().as_bytes().to_owned();
            found.insert(key, (meta.mode(), meta.mtime(), meta.mtime_nsec(), content));
        }
    }
    let mut found = BTreeMap::new();
    walk(dir, Path::new("."), &mut found);
    found
}

/// A tree with everything that needs no rights.
fn make_sample(dir: &Path) {
    let write = |name: &[u8], len: usize| {
        let bytes: Vec<u8> = (0..len).map(|i| (i % 251) as u8 ^ name[0]).collect();
        fs::write(dir.join(std::ffi::OsStr::from_bytes(name)), bytes).unwrap();
    };
    fs::create_dir_all(dir.join("sub/deep/er")).unwrap();
    fs::create_dir(dir.join("empty")).unwrap();
    fs::create_dir(dir.join("sub-1")).unwrap();
    for (name, len) in [
        (&b"small"[..], 10),
        (b"none", 0),
        (b"large", (3 << 20) + 17),
        (b"block", 1 << 20),
        (b"aux.c", 100),
        (b"back\\slash", 5),
        (b"new\nline", 6),
        (b"not-\xff-utf8", 7),
        (b" blank ", 8),
        (b"sub/x", 300_000),
        (b"sub/y", 900_000),
        (b"sub/deep/er/z", 1),
        (b"sub-1/a", 2),
    ] {
        write(name, len);
    }
    let sparse = fs::File::create(dir.join("sparse")).unwrap();
    sparse.set_len(64 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, &[7; 5000], 20 << 20).unwrap();
    symlink("small", dir.join("link")).unwrap();
    symlink("/etc/passwd", dir.join("sub/absolute")).unwrap();
    symlink("../../..", dir.join("sub/up")).unwrap();
    fs::hard_link(dir.join("small"), dir.join("sub/hard")).unwrap();
    fs::set_permissions(dir.join("small"), fs::Permissions::from_mode(0o444)).unwrap();
    fs::set_permissions(dir.join("sub/x"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::set_permissions(dir.join("empty"), fs::Permissions::from_mode(0o555)).unwrap();
    let old = std::time::UNIX_EPOCH + std::time::Duration::new(1_000_000_000, 123_456_789);
    for name in ["small", "sub", "sub/deep", "."] {
        fs::File::open(dir.join(name)).unwrap().set_modified(old).unwrap();
    }
}

/// Two scratch directories, the sample tree `lab` in the first one, and its object.
fn sample() -> (Scratch, Scratch, PathBuf, Object) {
    let (from, to) = (Scratch::new(), Scratch::new());
    let tree = from.join("lab");
    fs::create_dir(&tree).unwrap();
    make_sample(&tree);
    let object = Object::of(&send(&tree));
    (from, to, tree, object)
}

fn error(result: Result<PathBuf, SinkError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn a_tree_arrives_as_it_was() {
    let (_from, to, tree, object) = sample();
    assert!(object.bytes.len() < 8 << 20, "holes are not sent");
    assert_eq!(object.receive(&mut plain(to.path())).unwrap(), to.join("lab"));
    assert_eq!(look(&tree), look(&to.join("lab")));
    let meta = |path: PathBuf| fs::metadata(path).unwrap();
    assert_eq!(meta(to.join("lab/small")).ino(), meta(to.join("lab/sub/hard")).ino());
    assert!(meta(to.join("lab/sparse")).blocks() * 512 < 1 << 20);
    assert_eq!(to.names(), ["lab"], "nothing else is left");
    // It is found to be the same, until something is different.
    let whole = |sink: &mut FileSink| match sink.probe_tree(&object.name, &object.shape) {
        Found::Whole(part) => {
            let mut bytes = vec![0; object.bytes.len()];
            part.read_at(0, &mut bytes).unwrap();
            part.commit().unwrap();
            bytes == object.bytes
        }
        _ => false,
    };
    assert!(whole(&mut plain(to.path())));
    fs::write(to.join("lab/aux.c"), [0; 100]).unwrap();
    assert!(!whole(&mut plain(to.path())));
    // It is not replaced, unless that is wanted.
    let text = error(object.receive(&mut plain(to.path())));
    assert!(text.contains("lab exists already; use --force to replace it, or --merge"), "{text}");
    let force = TreeOptions { force: true, ..TreeOptions::default() };
    object.receive(&mut sink(to.path(), force)).unwrap();
    assert_eq!((look(&tree) == look(&to.join("lab")), to.names()), (true, vec!["lab".to_owned()]));
    // Under another name.
    assert_eq!(object.receive(&mut plain(&to.join("other"))).unwrap(), to.join("other"));
    assert_eq!(look(&tree), look(&to.join("other")));
}

#[test]
fn several_files_get_their_own_names() {
    let (from, to) = (Scratch::new(), Scratch::new());
    fs::create_dir_all(from.join("d/e")).unwrap();
    fs::write(from.join("d/e/f"), "f").unwrap();
    fs::write(from.join("b"), vec![1; 2 << 20]).unwrap();
    fs::write(from.join("a"), "a").unwrap();
    let paths = [from.join("b"), from.join("d/"), from.join("a")];
    let source = TreeSource::open(&paths, None, false).unwrap();
    assert_eq!(source.name(), "b and 2 more");
    let object = Object::of(&source);
    assert_eq!(object.receive(&mut plain(to.path())).unwrap(), to.path());
    assert_eq!(look(from.path()).keys().collect::<Vec<_>>(), look(to.path()).keys().collect::<Vec<_>>());
    assert_eq!(fs::read(to.join("b")).unwrap(), vec![1; 2 << 20]);
    // What is in place is taken from there, and stays; what is missing is added.
    let inode = |name: &str| fs::metadata(to.join(name)).unwrap().ino();
    let before = ["b", "d", "d/e/f"].map(inode);
    fs::remove_file(to.join("a")).unwrap();
    let again = |sink: &mut FileSink| {
        assert!(matches!(sink.probe_tree(&object.name, &object.shape), Found::Part) == to.join("b").exists());
        let part = object.open(sink).unwrap();
        object.write(&*part, 0, object.payload());
        let held = part.arrange()?;
        let mut bytes = vec![0; object.bytes.len() - object.payload()];
        let mut taken = 0;
        for range in held {
            let at = range.start as usize - object.payload();
            part.read_earlier(range.start, &mut bytes[at..][..(range.end - range.start) as usize]).unwrap();
            taken += range.end - range.start;
        }
        object.write(&*part, object.payload(), object.bytes.len());
        part.commit().map(|_| taken)
    };
    assert_eq!(again(&mut plain(to.path())).unwrap(), (2 << 20) + 1);
    assert_eq!(
        (["b", "d", "d/e/f"].map(inode), to.names()),
        (before, ["a", "b", "d"].map(str::to_owned).to_vec())
    );
    // A file whose bytes are others is found at the end, if nothing else shows it.
    let modified = fs::metadata(to.join("b")).unwrap().modified().unwrap();
    fs::write(to.join("b"), vec![2; 2 << 20]).unwrap();
    let b = fs::File::options().write(true).open(to.join("b")).unwrap();
    b.set_modified(modified).unwrap();
    assert!(again(&mut plain(to.path())).unwrap_err().to_string().contains("b exists already"));
    b.set_modified(std::time::SystemTime::now()).unwrap();
    assert!(again(&mut plain(to.path())).unwrap_err().to_string().contains("b exists already"));
    assert_eq!(fs::read(to.join("b")).unwrap(), vec![2; 2 << 20]);
    assert!(error(object.receive(&mut plain(&to.join("new")))).contains("is no directory"));
    let force = TreeOptions { force: true, ..TreeOptions::default() };
    object.receive(&mut sink(to.path(), force)).unwrap();
    assert_eq!(to.names(), ["a", "b", "d"]);
    let same = [from.join("a"), from.join("d/e/../../a")];
    let text = TreeSource::open(&same, None, false).err().unwrap().to_string();
    assert!(text.contains("have the same name"), "{text}");
}

#[test]
fn what_comes_before_the_manifest_waits_for_it_and_an_interrupted_run_is_taken_over() {
    let (_from, to, tree, object) = sample();
    let part = object.open(&mut plain(to.path())).unwrap();
    let middle = object.payload() + (2 << 20);
    object.write(&*part, middle, object.bytes.len());
    let mut buf = vec![0; 100_000];
    part.read_at(middle as u64, &mut buf).unwrap();
    assert_eq!(buf, object.bytes[middle..][..100_000]);
    object.write(&*part, 0, object.payload());
    let held = part.arrange().unwrap();
    assert!(held.iter().any(|range| range.contains(&(middle as u64))), "{held:?}");
    part.read_at(middle as u64, &mut buf).unwrap();
    assert_eq!(buf, object.bytes[middle..][..100_000]);
    // Another receiver of the same tree beside it has its own directory.
    drop(object.open(&mut plain(to.path())).unwrap());
    assert_eq!(to.names().len(), 2);
    drop(part);
    to.await_unlocked();
    assert!(matches!(plain(to.path()).probe_tree(&object.name, &object.shape), Found::Part));
    let part = object.open(&mut plain(to.path())).unwrap();
    assert_eq!(part.next_written(0), Some(0..object.shape.size));
    object.write(&*part, 0, object.payload());
    let held = part.arrange().unwrap();
    let there = |at: usize| held.iter().any(|range| range.contains(&(at as u64)));
    assert!(there(middle) && there(object.bytes.len() - 1), "{held:?}");
    part.read_at(middle as u64, &mut buf).unwrap();
    assert_eq!(buf, object.bytes[middle..][..100_000]);
    object.write(&*part, object.payload(), middle);
    part.commit().unwrap();
    assert_eq!(look(&tree), look(&to.join("lab")));
    // What nobody takes up any more is removed.
    assert_eq!(to.names(), ["lab"]);
}

#[test]
fn discarding_removes_everything() {
    let (_from, to, _, object) = sample();
    let part = object.open(&mut plain(to.path())).unwrap();
    object.write(&*part, 0, object.payload());
    part.arrange().unwrap();
    object.write(&*part, object.payload(), object.bytes.len());
    part.discard();
    assert_eq!(to.names(), [""; 0]);
}

#[test]
fn merging_replaces_files_one_by_one_and_leaves_others() {
    let (_from, to, tree, object) = sample();
    let there = to.join("lab");
    fs::create_dir_all(there.join("sub")).unwrap();
    fs::write(there.join("sub/mine"), "mine").unwrap();
    fs::write(there.join("sub/x"), "old").unwrap();
    symlink("nowhere", there.join("link")).unwrap();
    let merge = TreeOptions { merge: true, ..TreeOptions::default() };
    object.receive(&mut sink(to.path(), merge)).unwrap();
    let mut merged = look(&there);
    assert_eq!(merged.remove(&b"./sub/mine"[..]).unwrap().3, b"mine");
    assert_eq!(merged, look(&tree));
    // Nothing is changed if something of another kind is in the way, or a link would lead elsewhere.
    let outside = Scratch::new();
    fs::remove_dir_all(there.join("sub/deep")).unwrap();
    symlink(outside.path(), there.join("sub/deep")).unwrap();
    fs::write(there.join("aux.c"), "changed").unwrap();
    let text = error(object.receive(&mut sink(to.path(), merge)));
    assert!(text.contains("sub/deep is no directory there"), "{text}");
    assert_eq!((outside.names().len(), fs::read(there.join("aux.c")).unwrap()), (0, b"changed".to_vec()));
    fs::remove_file(there.join("sub/deep")).unwrap();
    fs::create_dir(there.join("sub/deep")).unwrap();
    symlink(outside.path(), there.join("sub/deep/er")).unwrap();
    let text = error(object.receive(&mut sink(to.path(), merge)));
    assert!(text.contains("sub/deep/er"), "{text}");
    assert_eq!(outside.names().len(), 0);
    assert_eq!(to.names(), ["lab"], "no staging directory is left");
}

#[test]
fn an_earlier_tree_has_what_is_unchanged() {
    let (_from, to, tree, object) = sample();
    fs::remove_file(tree.join("block")).unwrap();
    let from_old =
        FileSink::new(Some(to.path().to_owned()), false).trees(TreeOptions::default(), Some(&tree)).unwrap();
    let mut from_old = from_old;
    let part = object.open(&mut from_old).unwrap();
    assert!(part.has_earlier());
    let mut buf = vec![0; 1 << 20];
    assert!(part.read_earlier(object.payload() as u64, &mut buf).is_err(), "its files are not known yet");
    object.write(&*part, 0, object.payload());
    let held = part.arrange().unwrap();
    let found = |at: usize| {
        let mut buf = vec![0; (1 << 20).min(object.bytes.len() - at)];
        let listed = held.iter().any(|range| range.contains(&(at as u64)));
        listed && part.read_earlier(at as u64, &mut buf).is_ok() && buf == object.bytes[at..at + buf.len()]
    };
    let blocks: Vec<bool> = (object.payload()..object.bytes.len()).step_by(1 << 20).map(found).collect();
    // The first one is `block`, and then come `large` and the packed ones.
    assert!(!blocks[0]);
    assert!(blocks[1..].iter().all(|&found| found), "{blocks:?}");
}

#[test]
fn a_changed_tree_is_named() {
    let dir = Scratch::new();
    let tree = dir.join("lab");
    fs::create_dir_all(tree.join("sub")).unwrap();
    fs::write(tree.join("a"), vec![1; 3 << 20]).unwrap();
    fs::write(tree.join("sub/b"), "b").unwrap();
    let told = |act: &dyn Fn()| {
        let source = send(&tree);
        source.compare().unwrap();
        act();
        let SourceError::Changed(text) = source.compare().unwrap_err() else { panic!("not a change") };
        text
    };
    assert!(told(&|| fs::write(tree.join("sub/new"), "").unwrap()).contains("sub/new appeared"));
    assert!(told(&|| fs::remove_file(tree.join("sub/new")).unwrap()).contains("sub/new was removed"));
    assert!(told(&|| fs::write(tree.join("sub/b"), "bb").unwrap()).contains("sub/b changed"));
    assert!(told(&|| fs::write(tree.join("zz"), "").unwrap()).contains("zz appeared"));
    assert!(told(&|| fs::remove_file(tree.join("zz")).unwrap()).contains("zz was removed"));
    // It is seen when a file is read, too.
    let source = send(&tree);
    fs::write(tree.join("a"), "shorter").unwrap();
    let error = source.read_at(1 << 20, &mut vec![0; 1 << 20]).unwrap_err();
    assert!(error.to_string().contains("a changed while it was being sent"), "{error}");
}

#[test]
fn pipes_and_sockets_are_left_out_with_a_line() {
    let dir = Scratch::new();
    let tree = dir.join("lab");
    fs::create_dir(&tree).unwrap();
    let fifo = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, tree.join("fifo"), fifo, Mode::RUSR, 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(tree.join("socket")).unwrap();
    fs::write(tree.join("x"), "x").unwrap();
    let source = send(&tree);
    assert_eq!(source.head().entries, 2);
    let lines = source.warnings();
    assert!(lines[0].ends_with("fifo is a pipe and is left out"), "{lines:?}");
    assert!(lines[1].ends_with("socket is a socket and is left out"), "{lines:?}");
    let error = TreeSource::open(&[tree.join("x"), tree.join("fifo")], None, false).err().unwrap();
    assert!(error.to_string().contains("fifo"), "{error}");
}

fn file(path: &str, size: u64) -> Entry {
    Entry::file(path.as_bytes(), 0o644, Modified::default(), Extents::solid(size)).unwrap()
}

fn entry(path: &str, kind: EntryKind) -> Entry {
    Entry::new(path.as_bytes(), kind, 0o755, Modified::default()).unwrap()
}

#[test]
fn a_manifest_that_is_not_what_was_announced_is_refused_and_nothing_is_left() {
    let to = Scratch::new();
    let sound = || Object::forged(vec![entry("t", EntryKind::Directory), file("t/a", 5000)], &[1; 5000]);
    sound().receive(&mut plain(&to.join("sound"))).unwrap();
    let refused = |change: &dyn Fn(&mut Object)| {
        let mut object = sound();
        change(&mut object);
        let result = object.receive(&mut plain(to.path()));
        assert!(matches!(result, Err(SinkError::Content(_))), "{result:?}");
        assert_eq!(to.names(), ["sound"]);
    };
    refused(&|object| object.bytes[0] ^= 1);
    refused(&|object| object.bytes[3] = 0xff);
    refused(&|object| object.shape.head.manifest -= 1);
    refused(&|object| object.shape.head.entries += 1);
    refused(&|object| object.shape.head.bytes += 1);
    refused(&|object| object.name = "another".to_owned());
    refused(&|object| {
        object.shape.size += 1;
        object.bytes.push(0);
    });
    refused(&|object| object.shape.block_log2 = 13);
    for name in ["..x\u{202e}", "con", ".t.0123456789abcdef.mcp-part"] {
        let object = Object::forged(vec![file(name, 1), file("z", 1)], b"ab");
        let result = Object { name: "set".to_owned(), ..object }.receive(&mut plain(to.path()));
        assert!(matches!(result, Err(SinkError::Content(_))), "{name:?} {result:?}");
    }
}

#[test]
fn links_of_the_tree_lead_nothing_outside() {
    let (to, outside) = (Scratch::new(), Scratch::new());
    fs::write(outside.join("victim"), "safe").unwrap();
    let path = |name: &str| outside.join(name).into_os_string().into_vec();
    // A link and a directory of one name cannot be said; a link whose target is a file is not written through.
    let object = Object::forged(
        vec![
            entry("t", EntryKind::Directory),
            Entry::new(b"t/l", EntryKind::Symlink(path("victim")), 0, Modified::default()).unwrap(),
            Entry::new(b"t/out", EntryKind::Symlink(path("")), 0, Modified::default()).unwrap(),
        ],
        b"",
    );
    object.receive(&mut plain(to.path())).unwrap();
    assert_eq!(fs::read_link(to.join("t/l")).unwrap(), outside.join("victim"));
    assert_eq!(fs::read(outside.join("victim")).unwrap(), b"safe");
    // A tree that replaces it does not follow its links when the old one is removed.
    let force = TreeOptions { force: true, ..TreeOptions::default() };
    object.receive(&mut sink(to.path(), force)).unwrap();
    // Nor does a run that takes over what another has left.
    let files = Object::forged(
        vec![entry("t", EntryKind::Directory), entry("t/l", EntryKind::Directory), file("t/l/victim", 4)],
        b"evil",
    );
    let other = to.join("second");
    fs::create_dir(&other).unwrap();
    let part = files.open(&mut plain(&other)).unwrap();
    drop(part);
    let staging = fs::read_dir(&other).unwrap().next().unwrap().unwrap().path();
    fs::create_dir(staging.join("t/t")).unwrap();
    symlink(outside.path(), staging.join("t/t/l")).unwrap();
    files.receive(&mut plain(&other)).unwrap();
    assert_eq!(fs::read(other.join("t/l/victim")).unwrap(), b"evil");
    assert_eq!(fs::read(outside.join("victim")).unwrap(), b"safe");
    assert_eq!(outside.names(), ["victim"]);
}

#[test]
fn set_id_bits_owners_and_nodes_need_archive() {
    let to = Scratch::new();
    let node = EntryKind::Device { block: false, major: 1, minor: 3 };
    let owner = Some(crate::content::Owner { user: 12_345, group: 23_456 });
    let mode = |path: &str, mode| {
        Entry::file(path.as_bytes(), mode, Modified::default(), Extents::solid(0)).unwrap().with_owner(owner)
    };
    let entries = vec![entry("t", EntryKind::Directory), mode("t/a", 0o6755), entry("t/null", node)];
    let object = Object::forged(entries, b"");
    object.receive(&mut plain(&to.join("plain"))).unwrap();
    let meta = |path: &str| fs::symlink_metadata(to.join(path)).unwrap();
    assert_eq!(meta("plain/a").mode() & 0o7000, 0);
    assert_eq!(meta("plain/a").uid(), rustix::process::geteuid().as_raw());
    assert!(!to.join("plain/null").exists());
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: owners need root");
        return;
    }
    let archive = TreeOptions { archive: true, ..TreeOptions::default() };
    object.receive(&mut sink(&to.join("archive"), archive)).unwrap();
    let (a, null) = (meta("archive/a"), meta("archive/null"));
    assert_eq!((a.mode() & 0o7777, a.uid(), a.gid()), (0o6755, 12_345, 23_456));
    assert_eq!((null.rdev(), null.mode() & 0o7777), (rustix::fs::makedev(1, 3), 0o755));
}

#[test]
fn what_is_mounted_is_not_replaced() {
    let Some(mounted) = Scratch::mounted("size=16m") else { return };
    fs::create_dir(mounted.join("x")).unwrap();
    let dir = mounted.path().parent().unwrap();
    let name = mounted.path().file_name().unwrap().to_str().unwrap();
    let object = Object::forged(vec![entry(name, EntryKind::Directory)], b"");
    let force = TreeOptions { force: true, ..TreeOptions::default() };
    let text = error(object.receive(&mut sink(dir, force)));
    assert!(text.contains("is mounted"), "{text}");
    assert_eq!(mounted.names(), ["x"]);
}

#[test]
fn a_block_that_was_stored_in_part_can_be_read_back() {
    let (from, to) = (Scratch::new(), Scratch::new());
    fs::create_dir(from.join("lab")).unwrap();
    fs::write(from.join("lab/a"), [1; 5000]).unwrap();
    let object = Object::of(&send(&from.join("lab")));
    let part = object.open(&mut plain(to.path())).unwrap();
    part.write_at(0, &object.bytes[..7]).unwrap();
    let mut block = vec![9; object.bytes.len()];
    part.read_back(0, &mut block).unwrap();
    assert!(block[..7] == object.bytes[..7] && block[7..].iter().all(|&byte| byte == 0));
}

#[test]
fn zeros_become_holes() {
    let (from, to) = (Scratch::new(), Scratch::new());
    let lab = from.join("lab");
    fs::create_dir(&lab).unwrap();
    // Dense at the sender: one that ends with zeros, one with zeros in its middle, and small ones.
    let mut middle = vec![0; 5 << 20];
    (middle[9], middle[(4 << 20) + 3]) = (1, 1);
    let files =
        [("zeros", vec![0; (4 << 20) + 100]), ("middle", middle), ("small", vec![0; 9]), ("a", vec![1; 7])];
    for (name, bytes) in &files {
        fs::write(lab.join(name), bytes).unwrap();
    }
    let object = Object::of(&send(&lab));
    let part = object.open(&mut plain(to.path())).unwrap();
    object.write(&*part, 0, object.payload());
    part.arrange().unwrap();
    for at in (object.payload()..object.bytes.len()).step_by(1 << object.shape.block_log2) {
        let block = &object.bytes[at..object.bytes.len().min(at + (1 << object.shape.block_log2))];
        if block.iter().all(|&byte| byte == 0) {
            part.write_zeros(at as u64, block.len() as u64).unwrap();
        } else {
            part.write_through(at as u64, block).unwrap();
        }
    }
    part.commit().unwrap();
    assert_eq!(look(&lab), look(&to.join("lab")));
    let stored = |name: &str| fs::metadata(to.join("lab").join(name)).unwrap().blocks() * 512;
    assert!(
        stored("zeros") <= 64 << 10 && stored("middle") < 3 << 20,
        "{} {}",
        stored("zeros"),
        stored("middle")
    );
    // What an earlier run has left is zeros afterwards, too.
    let file = fs::File::create_new(to.join("old")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[7; 300_000], 0).unwrap();
    for (offset, len) in [(10, 70_000), (100_000, 10), (250_000, 90_000)] {
        super::plan::make_hole(&file, offset, len).unwrap();
    }
    let now = fs::read(to.join("old")).unwrap();
    let zeros = |at: usize| matches!(at, 10..70_010 | 100_000..100_010 | 250_000..340_000);
    assert_eq!(now.len(), 340_000);
    assert!(now.iter().enumerate().all(|(at, &byte)| byte == if zeros(at) { 0 } else { 7 }));
}

/// A small tree with something of each kind.
fn small_sample(dir: &Path, mark: u8) {
    fs::create_dir_all(dir.join("sub/deep")).unwrap();
    fs::write(dir.join("a"), [mark; 5000]).unwrap();
    fs::write(dir.join("sub/b"), [mark; 10]).unwrap();
    fs::write(dir.join("none"), "").unwrap();
    symlink("a", dir.join("sub/link")).unwrap();
    fs::hard_link(dir.join("a"), dir.join("sub/deep/hard")).unwrap();
    let sparse = fs::File::create(dir.join("sparse")).unwrap();
    sparse.set_len(1 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, &[mark; 100], 500_000).unwrap();
}

/// What a run does: it takes what is there for the object, or receives all of it.
fn run(object: &Object, sink: &mut FileSink) -> Result<PathBuf, SinkError> {
    match sink.probe_tree(&object.name, &object.shape) {
        Found::Whole(part) => {
            let mut bytes = vec![0; object.bytes.len()];
            part.read_at(0, &mut bytes)?;
            assert!(bytes == object.bytes, "it is another one");
            part.commit()
        }
        _ => {
            let part = object.open(sink)?;
            let write = |from, to| {
                let bytes = &object.bytes[from..to];
                part.write_through(from as u64, bytes)
            };
            let received = write(0, object.payload())
                .and_then(|()| part.arrange().map(drop))
                .and_then(|()| write(object.payload(), object.bytes.len()));
            received.inspect_err(|_| part.discard())?;
            part.commit()
        }
    }
}

/// Lets each step of receiving a tree fail, and the program die before each. `existing` has the name before.
fn at_each_step(existing: bool, options: TreeOptions) {
    let (from, old) = (Scratch::new(), Scratch::new());
    small_sample(&from.join("lab"), 7);
    small_sample(&old.join("lab"), 8);
    let (object, before) = (Object::of(&send(&from.join("lab"))), Object::of(&send(&old.join("lab"))));
    let contents = |dir: &Path| -> BTreeMap<_, _> {
        let entries = look(dir).into_iter();
        entries.map(|(path, (mode, .., content))| (path, (mode & libc::S_IFMT, content))).collect()
    };
    let (new, old) = (contents(&from.join("lab")), contents(&old.join("lab")));
    for fault in [steps::Fault::Death, steps::Fault::Error(libc::EIO), steps::Fault::Error(libc::ENOSPC)] {
        let mut published = 0;
        for nth in 0.. {
            let to = Scratch::new();
            if existing {
                before.receive(&mut plain(to.path())).unwrap();
            }
            steps::fail(Some((nth, fault)));
            let done = run(&object, &mut sink(to.path(), options));
            let steps = steps::taken();
            steps::fail(None);
            let about = format!("{fault:?} at step {nth} of {steps}: {done:?}");
            let names = to.names();
            let there = to.join("lab").exists().then(|| contents(&to.join("lab")));
            let whole = there.as_ref() == Some(&new);
            assert!(whole || there.as_ref() == existing.then_some(&old), "{about}: {names:?}");
            assert!(whole || done.is_err(), "{about}");
            published += u32::from(whole);
            if fault == steps::Fault::Death {
                // The next run completes it, and leaves nothing behind.
                to.await_unlocked();
                let next = run(&object, &mut sink(to.path(), options));
                next.unwrap_or_else(|error| panic!("{about}, and then {error}"));
                assert!(contents(&to.join("lab")) == new, "{about}");
                assert_eq!(to.names(), ["lab"], "{about}");
            } else {
                // What could not be removed is named.
                let part = names.iter().any(|name| name != "lab");
                assert!(!part || done.is_ok(), "{about}: {names:?}");
            }
            if steps <= nth {
                assert!(done.is_ok() && nth > 30, "{about}");
                break;
            }
        }
        assert!(published > 1, "{fault:?}");
    }
}

#[test]
fn a_fault_at_any_step_leaves_a_whole_tree_or_none() {
    at_each_step(false, TreeOptions::default());
}

#[test]
fn a_fault_at_any_step_leaves_the_new_tree_or_the_old_one() {
    at_each_step(true, TreeOptions { force: true, ..TreeOptions::default() });
}
