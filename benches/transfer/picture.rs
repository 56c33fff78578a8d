//! The goodputs of all tools as a table in Markdown and as a picture.

use super::run::Figures;
use super::support::measure::median;
use super::table::{Series, shown};
use super::tools::Tool;
use std::fmt::Write as _;

/// Pixels: width, the column of names, height of a bar with its gap, of a heading, of the title.
const WIDTH: f64 = 720.0;
const NAMES: f64 = 90.0;
const VALUES: f64 = 80.0;
const BAR: f64 = 22.0;
const HEADING: f64 = 34.0;
const TITLE: f64 = 34.0;

/// Readable on a light and on a dark page: the text follows the reader's scheme.
const STYLE: &str = "text{font:13px sans-serif;fill:#24292f}.t{font-weight:600;font-size:15px}.s{fill:#6e7781}\
.b{fill:#8c959f}.m{fill:#2f81f7}@media(prefers-color-scheme:dark){text{fill:#e6edf3}.s{fill:#9198a1}.b{fill:#656c76}}";

fn goodput(runs: &[Option<Figures>]) -> f64 {
    median(runs.iter().flatten().map(|f| f.goodput))
}

/// How often a tool's goodput mcp has: the median over the rounds in which both succeeded.
fn ratio(series: &Series, runs: &[Option<Figures>]) -> f64 {
    let ours = series.tools.iter().position(|t| *t == Tool::Mcp).map(|i| &series.runs[i]);
    let pairs = ours.into_iter().flatten().zip(runs);
    median(pairs.filter_map(|(a, b)| Some(a.as_ref()?.goodput / b.as_ref()?.goodput)))
}

/// A table of medians: a line for each number of receivers and tool.
pub fn markdown(all: &[Series]) -> String {
    let mut text = "| receivers | tool | Mbit/s | seconds | mcp's goodput to it | CPU s/GiB sender | CPU s/GiB a receiver | failed |\n\
                    |---|---|---|---|---|---|---|---|\n"
        .to_owned();
    for series in all {
        for (tool, runs) in series.tools.iter().zip(&series.runs) {
            let m = |figure: fn(&Figures) -> f64| median(runs.iter().flatten().map(figure));
            let cells = [
                series.receivers.to_string(),
                tool.to_string(),
                shown(goodput(runs), 0),
                shown(m(|f| f.took), 2),
                if *tool == Tool::Mcp { String::new() } else { shown(ratio(series, runs), 1) },
                shown(m(|f| f.sender_cpu), 2),
                shown(m(|f| f.receiver_cpu), 2),
                runs.iter().filter(|r| r.is_none()).count().to_string(),
            ];
            let _ = writeln!(text, "| {} |", cells.join(" | "));
        }
    }
    text
}

fn heading(receivers: usize) -> String {
    if receivers == 1 { "1 receiver".into() } else { format!("{receivers} receivers") }
}

/// A picture of bars, one for each tool, by the number of receivers. Needs nothing beside it.
pub fn svg(all: &[Series], what: &str) -> String {
    let bars: usize = all.iter().map(|s| s.tools.len()).sum();
    let height = TITLE + 24.0 + all.len() as f64 * HEADING + bars as f64 * BAR + 8.0;
    let most = all.iter().flat_map(|s| s.runs.iter().map(|r| goodput(r))).filter(|g| g.is_finite());
    let scale = (WIDTH - NAMES - VALUES) / most.fold(1.0, f64::max);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" role=\"img\" \
         aria-label=\"Goodput of mcp and other tools\">\n<style>{STYLE}</style>\n\
         <text class=\"t\" x=\"0\" y=\"20\">Mbit/s until every receiver has the file (more is better)</text>\n\
         <text class=\"s\" x=\"0\" y=\"42\">{}</text>\n",
        what.replace('&', "&amp;").replace('<', "&lt;")
    );
    let mut y = TITLE + 24.0;
    for series in all {
        let _ = writeln!(text, "<text x=\"0\" y=\"{}\">{}</text>", y + 22.0, heading(series.receivers));
        y += HEADING;
        for (tool, runs) in series.tools.iter().zip(&series.runs) {
            let value = goodput(runs);
            let (width, class) = (value * scale, if *tool == Tool::Mcp { "m" } else { "b" });
            let width = if width.is_finite() { width.max(1.0) } else { 0.0 };
            let label = if value.is_finite() { format!("{value:.0}") } else { "failed".into() };
            let _ = writeln!(
                text,
                "<text x=\"12\" y=\"{}\">{tool}</text><rect class=\"{class}\" x=\"{NAMES}\" y=\"{y}\" width=\"{width:.1}\" \
                 height=\"{}\" rx=\"2\"/><text x=\"{:.1}\" y=\"{}\">{label}</text>",
                y + 13.0,
                BAR - 5.0,
                NAMES + width + 6.0,
                y + 13.0,
            );
            y += BAR;
        }
    }
    text + "</svg>\n"
}
