//! The files in the state directory: whatever is in one, it is read as a value or set aside as it is, and
//! the run goes on; what is written is read back as it was.

use super::edits::edit;
use super::scratch::Scratch;
use mcp::cli::identity::DeviceIdentity;
use mcp::crypto::derive::Secret;
use mcp::crypto::group::{GroupKey, GroupKeys};
use mcp::keyring::{Added, Keyring, KeyringError, KnownSender, SendersError};
use mcp::storage::{FileSource, HashCache, HashedBlock};
use mcp::units::{Digest, SenderKey};
use std::fs::{self, File};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// The file is the input as it is, a sound one with edits, or the input with the check that belongs to it.
const DAMAGED: u8 = 0x80;
const CHECKED: u8 = 0x40;

/// The first byte says which file, and what the rest is for it.
///
/// # Panics
/// When a file is not read back as it was written, or a damaged one is lost.
pub fn fuzz_state(bytes: &[u8]) {
    let Some((&choice, rest)) = bytes.split_first() else { return };
    let scratch = Scratch::new();
    match choice % 5 {
        0 => sender_key(&scratch, choice, rest),
        1 => group_keys(&scratch, choice, rest),
        2 => known_senders(&scratch, choice, rest),
        3 => device_id(&scratch, choice, rest),
        _ => hashes(&scratch, choice, rest),
    }
}

/// Puts the file there; its content.
fn place(path: &Path, choice: u8, rest: &[u8]) -> Vec<u8> {
    let mut content = rest.to_vec();
    if choice & DAMAGED != 0 {
        content = fs::read(path).expect("a sound file");
        edit(&mut content, rest);
    }
    fs::write(path, &content).expect("room");
    content
}

/// Where damaged files go.
fn aside(path: &Path) -> PathBuf {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".bad");
    aside.into()
}

/// A file that was not taken is still to be seen, and one that was is as it was.
fn require_kept(path: &Path, taken: bool, content: &[u8]) {
    let place = if taken { path.to_owned() } else { aside(path) };
    assert_eq!(fs::read(place).expect("the file"), content);
    assert!(!taken || !aside(path).exists());
}

fn sender_key(scratch: &Scratch, choice: u8, rest: &[u8]) {
    let (ring, path) = (Keyring::new(scratch.path().to_owned()), scratch.join("sender.key"));
    let warnings = &mut Vec::new();
    let sound = (choice & DAMAGED != 0).then(|| ring.sender(warnings).expect("a fresh key"));
    let content = place(&path, choice, rest);
    let seed = ring.sender(warnings).expect("a key");
    let taken = !aside(&path).exists();
    require_kept(&path, taken, &content);
    if let Some(sound) = sound.filter(|_| taken) {
        assert_eq!(seed.expose(), sound.expose(), "damage made another key");
    }
    warnings.clear();
    assert_eq!(ring.sender(warnings).expect("the key").expose(), seed.expose());
    assert!(warnings.is_empty(), "{warnings:?}");
}

fn key(n: u8) -> GroupKey {
    GroupKey::new("lab", Secret::new([n; 32])).expect("a sound name")
}

fn group_keys(scratch: &Scratch, choice: u8, rest: &[u8]) {
    let (ring, path) = (Keyring::new(scratch.path().to_owned()), scratch.join("keys/lab.key"));
    let warnings = &mut Vec::new();
    assert_eq!(ring.add(GroupKeys::new(key(1)), warnings).expect("room"), Added::New);
    assert_eq!(ring.add(GroupKeys::new(key(2)), warnings).expect("room"), Added::Renewed);
    let content = place(&path, choice, rest);
    let secrets = |keys: &GroupKeys| keys.secrets().map(|secret| *secret.expose()).collect::<Vec<_>>();
    let before = match ring.keys("lab", warnings) {
        Ok(keys) => Some(secrets(&keys)),
        Err(KeyringError::Damaged { .. }) => None,
        Err(e) => panic!("{e}"),
    };
    if let Some(before) = before.as_ref().filter(|_| choice & DAMAGED != 0) {
        assert!(before.iter().all(|secret| [[1; 32], [2; 32]].contains(secret)), "damage made another key");
    }
    // Nothing has happened to it so far: to go on without a key is nothing to do unasked.
    assert_eq!(ring.names().expect("the directory"), ["lab"]);
    require_kept(&path, true, &content);
    let added = ring.add(GroupKeys::new(key(77)), warnings).expect("room");
    let after = secrets(&ring.keys("lab", warnings).expect("sound keys"));
    match &before {
        None => {
            assert_eq!((added, &after[..]), (Added::New, &[[77; 32]][..]));
            assert_eq!(fs::read(aside(&path)).expect("the damaged file"), content);
        }
        Some(before) if before.contains(&[77; 32]) => assert_eq!(after[0], before[0]),
        Some(before) => assert_eq!((added, after[0], after[1]), (Added::Renewed, [77; 32], before[0])),
    }
    let fresh = ring.rotate("lab", warnings).expect("sound keys");
    let keys = ring.keys("lab", warnings).expect("sound keys");
    assert!(keys.current().same_secret(&fresh) && secrets(&keys)[1] == after[0]);
    ring.remove("lab").expect("the key");
    assert!(matches!(ring.keys("lab", warnings), Err(KeyringError::Absent(_))));
}

