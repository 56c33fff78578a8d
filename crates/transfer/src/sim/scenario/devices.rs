//! Draws the plans of single devices.

use super::*;

impl DevicePlan {
    /// A device that was to complete cannot.
    pub(in crate::sim) fn fail(&mut self) {
        if self.expectation == Expectation::Complete {
            self.expectation = Expectation::Fails;
        }
    }
    /// Weakens the expectation: a device that was to complete may fail.
    pub(in crate::sim) fn hope(&mut self) {
        if self.expectation == Expectation::Complete {
            self.expectation = Expectation::Any;
        }
    }
}

impl Draw {
    pub(super) fn device(&mut self, scenario: &Scenario, index: u32, horizon: u64) -> DevicePlan {
        // The first device starts early and has no fault, so that there is a session.
        let fine = index == 0;
        let rough = !fine && self.chance(25);
        let (down, up) = (self.quality(rough), self.quality(false));
        let mut attachment = Attachment { down, up, ..Attachment::default() };
        if self.chance(15) {
            attachment.up.loss = 0.2;
        }
        // Few damaged symbols a block: otherwise hardly any block would be complete without one.
        if self.chance(20) {
            let symbols = (1u32 << scenario.layout.block_log2()) / u32::from(scenario.layout.symbol_size());
            attachment.down.corrupt = (0.3 / f64::from(symbols)).min(0.01);
        }
        if !fine && self.chance(15) {
            let rate = scenario.rate * self.rng.u64(60..300) / 100;
            attachment.ingress = Some(Line::new(rate, self.rng.usize(10_000..200_000), false));
        }
        let mut expectation = Expectation::Complete;
        if !fine && self.chance(10) {
            let from = self.time(0, horizon);
            let long = self.chance(30);
            let to = from + if long { self.between(4_000, 40_000) } else { self.between(50, 4_000) };
            attachment.down.partitions.push((from, to));
            if self.chance(70) {
                attachment.up.partitions.push((from, to));
            }
            if long || attachment.up.loss > 0.1 || attachment.down.loss > 0.1 {
                expectation = Expectation::Any;
            }
        }
        let start = match self.rng.u8(..10) {
            _ if fine => self.time(0, 200),
            0 => self.time(0, horizon),
            1 => self.time(0, 2_000 + scenario.linger.as_millis() as u64),
            _ => self.time(0, 1_000),
        };
        let mut plan = DevicePlan {
            start,
            attachment,
            per_datagram: if self.chance(15) { self.between(0, 1) } else { Duration::ZERO },
            socket: if self.chance(15) { self.rng.usize(8..64) } else { 4_096 },
            job: if self.chance(15) { self.between(20, 300) } else { self.between(1, 20) },
            disk: None,
            faults: DiskFaults::default(),
            existing: false,
            force: self.chance(30),
            earlier: None,
            hook: None,
            pipe: None,
            block: None,
            tree: None,
            buffer_blocks: self.rng.usize(4..40),
            timeout: self.between(20_000, 120_000),
            crash: None,
            back: None,
            interrupt: None,
            expectation,
        };
        if fine {
            return self.settled(scenario, plan);
        }
        match self.rng.u8(..30) {
            0 | 1 => {
                let at = plan.start + self.between(0, horizon);
                let back = self.chance(70).then(|| at + self.between(50, 25_000));
                plan.crash = Some((at, back));
            }
            2 => {
                plan.interrupt = Some(plan.start + self.between(0, horizon));
                plan.expectation = Expectation::Any;
            }
            3..=5 => {
                let (faults, fails) = self.disk(&scenario.layout);
                plan.faults = faults;
                plan.expectation = if fails && !(faults.name_taken_late && plan.force) {
                    Expectation::Fails
                } else {
                    Expectation::Any
                };
            }
            6 => {
                plan.existing = true;
                if !plan.force {
                    plan.expectation = Expectation::Fails;
                }
            }
            _ => {}
        }
        self.settled(scenario, plan)
    }

    /// Weakens an expectation that the plan's own timing does not guarantee.
    fn settled(&mut self, scenario: &Scenario, mut plan: DevicePlan) -> DevicePlan {
        let hopeful = DevicePlan::hope;
        if !scenario.sender.is_steady() {
            hopeful(&mut plan);
        }
        let (up, down) = (&plan.attachment.up, &plan.attachment.down);
        if up.mean_loss() > 0.4 || down.mean_loss() > 0.4 {
            hopeful(&mut plan);
        }
        let (up, down) = (&plan.attachment.up, &plan.attachment.down);
        // Time to be admitted, with a margin for many lost announces and joins.
        let quiet = up.loss <= 0.05 && down.loss <= 0.05 && down.burst.is_none();
        let handshake = Duration::from_secs(if quiet { 6 } else { 20 });
        let gathers = match (scenario.expected, scenario.sender.start_now) {
            (_, Some(at)) => at,
            (Some(_), None) => Time::ZERO + scenario.wait,
            (None, None) => Time::ZERO + scenario.settle,
        };
        // Devices that have gone count as joined, so gathering may end before the last one has come back.
        // A sender that lingers stays.
        let last_call = if plan.crash.is_some() { Time::ZERO } else { gathers } + scenario.linger;
        let present = match plan.crash {
            None => Some(plan.start),
            Some((_, back)) => back,
        };
        if present.is_none_or(|at| at + handshake > last_call) {
            hopeful(&mut plan);
        }
        // Recordings of other sessions take turns with the true one, and here most words of each turn may be lost.
        let rough = plan.attachment.up.mean_loss().max(plan.attachment.down.mean_loss()) > 0.2;
        if rough && plan.timeout < handshake * 2 {
            hopeful(&mut plan);
        }
        if plan.start + plan.timeout < Time::ZERO + Duration::from_secs(10)
            || plan.crash.is_some() && !plan.force
        {
            hopeful(&mut plan);
        }
        plan
    }
}
