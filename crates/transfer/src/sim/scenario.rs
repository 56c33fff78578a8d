//! The plan of one run, drawn from a seed, or plain with given numbers. Each device has an expected
//! result.

use super::block_device::BlockPlan;
use super::disk_faults::DiskFaults;
use super::hostile::HostilePlan;
use super::line::Line;
use super::link::{Burst, Quality};
use super::network::Attachment;
use super::pipe::PipePlan;
use super::store::StorePlan;
use super::tree::TreePlan;
use crate::layout::Layout;
use crate::limits::FeedbackBudget;
use crate::pacing::RateMode;
use crate::protocol::sender::SlowPolicy;
use crate::time::Time;
use crate::units::{Extent, Rate};
use std::time::Duration;

mod content;
mod devices;
mod growth;

pub use content::{ContentPlan, Known, PageLie};
pub use growth::GrowthPlan;

/// The expected result of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expectation {
    /// It has the object, and the sender knows.
    Complete,
    /// It does not have the object, and the sender's table does not say complete.
    Fails,
    /// It may have the object, but the sender's table does not say complete.
    Unconfirmed,
    /// It may have the object or not; both sides agree.
    Any,
}

/// The plan of one device.
#[derive(Clone, Debug)]
pub struct DevicePlan {
    /// Start time.
    pub start: Time,
    /// Its lines and links.
    pub attachment: Attachment,
    /// Time that its loop takes for each datagram.
    pub per_datagram: Duration,
    /// Size of its socket buffer in datagrams.
    pub socket: usize,
    /// Longest duration of its workers' jobs.
    pub job: Duration,
    /// Bytes a second that its disk stores, if that is bounded.
    pub disk: Option<u64>,
    /// Faults of its disk.
    pub faults: DiskFaults,
    /// Whether a file of the object's name exists already.
    pub existing: bool,
    /// Whether it replaces an existing file.
    pub force: bool,
    /// The percentage of unchanged blocks in its earlier version of the object; `None` without an earlier
    /// version.
    pub earlier: Option<u8>,
    /// How long its hook runs, and its exit status; `None` without a hook.
    pub hook: Option<(Duration, i32)>,
    /// What reads the object, if it is passed on.
    pub pipe: Option<PipePlan>,
    /// The block device that the object is written to, if it is.
    pub block: Option<BlockPlan>,
    /// What happens to it if the object is a tree: all devices have it, or none.
    pub tree: Option<TreePlan>,
    /// Number of blocks that its buffers hold.
    pub buffer_blocks: usize,
    /// Time after which it gives up if it finds no sender.
    pub timeout: Duration,
    /// Time of a power cut, and of its restart, if any.
    pub crash: Option<(Time, Option<Time>)>,
    /// Delay of its restart after a power cut at a disk operation.
    pub back: Option<Duration>,
    /// Time of its user's interrupt.
    pub interrupt: Option<Time>,
    /// Its expected result.
    pub expectation: Expectation,
}

/// The plan of the sender.
#[derive(Clone, Debug, Default)]
pub struct SenderPlan {
    /// Its lines and links.
    pub attachment: Attachment,
    /// Longest duration of its workers' jobs.
    pub job: Duration,
    /// Time of a power cut, and of its restart with a new session, if any.
    pub crash: Option<(Time, Option<Time>)>,
    /// Time of its user's interrupt.
    pub interrupt: Option<Time>,
    /// Time at which its user starts the stream.
    pub start_now: Option<Time>,
    /// Time at which its file changes.
    pub source_changes: Option<Time>,
    /// What is wrong with its store.
    pub store: StorePlan,
    /// How the object grows, if it is a stream.
    pub growth: Option<GrowthPlan>,
    /// What it knows of the object from an earlier run.
    pub known: Option<Known>,
}

