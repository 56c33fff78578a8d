//! The sender's bars: gathering, one bar for the whole transfer, and the devices furthest behind.

use super::Screen;
use crate::ui::memory::SenderMemory;
use crate::ui::plain::{STORE_ANSWERS, duplicate_id, status_line, store_fails};
use crate::ui::{Exit, Notes, SenderIntro, SenderView, one_way, table, text, trust};
use mcp_transfer::protocol::event::{SenderEvent, SenderOverview, SenderSnapshot};
use mcp_transfer::time::Time;
use mcp_transfer::wire::Phase;
use std::ops::Range;

/// Most devices named below the bar.
const MOST_BEHIND: usize = 4;

/// A sender's bars.
pub struct SenderBars {
    pub(super) screen: Screen,
    intro: SenderIntro,
    memory: SenderMemory,
}

impl SenderBars {
    /// Draws bars on `screen`.
    pub fn new(mut screen: Screen, intro: SenderIntro) -> Self {
        let (name, size) = (text::escape(&intro.name), text::object(intro.size, intro.entries));
        screen.say(&format!("sending {name} ({size}) to {}", intro.group));
        screen.say(&trust::introduction(&intro.sender, intro.sealed_with.as_deref()));
        Self { screen, intro, memory: SenderMemory::default() }
    }

    fn draw(&mut self, now: Time, s: &SenderSnapshot) {
        let overview = &s.overview;
        let failed = overview.devices.failed + overview.devices.lost;
        let columns = self.screen.columns();
        if let Some(progress) = one_way::progress(overview) {
            let rate = text::rate(self.memory.wire.bits_per_second());
            self.screen.draw(&text::fit(&[progress, rate], columns), None, &[]);
            return;
        }
        let done = format!("{} of {} devices complete", overview.devices.complete, overview.wanted());
        let gone = if failed > 0 { format!("{failed} failed") } else { String::new() };
        match overview.phase {
            Phase::Gathering => {
                let ready = SenderMemory::gathered(overview);
                let enter = if self.intro.enter_starts { "Enter starts now" } else { "" };
                let waited = text::clock(now.since(Time::ZERO).as_secs());
                self.screen.draw(&text::fit(&[ready, enter.to_owned(), waited], columns), None, &[]);
            }
            Phase::Streaming | Phase::Repairing => {
                let word = if overview.phase == Phase::Streaming { "sending" } else { "finishing" };
                let repair =
                    text::share(overview.repair_symbols + overview.unicast_symbols, overview.source_symbols);
                let head = [word.to_owned(), done, gone, format!("repair {repair}")];
                let parts = [
                    text::rate(self.memory.wire.bits_per_second()),
                    text::so_far(overview.streamed, overview.total()),
                    self.time_left(overview),
                ];
                let below = self.behind(now, s, columns);
                let bar = Some((SenderMemory::fraction(s), &parts[..])).filter(|_| !overview.growing);
                // Nobody knows how far a stream is.
                let line = if bar.is_none() { [&head[..], &parts[..]].concat() } else { head.to_vec() };
                self.screen.draw(&text::fit(&line, columns), bar, &below);
            }
            Phase::Lingering => {
                let head = ["staying for late devices".to_owned(), done, gone, "Ctrl-C ends".to_owned()];
                let below = self.behind(now, s, columns);
                self.screen.draw(&text::fit(&head, columns), None, &below);
            }
        }
    }

    /// What is left to stream at the present speed.
    fn time_left(&self, s: &SenderOverview) -> String {
        if s.phase == Phase::Streaming && !s.growing {
            self.memory.wire.time_for(left_to_send(s.streamed..s.object_size, &self.intro.holes))
        } else {
            String::new()
        }
    }

