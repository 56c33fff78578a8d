//! The scenarios and their tables.

use super::Options;
use super::evaluate::{Evaluation, Span, evaluate};
use super::support::files::TempDir;
use super::support::lab::Lab;
use super::support::measure::{median, payload_share, roomy};
use super::tcp::unix_now;
use super::trial::{Flow, Plan, Trial};
use std::error::Error;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

type Result = std::result::Result<(), Box<dyn Error>>;

/// Seconds for TCP alone.
const TCP_ALONE: u64 = 8;

/// A network of `receivers`, each behind a line of `mbit`.
fn lab(receivers: usize, mbit: u64) -> std::result::Result<Lab, String> {
    let lab = Lab::new(receivers + 1).ok_or("no network namespaces here")?;
    lab.single_packets(0);
    (1..=receivers).for_each(|host| lab.bucket(host, mbit));
    Ok(lab)
}

/// A file that takes `seconds` on a line of `mbit`, in a directory with room for its copies.
fn file(options: &Options, mbit: f64, copies: u64) -> (TempDir, PathBuf) {
    let bytes = (mbit * 1e6 / 8.0 * payload_share() * options.seconds as f64) as u64;
    let place = TempDir::within(&roomy(bytes * (copies + 1)));
    let source = place.file("image.bin", bytes, 1);
    (place, source)
}

/// Runs the rounds, and returns the successful ones.
fn rounds(options: &Options, what: &str, plan: &Plan<'_>, place: &TempDir) -> Vec<Trial> {
    let run = |round| {
        let trial = plan.run(place);
        if let Err(why) = &trial {
            eprintln!("{what}, round {round}: failed: {why}");
        }
        trial.ok()
    };
    (1..=options.rounds).filter_map(run).collect()
}

fn of<T>(values: &[T], value: impl Fn(&T) -> f64) -> f64 {
    median(values.iter().map(value))
}

/// Formats a number; a dash for NaN.
fn shown(value: f64, digits: usize) -> String {
    if value.is_finite() { format!("{value:.digits$}") } else { "-".into() }
}

/// The number of rounds with a value, if not all of them have one.
fn seen(evaluations: &[Evaluation], value: impl Fn(&Evaluation) -> f64) -> String {
    let finite: Vec<f64> = evaluations.iter().map(value).filter(|v| v.is_finite()).collect();
    let of_all =
        if finite.len() == evaluations.len() { String::new() } else { format!(" ({})", finite.len()) };
    format!("{}{of_all}", shown(median(finite), 2))
}

/// Lines with a constant rate.
pub fn steady(options: &Options) -> Result {
    println!("steady: 2 receivers; seconds, shares of the payload limit; in brackets the rounds that saw it");
    println!(
        "{:>7}{:>7}{:>12}{:>12}{:>8}{:>9}{:>8}{:>8}",
        "Mbit/s", "loss %", "found", "settled", "share", "drops %", "whole", "failed"
    );
    for &mbit in &options.lines {
        for &loss in &options.loss {
            let lab = lab(2, mbit)?;
            if loss > 0 {
                (1..=2).for_each(|host| lab.lose(host, loss));
            }
            let (place, source) = file(options, mbit as f64, 2);
            let words = options.rate_words(mbit)?;
            let plan =
                Plan { options, lab: &lab, source: &source, words, lines: vec![(0.0, mbit)], tcp: false };
            let trials = rounds(options, &format!("{mbit} Mbit/s"), &plan, &place);
            let loss = f64::from(loss) / 1000.0;
            let hold = options.hold.unwrap_or(if loss > 0.0 { 0.88 } else { 0.92 });
            let span = |t: &Trial| Span { from: t.streaming, to: t.streamed, mbit, loss, hold };
            let evaluations: Vec<Evaluation> =
                trials.iter().map(|t| evaluate(&t.samples, &span(t))).collect();
            println!(
                "{mbit:>7}{:>7}{:>12}{:>12}{:>8}{:>9}{:>8}{:>8}",
                shown(100.0 * loss, 1),
                seen(&evaluations, |v| v.found),
                seen(&evaluations, |v| v.settled),
                shown(of(&evaluations, |v| v.share), 3),
                shown(100.0 * of(&evaluations, |v| v.drops), 2),
                shown(of(&trials, |t| t.goodput / (mbit as f64 * payload_share())), 3),
                options.rounds - trials.len(),
            );
        }
    }
    Ok(())
}

