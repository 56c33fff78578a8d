//! What the object lacks: hash pages, whole blocks, symbols of blocks.

use super::Blocks;
use crate::fec::BlockAssembly;
use crate::limits::HASHES_PER_PAGE;

/// A missing part of the object.
#[derive(Debug)]
pub(in crate::protocol::receiver) enum Missing<'a> {
    /// Nothing of these blocks has arrived.
    Whole { first: u32, count: u32 },
    /// Some symbols of this block have arrived.
    Symbols(&'a BlockAssembly),
    /// Some symbols of this block were forged, and only its missing source symbols count.
    Sources(&'a BlockAssembly),
}

impl Missing<'_> {
    /// Cuts this down to what `buffers` free buffers have room for. Returns how many of them it takes; `None` if there is
    /// no room for any of it.
    pub fn take_within(&mut self, buffers: u32) -> Option<u32> {
        let needs = match self {
            Self::Whole { count, .. } => {
                *count = buffers.min(*count);
                return (*count > 0).then_some(*count);
            }
            Self::Symbols(assembly) | Self::Sources(assembly) => u32::from(!assembly.has_buffer()),
        };
        (needs <= buffers).then_some(needs)
    }
}

impl Blocks {
    /// Pages that lack values of blocks below `position`, as `(first, count)`.
    pub fn missing_pages(&self, position: u32) -> Vec<(u32, u32)> {
        let mut missing: Vec<(u32, u32)> = Vec::new();
        let mut next = 0;
        let position = position.min(self.layout.block_count());
        let end = position.div_ceil(HASHES_PER_PAGE);
        let serves = |&(&page, values): &(&u32, &Vec<_>)| {
            let told = page * HASHES_PER_PAGE + values.len() as u32;
            told >= position || values.len() == HASHES_PER_PAGE as usize
        };
        let below = self.pages.iter().take_while(|&(&page, _)| page < end);
        for have in below.filter(serves).map(|(&page, _)| page).chain([end]) {
            if next < have {
                missing.push((next, have - next));
            }
            next = have + 1;
        }
        missing
    }

    /// Calls `more` for each missing part of the blocks below `position`, lowest first, until it returns
    /// false.
    pub fn each_missing(&self, position: u32, mut more: impl FnMut(Missing<'_>) -> bool) {
        let end = position.min(self.layout.block_count());
        let mut block = 0;
        while let Some(open) = self.settled.next(block, false).filter(|&b| b < end) {
            if self.resume.contains(open) {
                block = self.resume.next(open, false).unwrap_or(end);
                continue;
            }
            let next_settled = self.settled.next(open, true).unwrap_or(end).min(end);
            let next_settled = self.resume.next(open, true).unwrap_or(end).min(next_settled);
            let next_partial = self.partial.range(open..next_settled).next();
            let go_on = match next_partial {
                Some((&at, assembly)) if at == open => {
                    block = open + 1;
                    more(if self.suspects.is_choosy(open) {
                        Missing::Sources(assembly)
                    } else {
                        Missing::Symbols(assembly)
                    })
                }
                other => {
                    block = other.map_or(next_settled, |(&at, _)| at);
                    more(Missing::Whole { first: open, count: block - open })
                }
            };
            if !go_on {
                return;
            }
        }
    }
}
