//! The page as text: what all pages share, the login, and the fleet.

use super::login::Viewer;
use super::{ICON, PAGE, SCRIPT, STYLE, Selection};
use crate::server::auth::SEGMENT;
use crate::server::{SessionView, TaskView, clock};
use crate::store::{Counts, DeviceSummary, Standing, TaskState};
use axum::http::StatusCode;
use maud::{DOCTYPE, Markup, html};

/// Devices that are shown with what they do; more of them are marks in a grid.
pub(super) const IN_FULL: usize = 60;
/// Tasks on the page of the fleet.
const TASKS: usize = 50;

/// The path of a device's page.
pub(super) fn device_path(id: &str) -> String {
    format!("/devices/{}", percent_encoding::utf8_percent_encode(id, SEGMENT))
}

fn versioned(path: &str, text: &str) -> String {
    format!("{path}?v={}", &blake3::hash(text.as_bytes()).to_hex()[..12])
}

/// A whole page around `body`.
pub(super) fn page(viewer: Option<&Viewer>, title: &str, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · mcp" }
                link rel="icon" href=(versioned("/assets/icon.svg", ICON));
                link rel="stylesheet" href=(versioned("/assets/page.css", STYLE));
                @if viewer.is_some() { script src=(versioned("/assets/page.js", SCRIPT)) defer {} }
            }
            body {
                a.skip href="#main" { "Skip to content" }
                header.top {
                    a.brand href="/" { img src=(versioned("/assets/icon.svg", ICON)) alt="" width="24" height="24"; "mcp" }
                    @if let Some(viewer) = viewer {
                        p #live role="status" hidden {}
                        form.who method="post" action="/logout" {
                            span { (viewer.operator.name) " " small { "(" (viewer.operator.role.as_str()) ")" } }
                            (word(viewer))
                            button.quiet { "Log out" }
                        }
                    }
                }
                main #main tabindex="-1" { (body) }
            }
        }
    }
}

/// What each form says, so that no other site can send it.
pub(super) fn word(viewer: &Viewer) -> Markup {
    html! { input type="hidden" name="word" value=(viewer.word); }
}

/// The form that logs in.
pub(super) fn login(token: &str, failed: bool) -> Markup {
    page(
        None,
        "Log in",
        &html! {
            section.card.login {
                h1 { "Log in" }
                @if failed {
                    p.alert role="alert" { "This link was used, has expired, or never was. Make a new one." }
                }
                form method="post" action="/login" {
                    @if token.is_empty() {
                        p { "On a machine with an operator's key, run" }
                        pre { code { "mcp operator link" } }
                        p { "and open the link that it prints, or paste it here. It works once, within five minutes." }
                        label for="token" { "Link" }
                        input #token name="token" required maxlength="600" autocomplete="off" spellcheck="false" autofocus;
                    } @else {
                        p { "This link logs this browser in once, for twelve hours." }
                        input type="hidden" name="token" value=(token);
                    }
                    button.main { "Log in" }
                }
            }
        },
    )
}

/// A page that says why there is none.
pub(super) fn refusal(status: StatusCode, message: Option<&str>) -> Markup {
    let why = message.unwrap_or(match status {
        StatusCode::NOT_FOUND => "There is no such page.",
        StatusCode::SERVICE_UNAVAILABLE => {
            "The server is busy, or its database is away. Try again in a while."
        }
        StatusCode::TOO_MANY_REQUESTS => "Too many logins from here failed. Try again in a while.",
        _ => "The server could not do this.",
    });
    let body = html! {
        section.card.login {
            h1 { (status.canonical_reason().unwrap_or("Error")) }
            p { (why) }
            p { a href="/" { "To the fleet" } }
        }
    };
    page(None, "Error", &body)
}

/// How a state looks: its class, and a mark for those who do not see colours.
pub(super) fn mark(state: &str) -> (&'static str, &'static str) {
    match state {
        "failed" => ("bad", "✕"),
        "pending" | "confirming" => ("ask", "?"),
        "silent" => ("off", "○"),
        "working" | "running" | "open" => ("busy", "▸"),
        "waiting" => ("wait", "…"),
        "ready" | "finished" | "done" => ("good", "✓"),
        "unneeded" => ("good", "≈"),
        "cancelling" => ("ask", "■"),
        "paused" => ("ask", "‖"),
        _ => ("off", "–"),
    }
}

/// A state as a small label.
pub(super) fn badge(state: &str) -> Markup {
    let (class, mark) = mark(state);
    html! { span class={ "badge " (class) } { span aria-hidden="true" { (mark) } " " (state) } }
}

