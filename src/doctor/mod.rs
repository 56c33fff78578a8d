//! L5: `mcp doctor`: why a transfer does not work, or why it is slow. Each check looks at one family of causes and
//! yields [`Finding`]s. Checks read; they change nothing. `cli::doctor` runs them, [`show`] prints what they found.
//!
//! [`examine`] looks at this machine. [`pairs`] looks at the path between two machines.

mod buffers;
mod disk;
mod firewall;
mod network;
pub mod pairs;
mod ports;
mod querier;
pub mod show;
mod state;

use crate::cli::identity::StateDir;
use mcp_transfer::net::{Destination, Interface, InterfaceError, choose_all_for_receive};
use serde::Serialize;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

/// How bad a [`Finding`] is, from the best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// It works, but slower or less safely than it could; or it cannot be told.
    Warning,
    /// Transfers fail.
    Broken,
}

impl Verdict {
    /// The word for people and for JSON.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Broken => "broken",
        }
    }
}

/// What a check has found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The name of the check.
    pub check: &'static str,
    /// How bad it is.
    pub verdict: Verdict,
    /// One lowercase sentence. It may have untrusted text, which is escaped when it is printed.
    pub sentence: String,
    /// The command that mends it.
    pub remedy: Option<String>,
}

impl Finding {
    /// All is well.
    pub fn ok(check: &'static str, sentence: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Ok, sentence: sentence.into(), remedy: None }
    }

    /// It works, but not as well as it could; or nobody can tell.
    pub fn warning(check: &'static str, sentence: impl Into<String>) -> Self {
        Self { verdict: Verdict::Warning, ..Self::ok(check, sentence) }
    }

    /// Transfers fail.
    pub fn broken(check: &'static str, sentence: impl Into<String>) -> Self {
        Self { verdict: Verdict::Broken, ..Self::ok(check, sentence) }
    }

    /// Adds the command that mends it.
    #[must_use]
    pub fn mend(self, remedy: impl Into<String>) -> Self {
        Self { remedy: Some(remedy.into()), ..self }
    }
}

/// The worst verdict; [`Verdict::Ok`] if nothing was found.
#[must_use]
pub fn worst(findings: &[Finding]) -> Verdict {
    findings.iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Ok)
}

/// What the checks of this machine look at.
pub struct Question {
    /// The group or address that transfers use.
    pub destination: Destination,
    /// The interface as typed.
    pub interface: Option<String>,
    /// The directory, file or device that `mcp recv` would write.
    pub output: PathBuf,
    /// How long to listen for a querier.
    pub listen_for: Duration,
}

impl Question {
    /// The interfaces that `mcp recv` would use.
    fn interfaces(&self) -> Result<Vec<Interface>, InterfaceError> {
        choose_all_for_receive(self.interface.as_deref(), Some(&self.destination))
    }

    /// The group, if it is an IPv4 one.
    fn group_v4(&self) -> Option<Ipv4Addr> {
        match self.destination.addr.ip() {
            std::net::IpAddr::V4(ip) if ip.is_multicast() => Some(ip),
            _ => None,
        }
    }
}

/// Runs all checks of this machine. Blocks for [`Question::listen_for`].
#[must_use]
pub fn examine(question: &Question) -> Vec<Finding> {
    let mut findings = network::check(question);
    let interfaces = question.interfaces().unwrap_or_default();
    findings.extend(firewall::check(question, &interfaces));
    findings.extend(ports::check(question.destination.addr.port()));
    findings.extend(buffers::check());
    findings.extend(querier::check(&interfaces, question.listen_for));
    findings.extend(disk::check(&question.output));
    findings.extend(state::check(StateDir::find()));
    findings
}

/// The content of a small file of the kernel, without the line's end.
fn fact(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:%@+=,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_verdict_counts() {
        assert_eq!(worst(&[]), Verdict::Ok);
        let all = [Finding::warning("a", "b"), Finding::broken("a", "b").mend("c"), Finding::ok("a", "b")];
        assert_eq!(worst(&all), Verdict::Broken);
        assert_eq!(worst(&all[..1]), Verdict::Warning);
    }

    #[test]
    fn words_for_a_shell() {
        for (word, wanted) in [("eth0.7", "eth0.7"), ("a b", "'a b'"), ("it's", "'it'\\''s'"), ("", "''")] {
            assert_eq!(quoted(word), wanted);
        }
    }
}
