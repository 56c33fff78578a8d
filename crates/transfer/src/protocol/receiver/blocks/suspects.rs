//! Blocks that disagree with their chaining value: some of their symbols were forged, or damaged on the way.
//!
//! ```text
//!  disagrees ──► waiting ──room──► asking ──all digests──► sifting ──► choosy ──stored──► verified
//!                                                             ▲          │ disagrees again
//!                                                             └──────────┘
//! ```
//! The block stays in the part file as it came out. The sender is asked for the digests of its source symbols,
//! a worker tells by them which are right, and what is wrong is missing again. From then on only source symbols that
//! have their digests are taken for it, so nothing forged can enter any more, however much comes. A number of
//! blocks are looked into at a time, since their digests take memory; the others wait.

use super::{BlockCheck, Blocks};
use crate::crypto::digest::symbol_digest;
use crate::fec::{BlockAssembly, Buffer};
use crate::limits::{MAX_SUSPECT_SYMBOLS, MAX_SUSPECTS};
use crate::protocol::job::ReceiverJob;
use crate::ranges::BitSet;
use crate::units::{BlockIndex, Esi, SymbolDigest};
use crate::wire::SymbolDigests;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Where a suspect block stands.
#[derive(Debug)]
enum Stage {
    /// Some digests have not come.
    Asking { digests: Vec<SymbolDigest>, known: BitSet },
    /// All have: it waits for the worker, or is with it.
    Sifting { digests: Arc<Vec<SymbolDigest>>, begun: bool },
    /// Only what has its digest is taken.
    Choosy(Arc<Vec<SymbolDigest>>),
}

#[derive(Debug)]
struct Suspect {
    /// Source symbols that were received, not decoded; none if that is not known any more.
    received: BitSet,
    stage: Stage,
}

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Suspects {
    /// There was no room for them yet, with the symbols received.
    waiting: BTreeMap<u32, BitSet>,
    open: BTreeMap<u32, Suspect>,
    /// Source symbols of those open.
    symbols: usize,
    /// A worker is at one.
    sifting: bool,
    /// Symbols thrown away because they did not have their digests.
    pub forged: u64,
}

impl Suspects {
    /// A block disagrees with its chaining value, and is in the part file.
    pub fn suspect(&mut self, block: u32, received: BitSet) {
        match self.open.get_mut(&block) {
            Some(Suspect { received: old, stage }) => {
                if let Stage::Choosy(digests) = stage {
                    *stage = Stage::Sifting { digests: Arc::clone(digests), begun: false };
                    *old = received;
                }
            }
            None => {
                self.waiting.insert(block, received);
                self.make_room();
            }
        }
    }

    /// Opens blocks that wait, as far as there is room.
    fn make_room(&mut self) {
        while let Some(entry) = self.waiting.first_entry() {
            let k = entry.get().capacity();
            let room = self.symbols + k as usize <= MAX_SUSPECT_SYMBOLS || self.open.is_empty();
            if self.open.len() >= MAX_SUSPECTS || !room {
                return;
            }
            let (block, received) = entry.remove_entry();
            let digests = vec![SymbolDigest::default(); k as usize];
            let stage = Stage::Asking { digests, known: BitSet::new(k) };
            self.symbols += k as usize;
            self.open.insert(block, Suspect { received, stage });
        }
    }

    /// A block is suspect no more.
    pub fn clear(&mut self, block: u32) {
        self.waiting.remove(&block);
        if let Some(suspect) = self.open.remove(&block) {
            self.symbols -= suspect.received.capacity() as usize;
            self.make_room();
        }
    }

    /// Whether only source symbols with their digests are taken for a block.
    pub fn is_choosy(&self, block: u32) -> bool {
        matches!(self.open.get(&block), Some(Suspect { stage: Stage::Choosy(_), .. }))
    }

    /// Whether a symbol may be taken.
    pub fn admits(&mut self, block: BlockIndex, id: Esi, payload: &[u8]) -> bool {
        let Some(Suspect { stage: Stage::Choosy(digests), .. }) = self.open.get(&block.0) else {
            return true;
        };
        // A repair symbol may be right, but nobody can tell.
        let Some(digest) = digests.get(id.0 as usize) else { return false };
        let right = symbol_digest(payload) == *digest;
        self.forged += u64::from(!right);
        right
    }
}

