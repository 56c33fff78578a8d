//! Lines without a way back: what `mcp send --one-way` repeats. What `mcp recv` remembers of such transfers, and of relayed
//! ones: nothing else tells a new one from a recording.

use super::args::Repeat;
use super::config::{RecvConfig, SendConfig};
use super::report::Error;
use super::stream;
use mcp_transfer::keyring::{CompletedOf, CompletedSessions, Keyring};
use mcp_transfer::protocol::carousel::Repetition;
use mcp_transfer::protocol::event::{ReceiverSnapshot, SenderOutcome, SenderOverview};
use mcp_transfer::protocol::provenance::Provenance;
use mcp_transfer::protocol::trust::TrustDecision;
use mcp_transfer::session::RateChoice;
use mcp_transfer::units::Counter;
use std::time::{Duration, SystemTime};

/// Repair symbols for each thousand source symbols: at 4 % loss, a block fails less than once in a billion times.
const OVERHEAD_PER_MILLE: u16 = 100;
/// Passes. A device that starts late, or meets a burst or a forged symbol, needs a second one; nobody can say how many
/// more are of use.
const PASSES: u32 = 2;

/// How often the object is sent; `None` with feedback.
///
/// # Errors
/// If the options do not go together.
pub(super) fn repetition(config: &SendConfig) -> Result<Option<Repetition>, Error> {
    let args = &config.one_way;
    if !args.one_way {
        return Ok(None);
    }
    if stream::is_wanted(config) {
        return Err(Error::Usage(
            "--one-way sends the same bytes in each pass, and so no stream; write the stream to a file, and send that"
                .into(),
        ));
    }
    if !matches!(config.rate, RateChoice::Fixed(_)) {
        return Err(Error::Usage(
            "--one-way needs a fixed --rate, since no answer tells what the line carries; add for example -r 600M".into(),
        ));
    }
    Ok(Some(Repetition {
        overhead_per_mille: args.repair.unwrap_or(OVERHEAD_PER_MILLE),
        count: match args.repeat {
            None => Some(PASSES),
            Some(Repeat::Times(times)) => Some(times),
            Some(Repeat::Forever) => None,
        },
        pause: args.every.unwrap_or(Duration::ZERO),
    }))
}

/// The error of a sender that was interrupted; `None` with feedback, or if it was not.
pub(super) fn interrupted(outcome: &SenderOutcome, overview: &SenderOverview) -> Option<Error> {
    let progress = overview.passes.filter(|_| *outcome == SenderOutcome::Interrupted)?;
    let passes = progress.pass;
    Some(Error::Environment(format!(
        "interrupted in pass {}; nobody could confirm what was sent",
        passes.saturating_add(1)
    )))
}

/// The last one-way session that was completed from each sender, and the last one of each object: older ones may be
/// recordings.
///
/// # Errors
/// If the list cannot be read.
pub(super) fn completed(
    config: &RecvConfig,
    ring: Option<&Keyring>,
    warnings: &mut Vec<String>,
) -> Result<CompletedSessions, Error> {
    match ring.filter(|_| !config.retake) {
        Some(ring) => Ok(ring.completed_sessions(warnings)?),
        None => Ok(CompletedSessions::default()),
    }
}

/// Remembers a completed one-way session. Returns warnings.
pub(super) fn remember(ring: Option<&Keyring>, snapshot: &ReceiverSnapshot) -> Vec<String> {
    let (Some(counter), Some((key, _))) = (snapshot.one_way, snapshot.trusted) else { return Vec::new() };
    remember_session(ring, CompletedOf::OneWay(key), counter)
}

/// Remembers a completed object of an origin that is not just anybody. Returns warnings.
pub(super) fn remember_object(
    ring: Option<&Keyring>,
    provenance: &Provenance,
    snapshot: &ReceiverSnapshot,
) -> Vec<String> {
    let sure = snapshot
        .trusted
        .is_some_and(|(key, decision)| key == provenance.proof.key && decision != TrustDecision::Unverified);
    if !sure {
        return Vec::new();
    }
    remember_session(ring, CompletedOf::Object(provenance.origin_name()), provenance.proof.counter)
}

fn remember_session(ring: Option<&Keyring>, of: CompletedOf, counter: Counter) -> Vec<String> {
    let when = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let mut warnings = Vec::new();
    let kept = match ring {
        Some(ring) => ring.complete_session(of, counter, when, &mut warnings).map_err(|e| e.to_string()),
        None => Err("there is no state directory: HOME is not set (set MCP_STATE_DIR)".to_owned()),
    };
    warnings
        .extend(kept.err().map(|why| format!("{why}; a recording of this transfer would be taken again")));
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::{Cli, Command};
    use crate::cli::config::Surroundings;
    use clap::Parser;

    fn planned(line: &str) -> Result<Option<Repetition>, String> {
        let surroundings = Surroundings { stdin_terminal: false, stderr_terminal: false, draws: false };
        let Command::Send(args) = Cli::try_parse_from(line.split_whitespace()).unwrap().command else {
            panic!("{line}")
        };
        repetition(&SendConfig::new(args, surroundings)).map_err(|e| e.to_string())
    }

    #[test]
    fn passes_have_defaults_and_need_a_rate_and_a_file() {
        assert_eq!(planned("mcp send f"), Ok(None));
        let usual = Repetition { overhead_per_mille: 100, count: Some(2), pause: Duration::ZERO };
        assert_eq!(planned("mcp send f --one-way -r 600M"), Ok(Some(usual)));
        let forever = Repetition { overhead_per_mille: 25, count: None, pause: Duration::from_secs(60) };
        let line = "mcp send f --one-way -r 600M --repair 2.5 --repeat forever --every 1m";
        assert_eq!(planned(line), Ok(Some(forever)));
        for line in
            ["mcp send f --one-way", "mcp send f --one-way -r auto", "mcp send f --one-way -r auto:5M"]
        {
            assert!(planned(line).unwrap_err().contains("needs a fixed --rate"), "{line}");
        }
        assert!(planned("mcp send - --one-way -r 1M").unwrap_err().contains("write the stream to a file"));
    }
}
