//! What the server counts, in the text format of Prometheus, on an address of its own (`--metrics-listen`). Anybody who
//! reaches that address may read it: it names no device, task, operator or address.

use super::{App, SessionView, Shared};
use crate::store::{Counts, Standing, TaskState};
use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use std::fmt::{Display, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts since the start.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    /// By the first digit of the status.
    answers: [AtomicU64; 5],
    check_ins: AtomicU64,
    /// Of sessions that are over.
    sessions: AtomicU64,
    symbols: AtomicU64,
    repairs: AtomicU64,
    wire: AtomicU64,
    /// Events that were sent to web hooks: taken, failed.
    hook_tries: [AtomicU64; 2],
    hook_missed: AtomicU64,
}

fn add(to: &AtomicU64, n: u64) {
    to.fetch_add(n, Ordering::Relaxed);
}

fn of(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

impl Metrics {
    /// Counts a device that asks what to do.
    pub(super) fn check_in(&self) {
        add(&self.check_ins, 1);
    }

    /// Counts an answer with this HTTP status.
    pub(super) fn answered(&self, status: u16) {
        let class = usize::from(status / 100).clamp(1, 5);
        add(&self.answers[class - 1], 1);
    }

    /// Counts an event that a web hook took, or not.
    pub(super) fn hook_tried(&self, taken: bool) {
        add(&self.hook_tries[usize::from(!taken)], 1);
    }

    /// Counts events that were dropped before a web hook took them.
    pub(super) fn hook_missed(&self, events: u64) {
        add(&self.hook_missed, events);
    }

    /// Counts a multicast session that is over.
    pub(super) fn session_over(&self, view: &SessionView) {
        add(&self.sessions, 1);
        add(&self.symbols, view.symbols);
        add(&self.repairs, view.repairs);
        add(&self.wire, view.wire);
    }
}

pub(super) fn routes() -> Router<App> {
    Router::new().route("/metrics", get(async |State(app): State<App>| app.metrics_page().await))
}

/// Lines of one answer.
#[derive(Default)]
struct Page(String);

impl Page {
    fn describe(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.describe(name, kind, help);
        let _ = writeln!(self.0, "{name} {value}");
    }

    /// A value for each word of `label`. The words are ours and need no escaping.
    fn each<V: Display>(
        &mut self,
        (name, label): (&str, &str),
        kind: &str,
        help: &str,
        values: impl IntoIterator<Item = (&'static str, V)>,
    ) {
        self.describe(name, kind, help);
        for (word, value) in values {
            let _ = writeln!(self.0, "{name}{{{label}=\"{word}\"}} {value}");
        }
    }
}

impl Shared {
    async fn metrics_page(&self) -> Response {
        let (counter, gauge, mut page) = ("counter", "gauge", Page::default());
        let snapshot = self.snapshot().await.ok();
        page.one("mcp_store_up", gauge, "Whether the database answers", u8::from(snapshot.is_some()));
        if let Some(snapshot) = snapshot {
            let devices = Standing::ALL.map(|standing| {
                (standing.as_str(), snapshot.devices.iter().filter(|d| d.standing == standing).count())
            });
            page.each(("mcp_devices", "state"), gauge, "Devices by state", devices);
            let tasks = [TaskState::Running, TaskState::Paused, TaskState::Cancelled]
                .map(|state| (state.as_str(), snapshot.tasks.iter().filter(|t| t.state == state).count()));
            page.each(("mcp_tasks", "state"), gauge, "The newest 1000 tasks by state", tasks);
            let sum = |state: &str| -> u64 {
                let live = snapshot.tasks.iter().filter(|task| task.state != TaskState::Cancelled);
                live.filter_map(|task| Counts::get(&task.counts, state)).sum()
            };
            let actions =
                ["waiting", "confirming", "running", "cancelling", "finished", "failed", "unneeded"];
            let actions = actions.map(|state| (state, sum(state)));
            page.each(
                ("mcp_actions", "state"),
                gauge,
                "Devices of tasks that are not cancelled, by state",
                actions,
            );
        }
        let m = &self.metrics;
        page.one("mcp_check_ins_total", counter, "Polls of devices", of(&m.check_ins));
        let classes = ["1xx", "2xx", "3xx", "4xx", "5xx"].into_iter().zip(m.answers.iter().map(of));
        page.each(("mcp_http_answers_total", "class"), counter, "HTTP answers by class of status", classes);
        page.one(
            "mcp_http_object_bytes_total",
            counter,
            "Bytes of files sent by HTTP",
            of(&self.downloads.sent),
        );
        let (changes, time) = self.store.changes();
        page.describe("mcp_store_change_seconds", "summary", "Time until a change is on the disk");
        let _ = writeln!(page.0, "mcp_store_change_seconds_sum {:.6}", time.as_secs_f64());
        let _ = writeln!(page.0, "mcp_store_change_seconds_count {changes}");
        let running: Vec<SessionView> = self.campaigns.views().into_iter().map(|(_, view)| view).collect();
        page.one("mcp_sessions_running", gauge, "Multicast sessions that run", running.len());
        let rate: u64 = running.iter().filter(|view| !view.gathering).map(|view| view.rate).sum();
        page.one("mcp_session_bits_per_second", gauge, "What they send now", rate);
        let (sent, again) = running.iter().fold((0, 0), |(s, r), view| (s + view.symbols, r + view.repairs));
        let ratio = if sent == 0 { 0.0 } else { again as f64 / sent as f64 };
        page.one(
            "mcp_session_repair_ratio",
            gauge,
            "Symbols that they sent again, of those sent once",
            ratio,
        );
        page.one("mcp_sessions_total", counter, "Multicast sessions that are over", of(&m.sessions));
        let symbols = [("source", of(&m.symbols)), ("repair", of(&m.repairs))];
        page.each(
            ("mcp_session_symbols_total", "kind"),
            counter,
            "Symbols of sessions that are over",
            symbols,
        );
        page.one(
            "mcp_session_wire_bytes_total",
            counter,
            "Bytes on the wire of sessions that are over",
            of(&m.wire),
        );
        let tries = ["taken", "failed"].into_iter().zip(m.hook_tries.iter().map(of));
        page.each(("mcp_hook_tries_total", "outcome"), counter, "Events sent to web hooks", tries);
        page.one(
            "mcp_hook_missed_total",
            counter,
            "Events dropped before a web hook took them",
            of(&m.hook_missed),
        );
        page.one("mcp_viewers", gauge, "Browsers that follow the page", self.live.viewers());
        ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], page.0).into_response()
    }
}
