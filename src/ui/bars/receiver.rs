//! The receiver's bars: waiting, one bar, and the hash at the end.

use super::Screen;
use crate::ui::memory::{FORGERY, ReceiverMemory, Stage};
use crate::ui::{Exit, Notes, ReceiverIntro, ReceiverView, text, trust};
use mcp_transfer::protocol::event::{ReceiverEvent, ReceiverSnapshot};
use mcp_transfer::time::Time;
use std::io::{IsTerminal, Write};

/// A receiver's bars, and its `b3sum` line on another stream.
pub struct ReceiverBars {
    screen: Screen,
    sums: Box<dyn Write>,
    intro: ReceiverIntro,
    memory: ReceiverMemory,
}

impl ReceiverBars {
    /// Draws bars on `screen`, and prints the hash of the file to `sums`.
    pub fn new(screen: Screen, sums: Box<dyn Write>, intro: ReceiverIntro) -> Self {
        Self { screen, sums, intro, memory: ReceiverMemory::default() }
    }

    fn draw(&mut self, now: Time, s: &ReceiverSnapshot) {
        let columns = self.screen.columns();
        let waited = text::clock(now.since(Time::ZERO).as_secs());
        let (head, bar) = match self.memory.stage {
            Stage::Searching => {
                let label = format!("as {}", text::escape(&self.intro.label));
                let sealed = self.intro.sealed_with.as_ref().map(|names| format!("sealed with {names}"));
                let waiting = text::waiting(self.intro.name.as_deref(), &self.intro.group);
                (vec![waiting, label, waited, sealed.unwrap_or_default()], false)
            }
            Stage::Waiting => (vec!["waiting for the sender to start".to_owned(), waited], false),
            Stage::Receiving => {
                let mut head = vec![
                    "receiving".to_owned(),
                    format!("loss {}", text::share(s.lost, s.lost + s.received)),
                ];
                if s.kernel_drops > 0 {
                    head.push(format!("kernel dropped {}", text::count(s.kernel_drops)));
                }
                if s.overrun_drops > 0 {
                    head.push(format!("disk behind (dropped {})", text::count(s.overrun_drops)));
                }
                (head, true)
            }
            Stage::Committing => (vec!["verified; syncing to disk".to_owned()], true),
            // The screen is the command's.
            Stage::Hooking => return self.screen.clear(),
            Stage::Telling => (vec!["saved; telling the sender".to_owned()], true),
        };
        let receiving = self.memory.stage == Stage::Receiving;
        let left = if receiving { self.memory.time_left(s) } else { String::new() };
        let parts = [
            text::rate(self.memory.data.bits_per_second()),
            text::so_far(ReceiverMemory::here(s), s.total()),
            left,
        ];
        let fraction = text::percent(ReceiverMemory::here(s), s.object_size.max(1)) / 100.0;
        let shown = bar && !s.growing;
        // Nobody knows how far a stream is.
        let line = if bar && !shown { [&head[..], &parts[..]].concat() } else { head };
        self.screen.draw(&text::fit(&line, columns), shown.then_some((fraction, &parts[..])), &[]);
    }
}

impl Notes for ReceiverBars {
    fn note(&mut self, _: Time, text: &str) {
        self.screen.note(text);
    }
    fn warn(&mut self, _: Time, text: &str) {
        self.screen.warn(text);
    }
}

impl ReceiverView for ReceiverBars {
    fn event(&mut self, now: Time, event: &ReceiverEvent, s: &ReceiverSnapshot) {
        self.memory.event(now, event);
        match event {
            ReceiverEvent::Found { sender, name, extent, entries, .. } => {
                let (name, size) = (text::escape(name), text::object(extent.total(), *entries));
                self.screen.say(&format!("receiving {name} ({size}) from {sender}"));
            }
            ReceiverEvent::Resumed { bytes } => {
                self.screen.say(&text::held(*bytes, s.total()));
                self.draw(now, s);
            }
            ReceiverEvent::ForgedSymbols { .. } => {
                if self.memory.tells_forgery(s.forged_symbols) {
                    self.screen.warn(FORGERY);
                }
            }
            ReceiverEvent::BlockRejected(block) => {
                self.screen.note(&format!("block {block} is not what the sender hashed; fetching it again"));
            }
            ReceiverEvent::Receiving | ReceiverEvent::Committing | ReceiverEvent::Committed { .. } => {
                self.draw(now, s);
            }
            ReceiverEvent::SenderTrusted { key, address, decision, relayed } => {
                self.screen.say(&trust::trusted(key, address.ip(), *decision, *relayed));
            }
            ReceiverEvent::SenderRefused { key, address, decision } => {
                if self.memory.tells_refusal(key) {
                    self.screen.warn(&trust::refused(key, address.ip(), *decision));
                }
            }
            ReceiverEvent::SenderNeeds { need, address } => {
                self.screen.warn(&trust::needs(need, address.ip()));
            }
            ReceiverEvent::OldSession { key, address } => {
                self.screen.warn(&trust::old_session(key, address.ip()));
            }
            ReceiverEvent::OtherName { name, address } => {
                self.screen.say(&text::other_name(name, address.ip()));
            }
            ReceiverEvent::Hook(change) => {
                // The screen is the command's.
                self.screen.clear();
                self.screen.say(&text::hook(change));
            }
            ReceiverEvent::Admitted | ReceiverEvent::Finished(_) => {}
        }
    }

