//! Any name from the network, and any files that are there already: what is accepted is put right into
//! the output directory and nowhere else, what is refused leaves no trace, and nothing of others is touched.

use super::scratch::Scratch;
use mcp::limits::MAX_NAME;
use mcp::storage::{FileSink, PART_SUFFIX, Sink, safe_name};
use mcp::text::{escape, is_hidden};
use mcp::units::Extent;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

/// Files that are there already, at the most.
const MAX_FILES: usize = 4;
const CONTENT: &[u8] = b"what was sent";

/// The input is the name; behind NULs, names of files that are there already. The first byte says
/// whether files may be replaced.
///
/// # Panics
/// When a name leads where it must not.
pub fn fuzz_names(bytes: &[u8]) {
    let Some((&choice, bytes)) = bytes.split_first() else { return };
    let mut parts = bytes.split(|&byte| byte == 0);
    let name = String::from_utf8_lossy(parts.next().unwrap_or_default());
    let shown = escape(&name);
    assert!(!shown.chars().any(is_hidden), "{shown:?}");

    let scratch = Scratch::new();
    let (out, outside) = (scratch.join("out"), scratch.join("outside"));
    fs::create_dir(&out).expect("room");
    fs::write(&outside, "untouched").expect("room");
    let mut there = BTreeMap::new();
    for file in parts.take(MAX_FILES).map(OsStr::from_bytes) {
        // What cannot be a file's name is none.
        if Path::new(file).components().eq([Component::Normal(file)])
            && fs::write(out.join(file), "old").is_ok()
        {
            there.insert(file.to_owned(), b"old".to_vec());
        }
    }

    let force = choice & 1 == 1;
    let safe = safe_name(&name).map(str::to_owned);
    if let Ok(safe) = &safe {
        assert_eq!(*safe, *name);
        assert!(Path::new(safe).components().eq([Component::Normal(OsStr::new(safe))]), "{shown}");
        assert!((1..=MAX_NAME).contains(&safe.len()) && !safe.contains(['/', '\\', '\0']), "{shown}");
    } else if let Err(error) = &safe {
        assert!(!error.to_string().chars().any(is_hidden), "{error}");
    }
    // Without a place the object's own name counts; there might be one by the same name as the object.
    let mut sink = FileSink::new(Some(out.clone()), force);
    let taken = there.contains_key(OsStr::new(&*name));
    match sink.create(&name, Extent::sealed(CONTENT.len() as u64)) {
        Err(error) => {
            assert!(safe.is_err() || taken && !force, "{error}");
            assert!(!error.to_string().chars().any(is_hidden), "{error}");
        }
        Ok(part) => {
            assert!(safe.is_ok() && (force || !taken), "{shown}");
            part.write_at(0, CONTENT).expect("room");
            let mut found = [0; CONTENT.len()];
            part.read_at(0, &mut found).expect("what was written");
            assert_eq!(found, CONTENT);
            if choice & 2 == 2 {
                part.discard();
            } else {
                assert_eq!(part.commit().expect("a free name"), out.join(&*name));
                there.insert(OsString::from(&*name), CONTENT.to_vec());
            }
        }
    }
    // A part file of this name that an earlier run has left is taken over, or goes.
    let unfinished = |file: &OsStr| file.as_bytes().ends_with(PART_SUFFIX.as_bytes());
    let mut left = BTreeMap::new();
    for entry in fs::read_dir(&out).expect("the directory") {
        let entry = entry.expect("an entry");
        left.insert(entry.file_name(), fs::read(entry.path()).expect("a file"));
    }
    for (file, content) in &there {
        assert!(unfinished(file) || left.get(file) == Some(content), "{file:?} is not what it was");
    }
    assert!(left.keys().all(|file| there.contains_key(file)), "left behind: {left:?}");
    assert_eq!(fs::read(&outside).expect("the file outside"), b"untouched");
    assert_eq!(fs::read_dir(scratch.path()).expect("the directory").count(), 2, "{shown} leads outside");
}
