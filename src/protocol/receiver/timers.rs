//! The timers of a receiver.

use super::config::ReceiverConfig;
use super::inquiry::Inquiry;
use super::liveness::REJOIN;
use crate::limits::{KEEPALIVE_INTERVAL, REPORT_INTERVAL};
use crate::time::Time;
use std::time::Duration;

#[derive(Debug)]
pub(super) struct Timers {
    /// When to give up seeking.
    pub seek_until: Time,
    pub rejoin: Time,
    /// When to look whether there is something to report.
    pub report: Time,
    /// When to report although there is nothing new.
    pub keepalive: Time,
    /// The interval that the report's time was drawn for.
    pub report_interval: Duration,
    pub inquiry: Inquiry,
}

impl Timers {
    pub fn new(now: Time, config: &ReceiverConfig) -> Self {
        Self {
            seek_until: now + config.timeout,
            rejoin: now + REJOIN,
            report: Time::NEVER,
            keepalive: Time::NEVER,
            report_interval: REPORT_INTERVAL,
            inquiry: Inquiry::default(),
        }
    }
    /// A session has admitted us, perhaps in place of another one.
    pub fn admitted(&mut self, now: Time) {
        self.seek_until = Time::NEVER;
        self.rejoin = now + REJOIN;
        self.inquiry = Inquiry::default();
        self.report = now + REPORT_INTERVAL;
        self.keepalive = now + KEEPALIVE_INTERVAL / 4;
        self.report_interval = REPORT_INTERVAL;
    }
}