/// How many devices are in each state: a bar, and the same in words.
pub(super) fn bar(counts: &Counts) -> Markup {
    const ORDER: [&str; 8] =
        ["finished", "unneeded", "running", "cancelling", "confirming", "waiting", "cancelled", "failed"];
    let total = counts.values().sum::<u64>().max(1) as f64;
    let mut at = 0.0;
    html! {
        svg.bar viewBox="0 0 100 1" preserveAspectRatio="none" aria-hidden="true" {
            @for state in ORDER {
                @let share = counts.get(state).copied().unwrap_or(0) as f64 * 100.0 / total;
                @if share > 0.0 {
                    rect class=(mark(state).0) x=(format!("{at:.3}")) y="0" height="1" width=(format!("{share:.3}")) {}
                    @let () = at += share;
                }
            }
        }
    }
}

/// The same in words.
pub(super) fn counted(counts: &Counts) -> String {
    let total: u64 = counts.values().sum();
    let done: u64 = ["finished", "unneeded"].iter().filter_map(|state| counts.get(*state)).sum();
    let rest = counts
        .iter()
        .filter(|(state, count)| **count > 0 && !matches!(state.as_str(), "finished" | "unneeded"));
    let rest: String = rest.map(|(state, count)| format!(" · {} {state}", number(*count))).collect();
    format!("{} of {} done{rest}", number(done), number(total))
}

/// A multicast session.
pub(super) fn session(session: &SessionView) -> Markup {
    let share =
        if session.symbols > 0 { session.repairs as f64 * 100.0 / session.symbols as f64 } else { 0.0 };
    let part = if session.size > 0 { session.streamed as f64 * 100.0 / session.size as f64 } else { 0.0 };
    let part = if session.over { part } else { part.min(99.9) };
    html! {
        div.session {
            p {
                strong { "Multicast" } " " (session.file) " · "
                @if session.over { "over" } @else if session.gathering { "waits for devices" } @else { "sending" }
            }
            @if !session.over {
                progress max="100" value=(format!("{part:.1}")) aria-label={ "sent of " (session.file) } {
                    (format!("{part:.1} %"))
                }
            }
            dl.figures {
                div { dt { "Sent" } dd { (format!("{part:.0} %")) } }
                div { dt { "Complete" } dd { (number(session.complete)) " of " (number(session.expected)) } }
                @if !session.over && !session.gathering { div { dt { "Rate" } dd { (rate(session.rate)) } } }
                div { dt { "Repair" } dd title="symbols sent again, of those sent once" { (format!("{share:.1} %")) } }
                div { dt { "On the wire" } dd { (size(session.wire)) } }
            }
        }
    }
}

/// The fleet.
pub(super) fn fleet(
    tasks: &[TaskView],
    counts: &[(Standing, usize)],
    devices: &[&DeviceSummary],
    selection: &Selection,
) -> Markup {
    let total: usize = counts.iter().map(|(_, count)| count).sum();
    let (at, pages) = selection.place(devices.len());
    let shown: Vec<_> = devices.iter().skip(at * PAGE).take(PAGE).collect();
    html! {
        h1.hidden { "Fleet" }
        section #counts data-live aria-label="Devices by state" {
            ul.tiles {
                li { a.tile href="/" aria-current=[selection.show.is_empty().then_some("true")] {
                    b { (number(total as u64)) } span { "devices" }
                } }
                @for (standing, count) in counts {
                    @if *count > 0 {
                        @let (class, mark) = mark(standing.as_str());
                        @let here = (selection.show == standing.as_str()).then_some("true");
                        li { a class={ "tile " (class) } href={ "/?show=" (standing.as_str()) } aria-current=[here] {
                            b { (number(*count as u64)) } span { i aria-hidden="true" { (mark) } " " (standing.as_str()) }
                        } }
                    }
                }
            }
        }
        section #tasks data-live aria-labelledby="tasks-title" {
            h2 #tasks-title { "Tasks" }
            @if tasks.is_empty() {
                p.empty { "There are no tasks yet. " code { "mcp task add copy FILE --to all --at DIR" } " adds one." }
            }
            ul.tasks {
                @for task in tasks.iter().take(TASKS) { li { (task_card(task)) } }
            }
            @if tasks.len() > TASKS { p.empty { "Older tasks: " code { "mcp task list" } } }
        }
        section aria-labelledby="devices-title" {
            h2 #devices-title { "Devices" }
            (search("/", "Name or tag", selection))
            div #devices data-live {
                @if devices.is_empty() {
                    p.empty {
                        @if total == 0 {
                            "No device has joined yet. " code { "mcp enrol new" } " prints a line for one."
                        } @else { "No device matches." }
                    }
                } @else if devices.len() <= IN_FULL {
                    ul.cards { @for device in &shown { li { (card(device)) } } }
                } @else {
                    (dots(shown.iter().map(|device| (device.id.as_str(), device.standing.as_str()))))
                    (legend(&Standing::ALL.map(Standing::as_str)))
                }
                (pager("/", selection, at, pages))
            }
        }
    }
}

fn task_card(view: &TaskView) -> Markup {
    html! {
        article.card {
            h3 {
                a href={ "/tasks/" (view.id) } { (view.task.name) }
                @if !view.task.version.is_empty() { " " small { (view.task.version) } }
                " " (badge(task_word(view)))
            }
            (bar(&view.counts))
            p { (counted(&view.counts)) }
            @for one in &view.sessions { (session(one)) }
        }
    }
}

