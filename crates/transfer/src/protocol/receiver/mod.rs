//! The receiver's state machine: find a session, join, receive, commit, confirm.
//!
//! ```text
//!  seeking ──admitted──► opening ──part file──► receiving ──all verified──► committing ──► hooking, if
//!     │ timeout             │ refused               │ silence, abort            │           │ there is
//!     ▼                     └──────► leaving ◄──────┘                           ▼           ▼ a hook
//!  finished ◄───────────────────────────┴───────────────────────────────── confirming ◄────┘
//! ```
//!
//! - `config`: its configuration. `session`: the session that it takes part in.
//! - `provisional_sessions`: sessions that have not admitted it, and their turns. `provisional`: finding and joining
//!   them, and their messages.
//! - `inbound`: messages. `answer`: NAK summaries. `inquiry`: when to ask about suspect blocks.
//! - `blocks`: incoming blocks. `resume`: blocks that may be on the disk already. `failover`: going over to another
//!   session of the sender. `finished_jobs`: results of jobs. `storage_delay`: how long the disk takes.
//! - `opening`: taking part, and opening the destination. `one_way`: sessions without feedback. `relayed`: objects of a
//!   trusted origin that somebody else sends.
//! - `hook`: the command that runs once the file is in place.
//! - `liveness`, `timers`: timeouts, reports, the sender's silence. `shutdown`: confirming, leaving, interrupts.

mod answer;
mod blocks;
mod config;
mod failover;
mod finished_jobs;
mod hook;
mod inbound;
mod inquiry;
mod liveness;
mod one_way;
mod opening;
mod provisional;
mod provisional_sessions;
mod relayed;
mod resume;
mod session;
mod shutdown;
mod storage_delay;
mod timers;
mod tree;

pub use config::{HookRule, ReceiverConfig};

use super::event::{ReceiverEvent, ReceiverSnapshot};
use super::job::{ReceiverDone, ReceiverJob};
use super::need::Need;
use super::rate_limit::RateLimit;
use super::trust::TrustDecision;
use super::{Control, Machine, Output, Payload, Sessions, Transmit};
use crate::crypto::device::Claim;
use crate::crypto::sign::SigningKey;
use crate::fec::Buffer;
use crate::limits::{FeedbackBudget, VERIFICATIONS_FOR_STRANGERS, VERIFICATIONS_PER_SECOND};
use crate::ranges::BitSet;
use crate::time::Time;
use crate::units::{Arrival, BlockIndex, ChannelId, DeviceKey, Digest, SenderKey, SessionId};
use crate::wire::{
    AbortCode, Capabilities, DeviceProof, Header, Holdings, Join, Message, PacketNumber, Suspect, Versions,
};
use answer::PendingAnswer;
use blocks::{BlockCheck, Blocks};
use fastrand::Rng;
use hook::Hook;
use provisional_sessions::ProvisionalSessions;
use session::Session;
use shutdown::{Confirming, Leaving};
use std::collections::VecDeque;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;
use storage_delay::StorageDelay;
use timers::Timers;
use tree::Arranging;

type Out = Output<ReceiverJob, ReceiverEvent>;

/// The state of the run.
#[derive(Debug)]
enum State {
    /// No session has admitted the device.
    Seeking,
    /// The device is admitted, and the part file is being created.
    Opening,
    /// Receiving and repairing.
    Receiving,
    /// All blocks are verified; the file is being synced and renamed.
    Committing,
    /// The file is in place, and the hook runs.
    Hooking,
    /// The file is in place, and the sender is being told.
    Confirming(Confirming),
    /// Leaving without the file, once the part file is settled and the sender told.
    Leaving(Leaving),
    Finished,
}

/// Bounds on signature checks.
#[derive(Debug)]
struct Verifications {
    home: RateLimit,
    /// For datagrams from other addresses than the sender's.
    strangers: RateLimit,
}

#[derive(Debug, Default)]
struct Counters {
    ignored: u64,
    unknown_kinds: u64,
    not_understood: u64,
    overrun_drops: u64,
    kernel_drops: u64,
    /// The packet number of the next datagram.
    sent: u64,
}

