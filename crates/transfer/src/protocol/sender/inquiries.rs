//! Digests for suspect blocks. A worker computes the digests of a block's source symbols. The sender signs them and
//! sends them to the device that asked, or to the group if several have asked.
//!
//! Whatever devices ask, digests take no more than a rate of their own, and no more than the unicast share while the
//! group has work. What does not fit the queue is asked for again.

use super::Sender;
use crate::limits::{DIGEST_RATE, DIGESTS_PER_MESSAGE, MAX_INQUIRIES, MAX_SUSPECTS};
use crate::pacing::TokenBucket;
use crate::protocol::Transmit;
use crate::protocol::job::SenderJob;
use crate::time::Time;
use crate::units::{BlockIndex, DeviceIndex, Esi, SymbolDigest};
use crate::wire::{Message, Suspect, SymbolDigests};
use std::collections::VecDeque;

/// Blocks at the head of the queue whose digests are computed ahead.
const AHEAD: usize = 2;
/// Bytes of a full message on the wire.
const DATAGRAM: u64 = 1200;

/// Who gets digests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum To {
    Device(DeviceIndex),
    Group,
}

#[derive(Debug)]
enum Digests {
    Not,
    Asked,
    /// Computed. Those from the given index on are still to be sent.
    Ready(Vec<SymbolDigest>, usize),
}

#[derive(Debug)]
struct Inquiry {
    block: BlockIndex,
    to: To,
    digests: Digests,
}

/// The queue of suspect blocks.
#[derive(Debug)]
pub(super) struct Inquiries {
    queue: VecDeque<Inquiry>,
    bucket: TokenBucket,
    /// The number of requests so far.
    pub count: u64,
}

impl Inquiries {
    pub fn new(now: Time) -> Self {
        Self { queue: VecDeque::new(), bucket: TokenBucket::new(DIGEST_RATE, DATAGRAM, now), count: 0 }
    }

    /// Queues a block that a device asks about.
    fn ask(&mut self, index: DeviceIndex, block: BlockIndex) {
        let own = self.queue.iter().filter(|inquiry| inquiry.to == To::Device(index)).count();
        let room = self.queue.len() < MAX_INQUIRIES && own < MAX_SUSPECTS;
        match self.queue.iter_mut().find(|inquiry| inquiry.block == block) {
            Some(inquiry) if inquiry.to == To::Device(index) || inquiry.to == To::Group => {}
            Some(inquiry) => {
                self.count += 1;
                // The group gets all digests, also those that the first device has got.
                inquiry.to = To::Group;
                if let Digests::Ready(_, next) = &mut inquiry.digests {
                    *next = 0;
                }
            }
            None if room => {
                self.count += 1;
                self.queue.push_back(Inquiry { block, to: To::Device(index), digests: Digests::Not });
            }
            None => {}
        }
    }

    /// Drops the blocks below `floor`.
    pub fn forget(&mut self, floor: u32) {
        self.queue.retain(|inquiry| inquiry.block.0 >= floor);
    }

    /// The next block whose digests are to be computed. Marks it as requested.
    fn next_job(&mut self) -> Option<BlockIndex> {
        let mut ahead = self.queue.iter_mut().take(AHEAD);
        let next = ahead.find(|inquiry| matches!(inquiry.digests, Digests::Not))?;
        next.digests = Digests::Asked;
        Some(next.block)
    }

    /// Takes the digests of a block.
    pub fn digested(&mut self, block: BlockIndex, digests: Vec<SymbolDigest>) {
        let of_block = |inquiry: &&mut Inquiry| inquiry.block == block;
        if let Some(inquiry) = self.queue.iter_mut().find(of_block)
            && matches!(inquiry.digests, Digests::Asked)
        {
            inquiry.digests = Digests::Ready(digests, 0);
        }
    }

    fn is_ready(&self) -> bool {
        self.queue.front().is_some_and(|inquiry| matches!(inquiry.digests, Digests::Ready(..)))
    }

    /// The next message, and its destination.
    fn next(&mut self) -> Option<(To, SymbolDigests)> {
        let Inquiry { block, to, digests: Digests::Ready(digests, next) } = self.queue.front_mut()? else {
            return None;
        };
        let end = digests.len().min(*next + DIGESTS_PER_MESSAGE);
        let message = SymbolDigests {
            block: *block,
            first_esi: Esi(*next as u32),
            digests: digests[*next..end].to_vec(),
        };
        let (to, over) = (*to, end == digests.len());
        *next = end;
        if over {
            self.queue.pop_front();
        }
        Some((to, message))
    }

    /// When the next message may be sent; never if there is none.
    pub fn ready_at(&self) -> Time {
        if self.is_ready() { self.bucket.ready_at() } else { Time::NEVER }
    }
}

impl Sender {
    /// Handles SUSPECT.
    pub(super) fn suspect(&mut self, index: DeviceIndex, suspect: &Suspect) -> bool {
        if self.devices.get(index).is_final() {
            return false;
        }
        let count = self.config.layout.block_count();
        let kept = self.window.floor()..count;
        for &block in suspect.blocks.iter().filter(|block| kept.contains(&block.0)) {
            // Nothing is sent of zeros.
            if self.symbols_of(block.0) > 0 {
                self.inquiries.ask(index, block);
            }
        }
        // The device will soon know what it lacks.
        self.rounds.stir();
        true
    }

