//! What is sent: one file or device, a tree of directories and several files, a file to be passed on, or a stream.

use super::config::SendConfig;
use super::report::Error;
use super::stream;
use mcp_transfer::net::Destination;
use mcp_transfer::protocol::provenance::Provenance;
use mcp_transfer::session::{SendSession, Target};
use mcp_transfer::storage::{FileSource, TreeSource, is_tree};
use mcp_transfer::text::escape;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// What was found under the paths of the command line.
pub enum Objects {
    /// A file or a device.
    File(FileSource),
    /// A tree.
    Tree(TreeSource),
    /// A file of another origin, to be passed on.
    Relayed(FileSource, Provenance),
    /// A stream, which is opened when it is sent.
    Stream,
}

/// The files of a command line, and the group behind them. The last word is the group unless there is such a file. Of
/// more than two words, it is so only if it is an address. The first word is a file, except that a command (`piped`) may
/// need none.
pub fn split(mut words: Vec<OsString>, piped: bool, port: u16) -> (Vec<PathBuf>, Option<String>) {
    let last = words.last().and_then(|last| last.to_str()).filter(|last| !Path::new(last).exists());
    let is_group = |text: &str| match words.len() {
        2 => true,
        1 if !piped => false,
        _ => Destination::parse(text, port).is_ok(),
    };
    let group = last.filter(|text| is_group(text)).map(str::to_owned);
    if group.is_some() {
        words.pop();
    }
    (words.into_iter().map(PathBuf::from).collect(), group)
}

impl Objects {
    /// Opens what the configuration names.
    ///
    /// # Errors
    /// If it cannot be read, or does not go together.
    pub fn open(config: &SendConfig) -> Result<Self, Error> {
        let environment = |e: &dyn std::fmt::Display| Error::Environment(e.to_string());
        let paths = &config.files;
        if stream::is_wanted(config) || paths.iter().any(|path| path == Path::new(stream::STANDARD_INPUT)) {
            if paths.len() > 1 {
                return Err(Error::Usage(
                    "standard input and --pipe are one stream; send the other files on their own".to_owned(),
                ));
            }
            if let Some(dir) = paths.first().filter(|path| path.is_dir()) {
                return Err(Error::Usage(format!(
                    "{} is a directory, which --pipe cannot read; send it without --pipe",
                    escape(&dir.to_string_lossy())
                )));
            }
            if paths.is_empty() && config.name.is_none() {
                return Err(Error::Usage(
                    "what the --pipe command prints has no name; give it one with --name".to_owned(),
                ));
            }
            return Ok(Self::Stream);
        }
        let (spool, window) = (config.stream.spool.is_some(), config.stream.window.is_some());
        if spool || window {
            let option = if spool { "--spool" } else { "--window" };
            return Err(Error::Usage(format!("{option} is for streams; a file needs none, so leave it out")));
        }
        if config.archive && !rustix::process::geteuid().is_root() {
            return Err(Error::Environment(
                "--archive needs root; run mcp as root or leave it out".to_owned(),
            ));
        }
        if is_tree(paths) {
            let tree = TreeSource::open(paths, config.name.as_deref(), config.archive);
            return tree.map(Self::Tree).map_err(|e| environment(&e));
        }
        let file = paths.first().map_or(Path::new(""), PathBuf::as_path);
        FileSource::open_as(file, config.name.as_deref()).map(Self::File).map_err(|e| environment(&e))
    }

    /// What the user should know before they are sent.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        match self {
            Self::File(file) | Self::Relayed(file, _) => Vec::from_iter(file.warning()),
            Self::Tree(tree) => tree.warnings().to_vec(),
            Self::Stream => Vec::new(),
        }
    }

    /// A session that sends them to `target`.
    ///
    /// # Errors
    /// If a stream cannot be opened.
    pub fn session(self, config: &SendConfig, target: Target) -> Result<SendSession, Error> {
        Ok(match self {
            Self::File(file) => SendSession::builder(file, target),
            Self::Tree(tree) => SendSession::tree(tree, target),
            Self::Relayed(file, origin) => SendSession::relaying(file, origin, target),
            Self::Stream => {
                let (spool, name) = stream::open(config)?;
                SendSession::stream(spool, name, target)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_is_the_group_unless_there_is_such_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let there = dir.path().join("239.1.1.1");
        std::fs::write(&there, "").unwrap();
        let there = there.to_str().unwrap();
        let plain = |words: &[&str], piped| {
            let (files, group) = split(words.iter().map(OsString::from).collect(), piped, 7417);
            (files.iter().map(|path| path.display().to_string()).collect::<Vec<_>>(), group)
        };
        let split = |more: &[&str]| {
            let (mut files, group) = plain(&[&["f"], more].concat(), false);
            assert_eq!(files.remove(0), "f");
            (files, group)
        };
        let group = |text: &str| Some(text.to_owned());
        assert_eq!(split(&[]), (vec![], None));
        assert_eq!(split(&["239.1.1.1"]), (vec![], group("239.1.1.1")));
        assert_eq!(split(&["b.iso", "239.1.1.1:7000"]), (vec!["b.iso".into()], group("239.1.1.1:7000")));
        assert_eq!(split(&["b.iso", "ff15::1"]), (vec!["b.iso".into()], group("ff15::1")));
        assert_eq!(split(&[there]), (vec![there.to_owned()], None));
        // One that is neither gets the error of a wrong address, or of a missing file.
        assert_eq!(split(&["239.1.1.300"]), (vec![], group("239.1.1.300")));
        assert_eq!(split(&["a", "239.1.1.300"]), (vec!["a".into(), "239.1.1.300".into()], None));
        assert_eq!(plain(&["239.1.1.1"], false), (vec!["239.1.1.1".into()], None));
        // A command may need no file.
        assert_eq!(plain(&["239.1.1.1"], true), (vec![], group("239.1.1.1")));
        assert_eq!(plain(&["/dev/sda2"], true), (vec!["/dev/sda2".into()], None));
        assert_eq!(plain(&["-", "239.1.1.1"], true), (vec!["-".into()], group("239.1.1.1")));
        assert_eq!(plain(&[], true), (vec![], None));
        assert_eq!(split(&["239.1.1.1", "a"]), (vec!["239.1.1.1".into(), "a".into()], None));
    }
}
