//! A task from arguments: its files hashed, its audience resolved, its document made.

use super::super::device;
use super::super::remote::Remote;
use super::{CommandError, file_name};
use crate::documents::{Argument, Audience, Envelope, FleetId, Hash, Object, Task, TaskKind, Term, Window};
use crate::server::clock;
use clap::{Args, ValueEnum};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What a task does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum KindArg {
    /// Put files in place
    Copy,
    /// Install them by a handler
    Install,
    /// Update the device by them
    Update,
    /// Use them as data
    Batch,
}

/// Arguments that say what a task is.
#[derive(Debug, Args)]
pub struct TaskArgs {
    /// What is to be done
    kind: KindArg,
    /// The files
    #[arg(value_name = "FILE")]
    pub(super) files: Vec<PathBuf>,
    /// For whom: all, tag:TAG, a device's name ('*' stands for any characters), or a condition such as 'hw = b2'
    #[arg(long, value_name = "WHO", value_delimiter = ',')]
    pub(super) to: Vec<String>,
    /// For copies: the directory, with '/' at its end, or the name of the one file
    #[arg(long, value_name = "PATH")]
    at: Option<String>,
    /// The handler on the devices
    #[arg(long, value_name = "NAME")]
    handler: Option<String>,
    /// An argument for the handler; true, false and whole numbers are taken as such
    #[arg(long = "arg", value_name = "NAME=VALUE")]
    arguments: Vec<String>,
    /// What later tasks replace [default: the first file's name without its end]
    #[arg(long)]
    name: Option<String>,
    /// The version that it brings
    #[arg(long, default_value = "")]
    version: String,
    /// What must hold, or the device has it already: 'version < 2.1'
    #[arg(long, value_name = "CONDITION")]
    when: Vec<Term>,
    /// The daily window in which it begins, in each device's time: 22:00-05:00
    #[arg(long, value_name = "HH:MM-HH:MM")]
    window: Option<Window>,
    /// How long until it begins
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    start_in: Option<Duration>,
    /// After this time nothing of it begins any more
    #[arg(long, value_name = "TIME", default_value = "30d", value_parser = humantime::parse_duration)]
    expires: Duration,
    /// A task that must be completed before, by its number or name; may be repeated
    #[arg(long, value_name = "TASK")]
    pub(super) after: Vec<String>,
    /// Its serial [default: one more than the last of its name]
    #[arg(long, value_name = "N")]
    pub(super) serial: Option<u64>,
}

/// A file with what the task says of it.
#[derive(Clone, Debug)]
pub(super) struct HashedFile {
    pub path: PathBuf,
    pub object: Object,
}

/// Reads and hashes the files, on threads that may block.
pub(super) async fn hash_files(paths: &[PathBuf]) -> Result<Vec<HashedFile>, CommandError> {
    let paths = paths.to_vec();
    let hashed = tokio::task::spawn_blocking(move || paths.iter().map(|path| hash_file(path)).collect());
    hashed.await.map_err(|_| CommandError::Environment("a thread ended".into()))?
}

pub(super) fn hash_file(path: &Path) -> Result<HashedFile, CommandError> {
    let failed = |error: std::io::Error| {
        CommandError::Environment(format!("cannot read {} ({error})", path.display()))
    };
    let filename = file_name(path)?;
    let mut file = std::fs::File::open(path).map_err(failed)?;
    let (mut blake3, mut sha256, mut size) = (blake3::Hasher::new(), Sha256::new(), 0);
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match file.read(&mut buffer).map_err(failed)? {
            0 => break,
            n => {
                blake3.update(&buffer[..n]);
                sha256.update(&buffer[..n]);
                size += n as u64;
            }
        }
    }
    let blake3 = Hash(*blake3.finalize().as_bytes());
    let sha256 = Hash(sha256.finalize().into());
    Ok(HashedFile { path: path.to_owned(), object: Object { filename, size, blake3, sha256 } })
}

/// The audience in the words of the command line. Tags are the server's, so they are resolved here into names: what is
/// signed does not change when somebody tags another device.
pub(super) async fn audience(to: &[String], remote: Option<&Remote>) -> Result<Audience, CommandError> {
    let tags: BTreeSet<&str> = to.iter().filter_map(|who| who.strip_prefix("tag:")).collect();
    let mut names = BTreeSet::new();
    if !tags.is_empty() {
        let remote = remote.ok_or_else(|| {
            CommandError::Usage(
                "tags are known to the server only; name the devices, or use 'mcp task add'".into(),
            )
        })?;
        for known in device::all(remote).await? {
            if known.tags.iter().any(|tag| tags.contains(tag.as_str())) {
                names.insert(known.id);
            }
        }
        if names.is_empty() {
            let tags = tags.into_iter().collect::<Vec<_>>().join(", ");
            return Err(CommandError::Usage(format!(
                "no device has the tag {tags}; 'mcp device tag' gives it"
            )));
        }
    }
    let others: Vec<&String> = to.iter().filter(|who| !who.starts_with("tag:")).collect();
    resolve(&others, names)
}

pub(super) fn audience_offline(to: &[String]) -> Result<Audience, CommandError> {
    if to.iter().any(|who| who.starts_with("tag:")) {
        let why = "tags are known to the server only; name the devices, or use 'mcp task add'";
        return Err(CommandError::Usage(why.into()));
    }
    resolve(&to.iter().collect::<Vec<_>>(), BTreeSet::new())
}

