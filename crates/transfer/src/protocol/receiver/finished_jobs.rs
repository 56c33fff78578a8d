//! Handles the results of jobs.

use super::blocks::Blocks;
use super::resume::Candidates;
use super::{Receiver, State};
use crate::protocol::job::ReceiverDone;
use crate::time::Time;
use crate::units::BlockIndex;
use crate::wire::AbortCode;

impl Receiver {
    /// Takes the result of a job.
    pub(super) fn job_done(&mut self, now: Time, done: ReceiverDone) {
        if let ReceiverDone::WorkerDied(text) = done {
            self.fail(AbortCode::Internal, text, now);
            if let State::Leaving(leaving) = &mut self.state
                && self.jobs_in_flight == 0
            {
                leaving.give_up_discarding();
            }
            self.discard_when_idle();
            self.finish_leaving();
            return;
        }
        if let ReceiverDone::Probed { session, holding, ticket } = done {
            self.probed(now, session, holding, ticket);
            self.discard_when_idle();
            return;
        }
        if let ReceiverDone::TicketKept(kept) = done {
            self.ticket_kept = kept;
            self.discard_when_idle();
            return;
        }
        let opened = matches!(done, ReceiverDone::Opened { .. });
        if matches!(self.state, State::Leaving(_)) {
            if let (ReceiverDone::Discarded | ReceiverDone::Kept, State::Leaving(leaving)) =
                (&done, &mut self.state)
            {
                leaving.part_file_settled();
            }
            match (done, &mut self.blocks) {
                (ReceiverDone::Kept, Some(blocks)) => self.kept = blocks.worth_keeping(),
                // The contents of the part file decide whether it is kept.
                (ReceiverDone::Opened { written, earlier }, Some(blocks)) => {
                    blocks.resume_from(Candidates::new(written, earlier));
                }
                (ReceiverDone::Checked { block, agrees }, Some(blocks)) => blocks.checked(block, agrees),
                (ReceiverDone::Stored { block, value, buffer }, Some(blocks)) => {
                    blocks.stored(block, value, buffer);
                }
                (ReceiverDone::Zeroed { first, count, wrong }, Some(blocks)) => {
                    blocks.zeroed(first, count, wrong);
                }
                (ReceiverDone::Committed(path), _) => return self.in_place(path, now),
                (ReceiverDone::Failed(..), _) => self.report_interrupt(now),
                _ => {}
            }
            self.is_open |= opened;
            self.discard_when_idle();
            self.finish_leaving();
            return;
        }
        let Some(blocks) = &mut self.blocks else { return };
        match done {
            ReceiverDone::Opened { written, earlier } => {
                blocks.resume_from(Candidates::new(written, earlier));
                self.resume_reported = blocks.candidates() == 0;
                self.withhold_candidates();
                self.opened();
            }
            ReceiverDone::Arranged { there } => self.arranged(&there),
            ReceiverDone::Checked { block, agrees } => blocks.checked(block, agrees),
            ReceiverDone::Stored { block, value, buffer } => {
                let verdict = blocks.stored(block, value, buffer);
                self.block_checked(block, verdict, now);
            }
            ReceiverDone::Mismatched { block, buffer, kept } => {
                let verdict = blocks.mismatched(block, buffer, kept);
                self.block_checked(block, verdict, now);
            }
            ReceiverDone::Sifted { block, right, agrees, buffer } => {
                self.sifted((block, right, agrees), buffer, now);
            }
            ReceiverDone::Written { block, buffer } => blocks.written(block, buffer),
            ReceiverDone::Reserved => blocks.reserved(),
            ReceiverDone::Zeroed { first, count, wrong } => {
                if let Some(BlockIndex(block)) = blocks.zeroed(first, count, wrong) {
                    let reason =
                        format!("the sender says that block {block} is zeros, and its hash is another");
                    self.fail(AbortCode::Mismatch, reason, now);
                }
            }
            ReceiverDone::Undecodable(assembly) => blocks.undecodable(assembly),
            ReceiverDone::Spilled { assembly, buffer } => blocks.spilled(assembly, buffer),
            ReceiverDone::Committed(path) => self.in_place(path, now),
            ReceiverDone::HookEnded(end) => self.hook_ended(end, now),
            ReceiverDone::Failed(code, reason) => self.fail(code, reason, now),
            ReceiverDone::Probed { .. }
            | ReceiverDone::TicketKept(_)
            | ReceiverDone::Discarded
            | ReceiverDone::Kept
            | ReceiverDone::WorkerDied(_) => {}
        }
    }

    /// The part file exists now. Stores the complete blocks in it.
    fn opened(&mut self) {
        self.state = State::Receiving;
        self.is_open = true;
        let jobs = self.blocks.as_mut().map_or_else(Vec::new, Blocks::release);
        jobs.into_iter().for_each(|job| self.job(job));
    }
}