/// The receiver. See [`Machine`] for how it is driven.
#[derive(Debug)]
pub struct Receiver {
    config: ReceiverConfig,
    rng: Rng,
    state: State,
    session: Option<Session>,
    blocks: Option<Blocks>,
    /// Whether the session's sender may have a row for this device, and whether it has admitted it.
    known: bool,
    admitted: bool,
    /// Sessions that have not admitted the device.
    provisional: ProvisionalSessions,
    /// Sessions that the user was told about.
    found: VecDeque<SessionId>,
    /// Hash of the file that is in place already, until the sender has said whether it is the object.
    adoptable: Option<Digest>,
    answer: Option<PendingAnswer>,
    timers: Timers,
    jobs_in_flight: u32,
    /// Whether the next run will find the ticket of the session.
    ticket_kept: bool,
    /// Whether the sender has acknowledged how the run ended.
    settled: bool,
    committed: Option<PathBuf>,
    /// Whether the destination has been opened.
    is_open: bool,
    hook: Hook,
    limits: Verifications,
    storage_delay: StorageDelay,
    /// Refused senders that the user was told about.
    refused: Vec<SenderKey>,
    /// Requirements of senders that this program does not meet, by their addresses.
    needs: Vec<(IpAddr, Need)>,
    /// The addresses of senders whose object has another name than the one to take.
    other_names: Vec<IpAddr>,
    trusted: Option<(SenderKey, TrustDecision)>,
    out: VecDeque<Out>,
    counters: Counters,
    received_any: bool,
    /// Whether the user was told how much was on the disk already.
    resume_reported: bool,
    /// Bytes in the part file that are left for the next run.
    kept: u64,
    /// The farewell of a sender without feedback.
    last_words: Option<one_way::LastWords>,
    /// Senders that have announced old sessions, of which the user was told.
    old: Vec<SenderKey>,
    arranging: Arranging,
}

impl Receiver {
    /// A receiver that starts looking for a session at `now`.
    #[must_use]
    pub fn new(config: ReceiverConfig, now: Time) -> Self {
        let mut out = VecDeque::new();
        out.extend(config.groups.iter().map(|&group| Output::Listen(group)));
        Self {
            rng: Rng::with_seed(config.seed),
            state: State::Seeking,
            session: None,
            blocks: None,
            known: false,
            admitted: false,
            provisional: ProvisionalSessions::default(),
            found: VecDeque::new(),
            adoptable: None,
            answer: None,
            timers: Timers::new(now, &config),
            jobs_in_flight: 0,
            ticket_kept: false,
            settled: false,
            committed: None,
            is_open: false,
            hook: Hook::default(),
            limits: Verifications {
                home: RateLimit::new(VERIFICATIONS_PER_SECOND),
                strangers: RateLimit::new(VERIFICATIONS_FOR_STRANGERS),
            },
            storage_delay: StorageDelay::default(),
            refused: Vec::new(),
            needs: Vec::new(),
            other_names: Vec::new(),
            trusted: None,
            out,
            counters: Counters::default(),
            received_any: false,
            resume_reported: true,
            kept: 0,
            last_words: None,
            old: Vec::new(),
            arranging: Arranging::default(),
            config,
        }
    }

    /// The receiver at a glance.
    #[must_use]
    pub fn snapshot(&self) -> ReceiverSnapshot {
        let mut snapshot = ReceiverSnapshot {
            kernel_drops: self.counters.kernel_drops,
            overrun_drops: self.counters.overrun_drops,
            ignored: self.counters.ignored,
            unknown_kinds: self.counters.unknown_kinds,
            not_understood: self.counters.not_understood,
            trusted: self.trusted,
            kept_bytes: self.kept,
            ..ReceiverSnapshot::default()
        };
        let current = self.provisional.current().filter(|_| self.session.is_none());
        if let Some(session) = self.session.as_ref().or(current.map(|current| &current.session)) {
            snapshot.session = Some(session.id);
            snapshot.name = Some(session.name.clone());
            snapshot.sender = Some(session.sender);
            snapshot.object_size = session.layout.object_size();
            snapshot.growing = !session.layout.is_sealed();
            snapshot.blocks = session.layout.block_count();
            snapshot.block_size = 1 << session.layout.block_log2();
            snapshot.received = session.group.received;
            snapshot.lost = session.group.lost();
            snapshot.phase = Some(session.phase);
            snapshot.one_way = session.one_way.then_some(session.counter);
        }
        let kept = current.and_then(|current| current.blocks.as_ref());
        if let Some(blocks) = self.blocks.as_ref().or(kept) {
            snapshot.verified_bytes = blocks.verified_bytes();
            snapshot.received_bytes = blocks.received_bytes();
            snapshot.carried_bytes = blocks.carried_bytes();
            snapshot.resumed_bytes = blocks.resumed_bytes();
            snapshot.verified = blocks.verified();
            snapshot.forged_symbols = blocks.forged_symbols();
            snapshot.buffered = blocks.buffered_bytes();
        }
        snapshot
    }

