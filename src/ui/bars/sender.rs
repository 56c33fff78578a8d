//! The sender's bars: gathering, one bar for the whole transfer, and the devices furthest behind.

use super::Screen;
use crate::protocol::event::{SenderEvent, SenderSnapshot};
use crate::status::DeviceStatus;
use crate::time::Time;
use crate::ui::memory::SenderMemory;
use crate::ui::plain::{duplicate_id, status_line};
use crate::ui::{Exit, Notes, SenderIntro, SenderView, table, text, trust};
use crate::wire::Phase;

/// Most devices named below the bar.
const MOST_BEHIND: usize = 4;

/// A sender's bars.
pub struct SenderBars {
    screen: Screen,
    intro: SenderIntro,
    memory: SenderMemory,
}

impl SenderBars {
    /// Draws bars on `screen`.
    pub fn new(mut screen: Screen, intro: SenderIntro) -> Self {
        let (name, size) = (text::escape(&intro.name), text::bytes(intro.size));
        screen.say(&format!("sending {name} ({size}) to {}", intro.group));
        screen.say(&trust::introduction(&intro.sender, intro.sealed_with.as_deref()));
        Self { screen, intro, memory: SenderMemory::default() }
    }

    fn draw(&mut self, now: Time, s: &SenderSnapshot) {
        let complete = s.count(|status| *status == DeviceStatus::Complete);
        let failed = s.count(|status| matches!(status, DeviceStatus::Failed(_) | DeviceStatus::Lost));
        let columns = self.screen.columns();
        let done = format!("{complete} of {} devices complete", SenderMemory::wanted(s));
        let gone = if failed > 0 { format!("{failed} failed") } else { String::new() };
        match s.phase {
            Phase::Gathering => {
                let ready = SenderMemory::gathered(s);
                let enter = if self.intro.enter_starts { "Enter starts now" } else { "" };
                let waited = text::clock(now.since(Time::ZERO).as_secs());
                self.screen.draw(&text::fit(&[ready, enter.to_owned(), waited], columns), None, &[]);
            }
            Phase::Streaming | Phase::Repairing => {
                let word = if s.phase == Phase::Streaming { "sending" } else { "finishing" };
                let repair = text::share(s.repair_symbols + s.unicast_symbols, s.source_symbols);
                let head = [word.to_owned(), done, gone, format!("repair {repair}")];
                let parts = [
                    text::rate(self.memory.wire.bits_per_second()),
                    format!("{} of {}", text::bytes(s.streamed), text::bytes(s.object_size)),
                    self.time_left(s),
                ];
                let below = self.behind(now, s, columns);
                let bar = Some((SenderMemory::fraction(s), &parts[..]));
                self.screen.draw(&text::fit(&head, columns), bar, &below);
            }
            Phase::Lingering => {
                let head = ["staying for late devices".to_owned(), done, gone, "Ctrl-C ends".to_owned()];
                let below = self.behind(now, s, columns);
                self.screen.draw(&text::fit(&head, columns), None, &below);
            }
        }
    }

    /// The time to stream the rest at the present speed.
    fn time_left(&self, s: &SenderSnapshot) -> String {
        if s.phase == Phase::Streaming {
            self.memory.wire.time_for(s.object_size.saturating_sub(s.streamed))
        } else {
            String::new()
        }
    }

    fn behind(&self, now: Time, s: &SenderSnapshot, columns: usize) -> Vec<String> {
        let rows = SenderMemory::furthest_behind(s, MOST_BEHIND);
        let labels: Vec<String> =
            rows.iter().map(|(row, _)| text::cut(&text::device_name(&row.label, row.device), 24)).collect();
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
    fn event(&mut self, now: Time, event: &SenderEvent, s: &SenderSnapshot) {
        self.memory.event(now, event);
        match event {
            SenderEvent::Status(row) => {
                // With many devices, completions are only counted; problems are always printed.
                if let Some(line) = status_line(row) {
                    if row.status == DeviceStatus::Complete {
                        self.screen.note(&line);
                    } else {
                        self.screen.say(&line);
                    }
                }
            }
            SenderEvent::Joined { device, label, address, late } => {
                let late = if *late { " late" } else { "" };
                self.screen
                    .note(&format!("{} joined{late} from {address}", text::device_name(label, *device)));
            }
            SenderEvent::DuplicateId { device, label, addresses } => {
                self.screen.warn(&duplicate_id(*device, label, addresses));
            }
            SenderEvent::Phase(_) => self.draw(now, s),
            SenderEvent::Hashed(_) | SenderEvent::Finished(_) => {}
        }
    }

    fn tick(&mut self, now: Time, s: &SenderSnapshot) {
        self.memory.wire.record(now, s.wire_bytes);
        self.memory.watch(now, s);
        if self.screen.due(now) {
            self.draw(now, s);
        }
    }

    fn finish(&mut self, now: Time, s: &SenderSnapshot, _: Exit) {
        self.screen.clear();
        let (columns, colour) = (self.screen.columns(), self.screen.colour);
        for line in table::table(&self.memory, s, columns, colour).lines() {
            self.screen.say(line);
        }
        for line in table::summary(&self.memory, &self.intro, s, now) {
            self.screen.say(&line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ui::testing::{row, sender_intro, snapshot};
    use indicatif::{InMemoryTerm, ProgressDrawTarget};
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
    fn a_whole_run() {
        let (term, mut view) = bars(80);
        let mut s = snapshot(Phase::Gathering);
        s.expected = Some(3);
        s.devices = vec![row("lab-1", DeviceStatus::Waiting)];
        view.tick(at(1_000), &s);
        assert_eq!(
            term.contents(),
            "sending image.iso (100.00 MiB) to 239.1.1.1\n\
             this sender is ma3i-cc7u-6r2h-7k5c, sealed with key lab\n\
             waiting for devices: 1 of 3 · Enter starts now · 1s"
        );
        s.phase = Phase::Streaming;
        view.event(at(2_000), &SenderEvent::Phase(Phase::Streaming), &s);
        view.tick(at(2_100), &s);
        s.wire_bytes += 10_000_000;
        view.tick(at(3_100), &s);
        let text = term.contents();
        assert!(text.contains("sending · 0 of 3 devices complete · repair 1.3 %"), "{text}");
        assert!(text.contains(" 50 % ━━━━"), "{text}");
        assert!(text.contains("80.0 Mbit/s · 50.00 MiB of 100.00 MiB"), "{text}");
        s.phase = Phase::Repairing;
        s.position = 100;
        s.devices[0].status = DeviceStatus::Repairing { deficit: 100 };
        s.devices[0].lost_datagrams = 1_900;
        view.event(at(3_200), &SenderEvent::Phase(Phase::Repairing), &s);
        let text = term.contents();
        assert!(text.contains("  lab-1  100 blocks behind   loss 5.0 %"), "{text}");
        s.devices[0].status = DeviceStatus::Failed("disk full".into());
        view.event(at(3_300), &SenderEvent::Status(s.devices[0].clone()), &s);
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
            s.devices = vec![row("a-rather-long-label-for-this", DeviceStatus::Receiving { deficit: 100 })];
            s.devices[0].kernel_drops = 5;
            view.tick(at(1_000), &s);
            s.wire_bytes += 10_000_000;
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