impl SenderPlan {
    /// Whether nothing disturbs the sender.
    #[must_use]
    pub fn is_steady(&self) -> bool {
        self.crash.is_none()
            && self.interrupt.is_none()
            && self.source_changes.is_none()
            && self.growth.is_none_or(|growth| growth.dies_after.is_none())
            && !matches!(self.known, Some(Known::Stale(_)))
            && self.store.comes_back()
    }
}

/// One run.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The seed of all its randomness.
    pub seed: u64,
    /// The division of the object into blocks and symbols.
    pub layout: Layout,
    /// The content of the object.
    pub content: ContentPlan,
    /// Bits per second on the wire.
    pub rate: u64,
    /// Whether the sender finds its rate, with `rate` as the ceiling.
    pub finds_rate: bool,
    /// Bits per second that the sender's process may send by its interface, if that is bounded.
    pub budget: Option<u64>,
    /// Policy for slow devices.
    pub slow: SlowPolicy,
    /// Number of devices that the sender waits for.
    pub expected: Option<u32>,
    /// Longest time of gathering.
    pub wait: Duration,
    /// Shortest time of gathering if the number of devices is unknown.
    pub settle: Duration,
    /// Time that the sender lingers.
    pub linger: Duration,
    /// Time after which the sender ends.
    pub max_time: Option<Duration>,
    /// Forged symbols for each genuine one.
    pub forger: f64,
    /// The sender.
    pub sender: SenderPlan,
    /// The devices.
    pub devices: Vec<DevicePlan>,
    /// Whether the sender has a list of them, with their keys.
    pub listed: bool,
    /// Whether the session has a group key.
    pub group_key: bool,
    /// The hostile actors.
    pub hostile: Vec<HostilePlan>,
}

/// The numbers of a plain run, which has only loss.
#[derive(Clone, Copy, Debug)]
pub struct Plain {
    /// Number of devices.
    pub devices: u32,
    /// Independent loss of each device, from 0 to 1.
    pub loss: f64,
    /// Bytes of the object.
    pub size: u64,
    /// Bytes of a symbol.
    pub symbol_size: u16,
    /// Bits per second.
    pub rate: u64,
    /// Bytes a second that the devices' disks store, if that is bounded. Then the sender finds its rate, up to `rate`.
    pub disk: Option<u64>,
}