/// A line that is halved and recovers.
pub fn halving(options: &Options) -> Result {
    let (whole, half) = (options.line, options.line / 2);
    println!("halving: 2 receivers; {whole} Mbit/s, {half}, and {whole} again");
    let lab = lab(2, whole)?;
    // Two thirds of the time at the whole rate, and one third at half of it.
    let (place, source) = file(options, whole as f64 * 5.0 / 6.0, 2);
    let third = options.seconds as f64 / 3.0;
    let lines = vec![(0.0, whole), (third, half), (2.0 * third, whole)];
    let plan =
        Plan { options, lab: &lab, source: &source, words: options.rate_words(whole)?, lines, tcp: false };
    let trials: Vec<Trial> = (1..=options.rounds)
        .filter_map(|round| {
            (1..=2).for_each(|host| lab.bucket(host, whole));
            plan.run(&place).map_err(|why| eprintln!("halving, round {round}: failed: {why}")).ok()
        })
        .collect();
    println!("{:>7}{:>12}{:>8}{:>9}", "Mbit/s", "followed", "share", "drops %");
    let hold = options.hold.unwrap_or(0.92);
    for (i, (_, mbit)) in plan.lines.iter().enumerate() {
        let edges = |t: &Trial| -> Vec<f64> { [&[t.streaming][..], &t.changes, &[t.streamed]].concat() };
        let span = |t: &Trial| Span { from: edges(t)[i], to: edges(t)[i + 1], mbit: *mbit, loss: 0.0, hold };
        let evaluations: Vec<Evaluation> = trials.iter().map(|t| evaluate(&t.samples, &span(t))).collect();
        println!(
            "{mbit:>7}{:>12}{:>8}{:>9}",
            seen(&evaluations, |v| v.settled),
            shown(of(&evaluations, |v| v.share), 3),
            shown(100.0 * of(&evaluations, |v| v.drops), 2),
        );
    }
    println!("failed: {}", options.rounds - trials.len());
    Ok(())
}

/// One device of eight behind a tenth of the line.
pub fn tenth(options: &Options) -> Result {
    let mbit = options.line;
    println!("tenth: 7 receivers at {mbit} Mbit/s, then with an eighth at {}", mbit / 10);
    let (place, source) = file(options, mbit as f64, 8);
    let run = |slow: bool| -> std::result::Result<Trial, String> {
        let lab = lab(if slow { 8 } else { 7 }, mbit)?;
        if slow {
            lab.bucket(1, mbit / 10);
        }
        let words = options.rate_words(mbit)?;
        let plan = Plan { options, lab: &lab, source: &source, words, lines: vec![(0.0, mbit)], tcp: false };
        plan.run(&place)
    };
    // Until the last of the seven has ended; NaN if one did not.
    let seven = |t: &Trial| {
        let last = &t.ends[t.ends.len() - 7..];
        if last.iter().any(|e| e.is_nan()) {
            f64::NAN
        } else {
            last.iter().copied().fold(0.0, f64::max) - t.streaming
        }
    };
    let mut pairs = Vec::new();
    for round in 1..=options.rounds {
        match run(false).and_then(|without| Ok((without, run(true)?))) {
            Ok(pair) => pairs.push(pair),
            Err(why) => eprintln!("tenth, round {round}: failed: {why}"),
        }
    }
    println!(
        "the seven without it {} s, with it {} s, ratio {}; the eighth {} s; failed: {}",
        shown(of(&pairs, |(without, _)| seven(without)), 2),
        shown(of(&pairs, |(_, with)| seven(with)), 2),
        shown(of(&pairs, |(without, with)| seven(with) / seven(without)), 3),
        shown(of(&pairs, |(_, with)| with.ends[0] - with.streaming), 2),
        options.rounds - pairs.len(),
    );
    Ok(())
}

/// mcp and one TCP flow on the same line.
pub fn tcp(options: &Options) -> Result {
    let mbit = options.line;
    let control = &options.tcp_control;
    println!("tcp: a line of {mbit} Mbit/s, TCP by {control}; Mbit/s of payload");
    let lab = lab(1, mbit)?;
    let (place, source) = file(options, mbit as f64, 1);
    let words = options.rate_words(mbit)?;
    let plan = |tcp| Plan {
        options,
        lab: &lab,
        source: &source,
        words: words.clone(),
        lines: vec![(0.0, mbit)],
        tcp,
    };
    let alone = rounds(options, "mcp alone", &plan(false), &place);
    let flows: Vec<f64> = (0..options.rounds)
        .map(|_| {
            let flow = Flow::start(&lab, control);
            let start = unix_now();
            thread::sleep(Duration::from_secs(TCP_ALONE));
            flow.stop(start + 2.0, unix_now())
        })
        .collect();
    let both = rounds(options, "both", &plan(true), &place);
    let (mcp, tcp) = (of(&both, |t| t.goodput), of(&both, |t| t.tcp));
    println!("alone:    mcp {:>6}   TCP {:>6}", shown(of(&alone, |t| t.goodput), 1), shown(median(flows), 1));
    println!(
        "together: mcp {:>6}   TCP {:>6}   TCP's share {:>5}   failed: {}",
        shown(mcp, 1),
        shown(tcp, 1),
        shown(of(&both, |t| t.tcp / (t.tcp + t.goodput)), 3),
        2 * options.rounds - alone.len() - both.len(),
    );
    Ok(())
}
