//! The execution of the machines' jobs: functions of a job and its files, through the storage ports. Worker
//! threads or the simulated world call them.

pub(crate) mod coded;
mod finish;
mod manifest;
mod tree;

pub use manifest::manifest_of;

use crate::command::Hook;
use crate::content::{Entry, Modified, TreeHead};
use crate::crypto::digest::{chaining_value, root, symbol_digest};
use crate::fec::{BlockAssembly, Buffer, PlanCache};
use crate::layout::Layout;
use crate::limits::MAX_BLOCKS;
use crate::pack::are_zero;
use crate::protocol::event::SenderSnapshot;
use crate::protocol::job::{ReceiverDone, ReceiverJob, SenderDone, SenderJob};
use crate::protocol::sender::Sender;
use crate::protocol::statistics::DeviceRow;
use crate::ranges::BitSet;
use crate::storage::{Attributes, Earlier, Found, Part, Sink, SinkError, Source, SourceError, Tickets};
use crate::store::SharedStore;
use crate::time::Time;
use crate::units::{BlockIndex, Digest, Intake, TaskId};
use crate::wire::{AbortCode, Holdings};
use finish::{commit, run_hook};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Blocks behind the one being hashed that stay in memory. The stream is at most two pages of hashes (64
/// blocks) behind the hashing, and most repairs are for blocks that were just streamed.
const KEPT_BLOCKS: u32 = 256;

/// The error for a store job at a worker without a store.
const NO_STORE: &str = "this worker has no store; please report this";

/// Executes a sender's job for the store ([`SenderJob::is_for_store`]), which keeps the assignments of
/// `task`. Ignores other jobs.
pub fn run_store_job(job: SenderJob, task: TaskId, store: &SharedStore) -> SenderDone {
    match job {
        SenderJob::LookUp(devices) => {
            let found = store.with(|store| store.look_up(task, &devices));
            let found = found.map(|found| devices.into_iter().zip(found).collect());
            SenderDone::LookedUp(found.map_err(|e| e.to_string()))
        }
        SenderJob::Record(assignments) => {
            let kept = store.with(|store| store.record(&assignments));
            SenderDone::Recorded(kept.map_err(|e| e.to_string()))
        }
        _ => SenderDone::WorkerDied("the store was asked for something else".to_owned()),
    }
}

/// The last snapshot of a finished sender. Its rows are the store's rows of `task`; if the store cannot be
/// read, the rows that it last confirmed. The exit code, the table and the report are made from it.
pub fn final_snapshot(sender: &Sender, task: TaskId, store: &SharedStore, now: Time) -> SenderSnapshot {
    let snapshot = sender.snapshot(now);
    let kept = if sender.is_recorded() { store.with(|store| store.assignments(task)).ok() } else { None };
    let kept = kept.unwrap_or_else(|| sender.recorded_assignments());
    let rows = DeviceRow::join(kept, snapshot.devices.clone());
    snapshot.with_devices(rows)
}

/// Executes a sender's job. `buffer` is scratch space that the caller keeps for the next job.
///
/// Jobs for the store belong to [`run_store_job`]; here they fail.
pub fn run_sender_job(
    job: SenderJob,
    source: &dyn Source,
    plans: &PlanCache,
    buffer: &mut Vec<u8>,
) -> SenderDone {
    let done = match job {
        SenderJob::Hash { block, layout, level } => {
            if let Some(behind) = block.0.checked_sub(KEPT_BLOCKS).map(BlockIndex) {
                source.leave_behind(layout.block_offset(behind), layout.block_len(behind));
            }
            coded::hash(source, (block, &layout), level, buffer)
        }
        SenderJob::Encode { block, layout, recipe, first, count, value } => {
            coded::encode(source, (block, &layout), (recipe, value), (first, count), (plans, buffer))
        }
        SenderJob::Digest { block, layout, recipe, value } => {
            coded::digest(source, (block, &layout), (recipe, value), buffer)
        }
        SenderJob::Vouch { block, first, symbols, symbol_size } => {
            let symbols = symbols.chunks(usize::from(symbol_size));
            Ok(SenderDone::Vouched(block, first, symbols.map(symbol_digest).collect()))
        }
        SenderJob::Read { unused } => {
            source.forget(unused);
            source.read_on().map(SenderDone::Grown)
        }
        SenderJob::CheckSource => source.check().map(|()| SenderDone::SourceChecked),
        SenderJob::LookUp(_) => Ok(SenderDone::LookedUp(Err(NO_STORE.to_owned()))),
        SenderJob::Record(_) => Ok(SenderDone::Recorded(Err(NO_STORE.to_owned()))),
    };
    done.unwrap_or_else(|e| SenderDone::SourceFailed(e.to_string()))
}

fn read_block(
    source: &dyn Source,
    layout: &Layout,
    block: BlockIndex,
    buffer: &mut Vec<u8>,
) -> Result<(), SourceError> {
    buffer.resize(layout.block_len(block), 0);
    source.read_at(layout.block_offset(block), buffer)
}

/// Reads a block that has this value, unless the source has changed.
fn read_again(
    source: &dyn Source,
    layout: &Layout,
    block: BlockIndex,
    known: Option<Digest>,
    buffer: &mut Vec<u8>,
) -> Result<(), SourceError> {
    read_block(source, layout, block, buffer)?;
    if known.is_some_and(|known| known != value(layout, block, buffer)) {
        let text = format!("the source changed while it was being sent (block {}); send it again", block.0);
        return Err(SourceError::Changed(text));
    }
    Ok(())
}

fn value(layout: &Layout, block: BlockIndex, bytes: &[u8]) -> Digest {
    chaining_value(layout.block_offset(block), bytes, layout.extent())
}

/// The part file while there is one.
#[derive(Clone)]
struct OpenPart {
    part: Arc<dyn Part>,
    /// Whether blocks stay in their buffers, because there is no part file.
    in_memory: bool,
}

/// The files of a receiver's jobs, shared by its workers. Blocks are stored in parallel. The machine requests
/// opening, committing and discarding only while no other job on the part file is in progress.
pub struct ReceiverFiles {
    sink: Mutex<Box<dyn Sink>>,
    open: Mutex<Option<OpenPart>>,
    /// The last file found in place that has an object's size, by the object's name.
    whole: Mutex<Option<(String, Box<dyn Part>)>>,
    earlier: Option<Box<dyn Earlier>>,
    hook: Option<Arc<dyn Hook>>,
    tickets: Option<Mutex<Box<dyn Tickets>>>,
    /// Whether what is on the disk is hashed before it is committed.
    verifies: bool,
}

/// Why a job failed.
struct Refusal(AbortCode, String);

impl From<SinkError> for Refusal {
    fn from(e: SinkError) -> Self {
        let code = match &e {
            SinkError::Name(_) => AbortCode::Name,
            SinkError::Disk(_) => AbortCode::Disk,
            SinkError::Command(_) => AbortCode::Command,
            SinkError::Content(_) => AbortCode::Content,
        };
        Self(code, e.to_string())
    }
}

/// A panic of a worker leaves the data of these locks consistent.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ReceiverFiles {
    /// No file is open yet; the object goes to `sink`.
    #[must_use]
    pub fn new(sink: Box<dyn Sink>) -> Self {
        let (open, whole) = (Mutex::new(None), Mutex::new(None));
        let sink = Mutex::new(sink);
        Self { sink, open, whole, earlier: None, hook: None, tickets: None, verifies: false }
    }

    /// Takes unchanged blocks from `earlier`.
    #[must_use]
    pub fn with_earlier(mut self, earlier: Option<Box<dyn Earlier>>) -> Self {
        self.earlier = earlier;
        self
    }

    /// Runs `hook` once an object is in place.
    #[must_use]
    pub fn with_hook(mut self, hook: Option<Arc<dyn Hook>>) -> Self {
        self.hook = hook;
        self
    }

    /// With `verify`, reads the object back from the disk, and hashes it again, before it is committed.
    #[must_use]
    pub const fn verifying(mut self, verify: bool) -> Self {
        self.verifies = verify;
        self
    }

    /// Keeps tickets in `tickets`.
    #[must_use]
    pub fn with_tickets_in(mut self, tickets: Option<Box<dyn Tickets>>) -> Self {
        self.tickets = tickets.map(Mutex::new);
        self
    }

    /// Removes the ticket that was kept. Call once the sender has acknowledged how the run ended.
    pub fn forget_ticket(&self) {
        self.with_tickets(|tickets| tickets.forget());
    }

    /// Gives up a destination that takes blocks in order, if it is still open. Call at the end of a run, however it
    /// ended: the end of the program would look like the end of the object.
    pub fn give_up(&self) {
        let ordered = lock(&self.sink).intake().is_ordered();
        if let Some(open) = lock(&self.open).take_if(|_| ordered) {
            open.part.discard();
        }
    }

    fn with_tickets<T>(&self, act: impl FnOnce(&mut dyn Tickets) -> T) -> Option<T> {
        self.tickets.as_ref().map(|tickets| act(&mut **lock(tickets)))
    }

    fn part(&self) -> Result<OpenPart, Refusal> {
        let missing = || Refusal(AbortCode::Internal, "no part file is open; please report this".to_owned());
        lock(&self.open).clone().ok_or_else(missing)
    }
}

