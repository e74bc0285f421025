//! How records become one number: the one place that knows all aggregations, used
//! by live totals, by rollups and by the proof.

use bincode::{Decode, Encode};

use crate::digest::Hasher;
use crate::meter::{Aggregation, UNIQUE_VALUE_DIMENSION};
use crate::quantity::div_round_half_up;
use crate::sketch::Distinct;

/// What an accumulator needs to know of one accepted record.
#[derive(Clone, Copy, Debug)]
pub struct Observation {
    /// Base units.
    pub quantity: i64,
    /// Event time, Unix milliseconds.
    pub time_ms: i64,
    /// [`Position::ordinal`](crate::log::Position::ordinal): breaks ties of time.
    pub ordinal: u64,
    /// Hash of the counted text, for `unique_count` meters; zero otherwise.
    pub unique: u64,
}

/// What a `unique_count` record counts, as an [`Observation::unique`]: the dimension
/// [`UNIQUE_VALUE_DIMENSION`], else the subject; `None` when it has neither.
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "the sketch works on the low half of the hash")]
pub fn unique_hash<'a>(
    hasher: &Hasher,
    mut dimensions: impl Iterator<Item = (&'a str, &'a str)>,
    subject: Option<&str>,
) -> Option<u64> {
    let value = dimensions.find(|(name, _)| *name == UNIQUE_VALUE_DIMENSION).map(|(_, value)| value);
    value.or(subject).map(|text| hasher.text(text).0 as u64)
}

