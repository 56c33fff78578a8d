//! The committed values, and what was counted.

use std::fmt::Write as _;
use std::fs;
use std::process::ExitCode;

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/counts/values.txt");

struct Value {
    name: String,
    kept: Option<f64>,
    /// By how much per cent it may be exceeded.
    tolerance: u32,
    met: Option<f64>,
}

/// A list of values.
pub struct Values(Vec<Value>);

impl Values {
    /// The committed values.
    pub fn read() -> Self {
        let text = fs::read_to_string(PATH).unwrap_or_default();
        let lines = text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
        let parse = |line: &str| {
            let mut words = line.split_whitespace();
            let (name, kept, tolerance) = (words.next()?, words.next()?, words.next()?);
            let (kept, tolerance) = (kept.parse().ok()?, tolerance.parse().ok()?);
            Some(Value { name: name.to_owned(), kept: Some(kept), tolerance, met: None })
        };
        Self(lines.map(|line| parse(line).unwrap_or_else(|| panic!("{PATH}: {line:?}"))).collect())
    }

    /// Notes what was counted. `tolerance` is that of a value that is not committed yet.
    pub fn met(&mut self, name: &str, met: f64, tolerance: u32) {
        match self.0.iter_mut().find(|value| value.name == name) {
            Some(value) => value.met = Some(met),
            None => self.0.push(Value { name: name.to_owned(), kept: None, tolerance, met: Some(met) }),
        }
    }

    /// Prints all values. Fails if one is worse than committed, or is not committed; with `accept`, commits them.
    pub fn conclude(self, accept: bool) -> ExitCode {
        println!("{:<36}{:>14}{:>14}{:>9}", "", "committed", "now", "change");
        let (mut bad, mut better) = (0, 0);
        for Value { name, kept, tolerance, met } in &self.0 {
            let shown = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.1}"));
            let change = kept.zip(*met).map(|(kept, met)| 100.0 * (met / kept.max(1e-9) - 1.0));
            let verdict = match (change, met) {
                (Some(change), _) if change > f64::from(*tolerance) => format!("WORSE than +{tolerance} %"),
                (None, Some(_)) => "NEW".to_owned(),
                (Some(change), _) if change < -f64::from(*tolerance) => "better".to_owned(),
                (None, None) => "not counted here".to_owned(),
                _ => String::new(),
            };
            bad += usize::from(verdict.starts_with("WORSE") || verdict == "NEW");
            better += usize::from(verdict == "better");
            let change = change.map_or(String::new(), |change| format!("{change:+.1} %"));
            println!("{name:<36}{:>14}{:>14}{change:>9}  {verdict}", shown(*kept), shown(*met));
        }
        if accept {
            self.write();
            println!("\nwritten to {PATH}: commit it, and say in the message why the values changed");
            return ExitCode::SUCCESS;
        }
        let command = "cargo bench --profile dev --bench counts -- --accept";
        if bad > 0 {
            println!("\n{bad} values are worse. If that is meant, run\n  {command}\nand commit {PATH}");
            return ExitCode::FAILURE;
        }
        if better > 0 {
            println!("\n{better} values are better. To hold them, run\n  {command}");
        }
        ExitCode::SUCCESS
    }

    fn write(&self) {
        let mut text =
            "# Counted by `cargo bench --profile dev --bench counts`. Name, value, and by how much per cent \
                        it may be exceeded.\n"
                .to_owned();
        for Value { name, kept, tolerance, met } in &self.0 {
            if let Some(value) = met.or(*kept) {
                let _ = writeln!(text, "{name:<36} {value:>16.1} {tolerance:>4}");
            }
        }
        fs::write(PATH, text).expect("write the values");
    }
}
