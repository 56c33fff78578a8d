//! Blocks of a session that has not admitted the device: there is no part file to store them in.

use super::{Blocks, ReceiverJob};
use crate::layout::Layout;
use crate::units::BlockIndex;

impl Blocks {
    /// Blocks of a session that has not admitted this device. Symbols stay in the buffers, and no job is
    /// requested until [`Blocks::release`].
    pub fn provisional(layout: Layout, buffer_bytes: usize) -> Self {
        Self { provisional: true, ..Self::new(layout, buffer_bytes) }
    }

    /// Notes that there is a part file now. Returns a job for each complete block.
    pub fn release(&mut self) -> Vec<ReceiverJob> {
        self.provisional = false;
        let whole = self.partial.iter().filter(|(_, assembly)| assembly.deficit() == 0);
        let whole: Vec<u32> = whole.map(|(&block, _)| block).collect();
        whole.into_iter().filter_map(|block| self.store(BlockIndex(block))).collect()
    }
}
