//! What the counts of two doctors mean.

use super::tally::Told;
use super::wire::Train;
use crate::doctor::Finding;
use mcp_transfer::limits::{MIN_SYMBOL_SIZE, SYMBOL_ALIGN, SYMBOL_HEADER_LEN, TAG_RESERVE};
use mcp_transfer::text::rate;
use std::net::{IpAddr, SocketAddr};

/// A loss of one datagram in this many slows transfers down.
const LOSS: u32 = 100;
/// Seconds at the end of a long look that may be lost by chance.
const CHANCE: u32 = 3;

/// What is known of the path to a listener.
pub struct Path<'a> {
    /// Its address.
    pub host: IpAddr,
    /// Whether it has heard a hello that was sent to it alone, if one was.
    pub unicast: Option<bool>,
    /// Whether it has heard a hello to the group.
    pub group: bool,
    /// What it has counted; none if it did not say.
    pub told: Option<&'a [Told; Train::ALL.len()]>,
    /// What came back of the even train, and of the burst.
    pub back: [Told; 2],
    /// Datagrams of an even train, and of a burst.
    pub sent: [u32; 2],
    /// The longest datagrams of a transfer.
    pub needed: usize,
    /// Bytes of the IP and UDP headers.
    pub overhead: usize,
    /// The seconds of a long look, one datagram each.
    pub seconds: Option<u32>,
}

/// Nobody has answered.
pub fn nobody(to: SocketAddr) -> Finding {
    Finding::broken(
        "answer",
        format!("no doctor answers from {to}: none listens there, or the way there or back is blocked; the one that listens says which"),
    )
    .mend("mcp doctor --listen")
}

/// Two listeners have one address.
pub fn two_at(host: IpAddr) -> Finding {
    Finding::warning(
        "duplicate",
        format!("two doctors answer from {host}: two machines have this address, or both run on one"),
    )
    .mend(format!("ip neighbour show {host}"))
}

impl Path<'_> {
    /// All that is to be said of the path.
    pub fn findings(&self) -> Vec<Finding> {
        let host = self.host;
        let mut findings = vec![if self.group {
            Finding::ok("multicast", format!("datagrams to the group arrive at {host}"))
        } else {
            Finding::broken(
                "multicast",
                format!("{host} is reached by unicast, but datagrams to the group do not arrive there"),
            )
            .mend("mcp doctor --listen-for 130s")
        }];
        findings.extend(self.unicast.map(|heard| {
            if heard {
                Finding::ok("unicast", format!("datagrams to {host} alone arrive, and its answers come back"))
            } else {
                Finding::warning(
                    "unicast",
                    format!("datagrams to the port of {host} alone do not arrive; those to the group do"),
                )
            }
        }));
        let Some(told) = self.told else {
            findings.push(
                Finding::broken(
                    "answer",
                    format!("{host} does not say what arrived: what is sent to it alone is blocked"),
                )
                .mend("mcp doctor --listen"),
            );
            return findings;
        };
        let of = |train: Train| told[train as usize];
        let (to_group, there, back) =
            (format!("to the group, at {host}"), format!("to {host}"), format!("from {host}"));
        if self.group {
            findings.push(self.lengths(of(Train::GroupSizes).largest as usize));
            findings.extend(self.counts(&to_group, of(Train::GroupEven), self.sent[0]));
            findings.extend(speed(&to_group, of(Train::GroupBurst)));
        }
        findings.extend(self.counts(&there, of(Train::Even), self.sent[0]));
        findings.extend(speed(&there, of(Train::Burst)));
        let came = of(Train::Even).received;
        if came > 0 {
            findings.extend(self.counts(&back, self.back[0], came));
            findings.extend(speed(&back, self.back[1]));
        }
        findings.extend(
            self.seconds.filter(|_| self.group).map(|seconds| self.membership(of(Train::Long), seconds)),
        );
        findings
    }

    /// The longest datagram that arrived.
    fn lengths(&self, largest: usize) -> Finding {
        let (host, packet) = (self.host, largest + self.overhead);
        if largest >= self.needed {
            return Finding::ok("datagram", format!("IP packets of {packet} bytes arrive at {host}"));
        }
        let headers = SYMBOL_HEADER_LEN + TAG_RESERVE;
        let align = usize::from(SYMBOL_ALIGN);
        let symbol = (largest.saturating_sub(headers) / align * align).max(usize::from(MIN_SYMBOL_SIZE));
        let wanted = self.needed + self.overhead;
        Finding::broken("datagram", format!("IP packets of {packet} bytes arrive at {host}, but those of a transfer have {wanted}: the mtu is wrong"))
            .mend(format!("mcp send --symbol-size {symbol}"))
    }

    /// Loss and order of a train.
    fn counts(&self, way: &str, told: Told, sent: u32) -> Vec<Finding> {
        let lost = sent.saturating_sub(told.received);
        let sentence = format!("{lost} of {sent} datagrams {way} were lost");
        let mut findings = vec![match (told.received, lost) {
            (0, _) => Finding::broken("loss", sentence).mend("mcp doctor --listen"),
            (_, lost) if lost * LOSS > sent => {
                Finding::warning("loss", sentence).mend("mcp send --rate auto")
            }
            _ => Finding::ok("loss", sentence),
        }];
        if told.copies > 0 {
            findings.push(Finding::warning(
                "copies",
                format!(
                    "{} datagrams {way} arrived more than once: the network has a loop, or two paths",
                    told.copies
                ),
            ));
        }
        if told.late > 0 {
            findings.push(Finding::warning(
                "order",
                format!("{} datagrams {way} arrived late: the network does not keep their order", told.late),
            ));
        }
        findings
    }

    /// Whether the group still arrived at the end of a long look.
    fn membership(&self, told: Told, seconds: u32) -> Finding {
        let host = self.host;
        if told.end + CHANCE >= seconds && told.received > 0 {
            return Finding::ok("membership", format!("the group still arrives at {host} after {seconds} s"));
        }
        Finding::broken("membership", format!("the group no longer arrives at {host} after {} s: a switch forgets its members, for lack of a querier", told.end))
            .mend("ip link set br0 type bridge mcast_querier 1")
    }
}