impl Blocks {
    /// Symbols that were thrown away because they did not have the digests that the sender has signed.
    pub fn forged_symbols(&self) -> u64 {
        self.suspects.forged + self.vouched_against()
    }

    /// The blocks whose digests have to be asked for.
    pub fn suspects(&self) -> Vec<BlockIndex> {
        let open = self.suspects.open.iter();
        let asking = open.filter(|(_, suspect)| matches!(suspect.stage, Stage::Asking { .. }));
        asking.map(|(&block, _)| BlockIndex(block)).collect()
    }

    /// Takes digests in; whether any of them was new.
    pub fn add_digests(&mut self, message: &SymbolDigests) -> bool {
        if self.note_digests(message) {
            return false;
        }
        let Some(suspect) = self.suspects.open.get_mut(&message.block.0) else { return false };
        let Stage::Asking { digests, known } = &mut suspect.stage else { return false };
        let start = message.first_esi.0 as usize;
        let Some(slots) = digests.get_mut(start..start + message.digests.len()) else { return false };
        let before = known.count();
        for ((id, slot), digest) in (message.first_esi.0..).zip(slots).zip(&message.digests) {
            // The first counts: the sender has signed them all.
            if known.insert(id) {
                *slot = *digest;
            }
        }
        let new = known.count() > before;
        if known.is_full() {
            suspect.stage = Stage::Sifting { digests: Arc::new(std::mem::take(digests)), begun: false };
        }
        new
    }

    /// The next block to be sifted: one at a time, as each takes a block's memory.
    pub fn next_sift(&mut self) -> Option<ReceiverJob> {
        if self.suspects.sifting {
            return None;
        }
        let ready = |(block, suspect): (&u32, &Suspect)| match &suspect.stage {
            Stage::Sifting { digests, begun: false } => Some((BlockIndex(*block), Arc::clone(digests))),
            _ => None,
        };
        let (block, digests) = self.suspects.open.iter().find_map(ready)?;
        let expected = self.expected(block)?;
        if let Some(Suspect { stage: Stage::Sifting { begun, .. }, .. }) =
            self.suspects.open.get_mut(&block.0)
        {
            *begun = true;
        }
        self.suspects.sifting = true;
        let buffer = self.take_held(block);
        let coded = self.coded(block);
        Some(ReceiverJob::Sift { block, layout: self.layout, coded, digests, expected, buffer })
    }

    /// A block was sifted; what became of it, and how many symbols were thrown away as forged.
    pub fn sifted(
        &mut self,
        block: BlockIndex,
        right: BitSet,
        agrees: bool,
        buffer: Option<Buffer>,
    ) -> (BlockCheck, u32) {
        self.suspects.sifting = false;
        if let Some(buffer) = buffer {
            self.keep_or_free(block, buffer);
        }
        let Some(suspect) = self.suspects.open.get_mut(&block.0) else { return (BlockCheck::Verified, 0) };
        let Stage::Sifting { digests, .. } = &suspect.stage else { return (BlockCheck::Verified, 0) };
        if agrees {
            self.verify(block);
            return (BlockCheck::Verified, 0);
        }
        if right.is_full() {
            // All is as the sender says, and yet it is not.
            return (BlockCheck::Hopeless, 0);
        }
        suspect.stage = Stage::Choosy(Arc::clone(digests));
        let runs = suspect.received.runs(true);
        let wrong = runs.flat_map(|(first, count)| first..first + count).filter(|&id| !right.contains(id));
        // If all that was received is right, it was a repair symbol.
        let forged = (wrong.count() as u32).max(1);
        self.suspects.forged += u64::from(forged);
        self.received_symbols += u64::from(right.count());
        self.settled.remove(block.0);
        let coded = self.coded(block);
        let assembly = match self.take_held(block) {
            Some(buffer) => {
                self.buffered.push_back(block.0);
                BlockAssembly::holding(&self.layout, block, coded, (right, buffer))
            }
            None => BlockAssembly::with_sources(&self.layout, block, coded, right),
        };
        self.partial.insert(block.0, assembly);
        (BlockCheck::Waiting, forged)
    }
}

#[cfg(test)]
mod tests;
