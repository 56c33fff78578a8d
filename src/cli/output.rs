//! Where `mcp recv` puts what it receives: files, a block device, or a pipe.

use super::config::RecvConfig;
use mcp_transfer::storage::{
    DeviceNotes, DeviceSink, FileSink, PipeSink, Reader, Sink, SinkError, TreeOptions,
};

/// The destination that the user chose with `-o`.
pub enum Output {
    /// A directory or a file name.
    Files(FileSink),
    /// A block device.
    Device(DeviceSink),
    /// Standard output, or a command.
    Pipe(PipeSink),
}

impl Output {
    /// The destination of this configuration, as the disk has it now.
    ///
    /// # Errors
    /// If it is a name among the devices that does not exist.
    pub fn of(config: &RecvConfig) -> Result<Self, SinkError> {
        if config.is_passed_on() {
            let reader = config.pipe.clone().map_or(Reader::Stdout, Reader::Command);
            return Ok(Self::Pipe(PipeSink::new(reader, config.spool.clone())));
        }
        Ok(match DeviceSink::at(&config.output, config.force)? {
            Some(device) => Self::Device(device),
            None => {
                let files = FileSink::new(Some(config.output.clone()), config.force).keep_equal(config.again);
                let options =
                    TreeOptions { force: config.force, merge: config.merge, archive: config.archive };
                let from = config.from.as_deref().filter(|from| from.is_dir());
                let files = files.trees(options, from).map_err(|e| SinkError::Disk(e.to_string()))?;
                Self::Files(files)
            }
        })
    }

    /// Whether it is a block device.
    #[must_use]
    pub const fn is_device(&self) -> bool {
        matches!(self, Self::Device(_))
    }

    /// Checks what can be checked before a sender comes.
    ///
    /// # Errors
    /// If it cannot be written to now.
    pub fn check(&self) -> Result<(), SinkError> {
        match self {
            Self::Files(sink) => sink.check(),
            Self::Device(sink) => sink.check(),
            Self::Pipe(_) => Ok(()),
        }
    }

    /// What the user is to be told of a device or a tree.
    #[must_use]
    pub fn notes(&self) -> DeviceNotes {
        match self {
            Self::Files(sink) => sink.notes(),
            Self::Pipe(_) => DeviceNotes::default(),
            Self::Device(sink) => sink.notes(),
        }
    }

    /// The sink of a session.
    #[must_use]
    pub fn into_sink(self) -> Box<dyn Sink> {
        match self {
            Self::Files(sink) => Box::new(sink),
            Self::Device(sink) => Box::new(sink),
            Self::Pipe(sink) => Box::new(sink),
        }
    }
}