/// Executes a receiver's job.
pub fn run_receiver_job(job: ReceiverJob, files: &ReceiverFiles, plans: &PlanCache) -> ReceiverDone {
    let done = match job {
        ReceiverJob::Probe { session, name, layout, tree } => {
            let ticket = files.with_tickets(|tickets| tickets.find(session)).flatten();
            Ok(ReceiverDone::Probed { session, holding: probe(files, &name, &layout, tree), ticket })
        }
        ReceiverJob::KeepTicket { session, ticket } => {
            let kept = files.with_tickets(|tickets| tickets.keep(session, ticket));
            Ok(ReceiverDone::TicketKept(kept == Some(true)))
        }
        ReceiverJob::Adopt { name } => adopt(files, &name),
        ReceiverJob::Open { name, layout, entry, tree } => open(files, &name, layout, (entry.as_ref(), tree)),
        ReceiverJob::Arrange { layout } => files.part().and_then(|open| tree::arrange(&*open.part, &layout)),
        ReceiverJob::Store { assembly, expected, keep, pressed } => {
            files.part().and_then(|open| store(&open, assembly, (expected, keep), pressed, plans))
        }
        ReceiverJob::Sift { block, layout, coded, digests, expected, buffer } => files
            .part()
            .and_then(|open| coded::sift(&open, (block, &layout), coded, (&digests, expected), buffer)),
        ReceiverJob::Write { block, layout, buffer, zeros } => {
            files.part().and_then(|open| write_next(&open, (block, &layout), buffer, zeros))
        }
        ReceiverJob::Zero { first, values, layout } => {
            files.part().and_then(|open| coded::zero(&open, first, &values, &layout))
        }
        ReceiverJob::Reserve { first, count, layout } => {
            files.part().and_then(|open| coded::reserve(&open, first, count, &layout))
        }
        ReceiverJob::Spill(assembly) => files.part().and_then(|open| spill(&open, assembly)),
        ReceiverJob::Check { block, layout, expected, in_part } => {
            files.part().and_then(|open| check(&open, files, (block, &layout), expected, in_part))
        }
        ReceiverJob::Commit { layout, root } => commit(files, &layout, root),
        ReceiverJob::Hook(object) => Ok(ReceiverDone::HookEnded(run_hook(files, &object))),
        ReceiverJob::Discard => {
            if let Some(open) = lock(&files.open).take() {
                open.part.discard();
            }
            Ok(ReceiverDone::Discarded)
        }
        ReceiverJob::Keep => Ok(match lock(&files.open).take() {
            Some(_) => ReceiverDone::Kept,
            None => ReceiverDone::Discarded,
        }),
    };
    done.unwrap_or_else(|Refusal(code, reason)| ReceiverDone::Failed(code, reason))
}

