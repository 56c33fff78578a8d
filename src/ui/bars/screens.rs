//! Golden screens: what a terminal of 40, 80 and 200 columns shows of whole runs, drawn by a terminal emulator from the
//! bytes that the views write. `MCP_ACCEPT_SCREENS=1 cargo test --lib screens` writes `tests/screens` anew.

use super::{ReceiverBars, Screen, SenderBars};
use crate::ui::plain::{Lines, SenderPlain};
use crate::ui::testing::{Shared, receiver_intro, row, sender_intro, snapshot};
use crate::ui::{Exit, Notes, ReceiverView, SenderIntro, SenderView};
use indicatif::{InMemoryTerm, ProgressDrawTarget};
use mcp_transfer::protocol::event::{ReceiverEvent, ReceiverOutcome, ReceiverSnapshot, SenderEvent};
use mcp_transfer::protocol::statistics::{Activity, Cause, DeviceRow};
use mcp_transfer::protocol::trust::TrustDecision;
use mcp_transfer::task::{State, Summary};
use mcp_transfer::time::Time;
use mcp_transfer::units::{Digest, Extent, SenderKey, SessionId, TaskId};
use mcp_transfer::wire::Phase;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

const WIDTHS: [u16; 3] = [40, 80, 200];
const GERMAN: &str = "Übungsräume für Größe und Maß.iso";
const JAPANESE: &str = "授業資料の画像と実習室の設定.iso";

fn at(ms: u64) -> Time {
    Time::ZERO + Duration::from_millis(ms)
}

/// A terminal, and what it showed.
struct Recorder {
    term: InMemoryTerm,
    columns: u16,
    escapes: bool,
    text: String,
}

impl Recorder {
    fn new(columns: u16) -> Self {
        let text = String::new();
        Self { term: InMemoryTerm::new(80, columns), columns, escapes: false, text }
    }

    fn screen(&self, colour: bool) -> Screen {
        let target = ProgressDrawTarget::term_like(Box::new(self.term.clone()));
        Screen::new(target, Some(usize::from(self.columns)), colour, false)
    }

    fn take(&mut self, title: &str) {
        let shown = if self.escapes {
            let bytes = self.term.contents_formatted();
            String::from_utf8(bytes).expect("UTF-8").replace('\x1b', "␛").replace('\r', "")
        } else {
            self.term.contents()
        };
        // A string takes everything.
        let _ = writeln!(self.text, "--- {title}\n{shown}");
    }

    /// Compares with the committed screens.
    #[track_caller]
    fn compare(self, name: &str) {
        for line in self.text.lines().filter(|_| !self.escapes) {
            assert!(crate::ui::text::width(line) <= usize::from(self.columns), "{name}: {line}");
        }
        golden(name, &self.text);
    }
}

#[track_caller]
fn golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/screens").join(name);
    if std::env::var_os("MCP_ACCEPT_SCREENS").is_some() {
        std::fs::write(&path, text).expect("write");
    }
    let wanted = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, wanted, "{}", path.display());
}

/// Five hundred devices, of which a few are not as they should be.
fn crowd(done: usize) -> Vec<DeviceRow> {
    let device = |n: usize| {
        let label = match n {
            7 => "教室-七".to_owned(),
            _ => format!("lab-{n}"),
        };
        let state = match n {
            3 => State::Failed("the disk is full".into()),
            5 => State::Lost,
            7..=9 => State::Active,
            _ if n < done => State::Complete,
            _ => State::Active,
        };
        let active = state == State::Active;
        let mut row = row(&label, state);
        if active {
            row.transfer.activity = Some(Activity::Receiving);
            row.transfer.verified_blocks = if (7..=9).contains(&n) { 20 + n as u32 } else { 49 };
        }
        if n == 8 {
            row.transfer.cause = Some(Cause::Disk);
        }
        row
    };
    (0..500).map(device).collect()
}

/// A sender's run: its events and what it looks like meanwhile.
fn send(view: &mut dyn SenderView, mut take: impl FnMut(&str)) {
    let mut s = snapshot(Phase::Gathering);
    s.overview.expected = Some(500);
    s.overview.devices = Summary::default();
    view.tick(at(1_000), &s);
    take("waiting");
    s = s.with_devices(crowd(0));
    s.overview.phase = Phase::Streaming;
    view.event(at(2_000), &SenderEvent::Phase(Phase::Streaming), &s.overview);
    view.tick(at(2_100), &s);
    s.overview.wire_bytes += 10_000_000;
    view.warn(
        at(2_200),
        "the line carries 93 Mbit/s and the slowest device 12; add --slow keep to send at its pace",
    );
    for n in [3, 5] {
        view.event(at(2_300), &SenderEvent::Device(s.devices[n].clone()), &s.overview);
    }
    view.tick(at(3_100), &s);
    take("sending");
    s = s.with_devices(crowd(500));
    s.overview.phase = Phase::Repairing;
    view.event(at(4_000), &SenderEvent::Phase(Phase::Repairing), &s.overview);
    view.event(at(4_000), &SenderEvent::Hashed(Digest([0xab; 32])), &s.overview);
    s.overview.wire_bytes += 10_000_000;
    view.tick(at(4_100), &s);
    take("finishing");
    view.finish(at(5_000), &s, Exit::Incomplete);
    take("end");
}

