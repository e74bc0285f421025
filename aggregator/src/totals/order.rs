//! The order of series by tenant and meter, kept as ranks: commits then sort numbers
//! instead of comparing texts that lie all over the memory.

use super::table::SeriesId;

#[derive(Debug, Default)]
pub(super) struct Order {
    /// All ranked series, in order.
    sorted: Vec<SeriesId>,
    /// By series number; only of ranked ones.
    ranks: Vec<u32>,
}

impl Order {
    /// The rank of a series that was [ranked](Self::rank_all).
    #[inline]
    pub(super) fn rank(&self, series: SeriesId) -> u32 {
        self.ranks[series.0 as usize]
    }

    /// Ranks all series below `len`. New ones are sorted among themselves and merged in:
    /// a stretch of old ones is passed in a few comparisons.
    pub(super) fn rank_all<K: Ord>(&mut self, len: usize, key: impl Fn(SeriesId) -> K) {
        if self.ranks.len() == len {
            return;
        }
        let id = |index: usize| SeriesId(u32::try_from(index).expect("series are bounded far below 2^32"));
        let mut fresh: Vec<SeriesId> = (self.ranks.len()..len).map(id).collect();
        fresh.sort_unstable_by_key(|series| key(*series));
        let (mut merged, mut rest) = (Vec::with_capacity(len), self.sorted.as_slice());
        for new in fresh {
            let before = gallop(rest, |old| key(*old) < key(new));
            merged.extend_from_slice(&rest[..before]);
            merged.push(new);
            rest = &rest[before..];
        }
        merged.extend_from_slice(rest);
        self.sorted = merged;
        self.ranks.resize(len, 0);
        for (rank, series) in (0_u32..).zip(&self.sorted) {
            self.ranks[series.0 as usize] = rank;
        }
    }
}

/// How many of the first items are `below`, found in steps that double.
fn gallop<T>(items: &[T], below: impl Fn(&T) -> bool) -> usize {
    let mut end = 1;
    while end <= items.len() && below(&items[end - 1]) {
        end *= 2;
    }
    let start = end / 2;
    start + items[start..items.len().min(end)].partition_point(below)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop, proptest};

    use super::*;

    proptest! {
        #[test]
        fn ranks_are_those_of_the_whole(stretches in prop::collection::vec(prop::collection::vec(any::<u16>(), 0..40), 1..8)) {
            let mut order = Order::default();
            let mut names: Vec<(u16, usize)> = Vec::new();
            for stretch in stretches {
                names.extend(stretch.into_iter().enumerate().map(|(index, name)| (name, index + 1_000 * names.len())).collect::<Vec<_>>());
                order.rank_all(names.len(), |series| names[series.0 as usize]);
                let mut expected: Vec<usize> = (0..names.len()).collect();
                expected.sort_by_key(|index| names[*index]);
                for (rank, index) in expected.iter().enumerate() {
                    assert_eq!(order.rank(SeriesId(u32::try_from(*index).unwrap())) as usize, rank);
                }
            }
        }
    }
}
