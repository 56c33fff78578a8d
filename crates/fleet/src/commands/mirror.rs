//! `mcp mirror`.

use super::output::line;
use super::serve::dir;
use super::{CommandError, Exit, no_state};
use crate::objects::Objects;
use clap::Subcommand;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// Commands of `mcp mirror`.
#[derive(Debug, Subcommand)]
pub enum MirrorCommand {
    /// Write the server's objects below DIR, as any web server can serve them: objects/HASH, and its blocks' chaining values as objects/HASH.hashes
    Export {
        /// The directory; what is there already is kept
        dir: PathBuf,
    },
}

pub(super) async fn run(command: MirrorCommand, state: Option<&PathBuf>) -> Result<Exit, CommandError> {
    let MirrorCommand::Export { dir: to } = command;
    let from = dir(state.ok_or_else(no_state)?).join("objects");
    let exported = tokio::task::spawn_blocking(move || export(&from, &to)).await;
    let exported = exported.map_err(|_| CommandError::Environment("a thread ended".into()))??;
    line(&format!("{exported} objects"));
    Ok(Exit::Complete)
}

/// Copies every object that the target lacks. Returns how many are there then.
fn export(from: &Path, to: &Path) -> Result<usize, CommandError> {
    let failed = |path: &Path| {
        let path = path.display().to_string();
        move |error: io::Error| CommandError::Environment(format!("cannot export {path} ({error})"))
    };
    let target = to.join("objects");
    fs::create_dir_all(&target).map_err(failed(&target))?;
    let mut count = 0;
    for hash in Objects::listed(from).map_err(failed(from))? {
        let name = hash.to_string();
        let source = Objects::file_of(from, &hash);
        // The chaining values first: where the object is, they are.
        copy(&source.with_extension("blocks"), &target.join(format!("{name}.hashes")), None)
            .map_err(failed(&source))?;
        copy(&source, &target.join(&name), Some(hash)).map_err(failed(&source))?;
        count += 1;
    }
    Ok(count)
}

/// Copies a file, synced, unless it is there; checks its hash on the way.
fn copy(from: &Path, to: &Path, expected: Option<blake3::Hash>) -> io::Result<()> {
    if to.exists() {
        return Ok(());
    }
    let mut beside = to.as_os_str().to_owned();
    beside.push(".part");
    let beside = PathBuf::from(beside);
    let copied = || {
        let (mut source, mut target) = (fs::File::open(from)?, fs::File::create(&beside)?);
        let (mut hasher, mut buffer) = (blake3::Hasher::new(), vec![0; 256 * 1024]);
        loop {
            let n = source.read(&mut buffer)?;
            if n == 0 {
                break;
            }
            hasher.update(&buffer[..n]);
            target.write_all(&buffer[..n])?;
        }
        if expected.is_some_and(|expected| hasher.finalize() != expected) {
            return Err(io::Error::other("the server's copy is damaged; add its task again"));
        }
        target.sync_all()?;
        fs::rename(&beside, to)
    };
    copied().inspect_err(|_| drop(fs::remove_file(&beside)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_object_is_exported_once() {
        let (state, to) =
            (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
        let objects = Objects::open(state.path()).expect("opened");
        let hashes =
            [&b"one"[..], b"two"].map(|bytes| objects.import_from(bytes, None).expect("imported").blake3);
        assert_eq!(export(state.path(), to.path()).expect("exported"), 2);
        for (hash, bytes) in hashes.iter().zip([&b"one"[..], b"two"]) {
            let path = to.path().join(format!("objects/{hash}"));
            assert_eq!(fs::read(&path).expect("there"), bytes);
            // A single block's value is the hash itself.
            let values = fs::read(to.path().join(format!("objects/{hash}.hashes"))).expect("there");
            assert_eq!(values, hash.as_bytes());
        }
        // A damaged object is not exported, and what was exported stays.
        fs::write(objects.path(&hashes[0]), b"bad").expect("written");
        fs::remove_file(to.path().join(format!("objects/{}", hashes[0]))).expect("removed");
        assert!(export(state.path(), to.path()).is_err());
        assert!(!to.path().join(format!("objects/{}", hashes[0])).exists());
        assert_eq!(fs::read_dir(to.path().join("objects")).expect("listed").count(), 3);
    }
}
