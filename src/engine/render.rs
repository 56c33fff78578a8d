//! From a [`Payload`] to the segments the network port takes. Nothing is allocated a datagram:
//! the heads are written into one array that is used again and again, and bodies are borrowed
//! from the machine's buffers or left in the mapped source.

use crate::layout::Layout;
use crate::limits::SYMBOL_HEADER_LEN;
use crate::net::{Body, MAX_BATCH, Segment};
use crate::protocol::Payload;
use crate::storage::Source;
use crate::units::{BlockIndex, SessionId, SymbolId};
use crate::wire::{Header, PacketNumber, symbol_head};
use std::sync::Arc;

/// What symbols are made of.
#[derive(Clone)]
pub struct Stream {
    /// The session that heads each of them.
    pub session: SessionId,
    /// How the object is cut up.
    pub layout: Layout,
    /// The object's bytes.
    pub source: Arc<dyn Source>,
}

/// Space for the heads of one batch.
pub struct Heads {
    heads: [[u8; SYMBOL_HEADER_LEN]; MAX_BATCH],
}

impl Default for Heads {
    fn default() -> Self {
        Self { heads: [[0; SYMBOL_HEADER_LEN]; MAX_BATCH] }
    }
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

impl Heads {
    /// The datagrams of `payload` from the `skip`th on, [`MAX_BATCH`] at most; empty if there are
    /// none. `None` if symbols are asked for and there is no `stream` to make them of.
    pub fn render<'a>(
        &'a mut self,
        payload: &'a Payload,
        skip: usize,
        stream: Option<&Stream>,
    ) -> Option<Segments<'a>> {
        let empty = Segment { head: &[], body: Body::None };
        let mut out = Segments { segments: [empty; MAX_BATCH], len: 0 };
        match payload {
            Payload::Message(bytes) => {
                if skip == 0 {
                    out.segments[0].head = bytes;
                    out.len = 1;
                }
            }
            Payload::Source { packet_number, block, ids } => {
                let stream = stream?;
                let base = stream.layout.block_offset(*block);
                let first = SymbolId(ids.start);
                out.len = batch(ids.len(), skip);
                self.fill(stream.session, *packet_number, *block, first, skip, out.len);
                for (i, (segment, head)) in out.segments[..out.len].iter_mut().zip(&self.heads).enumerate() {
                    let range = stream.layout.symbol_range(*block, SymbolId(first.0 + (skip + i) as u32));
                    segment.head = head;
                    segment.body =
                        Body::Raw(stream.source.raw(base + range.start as u64, range.end - range.start));
                }
            }
            Payload::Repair { packet_number, block, first, symbols, range } => {
                let stream = stream?;
                let size = usize::from(stream.layout.symbol_size());
                let symbols = &symbols[range.clone()];
                out.len = batch(symbols.len() / size, skip);
                self.fill(stream.session, *packet_number, *block, *first, skip, out.len);
                let bodies = symbols.chunks_exact(size).skip(skip);
                for ((segment, head), body) in out.segments[..out.len].iter_mut().zip(&self.heads).zip(bodies)
                {
                    segment.head = head;
                    segment.body = Body::Bytes(body);
                }
            }
        }
        Some(out)
    }

    /// Writes the heads of `count` successive symbols, `skip` after the first.
    fn fill(
        &mut self,
        session: SessionId,
        number: PacketNumber,
        block: BlockIndex,
        first: SymbolId,
        skip: usize,
        count: usize,
    ) {
        for (i, head) in self.heads[..count].iter_mut().enumerate() {
            let header = Header { session, packet_number: PacketNumber(number.0 + (skip + i) as u64) };
            *head = symbol_head(header, block, SymbolId(first.0 + (skip + i) as u32));
        }
    }
}

/// How many of `total` datagrams are in the batch that begins after `skip` of them.
fn batch(total: usize, skip: usize) -> usize {
    total.saturating_sub(skip).min(MAX_BATCH)
}