    fn behind(&self, now: Time, s: &SenderSnapshot, columns: usize) -> Vec<String> {
        let rows = SenderMemory::furthest_behind(s, MOST_BEHIND);
        let labels: Vec<String> = rows
            .iter()
            .map(|(row, _)| text::cut(&text::device_name(&row.assignment.label, row.assignment.device), 24))
            .collect();
        let widest = labels.iter().map(|label| text::width(label)).max().unwrap_or(0);
        rows.iter()
            .zip(&labels)
            .map(|((row, blocks), label)| {
                let label = console::pad_str(label, widest, console::Alignment::Left, None);
                let blocks = format!("{blocks} block{} behind", if *blocks == 1 { "" } else { "s" });
                let line = format!("  {label}  {blocks:<18}  {}", self.memory.hold(row, s, now));
                text::cut(line.trim_end(), columns)
            })
            .collect()
    }
}

impl Notes for SenderBars {
    fn note(&mut self, _: Time, text: &str) {
        self.screen.note(text);
    }
    fn warn(&mut self, _: Time, text: &str) {
        self.screen.warn(text);
    }
}

impl SenderView for SenderBars {
    fn event(&mut self, now: Time, event: &SenderEvent, _: &SenderOverview) {
        self.memory.event(now, event);
        match event {
            SenderEvent::Device(row) => {
                // With many devices completions are a number; troubles are always told.
                if let Some(line) = status_line(row) {
                    if row.assignment.is_complete() {
                        self.screen.note(&line);
                    } else {
                        self.screen.say(&line);
                    }
                }
            }
            SenderEvent::Joined { device, label, address, late, .. } => {
                let late = if *late { " late" } else { "" };
                self.screen
                    .note(&format!("{} joined{late} from {address}", text::device_name(label, *device)));
            }
            SenderEvent::DuplicateId { device, label, addresses } => {
                self.screen.warn(&duplicate_id(*device, label, addresses));
            }
            SenderEvent::DeviceKeyChanged { device, label, key, before } => {
                self.screen.warn(&trust::device_key_changed(*device, label, key.as_ref(), before));
            }
            SenderEvent::NotListed { label, address, key, named } => {
                self.screen.warn(&trust::not_listed(label, address.ip(), key.as_ref(), *named));
            }
            SenderEvent::StoreFails(why) => self.screen.warn(&store_fails(why)),
            SenderEvent::StoreAnswers => self.screen.say(STORE_ANSWERS),
            // The next tick draws it.
            SenderEvent::Phase(_) => self.screen.drawn = None,
            SenderEvent::Hashed(_) | SenderEvent::Finished(_) => {}
        }
    }

    fn tick(&mut self, now: Time, s: &SenderSnapshot) {
        self.memory.wire.record(now, s.overview.wire_bytes);
        self.memory.watch(now, s);
        if self.screen.due(now) {
            self.draw(now, s);
        }
    }

    fn finish(&mut self, now: Time, s: &SenderSnapshot, _: Exit) {
        self.screen.clear();
        let (columns, colour) = (self.screen.columns(), self.screen.colour);
        for line in table::table(&self.memory, s, columns, colour).lines() {
            self.screen.exact(line);
        }
        for line in table::summary(&self.memory, s, now) {
            self.screen.say(&line);
        }
        if let Some(line) = table::sum(&self.memory, &self.intro) {
            self.screen.exact(&line);
        }
    }
}

