//! What a sender without feedback tells its user: nobody answers, so there is no table of devices.

use super::text;
use mcp_transfer::protocol::event::{PassProgress, SenderOutcome, SenderOverview};
use mcp_transfer::wire::Phase;

/// How far it has come; `None` if the session has feedback.
pub fn progress(overview: &SenderOverview) -> Option<String> {
    let PassProgress { pass, of } = overview.passes?;
    Some(match overview.phase {
        Phase::Gathering => "announcing".to_owned(),
        Phase::Streaming | Phase::Repairing => {
            let percent = text::percent(overview.streamed, overview.object_size.max(1)).floor();
            format!("sending one way: pass {}{}, {percent:.0} %", pass.saturating_add(1), of_all(of))
        }
        Phase::Lingering => "all sent, saying so".to_owned(),
    })
}

fn of_all(of: Option<u32>) -> String {
    of.map_or_else(String::new, |of| format!(" of {of}"))
}

/// The line for a phase that has begun; `None` if it needs none.
pub fn phase(phase: Phase, what: &str, group: &str, overview: &SenderOverview) -> Option<String> {
    match phase {
        Phase::Gathering => Some(format!("announcing {what} on {group}, one way: nobody can answer")),
        Phase::Streaming => Some(format!("sending {what} at {}", text::rate(overview.rate.0))),
        Phase::Repairing => Some("sent once, going on with repair symbols".to_owned()),
        Phase::Lingering => None,
    }
}

/// The line of the summary; `None` if the session has feedback.
pub fn summary(overview: &SenderOverview, outcome: Option<&SenderOutcome>) -> Option<String> {
    let PassProgress { pass, .. } = overview.passes?;
    let passes = if let Some(SenderOutcome::SentOneWay(passes)) = outcome { *passes } else { pass };
    let times = if passes == 1 { "1 whole pass".to_owned() } else { format!("{passes} whole passes") };
    let share = overview.wire_bytes as f64 / overview.object_size.max(1) as f64;
    Some(format!("sent {times} one way, {share:.3} bytes on the wire per byte; nobody could confirm"))
}