/// Sum, count and whatever else a meter's aggregation needs. Merging two
/// accumulators equals adding all records to one, in any order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accumulator {
    /// Records added.
    pub records: u64,
    /// Sum of their quantities. 2^64 records of 2^63 units each fit.
    pub sum: i128,
    extra: Extra,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Extra {
    Sum,
    Count,
    Avg,
    Min(Option<i64>),
    Max(Option<i64>),
    Latest(Option<Stamped>),
    Unique(Box<Distinct>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
struct Stamped {
    time_ms: i64,
    ordinal: u64,
    quantity: i64,
}

/// The stored state of an accumulator does not fit its aggregation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stored state does not fit the meter's aggregation")]
pub struct StateError;

impl Accumulator {
    /// An empty accumulator.
    #[must_use]
    pub fn new(aggregation: Aggregation) -> Self {
        let extra = match aggregation {
            Aggregation::Sum => Extra::Sum,
            Aggregation::Count => Extra::Count,
            Aggregation::Avg => Extra::Avg,
            Aggregation::Min => Extra::Min(None),
            Aggregation::Max => Extra::Max(None),
            Aggregation::Latest => Extra::Latest(None),
            Aggregation::UniqueCount => Extra::Unique(Box::default()),
        };
        Self { records: 0, sum: 0, extra }
    }

    /// Adds one accepted record.
    #[inline]
    pub fn add(&mut self, seen: &Observation) {
        self.records += 1;
        self.sum += i128::from(seen.quantity);
        match &mut self.extra {
            Extra::Sum | Extra::Count | Extra::Avg => {}
            Extra::Min(least) => *least = Some(least.map_or(seen.quantity, |q| q.min(seen.quantity))),
            Extra::Max(most) => *most = Some(most.map_or(seen.quantity, |q| q.max(seen.quantity))),
            Extra::Latest(latest) => {
                let stamped = Stamped { time_ms: seen.time_ms, ordinal: seen.ordinal, quantity: seen.quantity };
                *latest = (*latest).max(Some(stamped));
            }
            Extra::Unique(distinct) => distinct.add(seen.unique),
        }
    }

    /// Adds everything that `other`, of the same aggregation, has seen.
    ///
    /// # Panics
    /// When the aggregations differ: that is our own bug.
    pub fn merge(&mut self, other: &Self) {
        self.records += other.records;
        self.sum += other.sum;
        match (&mut self.extra, &other.extra) {
            (Extra::Sum, Extra::Sum) | (Extra::Count, Extra::Count) | (Extra::Avg, Extra::Avg) => {}
            (Extra::Min(mine), Extra::Min(theirs)) => *mine = mine.iter().chain(theirs.iter()).min().copied(),
            (Extra::Max(mine), Extra::Max(theirs)) => *mine = (*mine).max(*theirs),
            (Extra::Latest(mine), Extra::Latest(theirs)) => *mine = (*mine).max(*theirs),
            (Extra::Unique(mine), Extra::Unique(theirs)) => mine.merge(theirs),
            (mine, theirs) => panic!("accumulators of two aggregations merged: {mine:?} and {theirs:?}"),
        }
    }

    /// The meter's number: sum, count, extreme, average, latest or distinct count.
    #[must_use]
    pub fn value(&self) -> i128 {
        match &self.extra {
            Extra::Sum => self.sum,
            Extra::Count => i128::from(self.records),
            Extra::Avg if self.records == 0 => 0,
            Extra::Avg => div_round_half_up(self.sum, i128::from(self.records)),
            Extra::Min(extreme) | Extra::Max(extreme) => i128::from(extreme.unwrap_or(0)),
            Extra::Latest(latest) => latest.map_or(0, |s| i128::from(s.quantity)),
            Extra::Unique(distinct) => i128::from(distinct.count()),
        }
    }

    /// What [`Accumulator::restore`] needs besides `records` and `sum`; empty for
    /// aggregations that need nothing more.
    #[must_use]
    pub fn state(&self) -> Vec<u8> {
        match &self.extra {
            Extra::Sum | Extra::Count | Extra::Avg => Vec::new(),
            Extra::Min(extreme) | Extra::Max(extreme) => extreme.map_or(Vec::new(), |q| q.to_le_bytes().to_vec()),
            Extra::Latest(latest) => latest.map_or(Vec::new(), |s| {
                [s.time_ms.to_le_bytes(), s.ordinal.to_le_bytes(), s.quantity.to_le_bytes()].concat()
            }),
            Extra::Unique(distinct) => distinct.to_bytes(),
        }
    }

    /// Rebuilds an accumulator from the books.
    ///
    /// # Errors
    /// When `state` does not fit the aggregation.
    pub fn restore(aggregation: Aggregation, records: u64, sum: i128, state: &[u8]) -> Result<Self, StateError> {
        let mut restored = Self { records, sum, ..Self::new(aggregation) };
        let (words, []) = state.as_chunks::<8>() else { return Err(StateError) };
        match (&mut restored.extra, words) {
            (Extra::Unique(distinct), _) => **distinct = Distinct::from_bytes(state).ok_or(StateError)?,
            (_, []) => {}
            (Extra::Min(extreme) | Extra::Max(extreme), [word]) => *extreme = Some(i64::from_le_bytes(*word)),
            (Extra::Latest(latest), [time, ordinal, quantity]) => {
                *latest = Some(Stamped {
                    time_ms: i64::from_le_bytes(*time),
                    ordinal: u64::from_le_bytes(*ordinal),
                    quantity: i64::from_le_bytes(*quantity),
                });
            }
            _ => return Err(StateError),
        }
        Ok(restored)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: [Aggregation; 7] = [
        Aggregation::Sum,
        Aggregation::Count,
        Aggregation::Min,
        Aggregation::Max,
        Aggregation::Avg,
        Aggregation::Latest,
        Aggregation::UniqueCount,
    ];

    fn of(aggregation: Aggregation, seen: &[Observation]) -> Accumulator {
        let mut accumulator = Accumulator::new(aggregation);
        seen.iter().for_each(|o| accumulator.add(o));
        accumulator
    }

    #[test]
    fn every_aggregation_by_hand() {
        let observation =
            |quantity, time_ms, ordinal| Observation { quantity, time_ms, ordinal, unique: quantity.cast_unsigned() };
        let seen = [observation(5, 10, 0), observation(-2, 30, 1), observation(4, 30, 2), observation(5, 20, 3)];
        let expected = [12, 4, -2, 5, 3, 4, 3];
        for (aggregation, value) in ALL.into_iter().zip(expected) {
            assert_eq!(of(aggregation, &seen).value(), value, "{aggregation:?}");
            assert_eq!(of(aggregation, &[]).value(), 0, "{aggregation:?} of nothing");
        }
    }

    #[test]
    fn a_unique_record_counts_its_value_else_its_subject() {
        let hasher = Hasher::new(1);
        let hash =
            |pairs: &[(&'static str, &'static str)], subject| unique_hash(&hasher, pairs.iter().copied(), subject);
        let value = hash(&[("model", "m"), ("value", "a")], Some("b"));
        assert_eq!(value, hash(&[], Some("a")));
        assert_ne!(value, hash(&[("model", "m")], Some("b")));
        assert_eq!(hash(&[("model", "m")], None), None);
    }

    #[test]
    fn sums_pass_64_bits() {
        let most = Observation { quantity: i64::MAX, time_ms: 0, ordinal: 0, unique: 0 };
        assert_eq!(of(Aggregation::Sum, &[most; 4]).value(), 4 * i128::from(i64::MAX));
    }

    proptest! {
        #[test]
        fn merging_parts_in_any_order_equals_the_whole(
            seen in prop::collection::vec((any::<i64>(), 0_i64..5, 0_u64..1000), 0..40), cut in any::<prop::sample::Index>()
        ) {
            let seen: Vec<Observation> = seen.into_iter().enumerate()
                .map(|(i, (quantity, time_ms, unique))| Observation { quantity, time_ms, ordinal: i as u64, unique })
                .collect();
            let (first, second) = seen.split_at(if seen.is_empty() { 0 } else { cut.index(seen.len()) });
            for aggregation in ALL {
                let whole = of(aggregation, &seen);
                let mut merged = of(aggregation, second);
                merged.merge(&of(aggregation, first));
                prop_assert_eq!(&merged, &whole);
                let restored = Accumulator::restore(aggregation, whole.records, whole.sum, &whole.state());
                prop_assert_eq!(restored, Ok(whole));
            }
        }

        #[test]
        fn any_state_restores_or_is_refused(state in prop::collection::vec(any::<u8>(), 0..40)) {
            for aggregation in ALL {
                let _ = Accumulator::restore(aggregation, 1, 1, &state);
            }
        }
    }
}
