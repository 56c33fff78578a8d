//! A step under way: what it waits for, and its symbols, column by column.

use super::schedule::Step;
use crate::limits::DIGESTS_PER_MESSAGE;
use crate::units::{BlockIndex, Esi, SymbolDigest};
use crate::wire::SymbolDigests;
use std::ops::Range;
use std::sync::Arc;

/// Width of a column in symbols: so many symbols of a block follow one another, and can be handed to the kernel together.
const COLUMN: u32 = 4;
/// Columns whose digests are sent together, ahead of them.
const TOLD: u32 = DIGESTS_PER_MESSAGE as u32;

const _: () = assert!(TOLD.is_multiple_of(COLUMN));

/// The symbols of one block in a step: those with the ESIs `first..first + count`.
#[derive(Debug)]
struct Part {
    block: BlockIndex,
    first: u32,
    count: u32,
    /// Repair symbols, once they are encoded.
    symbols: Option<Arc<Vec<u8>>>,
    /// Their digests, once they are computed.
    digests: Option<Vec<SymbolDigest>>,
}

impl Part {
    /// The digests of the symbols in these columns.
    fn told(&self, columns: Range<u32>) -> Option<SymbolDigests> {
        let range = columns.start as usize..columns.end.min(self.count) as usize;
        let digests = self.digests.as_ref()?.get(range).filter(|digests| !digests.is_empty())?.to_vec();
        Some(SymbolDigests { block: self.block, first_esi: Esi(self.first + columns.start), digests })
    }
}

/// What is sent next.
#[derive(Debug)]
pub(super) enum Item {
    /// Digests of symbols that follow.
    Digests(SymbolDigests),
    /// Source symbols of a block.
    Source(BlockIndex, Range<u32>),
    /// Repair symbols: a range of bytes of `symbols`, the first of which has the ESI `first`.
    Repair { block: BlockIndex, first: Esi, symbols: Arc<Vec<u8>>, range: Range<usize> },
}

/// See the module's description.
#[derive(Debug)]
pub(super) struct Work {
    pub step: Step,
    parts: Vec<Part>,
    /// Whether the symbols need no digests, because they are sealed.
    sealed: bool,
    /// Parts that wait for a worker.
    waiting: usize,
    /// The column and the part that come next, and whether it is their digests.
    column: u32,
    part: usize,
    telling: bool,
}

impl Work {
    /// A step with the symbols of these blocks: block, first ESI, count.
    pub fn new(step: Step, parts: Vec<(u32, u32, u32)>, sealed: bool) -> Self {
        let part = |(block, first, count)| {
            let block = BlockIndex(block);
            Part { block, first, count, symbols: None, digests: None }
        };
        let parts: Vec<Part> = parts.into_iter().map(part).collect();
        let source = matches!(step, Step::Source(_));
        let waiting = if source && sealed { 0 } else { parts.len() };
        Self { step, parts, sealed, waiting, column: 0, part: 0, telling: !sealed }
    }

    /// The number of its encoded symbols, also of those that are still to be encoded.
    pub fn encoded_symbols(&self) -> u32 {
        let parts = self.parts.iter().filter(|_| matches!(self.step, Step::Repair(..)));
        parts.map(|part| part.count).sum()
    }

    /// Whether it waits for no worker.
    pub const fn is_ready(&self) -> bool {
        self.waiting == 0
    }

    fn part_of(&mut self, block: BlockIndex, first: Esi) -> Option<&mut Part> {
        self.parts.iter_mut().find(|part| part.block == block && part.first == first.0)
    }

    /// Takes encoded symbols. False if it does not wait for them.
    pub fn encoded(&mut self, block: BlockIndex, first: Esi, symbols: &Arc<Vec<u8>>) -> bool {
        if !matches!(self.step, Step::Repair(..)) {
            return false;
        }
        let Some(part) = self.part_of(block, first).filter(|part| part.symbols.is_none()) else {
            return false;
        };
        part.symbols = Some(Arc::clone(symbols));
        if self.sealed {
            self.waiting -= 1;
        }
        true
    }

    /// Takes the digests of a part's symbols. `None` if it does not wait for them.
    pub fn vouched(&mut self, block: BlockIndex, first: Esi, digests: &[SymbolDigest]) -> Option<()> {
        let source = matches!(self.step, Step::Source(_));
        let waits = |part: &&mut Part| part.digests.is_none() && part.symbols.is_none() == source;
        let part = self.part_of(block, first).filter(waits)?;
        part.digests = Some(digests.to_vec());
        self.waiting -= 1;
        Some(())
    }

