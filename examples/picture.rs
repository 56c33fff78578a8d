//! A picture of a real run: a real `mcp send` in a terminal, and real `mcp recv` beside it, over multicast on the loopback
//! interface. No traffic leaves the machine.
//!
//! `cargo run --release --example picture -- docs/run.svg`
//!
//! util-linux's `script` gives the sender a terminal, and a terminal emulator reads what it writes there. The picture has
//! two of its screens: one from the middle of the transfer, and the last one.

mod support;

use clap::Parser;
use std::fmt::Write as _;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use support::{Guard, Result, Scratch, hash_file, line, make_file, mcp};

/// Draws a real run of `mcp send` as SVG.
#[derive(Parser)]
#[command(name = "picture")]
struct Options {
    /// Where to write the picture
    file: PathBuf,
    /// Use this mcp program, instead of building one
    #[arg(long, value_name = "FILE")]
    mcp: Option<PathBuf>,
}

const COLUMNS: u16 = 84;
const ROWS: u16 = 30;
const DEVICES: usize = 6;
const SIZE: u64 = 256 << 20;
/// The sender's command. The rate leaves time for a screen in the middle, also on a small machine.
const COMMAND: &str = "mcp send lesson.img -i lo -n 6 --rate 400M";

/// Pixels: a cell, the margin in a window, the distance between windows.
const CELL: (f64, f64) = (8.0, 18.0);
const MARGIN: f64 = 14.0;
const GAP: f64 = 12.0;

/// The windows are dark, with a border, on a light page and on a dark one.
const STYLE: &str = "text{font:13.3px ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace;fill:#e6edf3;\
white-space:pre}.w{fill:#0d1117;stroke:#6e7781}.b{font-weight:700}.d{fill:#9198a1}.c1{fill:#ff7b72}.c2{fill:#56d364}\
.c3{fill:#e3b341}.c6{fill:#39c5cf}";

fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("picture: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    let mcp = mcp(options.mcp.as_deref())?.canonicalize()?;
    let scratch = Scratch::new("picture", false)?;
    let source = scratch.path.join("lesson.img");
    make_file(&source, SIZE)?;
    let desks: Vec<String> = (1..=DEVICES).map(|n| format!("desk-{n:02}")).collect();
    let receivers =
        desks.iter().map(|desk| receive(&mcp, &scratch.path, desk)).collect::<Result<Vec<Guard>>>()?;
    let screens = send(&mcp, &scratch.path)?;
    let hash = hash_file(&source)?;
    for (desk, mut receiver) in desks.iter().zip(receivers) {
        let status = receiver.0.wait()?;
        if !status.success() || hash_file(&scratch.path.join(desk))? != hash {
            return Err(format!("{desk} has no right copy and ended with {status}").into());
        }
    }
    std::fs::write(&options.file, svg(&screens))
        .map_err(|e| format!("write {}: {e}", options.file.display()))?;
    Ok(())
}

fn receive(mcp: &Path, scratch: &Path, id: &str) -> Result<Guard> {
    let mut recv = Command::new(mcp);
    recv.args(["recv", "-q", "-i", "lo", "--id", id, "--timeout", "60s", "-o"]).arg(scratch.join(id));
    println!("$ {}", line(&recv));
    recv.env("MCP_STATE_DIR", scratch.join("state")).stdin(Stdio::null()).stdout(Stdio::null());
    Ok(Guard(recv.spawn().map_err(|e| format!("start mcp recv: {e}"))?))
}

/// The sender's screen in the middle, and its last one.
fn send(mcp: &Path, scratch: &Path) -> Result<Vec<vt100::Screen>> {
    let program = mcp.parent().ok_or("mcp is in no directory")?.display().to_string();
    let path = std::env::var("PATH").unwrap_or_default();
    let mut script = Command::new("script");
    script.args(["-qec", &format!("stty rows {ROWS} cols {COLUMNS} && exec {COMMAND}"), "/dev/null"]);
    script.env("PATH", format!("{program}:{path}")).env("TERM", "xterm-256color").env_remove("NO_COLOR");
    script.env("MCP_STATE_DIR", scratch.join("state")).current_dir(scratch);
    // An input that stays open: its end would be the end of the terminal's.
    script.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut sender = Guard(script.spawn().map_err(|e| format!("start script, of util-linux: {e}"))?);
    let mut output = sender.0.stdout.take().ok_or("no output")?;
    let mut terminal = vt100::Parser::new(ROWS, COLUMNS, 0);
    terminal.process(format!("$ {COMMAND}\r\n").as_bytes());
    let mut middle = None;
    let mut chunk = [0; 1 << 16];
    loop {
        let n = output.read(&mut chunk)?;
        if n == 0 {
            break;
        }
        terminal.process(&chunk[..n]);
        if (40..=75).contains(&percent(terminal.screen())) {
            middle = Some(terminal.screen().clone());
        }
    }
    let status = sender.0.wait()?;
    if !status.success() {
        return Err(format!("{COMMAND} ended with {status}:\n{}", terminal.screen().contents()).into());
    }
    let middle = middle.ok_or("the transfer was over before its middle was seen")?;
    Ok(vec![middle, terminal.screen().clone()])
}

