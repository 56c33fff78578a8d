//! Prints findings: a table for people, one JSON object for programs.

use super::{Finding, Verdict, worst};
use crate::ui::{escape, wrap};
use console::{Alignment, Style, pad_str};
use serde::Serialize;
use std::fmt::Write as _;

/// The object of `--json`.
#[derive(Serialize)]
struct Report<'a> {
    verdict: Verdict,
    findings: &'a [Finding],
}

/// The findings as one line of JSON.
#[must_use]
pub fn json(findings: &[Finding]) -> String {
    let report = Report { verdict: worst(findings), findings };
    // Strings and words have a form in JSON.
    serde_json::to_string(&report).unwrap_or_default()
}

/// The findings as a table, and how many there are of each kind. Sentences are broken between words to fit into
/// `columns` (0: no limit); commands are not. `colour` marks the verdicts.
#[must_use]
pub fn table(findings: &[Finding], columns: usize, colour: bool) -> String {
    let widest = findings.iter().map(|f| f.check.len()).max().unwrap_or(0).max("CHECK".len());
    let mut out = format!("{}  VERDICT  FINDING\n", pad_str("CHECK", widest, Alignment::Left, None));
    for finding in findings {
        let word = pad_str(finding.verdict.word(), 7, Alignment::Left, None).into_owned();
        let style = match finding.verdict {
            _ if !colour => Style::new(),
            Verdict::Ok => Style::new().green().force_styling(true),
            Verdict::Warning => Style::new().magenta().force_styling(true),
            Verdict::Broken => Style::new().red().force_styling(true),
        };
        let check = pad_str(finding.check, widest, Alignment::Left, None);
        // Writing to a string does not fail.
        let indent = widest + 11;
        let room = if columns == 0 { 0 } else { columns.saturating_sub(indent).max(20) };
        let sentence = wrap(&escape(&finding.sentence), room, 0).replace('\n', &format!("\n{:indent$}", ""));
        // Writing to a string does not fail.
        let _ = writeln!(out, "{check}  {}  {sentence}", style.apply_to(word));
        if let Some(remedy) = &finding.remedy {
            let _ = writeln!(out, "{:indent$}run: {}", "", escape(remedy));
        }
    }
    let count = |verdict| findings.iter().filter(|f| f.verdict == verdict).count();
    let (ok, warnings, broken) = (count(Verdict::Ok), count(Verdict::Warning), count(Verdict::Broken));
    let _ = writeln!(out, "{ok} ok, {warnings} to look at, {broken} broken");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings() -> Vec<Finding> {
        vec![Finding::ok("clock", "it is 2026"), Finding::broken("port", "taken by \x1b[2J").mend("kill 7")]
    }

    #[test]
    fn a_table() {
        let wanted = "CHECK  VERDICT  FINDING\nclock  ok       it is 2026\nport   broken   taken by \\u{1b}[2J\n\
                      \u{20}               run: kill 7\n1 ok, 0 to look at, 1 broken\n";
        assert_eq!(table(&findings(), 0, false), wanted);
        assert_eq!(console::strip_ansi_codes(&table(&findings(), 80, true)), wanted);
        assert!(table(&findings(), 80, true).contains("\x1b[31mbroken"));
    }

    #[test]
    fn a_narrow_table() {
        let findings =
            [Finding::warning("querier", "no querier was heard for a minute").mend("ip link set br0 up")];
        let wanted = "CHECK    VERDICT  FINDING\nquerier  warning  no querier was heard\n\
                      \u{20}                 for a minute\n                  run: ip link set br0 up\n\
                      0 ok, 1 to look at, 0 broken\n";
        assert_eq!(table(&findings, 40, false), wanted);
    }

    #[test]
    fn an_object() {
        let value: serde_json::Value = serde_json::from_str(&json(&findings())).unwrap();
        assert_eq!((&value["verdict"], &value["findings"][0]["remedy"]), (&"broken".into(), &().into()));
        assert_eq!(
            (&value["findings"][1]["check"], &value["findings"][1]["remedy"]),
            (&"port".into(), &"kill 7".into())
        );
    }
}