/// Finds out what the device holds. A file that cannot be read does not count.
fn probe(files: &ReceiverFiles, name: &str, layout: &Layout, tree: Option<TreeHead>) -> Holdings {
    let mut sink = lock(&files.sink);
    if sink.intake().is_ordered() {
        return Holdings::Passing;
    }
    let found = match tree {
        None => sink.probe(name, layout.extent()),
        Some(head) => sink.probe_tree(name, &tree::shape(layout, head)),
    };
    drop(sink);
    if let Found::Whole(file) = found {
        let read = |offset, buf: &mut Buffer| file.read_at(offset, buf);
        let Ok(root) = hash(layout, read) else { return Holdings::Nothing };
        *lock(&files.whole) = Some((name.to_owned(), file));
        return Holdings::All(root);
    }
    let earlier = files.earlier.as_ref().is_some_and(|earlier| earlier.size() > 0);
    if earlier || matches!(found, Found::Part) { Holdings::Some } else { Holdings::Nothing }
}

/// The root hash of a whole object, of which `read` reads the bytes at an offset.
fn hash(
    layout: &Layout,
    read: impl Fn(u64, &mut Buffer) -> Result<(), SinkError>,
) -> Result<Digest, SinkError> {
    let mut buffer = Buffer::default();
    let values = (0..layout.block_count()).map(BlockIndex).map(|block| {
        buffer.set_len(layout.block_len(block));
        read(layout.block_offset(block), &mut buffer)?;
        Ok(value(layout, block, &buffer))
    });
    Ok(root(&values.collect::<Result<Vec<Digest>, SinkError>>()?))
}

