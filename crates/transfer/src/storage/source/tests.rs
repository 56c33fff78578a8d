//! Sources on a real file system, and changes of the file by other programs.

use super::*;
use crate::storage::scratch::Scratch;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::{Duration, SystemTime};

fn read_error(path: &Path) -> String {
    match FileSource::open(path) {
        Err(SourceError::Read(text)) => text,
        other => panic!("{other:?}"),
    }
}

#[test]
fn bytes_name_and_size() {
    let dir = Scratch::new();
    let bytes: Vec<u8> = (0..10_000u32).map(|i| (i % 251) as u8).collect();
    fs::write(dir.join("-a b é.iso"), &bytes).unwrap();
    let source = FileSource::open(&dir.join("-a b é.iso")).unwrap();
    assert_eq!((source.extent().size, source.name()), (10_000, "-a b é.iso"));
    let mut buf = [0; 1408];
    source.read_at(8_592, &mut buf).unwrap();
    assert_eq!(buf, bytes[8_592..]);
    let whole = source.raw(0, 10_000).unwrap();
    let tail = source.raw(8_592, 1408).unwrap();
    assert_eq!(tail.address, whole.address.wrapping_add(8_592));
    assert_eq!((whole.len, tail.len), (10_000, 1408));
    source.check().unwrap();
}

#[test]
fn an_empty_file_is_a_source() {
    let dir = Scratch::new();
    fs::write(dir.join("empty"), "").unwrap();
    let source = FileSource::open(&dir.join("empty")).unwrap();
    assert_eq!(source.extent().size, 0);
    source.read_at(0, &mut []).unwrap();
    assert_eq!(source.raw(0, 0).unwrap().len, 0);
    source.check().unwrap();
    assert!(matches!(source.read_at(0, &mut [0]), Err(SourceError::Changed(_))));
}

#[test]
#[should_panic(expected = "outside a source of 3")]
fn raw_bytes_outside_the_file_are_a_bug() {
    let dir = Scratch::new();
    fs::write(dir.join("x"), "abc").unwrap();
    FileSource::open(&dir.join("x")).unwrap().raw(2, 2);
}

#[test]
fn a_file_that_shrinks_is_an_error_and_no_signal() {
    let dir = Scratch::new();
    let path = dir.join("x");
    fs::write(&path, vec![1; 1 << 20]).unwrap();
    let source = FileSource::open(&path).unwrap();
    File::options().write(true).open(&path).unwrap().set_len(4096).unwrap();
    let mut buf = [0; 4096];
    source.read_at(0, &mut buf).unwrap();
    for result in [source.read_at(1, &mut buf), source.read_at(1 << 19, &mut buf), source.check()] {
        match result {
            Err(SourceError::Changed(text)) => assert!(text.contains("/x shrank while"), "{text}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_file_that_grows_or_is_rewritten_has_changed() {
    let dir = Scratch::new();
    let path = dir.join("x");
    fs::write(&path, "abc").unwrap();
    let source = FileSource::open(&path).unwrap();
    fs::write(&path, "abcd").unwrap();
    assert!(matches!(source.check(), Err(SourceError::Changed(_))));

    fs::write(&path, "abc").unwrap();
    let source = FileSource::open(&path).unwrap();
    source.check().unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    file.set_modified(SystemTime::now() + Duration::from_nanos(1_500)).unwrap();
    assert!(matches!(source.check(), Err(SourceError::Changed(_))));
}

#[test]
fn a_file_replaced_under_its_name_stays_open() {
    let dir = Scratch::new();
    fs::write(dir.join("x"), "old").unwrap();
    let source = FileSource::open(&dir.join("x")).unwrap();
    fs::write(dir.join("y"), "other").unwrap();
    fs::rename(dir.join("y"), dir.join("x")).unwrap();
    source.check().unwrap();
    let mut buf = [0; 3];
    source.read_at(0, &mut buf).unwrap();
    assert_eq!(&buf, b"old");
    // Other permissions or another link do not change the bytes either.
    fs::write(dir.join("z"), "abc").unwrap();
    let source = FileSource::open(&dir.join("z")).unwrap();
    fs::set_permissions(dir.join("z"), fs::Permissions::from_mode(0o400)).unwrap();
    fs::hard_link(dir.join("z"), dir.join("zz")).unwrap();
    source.check().unwrap();
}

#[test]
fn what_is_no_regular_file_is_refused_by_its_kind() {
    let dir = Scratch::new();
    assert!(read_error(dir.path()).contains("is a directory"));
    assert!(read_error(&dir.join("none")).contains("does not exist"));
    assert!(
        read_error(Path::new("/dev/null"))
            .contains("cannot be sent; send a regular file, a directory or a block device")
    );
    let pipe = dir.join("pipe");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    assert!(read_error(&pipe).contains("is a pipe"));
    if Path::new("/proc/self/status").exists() {
        assert!(read_error(Path::new("/proc/self/status")).contains("no size"));
    }
    fs::write(dir.join("secret"), "x").unwrap();
    fs::set_permissions(dir.join("secret"), fs::Permissions::from_mode(0o000)).unwrap();
    match FileSource::open(&dir.join("secret")) {
        Ok(_) => eprintln!("SKIPPED: this user reads everything"),
        Err(error) => assert!(error.to_string().contains("may not be read"), "{error}"),
    }
}

#[test]
fn names_that_receivers_refuse_are_found_at_once_and_a_link_helps() {
    let dir = Scratch::new();
    for name in ["a\nb", "trailing ", "nul.txt", "a\\b", "x.mcp-part"] {
        fs::write(dir.join(name), "x").unwrap();
        let text = read_error(&dir.join(name));
        assert!(text.contains("give another with --name"), "{text}");
        assert!(!text.contains('\n'));
    }
    symlink("a\nb", dir.join("fine")).unwrap();
    assert_eq!(FileSource::open(&dir.join("fine")).unwrap().name(), "fine");
}

#[test]
fn names_that_are_not_utf8_are_replaced_and_kept_short() {
    let dir = Scratch::new();
    let path = dir.join(OsStr::from_bytes(b"a\xffb"));
    if fs::write(&path, "x").is_err() {
        eprintln!("SKIPPED: this file system takes only UTF-8 names");
        return;
    }
    assert_eq!(FileSource::open(&path).unwrap().name(), "a\u{fffd}b");
    let long = dir.join(OsStr::from_bytes(&[0xff; 200]));
    fs::write(&long, "x").unwrap();
    assert_eq!(FileSource::open(&long).unwrap().name(), "\u{fffd}".repeat(85));
}

#[test]
fn what_is_left_behind_can_be_read_and_sent_again() {
    let dir = Scratch::new();
    let bytes: Vec<u8> = (0..300_000_u32).map(|i| (i % 249) as u8).collect();
    std::fs::write(dir.join("x"), &bytes).unwrap();
    let mut source = FileSource::open(&dir.join("x")).unwrap();
    assert!(!source.large);
    source.large = true;
    // Beyond the end, unaligned, and aligned like blocks.
    for (offset, len) in [(0, 1 << 20), (u64::MAX, 2), (100, 100), (0, 65_536), (65_536, 234_464)] {
        source.leave_behind(offset, len);
        let mut read = vec![0; 300_000];
        source.read_at(0, &mut read).unwrap();
        assert!(read == bytes, "{offset} {len}");
    }
}
