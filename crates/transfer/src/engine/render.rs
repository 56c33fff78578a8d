//! Turns a [`Payload`] into the segments that the network port takes, without an allocation for each datagram.
//! Headers are written into one array that is reused. Bodies are borrowed from the machine's buffers, or stay in
//! the mapped source. Sealed symbols are copied, because encryption needs a buffer, and those of a source without a map.

use crate::layout::Layout;
use crate::limits::{HEADER_LEN, SYMBOL_HEADER_LEN, TAG_RESERVE};
use crate::net::{Body, MAX_BATCH, Segment};
use crate::protocol::Payload;
use crate::protocol::packet_protection::SymbolSeal;
use crate::storage::{Source, SourceError};
use crate::units::{BlockIndex, Esi, SessionId};
use crate::wire::{Header, PacketNumber, symbol_head};
use std::ops::Range;
use std::sync::Arc;

/// What symbols are made from.
#[derive(Clone)]
pub struct Stream {
    /// The session identifier of their headers.
    pub session: SessionId,
    /// Bytes of a symbol.
    pub symbol_size: u16,
    /// The object's bytes.
    pub source: Arc<dyn Source>,
    /// Their seal, if there is a group key.
    pub seal: Option<SymbolSeal>,
}

/// Why nothing can be sent.
#[derive(Debug)]
pub enum RenderError {
    /// Symbols are requested, but there is no stream to make them from.
    NoStream,
    /// The source could not be read.
    Source(SourceError),
}

/// Space for one batch.
pub struct Heads {
    heads: [[u8; SYMBOL_HEADER_LEN]; MAX_BATCH],
    sealed: Sealed,
    /// The symbols of one batch, of a source without a map.
    copied: Vec<u8>,
}

impl Default for Heads {
    fn default() -> Self {
        Self { heads: [[0; SYMBOL_HEADER_LEN]; MAX_BATCH], sealed: Sealed::default(), copied: Vec::new() }
    }
}

/// The sealed datagrams of one batch, one after the other. They are kept until the next batch: a datagram
/// that was not sent at once must not be sealed anew, because one number must never seal two different texts.
#[derive(Default)]
struct Sealed {
    first: PacketNumber,
    count: usize,
    bytes: Vec<u8>,
    /// The offset between two datagrams; the last one may be shorter.
    stride: usize,
    /// The plain symbols, as in the source.
    plain: Vec<u8>,
}

/// Up to [`MAX_BATCH`] segments.
pub struct Segments<'a> {
    segments: [Segment<'a>; MAX_BATCH],
    len: usize,
}

impl<'a> Segments<'a> {
    /// The segments.
    #[must_use]
    pub fn as_slice(&self) -> &[Segment<'a>] {
        &self.segments[..self.len]
    }
}

/// Consecutive symbols, after `skip` others.
struct Run {
    number: PacketNumber,
    block: BlockIndex,
    first: Esi,
    count: usize,
}

impl Run {
    fn new(number: PacketNumber, block: BlockIndex, first: Esi, total: usize, skip: usize) -> Self {
        let after = Esi(first.0 + skip as u32);
        Self { number: PacketNumber(number.0 + skip as u64), block, first: after, count: batch(total, skip) }
    }

    /// The bytes of its symbols in their block.
    fn range(&self, layout: &Layout) -> Range<usize> {
        let Some(last) = self.count.checked_sub(1) else { return 0..0 };
        let symbol = |i: usize| layout.symbol_range(self.block, Esi(self.first.0 + i as u32));
        symbol(0).start..symbol(last).end
    }

    fn head(&self, session: SessionId, i: usize) -> [u8; SYMBOL_HEADER_LEN] {
        let header = Header { session, packet_number: PacketNumber(self.number.0 + i as u64) };
        symbol_head(header, self.block, Esi(self.first.0 + i as u32))
    }
}