fn adopt(files: &ReceiverFiles, name: &str) -> Result<ReceiverDone, Refusal> {
    let whole = lock(&files.whole).take().filter(|(found, _)| found == name);
    let missing = || Refusal(AbortCode::Internal, "no file in place is known; please report this".to_owned());
    let (_, file) = whole.ok_or_else(missing)?;
    Ok(ReceiverDone::Committed(file.commit()?))
}

fn open(
    files: &ReceiverFiles,
    name: &str,
    layout: Layout,
    (entry, tree): (Option<&Entry>, Option<TreeHead>),
) -> Result<ReceiverDone, Refusal> {
    let mut sink = lock(&files.sink);
    let in_memory = sink.intake() == Intake::InOrder;
    let part = match tree {
        None => sink.create(name, layout.extent())?,
        Some(head) => sink.create_tree(name, &tree::shape(&layout, head))?,
    };
    drop(sink);
    // What is not stored at the sender takes no space here either.
    part.require_space(entry.map_or(0, Entry::stored))?;
    if let Some(entry) = entry {
        let Modified { seconds, nanoseconds } = entry.modified();
        part.describe(Attributes { mode: entry.mode(), modified: (seconds, nanoseconds) });
    }
    let mut written = written_blocks(&*part, &layout);
    let mut size = files.earlier.as_ref().map_or(0, |earlier| earlier.size());
    if part.is_earlier() && std::mem::replace(&mut written, BitSet::new(layout.block_count())).count() > 0 {
        size = layout.object_size();
    }
    if part.has_earlier() {
        size = layout.object_size();
    }
    // Only blocks that it has completely can agree. Its last block may be shorter, as the object's.
    let earlier = match layout.extent().total() {
        Some(total) if size >= total => layout.block_count(),
        _ => u32::try_from(size >> layout.block_log2()).unwrap_or(u32::MAX),
    };
    *lock(&files.open) = Some(OpenPart { part: Arc::from(part), in_memory });
    Ok(ReceiverDone::Opened { written, earlier })
}

/// The blocks of which the part file has something. It may have more of an object that still grows than is known of it.
fn written_blocks(part: &dyn Part, layout: &Layout) -> BitSet {
    let most = if layout.is_sealed() { layout.block_count() } else { MAX_BLOCKS };
    let mut blocks = BitSet::new(layout.block_count());
    let mut from = 0;
    while let Some(range) =
        part.next_written(from).filter(|range| range.start >> layout.block_log2() < most.into())
    {
        let first = (range.start >> layout.block_log2()) as u32;
        let last = ((range.end - 1) >> layout.block_log2()).min(u64::from(most) - 1) as u32;
        blocks.resize(blocks.capacity().max(last + 1));
        blocks.insert_range(first..last + 1);
        // The rest of the last block may have any number of holes.
        from = layout.block_offset(BlockIndex(last)) + (1 << layout.block_log2());
    }
    blocks
}

