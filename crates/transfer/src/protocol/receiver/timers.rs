//! The timers of a receiver.

use super::config::ReceiverConfig;
use super::inquiry::Inquiry;
use super::liveness::REJOIN;
use crate::limits::{KEEPALIVE_INTERVAL, REPORT_INTERVAL};
use crate::time::Time;
use std::time::Duration;

#[derive(Debug)]
pub(super) struct Timers {
    /// When to give up looking for a sender.
    pub seek_until: Time,
    pub rejoin: Time,
    /// When to check whether there is something to report.
    pub report: Time,
    /// When to report even if there is nothing new.
    pub keepalive: Time,
    /// The interval from which the time of the report was drawn.
    pub report_interval: Duration,
    pub inquiry: Inquiry,
    /// The room of the last report.
    pub told_room: u32,
    /// The blocks below this were verified in the last report.
    pub told_below: u32,
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
            told_room: u32::MAX,
            told_below: 0,
        }
    }
    /// Nothing is ever reported.
    pub fn quiet(&mut self) {
        (self.report, self.keepalive) = (Time::NEVER, Time::NEVER);
    }
    /// Restarts the timers for a session that has admitted the device.
    pub fn admitted(&mut self, now: Time) {
        self.seek_until = Time::NEVER;
        self.rejoin = now + REJOIN;
        self.inquiry = Inquiry::default();
        (self.told_room, self.told_below) = (u32::MAX, 0);
        self.report = now + REPORT_INTERVAL;
        self.keepalive = now + KEEPALIVE_INTERVAL / 4;
        self.report_interval = REPORT_INTERVAL;
    }
}