    fn tick(&mut self, now: Time, s: &ReceiverSnapshot) {
        self.memory.data.record(now, s.carried_bytes);
        if self.screen.due(now) {
            self.draw(now, s);
        }
    }

    fn finish(&mut self, now: Time, s: &ReceiverSnapshot, _: Exit) {
        self.screen.clear();
        if let Some(summary) = self.memory.summary(now, s) {
            self.screen.say(&summary);
        }
        // No program prints the hash of a tree.
        if let Some((path, root)) = self.memory.committed.as_ref().filter(|(path, _)| !path.is_dir()) {
            let line = text::b3sum_line(root, path);
            // A program gets the exact line; a person's terminal gets the escaped one.
            let line = if std::io::stdout().is_terminal() { text::escape(&line) } else { line };
            let _ = writeln!(self.sums, "{line}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ui::testing::{Shared, receiver_intro};
    use indicatif::{InMemoryTerm, ProgressDrawTarget};
    use mcp_transfer::protocol::event::ReceiverOutcome;
    use mcp_transfer::protocol::trust::TrustDecision;
    use mcp_transfer::units::{Digest, Extent, SenderKey, SessionId, TaskId};
    use std::time::Duration;

    #[test]
    fn a_whole_run() {
        let at = |ms: u64| Time::ZERO + Duration::from_millis(ms);
        let term = InMemoryTerm::new(24, 80);
        let target = ProgressDrawTarget::term_like(Box::new(term.clone()));
        let sums = Shared::default();
        let screen = Screen::new(target, Some(80), false, false);
        let mut view = ReceiverBars::new(screen, Box::new(sums.clone()), receiver_intro());
        let mut s = ReceiverSnapshot::default();
        view.tick(at(3_000), &s);
        assert_eq!(term.contents(), "waiting for a sender on 239.1.1.1 · as lab-07 · 3s");
        let found = ReceiverEvent::Found {
            session: SessionId(1),
            task: TaskId([0; 16]),
            sender: "10.0.0.1:7417".parse().unwrap(),
            name: "image\x1b[31m.iso".into(),
            extent: Extent::sealed(100 << 20),
            entries: None,
        };
        let address = "10.0.0.1:7418".parse().unwrap();
        let (key, decision) = (SenderKey([7; 32]), TrustDecision::FirstUse);
        view.event(at(3_500), &ReceiverEvent::SenderTrusted { key, address, decision, relayed: false }, &s);
        assert!(
            term.contents().contains("sender ma3i-cc7u-6r2h-7k5c at 10.0.0.1, seen for"),
            "{}",
            term.contents()
        );
        let (key, decision) = (SenderKey([8; 32]), TrustDecision::Changed { expected: key });
        view.event(at(3_600), &ReceiverEvent::SenderRefused { key, address, decision }, &s);
        view.event(at(3_700), &ReceiverEvent::SenderRefused { key, address, decision }, &s);
        let text = term.contents();
        assert_eq!(text.matches("warning: refused the sender at 10.0.0.1").count(), 1, "{text}");
        view.event(at(4_000), &found, &s);
        view.event(at(4_000), &ReceiverEvent::Receiving, &s);
        s.object_size = 100 << 20;
        view.tick(at(4_100), &s);
        (s.received_bytes, s.received, s.lost) = (50 << 20, 990, 10);
        s.carried_bytes = s.received_bytes;
        view.tick(at(5_100), &s);
        let text = term.contents();
        assert!(
            text.contains("\nreceiving image\\u{1b}[31m.iso (100.00 MiB) from 10.0.0.1:7417\n"),
            "{text}"
        );
        assert!(text.contains("receiving · loss 1.0 %"), "{text}");
        assert!(text.contains("419 Mbit/s · 50.00 MiB of 100.00 MiB · 1s left"), "{text}");
        view.event(at(6_000), &ReceiverEvent::Committed { path: "image".into(), root: Digest([1; 32]) }, &s);
        view.event(at(6_100), &ReceiverEvent::Finished(ReceiverOutcome::Complete { acknowledged: true }), &s);
        view.finish(at(6_100), &s, Exit::Complete);
        assert_eq!(
            term.contents().lines().last().unwrap(),
            "received 100.00 MiB in 2.0s: 419 Mbit/s, loss 1.0 %"
        );
        assert_eq!(sums.text(), format!("{}  image\n", "01".repeat(32)));
    }
}