/// Whether a task goes on, or is done everywhere.
pub(super) fn task_word(view: &TaskView) -> &'static str {
    let open = ["waiting", "confirming", "running", "cancelling"];
    let open = open.iter().any(|state| view.counts.get(*state).is_some_and(|count| *count > 0));
    match view.state {
        TaskState::Running if !open && view.counts.contains_key("failed") => "failed",
        TaskState::Running if !open && !view.counts.is_empty() => "finished",
        state => state.as_str(),
    }
}

fn card(device: &DeviceSummary) -> Markup {
    let (class, _) = mark(device.standing.as_str());
    html! {
        a class={ "card device " (class) } href=(device_path(&device.id)) {
            strong { (device.id) } (badge(device.standing.as_str()))
            @if let Some((done, of)) = device.progress.filter(|(_, of)| *of > 0) {
                progress max=(of) value=(done.min(of)) aria-label="progress" { (done) " of " (of) }
            }
            small {
                @match &device.task {
                    Some(task) => { (task) @if !device.message.is_empty() { ": " (device.message) } }
                    None if device.last_seen.is_none() => { "never heard" }
                    None => { "heard " (ago(device.last_seen)) }
                }
            }
        }
    }
}

/// Devices as marks.
pub(super) fn dots<'d>(devices: impl Iterator<Item = (&'d str, &'d str)>) -> Markup {
    html! {
        ul.dots {
            @for (id, state) in devices {
                @let (class, mark) = mark(state);
                li { a class=(class) href=(device_path(id)) title={ (id) ": " (state) } aria-label={ (id) ", " (state) } { (mark) } }
            }
        }
    }
}

/// What the marks mean.
pub(super) fn legend(states: &[&str]) -> Markup {
    html! { p.legend aria-hidden="true" { @for state in states { (badge(state)) " " } } }
}

/// The form that searches.
pub(super) fn search(path: &str, what: &str, selection: &Selection) -> Markup {
    html! {
        form.search role="search" action=(path) {
            label.hidden for="find" { (what) }
            input #find type="search" name="find" value=(selection.find) placeholder=(what) maxlength="128";
            @if !selection.show.is_empty() {
                input type="hidden" name="show" value=(selection.show);
                a.chip href=(format!("{path}{}", Selection { show: String::new(), ..selection.clone() }.query(1))) {
                    (selection.show) " " span aria-hidden="true" { "✕" } span.hidden { " (show all)" }
                }
            }
            button { "Search" }
        }
    }
}

/// Links to the other pages.
pub(super) fn pager(path: &str, selection: &Selection, at: usize, pages: usize) -> Markup {
    html! {
        @if pages > 1 {
            nav.pager aria-label="Pages" {
                @if at > 0 { a href=(format!("{path}{}", selection.query(at))) rel="prev" { "← Previous" } }
                span { "Page " (at + 1) " of " (pages) }
                @if at + 1 < pages { a href=(format!("{path}{}", selection.query(at + 2))) rel="next" { "Next →" } }
            }
        }
    }
}

/// A number with its thousands apart.
pub(super) fn number(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A size in bytes as people write it.
pub(super) fn size(bytes: u64) -> String {
    scaled(bytes as f64, 1024.0, &["bytes", "KiB", "MiB", "GiB", "TiB"])
}

fn rate(bits: u64) -> String {
    scaled(bits as f64, 1000.0, &["bit/s", "kbit/s", "Mbit/s", "Gbit/s"])
}

fn scaled(mut value: f64, by: f64, units: &[&str]) -> String {
    let mut unit = 0;
    while value >= by && unit + 1 < units.len() {
        value /= by;
        unit += 1;
    }
    let digits = usize::from(unit > 0 && value < 100.0);
    format!("{value:.digits$} {}", units[unit])
}

/// How long ago something was.
pub(super) fn ago(at: Option<u64>) -> String {
    let Some(at) = at else { return "never".into() };
    match clock::now().saturating_sub(at) {
        seconds @ 0..90 => format!("{seconds} s ago"),
        seconds @ 90..5400 => format!("{} min ago", (seconds + 30) / 60),
        seconds @ 5400..129_600 => format!("{} h ago", (seconds + 1800) / 3600),
        seconds => format!("{} days ago", (seconds + 43_200) / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_people_read_them() {
        assert_eq!([0, 999, 1000, 1_234_567].map(number), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(
            [0, 1023, 1024, 200 << 20, 3 << 30].map(size),
            ["0 bytes", "1023 bytes", "1.0 KiB", "200 MiB", "3.0 GiB"]
        );
        assert_eq!(rate(212_000_000), "212 Mbit/s");
        assert_eq!(ago(None), "never");
        assert_eq!(ago(Some(clock::now() - 7200)), "2 h ago");
    }
}
