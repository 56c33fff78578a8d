//! Part files on real file systems: the content of the directory after each ending.

use super::*;
use crate::storage::scratch::Scratch;
use crate::storage::{FileSink, Found, Sink};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

fn into(dir: &Path, force: bool) -> FileSink {
    FileSink::new(Some(dir.to_owned()), force)
}

fn create(output: &Path, force: bool, name: &str, size: u64) -> Result<Box<dyn Part>, SinkError> {
    FileSink::new(Some(output.to_owned()), force).create(name, Extent::sealed(size))
}

/// The text of an error about names.
fn name_error<T>(result: Result<T, SinkError>) -> String {
    match result {
        Err(SinkError::Name(text)) => text,
        Err(SinkError::Disk(text) | SinkError::Command(text) | SinkError::Content(text)) => {
            panic!("a disk error: {text}")
        }
        Ok(_) => panic!("not refused"),
    }
}

/// The text of an error about the disk.
fn disk_error<T>(result: Result<T, SinkError>) -> String {
    match result {
        Err(SinkError::Disk(text)) => text,
        Err(SinkError::Name(text) | SinkError::Command(text) | SinkError::Content(text)) => {
            panic!("a name error: {text}")
        }
        Ok(_) => panic!("not refused"),
    }
}

#[test]
fn a_committed_object_has_its_exact_bytes_and_nothing_else_is_left() {
    let dir = Scratch::new();
    let part = create(dir.path(), false, "a b.iso", 10).unwrap();
    let names = dir.names();
    assert_eq!(names.len(), 1);
    assert!(names[0].starts_with(".a b.iso.") && names[0].ends_with(PART_SUFFIX), "{names:?}");
    assert_eq!(names[0].len(), ".a b.iso.".len() + 16 + PART_SUFFIX.len());
    assert_eq!(fs::metadata(dir.join(&names[0])).unwrap().len(), 10);
    part.write_at(5, b"56789").unwrap();
    part.write_at(0, b"01234").unwrap();
    let mut back = [0; 4];
    part.read_at(3, &mut back).unwrap();
    assert_eq!(&back, b"3456");
    assert_eq!(part.commit().unwrap(), dir.join("a b.iso"));
    drop(part);
    assert_eq!(dir.names(), ["a b.iso"]);
    assert_eq!(fs::read(dir.join("a b.iso")).unwrap(), b"0123456789");
    // Ordinary permissions, as for any new file.
    fs::write(dir.join("other"), "").unwrap();
    let mode = |name: &str| fs::metadata(dir.join(name)).unwrap().permissions().mode();
    assert_eq!(mode("a b.iso"), mode("other"));
}

#[test]
fn an_empty_object_is_an_empty_file() {
    let dir = Scratch::new();
    let part = create(dir.path(), false, "empty", 0).unwrap();
    part.commit().unwrap();
    assert_eq!(fs::read(dir.join("empty")).unwrap(), b"");
}

#[test]
fn discard_removes_the_part() {
    let dir = Scratch::new();
    let part = create(dir.path(), false, "x", 100).unwrap();
    part.discard();
    assert!(dir.names().is_empty());
    assert!(disk_error(part.write_at(0, b"late")).contains("its transfer is over"));
    assert!(disk_error(part.commit()).contains("its transfer is over"));
    drop(part);
    assert!(dir.names().is_empty());
}

#[test]
fn a_second_commit_is_refused_and_keeps_the_first() {
    let dir = Scratch::new();
    let part = create(dir.path(), false, "x", 1).unwrap();
    part.write_at(0, b"x").unwrap();
    part.commit().unwrap();
    disk_error(part.commit());
    disk_error(part.write_at(0, b"y"));
    part.discard();
    drop(part);
    assert_eq!(fs::read(dir.join("x")).unwrap(), b"x");
}

