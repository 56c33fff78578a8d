//! Forged symbols in a session without feedback: nobody can be asked, but without a group key the sender tells the
//! digests of all symbols ahead of them.
//!
//! A block that disagrees with its chaining value is begun anew. From then on, only symbols count for it that have the
//! digests told for them. So nothing forged gets in again, however much is sent, and the block is complete after the
//! next pass.

use super::Blocks;
use crate::crypto::digest::symbol_digest;
use crate::layout::Layout;
use crate::limits::MAX_SUSPECT_SYMBOLS;
use crate::protocol::receiver::session::Session;
use crate::ranges::BitSet;
use crate::units::{BlockIndex, Esi, SymbolDigest};
use crate::wire::SymbolDigests;
use std::collections::{BTreeMap, VecDeque};

/// The digests of blocks that were begun anew.
#[derive(Debug)]
pub(super) struct Vouched {
    /// Whether the symbols are sealed. Then no digests come.
    sealed: bool,
    /// Blocks for which only symbols with digests count.
    choosy: BitSet,
    /// Their digests, by block and first ESI; the oldest are dropped first.
    digests: BTreeMap<(u32, u32), Vec<SymbolDigest>>,
    order: VecDeque<(u32, u32)>,
    /// The number of these digests.
    held: usize,
    /// Symbols that were dropped because they disagree with their digests.
    forged: u64,
}

impl Vouched {
    fn new(layout: &Layout, sealed: bool) -> Self {
        Self {
            sealed,
            choosy: BitSet::new(layout.block_count()),
            digests: BTreeMap::new(),
            order: VecDeque::new(),
            held: 0,
            forged: 0,
        }
    }

    /// For another session of the same sender.
    pub fn anew(self, layout: &Layout) -> Self {
        Self { forged: self.forged, ..Self::new(layout, self.sealed) }
    }

    pub fn grow(&mut self, layout: &Layout) {
        self.choosy.resize(layout.block_count());
    }

    fn note(&mut self, message: &SymbolDigests) {
        let key = (message.block.0, message.first_esi.0);
        if !self.choosy.contains(key.0) || self.digests.contains_key(&key) {
            return;
        }
        self.held += message.digests.len();
        self.digests.insert(key, message.digests.clone());
        self.order.push_back(key);
        while self.held > MAX_SUSPECT_SYMBOLS {
            let Some(oldest) = self.order.pop_front() else { return };
            self.held -= self.digests.remove(&oldest).map_or(0, |digests| digests.len());
        }
    }

    fn admits(&mut self, block: BlockIndex, id: Esi, payload: &[u8]) -> bool {
        if !self.choosy.contains(block.0) {
            return true;
        }
        let before = self.digests.range((block.0, 0)..=(block.0, id.0)).next_back();
        let digest = before.and_then(|(&(_, first), digests)| digests.get((id.0 - first) as usize));
        let Some(digest) = digest else { return false };
        let right = symbol_digest(payload) == *digest;
        self.forged += u64::from(!right);
        right
    }
}

impl Blocks {
    /// For this session.
    pub fn for_session(mut self, session: &Session) -> Self {
        if session.one_way && self.vouched.is_none() {
            self.vouched = Some(Vouched::new(&self.layout, session.side.is_sealed()));
        }
        self
    }

    /// Takes digests. False if they are for a session with feedback.
    pub(super) fn note_digests(&mut self, message: &SymbolDigests) -> bool {
        self.vouched.as_mut().map(|vouched| vouched.note(message)).is_some()
    }

    /// Whether a symbol counts for its block.
    pub(super) fn is_vouched_for(&mut self, block: BlockIndex, id: Esi, payload: &[u8]) -> bool {
        self.vouched.as_mut().is_none_or(|vouched| vouched.admits(block, id, payload))
    }

    /// Symbols that were dropped because they disagree with their digests.
    pub(super) fn vouched_against(&self) -> u64 {
        self.vouched.as_ref().map_or(0, |vouched| vouched.forged)
    }

    /// Begins a block that disagrees anew, in a session without feedback. Returns which of its symbols to keep, and
    /// whether the sender contradicts itself: all its symbols have the digests that it has signed.
    pub(super) fn begin_anew(&mut self, block: BlockIndex, kept: Option<BitSet>) -> (Option<BitSet>, bool) {
        let Some(vouched) = &mut self.vouched else { return (kept, false) };
        let hopeless = !vouched.sealed && !vouched.choosy.insert(block.0);
        self.drop_held(block.0);
        (None, hopeless)
    }

    /// The blocks that are not verified, as ranges of first block and count.
    pub fn unverified(&self) -> Vec<(u32, u32)> {
        self.verified.runs(false).collect()
    }
}
