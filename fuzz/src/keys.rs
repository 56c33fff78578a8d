//! Keys as lines of text, and files of them: anything at all is read without harm, what is read is written
//! the same, and no damage to a sound line makes another key of it.

use super::edits::edit;
use mcp::crypto::derive::Secret;
use mcp::crypto::group::{GroupKey, GroupKeys, check_name};
use mcp::crypto::sender::{seed_from_line, seed_line};
use mcp::limits::{MAX_KEY_LINES, MAX_KEY_NAME};
use mcp::units::SenderKey;

/// The first byte says what is made of the rest: text as it is, or secrets whose sound lines are damaged.
///
/// # Panics
/// When a key is not what it was.
pub fn fuzz_keys(bytes: &[u8]) {
    let Some((&choice, rest)) = bytes.split_first() else { return };
    match choice % 4 {
        0 => any_text(rest),
        1 => damaged_group_key(rest),
        2 => damaged_sender(rest),
        _ => files(rest),
    }
}

fn any_text(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    match GroupKey::from_line(&text) {
        Ok(key) => {
            assert_eq!(key.line().as_str(), text.trim());
            assert!(check_name(key.name()).is_ok());
        }
        Err(e) => quiet(&e.to_string()),
    }
    match SenderKey::from_line(&text) {
        Ok(key) => assert_eq!(key.line(), text.trim()),
        Err(e) => quiet(&e.to_string()),
    }
    match seed_from_line(&text) {
        Ok(seed) => assert_eq!(seed_line(&seed).as_str(), text.trim()),
        Err(e) => quiet(&e.to_string()),
    }
    if let Ok(()) = check_name(&text) {
        assert!((1..=MAX_KEY_NAME).contains(&text.len()) && text.is_ascii() && !text.contains('/'));
    }
    match GroupKeys::parse(bytes) {
        Ok(keys) => same(&keys, keys.text().as_bytes()),
        Err(e) => quiet(&e.to_string()),
    }
}

/// What is wrong with a secret is said without it.
fn quiet(error: &str) {
    assert!(error.len() < 200 && !error.chars().any(char::is_control), "{error:?}");
}

fn secrets(keys: &GroupKeys) -> Vec<[u8; 32]> {
    keys.secrets().map(|secret| *secret.expose()).collect()
}

/// Whether `text` is a file with just these keys.
fn same(keys: &GroupKeys, text: &[u8]) {
    let again = GroupKeys::parse(text).expect("what was written");
    assert_eq!(again.current().name(), keys.current().name());
    assert_eq!(secrets(&again), secrets(keys));
    assert!(secrets(keys).len() <= MAX_KEY_LINES);
    assert!(keys.older().iter().all(|older| older.name() == keys.current().name()));
}

fn damaged_group_key(bytes: &[u8]) {
    let Some((secret, rest)) = bytes.split_first_chunk() else { return };
    let Some((&len, rest)) = rest.split_first() else { return };
    let (name, edits) = rest.split_at(usize::from(len).min(rest.len()));
    let Ok(name) = std::str::from_utf8(name) else { return };
    let Ok(key) = GroupKey::new(name, Secret::new(*secret)) else {
        assert!(check_name(name).is_err());
        return;
    };
    let mut line = key.line().as_bytes().to_vec();
    edit(&mut line, edits);
    let line = String::from_utf8_lossy(&line);
    if let Ok(read) = GroupKey::from_line(&line) {
        assert_eq!((read.name(), read.secret().expose()), (name, secret), "{line}");
    }
    assert!(SenderKey::from_line(&line).is_err());
}

fn damaged_sender(bytes: &[u8]) {
    let Some((key, edits)) = bytes.split_first_chunk() else { return };
    let mut line = SenderKey(*key).line().into_bytes();
    edit(&mut line, edits);
    let read = SenderKey::from_line(&String::from_utf8_lossy(&line));
    assert!(read.is_err() || read == Ok(SenderKey(*key)));
    let mut line = seed_line(&Secret::new(*key)).as_bytes().to_vec();
    edit(&mut line, edits);
    if let Ok(seed) = seed_from_line(&String::from_utf8_lossy(&line)) {
        assert_eq!(seed.expose(), key);
    }
}

/// Files with keys of one byte each: made, renewed, merged, written and read again.
fn files(bytes: &[u8]) {
    let key = |n: u8| GroupKey::new("lab", Secret::new([n; 32])).expect("a sound name");
    let mut list = [GroupKeys::new(key(0)), GroupKeys::new(key(1))];
    let (steps, _) = bytes.as_chunks();
    for &[what, n] in steps.iter().take(256) {
        let at = usize::from(what & 1);
        match what >> 1 & 3 {
            0 => {
                list[at].renew(key(n));
                assert_eq!(list[at].current().secret().expose()[0], n);
            }
            1 => {
                let other = list[1 - at].clone();
                let (mine, theirs) = (secrets(&list[at]), secrets(&other));
                list[at].merge(other);
                let known = mine.contains(&theirs[0]);
                assert_eq!(secrets(&list[at])[0], if known { mine[0] } else { theirs[0] });
            }
            2 => list[at].drop_older(),
            _ => {
                let mut text = list[at].text().as_bytes().to_vec();
                same(&list[at], &text);
                edit(&mut text, &[n, n, n.rotate_left(3), what]);
                if let Ok(read) = GroupKeys::parse(&text) {
                    let whole = secrets(&list[at]);
                    assert!(secrets(&read).iter().all(|secret| whole.contains(secret)));
                }
            }
        }
        let all = secrets(&list[at]);
        assert!((1..=MAX_KEY_LINES).contains(&all.len()));
        assert!((1..all.len()).all(|i| !all[..i].contains(&all[i])), "a key twice: {all:?}");
    }
}