#[test]
fn writes_and_reads_outside_the_object_are_refused() {
    let dir = Scratch::new();
    let part = create(dir.path(), false, "x", 4).unwrap();
    for (offset, len) in [(0, 5), (4, 1), (u64::MAX, 1)] {
        disk_error(part.write_at(offset, &vec![0; len]));
    }
    part.write_at(4, b"").unwrap();
    disk_error(part.read_at(2, &mut [0; 3]));
}

#[test]
fn the_output_is_a_directory_or_a_file_name() {
    let dir = Scratch::new();
    fs::create_dir(dir.join("sub")).unwrap();
    let commit = |output: &Path| create(output, false, "theirs", 0).unwrap().commit().unwrap();
    assert_eq!(commit(&dir.join("sub")), dir.join("sub/theirs"));
    assert_eq!(commit(&dir.join("mine")), dir.join("mine"));
    // The rules for untrusted names do not apply to a name that the user chose.
    assert_eq!(commit(&dir.join("odd\nname ")), dir.join("odd\nname "));
    symlink(dir.join("sub"), dir.join("link")).unwrap();
    assert_eq!(create(&dir.join("link"), false, "2", 0).unwrap().commit().unwrap(), dir.join("link/2"));
    assert!(dir.join("sub/2").exists());

    let missing = dir.join("missing/");
    assert!(name_error(create(&missing, false, "x", 0)).contains("does not exist"));
    assert!(name_error(into(&missing, false).check()).contains("does not exist"));
    assert!(name_error(create(&dir.join("missing/x"), false, "x", 0)).contains("does not exist"));
    assert!(name_error(create(&dir.join("mine/x"), false, "x", 0)).contains("is not a directory"));
    assert!(name_error(create(&dir.join("mine/"), false, "x", 0)).contains("is not a directory"));
    assert!(name_error(create(&dir.join("missing/.."), false, "x", 0)).contains("neither"));
    assert!(name_error(create(Path::new(""), false, "x", 0)).contains("neither"));
    into(dir.path(), false).check().unwrap();
    into(&dir.join("new"), false).check().unwrap();
}

#[test]
fn no_output_is_the_current_directory() {
    let mut here = FileSink::new(None, false);
    here.check().unwrap();
    // Nothing is created: no file may have this name.
    name_error(here.create("../x", Extent::sealed(0)));
    name_error(here.create("", Extent::sealed(0)));
}

#[test]
fn an_existing_file_is_replaced_only_with_force() {
    let dir = Scratch::new();
    let path = dir.join("x");
    fs::write(&path, "old").unwrap();
    for text in [
        name_error(create(dir.path(), false, "x", 3)),
        name_error(create(&path, false, "theirs", 3)),
        name_error(into(&path, false).check()),
    ] {
        assert!(text.contains("/x exists already; use --force"), "{text}");
    }
    assert_eq!(dir.names(), ["x"]);
    into(&path, true).check().unwrap();
    let part = create(dir.path(), true, "x", 3).unwrap();
    part.write_at(0, b"new").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"old");
    part.commit().unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"new");
    assert_eq!(dir.names(), ["x"]);
}

#[test]
fn a_file_that_comes_into_being_meanwhile_is_kept() {
    let dir = Scratch::new();
    let part = create(dir.path(), false, "x", 3).unwrap();
    fs::write(dir.join("x"), "theirs").unwrap();
    let text = name_error(part.commit());
    assert!(text.contains("--force"), "{text}");
    assert_eq!(fs::read(dir.join("x")).unwrap(), b"theirs");
    assert_eq!(dir.names(), ["x"]);
}

