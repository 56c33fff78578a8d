//! A task on its way through the device, as it is stored, and the plan that is in it.

use super::fetch::Digests;
use crate::ddi::{Artifact, Deployment, Session};
use crate::documents::{Envelope, Hash, Object, Task, TaskKind};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use tracing::{info, warn};

/// A task that the device has taken. Stored before anything is done for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Work {
    /// The hash of the task's payload, or of an unsigned deployment.
    pub id: Hash,
    /// The action at the server.
    pub action: String,
    /// Where its feedback goes.
    pub feedback: String,
    /// 1, and one more each time the server offers it anew after it failed.
    pub attempt: u32,
    /// What is to be done.
    pub content: Content,
    /// Where its objects are to be had, by file name: mirrors first.
    pub sources: BTreeMap<String, Vec<String>>,
    /// The multicast session that brings its first object. Not stored: after a restart, the server is asked.
    #[serde(skip)]
    pub session: Option<Session>,
    /// Whether the server asks not to load now.
    #[serde(default)]
    pub hold_download: bool,
    /// Whether the server asks not to install now.
    #[serde(default)]
    pub hold_update: bool,
    /// Whether the server asks to load, and does not wait for a time to install.
    #[serde(default)]
    pub only_load: bool,
    /// How it ended.
    #[serde(default)]
    pub ended: Option<Ended>,
    /// Whether the server knows how it ended.
    #[serde(default)]
    pub reported: bool,
}

/// How a task ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ended {
    /// Whether the device now has what the task wanted.
    pub success: bool,
    /// Whether the server took it back.
    #[serde(default)]
    pub canceled: bool,
    /// Whether it was only to be loaded, and is: nothing is in place.
    #[serde(default)]
    pub downloaded: bool,
    /// `status.code` of the feedback; 0 for none.
    pub code: i32,
    /// For people.
    pub details: Vec<String>,
    /// When, in seconds since 1970.
    pub at: u64,
}

impl Ended {
    /// Logs the end of the task of this name.
    pub(crate) fn log(&self, task: &str) {
        let (code, why) = (self.code, self.details.last().map_or("", String::as_str));
        match self {
            Self { canceled: true, .. } => info!(task, code, why, "task {task} was cancelled: {why}"),
            Self { success: false, .. } => warn!(task, code, why, "task {task} failed: {why}"),
            Self { downloaded: true, .. } => info!(task, code, why, "task {task} is loaded: {why}"),
            _ => info!(task, code, why, "task {task} is done: {why}"),
        }
    }
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Content {
    /// A signed task: its envelope as JSON.
    Signed(String),
    /// Files that nobody signed, by the policy of this device. They are copied, never installed.
    Unsigned {
        /// The name and version of the first chunk.
        name: String,
        /// Its version.
        version: String,
        /// The files.
        files: Vec<UnsignedFile>,
    },
}

/// A file of an unsigned deployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct UnsignedFile {
    filename: String,
    size: u64,
    #[serde(default)]
    blake3: Option<String>,
    #[serde(default)]
    sha256: Option<String>,
    #[serde(default)]
    sha1: Option<String>,
}

/// A file that a plan needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct File {
    /// One path component.
    pub filename: String,
    /// In bytes.
    pub size: u64,
    /// What it is checked by.
    pub digests: Digests,
}

/// What is to be done, read from a work.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// The name.
    pub name: String,
    /// The version.
    pub version: String,
    /// The serial; 0 for unsigned ones.
    pub serial: u64,
    /// The files.
    pub files: Vec<File>,
    /// The signed task; `None` for unsigned copies.
    pub task: Option<Task>,
}

impl Work {
    /// A task that the server offers as `action`, with nothing done for it yet.
    pub(crate) fn new(id: Hash, action: &str, content: Content) -> Self {
        Self {
            id,
            action: action.to_owned(),
            feedback: String::new(),
            attempt: 1,
            content,
            sources: BTreeMap::new(),
            session: None,
            hold_download: false,
            hold_update: false,
            only_load: false,
            ended: None,
            reported: false,
        }
    }