impl Scenario {
    /// A run in which every device joins at once and loses datagrams independently.
    ///
    /// # Panics
    /// If the symbol size is invalid.
    #[must_use]
    pub fn plain(seed: u64, plain: &Plain) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let layout = Layout::choose(plain.size, plain.symbol_size).expect("a valid symbol size");
        let devices = (0..plain.devices).map(|_| {
            let delay = Duration::from_micros(rng.u64(100..2_000));
            let down = Quality { loss: plain.loss, delay, ..Quality::default() };
            DevicePlan {
                start: Time(rng.u64(..500_000_000)),
                attachment: Attachment { down, ..Attachment::default() },
                per_datagram: Duration::ZERO,
                socket: 10_000,
                job: Duration::from_millis(3),
                disk: plain.disk,
                faults: DiskFaults::default(),
                existing: false,
                force: false,
                earlier: None,
                hook: None,
                pipe: None,
                block: None,
                tree: None,
                buffer_blocks: 48,
                timeout: Duration::from_secs(120),
                crash: None,
                back: None,
                interrupt: None,
                expectation: Expectation::Complete,
            }
        });
        Self {
            seed,
            layout,
            content: ContentPlan::default(),
            rate: plain.rate,
            finds_rate: plain.disk.is_some(),
            budget: None,
            slow: SlowPolicy::Defer,
            expected: Some(plain.devices),
            wait: Duration::from_secs(60),
            settle: Duration::from_millis(300),
            linger: Duration::ZERO,
            max_time: None,
            forger: 0.0,
            sender: SenderPlan { job: Duration::from_millis(2), ..SenderPlan::default() },
            devices: devices.collect(),
            listed: false,
            group_key: false,
            hostile: Vec::new(),
        }
    }

    /// A run with mixed faults.
    #[must_use]
    pub fn generate(seed: u64) -> Self {
        let scenario = Draw { rng: fastrand::Rng::with_seed(seed ^ 0x5ce_4a10) }.scenario(seed);
        let scenario = Draw { rng: fastrand::Rng::with_seed(seed ^ 0x11_4e5) }.lines(scenario);
        let scenario = Draw { rng: fastrand::Rng::with_seed(seed ^ 0xd15c) }.disk_faults(scenario);
        let scenario = Draw { rng: fastrand::Rng::with_seed(seed ^ 0x0bad_cafe) }.hostility(scenario);
        let scenario = Draw { rng: fastrand::Rng::with_seed(seed ^ 0xdba5e) }.store_trouble(scenario);
        let scenario = Draw { rng: fastrand::Rng::with_seed(seed ^ 0x115_7ed) }.listing(scenario);
        let scenario = scenario.with_some_earlier(fastrand::Rng::with_seed(seed ^ 0x01d_f11e));
        let scenario = scenario.with_some_hooks(fastrand::Rng::with_seed(seed ^ 0xd0_7e11));
        let scenario = Draw { rng: fastrand::Rng::with_seed(seed ^ 0x57_4ea3) }.streams(scenario);
        let scenario = Draw { rng: fastrand::Rng::with_seed(seed ^ 0x71d_005) }.windows(scenario);
        let scenario = scenario.with_some_pipes(fastrand::Rng::with_seed(seed ^ 0x9_19e5));
        let scenario = scenario.with_some_block_devices(fastrand::Rng::with_seed(seed ^ 0xb_10cc));
        let scenario = Draw { rng: fastrand::Rng::with_seed(seed ^ 0xc0d_1465) }.content(scenario);
        let scenario = scenario.with_some_trees(fastrand::Rng::with_seed(seed ^ 0x7_4ee));
        Draw { rng: fastrand::Rng::with_seed(seed ^ 0xcac4e) }.knowledge(scenario)
    }

    /// The layout with which the sender begins: that of a stream is empty.
    ///
    /// # Panics
    /// Never: the parameters are those of a layout.
    #[must_use]
    pub fn first_layout(&self) -> Layout {
        match self.sender.growth {
            None => self.layout,
            Some(_) => {
                let (block_log2, symbol_size) = (self.layout.block_log2(), self.layout.symbol_size());
                Layout::of(Extent::default(), block_log2, symbol_size).expect("a valid layout")
            }
        }
    }

    /// The sender's rate mode.
    #[must_use]
    pub const fn rate_mode(&self) -> RateMode {
        let rate = Rate(self.rate);
        if self.finds_rate { RateMode::Auto(rate) } else { RateMode::Fixed(rate) }
    }

    /// The feedback budget of the sender, which has two cores.
    #[must_use]
    pub fn feedback(&self) -> FeedbackBudget {
        FeedbackBudget::of(Rate(self.rate), 2)
    }

    /// Virtual time by which all nodes must have ended.
    #[must_use]
    pub fn deadline(&self) -> Time {
        let lies = self.hostile.iter().filter_map(|plan| plan.attack.lie());
        let kept = lies.filter_map(|lie| lie.keeps(self.repair_time())).max();
        // A run with enemies may take three times as long.
        let times = if self.hostile.is_empty() { 0 } else { 2 };
        self.deadline_without_enemies() + self.repair_time() * times + kept.unwrap_or_default()
    }

    /// The same for a run that no enemy prolongs.
    #[must_use]
    pub fn deadline_without_enemies(&self) -> Time {
        let cues = self.devices.iter().flat_map(|d| [Some(d.start), d.crash.and_then(|c| c.1)]);
        let last = cues.flatten().max().unwrap_or(Time::ZERO);
        let last = last.max(self.sender.crash.and_then(|c| c.1).unwrap_or(Time::ZERO));
        let timeout = self.devices.iter().map(|d| d.timeout).max().unwrap_or_default();
        let hook = self.devices.iter().filter_map(|d| d.hook).map(|(time, _)| time).max().unwrap_or_default();
        let pipes = self.devices.iter().filter_map(|d| d.pipe).map(|pipe| pipe.each).max();
        let pipes = pipes.unwrap_or_default() * self.layout.block_count() * 2;
        let input = self.growth_time() * 2;
        last + timeout + self.wait + hook + pipes + self.linger * 2 + self.repair_time() + input
    }

    /// Time that the input of a stream takes.
    fn growth_time(&self) -> Duration {
        let blocks = 0..=self.layout.block_count();
        self.sender.growth.map_or(Duration::ZERO, |growth| blocks.map(|block| growth.time_of(block)).sum())
    }

    /// Time for stream and repairs.
    fn repair_time(&self) -> Duration {
        Duration::from_secs_f64(self.stream_seconds()) * 30 + Duration::from_secs(300)
    }

    /// Approximate time to send the source symbols at the rate.
    #[must_use]
    pub fn stream_seconds(&self) -> f64 {
        let overhead = self.layout.total_source_symbols() * 100;
        (self.layout.object_size() + overhead) as f64 * 8.0 / self.rate as f64
    }
}

