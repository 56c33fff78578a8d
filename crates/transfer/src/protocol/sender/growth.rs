//! The object of a stream, which grows until its input ends: reading on, taking what was read, and announcing it before
//! it is sent.
//!
//! A job waits for the input, so how far the source is read ahead of the stream is decided here. While the input pauses,
//! the stream *rests*: announcements go on, rounds repair what was streamed so far, and nobody need make progress.

use super::channel::Round;
use super::{BlockInfo, Sender};
use crate::limits::{MAX_BLOCKS, MAX_READ_AHEAD};
use crate::protocol::event::SenderOutcome;
use crate::protocol::job::SenderJob;
use crate::time::Time;
use crate::units::{BlockIndex, ChannelId, Esi, Extent};
use crate::wire::{AbortCode, PacketNumber};
use std::time::Duration;

/// Shortest interval between announcements of growth. One announcement covers all that was read until then.
const NEWS: Duration = Duration::from_millis(10);
/// With fewer announced blocks than this ahead of the stream, the next ones are announced.
const NEAR: u32 = 8;
/// The error of an input that does not end in time.
const TOO_LONG: &str = "the stream is longer than an object can be; send it in parts";

impl BlockInfo {
    /// A block of `k` source symbols, of which nothing is known and nothing was sent.
    pub(super) const fn new(k: u32) -> Self {
        let last_sent = PacketNumber::new(ChannelId::GROUP, 0);
        Self { value: None, recipe: None, next_repair: Esi(k), streamed: 0, last_sent }
    }
}

impl Sender {
    /// Whether all that has been read was streamed. The stream may go on.
    pub(super) fn stream_rests(&self) -> bool {
        self.stream.position == self.config.layout.block_count()
    }

    /// The stream sends blocks below this: devices drop symbols of blocks that were not announced.
    pub(super) fn announced_blocks(&self) -> u32 {
        self.stream.announced.size.div_ceil(1 << self.config.layout.block_log2()) as u32
    }

    /// Requests that the input is read on, unless enough has been read ahead of the stream.
    pub(super) fn ask_for_input(&mut self) {
        let layout = &self.config.layout;
        let ahead = u64::from(layout.block_count() - self.stream.position) << layout.block_log2();
        if !layout.is_sealed() && !self.stream.reading && ahead < MAX_READ_AHEAD && self.has_room_to_read() {
            self.stream.reading = true;
            let unused = self.config.layout.block_offset(BlockIndex(self.window.unused()));
            self.job(SenderJob::Read { unused });
        }
    }

    /// Takes what was read since.
    pub(super) fn grown(&mut self, extent: Extent, now: Time) {
        self.stream.reading = false;
        let grown = self.config.layout.grown(extent);
        let Some(layout) = grown.ok().filter(|layout| layout.block_count() <= MAX_BLOCKS) else {
            let outcome = SenderOutcome::SourceFailed(TOO_LONG.to_owned());
            self.finish(outcome, AbortCode::Source, TOO_LONG, now);
            return;
        };
        self.config.layout = layout;
        let new = self.blocks.len() as u32..layout.block_count();
        self.blocks.extend(new.map(|block| BlockInfo::new(layout.source_symbols(BlockIndex(block)))));
        if self.stream.cut {
            self.stream.position = layout.block_count();
        }
        // The pause of the rounds was as long as that of the input.
        self.rounds.stir();
        let soon = now + self.rounds.pause();
        if let Round::Idle { next } = &mut self.group.round {
            *next = (*next).min(soon);
        }
        self.announce_growth(now);
        self.set_root_if_hashed(now);
    }

    /// Announces soon that the object has grown, if the stream needs it.
    pub(super) fn announce_growth(&mut self, now: Time) {
        let extent = self.config.layout.extent();
        let ahead = self.announced_blocks().saturating_sub(self.stream.position);
        if self.stream.announced != extent && (ahead < NEAR || extent.sealed) {
            let due = (self.announces.last + NEWS).max(now);
            self.announces.next = self.announces.next.min(due);
        }
    }
}
