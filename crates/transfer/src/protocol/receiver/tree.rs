//! Trees: an object that begins with a manifest. Once the manifest's blocks are verified, the storage lays out the rest by
//! it. Before that, nothing behind the manifest is looked for on the disk: where it would be is unknown.

use super::session::Session;
use super::{Receiver, State};
use crate::protocol::job::ReceiverJob;
use crate::ranges::BitSet;

/// Whether the storage knows where the files of the tree are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Arranging {
    /// The manifest is incomplete.
    #[default]
    Unasked,
    /// The job is in progress.
    Asked,
    Done,
}

impl Session {
    /// The number of blocks with the manifest of a tree; `None` for other objects.
    pub fn manifest_blocks(&self) -> Option<u32> {
        let len = u64::from(self.tree?.manifest);
        // At most the blocks of the object, whose number fits.
        Some(len.div_ceil(1 << self.layout.block_log2()) as u32)
    }

    /// The job that looks up what the device holds of the object.
    pub fn probe_job(&self) -> ReceiverJob {
        let (session, name, layout) = (self.id, self.name.clone(), self.layout);
        ReceiverJob::Probe { session, name, layout, tree: self.tree }
    }

    /// The job that opens the destination.
    pub fn open_job(&self) -> ReceiverJob {
        let (name, layout, entry) = (self.name.clone(), self.layout, self.entry.clone());
        ReceiverJob::Open { name, layout, entry, tree: self.tree }
    }
}

impl Receiver {
    /// Whether the storage knows where everything belongs.
    pub(super) fn is_arranged(&self) -> bool {
        self.session.as_ref().is_none_or(|session| session.tree.is_none())
            || self.arranging == Arranging::Done
    }

    /// Withholds the candidates behind the manifest of a tree. Called when the destination has been opened.
    pub(super) fn withhold_candidates(&mut self) {
        let from = self.session.as_ref().and_then(Session::manifest_blocks);
        if let (Some(from), Some(blocks)) = (from, &mut self.blocks) {
            blocks.withhold_candidates(from);
        }
    }

    /// Requests that the tree be laid out, once its manifest is verified.
    pub(super) fn arrange(&mut self) {
        if !matches!(self.state, State::Receiving) || self.arranging != Arranging::Unasked {
            return;
        }
        let (Some(session), Some(blocks)) = (&self.session, &self.blocks) else { return };
        if session.manifest_blocks().is_some_and(|count| blocks.has_first(count)) {
            let layout = session.layout;
            self.arranging = Arranging::Asked;
            self.job(ReceiverJob::Arrange { layout });
        }
    }

    /// The tree is laid out. `there` are the blocks that may be on the disk already.
    pub(super) fn arranged(&mut self, there: &BitSet) {
        self.arranging = Arranging::Done;
        if let Some(blocks) = &mut self.blocks {
            blocks.release_candidates(there);
        }
    }
}