    /// Whether the sender has acknowledged how the run ended. Then the ticket is of no more use.
    #[must_use]
    pub const fn is_settled(&self) -> bool {
        self.settled
    }

    fn event(&mut self, event: ReceiverEvent) {
        self.out.push_back(Output::Event(event));
    }

    fn job(&mut self, job: ReceiverJob) {
        self.jobs_in_flight += 1;
        self.out.push_back(Output::Job(job));
    }

    /// Sends a message on the device's channel.
    fn send(&mut self, message: &Message<'_>) {
        let Some(session) = self.session.as_ref().filter(|_| !self.is_quiet()) else { return };
        let bytes = session.side.message(self.counters.sent, message);
        self.counters.sent += 1;
        let to = session.sender;
        self.out.push_back(Output::Transmit(Transmit { to, payload: Payload::Message(bytes) }));
    }

    /// Sends a JOIN in the receiver's session, whose sender has not given the device a channel, or has
    /// forgotten it.
    fn ask_to_join(&mut self) {
        let Some(session) = &self.session else { return };
        let holds = self.blocks.as_ref().is_some_and(Blocks::has_any);
        let holdings = match (self.config.intake.is_ordered(), holds) {
            (true, _) => Holdings::Passing,
            (false, true) => Holdings::Some,
            (false, false) => Holdings::Nothing,
        };
        let join = self.join(session, holdings);
        let datagram = self.join_datagram(session, join);
        self.send_join(datagram);
    }

    fn join(&self, session: &Session, holdings: Holdings) -> Join {
        Join {
            device: self.config.device,
            versions: Versions::OURS,
            supported: Capabilities::OURS,
            holdings,
            label: self.config.label.clone(),
            ticket: session.ticket,
            proof: self.config.device_key.as_ref().map(|key| self.proof(session, key)),
        }
    }

    /// The proof for the sender of a session of which device this is.
    fn proof(&self, session: &Session, key: &SigningKey) -> DeviceProof {
        let (sender, agreement) = (session.side.sender(), session.side.agreement());
        let (sender, agreement) = (&sender, &agreement);
        let claim = Claim { session: session.id, sender, agreement, device: &self.config.device };
        DeviceProof { key: DeviceKey::of(key), signature: claim.sign(key) }
    }

    /// A JOIN under the next packet number.
    fn join_datagram(&self, session: &Session, join: Join) -> Transmit {
        let packet_number = PacketNumber::new(ChannelId::GROUP, self.counters.sent);
        let header = Header { session: session.id, packet_number };
        let bytes = session.side.join(header, session.cookie, join);
        Transmit { to: session.sender, payload: Payload::Message(bytes) }
    }

    fn send_join(&mut self, datagram: Transmit) {
        if !self.is_quiet() {
            self.counters.sent += 1;
            self.out.push_back(Output::Transmit(datagram));
        }
    }

    /// Sends SUSPECT, if it is due.
    fn inquire(&mut self, now: Time) {
        let (State::Receiving, Some(blocks), true) =
            (&self.state, &self.blocks, self.admitted && !self.is_quiet())
        else {
            return;
        };
        let blocks = blocks.suspects();
        let group = self.session.as_ref().map_or((0, FeedbackBudget::default()), |s| (s.gsize, s.feedback));
        let inquiry = &mut self.timers.inquiry;
        if inquiry.is_due(!blocks.is_empty(), group, now, &mut self.rng) {
            self.send(&Message::Suspect(Suspect { blocks }));
        }
    }

    /// Requests a job that sifts the next suspect block with all its digests.
    fn sift(&mut self) {
        if let (State::Receiving, Some(blocks)) = (&self.state, &mut self.blocks)
            && let Some(job) = blocks.next_sift()
        {
            self.job(job);
        }
    }

    /// Takes a sifted suspect block.
    fn sifted(
        &mut self,
        (block, right, agrees): (BlockIndex, BitSet, bool),
        buffer: Option<Buffer>,
        now: Time,
    ) {
        let Some(blocks) = &mut self.blocks else { return };
        let (verdict, symbols) = blocks.sifted(block, right, agrees, buffer);
        if symbols > 0 {
            self.event(ReceiverEvent::ForgedSymbols { block: block.0, symbols });
        }
        self.block_checked(block, verdict, now);
    }