    /// Requests jobs for the digests that are sent next.
    pub(super) fn ask_for_digests(&mut self) {
        while let Some(block) = self.inquiries.next_job() {
            let value = self.value_of(block);
            let (layout, recipe) = (self.config.layout, self.recipe_or_raw(block));
            self.job(SenderJob::Digest { block, layout, recipe, value });
        }
    }

    /// The next digests, if they may be sent now.
    pub(super) fn next_digests(&mut self, now: Time) -> Option<Transmit> {
        if !self.inquiries.is_ready() || !self.inquiries.bucket.ready(now) {
            return None;
        }
        loop {
            let (to, message) = self.inquiries.next()?;
            let message = Message::SymbolDigests(message);
            let before = self.counters.wire_bytes;
            let transmit = match to {
                To::Group => {
                    let number = self.group_number(now);
                    self.transmit_open(self.config.data, number, &message)
                }
                // The device needs them no more.
                To::Device(index) if self.devices.get(index).is_final() => continue,
                To::Device(index) => {
                    let number = self.device_channel(index).number_for_one(now);
                    self.transmit_open(self.devices.get(index).address, number, &message)
                }
            };
            let bytes = self.counters.wire_bytes - before;
            self.inquiries.bucket.charge(bytes);
            self.unicast_share.charge(bytes);
            return Some(transmit);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time::ZERO;

    /// All that goes out, the digests of each block being `k` times its number.
    fn play(inquiries: &mut Inquiries, k: usize) -> Vec<(To, u32, u32, usize)> {
        let mut out = Vec::new();
        loop {
            while let Some(block) = inquiries.next_job() {
                inquiries.digested(block, vec![SymbolDigest([block.0 as u8; 16]); k]);
            }
            let Some((to, message)) = inquiries.next() else { return out };
            out.push((to, message.block.0, message.first_esi.0, message.digests.len()));
        }
    }

    #[test]
    fn one_is_answered_alone_and_several_together() {
        let mut inquiries = Inquiries::new(NOW);
        inquiries.ask(DeviceIndex(0), BlockIndex(3));
        inquiries.ask(DeviceIndex(0), BlockIndex(3));
        inquiries.ask(DeviceIndex(1), BlockIndex(7));
        inquiries.ask(DeviceIndex(2), BlockIndex(7));
        let all = DIGESTS_PER_MESSAGE;
        let expected = [
            (To::Device(DeviceIndex(0)), 3, 0, all),
            (To::Device(DeviceIndex(0)), 3, all as u32, 6),
            (To::Group, 7, 0, all),
            (To::Group, 7, all as u32, 6),
        ];
        assert_eq!(play(&mut inquiries, all + 6), expected);
        assert_eq!(inquiries.count, 3);
        // One that asks when the first has got half begins anew.
        inquiries.ask(DeviceIndex(0), BlockIndex(1));
        inquiries.next_job();
        inquiries.digested(BlockIndex(1), vec![SymbolDigest::default(); all * 2]);
        assert_eq!(inquiries.next().unwrap().0, To::Device(DeviceIndex(0)));
        inquiries.ask(DeviceIndex(4), BlockIndex(1));
        assert_eq!(play(&mut inquiries, 1), [(To::Group, 1, 0, all), (To::Group, 1, all as u32, all)]);
    }

    #[test]
    fn a_flood_of_questions_is_bounded() {
        let mut inquiries = Inquiries::new(NOW);
        (0..1_000).for_each(|block| inquiries.ask(DeviceIndex(0), BlockIndex(block)));
        assert_eq!(inquiries.queue.len(), MAX_SUSPECTS);
        // The next device has its turn.
        inquiries.ask(DeviceIndex(1), BlockIndex(5_000));
        assert_eq!(inquiries.queue.len(), MAX_SUSPECTS + 1);
        (2..100).for_each(|index| {
            (0..100).for_each(|i| inquiries.ask(DeviceIndex(index), BlockIndex(u32::from(index) * 100 + i)))
        });
        assert_eq!(inquiries.queue.len(), MAX_INQUIRIES);
        let jobs = std::iter::from_fn(|| inquiries.next_job()).count();
        assert_eq!(jobs, AHEAD);
        assert_eq!(inquiries.ready_at(), Time::NEVER);
    }

    #[test]
    fn questions_that_keep_coming_do_not_keep_the_digests_from_going_out() {
        let mut inquiries = Inquiries::new(NOW);
        // A block of 16 MiB: 187 messages, 90 ms of them. Fifty questions a second are what devices may ask.
        let k = DIGESTS_PER_MESSAGE * 187;
        inquiries.ask(DeviceIndex(0), BlockIndex(1));
        let block = inquiries.next_job().unwrap();
        inquiries.digested(block, vec![SymbolDigest::default(); k]);
        let mut last = 0;
        for message in 0..10_000 {
            if message % 40 == 0 {
                inquiries.ask(DeviceIndex((message / 40 % 20) as u16), BlockIndex(1));
            }
            let Some((_, digests)) = inquiries.next() else { return };
            last = last.max(digests.first_esi.0);
        }
        panic!("the head of the queue never leaves it: it never got beyond digest {last} of {k}");
    }
}