/// Draws the plans from the seed.
pub(super) struct Draw {
    pub(super) rng: fastrand::Rng,
}

impl Draw {
    pub(super) fn chance(&mut self, percent: u32) -> bool {
        self.rng.u32(..100) < percent
    }
    pub(super) fn between(&mut self, low_ms: u64, high_ms: u64) -> Duration {
        Duration::from_micros(self.rng.u64(low_ms * 1_000..=high_ms * 1_000))
    }
    fn time(&mut self, low_ms: u64, high_ms: u64) -> Time {
        Time::ZERO + self.between(low_ms, high_ms)
    }

    fn layout(&mut self) -> Layout {
        let symbol_size = 64 * [1, 1, 2, 4, 8, 16, 22][self.rng.usize(..7)];
        let block_log2 = self.rng.u8(13..=16);
        let (symbol, block) = (u64::from(symbol_size), 1u64 << block_log2);
        let most = (512 << 10).min(symbol * 2_000);
        let boundary = match self.rng.u8(..10) {
            0 => 0,
            1 => 1,
            2 => symbol,
            3 => block,
            4 => block * self.rng.u64(1..=4),
            5 => block * self.rng.u64(1..=4) + symbol,
            // Logarithmically uniform from 1 byte to the largest size.
            _ => (self.rng.f64() * (most as f64).ln()).exp() as u64,
        };
        let size = match self.rng.u8(..3) {
            0 => boundary.saturating_sub(1),
            1 => boundary,
            _ => boundary + 1,
        };
        Layout::new(size.min(most), block_log2, symbol_size).expect("a valid layout")
    }

    fn quality(&mut self, rough: bool) -> Quality {
        let delay = if self.chance(80) { self.between(0, 20) } else { self.between(20, 600) };
        let mut quality = Quality {
            loss: [0.0, 0.0, 0.001, 0.01, 0.05][self.rng.usize(..5)],
            delay: delay + Duration::from_micros(100),
            ..Quality::default()
        };
        if self.chance(40) {
            quality.jitter = self.between(0, 30);
        }
        if self.chance(20) {
            quality.reorder = self.rng.f64() * 0.1;
        }
        if self.chance(20) {
            quality.duplicate = self.rng.f64() * 0.1;
        }
        if rough {
            quality.loss = self.rng.f64() * 0.3;
            if self.chance(50) {
                let (good, bad) = (self.between(100, 2_000), self.between(5, 200));
                quality.burst = Some(Burst { good, bad, loss: 0.5 + self.rng.f64() / 2.0 });
            }
        }
        quality
    }

