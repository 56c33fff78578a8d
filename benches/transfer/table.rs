//! Computes and prints medians and ratios.

use super::run::Figures;
use super::support::measure::median;
use super::tools::Tool;

/// All rounds for one number of receivers.
pub struct Series {
    /// Number of receivers.
    pub receivers: usize,
    /// The tools.
    pub tools: Vec<Tool>,
    /// Figures by tool and round; `None` for a failed run.
    pub runs: Vec<Vec<Option<Figures>>>,
}

/// A figure of a run.
type Figure = fn(&Figures) -> f64;

const RATIOS: [(&str, Figure); 6] = [
    ("goodput", |f| f.goodput),
    ("sender CPU", |f| f.sender_cpu),
    ("receiver CPU", |f| f.receiver_cpu),
    ("sender memory", |f| f.sender_memory.anonymous as f64),
    ("receiver memory", |f| f.receiver_memory.anonymous as f64),
    ("wire", |f| f.wire),
];

impl Series {
    /// An empty series.
    pub fn new(receivers: usize, tools: &[Tool]) -> Self {
        Self { receivers, tools: tools.to_vec(), runs: vec![Vec::new(); tools.len()] }
    }

    fn of(&self, tool: Tool) -> Option<&[Option<Figures>]> {
        self.tools.iter().position(|t| *t == tool).map(|i| &self.runs[i][..])
    }

    fn median_of(&self, tool: Tool, figure: Figure) -> f64 {
        median(self.of(tool).into_iter().flatten().flatten().map(figure))
    }

    /// Prints a line for each tool with medians over its successful runs, and a line for each tool with
    /// ratios. `limit`: the line's limit in Mbit/s of the file, if there is one.
    pub fn print(&self, bytes: u64, limit: Option<f64>) {
        println!("{} receiver(s) of {} bytes; CPU in s/GiB, memory in MiB: own/all", self.receivers, bytes);
        println!(
            "{:<9}{:>8}{:>8}{:>8}{:>8}{:>9}{:>9}{:>12}{:>12}{:>7}{:>9}{:>7}{:>8}",
            "",
            "Mbit/s",
            "stream",
            "took s",
            "all s",
            "sender",
            "receiver",
            "sender",
            "receiver",
            "wire",
            "packets",
            "lost",
            "failed"
        );
        println!(
            "{:<9}{:>8}{:>8}{:>8}{:>8}{:>9}{:>9}{:>12}{:>12}{:>7}{:>9}{:>7}{:>8}",
            "", "", "Mbit/s", "", "", "CPU", "CPU", "memory", "memory", "", "/MiB", "%", ""
        );
        for (tool, runs) in self.tools.iter().zip(&self.runs) {
            let m = |figure: Figure| median(runs.iter().flatten().map(figure));
            let memory = |own: Figure, all: Figure| format!("{}/{}", mib(m(own)), mib(m(all)));
            println!(
                "{tool:<9}{:>8}{:>8}{:>8}{:>8}{:>9}{:>9}{:>12}{:>12}{:>7}{:>9}{:>7}{:>8}",
                shown(m(|f| f.goodput), 0),
                shown(m(|f| f.stream), 0),
                shown(m(|f| f.took), 3),
                shown(m(|f| f.all), 3),
                shown(m(|f| f.sender_cpu), 3),
                shown(m(|f| f.receiver_cpu), 3),
                memory(|f| f.sender_memory.anonymous as f64, |f| f.sender_memory.high_water as f64),
                memory(|f| f.receiver_memory.anonymous as f64, |f| f.receiver_memory.high_water as f64),
                shown(m(|f| f.wire), 3),
                shown(m(|f| f.packets), 1),
                shown(100.0 * m(|f| f.lost), 1),
                runs.iter().filter(|r| r.is_none()).count(),
            );
        }
        self.print_ratios();
        if let Some(limit) = limit {
            let share = |tool: &Tool| {
                let of = |figure: Figure| shown(self.median_of(*tool, figure) / limit, 3);
                format!("{tool} {} (stream {})", of(|f| f.goodput), of(|f| f.stream))
            };
            let shares: Vec<String> = self.tools.iter().map(share).collect();
            println!("of the {limit:.1} Mbit/s that the line allows: {}", shares.join(", "));
        }
        println!();
    }

    /// The first tool's figures divided by those of every other tool.
    fn print_ratios(&self) {
        let Some((first, ours)) = self.tools.first().zip(self.runs.first()) else { return };
        for (tool, theirs) in self.tools.iter().zip(&self.runs).skip(1) {
            let ratios: Vec<String> = RATIOS
                .iter()
                .map(|(name, figure)| {
                    let pairs = ours.iter().zip(theirs).filter_map(|(a, b)| Some((a.as_ref()?, b.as_ref()?)));
                    format!("{name} {}", shown(median(pairs.map(|(a, b)| figure(a) / figure(b))), 3))
                })
                .collect();
            println!("{first} : {tool:<9}{}", ratios.join(", "));
            if *tool == Tool::Other {
                println!("goodput of each pair, {first}/other: {}", pairs_of(ours, theirs).join(" "));
            }
        }
    }
}

/// Prints the growth of the sender's CPU time with its receivers, and its difference to the blaster's.
/// The difference is the protocol's cost of each receiver beyond the kernel's copying, which both pay.
pub fn print_growth(all: &[Series]) {
    let (Some(few), Some(many)) = (all.first(), all.last()) else { return };
    let (n, m) = (few.receivers, many.receivers);
    let cost = |series: &Series, tool| series.median_of(tool, |f| f.sender_cpu);
    let growth = |tool| cost(many, tool) - cost(few, tool);
    let beyond = (growth(Tool::Mcp) - growth(Tool::Blaster)) / cost(few, Tool::Mcp);
    if n >= m || !beyond.is_finite() {
        return;
    }
    println!("sender CPU in s/GiB, {n} to {m} receivers:");
    for tool in [Tool::Mcp, Tool::Blaster] {
        println!("  {tool:<9}{:.3} to {:.3}: {:+.3}", cost(few, tool), cost(many, tool), growth(tool));
    }
    println!("  mcp's grows by {:+.1} % of itself beyond the blaster's", 100.0 * beyond);
}

/// The goodputs of each round; a dash if one of the two runs failed.
fn pairs_of(ours: &[Option<Figures>], theirs: &[Option<Figures>]) -> Vec<String> {
    let goodput = |run: &Option<Figures>| shown(run.as_ref().map_or(f64::NAN, |f| f.goodput), 0);
    ours.iter().zip(theirs).map(|(a, b)| format!("{}/{}", goodput(a), goodput(b))).collect()
}

/// Formats a number; a dash for NaN.
pub fn shown(value: f64, digits: usize) -> String {
    if value.is_finite() { format!("{value:.digits$}") } else { "-".into() }
}

fn mib(bytes: f64) -> String {
    shown(bytes / f64::from(1 << 20), 0)
}
