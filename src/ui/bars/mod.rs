//! Output on a terminal: progress bars on stderr by `indicatif`, redrawn at most ten times a second, and
//! permanent lines above them.

mod echo;
mod receiver;
#[cfg(test)]
mod screens;
mod sender;

pub use receiver::ReceiverBars;
pub use sender::SenderBars;

use super::text;
use console::Term;
use echo::NoEcho;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use mcp_transfer::time::Time;
use std::time::Duration;

/// Time between two drawings.
const INTERVAL: Duration = Duration::from_millis(100);
/// Positions of a bar: more than the columns of any terminal.
const STEPS: u64 = 10_000;
/// Columns beside a bar for the speed, the bytes and the time left.
const PARTS: usize = 53;
/// Width of a terminal that does not report its width.
const USUAL_COLUMNS: usize = 80;

/// The terminal: permanent lines, and below them a head line, a bar and a few more lines, each of them
/// optional. Dropping it leaves only the permanent lines.
pub struct Screen {
    multi: MultiProgress,
    head: Option<ProgressBar>,
    bar: Option<ProgressBar>,
    below: Vec<ProgressBar>,
    /// A fixed width for tests.
    fixed_columns: Option<usize>,
    colour: bool,
    verbose: bool,
    drawn: Option<Time>,
    no_echo: Option<NoEcho>,
}

impl Screen {
    /// The terminal at stderr.
    #[must_use]
    pub fn stderr(verbose: bool) -> Self {
        // The views themselves limit how often they draw.
        let target = ProgressDrawTarget::stderr();
        let mut screen = Self::new(target, None, console::colors_enabled_stderr(), verbose);
        screen.no_echo = NoEcho::start();
        screen
    }

    fn new(target: ProgressDrawTarget, fixed_columns: Option<usize>, colour: bool, verbose: bool) -> Self {
        Self {
            multi: MultiProgress::with_draw_target(target),
            head: None,
            bar: None,
            below: Vec::new(),
            fixed_columns,
            colour,
            verbose,
            drawn: None,
            no_echo: None,
        }
    }

    /// Columns of a line: one less than the terminal has, because some terminals wrap a line that fills
    /// the last column.
    fn columns(&self) -> usize {
        let columns = self.fixed_columns.unwrap_or_else(|| {
            Term::stderr().size_checked().map_or(USUAL_COLUMNS, |(_, columns)| usize::from(columns))
        });
        columns.saturating_sub(1).max(10)
    }

    /// Whether it is time to draw again.
    fn due(&mut self, now: Time) -> bool {
        let due = self.drawn.is_none_or(|t| now.since(t) >= INTERVAL);
        if due {
            self.drawn = Some(now);
        }
        due
    }

    /// Prints a permanent sentence, broken between words. Ignores errors: a closed terminal does not stop the transfer.
    fn say(&mut self, sentence: &str) {
        self.exact(&text::wrap(sentence, self.columns(), text::INDENT));
    }

    /// Prints a permanent line that a program may be given.
    fn exact(&mut self, line: &str) {
        let _ = self.multi.println(line);
        // The next drawing must not be delayed: the line has just moved the bars.
        self.drawn = None;
    }

    fn note(&mut self, note: &str) {
        if self.verbose {
            self.say(&text::escape(note));
        }
    }

    fn warn(&mut self, warning: &str) {
        self.say(&format!("warning: {}", text::escape(warning)));
    }

    /// Draws the head line, the bar with `parts` beside it, and the lines below.
    fn draw(&mut self, head: &str, bar: Option<(f64, &[String])>, below: &[String]) {
        let columns = self.columns();
        let line = || ProgressBar::new_spinner().with_style(style("{msg}"));
        let head_bar = self.head.get_or_insert_with(|| self.multi.insert(0, line()));
        head_bar.set_message(text::cut(head, columns));
        match bar {
            Some((fraction, parts)) => {
                let bar = self.bar.get_or_insert_with(|| self.multi.insert(1, ProgressBar::new(STEPS)));
                // The bar's width depends only on the terminal's; otherwise the bar would jump with the
                // numbers.
                let percent = format!("{:>3.0} %", (fraction * 100.0).floor());
                let room = columns.saturating_sub(text::width(&percent) + 3);
                let width = room.saturating_sub(PARTS).max(room / 4).min(40);
                let told = text::fit(parts, room - width);
                let colour = if self.colour { ".cyan/dim" } else { "" };
                bar.set_style(style(&format!("{percent} {{bar:{width}{colour}}}  {{msg}}")));
                bar.set_position((fraction * STEPS as f64) as u64);
                bar.set_message(told);
                bar.tick();
            }
            None => {
                if let Some(bar) = self.bar.take() {
                    self.multi.remove(&bar);
                }
            }
        }
        while self.below.len() > below.len() {
            if let Some(last) = self.below.pop() {
                self.multi.remove(&last);
            }
        }
        while self.below.len() < below.len() {
            self.below.push(self.multi.add(line()));
        }
        for (bar, text) in self.below.iter().zip(below) {
            bar.set_message(text::cut(text, columns));
        }
    }

    /// Removes everything but the permanent lines.
    fn clear(&mut self) {
        for bar in self.below.drain(..).chain(self.bar.take()).chain(self.head.take()) {
            self.multi.remove(&bar);
        }
        let _ = self.multi.clear();
        self.no_echo = None;
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.clear();
    }
}

/// A style from one of this module's templates.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("━╸─")
}
