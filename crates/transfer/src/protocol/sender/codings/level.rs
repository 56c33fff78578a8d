//! How strongly [`Compression::Auto`](super::Compression::Auto) compresses: as strongly as it can without making the stream
//! slower.
//!
//! What matters is how fast blocks are streamed, whatever holds them up: the line, the workers, or programs that need the
//! same cores. So the stream is timed. A higher level is tried, and stays unless the stream gets slower while workers pack at
//! it. Now and then nothing is packed for a moment: if the stream gets faster, it stays so. And the level falls whenever the
//! stream has to wait for the workers.

use crate::time::Time;
use crate::units::Rate;
use std::time::Duration;

/// The levels, by step.
const LADDER: [Option<i8>; 5] = [None, Some(-5), Some(-1), Some(1), Some(3)];
/// On a line of at most this rate, nobody waits for the level of [`START`].
const SLOW_LINE: Rate = Rate(1_000_000_000);
const START: usize = 3;
/// What is timed is at least so many blocks, and takes at least so long.
const STRETCH: u32 = 16;
const SHORTEST: Duration = Duration::from_millis(50);
/// A difference of speed that counts.
const SLOWER: f64 = 0.97;
/// Stretches before another level is tried, at first; twice as many after each that did not stay, up to a maximum.
const PATIENCE: u32 = 8;
const MAX_PATIENCE: u32 = 64;

/// See the module's description.
#[derive(Debug)]
pub(super) struct Level {
    /// Index in [`LADDER`].
    step: usize,
    /// When the present stretch began, and the blocks begun since.
    stretch: Option<(Time, u32)>,
    /// Blocks a second, of recent stretches; 0 before the first one.
    speed: f64,
    /// While a level is tried: the step before, which has the speed.
    before: Option<usize>,
    /// Whether a higher level is tried next, rather than none.
    upwards: bool,
    /// Stretches until then, and after the next one that does not stay.
    rest: u32,
    patience: u32,
    /// The block for which the stream has waited last.
    waited_for: Option<u32>,
}

impl Level {
    /// For a line of this rate.
    pub fn new(line: Rate) -> Self {
        Self {
            step: if line <= SLOW_LINE { START } else { 0 },
            stretch: None,
            speed: 0.0,
            before: None,
            upwards: true,
            rest: PATIENCE,
            patience: PATIENCE,
            waited_for: None,
        }
    }

    /// The level of the next block; `None` if it is not compressed.
    pub fn level(&self) -> Option<i8> {
        LADDER[self.step]
    }

    /// The stream waits for the coding of a block: the workers are too slow.
    pub fn waits_for(&mut self, block: u32) {
        if self.waited_for.replace(block) == Some(block) || self.step == 0 {
            return;
        }
        match self.before.take() {
            Some(before) if before < self.step => self.step = before,
            _ => (self.step, self.speed) = (self.step - 1, 0.0),
        }
        self.be_patient();
    }

    /// The stream begins a block.
    pub fn begins(&mut self, now: Time) {
        let (since, blocks) = self.stretch.get_or_insert((now, 0));
        let took = now.since(*since);
        if *blocks < STRETCH || took < SHORTEST {
            *blocks += 1;
            return;
        }
        let speed = f64::from(*blocks) / took.as_secs_f64();
        self.stretch = Some((now, 1));
        self.timed(speed);
    }

    /// A stretch was so fast.
    fn timed(&mut self, speed: f64) {
        let Some(before) = self.before.take() else {
            self.speed = if self.speed == 0.0 { speed } else { f64::midpoint(self.speed, speed) };
            self.rest = self.rest.saturating_sub(1);
            if self.rest == 0 {
                self.before = Some(self.step);
                let up = self.step == 0 || self.upwards && self.step + 1 < LADDER.len();
                self.step = if up { self.step + 1 } else { 0 };
            }
            return;
        };
        let up = self.step > before;
        let stays = if up { speed >= self.speed * SLOWER } else { speed * SLOWER > self.speed };
        // Next, the other way, if this was a wrong one.
        self.upwards = up == stays;
        if stays {
            self.speed = speed;
        } else {
            self.step = before;
        }
        if up && stays {
            (self.rest, self.patience) = (PATIENCE, PATIENCE);
        } else {
            self.be_patient();
        }
    }

