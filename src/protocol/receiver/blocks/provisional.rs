//! Blocks of a session that has not admitted the device: there is no part file to store them in.

use super::{Blocks, ReceiverJob};
use crate::layout::Layout;
use crate::units::BlockIndex;

impl Blocks {
    /// Those of a session that has not admitted this device: what arrives stays in the buffers, and no job is
    /// asked for, until [`Blocks::release`].
    pub fn provisional(layout: Layout, buffer_bytes: usize) -> Self {
        Self { provisional: true, ..Self::new(layout, buffer_bytes) }
    }

    /// There is a part file now. The jobs to be done for what has arrived, one for each whole block.
    pub fn release(&mut self) -> Vec<ReceiverJob> {
        self.provisional = false;
        let whole = self.partial.iter().filter(|(_, assembly)| assembly.deficit() == 0);
        let whole: Vec<u32> = whole.map(|(&block, _)| block).collect();
        whole.into_iter().filter_map(|block| self.store(BlockIndex(block))).collect()
    }
}