/// A receiver's run.
fn receive(view: &mut dyn ReceiverView, name: &str, mut take: impl FnMut(&str)) {
    let mut s = ReceiverSnapshot::default();
    view.tick(at(3_000), &s);
    take("waiting");
    let address = "10.0.0.1:7418".parse().unwrap();
    let (key, decision) = (SenderKey([7; 32]), TrustDecision::FirstUse);
    view.event(at(3_500), &ReceiverEvent::SenderTrusted { key, address, decision, relayed: false }, &s);
    let found = ReceiverEvent::Found {
        session: SessionId(1),
        task: TaskId([0; 16]),
        sender: address,
        name: name.into(),
        extent: Extent::sealed(100 << 20),
        entries: None,
    };
    view.event(at(3_500), &found, &s);
    s.object_size = 100 << 20;
    view.event(at(3_600), &ReceiverEvent::Receiving, &s);
    (s.received, s.lost, s.received_bytes) = (990, 10, 50 << 20);
    view.tick(at(3_700), &s);
    s.carried_bytes = 40_000_000;
    view.tick(at(4_700), &s);
    take("receiving");
    s.received_bytes = 100 << 20;
    view.event(at(9_000), &ReceiverEvent::Committing, &s);
    take("syncing");
    let path = Path::new("/srv").join(name);
    view.event(at(9_500), &ReceiverEvent::Committed { path, root: Digest([2; 32]) }, &s);
    view.event(at(9_600), &ReceiverEvent::Finished(ReceiverOutcome::Complete { acknowledged: true }), &s);
    view.finish(at(9_600), &s, Exit::Complete);
    take("end");
}

#[test]
fn a_sender_with_five_hundred_devices() {
    for columns in WIDTHS {
        let mut recorder = Recorder::new(columns);
        let intro = SenderIntro { name: GERMAN.into(), ..sender_intro() };
        let mut view = SenderBars::new(recorder.screen(false), intro);
        send(&mut view, |title| recorder.take(title));
        recorder.compare(&format!("send-{columns}.txt"));
    }
}

#[test]
fn a_receiver() {
    for columns in WIDTHS {
        let mut recorder = Recorder::new(columns);
        let intro = crate::ui::ReceiverIntro { label: "教室-七".into(), ..receiver_intro() };
        let mut view = ReceiverBars::new(recorder.screen(false), Box::new(Shared::default()), intro);
        receive(&mut view, JAPANESE, |title| recorder.take(title));
        recorder.compare(&format!("recv-{columns}.txt"));
    }
}

#[test]
fn colours() {
    let mut recorder = Recorder::new(80);
    recorder.escapes = true;
    let mut view = SenderBars::new(recorder.screen(true), sender_intro());
    send(&mut view, |title| recorder.take(title));
    // No colour but the terminal's own. Text is red, green or magenta, which can be read on white and on black; yellow on
    // white has a contrast of 1.7, magenta one of 4.7. Only the bar is cyan.
    for code in recorder.text.split("␛[").skip(1) {
        let code = code.split_once('m').map_or("", |(code, _)| code);
        let known = code.is_empty()
            || code
                .split(';')
                .all(|n| ["0", "1", "2", "22", "31", "32", "35", "36", "39", "49"].contains(&n));
        assert!(known || !code.bytes().all(|b| b.is_ascii_digit() || b == b';'), "{code}");
    }
    recorder.compare("send-80-colours.txt");
}

#[test]
fn a_terminal_that_gets_narrower() {
    let mut recorder = Recorder::new(80);
    let mut view = SenderBars::new(recorder.screen(false), sender_intro());
    let mut s = snapshot(Phase::Streaming).with_devices(vec![row("lab-1", State::Active)]);
    s.overview.wire_bytes = 0;
    view.tick(at(1_000), &s);
    recorder.take("80 columns");
    view.screen.fixed_columns = Some(40);
    s.overview.wire_bytes += 10_000_000;
    view.tick(at(2_000), &s);
    view.warn(at(2_000), "the store fails, and the transfer goes on without it");
    view.tick(at(2_100), &s);
    recorder.take("40 columns");
    recorder.compare("send-resized.txt");
}

#[test]
fn lines_for_logs_and_screen_readers() {
    let out = Shared::default();
    let mut view = SenderPlain::new(Lines::new(out.clone(), false), sender_intro());
    send(&mut view, |_| ());
    golden("send-plain.txt", &out.text());
    assert!(!out.text().contains(['\x1b', '\r']), "{}", out.text());
}