/// As in the keyring.
fn with_check(content: &[u8]) -> Vec<u8> {
    let hash = blake3::derive_key("mcp 2026-11-20 check of known senders v1", content);
    let check: String = hash[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    [content, b"check ", check.as_bytes(), b"\n"].concat()
}

fn known_senders(scratch: &Scratch, choice: u8, rest: &[u8]) {
    let (ring, path) = (Keyring::new(scratch.path().to_owned()), scratch.join("known-senders"));
    let warnings = &mut Vec::new();
    let sender = |n: u8, label: &str| KnownSender {
        address: IpAddr::from([10, 0, 0, n]),
        key: SenderKey([n; 32]),
        label: label.to_owned(),
    };
    let sound = [sender(1, "2026-11-20"), sender(2, "")];
    if choice & DAMAGED != 0 {
        sound.iter().for_each(|one| ring.remember(one.clone(), warnings).expect("room"));
    }
    let content = match (choice & CHECKED != 0, rest.last()) {
        // The check stands on a line of its own.
        (true, Some(b'\n')) if choice & DAMAGED == 0 => place(&path, choice, &with_check(rest)),
        _ => place(&path, choice, rest),
    };
    let known = ring.known_senders(warnings).expect("a list");
    let taken = !aside(&path).exists();
    require_kept(&path, taken, &content);
    assert!(choice & DAMAGED == 0 || !taken || known == sound, "damage made another list: {known:?}");

    // What cannot be printed is not in a label.
    assert!(known.iter().all(|one| !one.label.chars().any(char::is_control)));
    let full = match ring.remember(sender(200, " a\u{1}b "), warnings) {
        Ok(()) => false,
        Err(SendersError::Full) => true,
        Err(e) => panic!("{e}"),
    };
    let after = ring.known_senders(warnings).expect("a list");
    let trimmed = |list: &[KnownSender]| -> Vec<KnownSender> {
        let trim = |one: &KnownSender| KnownSender { label: one.label.trim().to_owned(), ..one.clone() };
        list.iter().map(trim).collect()
    };
    assert_eq!(trimmed(&after)[..known.len()], trimmed(&known));
    let new = sender(200, "ab");
    let is_there = |one: &KnownSender| one.address == new.address || one.key == new.key;
    assert!(full || after.iter().any(is_there), "{after:?}");
    if after.last() == Some(&new) {
        assert_eq!(ring.forget("10.0.0.200", warnings).expect("it"), [new]);
        assert_eq!(trimmed(&ring.known_senders(warnings).expect("a list")), trimmed(&known));
    }
}

fn device_id(scratch: &Scratch, choice: u8, rest: &[u8]) {
    let path = scratch.join("device-id");
    // Both are there to see: the identifier, and whether something was said.
    let kept = || {
        let identity =
            DeviceIdentity::kept(Some(scratch.path()), Path::new("/no/sys"), "lab").expect("randomness");
        assert_eq!(identity.label, "lab");
        (identity.device, identity.warnings.len())
    };
    if choice & DAMAGED != 0 {
        kept();
    }
    let content = place(&path, choice, rest);
    let (device, warnings) = kept();
    require_kept(&path, warnings == 0, &content);
    assert_eq!(kept(), (device, 0));
}

/// Bytes of a file, for its chaining values to be kept of.
const CONTENT: &[u8] = b"a file that was sent before";
const BLOCK_LOG2: u8 = 20;

fn hashes(scratch: &Scratch, choice: u8, rest: &[u8]) {
    let file = scratch.join("file");
    fs::write(&file, CONTENT).expect("room");
    let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 30);
    File::options().write(true).open(&file).and_then(|file| file.set_modified(long_ago)).expect("a date");
    let source = FileSource::open(&file).expect("a sound file");
    let cache = HashCache::new(scratch.path());
    let block = |n: u8| HashedBlock { value: Digest([n; 32]), is_zero: n % 2 == 1 };
    let values: Vec<HashedBlock> = (0..choice >> 3 & 3).map(block).collect();
    let count = values.len() as u32;
    let load = |count| cache.load(source.file_id().expect("a file"), BLOCK_LOG2, count);
    assert_eq!(load(count), None);
    cache.store(source.file_id().expect("a file"), BLOCK_LOG2, &values).expect("room");
    assert_eq!(load(count).as_ref(), Some(&values));
    assert_eq!(load(count + 1), None);

    let entries =
        || fs::read_dir(scratch.join("hashes")).expect("the cache").map(|e| e.expect("an entry").path());
    let path = entries().next().expect("the entry");
    let whole = fs::read(&path).expect("the entry");
    let mut content = match choice & DAMAGED {
        0 => rest.to_vec(),
        _ => whole.clone(),
    };
    if choice & CHECKED != 0 {
        // Sound by its check, whatever it says.
        content.truncate(content.len().saturating_sub(32));
        edit(&mut content, rest);
        content.extend_from_slice(blake3::hash(&content).as_bytes());
    } else if choice & DAMAGED != 0 {
        edit(&mut content, rest);
    }
    fs::write(&path, &content).expect("room");
    let found = load(count);
    if let Some(found) = &found {
        assert_eq!(found.len(), values.len());
        assert!(choice & CHECKED != 0 || content == whole, "damage made other values");
        let tail = &content[content.len() - 32 - 33 * values.len()..];
        let is = |(block, bytes): (&HashedBlock, &[u8; 33])| {
            bytes.starts_with(&block.value.0) && block.is_zero == (bytes[32] == 1)
        };
        assert!(found.iter().zip(tail.as_chunks().0).all(is));
    }
    let sound = content.split_last_chunk::<32>().is_some_and(|(content, check)| {
        content.starts_with(b"mcp-hashes 2\n") && blake3::hash(content) == *check
    });
    assert_eq!(path.exists(), sound);
    require_kept(&path, sound, &content);
    // It does not stay in the way.
    cache.store(source.file_id().expect("a file"), BLOCK_LOG2, &values).expect("room");
    assert_eq!(load(count), Some(values));
    cache.forget(source.file_id().expect("a file"), BLOCK_LOG2);
    assert_eq!(load(count), None);
}