/// What the sender's bar says, or 0.
fn percent(screen: &vt100::Screen) -> u32 {
    let bar = screen.rows(0, COLUMNS).find(|row| row.contains(" % ") && row.contains('━'));
    bar.and_then(|row| row.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// The screens below each other, each in a window.
fn svg(screens: &[vt100::Screen]) -> String {
    let width = f64::from(COLUMNS) * CELL.0 + 2.0 * MARGIN;
    let (mut body, mut top) = (String::new(), 0.0);
    for screen in screens {
        let rows = screen.rows(0, COLUMNS).collect::<Vec<_>>().iter().rposition(|row| !row.trim().is_empty());
        let rows = rows.map_or(0, |last| last + 1);
        let height = rows as f64 * CELL.1 + 2.0 * MARGIN;
        // A string takes everything.
        let _ = writeln!(
            body,
            "<rect class=\"w\" x=\"0.5\" y=\"{}\" width=\"{}\" height=\"{}\" rx=\"8\"/>",
            top + 0.5,
            width - 1.0,
            height - 1.0
        );
        for row in 0..u16::try_from(rows).unwrap_or(ROWS) {
            let base = top + MARGIN + f64::from(row) * CELL.1 + 13.0;
            for run in runs(screen, row) {
                let _ = writeln!(
                    body,
                    "<text x=\"{}\" y=\"{base}\" textLength=\"{}\" lengthAdjust=\"spacingAndGlyphs\"{}>{}</text>",
                    MARGIN + f64::from(run.column) * CELL.0,
                    f64::from(run.cells) * CELL.0,
                    run.class(),
                    run.text.replace('&', "&amp;").replace('<', "&lt;").replace(' ', "\u{a0}"),
                );
            }
        }
        top += height + GAP;
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{0}\" viewBox=\"0 0 {width} {0}\" role=\"img\">\n\
         <title>mcp send, in the middle and at the end</title>\n<style>{STYLE}</style>\n{body}</svg>\n",
        top - GAP
    )
}

/// Cells beside each other that look alike.
struct Run {
    column: u16,
    cells: u16,
    text: String,
    style: (vt100::Color, bool, bool),
}

impl Run {
    fn class(&self) -> String {
        let (colour, bold, dim) = self.style;
        let mut classes = Vec::new();
        if let vt100::Color::Idx(n) = colour {
            classes.push(format!("c{n}"));
        }
        classes.extend(bold.then(|| "b".to_owned()));
        classes.extend(dim.then(|| "d".to_owned()));
        if classes.is_empty() { String::new() } else { format!(" class=\"{}\"", classes.join(" ")) }
    }
}

/// A row's text. Two blanks end a run, so that each column of a table keeps its place in any font.
fn runs(screen: &vt100::Screen, row: u16) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    let mut blanks = 2;
    for column in 0..COLUMNS {
        let Some(cell) = screen.cell(row, column).filter(|cell| !cell.is_wide_continuation()) else {
            continue;
        };
        let text = cell.contents();
        if text.trim().is_empty() {
            blanks += 1;
            continue;
        }
        let cells = if cell.is_wide() { 2 } else { 1 };
        let style = (cell.fgcolor(), cell.bold(), cell.dim());
        match runs.last_mut() {
            Some(run) if blanks < 2 && run.style == style => {
                run.text.push_str(&" ".repeat(blanks));
                run.text.push_str(text);
                run.cells = column + cells - run.column;
            }
            _ => runs.push(Run { column, cells, text: text.to_owned(), style }),
        }
        blanks = 0;
    }
    runs
}
