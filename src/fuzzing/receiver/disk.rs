//! What becomes of the receiver's jobs on a part file that is all in memory.

use super::*;
use crate::wire::Holdings;

impl World {
    /// Opens a part file that an earlier run has left: every second block is as it should be.
    pub(super) fn reopen(&mut self, layout: Layout) -> ReceiverDone {
        let done = self.run(ReceiverJob::Open { name: "object".into(), layout, entry: None, tree: None });
        let Some(part) = self.part.as_mut().filter(|_| layout == self.object.layout) else { return done };
        let mut written = BitSet::new(layout.block_count());
        for block in (0..layout.block_count()).map(BlockIndex) {
            written.insert(block.0);
            if block.0 % 2 == 0 {
                let bytes = self.object.block(block);
                part.bytes[layout.block_offset(block) as usize..][..bytes.len()].copy_from_slice(bytes);
            }
        }
        ReceiverDone::Opened { written, earlier: 0 }
    }

    pub(super) fn run(&mut self, job: ReceiverJob) -> ReceiverDone {
        match (job, &mut self.part) {
            (ReceiverJob::Probe { session, .. }, _) => {
                ReceiverDone::Probed { session, holding: Holdings::Nothing, ticket: None }
            }
            (ReceiverJob::KeepTicket { .. }, _) => ReceiverDone::TicketKept(true),
            (ReceiverJob::Adopt { .. }, part) => {
                assert!(part.is_none(), "a part file beside the whole one");
                ReceiverDone::Committed("object".into())
            }
            (ReceiverJob::Open { layout, .. }, part) => {
                assert!(part.is_none(), "opened twice");
                if layout.object_size() > DISK {
                    return ReceiverDone::Failed(AbortCode::Disk, "no room".into());
                }
                *part = Some(Part { layout, bytes: vec![0; layout.object_size() as usize] });
                ReceiverDone::Opened { written: BitSet::new(layout.block_count()), earlier: 0 }
            }
            (ReceiverJob::Discard, part) => {
                *part = None;
                ReceiverDone::Discarded
            }
            (ReceiverJob::Keep, part) => {
                *part = None;
                ReceiverDone::Kept
            }
            (ReceiverJob::Hook(_), _) => ReceiverDone::HookEnded(Ok(0)),
            (_, None) => panic!("a job without a part file"),
            (ReceiverJob::Commit { .. }, part) => {
                let bytes = part.take().map(|part| part.bytes).unwrap_or_default();
                let root = Digest(*blake3::hash(&bytes).as_bytes());
                assert!(self.roots.contains(&root), "it commits what nobody announced");
                ReceiverDone::Committed("object".into())
            }
            (ReceiverJob::Arrange { layout }, Some(_)) => {
                ReceiverDone::Arranged { there: BitSet::new(layout.block_count()) }
            }
            (ReceiverJob::Check { block, expected, .. }, Some(part)) => {
                let offset = part.layout.block_offset(block) as usize;
                let bytes = &part.bytes[offset..][..part.layout.block_len(block)];
                ReceiverDone::Checked { block, agrees: value(&part.layout, block, bytes) == expected }
            }
            (ReceiverJob::Spill(mut assembly), Some(part)) => {
                let offset = part.layout.block_offset(assembly.block()) as usize;
                for (start, bytes) in assembly.spans_to_spill() {
                    part.bytes[offset + start..][..bytes.len()].copy_from_slice(bytes);
                }
                let buffer = assembly.mark_spilled();
                ReceiverDone::Spilled { assembly, buffer }
            }
            (ReceiverJob::Write { block, buffer, .. }, Some(_)) => ReceiverDone::Written { block, buffer },
            (ReceiverJob::Sift { block, digests, expected, buffer, .. }, Some(part)) => {
                let offset = part.layout.block_offset(block) as usize;
                let bytes = &part.bytes[offset..][..part.layout.block_len(block)];
                let mut right = BitSet::new(part.layout.source_symbols(block));
                assert_eq!(digests.len(), right.capacity() as usize);
                let symbols = bytes.chunks(usize::from(part.layout.symbol_size()));
                for (id, (symbol, digest)) in (0..).zip(symbols.zip(&*digests)) {
                    if symbol_digest(symbol) == *digest {
                        right.insert(id);
                    }
                }
                let agrees = right.is_full() && value(&part.layout, block, bytes) == expected;
                self.sifted += u32::from(!right.is_full());
                ReceiverDone::Sifted { block, right, agrees, buffer }
            }
            (ReceiverJob::Store { mut assembly, expected, keep, .. }, Some(part)) => {
                let block = assembly.block();
                let offset = part.layout.block_offset(block) as usize;
                if !assembly.has_buffer() {
                    assembly.attach(Buffer::default());
                }
                for (start, len) in assembly.spilled_runs() {
                    assembly.buffer_mut()[start..start + len]
                        .copy_from_slice(&part.bytes[offset + start..][..len]);
                }
                assembly.mark_restored();
                if assembly.complete(&self.object.plans).is_err() {
                    return ReceiverDone::Undecodable(assembly);
                }
                let value = value(&part.layout, block, assembly.bytes());
                if expected.is_some_and(|expected| expected != value) {
                    if keep {
                        part.bytes[offset..][..assembly.bytes().len()].copy_from_slice(assembly.bytes());
                    }
                    let kept = keep.then(|| assembly.sources().clone());
                    return ReceiverDone::Mismatched { block, buffer: assembly.take_buffer(), kept };
                }
                part.bytes[offset..][..assembly.bytes().len()].copy_from_slice(assembly.bytes());
                ReceiverDone::Stored { block, value, buffer: assembly.take_buffer() }
            }
        }
    }
}
