use super::super::link::{Burst, Quality};
use super::*;

const GROUP: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(239, 1, 1, 1)), 7417);

fn pair(down: Quality) -> Network {
    let mut network = Network::new(1);
    network.attach(Attachment::default());
    for _ in 0..2 {
        let node = network.attach(Attachment { down: down.clone(), ..Attachment::default() });
        network.listen(node, GROUP);
    }
    network
}

fn send(network: &mut Network, now: Time, to: SocketAddr, bytes: &[u8]) -> Vec<(Time, Arrival)> {
    volley(network, now, to, vec![Rc::from(bytes)])
}

fn volley(
    network: &mut Network,
    now: Time,
    to: SocketAddr,
    datagrams: Vec<Rc<[u8]>>,
) -> Vec<(Time, Arrival)> {
    let mut arrivals = Vec::new();
    network.carry(now, (0, address(0)), to, datagrams, &mut |at, stage, a| arrivals.push((at, stage, a)));
    let mut there = Vec::new();
    for (at, stage, arrival) in arrivals {
        match stage {
            Stage::Socket => there.push((at, arrival)),
            Stage::Line => network.enter(at, &arrival, &mut |at, _, a| there.push((at, a))),
        }
    }
    there
}

#[test]
fn groups_unicast_and_broadcast_reach_whom_they_should() {
    let mut network = pair(Quality::default());
    let to = |network: &mut Network, to| {
        send(network, Time::ZERO, to, b"x").iter().map(|(_, a)| (a.node, a.via)).collect::<Vec<_>>()
    };
    assert_eq!(to(&mut network, GROUP), [(1, Via::Group), (2, Via::Group)]);
    assert_eq!(to(&mut network, address(2)), [(2, Via::Unicast)]);
    assert_eq!(to(&mut network, "10.0.0.2:7417".parse().unwrap()), [(1, Via::Group)]);
    assert_eq!(to(&mut network, "10.0.0.2:9".parse().unwrap()), []);
    let all = "255.255.255.255:7417".parse().unwrap();
    assert_eq!(to(&mut network, all), [(1, Via::Group), (2, Via::Group)]);
    network.leave(1);
    assert_eq!(to(&mut network, GROUP), [(2, Via::Group)]);
}

#[test]
fn loss_is_as_often_as_asked_and_each_for_itself() {
    let mut network = pair(Quality { loss: 0.1, ..Quality::default() });
    let mut both = 0;
    for _ in 0..10_000 {
        both += u32::from(send(&mut network, Time::ZERO, GROUP, b"x").is_empty());
    }
    assert!((1_800..2_200).contains(&network.counts.lost), "{}", network.counts.lost);
    assert!((60..140).contains(&both), "{both}");
}

#[test]
fn bursts_take_their_share_in_runs() {
    let burst = Burst { good: Duration::from_millis(90), bad: Duration::from_millis(10), loss: 1.0 };
    let mut network = pair(Quality { burst: Some(burst), ..Quality::default() });
    let (mut lost, mut runs, mut before) = (0, 0, false);
    for i in 0..100_000u64 {
        let now = send(&mut network, Time(i * 1_000_000), address(1), b"x").is_empty();
        lost += u32::from(now);
        runs += u32::from(now && !before);
        before = now;
    }
    assert!((8_000..12_000).contains(&lost), "{lost}");
    assert!((8..13).contains(&(lost / runs)), "{lost} in {runs} runs");
}

#[test]
fn a_full_queue_drops_or_holds() {
    let mut network = pair(Quality::default());
    network.attachment(0).egress = Some(Line::new(8_000_000, 3_000, false));
    for _ in 0..10 {
        send(&mut network, Time::ZERO, GROUP, &[0; 934]);
    }
    // One datagram a millisecond; the queue holds three. Both receivers get those.
    assert_eq!((network.counts.delivered, network.counts.tail_dropped), (6, 7));
    network.attachment(0).egress = Some(Line::new(8_000_000, 3_000, true));
    assert_eq!(network.room(0, Time::ZERO), 3_000);
    for _ in 0..3 {
        send(&mut network, Time::ZERO, GROUP, &[0; 934]);
    }
    assert_eq!(network.room(0, Time::ZERO), 0);
    let at = network.writable_at(0, Time::ZERO);
    assert_eq!(at.0 / 1_000, 1_500);
    assert!(network.room(0, at) >= 1_500);
}

