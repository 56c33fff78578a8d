//! What becomes of the receiver's jobs on a part file that is all in memory.

use super::*;
use crate::crypto::digest;
use crate::engine::jobs::coded::plain;
use crate::pack;
use crate::units::Coding;
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

    /// Lets the part file grow with a stream. False if the disk is full.
    fn grow(&mut self, job: &ReceiverJob) -> bool {
        let layout = match job {
            ReceiverJob::Store { assembly, .. } | ReceiverJob::Spill(assembly) => assembly.layout(),
            ReceiverJob::Zero { layout, .. }
            | ReceiverJob::Check { layout, .. }
            | ReceiverJob::Sift { layout, .. }
            | ReceiverJob::Commit { layout, .. } => layout,
            _ => return true,
        };
        let Some(part) = self.part.as_mut().filter(|part| part.layout != *layout) else { return true };
        let room = layout.object_size() <= DISK;
        if room && (layout.is_sealed() || layout.object_size() > part.layout.object_size()) {
            part.layout = *layout;
            part.bytes.resize(layout.object_size() as usize, 0);
        }
        room
    }

    pub(super) fn run(&mut self, job: ReceiverJob) -> ReceiverDone {
        if !self.grow(&job) {
            return ReceiverDone::Failed(AbortCode::Disk, "no room".into());
        }
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
            (ReceiverJob::Sift { block, coded, digests, expected, buffer, .. }, Some(part)) => {
                let offset = part.layout.block_offset(block) as usize;
                let size = usize::from(part.layout.symbol_size());
                let len = part.layout.block_len(block);
                let bytes = part.bytes[offset..][..len.min(coded.k as usize * size)].to_vec();
                let mut right = BitSet::new(coded.k);
                assert_eq!(digests.len(), right.capacity() as usize);
                for (id, (symbol, digest)) in (0..).zip(bytes.chunks(size).zip(&*digests)) {
                    if symbol_digest(symbol) == *digest {
                        right.insert(id);
                    }
                }
                let mut plain = vec![0; len];
                let whole = match coded.coding {
                    Coding::Zstd => pack::unpack(&bytes, &mut plain),
                    _ => {
                        plain[..bytes.len()].copy_from_slice(&bytes);
                        true
                    }
                };
                let agrees = right.is_full() && whole && value(&part.layout, block, &plain) == expected;
                if agrees {
                    part.bytes[offset..][..len].copy_from_slice(&plain);
                }
                self.sifted += u32::from(!right.is_full());
                ReceiverDone::Sifted { block, right, agrees, buffer }
            }
            (ReceiverJob::Reserve { .. }, Some(_)) => ReceiverDone::Reserved,
            (ReceiverJob::Zero { first, values, .. }, Some(part)) => {
                let (layout, count) = (part.layout, values.len() as u32);
                for (block, expected) in (first.0..).map(BlockIndex).zip(values) {
                    let (offset, len) = (layout.block_offset(block), layout.block_len(block));
                    if digest::chaining_value_of_zeros(offset, len, layout.extent()) != expected {
                        return ReceiverDone::Zeroed { first, count, wrong: Some(block) };
                    }
                    part.bytes[offset as usize..][..len].fill(0);
                }
                ReceiverDone::Zeroed { first, count, wrong: None }
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
                let len = part.layout.block_len(block);
                let unpacked = plain(&mut assembly);
                let bytes = unpacked.as_ref().map(|other| match other {
                    Some(unpacked) => unpacked[..len].to_vec(),
                    None => assembly.bytes().to_vec(),
                });
                let value = bytes.as_ref().map(|bytes| value(&part.layout, block, bytes));
                let agrees = value.is_some_and(|value| expected.is_none_or(|expected| expected == value));
                let (Some(bytes), Some(value), true) = (bytes, value, agrees) else {
                    if keep {
                        let packed = assembly.packed();
                        let packed = &packed[..packed.len().min(len)];
                        part.bytes[offset..][..packed.len()].copy_from_slice(packed);
                    }
                    let kept = keep.then(|| assembly.sources().clone());
                    return ReceiverDone::Mismatched { block, buffer: assembly.take_buffer(), kept };
                };
                part.bytes[offset..][..len].copy_from_slice(&bytes);
                ReceiverDone::Stored { block, value, buffer: assembly.take_buffer() }
            }
        }
    }
}
