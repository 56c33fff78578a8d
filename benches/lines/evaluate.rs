//! Evaluates the samples of a transfer.

use super::sample::Sample;

/// Number of samples in a window over which a share has to hold: half a second.
const WINDOW: usize = 5;
/// Seconds within which a line should be found.
const SETTLING: f64 = 2.0;
/// Highest share of packets that the bucket may drop while the line counts as settled.
const MAX_DROPS: f64 = 0.01;

/// A span of time in which the line is constant.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// Start, in seconds since the samples' origin.
    pub from: f64,
    /// End, in seconds since the samples' origin.
    pub to: f64,
    /// The line's rate in Mbit/s.
    pub mbit: u64,
    /// Share of the packets that are lost after it.
    pub loss: f64,
    /// Share of the limit at which the line counts as found.
    pub hold: f64,
}

/// The result for a span. Seconds are from its start; NaN means never.
#[derive(Clone, Copy, Debug)]
pub struct Evaluation {
    pub found: f64,
    pub settled: f64,
    pub share: f64,
    pub drops: f64,
}

/// The slowest receiver's share of the line between two samples, and the share of packets that the worst
/// bucket dropped.
pub fn between(a: &Sample, b: &Sample, mbit: u64, loss: f64) -> (f64, f64) {
    let bytes = a.received.iter().zip(&b.received).map(|(a, b)| b - a).min().unwrap_or(0);
    let share = bytes as f64 * 8.0 / 1e6 / (b.at - a.at) / mbit as f64 * (1.0 - loss);
    let drops = a.buckets.iter().zip(&b.buckets).map(|(a, b)| {
        let (packets, drops) = ((b.packets - a.packets) as f64, (b.drops - a.drops) as f64);
        drops / (packets + drops).max(1.0)
    });
    (share, drops.fold(0.0, f64::max))
}

/// Evaluates one span of the samples.
pub fn evaluate(samples: &[Sample], span: &Span) -> Evaluation {
    let within: Vec<&Sample> = samples.iter().filter(|s| (span.from..=span.to).contains(&s.at)).collect();
    let windows = || {
        within.windows(WINDOW + 1).map(|w| {
            let (share, drops) = between(w[0], w[WINDOW], span.mbit, span.loss);
            (w[0].at - span.from, share, drops)
        })
    };
    let holds = |share: f64| share >= span.hold;
    let first = |at: Option<(f64, f64, f64)>| at.map_or(f64::NAN, |(at, _, _)| at);
    let settled: Vec<&&Sample> = within.iter().filter(|s| s.at >= span.from + SETTLING).collect();
    let (share, drops) = match settled[..] {
        [first, .., last] if settled.len() > WINDOW => between(first, last, span.mbit, span.loss),
        _ => (f64::NAN, f64::NAN),
    };
    Evaluation {
        found: first(windows().find(|(_, share, _)| holds(*share))),
        settled: first(windows().find(|(_, share, drops)| holds(*share) && *drops < MAX_DROPS)),
        share,
        drops,
    }
}