#[test]
fn directories_links_and_pipes_are_not_replaced_even_with_force() {
    let dir = Scratch::new();
    fs::write(dir.join("target"), "kept").unwrap();
    symlink("target", dir.join("link")).unwrap();
    symlink("nowhere", dir.join("dangling")).unwrap();
    fs::create_dir(dir.join("dir")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        dir.join("pipe"),
        rustix::fs::FileType::Fifo,
        Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    for (name, what) in
        [("link", "symbolic link"), ("dangling", "symbolic link"), ("dir", "directory"), ("pipe", "pipe")]
    {
        for force in [false, true] {
            let text = name_error(create(dir.path(), force, name, 1));
            assert!(text.contains(what) && text.contains("is not replaced"), "{text}");
        }
    }
    assert!(name_error(create(Path::new("/dev/null"), true, "x", 1)).contains("a device"));
    // Another file takes the name during the transfer.
    let part = create(dir.path(), true, "late", 1).unwrap();
    symlink("target", dir.join("late")).unwrap();
    assert!(name_error(part.commit()).contains("symbolic link"));
    assert_eq!(fs::read(dir.join("target")).unwrap(), b"kept");
    assert_eq!(dir.names(), ["dangling", "dir", "late", "link", "pipe", "target"]);
}

#[test]
fn hostile_names_create_nothing() {
    let dir = Scratch::new();
    fs::create_dir(dir.join("in")).unwrap();
    for name in ["../x", "/tmp/x", "..", ".", "", "a/b", "a\\b", "a\0b", "a\nb", "x\u{202e}y", "nul"] {
        name_error(create(&dir.join("in"), true, name, 1));
    }
    assert!(fs::read_dir(dir.join("in")).unwrap().next().is_none());
    assert_eq!(dir.names(), ["in"]);
}

#[test]
fn names_of_every_shape_stay_in_their_directory() {
    let dir = Scratch::new();
    fs::create_dir(dir.join("in")).unwrap();
    fs::write(dir.join("file"), "kept").unwrap();
    symlink(dir.join("file"), dir.join("in/link")).unwrap();
    symlink("..", dir.join("in/up")).unwrap();
    let around = dir.names();
    // Names are made of one to three of these pieces.
    let pieces = [
        "..",
        ".",
        "/",
        "\\",
        "~",
        "\0",
        "\n",
        " ",
        "a",
        "A",
        "link",
        "up",
        "file",
        "nul",
        "C:",
        "::$DATA",
        "\u{202e}",
        "\u{ff0f}",
        "\u{2215}",
        "%2e%2e%2f",
        ".mcp-part",
    ];
    let (mut made, mut refused) = (0, 0);
    let join = |parts: &[&str]| parts.concat();
    let two = pieces.iter().flat_map(|a| pieces.map(|b| join(&[a, b])));
    let three = pieces
        .iter()
        .flat_map(|a| pieces.iter().flat_map(|b| pieces.map(|c| join(&[a, b, c]))).collect::<Vec<_>>());
    // Each name is synced, which takes time: a ninth of the names with three pieces is enough.
    for name in pieces.map(str::to_owned).into_iter().chain(two).chain(three.step_by(9)) {
        match create(&dir.join("in"), true, &name, 0) {
            Ok(part) => {
                let path = part.commit().unwrap();
                let (parent, last) = (path.parent().unwrap(), path.file_name().unwrap());
                assert_eq!((parent, last), (dir.join("in").as_path(), name.as_ref()));
                assert!(fs::symlink_metadata(&path).unwrap().is_file(), "{name:?}");
                fs::remove_file(path).unwrap();
                made += 1;
            }
            Err(error) => {
                assert!(matches!(error, SinkError::Name(_)), "{name:?}: {error}");
                assert!(!error.to_string().contains(char::is_control), "{name:?}");
                refused += 1;
            }
        }
    }
    assert!(made > 100 && refused > 500, "{made} made, {refused} refused");
    assert_eq!(dir.names(), around);
    assert_eq!(fs::read(dir.join("file")).unwrap(), b"kept");
    let mut left: Vec<_> = fs::read_dir(dir.join("in")).unwrap().map(|e| e.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["link", "up"]);
}

#[test]
fn a_name_that_differs_in_case_only_is_taken_where_case_does_not_count() {
    // Few kernels have a file system that folds case.
    let Some(disk) = Scratch::mounted("size=1m,casefold") else { return };
    fs::create_dir(disk.join("in")).unwrap();
    let folds = Command::new("chattr").arg("+F").arg(disk.join("in")).status().is_ok_and(|s| s.success());
    assert!(folds, "chattr +F");
    fs::write(disk.join("in/image.bin"), "old").unwrap();
    for name in ["IMAGE.BIN", "Image.bin"] {
        assert!(name_error(create(&disk.join("in"), false, name, 1)).contains("exists already"));
    }
    // Another file with the name is created meanwhile.
    let part = create(&disk.join("in"), false, "OTHER", 1).unwrap();
    fs::write(disk.join("in/other"), "theirs").unwrap();
    assert!(name_error(part.commit()).contains("--force"));
    assert_eq!(fs::read(disk.join("in/image.bin")).unwrap(), b"old");
    assert_eq!(fs::read(disk.join("in/other")).unwrap(), b"theirs");
}

#[test]
fn a_directory_swapped_during_the_transfer_leads_nowhere_else() {
    let dir = Scratch::new();
    fs::create_dir(dir.join("out")).unwrap();
    fs::create_dir(dir.join("elsewhere")).unwrap();
    let text = |part: Box<dyn Part>| disk_error(part.commit());
    let part = create(&dir.join("out"), false, "x", 1).unwrap();
    fs::rename(dir.join("out"), dir.join("moved")).unwrap();
    assert!(text(part).contains("/out/x: its directory is gone"));
    for replace in [true, false] {
        fs::create_dir(dir.join("out")).unwrap();
        let part = create(&dir.join("out"), replace, "x", 1).unwrap();
        fs::rename(dir.join("out"), dir.join("moved")).unwrap();
        symlink("elsewhere", dir.join("out")).unwrap();
        assert!(text(part).contains("/out/x: its directory was replaced"));
        fs::remove_file(dir.join("out")).unwrap();
    }
    fs::create_dir(dir.join("out")).unwrap();
    let part = create(&dir.join("out"), false, "x", 1).unwrap();
    fs::remove_dir_all(dir.join("out")).unwrap();
    assert!(text(part).contains("is gone"));
    assert!(!dir.join("out").exists());
    for dir in [dir.join("moved"), dir.join("elsewhere")] {
        assert!(fs::read_dir(dir).unwrap().next().is_none());
    }
    // A link that existed before is fine.
    symlink("elsewhere", dir.join("link")).unwrap();
    create(&dir.join("link"), false, "x", 1).unwrap().commit().unwrap();
    assert!(dir.join("elsewhere/x").exists());
}

#[test]
fn a_part_file_that_others_touched_is_not_committed() {
    let dir = Scratch::new();
    let part = create(dir.path(), false, "gone", 1).unwrap();
    fs::remove_file(dir.join(&dir.names()[0])).unwrap();
    assert!(disk_error(part.commit()).contains("is gone"));

    let part = create(dir.path(), false, "swapped", 1).unwrap();
    let name = dir.names().remove(0);
    fs::remove_file(dir.join(&name)).unwrap();
    fs::write(dir.join(&name), "?").unwrap();
    assert!(disk_error(part.commit()).contains("another program"));

    let part = create(dir.path(), false, "cut", 8).unwrap();
    File::options().write(true).open(dir.join(&dir.names()[0])).unwrap().set_len(4).unwrap();
    assert!(disk_error(part.commit()).contains("another program"));
    assert!(dir.names().is_empty());
}

#[test]
fn the_longest_names_fit() {
    let dir = Scratch::new();
    for name in ["x".repeat(255), format!("x{}", "é".repeat(127))] {
        let part = create(dir.path(), false, &name, 1).unwrap();
        assert!(dir.names()[0].len() <= 255);
        part.commit().unwrap();
        assert_eq!(dir.names(), [name.as_str()]);
        fs::remove_file(dir.join(&name)).unwrap();
    }
    assert_eq!(part_name("a", 0x1f), ".a.000000000000001f.mcp-part");
    assert_eq!(part_name(&"x".repeat(255), 0).len(), 255);
    // A name that the user chose and no file system accepts is a name error too.
    assert!(name_error(create(&dir.join("x".repeat(256)), false, "x", 1)).contains("names so long"));
}

#[test]
fn sizes_beyond_the_file_system_are_refused() {
    let dir = Scratch::new();
    for size in [1 << 62, 1 << 63] {
        disk_error(create(dir.path(), false, "x", size));
    }
    assert!(dir.names().is_empty());
}

#[test]
fn a_full_disk_is_found_before_the_first_byte() {
    let Some(disk) = Scratch::mounted("size=1m") else { return };
    let create = |name: &str, size: u64| {
        let part = into(disk.path(), false).create(name, Extent::sealed(size))?;
        part.require_space(size).map(|()| part)
    };
    let text = disk_error(create("big", 2 << 20));
    assert!(text.contains("no room for") && text.contains("/big"), "{text}");
    assert!(text.contains("needs 2.00 MiB") && text.contains("has 1.00 MiB free"), "{text}");
    assert!(disk.names().is_empty());
    // A part file that is taken over keeps its bytes, even without room for the rest.
    let part = create("grows", 4096).unwrap();
    part.write_at(0, &[7; 4096]).unwrap();
    drop(part);
    disk.await_unlocked();
    assert!(disk_error(create("grows", 2 << 20)).contains("no room for"));
    let part = create("grows", 4096).unwrap();
    assert_eq!(part.next_written(0), Some(0..4096));
    part.discard();
    drop(part);
    // Reserved space stays reserved, even if other files fill the rest.
    let part = create("fits", 512 << 10).unwrap();
    part.reserve(0, 512 << 10).unwrap();
    let filler = create("filler", 512 << 10).unwrap();
    filler.reserve(0, 512 << 10).unwrap();
    disk_error(create("more", 4096));
    let more = into(disk.path(), false).create("more", Extent::sealed(4096)).unwrap();
    assert!(disk_error(more.reserve(0, 4096)).contains("no room for"));
    more.discard();
    part.write_at(0, &vec![7; 512 << 10]).unwrap();
    part.commit().unwrap();
    filler.discard();
    assert_eq!(disk.names(), ["fits"]);
}

/// What is said to be zeros takes no space, on a disk that has none for it either.
#[test]
fn zeros_are_holes() {
    let stored = |dir: &Scratch, name: &str| {
        use std::os::unix::fs::MetadataExt;
        fs::metadata(dir.join(name)).unwrap().blocks() * 512
    };
    for dir in [Some(Scratch::new()), Scratch::mounted("size=1m")].into_iter().flatten() {
        let part = create(dir.path(), false, "sparse", 64 << 20).unwrap();
        part.require_space(256 << 10).unwrap();
        part.write_zeros(0, 32 << 20).unwrap();
        part.write_at(32 << 20, &[7; 128 << 10]).unwrap();
        // What was spilled there, or is of an earlier run.
        part.write_at(48 << 20, &[7; 512 << 10]).unwrap();
        part.write_zeros(48 << 20, 16 << 20).unwrap();
        let mut read = vec![1; 512 << 10];
        part.read_at(48 << 20, &mut read).unwrap();
        assert!(crate::pack::are_zero(&read));
        disk_error(part.write_zeros(63 << 20, (1 << 20) + 1));
        disk_error(part.reserve(63 << 20, (1 << 20) + 1));
        part.commit().unwrap();
        assert_eq!(fs::metadata(dir.join("sparse")).unwrap().len(), 64 << 20);
        let stored = stored(&dir, "sparse");
        assert!((128 << 10..256 << 10).contains(&stored), "{stored}");
    }
}

#[test]
fn a_disk_that_fills_up_without_preallocation_fails_the_write() {
    let Some(disk) = Scratch::mounted("size=1m") else { return };
    let part = create(disk.path(), false, "x", 4096).unwrap();
    // As on a file system that cannot reserve space.
    let sparse = FilePart {
        file: File::options().read(true).write(true).create_new(true).open(disk.join("sparse")).unwrap(),
        direct: Direct::default(),
        part_name: "sparse".into(),
        target: Target {
            dir: File::open(disk.path()).unwrap().into(),
            dir_path: disk.path().to_owned(),
            name: "y".into(),
            path: disk.join("y"),
        },
        size: OnceLock::from(2 << 20),
        force: false,
        adopted: false,
        closed: AtomicBool::new(false),
        attributes: OnceLock::new(),
    };
    sparse.file.set_len(2 << 20).unwrap();
    let text = disk_error(sparse.write_at(0, &vec![1; 2 << 20]));
    assert!(text.contains("/y: the disk is full"), "{text}");
    sparse.discard();
    part.commit().unwrap();
    assert_eq!(disk.names(), ["x"]);
}

#[test]
fn a_read_only_disk_is_named() {
    let Some(disk) = Scratch::mounted("size=1m") else { return };
    let part = create(disk.path(), false, "late", 1).unwrap();
    // A file open for writing keeps the disk writable; the directory alone does not.
    part.discard();
    drop(part);
    disk.remount("ro");
    assert!(disk_error(into(disk.path(), false).check()).contains("is read-only"));
    let text = disk_error(create(disk.path(), false, "x", 1));
    assert!(text.contains("cannot create") && text.contains("/x: the disk is read-only"), "{text}");
}

#[test]
fn the_ways_round_a_missing_rename_flag_do_not_replace_either() {
    type Rename = fn(&OwnedFd, &str, &OsStr) -> Result<(), Errno>;
    let ways: [Rename; 3] =
        [rename_without_replacing, link_then_unlink, |dir, from, to| look_then_rename(dir, from, to)];
    for rename in ways {
        let dir = Scratch::new();
        let fd = OwnedFd::from(File::open(dir.path()).unwrap());
        fs::write(dir.join("part"), "new").unwrap();
        fs::write(dir.join("taken"), "old").unwrap();
        assert_eq!(rename(&fd, "part", "taken".as_ref()), Err(Errno::EXIST));
        assert_eq!(fs::read(dir.join("taken")).unwrap(), b"old");
        rename(&fd, "part", "free".as_ref()).unwrap();
        assert_eq!(fs::read(dir.join("free")).unwrap(), b"new");
        assert_eq!(dir.names(), ["free", "taken"]);
        assert_eq!(rename(&fd, "part", "other".as_ref()), Err(Errno::NOENT));
    }
}

#[test]
fn parts_are_written_from_several_threads() {
    let dir = Scratch::new();
    let part = create(dir.path(), false, "x", 4 << 16).unwrap();
    std::thread::scope(|scope| {
        for i in 0..4u8 {
            let part = &part;
            scope.spawn(move || part.write_at(u64::from(i) << 16, &vec![i; 1 << 16]).unwrap());
        }
    });
    part.commit().unwrap();
    let bytes = fs::read(dir.join("x")).unwrap();
    assert!((0..4u8).all(|i| bytes[usize::from(i) << 16..][..1 << 16].iter().all(|b| *b == i)));
}

#[test]
fn what_a_killed_receiver_left_is_taken_over_by_the_next() {
    let dir = Scratch::new();
    let first = create(dir.path(), false, "image.iso", 3 << 20).unwrap();
    assert_eq!(first.next_written(0), None, "a new one has nothing");
    first.write_at(1 << 20, &vec![7; 1 << 20]).unwrap();
    assert_eq!(first.next_written(0), None);
    let name = dir.names().remove(0);
    // Neither committed nor discarded: the file stays, and belongs to nobody.
    drop(first);
    dir.await_unlocked();
    let other = dir.join(".other.iso.0123456789abcdef.mcp-part");
    fs::write(&other, b"of another object").unwrap();

    let second = create(dir.path(), false, "image.iso", 3 << 20).unwrap();
    assert_eq!(dir.names().len(), 2);
    let mut back = vec![0; 1 << 20];
    second.read_at(1 << 20, &mut back).unwrap();
    assert_eq!(back, vec![7; 1 << 20]);
    let written = second.next_written(0).unwrap();
    assert!(written.start <= 1 << 20 && written.end >= 2 << 20, "{written:?}");
    assert_eq!(second.next_written(3 << 20), None);
    // While it lives, no other receiver gets it.
    let third = create(dir.path(), false, "image.iso", 3 << 20).unwrap();
    assert_eq!((dir.names().len(), third.next_written(0)), (3, None));
    third.discard();
    second.commit().unwrap();
    assert!(!dir.join(&name).exists() && other.exists());
    assert_eq!(fs::metadata(dir.join("image.iso")).unwrap().len(), 3 << 20);
}

#[test]
fn the_latest_of_several_is_taken_over_and_made_as_long_as_the_object() {
    let dir = Scratch::new();
    let stale = |random: &str, content: &[u8], age: u64| {
        let path = dir.join(format!(".x.{random}.mcp-part"));
        fs::write(&path, content).unwrap();
        let time = std::time::SystemTime::now() - std::time::Duration::from_secs(age);
        File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
    };
    stale("0000000000000001", b"older", 20);
    stale("0000000000000002", b"latest, and longer than the object", 10);
    stale("0000000000000003", b"oldest", 30);
    let part = create(dir.path(), false, "x", 6).unwrap();
    assert_eq!(dir.names(), [".x.0000000000000002.mcp-part"]);
    assert_eq!(part.next_written(0), Some(0..6));
    part.commit().unwrap();
    assert_eq!(fs::read(dir.join("x")).unwrap(), b"latest");
    fs::remove_file(dir.join("x")).unwrap();

    stale("0000000000000004", b"short", 1);
    let part = create(dir.path(), false, "x", 1 << 20).unwrap();
    assert_eq!(fs::metadata(dir.join(".x.0000000000000004.mcp-part")).unwrap().len(), 1 << 20);
    assert!(part.next_written(0).is_some_and(|range| range.start == 0));
}

#[test]
fn what_others_planted_is_not_taken_over() {
    let dir = Scratch::new();
    let name = |n: u8| dir.join(format!(".x.000000000000000{n}.mcp-part"));
    // A second name for another file, a link, a pipe; and, for root, another user's file.
    fs::write(dir.join("precious"), "precious").unwrap();
    fs::hard_link(dir.join("precious"), name(1)).unwrap();
    symlink("precious", name(2)).unwrap();
    let fifo = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, name(3), fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    fs::write(name(4), "theirs").unwrap();
    if std::os::unix::fs::chown(name(4), Some(12_345), None).is_err() {
        fs::remove_file(name(4)).unwrap();
    }
    let before = dir.names().len();
    let part = create(dir.path(), false, "x", 8).unwrap();
    assert_eq!((dir.names().len(), part.next_written(0)), (before + 1, None));
    part.write_at(0, b"verified").unwrap();
    part.commit().unwrap();
    assert_eq!(fs::read(dir.join("precious")).unwrap(), b"precious");
}

#[test]
fn receivers_that_share_a_directory_never_share_a_part_file() {
    let dir = Scratch::new();
    for round in 0..20 {
        for n in 0..3 {
            fs::write(dir.join(format!(".x.{round:015x}{n}.mcp-part")), "left behind").unwrap();
        }
        let parts: Vec<_> = std::thread::scope(|scope| {
            let create = || create(dir.path(), true, "x", 11).unwrap();
            let all: Vec<_> = (0..4).map(|_| scope.spawn(create)).collect();
            all.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        for (n, part) in (0u8..).zip(&parts) {
            part.write_at(0, &[n; 11]).unwrap();
        }
        for (n, part) in (0u8..).zip(&parts) {
            part.commit().unwrap();
            assert_eq!(fs::read(dir.join("x")).unwrap(), [n; 11]);
        }
        assert_eq!(dir.names(), ["x"]);
    }
}

#[test]
fn mode_and_modification_time_come_with_the_name() {
    use crate::storage::Attributes;
    use std::os::unix::fs::MetadataExt;
    let dir = Scratch::new();
    for (name, mode) in [("script", 0o755), ("private", 0o6600)] {
        let part = create(dir.path(), false, name, 4).unwrap();
        part.write_at(0, b"abcd").unwrap();
        part.describe(Attributes { mode, modified: (1_500_000_000, 123_000_000) });
        let meta = fs::metadata(part.commit().unwrap()).unwrap();
        assert_eq!((meta.mtime(), meta.mtime_nsec()), (1_500_000_000, 123_000_000));
        // Whatever the umask is, it takes no rights of the owner, and nobody gets more than the sender's file gives.
        assert_eq!(meta.mode() & 0o7700, u32::from(mode) & 0o700, "{name}");
        assert_eq!(meta.mode() & 0o077 & !u32::from(mode), 0, "{name}");
    }
}

#[test]
fn a_file_in_place_is_found_and_made_sure_of() {
    let dir = Scratch::new();
    let path = dir.join("image.iso");
    let probe = |force, size| {
        FileSink::new(Some(dir.path().to_owned()), force).probe("image.iso", Extent::sealed(size))
    };
    assert!(matches!(probe(false, 4), Found::Nothing));
    drop(create(dir.path(), false, "image.iso", 4).unwrap());
    assert!(matches!(probe(false, 4), Found::Part));
    fs::write(&path, b"abcd").unwrap();
    assert!(matches!(probe(true, 4), Found::Part), "it would be replaced");
    assert!(matches!(probe(false, 5), Found::Part));
    let Found::Whole(file) = probe(false, 4) else { panic!("the file in place") };
    let mut bytes = [0; 4];
    file.read_at(0, &mut bytes).unwrap();
    assert_eq!((&bytes, file.next_written(0), file.next_written(4)), (b"abcd", Some(0..4), None));
    assert!(file.write_at(0, b"x").is_err());
    file.discard();
    assert_eq!(file.commit().unwrap(), path);
    fs::write(&path, b"abce").unwrap();
    assert!(file.commit().is_err(), "it has changed since");
    fs::remove_file(&path).unwrap();
    assert!(file.commit().is_err(), "it is gone");
}

#[test]
fn a_part_of_a_growing_object_grows_and_is_cut_to_its_final_size() {
    const MIB: u64 = 1 << 20;
    let dir = Scratch::new();
    let growing = Extent { size: 0, sealed: false };
    let create = || into(dir.path(), false).create("s", growing).unwrap();
    let part = create();
    assert_eq!(part.next_written(0), None);
    part.write_at(2 * MIB, &[7; 1000]).unwrap();
    part.write_through(0, &[1; 4096]).unwrap();
    drop(part);
    // The next run may know less of it.
    let part = create();
    let begun = part.next_written(MIB).expect("what was written is found");
    assert!(begun.start <= 2 * MIB && begun.end > 2 * MIB, "{begun:?}");
    part.write_at(0, &[1; 10_000]).unwrap();
    part.seal(10_000).unwrap();
    part.seal(10_000).unwrap();
    disk_error(part.seal(10_001));
    disk_error(part.write_at(10_000, &[1]));
    let path = part.commit().unwrap();
    assert_eq!(fs::read(path).unwrap(), [1; 10_000]);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}