    fn block_checked(&mut self, block: BlockIndex, verdict: BlockCheck, now: Time) {
        match verdict {
            BlockCheck::Verified | BlockCheck::Waiting => {}
            BlockCheck::Rejected => self.event(ReceiverEvent::BlockRejected(block.0)),
            BlockCheck::Hopeless => {
                let reason = format!("block {} never agrees with its hash", block.0);
                self.fail(AbortCode::Mismatch, reason, now);
            }
        }
    }

    /// Requests checks of candidates, as many as are useful at a time.
    fn check_candidates(&mut self) {
        self.arrange();
        // Before the device goes over to another session, its workers must become idle.
        if !matches!(self.state, State::Receiving) || self.provisional.admitted().is_some() {
            return;
        }
        while let Some(job) = self.blocks.as_mut().and_then(Blocks::next_check) {
            self.job(job);
        }
        if let Some(blocks) = self.blocks.as_ref().filter(|blocks| blocks.candidates() == 0)
            && !std::mem::replace(&mut self.resume_reported, true)
        {
            let bytes = blocks.resumed_bytes();
            self.event(ReceiverEvent::Resumed { bytes });
        }
    }

    /// Requests that the next block be written, if the destination takes blocks in order.
    fn write_next(&mut self) {
        if let (State::Receiving, Some(blocks)) = (&self.state, &mut self.blocks)
            && let Some(job) = blocks.next_write()
        {
            self.job(job);
        }
    }

    /// Commits once all blocks are verified and the root hash is known, or refuses if it disagrees.
    fn commit_if_whole(&mut self, now: Time) {
        let (State::Receiving, Some(blocks), Some(session)) = (&self.state, &self.blocks, &self.session)
        else {
            return;
        };
        if blocks.overshoots() {
            let reason = "it is shorter than what was passed on already; receive it again";
            self.fail(AbortCode::Mismatch, reason.into(), now);
            return;
        }
        if !blocks.all_verified() || !blocks.all_written() || self.jobs_in_flight > 0 || !self.admitted {
            return;
        }
        if !self.is_arranged() {
            return;
        }
        let (Some(announced), Some(own)) = (session.root, blocks.root()) else { return };
        if announced != own {
            self.fail(AbortCode::Mismatch, "the hashes of the blocks do not give the file's".into(), now);
            return;
        }
        let layout = session.layout;
        self.state = State::Committing;
        self.answer = None;
        self.event(ReceiverEvent::Committing);
        self.job(ReceiverJob::Commit { layout, root: announced });
    }
}

impl Machine for Receiver {
    type Job = ReceiverJob;
    type Done = ReceiverDone;
    type Event = ReceiverEvent;

    fn handle_datagram(&mut self, now: Time, arrival: Arrival, bytes: &mut [u8]) {
        self.inbound(now, arrival, bytes);
    }

    fn handle_timeout(&mut self, now: Time) {
        self.run_due(now);
    }

    fn handle_job_done(&mut self, now: Time, done: ReceiverDone) {
        self.jobs_in_flight = self.jobs_in_flight.saturating_sub(1);
        self.storage_delay.ends(&done, now);
        self.job_done(now, done);
        self.check_candidates();
        self.do_what_pages_say();
        self.sift();
        self.write_next();
        self.inquire(now);
        self.commit_if_whole(now);
        self.go_over(now);
        self.leave_after_last_words(now);
    }

    fn handle_absence(&mut self, now: Time, away: Duration) {
        self.absent(now, away);
    }

    fn handle_control(&mut self, now: Time, control: Control) {
        if control == Control::Interrupt {
            self.interrupt(now);
        }
    }

    fn sessions(&self) -> Sessions {
        self.session.iter().map(|session| session.id).chain(self.provisional.ids()).collect()
    }

    fn set_kernel_drops(&mut self, drops: u64) {
        self.counters.kernel_drops = drops;
    }

    fn poll(&mut self, now: Time) -> Option<Out> {
        let out = self.out.pop_front();
        if let Some(Output::Job(job)) = &out {
            self.storage_delay.begins(job, now);
        }
        out
    }

    fn next_timeout(&self) -> Time {
        self.next_due()
    }

    fn is_finished(&self) -> bool {
        matches!(self.state, State::Finished) && self.out.is_empty()
    }
}

#[cfg(test)]
mod tests;
