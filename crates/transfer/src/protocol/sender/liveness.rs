//! Liveness: devices that fall silent or make no progress, and whether the source is unchanged.

use super::Sender;
use super::devices::Class;
use super::headway::Halt;
use crate::limits::{DEVICE_STALL, DEVICE_SYNC};
use crate::protocol::job::SenderJob;
use crate::task::State;
use crate::time::Time;
use crate::units::DeviceIndex;
use std::time::Duration;

/// How often devices are checked, and how many at a time. Even in the largest session, each device is checked within
/// a third of the time for which it may be silent.
const SWEEP: Duration = Duration::from_millis(500);
const SWEPT_AT_ONCE: usize = 64;
/// Bytes a second at which a device is at least expected to find blocks on its disk.
const SLOWEST_DISK: u64 = 10_000_000;
/// How often the source is checked.
const SOURCE_CHECK: Duration = Duration::from_secs(1);
/// How often devices out of the group's reach get an announcement by unicast.
const GREETING: Duration = Duration::from_secs(5);
const GREETED_AT_ONCE: usize = 64;

/// The times of the next checks.
#[derive(Debug)]
pub(super) struct Liveness {
    next_sweep: Time,
    /// The first device of the next sweep.
    cursor: DeviceIndex,
    /// The latest time at which the stream was in progress. Until its end, no device need make progress.
    streamed: Time,
    next_check: Time,
    checking: bool,
}

impl Liveness {
    pub fn new(now: Time) -> Self {
        let (next_sweep, next_check) = (now + SWEEP, now + SOURCE_CHECK);
        Self { next_sweep, cursor: DeviceIndex(0), streamed: now, next_check, checking: false }
    }
    pub fn source_checked(&mut self, now: Time) {
        self.checking = false;
        self.next_check = now + SOURCE_CHECK;
    }
    pub fn next_timeout(&self) -> Time {
        self.next_sweep.min(if self.checking { Time::NEVER } else { self.next_check })
    }
}

impl Sender {
    /// Runs all work that is due at `now`.
    pub(super) fn run_due(&mut self, now: Time) {
        if self.shutdown.is_closing() {
            self.send_goodbye(now);
            return;
        }
        if now >= self.shutdown.time_is_up_at() {
            self.time_is_up(now);
            return;
        }
        self.watch_the_store(now);
        if now >= self.announces.next {
            self.announce(now);
        }
        if now >= self.liveness.next_sweep {
            self.liveness.next_sweep = now + SWEEP;
            self.sweep(now);
        }
        if now >= self.liveness.next_check && !self.liveness.checking {
            self.liveness.checking = true;
            self.job(SenderJob::CheckSource);
        }
        self.start_if_ready(now);
        self.end_if_done(now);
    }

    /// Excludes time in which the process was stopped or could not send: it does not count as silence, and deadlines
    /// for joins move by it.
    pub(super) fn absent(&mut self, now: Time, away: Duration) {
        for (_, device) in self.devices.iter_mut() {
            device.last_heard = (device.last_heard + away).min(now);
            device.headway.put_off(away, now);
            device.group.rose = (device.group.rose + away).min(now);
        }
        self.liveness.streamed = (self.liveness.streamed + away).min(now);
        self.gather.until = self.gather.until + away;
        self.records.put_off(away);
        self.window.put_off();
        self.shutdown.put_off(away);
    }

    /// Checks some devices for silence and lack of progress.
    fn sweep(&mut self, now: Time) {
        let open = self.devices.gsize();
        let (silence, done) = (self.budget().device_silence(open), self.stream_done());
        let blocks = self.config.layout.block_count();
        self.hold_stream();
        self.charge_for_window(now);
        if !done && !self.stream_is_held() {
            self.liveness.streamed = now;
        }
        let (streamed, cursor) = (self.liveness.streamed, self.liveness.cursor);
        let stream = (streamed, streamed.since(self.gather.started.unwrap_or(streamed)));
        let of_disk = DEVICE_SYNC + Duration::from_secs(self.config.layout.object_size() / SLOWEST_DISK);
        let open = self.devices.of(Class::Open);
        // From the cursor to the end, then from the start to the cursor.
        let round = open.range(cursor..).chain(open.range(..cursor));
        let next: Vec<DeviceIndex> = round.take(SWEPT_AT_ONCE).copied().collect();
        self.liveness.cursor = next.last().map_or(cursor, |last| DeviceIndex(last.0.wrapping_add(1)));
        let mut ended: Vec<(DeviceIndex, State)> = Vec::new();
        for index in next {
            let device = self.devices.get_mut(index);
            // Syncing a large file may take long, but a hanging disk must not keep the session open forever.
            let syncing = done && blocks > 0 && device.reported.verified == blocks;
            let waits = device.reported.waits_for_reader();
            let patience = if syncing || waits { DEVICE_SYNC } else { DEVICE_STALL.max(silence) };
            if now.since(device.last_heard) > silence {
                ended.push((index, State::Lost));
                continue;
            }
            let what = match device.headway.halts((patience, of_disk), stream, done, now) {
                None => continue,
                Some(Halt::Served(most)) => format!("did not complete in {} s of repairs", most.as_secs()),
                Some(Halt::Untouched(time)) => {
                    format!("gained nothing from what it was sent for {} s", time.as_secs())
                }
                Some(Halt::Stalled) if syncing => {
                    format!("did not finish syncing, or its --then command, for {} s", patience.as_secs())
                }
                Some(Halt::Stalled) if waits => {
                    format!("passed nothing on to its reader for {} s", patience.as_secs())
                }
                Some(Halt::Stalled) => {
                    let hint = self.size_hint(index);
                    format!("came no closer to completion for {} s{hint}", patience.as_secs())
                }
            };
            ended.push((index, State::Failed(what)));
        }
        for (index, state) in ended {
            self.set_state(index, state, now);
        }
        self.greet_the_group_unreachable(now);
    }

    /// Announces the session by unicast to devices that do not hear the group and wait for unicast repair.
    /// Otherwise they would give the sender up.
    fn greet_the_group_unreachable(&mut self, now: Time) {
        let unreachable: Vec<DeviceIndex> =
            self.devices.of(Class::GroupUnreachable).iter().copied().collect();
        let waiting = |&index: &DeviceIndex| now >= self.devices.get(index).group.told + GREETING;
        let keys: Vec<DeviceIndex> = unreachable.into_iter().filter(waiting).take(GREETED_AT_ONCE).collect();
        for index in keys {
            self.devices.get_mut(index).group.told = now;
            self.announce_to(index, now);
        }
    }
}
