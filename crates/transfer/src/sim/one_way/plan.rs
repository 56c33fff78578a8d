//! What a session without a way back goes through; drawn from a seed, or made by hand.

use crate::layout::Layout;
use crate::limits::RECEIVER_BUFFER_BYTES;
use crate::protocol::carousel::Repetition;
use crate::sim::disk_faults::{DiskError, DiskFaults, Op, PowerCut};
use crate::sim::link::{Burst, Quality};
use crate::sim::scenario::ContentPlan;
use crate::time::Time;
use crate::units::Rate;
use std::time::Duration;

/// A device.
#[derive(Clone, Debug)]
pub struct Device {
    /// The line to it.
    pub down: Quality,
    /// When it starts.
    pub start: Time,
    /// When its power fails, and when it is started again.
    pub crash: Option<(Time, Time)>,
    /// Whether it is told to be quiet, or meets a session that makes it so.
    pub told: bool,
    /// Bytes of its block buffers.
    pub buffers: usize,
    /// Faults of its disk.
    pub faults: DiskFaults,
    /// How long it is off after a power cut at an operation of its disk.
    pub back: Duration,
}

/// A session.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The seed of everything that is drawn while it runs.
    pub seed: u64,
    /// The object.
    pub layout: Layout,
    /// What it consists of.
    pub content: ContentPlan,
    /// The rate on the wire.
    pub rate: Rate,
    /// What is repeated.
    pub passes: Repetition,
    /// When the sender is interrupted.
    pub interrupt: Option<Time>,
    /// Whether there is a group key.
    pub group_key: bool,
    /// Forged symbols for each genuine one.
    pub forger: f64,
    /// The devices.
    pub devices: Vec<Device>,
}

impl Plan {
    /// The plan of a seed.
    #[must_use]
    pub fn generate(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let (log2, symbol) = [(14, 512), (16, 1024), (18, 1408), (20, 1408)][rng.usize(..4)];
        let size = match rng.u8(..8) {
            0 => rng.u64(..3) * rng.u64(..2000),
            _ => rng.u64(..3 << 20),
        };
        let layout = Layout::new(size, log2, symbol).expect("it is small");
        let count = match rng.u8(..5) {
            0 => None,
            passes => Some(u32::from(passes)),
        };
        let passes = Repetition {
            overhead_per_mille: [0, 50, 100, 200, 300][rng.usize(..5)],
            count,
            pause: Duration::from_millis([0, 0, 0, 3_000][rng.usize(..4)]),
        };
        let rate = Rate(rng.u64(5..100) * 1_000_000);
        let interrupt = (count.is_none() || rng.u8(..12) == 0).then(|| Time(rng.u64(..20_000_000_000)));
        let group_key = rng.bool();
        let forger = if group_key || rng.bool() { 0.0 } else { rng.f64() / 4.0 };
        let mut devices: Vec<_> = (0..rng.usize(1..6)).map(|_| Device::generate(&mut rng)).collect();
        let mut rng = fastrand::Rng::with_seed(seed ^ 0x0e_d15c);
        devices.iter_mut().for_each(|device| device.draw_faults(&mut rng));
        let mut share = || if rng.bool() { rng.u8(..=33) } else { 0 };
        let content = ContentPlan { zeros: share(), short: share(), ..ContentPlan::default() };
        Self { seed, layout, content, rate, passes, interrupt, group_key, forger, devices }
    }

    /// At most how many passes have begun by that time.
    fn passes_before(&self, start: Time) -> u32 {
        // Coded blocks make a pass shorter than this, zeros much shorter.
        let share = 100 - u64::from(self.content.zeros) - u64::from(self.content.short);
        let pass = (self.layout.object_size() * 8 * share / 100) as f64 / self.rate.0 as f64;
        (start.since(Time::ZERO).as_secs_f64() / pass).ceil() as u32
    }

    /// Whether a device must complete: nothing but independent loss and a forger meets it, and there are passes to spare.
    pub(super) fn must_complete(&self, device: &Device) -> bool {
        let Device { down, crash, faults, .. } = device;
        let safe = crash.is_none() && *faults == DiskFaults::default();
        let undisturbed = down.burst.is_none() && down.corrupt == 0.0 && safe;
        let passes = if self.interrupt.is_some() { 0 } else { self.passes.count.unwrap_or(0) };
        // A forged symbol costs a pass, and so does a lost message with the digests of 64 symbols.
        let forged = self.forger > 0.0;
        let spent = self.passes_before(device.start).saturating_add(u32::from(forged) * 2);
        let whole = if down.loss == 0.0 { 1 } else { 2 };
        let passable = down.loss < if forged { f64::MIN_POSITIVE } else { 0.1 };
        undisturbed
            && passable
            && passes >= spent.saturating_add(whole)
            && device.buffers == RECEIVER_BUFFER_BYTES
    }
}

impl Device {
    fn generate(rng: &mut fastrand::Rng) -> Self {
        let mut draw = |share: u8| rng.u8(..100) < share;
        let (bursts, faults, late, crashes, told, small) =
            (draw(25), draw(25), draw(25), draw(25), draw(50), draw(15));
        let burst = Burst {
            good: Duration::from_millis(rng.u64(50..2_000)),
            bad: Duration::from_millis(rng.u64(1..80)),
            loss: 1.0,
        };
        let down = Quality {
            loss: [0.0, 0.0, 0.01, 0.05, 0.2][rng.usize(..5)],
            burst: bursts.then_some(burst),
            delay: Duration::from_micros(rng.u64(..20_000)),
            jitter: Duration::from_micros(if faults { rng.u64(..3_000) } else { 0 }),
            reorder: if faults { 0.02 } else { 0.0 },
            duplicate: if faults { 0.02 } else { 0.0 },
            corrupt: if faults { 0.002 } else { 0.0 },
            partitions: Vec::new(),
        };
        let start = if late { Time(rng.u64(..4_000_000_000)) } else { Time::ZERO };
        let crash = Time(start.0 + rng.u64(..4_000_000_000));
        let again = Time(crash.0 + rng.u64(..1_500_000_000));
        Self {
            down,
            start,
            crash: crashes.then_some((crash, again)),
            told,
            buffers: if small { 1 } else { RECEIVER_BUFFER_BYTES },
            faults: DiskFaults::default(),
            back: Duration::ZERO,
        }
    }

    /// One disk in five fails, or loses power.
    fn draw_faults(&mut self, rng: &mut fastrand::Rng) {
        let op = Op::ALL[rng.usize(..Op::ALL.len())];
        let nth = if op == Op::Write { rng.u64(..6) } else { 0 };
        self.back = Duration::from_millis(rng.u64(20..2_000));
        match rng.u8(..10) {
            0 => self.faults.error = Some((op, nth, DiskError::InputOutput)),
            1 => {
                let (after, seed) = (rng.bool(), rng.u64(..));
                self.faults.power_cut = Some(PowerCut { op, nth, after, seed });
            }
            _ => {}
        }
    }
}