/// How fast a burst arrived.
fn speed(way: &str, told: Told) -> Option<Finding> {
    (told.rate > 0).then(|| Finding::ok("rate", format!("a burst {way} arrives at {}", rate(told.rate))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{Verdict, worst};

    const FINE: Told = Told { received: 300, copies: 0, late: 0, end: 300, largest: 1468, rate: 1_000_000 };

    fn path(told: Option<&[Told; Train::ALL.len()]>) -> Path<'_> {
        let host = IpAddr::from([10, 0, 0, 2]);
        Path {
            host,
            unicast: Some(true),
            group: true,
            told,
            back: [FINE; 2],
            sent: [300, 64],
            needed: 1468,
            overhead: 28,
            seconds: Some(300),
        }
    }

    fn verdict(path: &Path<'_>, check: &str) -> Option<Verdict> {
        path.findings().iter().filter(|f| f.check == check).map(|f| f.verdict).max()
    }

    #[test]
    fn every_fault_has_its_finding() {
        let fine = [FINE; Train::ALL.len()];
        assert_eq!(worst(&path(Some(&fine)).findings()), Verdict::Ok);
        assert_eq!(verdict(&path(None), "answer"), Some(Verdict::Broken));
        assert_eq!(verdict(&Path { group: false, ..path(Some(&fine)) }, "multicast"), Some(Verdict::Broken));
        assert_eq!(
            verdict(&Path { unicast: Some(false), ..path(Some(&fine)) }, "unicast"),
            Some(Verdict::Warning)
        );
        let with = |train: Train, told: Told, check: &str| {
            let mut all = fine;
            all[train as usize] = told;
            verdict(&path(Some(&all)), check)
        };
        assert_eq!(
            with(Train::GroupSizes, Told { largest: 1200, ..FINE }, "datagram"),
            Some(Verdict::Broken)
        );
        assert_eq!(with(Train::GroupEven, Told { received: 290, ..FINE }, "loss"), Some(Verdict::Warning));
        assert_eq!(with(Train::GroupEven, Told { received: 299, ..FINE }, "loss"), Some(Verdict::Ok));
        assert_eq!(with(Train::Even, Told::default(), "loss"), Some(Verdict::Broken));
        assert_eq!(with(Train::Even, Told { copies: 1, ..FINE }, "copies"), Some(Verdict::Warning));
        assert_eq!(with(Train::Even, Told { late: 1, ..FINE }, "order"), Some(Verdict::Warning));
        assert_eq!(with(Train::Long, Told { end: 260, ..FINE }, "membership"), Some(Verdict::Broken));
        let short = Path { back: [Told { received: 100, ..FINE }, FINE], ..path(Some(&fine)) };
        assert_eq!(verdict(&short, "loss"), Some(Verdict::Warning));
    }

    #[test]
    fn the_symbol_size_that_fits() {
        // 1232 bytes of UDP, less the headers, in steps of 64.
        let found = path(None).lengths(1232);
        assert_eq!(found.remedy.as_deref(), Some("mcp send --symbol-size 1152"));
    }
}
