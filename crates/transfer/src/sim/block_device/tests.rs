use super::*;
use crate::sim::scenario::Plain;
use crate::sim::transfer;

const SIZE: u64 = 300_000;
const PLAIN: Plain =
    Plain { devices: 3, loss: 0.02, size: SIZE, symbol_size: 256, rate: 20_000_000, disk: None };
const BLOCK: BlockPlan =
    BlockPlan { size: SIZE + 20_000, end: 8 * 4096, before: Before::Something, error: None, power_cut: None };

/// All devices but the last one write to such a block device.
fn with(seed: u64, block: BlockPlan) -> Scenario {
    let mut scenario = Scenario::plain(seed, &PLAIN);
    scenario.linger = Duration::from_secs(30);
    scenario.devices[..2].iter_mut().for_each(|plan| plan.write_to(block, SIZE));
    scenario
}

#[test]
fn an_object_is_written_to_devices_of_any_content() {
    for (seed, before) in
        (43_500_000..).zip([Before::Nothing, Before::Something, Before::Pages(60), Before::Everything])
    {
        let totals = transfer::run(&with(seed, BlockPlan { before, ..BLOCK }), None);
        assert_eq!(totals.complete, 3, "{before:?}");
    }
    let small = with(43_500_005, BlockPlan { size: SIZE - 1, ..BLOCK });
    let totals = transfer::run(&small, None);
    assert_eq!(totals.complete, 1);
    assert_eq!(totals.faults.classes().find(|class| class.0 == "block device too small").unwrap().1, 2);
}

/// The power fails at each operation in turn, and the device completes later.
#[test]
fn a_power_cut_at_any_operation_leaves_no_device_that_looks_whole() {
    let (mut cuts, mut seed) = (0, 43_500_010);
    for (op, most) in [(Op::Write, 12), (Op::Sync, 5), (Op::Read, 2)] {
        for (nth, after) in (0..most).flat_map(|nth| [(nth, false), (nth, true)]) {
            seed += 1;
            let power_cut = Some(PowerCut { op, nth, after, seed });
            let mut scenario = with(seed, BlockPlan { power_cut, ..BLOCK });
            scenario.devices[..2].iter_mut().for_each(|plan| plan.back = Some(Duration::from_millis(300)));
            let totals = transfer::run(&scenario, None);
            assert_eq!(totals.complete, 3);
            cuts += totals.faults.total() - totals.network.lost;
        }
    }
    assert!(cuts >= 20, "{cuts}");
}

#[test]
fn a_device_that_fails_harms_nobody() {
    for (seed, op) in (43_500_100..).zip([Op::Write, Op::Sync, Op::Sync, Op::Sync]) {
        let nth = seed - 43_500_100;
        let mut scenario = with(seed, BlockPlan { error: Some((op, nth, DiskError::Full)), ..BLOCK });
        scenario.devices[..2].iter_mut().for_each(|plan| plan.expectation = Expectation::Fails);
        assert_eq!(transfer::run(&scenario, None).complete, 1);
    }
}

fn part(block: &SimBlock) -> Box<dyn Part> {
    SimBlockSink(block.clone()).create("x", Extent::sealed(SIZE)).unwrap()
}

/// The checks can fail.
#[test]
fn what_is_written_in_the_wrong_order_is_seen() {
    let object: Arc<Vec<u8>> = Arc::new(vec![7; SIZE as usize]);
    let breaks = |what: &dyn Fn(&mut State)| {
        let block = SimBlock::new(BLOCK, Arc::clone(&object), 1);
        let part = part(&block);
        part.write_at(100_000, &object[..4096]).unwrap();
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| what(&mut block.state()))).is_err()
    };
    assert!(!breaks(&|state| state.write(200_000, &[7; 100])));
    assert!(!breaks(&|state| state.write(0, &[0; 100])));
    assert!(breaks(&|state| state.write(5000, &[7; 100])), "a part of the head is written early");
    assert!(
        breaks(&|state| state.write(SIZE as usize - 100, &[7; 100])),
        "a part of the tail is written early"
    );
    assert!(breaks(&|state| {
        let object = state.object.to_vec();
        let [head, tail] = state.ends.clone();
        state.write(head.end, &object[head.end..tail.start]);
        state.write(5000, &[7; 100]);
    }));
    assert!(breaks(&|state| {
        state.pages.write(0, &[7; 4096]);
        state.check_state();
    }));
}

#[test]
fn what_is_behind_the_object_stays() {
    let object: Arc<Vec<u8>> = Arc::new((0..SIZE).map(|at| at as u8 | 1).collect());
    let block = SimBlock::new(BLOCK, Arc::clone(&object), 1);
    let part = part(&block);
    for at in (0..SIZE as usize).step_by(10_000) {
        part.write_at(at as u64, &object[at..at + 10_000]).unwrap();
    }
    assert!(!block.is_whole());
    part.commit().unwrap();
    assert!(block.is_whole());
}