fn resolve(to: &[&String], mut names: BTreeSet<String>) -> Result<Audience, CommandError> {
    let usage = |why: &str| Err(CommandError::Usage(format!("--to: {why}")));
    let (mut all, mut terms) = (false, Vec::new());
    for who in to {
        if who.as_str() == "all" {
            all = true;
        } else if who.contains(['=', '<', '>', '!']) {
            match who.parse::<Term>() {
                Ok(term) => terms.push(term),
                Err(why) => return usage(why),
            }
        } else {
            names.insert((*who).clone());
        }
    }
    match (all, terms.is_empty(), names.is_empty()) {
        (true, true, true) => Ok(Audience::All),
        (false, false, true) => Ok(Audience::Terms(terms)),
        (false, true, false) => Ok(Audience::Devices(names)),
        (false, true, true) => usage("say for whom: all, tag:TAG, names, or a condition"),
        _ => usage("'all', names and conditions exclude each other; add a task for each"),
    }
}

impl TaskArgs {
    /// The task's name.
    pub(super) fn name(&self) -> Result<String, CommandError> {
        if let Some(name) = &self.name {
            return Ok(name.clone());
        }
        let first = self
            .files
            .first()
            .ok_or_else(|| CommandError::Usage("a task without files needs --name".into()))?;
        let stem = first.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let name: String = stem
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '-' })
            .collect();
        Ok(name.trim_start_matches(['.', '-']).chars().take(crate::limits::MAX_NAME).collect())
    }

    /// The document.
    pub(super) fn build(
        &self,
        fleet: FleetId,
        serial: u64,
        to: Audience,
        files: &[HashedFile],
    ) -> Result<Task, CommandError> {
        let now = clock::now();
        let mut task =
            Task::new(fleet, &self.name()?, serial, (now, now.saturating_add(self.expires.as_secs())));
        task.kind = match self.kind {
            KindArg::Copy => TaskKind::Copy,
            KindArg::Install => TaskKind::Install,
            KindArg::Update => TaskKind::Update,
            KindArg::Batch => TaskKind::Batch,
        };
        task.version.clone_from(&self.version);
        task.handler.clone_from(&self.handler);
        task.arguments = self.arguments.iter().map(|text| argument(text)).collect::<Result<_, _>>()?;
        task.objects = files.iter().map(|file| file.object.clone()).collect();
        task.at.clone_from(&self.at);
        task.to = to;
        task.when.clone_from(&self.when);
        task.start = self.start_in.map(|wait| now.saturating_add(wait.as_secs()));
        task.window = self.window;
        task.after.clone_from(&self.after);
        Ok(task)
    }
}

/// The signed task that undoes `task`: a file that 'mcp task sign' wrote, or what an earlier task of this number brought,
/// signed anew for the devices of `task`.
pub(super) async fn rollback(back: &str, task: &Task, remote: &Remote) -> Result<Envelope, CommandError> {
    let Ok(id) = back.parse::<i64>() else {
        return read_signed(Path::new(back));
    };
    let mut undo = super::earlier(remote, id).await?;
    undo.name.clone_from(&task.name);
    undo.serial = task.serial.saturating_add(1);
    (undo.issued, undo.expires) = (task.issued, task.expires);
    undo.to = task.to.clone();
    // It is done wherever the task has begun, and without delay.
    (undo.when, undo.after, undo.start, undo.window) = (Vec::new(), Vec::new(), None, None);
    undo.sign(&[&remote.key]).map_err(|error| CommandError::Usage(error.to_string()))
}

/// Reads a task that 'mcp task sign' wrote.
pub(super) fn read_signed(path: &Path) -> Result<Envelope, CommandError> {
    let unusable = |why: String| {
        CommandError::Usage(format!("{}: {why}; expected a file that 'mcp task sign' wrote", path.display()))
    };
    let bytes = std::fs::read(path).map_err(|error| unusable(error.to_string()))?;
    Envelope::parse(&bytes).map_err(|error| unusable(error.to_string()))
}

fn argument(text: &str) -> Result<(String, Argument), CommandError> {
    let (name, value) = text
        .split_once('=')
        .ok_or_else(|| CommandError::Usage(format!("--arg {text}: expected NAME=VALUE")))?;
    let value = match (value, value.parse::<i64>()) {
        ("true", _) => Argument::Boolean(true),
        ("false", _) => Argument::Boolean(false),
        (_, Ok(number)) if number.to_string() == value => Argument::Integer(number),
        _ => Argument::Text(value.to_owned()),
    };
    Ok((name.to_owned(), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(who: &[&str]) -> Result<Audience, CommandError> {
        audience_offline(&who.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn audiences() {
        assert_eq!(to(&["all"]).expect("all"), Audience::All);
        let names = ["a", "bench-*"].map(str::to_owned).into();
        assert_eq!(to(&["bench-*", "a"]).expect("names"), Audience::Devices(names));
        assert!(matches!(to(&["hw = b2", "version < 3"]), Ok(Audience::Terms(terms)) if terms.len() == 2));
        for wrong in [&["all", "a"][..], &["a", "hw=b"], &["all", "hw=b"], &["tag:x"], &[], &["hw ! b"]] {
            assert!(matches!(to(wrong), Err(CommandError::Usage(_))), "{wrong:?}");
        }
    }

    #[test]
    fn arguments_have_types() {
        for (text, want) in [
            ("force=true", Argument::Boolean(true)),
            ("n=-3", Argument::Integer(-3)),
            ("n=007", Argument::Text("007".into())),
            ("path=/a=b", Argument::Text("/a=b".into())),
            ("empty=", Argument::Text(String::new())),
        ] {
            assert_eq!(argument(text).expect("an argument").1, want, "{text}");
        }
        assert!(argument("nothing").is_err());
    }
}
