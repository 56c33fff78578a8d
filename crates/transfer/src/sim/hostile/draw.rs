//! Draws the hostile actors of a run from its seed.

use super::{Attack, HostilePlan, Lie};
use crate::protocol::sender::SlowPolicy;
use crate::sim::disk_faults::DiskFaults;
use crate::sim::network::Attachment;
use crate::sim::scenario::{Draw, Scenario};
use crate::time::Time;
use std::time::Duration;

impl Draw {
    /// Adds hostile actors to some of the runs, and gives some of the runs a group key.
    pub(in crate::sim) fn hostility(mut self, mut scenario: Scenario) -> Scenario {
        scenario.group_key = self.chance(30);
        if !self.chance(45) {
            return scenario;
        }
        for _ in 0..self.rng.usize(1..=3) {
            let plan = self.hostile(&mut scenario);
            scenario.hostile.push(plan);
        }
        if scenario.hostile.iter().any(|plan| plan.attack.is_insider()) {
            // They count as expected, so the sender starts without waiting for the last of the others.
            scenario.linger = scenario.linger + scenario.wait + Duration::from_secs(15);
            // With `keep` every device may slow the group down, liars too.
            scenario.slow = SlowPolicy::Defer;
        }
        if scenario.hostile.iter().any(|plan| matches!(plan.attack, Attack::JoinFlood(_))) {
            // A flood from many addresses, or from a device's own, keeps devices out while it lasts.
            scenario.linger = scenario.linger + scenario.wait + Duration::from_secs(15);
        }
        if scenario.hostile.iter().any(|plan| plan.attack == Attack::Past) {
            // A device tries one session after the other, and may come to the true one when that has begun.
            scenario.linger = scenario.linger + scenario.wait + Duration::from_secs(30);
        }
        if scenario.hostile.iter().any(|plan| plan.attack == Attack::SlowLiar(Lie::Successors)) {
            // Nothing else ends it. The honest devices have as much time as a run without enemies.
            scenario.max_time = Some(scenario.deadline_without_enemies().since(Time::ZERO));
        }
        scenario
    }

    /// Gives some of the senders a list of their devices, and invents devices in some of these runs.
    pub(in crate::sim) fn listing(mut self, mut scenario: Scenario) -> Scenario {
        scenario.listed = self.chance(20);
        if scenario.listed {
            scenario.expected = Some(scenario.devices.len() as u32);
            if self.chance(60) {
                let start = Time::ZERO + self.between(0, 500);
                let end = start + self.between(2_000, 20_000);
                let mut attachment = Attachment::default();
                attachment.up.delay = Duration::from_micros(20);
                attachment.down.delay = Duration::from_micros(100);
                let every = self.between(10, 200);
                let sybil = HostilePlan { attack: Attack::Sybil, start, end, every, burst: 1, attachment };
                scenario.hostile.push(sybil);
            }
        }
        scenario
    }

    fn hostile(&mut self, scenario: &mut Scenario) -> HostilePlan {
        let attacks: &[Attack] = if self.chance(60) { &Attack::OUTSIDERS } else { &Attack::INSIDERS };
        let mut attack = attacks[self.rng.usize(..attacks.len())];
        if let Attack::DuplicateId(victim) = &mut attack {
            *victim = self.rng.u32(..scenario.devices.len() as u32);
            let plan = &mut scenario.devices[*victim as usize];
            // A device that is absent for a while may lose its place to its duplicate.
            let away = plan.crash.is_some()
                || plan.faults != DiskFaults::default()
                || !plan.attachment.down.partitions.is_empty();
            if away {
                plan.hope();
            }
        }
        if let Attack::SlowLiar(lie) = &mut attack {
            *lie = Lie::ALL[self.rng.usize(..Lie::ALL.len())];
            // It is served for minutes, at a rate that this world can afford.
            scenario.rate = scenario.rate.min(2_000_000);
        }
        let start = Time::ZERO + self.between(0, 2_000);
        let end = match attack {
            Attack::JoinFlood(_) => start + self.between(1_000, 8_000),
            // For as long as the sender serves it.
            Attack::SlowLiar(_) if scenario.sender.is_steady() => Time::NEVER,
            _ => start + self.between(500, 12_000),
        };
        let (every, burst) = match attack {
            // As fast as it can, if only the sender gets the datagrams.
            Attack::Headed | Attack::Mimic if self.chance(30) => (self.between(5, 20), 10),
            Attack::JoinFlood(_) => (Duration::from_millis(5), self.rng.u32(1..=20)),
            Attack::SlowLiar(Lie::Slow) => (Duration::from_millis(100), 1),
            Attack::SlowLiar(_) => (self.between(500, 4_000), 1),
            Attack::Needs | Attack::Reports if self.chance(30) => (self.between(5, 20), 10),
            Attack::Relay => (self.between(1, 4), 1),
            Attack::Announces | Attack::Downgrade | Attack::Regroup | Attack::Impostor | Attack::Crowd => {
                (self.between(40, 400), 1)
            }
            _ => (self.between(20, 300), self.rng.u32(1..=4)),
        };
        let mut attachment = Attachment::default();
        attachment.up.delay = if attack == Attack::Relay || self.chance(50) {
            Duration::from_micros(20)
        } else {
            self.between(0, 40)
        };
        attachment.down.delay = Duration::from_micros(100);
        HostilePlan { attack, start, end, every, burst, attachment }
    }
}
