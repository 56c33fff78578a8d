use super::*;
use mcp_transfer::crypto::digest::{chaining_value, root};
use mcp_transfer::units::{Digest, Extent};
use std::os::unix::fs::MetadataExt;

fn bytes(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    fastrand::Rng::with_seed(len as u64).fill(&mut bytes);
    bytes
}

fn files(dir: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            names.extend(files(&path));
        } else {
            names.push(path.file_name().expect("a name").to_string_lossy().into_owned());
        }
    }
    names.sort();
    names
}

#[test]
fn the_hash_and_the_blocks_agree_with_the_bytes_at_every_edge() {
    let dir = tempfile::tempdir().expect("a directory");
    let objects = Objects::open(dir.path()).expect("opened");
    let block = BLOCK as usize;
    for len in [0, 1, 1024, 1025, block - 1, block, block + 1, 2 * block, 3 * block + 12_345, 5 * block] {
        let content = bytes(len);
        // In pieces that do not fit the blocks.
        let mut import = objects.import().expect("begun");
        for piece in content.chunks(300_007) {
            import.write(piece).expect("written");
        }
        let hashes = import.finish(None).expect("imported");
        assert_eq!(hashes.blake3, blake3::hash(&content), "{len}");
        assert_eq!(hashes.size, len as u64);
        let values = objects.block_values(&hashes.blake3).expect("values");
        let values: Vec<Digest> = values.as_chunks().0.iter().copied().map(Digest).collect();
        assert_eq!(values.len(), len.div_ceil(block));
        assert_eq!(root(&values).0, *hashes.blake3.as_bytes());
        for (n, piece) in content.chunks(block).enumerate() {
            let value = chaining_value(n as u64 * BLOCK, piece, Extent::sealed(len as u64));
            assert_eq!(value, values[n], "block {n} of {len}");
        }
        let (mut file, size) = objects.open_object(&hashes.blake3).expect("there");
        let mut read = Vec::new();
        file.read_to_end(&mut read).expect("read");
        assert!(read == content && size == len as u64);
    }
}

#[test]
fn the_other_hashes_are_the_known_ones() {
    let dir = tempfile::tempdir().expect("a directory");
    let objects = Objects::open(dir.path()).expect("opened");
    let hashes = objects.import_from(&b"test"[..], None).expect("imported");
    assert_eq!(hashes.sha1, "a94a8fe5ccb19ba61c4c0873d391e987982fbbd3");
    assert_eq!(hashes.md5, "098f6bcd4621d373cade4e832627b4f6");
    assert_eq!(hashes.sha256, "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08");
    assert_eq!(hashes.blake3.to_string(), "4878ca0425c739fa427f7eda20fe845f6b2e46ba5fe2a14df5b1e32f50603215");
}

#[test]
fn what_does_not_end_well_leaves_nothing() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("gone"))
        }
    }
    let dir = tempfile::tempdir().expect("a directory");
    let objects = Objects::open(dir.path()).expect("opened");
    let wrong = blake3::hash(b"something else");
    assert!(matches!(objects.import_from(&b"test"[..], Some(wrong)), Err(ObjectError::Differs { .. })));
    assert!(matches!(objects.import_from(b"test".chain(Broken), None), Err(ObjectError::Source(_))));
    assert_eq!(files(dir.path()), Vec::<String>::new());
    assert!(matches!(objects.open_object(&wrong), Err(ObjectError::Missing(_))));
    assert!(matches!(objects.block_values(&wrong), Err(ObjectError::Missing(_))));
}

#[test]
fn an_interrupted_import_is_removed_at_the_next_start() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::create_dir_all(dir.path().join("importing")).expect("created");
    fs::write(dir.path().join("importing/0"), "half").expect("written");
    let objects = Objects::open(dir.path()).expect("opened");
    assert_eq!(files(dir.path()), Vec::<String>::new());
    objects.import_from(&b"whole"[..], None).expect("the name is free again");
}

#[test]
fn an_object_that_is_here_is_kept_and_can_be_removed() {
    let dir = tempfile::tempdir().expect("a directory");
    let objects = Objects::open(dir.path()).expect("opened");
    let first = objects.import_from(&b"test"[..], None).expect("imported");
    let inode = fs::metadata(objects.path(&first.blake3)).expect("there").ino();
    assert_eq!(objects.import_from(&b"test"[..], Some(first.blake3)).expect("again"), first);
    assert_eq!(fs::metadata(objects.path(&first.blake3)).expect("there").ino(), inode);
    assert_eq!(files(dir.path()).len(), 2, "{:?}", files(dir.path()));
    objects.remove(&first.blake3).expect("removed");
    objects.remove(&first.blake3).expect("removed twice");
    assert!(!objects.contains(&first.blake3) && files(dir.path()).is_empty());
}

/// A small file system of its own shows what a full disk does.
#[test]
fn a_full_disk_is_an_error_that_loses_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let mount = |args: &[&str]| {
        std::process::Command::new(args[0]).args(&args[1..]).status().is_ok_and(|s| s.success())
    };
    let path = dir.path().to_str().expect("UTF-8");
    if !mount(&["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", path]) {
        assert!(
            std::env::var_os("MCP_TESTS_MUST_RUN").is_none(),
            "would be skipped: no right to mount a small file system"
        );
        eprintln!("skipped: no right to mount a small file system");
        return;
    }
    let objects = Objects::open(dir.path()).expect("opened");
    let kept = objects.import_from(&bytes(1 << 20)[..], None).expect("there is room");
    let full = objects.import_from(&bytes(8 << 20)[..], None);
    let left = files(dir.path()).len();
    let again = objects.import_from(&bytes(1 << 19)[..], None);
    let there = objects.contains(&kept.blake3);
    drop(objects);
    assert!(mount(&["umount", path]));
    assert!(matches!(full, Err(ObjectError::Full(_))), "{full:?}");
    assert!(left == 2 && there && again.is_ok(), "{left} {again:?}");
}