    fn be_patient(&mut self) {
        self.patience = (self.patience * 2).min(MAX_PATIENCE);
        (self.rest, self.stretch) = (self.patience, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAST: Rate = Rate(10_000_000_000);
    /// Blocks that workers pack ahead of the stream.
    const AHEAD: u32 = 64;

    /// Streams blocks. `took` says how long one takes, in microseconds, from its own level, the level that the workers pack at
    /// meanwhile, and its number. Returns the time, and the blocks of each level.
    fn stream(
        line: Rate,
        blocks: u32,
        took: impl Fn(Option<i8>, Option<i8>, u32) -> u64,
    ) -> (Duration, [u32; 5]) {
        let (mut level, mut now) = (Level::new(line), Time::ZERO);
        let mut levels = vec![level.level(); AHEAD as usize];
        let mut counts = [0; 5];
        for block in 0..blocks {
            level.begins(now);
            levels.push(level.level());
            let own = levels[block as usize];
            counts[LADDER.iter().position(|of| *of == own).unwrap()] += 1;
            now = now + Duration::from_micros(took(own, level.level(), block));
        }
        (now.since(Time::ZERO), counts)
    }

    #[test]
    fn on_a_slow_line_what_shrinks_is_compressed() {
        let shrinks = |own: Option<i8>, _, _| own.map_or(10_000, |_| 4_000);
        let (took, counts) = stream(Rate(100_000_000), 2_000, shrinks);
        assert!(counts[0] < 50 && counts[4] > 1_700, "{counts:?}");
        assert!(took < Duration::from_micros(2_000 * 4_200), "{took:?}");
    }

    #[test]
    fn what_does_not_shrink_is_no_slower() {
        let (_, counts) = stream(FAST, 4_000, |_, _, _| 2_000);
        assert!(counts[4] > 2_500, "{counts:?}");
    }

    #[test]
    fn where_others_need_the_cores_nothing_is_compressed() {
        // It shrinks to a half, and still takes longer.
        let costs =
            |own: Option<i8>, packs: Option<i8>, _| own.map_or(2_000, |_| 1_000) + packs.map_or(0, |_| 3_000);
        for (line, begun) in [(FAST, 0), (SLOW_LINE, 20 * STRETCH)] {
            let (took, counts) = stream(line, 4_000, costs);
            assert!(counts[0] > 3_800 - begun, "{counts:?}");
            // What was compressed before that was known, and the trials.
            let most = 4_000 * 2_000 * 105 / 100 + u64::from(begun) * 3_000;
            assert!(took < Duration::from_micros(most), "{took:?}");
        }
    }

    #[test]
    fn a_change_is_noticed() {
        // Others need the cores for a while.
        let costs = |own: Option<i8>, packs: Option<i8>, block| match (own, packs) {
            (_, Some(_)) if (3_000..9_000).contains(&block) => 9_000,
            (Some(_), _) => 3_000,
            (None, _) => 6_000,
        };
        let raw = |blocks| stream(FAST, blocks, costs).1[0];
        let (before, during, after) = (raw(3_000), raw(9_000), raw(15_000));
        assert!(before < 300, "{before}");
        assert!(during - before > 4_000, "{during}");
        assert!(after - during < 1_500, "{after}");
    }

    #[test]
    fn the_level_falls_when_the_stream_waits() {
        let mut level = Level::new(SLOW_LINE);
        assert_eq!(level.level(), Some(1));
        level.waits_for(0);
        level.waits_for(0);
        assert_eq!(level.level(), Some(-1), "once for each block");
        (1..10).for_each(|block| level.waits_for(block));
        assert_eq!((level.level(), level.rest), (None, MAX_PATIENCE), "nothing is compressed any more");
        // A trial ends at once.
        (level.step, level.before) = (1, Some(0));
        level.waits_for(10);
        assert_eq!((level.level(), level.before), (None, None));
    }

    #[test]
    fn short_stretches_are_not_timed() {
        let mut level = Level::new(FAST);
        // A thousand blocks in a millisecond.
        (0..1_000).for_each(|micros| level.begins(Time::ZERO + Duration::from_micros(micros)));
        assert_eq!((level.speed, level.level()), (0.0, None));
    }
}