#[test]
fn jitter_keeps_the_order_and_reordering_does_not() {
    let order = |quality| {
        let mut network = pair(quality);
        let mut seen: Vec<(Time, u8)> = Vec::new();
        for i in 0..100u8 {
            let now = Time(u64::from(i) * 10_000);
            let arrivals = send(&mut network, now, address(1), &[i]);
            seen.extend(arrivals.iter().map(|(at, a)| (*at, a.volley.datagrams[0][0])));
        }
        seen.sort();
        seen.iter().map(|(_, i)| *i).collect::<Vec<_>>()
    };
    let jitter = Quality { jitter: Duration::from_millis(5), ..Quality::default() };
    assert!(order(jitter.clone()).is_sorted());
    assert!(!order(Quality { reorder: 0.2, ..jitter }).is_sorted());
}

#[test]
fn a_partition_ends() {
    let mut network = pair(Quality { partitions: vec![(Time(10), Time(20))], ..Quality::default() });
    assert_eq!(send(&mut network, Time(9), GROUP, b"x").len(), 2);
    assert_eq!(send(&mut network, Time(10), GROUP, b"x").len(), 0);
    assert_eq!(send(&mut network, Time(20), GROUP, b"x").len(), 2);
}

#[test]
fn what_arrives_together_comes_as_one() {
    let mut network = pair(Quality { loss: 0.5, ..Quality::default() });
    let datagrams: Vec<Rc<[u8]>> = (0..VOLLEY as u8).map(|i| Rc::from([i])).collect();
    let arrivals = volley(&mut network, Time::ZERO, GROUP, datagrams);
    assert_eq!(arrivals.iter().map(|(_, a)| a.node).collect::<Vec<_>>(), [1, 2]);
    assert_ne!(arrivals[0].1.which, arrivals[1].1.which);
    let got: u32 = arrivals.iter().map(|(_, a)| a.count()).sum();
    assert_eq!(u64::from(got), 2 * VOLLEY as u64 - network.counts.lost);
    assert_eq!(bits(0b1001_0001 | 1 << 63).collect::<Vec<_>>(), [0, 4, 7, 63]);
}

#[test]
fn multicast_and_unicast_share_the_lines_and_meters_see_it() {
    let mut network = Network::new(1);
    network.measure();
    let uplink = Some(Line::new(16_000_000, 6_000, false));
    network.attach(Attachment { uplink, ..Attachment::default() });
    for rate in [8_000_000, 4_000_000] {
        let ingress = Some(Line::new(rate, 3_000, false));
        let node = network.attach(Attachment { ingress, ..Attachment::default() });
        network.listen(node, GROUP);
    }
    let datagram = || vec![Rc::from([0; 934]); 4];
    // The uplink passes two a millisecond, and queues six. Node 2 gets none of the datagrams for node 1.
    volley(&mut network, Time::ZERO, GROUP, datagram());
    let last = volley(&mut network, Time::ZERO, address(1), datagram());
    assert_eq!(last.last().unwrap().0, Time(6_500_000 - 2_000_000 + 1_000_000));
    let meters: Vec<Meters> = (0..3).map(|n| network.take_meters(n).unwrap()).collect();
    let total = |meter: &crate::sim::line::Meter| {
        let total = meter.total();
        (total.datagrams, total.drops, total.longest_wait.as_micros())
    };
    assert_eq!(total(&meters[0].uplink), (6, 2, 2_500));
    assert_eq!(total(&meters[1].arrived).0, total(&meters[1].ingress).0);
    let (one, two) = (total(&meters[1].ingress), total(&meters[2].ingress));
    assert_eq!((one.0 + one.1, two.0 + two.1), (6, 4));
    assert!(one.2 <= 3_000 && two.2 <= 6_000 && two.2 > one.2, "{one:?} {two:?}");
}