    /// The plan.
    ///
    /// # Errors
    /// If what is stored cannot be read; it was checked before it was stored.
    pub(crate) fn plan(&self) -> Result<Plan, String> {
        match &self.content {
            Content::Signed(text) => {
                let envelope = Envelope::parse(text.as_bytes()).map_err(|error| error.to_string())?;
                let task = Task::parse(envelope.payload()).map_err(|error| error.to_string())?;
                let file = |object: &Object| File {
                    filename: object.filename.clone(),
                    size: object.size,
                    digests: Digests { blake3: Some(object.blake3), sha256: Some(object.sha256), sha1: None },
                };
                let files = task.objects.iter().map(file).collect();
                let (name, version, serial) = (task.name.clone(), task.version.clone(), task.serial);
                Ok(Plan { name, version, serial, files, task: Some(task) })
            }
            Content::Unsigned { name, version, files } => {
                let files: Option<Vec<_>> = files.iter().map(UnsignedFile::file).collect();
                let files =
                    files.ok_or("a file has no name of one path component, or no hash that can be read")?;
                let names: BTreeSet<_> = files.iter().map(|file| &file.filename).collect();
                if names.len() < files.len() {
                    return Err("two files have the same name".to_owned());
                }
                Ok(Plan { name: name.clone(), version: version.clone(), serial: 0, files, task: None })
            }
        }
    }

    /// Whether the task is loaded, and no more was asked for.
    pub(crate) fn is_downloaded(&self) -> bool {
        self.ended.as_ref().is_some_and(|ended| ended.downloaded)
    }

    /// Whether there is something left to do here.
    pub(crate) const fn is_open(&self) -> bool {
        self.ended.is_none()
    }
}

impl Plan {
    /// What is done with the files.
    pub(crate) fn kind(&self) -> TaskKind {
        self.task.as_ref().map_or(TaskKind::Copy, |task| task.kind)
    }
}

impl UnsignedFile {
    fn of(artifact: &Artifact) -> Self {
        let hashes = artifact.hashes.clone();
        Self {
            filename: artifact.filename.clone(),
            size: artifact.size,
            blake3: hashes.blake3,
            sha256: hashes.sha256,
            sha1: hashes.sha1,
        }
    }

    /// `None` unless the name is one path component and there is a hash that can be read.
    fn file(&self) -> Option<File> {
        let read = |text: &Option<String>| match text {
            None => Some(None),
            Some(text) => text.to_ascii_lowercase().parse::<Hash>().ok().map(Some),
        };
        let sha1 = match &self.sha1 {
            None => None,
            Some(text) => {
                let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok()?;
                Some(bytes.try_into().ok()?)
            }
        };
        let digests = Digests { blake3: read(&self.blake3)?, sha256: read(&self.sha256)?, sha1 };
        let some = digests.strong() || digests.sha1.is_some();
        let named = crate::documents::is_filename(&self.filename);
        (some && named).then(|| File { filename: self.filename.clone(), size: self.size, digests })
    }
}

/// The unsigned content of a deployment, and a hash that names it: the same files in the same versions have the same one.
pub(crate) fn unsigned(deployment: &Deployment) -> Option<(Hash, Content)> {
    let first = deployment.chunks.first()?;
    let files: Vec<_> =
        deployment.chunks.iter().flat_map(|chunk| &chunk.artifacts).map(UnsignedFile::of).collect();
    if files.is_empty() {
        return None;
    }
    let content = Content::Unsigned { name: first.name.clone(), version: first.version.clone(), files };
    let bytes = serde_json::to_vec(&content).ok()?;
    Some((Hash(blake3::derive_key("mcp 2026-11-22 name of an unsigned deployment v1", &bytes)), content))
}