/// Bytes of a range of the object that are not in `holes`, which are ascending.
fn left_to_send(range: Range<u64>, holes: &[Range<u64>]) -> u64 {
    let within = |hole: &Range<u64>| hole.end.min(range.end).saturating_sub(hole.start.max(range.start));
    range.end.saturating_sub(range.start).saturating_sub(holes.iter().map(within).sum())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ui::testing::{row, sender_intro, snapshot};
    use indicatif::{InMemoryTerm, ProgressDrawTarget};
    use mcp_transfer::protocol::statistics::Activity;
    use mcp_transfer::task::State;
    use std::time::Duration;

    fn at(ms: u64) -> Time {
        Time::ZERO + Duration::from_millis(ms)
    }

    fn bars(columns: u16) -> (InMemoryTerm, SenderBars) {
        let term = InMemoryTerm::new(24, columns);
        let target = ProgressDrawTarget::term_like(Box::new(term.clone()));
        let screen = Screen::new(target, Some(usize::from(columns)), false, false);
        (term, SenderBars::new(screen, sender_intro()))
    }

    #[test]
    fn holes_take_no_time() {
        let holes = [10..20, 50..90];
        for (range, left) in [(0..100, 50), (15..100, 40), (20..50, 30), (60..80, 0), (95..100, 5), (5..5, 0)]
        {
            assert_eq!(left_to_send(range.clone(), &holes), left, "{range:?}");
        }
    }

    #[test]
    fn a_whole_run() {
        let (term, mut view) = bars(80);
        let mut s = snapshot(Phase::Gathering);
        s.overview.expected = Some(3);
        s = s.with_devices(vec![row("lab-1", State::Pending)]);
        view.tick(at(1_000), &s);
        assert_eq!(
            term.contents(),
            "sending image.iso (100.00 MiB) to 239.1.1.1\n\
             this sender is ma3i-cc7u-6r2h-7k5c, sealed with key lab\n\
             waiting for devices: 1 of 3 · Enter starts now · 1s"
        );
        s.overview.phase = Phase::Streaming;
        view.event(at(2_000), &SenderEvent::Phase(Phase::Streaming), &s.overview);
        view.tick(at(2_100), &s);
        s.overview.wire_bytes += 10_000_000;
        view.tick(at(3_100), &s);
        let text = term.contents();
        assert!(text.contains("sending · 0 of 3 devices complete · repair 1.3 %"), "{text}");
        assert!(text.contains(" 50 % ━━━━"), "{text}");
        assert!(text.contains("80.0 Mbit/s · 50.00 MiB of 100.00 MiB"), "{text}");
        s.overview.phase = Phase::Repairing;
        s.overview.position = 100;
        let mut lossy = row("lab-1", State::Active);
        lossy.transfer.activity = Some(Activity::Repairing);
        lossy.transfer.lost_datagrams = 1_900;
        s = s.with_devices(vec![lossy]);
        view.event(at(3_200), &SenderEvent::Phase(Phase::Repairing), &s.overview);
        view.tick(at(3_200), &s);
        let text = term.contents();
        assert!(text.contains("  lab-1  100 blocks behind   loss 5.0 %"), "{text}");
        let mut failed = row("lab-1", State::Failed("disk full".into()));
        failed.transfer.lost_datagrams = 1_900;
        s = s.with_devices(vec![failed]);
        view.event(at(3_300), &SenderEvent::Device(s.devices[0].clone()), &s.overview);
        view.finish(at(3_400), &s, Exit::NoDevice);
        assert_eq!(
            term.contents(),
            "\
sending image.iso (100.00 MiB) to 239.1.1.1
this sender is ma3i-cc7u-6r2h-7k5c, sealed with key lab
lab-1 failed: disk full
DEVICE  ADDRESS         STATUS  TIME   LOSS  REASON
lab-1   10.0.0.7:40000  failed   12s  5.0 %  disk full
0 of 3 devices complete in 1.4s"
        );
    }

    #[test]
    fn narrow_terminals_do_not_wrap() {
        for columns in [20, 30, 40, 60] {
            let (term, mut view) = bars(columns);
            let mut s = snapshot(Phase::Repairing);
            let mut device = row("a-rather-long-label-for-this", State::Active);
            device.transfer.activity = Some(Activity::Receiving);
            device.transfer.kernel_drops = 5;
            s = s.with_devices(vec![device]);
            view.tick(at(1_000), &s);
            s.overview.wire_bytes += 10_000_000;
            view.tick(at(2_000), &s);
            // One or more lines for the heading, then exactly three.
            let text = term.contents();
            let heading = text.lines().position(|l| l.starts_with("finishing")).unwrap();
            assert_eq!(text.lines().count(), heading + 3, "{columns}:\n{text}");
        }
    }

    #[test]
    fn a_view_dropped_leaves_a_clean_terminal() {
        let (term, mut view) = bars(80);
        view.tick(at(1_000), &snapshot(Phase::Streaming));
        drop(view);
        assert_eq!(
            term.contents(),
            "sending image.iso (100.00 MiB) to 239.1.1.1\nthis sender is ma3i-cc7u-6r2h-7k5c, sealed with key lab"
        );
    }
}
