//! Where received trees are put.

use super::existing::ExistingTree;
use super::old::OldTree;
use super::part::TreePart;
use super::publish::require_one_free;
use super::source::several;
use super::staging::has_orphan;
use super::{TreeOptions, TreeShape};
use crate::storage::sink::Target;
use crate::storage::{DeviceNotes, Found, Part, SinkError, SourceError};
use rustix::fs::AtFlags;
use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;

/// How trees are received.
#[derive(Clone, Debug, Default)]
pub struct TreeSink {
    options: TreeOptions,
    old: Option<Arc<OldTree>>,
    pub notes: DeviceNotes,
}

impl TreeSink {
    /// With these options, and with unchanged files from the directory `from`.
    ///
    /// # Errors
    /// If that cannot be read.
    pub fn new(options: TreeOptions, from: Option<&Path>) -> Result<Self, SourceError> {
        let old = from.map(OldTree::open).transpose()?.map(Arc::new);
        Ok(Self { options, old, notes: DeviceNotes::default() })
    }

    /// Looks up what is there of the tree called `name`.
    pub fn probe(&self, target: Target, name: &str, shape: &TreeShape, keeps_equal: bool) -> Found {
        let some = has_orphan(&target) || self.old.is_some() || self.has_some_in_place(&target, name, shape);
        let may_keep = (keeps_equal || !self.options.force) && !self.options.merge && shape.head.tops == 1;
        match may_keep.then(|| ExistingTree::open(target, name, shape)).flatten() {
            Some(tree) => Found::Whole(Box::new(tree)),
            None if some => Found::Part,
            None => Found::Nothing,
        }
    }

    /// Whether something of the tree may be in place. Of several files, the name tells only the first.
    fn has_some_in_place(&self, target: &Target, name: &str, shape: &TreeShape) -> bool {
        let first = match shape.head.tops {
            1 => Some(target.name.as_os_str()).filter(|_| self.options.force || self.options.merge),
            tops => name.strip_suffix(&several(tops)).map(OsStr::new),
        };
        let stat = first.map(|name| rustix::fs::statat(&target.dir, name, AtFlags::SYMLINK_NOFOLLOW));
        stat.is_some_and(|stat| stat.is_ok())
    }

    /// Begins to receive the tree called `name`.
    ///
    /// # Errors
    /// If the name is taken, or the disk fails.
    pub fn create(&self, target: Target, name: &str, shape: &TreeShape) -> Result<Box<dyn Part>, SinkError> {
        if shape.head.tops == 1 && !self.options.merge {
            let taken = rustix::fs::statat(&target.dir, &target.name, AtFlags::SYMLINK_NOFOLLOW);
            if let Ok(stat) = taken {
                let kind = rustix::fs::FileType::from_raw_mode(stat.st_mode);
                let is_directory = kind != rustix::fs::FileType::RegularFile;
                require_one_free(&target, &target.name, &target.path, is_directory, self.options, || false)?;
            }
        }
        let old = self.old.clone().or_else(|| OldTree::in_place(&target, shape.head.tops).map(Arc::new));
        let settings = (self.options, self.notes.clone());
        Ok(Box::new(TreePart::create((target, name), *shape, settings, old)?))
    }
}
