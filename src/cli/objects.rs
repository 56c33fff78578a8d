//! What `mcp send` sends: one file or device, a tree of directories and several files, or a stream.

use super::config::SendConfig;
use super::report::Error;
use super::stream;
use crate::net::Destination;
use crate::session::{SendSession, Target};
use crate::storage::{FileSource, TreeSource, is_tree};
use crate::text::escape;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// What was found under the paths of the command line.
pub enum Objects {
    /// A file or a device.
    File(FileSource),
    /// A tree.
    Tree(TreeSource),
    /// A stream, which is opened when it is sent.
    Stream,
}

/// The files that follow the first one on the command line, and the group behind them. The last word is the group unless
/// there is such a file. Of several words, it is so only if it is an address.
pub fn split(mut more: Vec<OsString>, port: u16) -> (Vec<PathBuf>, Option<String>) {
    let last = more.last().and_then(|last| last.to_str()).filter(|last| !Path::new(last).exists());
    let is_group = |text: &str| more.len() == 1 || Destination::parse(text, port).is_ok();
    let group = last.filter(|text| is_group(text)).map(str::to_owned);
    if group.is_some() {
        more.pop();
    }
    (more.into_iter().map(PathBuf::from).collect(), group)
}

impl Objects {
    /// Opens what the configuration names.
    ///
    /// # Errors
    /// If it cannot be read, or does not go together.
    pub fn open(config: &SendConfig) -> Result<Self, Error> {
        let environment = |e: &dyn std::fmt::Display| Error::Environment(e.to_string());
        let paths: Vec<PathBuf> = [&config.file].into_iter().chain(&config.more).cloned().collect();
        if stream::is_wanted(config)
            || config.more.iter().any(|path| path == Path::new(stream::STANDARD_INPUT))
        {
            if paths.len() > 1 {
                return Err(Error::Usage(
                    "standard input and --pipe are one stream; send the other files on their own".to_owned(),
                ));
            }
            if config.file.is_dir() {
                return Err(Error::Usage(format!(
                    "{} is a directory, which --pipe cannot read; send it without --pipe",
                    escape(&config.file.to_string_lossy())
                )));
            }
            return Ok(Self::Stream);
        }
        if config.archive && !rustix::process::geteuid().is_root() {
            return Err(Error::Environment(
                "--archive needs root; run mcp as root or leave it out".to_owned(),
            ));
        }
        if is_tree(&paths) {
            let tree = TreeSource::open(&paths, config.name.as_deref(), config.archive);
            return tree.map(Self::Tree).map_err(|e| environment(&e));
        }
        FileSource::open_as(&config.file, config.name.as_deref()).map(Self::File).map_err(|e| environment(&e))
    }

    /// What the user should know before they are sent.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        match self {
            Self::File(file) => Vec::from_iter(file.warning()),
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
        let split = |words: &[&str]| {
            let (more, group) = split(words.iter().map(OsString::from).collect(), 7417);
            (more.iter().map(|path| path.display().to_string()).collect::<Vec<_>>(), group)
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
        assert_eq!(split(&["239.1.1.1", "a"]), (vec!["239.1.1.1".into(), "a".into()], None));
    }
}
