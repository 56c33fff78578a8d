//! What devices lack of an object, and whether a multicast session pays for it. Pure.

use crate::limits::{MAX_LACKING, SESSION_START};

/// Ranges of bytes that a device lacks of an object, ascending and apart from each other: `[[0, 1048576]]`.
pub type Lacking = Vec<[u64; 2]>;

/// All of an object.
#[must_use]
pub fn whole(size: u64) -> Lacking {
    vec![[0, size]]
}

/// Whether these are ranges of an object of `size` bytes, as a device may say them.
#[must_use]
pub fn is_valid(lacking: &[[u64; 2]], size: u64) -> bool {
    let apart = lacking.windows(2).all(|pair| pair[0][1] < pair[1][0]);
    let within = lacking.iter().all(|[start, end]| start < end && *end <= size);
    lacking.len() <= MAX_LACKING && apart && within
}

/// The ranges of bytes, ascending, as a device says them: neighbours are joined, and then the nearest ones until there are
/// few enough.
#[must_use]
pub fn told(runs: impl IntoIterator<Item = [u64; 2]>) -> Lacking {
    let mut ranges: Lacking = Vec::new();
    for run in runs {
        match ranges.last_mut() {
            Some(last) if last[1] >= run[0] => last[1] = last[1].max(run[1]),
            _ => ranges.push(run),
        }
    }
    if ranges.len() <= MAX_LACKING {
        return ranges;
    }
    let gap = |after: usize| ranges[after][0] - ranges[after - 1][1];
    let mut kept: Vec<usize> = (1..ranges.len()).collect();
    kept.sort_unstable_by_key(|after| std::cmp::Reverse(gap(*after)));
    kept.truncate(MAX_LACKING - 1);
    kept.sort_unstable();
    let starts = std::iter::once(0).chain(kept.iter().copied());
    let ends = kept.iter().copied().chain([ranges.len()]);
    starts.zip(ends).map(|(start, end)| [ranges[start][0], ranges[end - 1][1]]).collect()
}

/// Bytes in ranges that do not overlap.
#[must_use]
pub fn bytes(lacking: &[[u64; 2]]) -> u64 {
    lacking.iter().map(|[start, end]| end.saturating_sub(*start)).sum()
}

/// Whether one more session costs less than what each device loads by itself: it sends once what any of them lacks, an eighth
/// of that for headers and repair, and [`SESSION_START`].
#[must_use]
pub fn pays<'a>(devices: impl IntoIterator<Item = &'a [[u64; 2]]>) -> bool {
    let (mut alone, mut all) = (0_u64, Vec::new());
    for lacking in devices {
        alone = alone.saturating_add(bytes(lacking));
        all.extend_from_slice(lacking);
    }
    all.sort_unstable();
    let (mut together, mut end) = (0_u64, 0);
    for [from, to] in all {
        together += to.saturating_sub(from.max(end));
        end = end.max(to);
    }
    alone > together.saturating_add(together / 8).saturating_add(SESSION_START)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_session_pays_when_it_sends_less_than_the_devices_would_load() {
        let whole = [[0, 100 * MIB]];
        assert!(!pays([&whole[..]]), "one device");
        assert!(pays([&whole[..]; 2]));
        // Each the same tail: sent once.
        let tail = [[60 * MIB, 100 * MIB]];
        assert!(pays([&tail[..]; 2]));
        // Each another part: nothing is sent twice either way.
        let parts: Vec<[[u64; 2]; 1]> = (0..10).map(|n| [[n * 10 * MIB, (n + 1) * 10 * MIB]]).collect();
        assert!(!pays(parts.iter().map(|part| &part[..])));
        // One that lacks all, and one that lacks 3 %: not for so little; nine of those, yes.
        let little = [[0, 3 * MIB]];
        assert!(!pays([&whole[..], &little]));
        assert!(pays(std::iter::once(&whole[..]).chain([&little[..]; 9])));
        assert!(!pays([&little[..]]) && !pays([&[[0, MIB]][..]; 2]), "less than a start costs");
        assert!(!pays([]) && !pays([&[][..]; 5]));
        // Hostile numbers do not overflow.
        assert!(!pays([&[[0, u64::MAX]][..]; 2]));
    }

    #[test]
    fn only_ranges_of_the_object_are_taken() {
        assert!(is_valid(&[], 0) && is_valid(&whole(7), 7) && is_valid(&[[0, 1], [2, 3]], 3));
        let many: Lacking = (0..=MAX_LACKING as u64).map(|n| [2 * n, 2 * n + 1]).collect();
        for (wrong, size) in [
            (&[[0, 8]][..], 7),
            (&[[3, 3]], 7),
            (&[[4, 3]], 7),
            (&[[0, 2], [2, 3]], 7),
            (&[[3, 4], [0, 1]], 7),
            (&many, u64::MAX),
        ] {
            assert!(!is_valid(wrong, size), "{wrong:?}");
        }
        assert!(is_valid(&many[1..], u64::MAX));
    }

    #[test]
    fn many_ranges_are_told_as_few() {
        assert_eq!(told([[0, 1], [1, 2], [5, 6]]), [[0, 2], [5, 6]]);
        // Far from each other by twos: the near ones are joined.
        let twos = MAX_LACKING as u64;
        let few = told((0..twos).flat_map(|n| [[n * 100, n * 100 + 1], [n * 100 + 2, n * 100 + 3]]));
        assert_eq!(few, (0..twos).map(|n| [n * 100, n * 100 + 3]).collect::<Lacking>());
        let even = told((0..5 * twos).map(|n| [2 * n, 2 * n + 1]));
        assert!(is_valid(&even, 10 * twos) && even.len() == MAX_LACKING, "{}", even.len());
    }
}