    /// What is sent next, at most `most` symbols; `None` once all is sent. Call it once the step is ready.
    pub fn next(&mut self, most: u32) -> Option<Item> {
        let width = self.parts.iter().map(|part| part.count).max().unwrap_or(0);
        while self.column < width {
            let group = self.column / TOLD * TOLD;
            let Some(part) = self.parts.get(self.part) else {
                self.part = 0;
                if !std::mem::take(&mut self.telling) {
                    self.column += self.step_of(most);
                    self.telling = !self.sealed && self.column.is_multiple_of(TOLD);
                }
                continue;
            };
            self.part += 1;
            if self.telling {
                if let Some(digests) = part.told(group..group + TOLD) {
                    return Some(Item::Digests(digests));
                }
                continue;
            }
            let ids = self.column..(self.column + self.step_of(most)).min(part.count);
            if !ids.is_empty() {
                return Some(self.item(part, ids));
            }
        }
        None
    }

    /// The width of a column, a divisor of [`TOLD`].
    const fn step_of(&self, most: u32) -> u32 {
        if most < COLUMN { 1 } else { COLUMN }
    }

    fn item(&self, part: &Part, ids: Range<u32>) -> Item {
        let first = part.first;
        match &part.symbols {
            None => Item::Source(part.block, first + ids.start..first + ids.end),
            Some(symbols) => {
                let size = symbols.len() / part.count.max(1) as usize;
                let range = ids.start as usize * size..ids.end as usize * size;
                Item::Repair {
                    block: part.block,
                    first: Esi(first + ids.start),
                    symbols: Arc::clone(symbols),
                    range,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(n: u32) -> SymbolDigest {
        SymbolDigest([n as u8; 16])
    }

    /// What is sent: `d` for digests, or the block, with the first id and the count.
    fn play(work: &mut Work, most: u32) -> Vec<(char, u32, u32, usize)> {
        let items = std::iter::from_fn(|| work.next(most));
        items
            .map(|item| match item {
                Item::Digests(d) => ('d', d.block.0, d.first_esi.0, d.digests.len()),
                Item::Source(block, ids) => ('s', block.0, ids.start, ids.len()),
                Item::Repair { block, first, range, .. } => ('r', block.0, first.0, range.len() / 8),
            })
            .collect()
    }

    #[test]
    fn symbols_go_out_column_by_column_after_their_digests() {
        let mut work = Work::new(Step::Source(4..7), vec![(4, 0, 66), (5, 0, 66), (6, 0, 3)], false);
        for (block, count) in [(4, 66), (5, 66), (6, 3)] {
            assert!(!work.is_ready());
            let digests: Vec<_> = (0..count).map(digest).collect();
            assert_eq!(work.vouched(BlockIndex(block), Esi(0), &digests), Some(()));
        }
        assert!(work.is_ready());
        let sent = play(&mut work, 64);
        let digests = [('d', 4, 0, 64), ('d', 5, 0, 64), ('d', 6, 0, 3)];
        assert_eq!(sent[..3], digests);
        assert_eq!(
            sent[3..8],
            [('s', 4, 0, 4), ('s', 5, 0, 4), ('s', 6, 0, 3), ('s', 4, 4, 4), ('s', 5, 4, 4)]
        );
        assert_eq!(
            sent[sent.len() - 4..],
            [('d', 4, 64, 2), ('d', 5, 64, 2), ('s', 4, 64, 2), ('s', 5, 64, 2)]
        );
        let symbols: usize = sent.iter().filter(|item| item.0 == 's').map(|item| item.3).sum();
        assert_eq!(symbols, 66 + 66 + 3);
    }

    #[test]
    fn at_a_low_rate_a_column_is_one_symbol_wide() {
        let mut work = Work::new(Step::Source(0..2), vec![(0, 0, 2), (1, 0, 2)], true);
        let expected = [('s', 0, 0, 1), ('s', 1, 0, 1), ('s', 0, 1, 1), ('s', 1, 1, 1)];
        assert!(work.is_ready());
        assert_eq!(play(&mut work, 1), expected);
    }

    #[test]
    fn repair_symbols_wait_for_their_encoding_and_their_digests() {
        let parts = || vec![(8, 100, 2), (9, 200, 2)];
        let symbols = Arc::new(vec![0; 16]);
        for sealed in [true, false] {
            let mut work = Work::new(Step::Repair(8..10, 0..2), parts(), sealed);
            for (block, first) in [(8, 100), (9, 200)] {
                let (block, first) = (BlockIndex(block), Esi(first));
                assert!(!work.is_ready() && !work.encoded(block, Esi(first.0 + 1), &symbols));
                assert!(work.encoded(block, first, &symbols) && !work.encoded(block, first, &symbols));
                if !sealed {
                    assert!(work.vouched(block, first, &[digest(1); 2]).is_some());
                    assert!(work.vouched(block, first, &[digest(1); 2]).is_none());
                }
            }
            assert_eq!(work.encoded_symbols(), 4);
            let sent = play(&mut work, 64);
            let symbols = [('r', 8, 100, 2), ('r', 9, 200, 2)];
            match sealed {
                true => assert_eq!(sent, symbols),
                false => assert_eq!(sent, [[('d', 8, 100, 2), ('d', 9, 200, 2)], symbols].concat()),
            }
        }
    }
}
