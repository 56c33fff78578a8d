//! Follows a receiver's network. While nothing is heard, it chooses the interfaces again and joins the groups on
//! new ones: an interface that was created anew has another index, and one that came up late was missing when the
//! groups were joined.

use super::choice::ReceiveChoice;
use super::endpoint::UdpNet;
use super::interface::Interface;
use std::mem;
use std::time::{Duration, Instant};

/// Shortest interval between checks of the interfaces.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The state of following the network.
#[derive(Debug)]
pub(super) struct Rebind {
    choice: ReceiveChoice,
    looked: Instant,
    /// Whether the last choice failed.
    missing: bool,
}

/// Whether groups that are joined on `before` are also joined on `now`.
fn same(before: &[Interface], now: &[Interface]) -> bool {
    let what = |i: &Interface| (i.index, i.has_family(false), i.has_family(true));
    before.iter().map(what).eq(now.iter().map(what))
}

impl UdpNet {
    /// From now on, chooses the interfaces again by `choice` while nothing is heard.
    pub fn rebind(&mut self, choice: ReceiveChoice) {
        self.rebind = Some(Rebind { choice, looked: Instant::now(), missing: self.interfaces.is_empty() });
    }

    /// Checks what the system may have changed; call it often. Returns messages for the user, one clause
    /// each.
    pub fn tend(&mut self) -> Vec<String> {
        self.elect();
        if let Some(mut rebind) = self.rebind.take() {
            if rebind.looked.elapsed() >= LOOK_EVERY {
                rebind.looked = Instant::now();
                let silent = mem::take(&mut self.heard) == 0;
                if mem::take(&mut self.look) || silent {
                    self.choose_anew(&mut rebind);
                }
            }
            self.rebind = Some(rebind);
        }
        mem::take(&mut self.notices)
    }

    fn choose_anew(&mut self, rebind: &mut Rebind) {
        match rebind.choice.choose() {
            Ok(found) => {
                let back = mem::take(&mut rebind.missing);
                if back || !same(&self.interfaces, &found) {
                    let names = |all: &[Interface]| all.iter().map(|i| i.name.clone()).collect::<Vec<_>>();
                    if back || names(&self.interfaces) != names(&found) {
                        let list: Vec<String> = found.iter().map(Interface::to_string).collect();
                        self.notices.push(format!("listening on {} now", list.join(", ")));
                    }
                    self.move_to(found);
                }
            }
            Err(e) => {
                if !mem::replace(&mut rebind.missing, true) {
                    self.notices.push(format!("{e}; waiting for it"));
                }
            }
        }
    }

    /// Leaves the groups on interfaces that are no longer used, and joins them on the new ones.
    fn move_to(&mut self, found: Vec<Interface>) {
        let before = mem::replace(&mut self.interfaces, found);
        for group in self.groups.clone() {
            if let Ok(at) = self.group_channel(group.is_ipv6(), group.port()) {
                for gone in before.iter().filter(|b| self.interfaces.iter().all(|i| i.index != b.index)) {
                    self.sockets[at].leave(self.membership(group.ip()), gone);
                }
            }
            self.join(group);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::interface::tests::made_up;
    use super::*;

    #[test]
    fn what_makes_a_difference_is_the_index_and_the_families() {
        let eth0 = made_up(2, "eth0", &["10.0.0.5"]);
        let same = |other: Interface| same(std::slice::from_ref(&eth0), &[other]);
        assert!(same(made_up(2, "eth0", &["10.0.0.6", "10.0.0.7"])));
        assert!(!same(made_up(3, "eth0", &["10.0.0.5"])), "made anew");
        assert!(!same(made_up(2, "eth0", &["10.0.0.5", "fe80::1"])));
        assert!(!same(made_up(2, "eth0", &[])));
    }
}