impl Heads {
    /// The datagrams of `payload` from number `skip` on, at most [`MAX_BATCH`]; empty if there are none.
    ///
    /// # Errors
    /// If symbols are requested without a `stream`, or its source cannot be read.
    pub fn render<'a>(
        &'a mut self,
        payload: &'a Payload,
        skip: usize,
        stream: Option<&Stream>,
    ) -> Result<Segments<'a>, RenderError> {
        let empty = Segment { head: &[], body: Body::None };
        let mut out = Segments { segments: [empty; MAX_BATCH], len: 0 };
        match payload {
            Payload::Message(bytes) => {
                if skip == 0 {
                    out.segments[0].head = bytes;
                    out.len = 1;
                }
            }
            Payload::Source { packet_number, block, layout, ids } => {
                let stream = stream.ok_or(RenderError::NoStream)?;
                let run = Run::new(*packet_number, *block, Esi(ids.start), ids.len(), skip);
                if let Some(seal) = &stream.seal {
                    self.sealed.source(&run, layout, stream, seal).map_err(RenderError::Source)?;
                    self.sealed.hand_out(&run, &mut out);
                    return Ok(out);
                }
                out.len = run.count;
                self.fill(stream.session, &run);
                let base = layout.block_offset(*block);
                let whole = run.range(layout);
                let mapped = stream.source.raw(base + whole.start as u64, 0).is_some();
                if !mapped {
                    self.copied.resize(whole.len(), 0);
                    let read = stream.source.read_at(base + whole.start as u64, &mut self.copied);
                    read.map_err(RenderError::Source)?;
                }
                for (i, (segment, head)) in out.segments[..out.len].iter_mut().zip(&self.heads).enumerate() {
                    let range = layout.symbol_range(*block, Esi(run.first.0 + i as u32));
                    segment.head = head;
                    segment.body = match stream.source.raw(base + range.start as u64, range.len()) {
                        Some(raw) => Body::Raw(raw),
                        None => Body::Bytes(&self.copied[range.start - whole.start..range.end - whole.start]),
                    };
                }
            }
            Payload::Repair { packet_number, block, first, symbols, range } => {
                let stream = stream.ok_or(RenderError::NoStream)?;
                let size = usize::from(stream.symbol_size);
                let symbols = &symbols[range.clone()];
                let run = Run::new(*packet_number, *block, *first, symbols.len() / size, skip);
                let bodies = symbols.chunks_exact(size).skip(skip);
                if let Some(seal) = &stream.seal {
                    self.sealed.seal(&run, stream.session, seal, bodies);
                    self.sealed.hand_out(&run, &mut out);
                    return Ok(out);
                }
                out.len = run.count;
                self.fill(stream.session, &run);
                for ((segment, head), body) in out.segments[..out.len].iter_mut().zip(&self.heads).zip(bodies)
                {
                    segment.head = head;
                    segment.body = Body::Bytes(body);
                }
            }
        }
        Ok(out)
    }

    /// Writes the headers of a run.
    fn fill(&mut self, session: SessionId, run: &Run) {
        for (i, head) in self.heads[..run.count].iter_mut().enumerate() {
            *head = run.head(session, i);
        }
    }
}

impl Sealed {
    /// Whether the first datagram of a run is sealed already.
    fn has(&self, run: &Run) -> bool {
        (self.first.0..self.first.0 + self.count as u64).contains(&run.number.0)
    }

    /// Seals source symbols, which are read in one piece. They must not change under the seal, as they could
    /// in the map.
    fn source(
        &mut self,
        run: &Run,
        layout: &Layout,
        stream: &Stream,
        seal: &SymbolSeal,
    ) -> Result<(), SourceError> {
        if run.count == 0 || self.has(run) {
            return Ok(());
        }
        let range = run.range(layout);
        let mut plain = std::mem::take(&mut self.plain);
        plain.resize(range.len(), 0);
        stream.source.read_at(layout.block_offset(run.block) + range.start as u64, &mut plain)?;
        self.seal(run, stream.session, seal, plain.chunks(usize::from(layout.symbol_size())));
        self.plain = plain;
        Ok(())
    }

    /// Seals a run of symbols, all but the last equally long.
    fn seal<'b>(
        &mut self,
        run: &Run,
        session: SessionId,
        seal: &SymbolSeal,
        bodies: impl Iterator<Item = &'b [u8]>,
    ) {
        if run.count == 0 || self.has(run) {
            return;
        }
        self.bytes.clear();
        self.stride = 0;
        for (i, body) in bodies.take(run.count).enumerate() {
            let mut head = run.head(session, i);
            seal.protection.mark(&mut head);
            let at = self.bytes.len();
            self.bytes.extend_from_slice(&head);
            self.bytes.extend_from_slice(body);
            let (clear, secret) = self.bytes[at..].split_at_mut(HEADER_LEN);
            let tag = seal.key.seal(run.number.0 + i as u64, clear, secret);
            self.bytes.extend_from_slice(&tag);
            self.stride = self.stride.max(SYMBOL_HEADER_LEN + body.len() + TAG_RESERVE);
        }
        (self.first, self.count) = (run.number, run.count);
    }

    /// Returns the sealed datagrams of a run, from its first one on.
    fn hand_out<'a>(&'a self, run: &Run, out: &mut Segments<'a>) {
        let skip = run.number.0.saturating_sub(self.first.0) as usize;
        out.len = run.count.min(self.count.saturating_sub(skip));
        let datagrams = self.bytes.chunks(self.stride.max(1)).skip(skip);
        for (segment, datagram) in out.segments[..out.len].iter_mut().zip(datagrams) {
            segment.head = datagram;
        }
    }
}

/// The number of datagrams in the batch that begins after `skip` of `total`.
fn batch(total: usize, skip: usize) -> usize {
    total.saturating_sub(skip).min(MAX_BATCH)
}