/// Compares a candidate. A block that cannot be read does not agree.
fn check(
    open: &OpenPart,
    files: &ReceiverFiles,
    (block, layout): (BlockIndex, &Layout),
    expected: Digest,
    in_part: bool,
) -> Result<ReceiverDone, Refusal> {
    let offset = layout.block_offset(block);
    let mut buffer = Buffer::default();
    buffer.set_len(layout.block_len(block));
    if (in_part || open.part.is_earlier())
        && open.part.read_at(offset, &mut buffer).is_ok()
        && value(layout, block, &buffer) == expected
    {
        return Ok(ReceiverDone::Checked { block, agrees: true });
    }
    let agrees = files.earlier.as_ref().is_some_and(|earlier| {
        earlier.read_at(offset, &mut buffer).is_ok() && value(layout, block, &buffer) == expected
    });
    let agrees = agrees
        || (open.part.read_earlier(offset, &mut buffer).is_ok() && value(layout, block, &buffer) == expected);
    if agrees && are_zero(&buffer) {
        open.part.write_zeros(offset, buffer.len() as u64)?;
    } else if agrees {
        open.part.write_through(offset, &buffer)?;
    }
    Ok(ReceiverDone::Checked { block, agrees })
}

fn store(
    open: &OpenPart,
    mut assembly: BlockAssembly,
    (expected, keep): (Option<Digest>, bool),
    pressed: bool,
    plans: &PlanCache,
) -> Result<ReceiverDone, Refusal> {
    let (block, layout) = (assembly.block(), *assembly.layout());
    let offset = layout.block_offset(block);
    if !assembly.has_buffer() {
        assembly.attach(Buffer::default());
    }
    let spilled = assembly.spilled_runs();
    // Spilled symbols are probably in the page cache, where the rest of the block joins them.
    let cached = pressed || !spilled.is_empty();
    for (start, len) in spilled {
        open.part.read_at(offset + start as u64, &mut assembly.buffer_mut()[start..start + len])?;
    }
    assembly.mark_restored();
    // Decoding fills in the missing symbols.
    let received = (!assembly.sources().is_full()).then(|| assembly.sources().clone());
    if assembly.complete(plans).is_err() {
        return Ok(ReceiverDone::Undecodable(assembly));
    }
    let unpacked = coded::plain(&mut assembly);
    let bytes = unpacked.as_ref().map(|other| match other {
        Some(unpacked) => &unpacked[..layout.block_len(block)],
        None => assembly.bytes(),
    });
    let found = bytes.map(|bytes| (bytes, value(&layout, block, bytes)));
    // A frame that is none is wrong like any other content. Without a page, blocks are not known to be coded.
    let Some((bytes, value)) = found.filter(|(_, value)| expected.is_none_or(|expected| expected == *value))
    else {
        if keep && !open.in_memory {
            open.part.write_at(
                offset,
                &assembly.packed()[..layout.block_len(block).min(assembly.packed().len())],
            )?;
        }
        let kept = keep.then(|| received.unwrap_or_else(|| assembly.sources().clone()));
        let buffer = if open.in_memory { assembly.into_block() } else { assembly.take_buffer() };
        return Ok(ReceiverDone::Mismatched { block, buffer, kept });
    };
    if open.in_memory {
        let buffer = unpacked.flatten().unwrap_or_else(|| assembly.into_block());
        return Ok(ReceiverDone::Stored { block, value, buffer });
    }
    if cached {
        open.part.write_at(offset, bytes)?;
    } else {
        open.part.write_through(offset, bytes)?;
    }
    Ok(ReceiverDone::Stored { block, value, buffer: assembly.take_buffer() })
}

/// Hands the next block over to a destination that takes blocks in order.
fn write_next(
    open: &OpenPart,
    (block, layout): (BlockIndex, &Layout),
    held: Option<Buffer>,
    zeros: bool,
) -> Result<ReceiverDone, Refusal> {
    let mut read = Buffer::default();
    if zeros {
        read.set_len(layout.block_len(block));
        read.fill(0);
        open.part.write_next(&read)?;
        return Ok(ReceiverDone::Written { block, buffer: held });
    }
    open.part.write_next(coded::block_bytes(open, (block, layout), held.as_ref(), &mut read)?)?;
    Ok(ReceiverDone::Written { block, buffer: held })
}

fn spill(open: &OpenPart, mut assembly: BlockAssembly) -> Result<ReceiverDone, Refusal> {
    let offset = assembly.layout().block_offset(assembly.block());
    for (start, bytes) in assembly.spans_to_spill() {
        open.part.write_at(offset + start as u64, bytes)?;
    }
    let buffer = assembly.mark_spilled();
    Ok(ReceiverDone::Spilled { assembly, buffer })
}

#[cfg(test)]
mod tests;
