//! When the receiver has to do what.

use super::config::ReceiverConfig;
use super::inquiry::Inquiry;
use super::liveness::REJOIN;
use crate::limits::{KEEPALIVE_INTERVAL, REPORT_INTERVAL};
use crate::time::Time;
use std::time::Duration;

/// An unanswered join is not repeated sooner.
const JOIN_PATIENCE: Duration = Duration::from_millis(400);
/// Challenges are not answered more often.
const RETRY_PATIENCE: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(super) struct Timers {
    /// When to give up seeking.
    pub seek_until: Time,
    pub rejoin: Time,
    /// When to send a join; never if none is due.
    pub join: Time,
    pub last_join: Option<Time>,
    pub last_retry: Option<Time>,
    /// When to look whether there is something to report.
    pub report: Time,
    /// When to report although there is nothing new.
    pub keepalive: Time,
    /// The interval that the report's time was drawn for.
    pub report_interval: Duration,
    pub refused_at: Time,
    pub inquiry: Inquiry,
}

impl Timers {
    pub fn new(now: Time, config: &ReceiverConfig) -> Self {
        Self {
            seek_until: now + config.timeout,
            rejoin: now + REJOIN,
            join: Time::NEVER,
            last_join: None,
            last_retry: None,
            report: Time::NEVER,
            keepalive: Time::NEVER,
            report_interval: REPORT_INTERVAL,
            refused_at: Time::NEVER,
            inquiry: Inquiry::default(),
        }
    }
    pub fn session_found(&mut self, now: Time) {
        self.seek_until = Time::NEVER;
        self.rejoin = now + REJOIN;
    }
    pub fn session_changed(&mut self, now: Time) {
        self.session_found(now);
        self.inquiry = Inquiry::default();
        (self.join, self.last_join) = (Time::NEVER, None);
        (self.report, self.keepalive) = (Time::NEVER, Time::NEVER);
    }
    pub fn admitted(&mut self, now: Time) {
        self.join = Time::NEVER;
        self.report = now + REPORT_INTERVAL;
        self.keepalive = now + KEEPALIVE_INTERVAL / 4;
        self.report_interval = REPORT_INTERVAL;
    }
    /// Whether a challenge may be answered now; counts it as answered.
    pub fn may_answer_retry(&mut self, now: Time) -> bool {
        let may = self.last_retry.is_none_or(|at| now >= at + RETRY_PATIENCE);
        if may {
            (self.last_retry, self.last_join) = (Some(now), Some(now));
        }
        may
    }
    pub fn join_is_pending(&self, now: Time) -> bool {
        self.join != Time::NEVER || self.last_join.is_some_and(|at| now < at + JOIN_PATIENCE)
    }
}