    fn sender(&mut self, horizon: u64, rate: u64, weather: u32) -> SenderPlan {
        let mut sender = SenderPlan { job: self.between(1, 10), ..SenderPlan::default() };
        if self.chance(20) {
            sender.attachment.up = Quality { loss: 0.02, ..self.quality(false) };
        }
        if self.chance(20) {
            // A line that is slower than the pacing, after a socket buffer.
            let line = rate * self.rng.u64(50..150) / 100;
            sender.attachment.egress = Some(Line::new(line, self.rng.usize(4_000..200_000), true));
        }
        if self.chance(10) {
            sender.start_now = Some(self.time(100, 3_000));
        }
        match weather {
            0 => {
                let at = self.time(0, horizon);
                let back = self.chance(50).then(|| at + self.between(100, 30_000));
                sender.crash = Some((at, back));
            }
            1 => sender.interrupt = Some(self.time(0, horizon)),
            2 => sender.source_changes = Some(self.time(0, horizon)),
            _ => {}
        }
        sender
    }

    fn scenario(mut self, seed: u64) -> Scenario {
        let layout = self.layout();
        let count = match self.rng.u8(..10) {
            0 => 1,
            1..=6 => self.rng.u32(2..=8),
            _ => self.rng.u32(9..=32),
        };
        let rate = self.rng.u64(1_000_000..20_000_000);
        let seconds = layout.object_size() as f64 * 12.0 / rate as f64;
        let wait = self.between(8_000, 15_000);
        let horizon = (wait.as_secs_f64() * 200.0 + 3_000.0 + seconds * 2_000.0) as u64;
        let weather = self.rng.u32(..30);
        let sender = self.sender(horizon, rate, weather);
        let mut scenario = Scenario {
            seed,
            layout,
            content: ContentPlan::default(),
            rate,
            finds_rate: !seed.is_multiple_of(2),
            budget: None,
            slow: if seed % 16 == 7 { SlowPolicy::Keep } else { SlowPolicy::Defer },
            expected: self.chance(60).then_some(count),
            wait,
            settle: self.between(300, 2_000),
            linger: if self.chance(40) { self.between(30_000, 60_000) } else { Duration::ZERO },
            max_time: None,
            forger: 0.0,
            sender,
            devices: Vec::new(),
            listed: false,
            group_key: false,
            hostile: Vec::new(),
        };
        for i in 0..count {
            let device = self.device(&scenario, i, horizon);
            scenario.devices.push(device);
        }
        scenario
    }

    /// Adds lines to a scenario, some of them with changing rates.
    fn lines(mut self, mut scenario: Scenario) -> Scenario {
        let horizon = scenario.wait.as_millis() as u64 + 5_000;
        let sender = &mut scenario.sender.attachment;
        if self.chance(15) {
            let rate = scenario.rate * self.rng.u64(60..300) / 100;
            sender.uplink = Some(Line::new(rate, self.rng.usize(10_000..300_000), false));
        }
        self.change(&mut sender.egress, horizon);
        self.change(&mut sender.uplink, horizon);
        for plan in &mut scenario.devices {
            if self.chance(5) {
                let (rate, queue) = (self.rng.u64(200_000..5_000_000), self.rng.usize(4_000..60_000));
                plan.attachment.egress = Some(Line::new(rate, queue, false));
            }
            self.change(&mut plan.attachment.ingress, horizon);
            self.change(&mut plan.attachment.egress, horizon);
        }
        scenario
    }

    /// A third of the lines drop to about half of their rate, and recover.
    fn change(&mut self, line: &mut Option<Line>, horizon: u64) {
        if let Some(line) = line.as_mut().filter(|_| self.chance(33)) {
            let (at, rate) = (self.time(0, horizon), line.rate);
            let lower = rate * self.rng.u64(30..70) / 100;
            let back = at + self.between(200, 5_000);
            *line = line.clone().changing(at, lower).changing(back, rate);
        }
    }
}
