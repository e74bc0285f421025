//! When partitions are handed over to the totals book, and which ones next: in rounds,
//! each of which takes every partition once. Commits that take long are followed by a
//! rest in proportion: absolute values of one total collapse into one row meanwhile, so
//! that many totals do not cost a row of each record. Live answers do not wait for
//! commits. Reads no clock.

use std::time::{Duration, Instant};

/// How much longer than its commits a round is followed by a rest: a book then spends
/// at most a quarter of its time with them, and has no more than four times as much to
/// take as without the rest. Commits of some hundred milliseconds stay once a second.
const REST_PER_COMMITTING: u32 = 3;
/// Longest rest: what billing reads and what raw rows follow must not be much older.
const REST_MAX: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Pacing {
    began: Instant,
    /// What the commits of the round took so far.
    committing: Duration,
    rest_until: Instant,
    /// Partitions that the round has not handed over yet, in descending order.
    due: Vec<u32>,
}

impl Pacing {
    pub(super) fn new(now: Instant) -> Self {
        Self { began: now, committing: Duration::ZERO, rest_until: now, due: Vec::new() }
    }

    /// Whether a round may begin. One that is pressed for room does not rest.
    pub(super) fn may_begin(&self, now: Instant, every: Duration, pressed: bool) -> bool {
        let rested = pressed || now >= self.rest_until;
        self.due.is_empty() && rested && now.duration_since(self.began) >= every
    }

    /// Begins a round of `partitions`.
    pub(super) fn begin(&mut self, now: Instant, partitions: impl DoubleEndedIterator<Item = u32>) {
        self.began = now;
        self.committing = Duration::ZERO;
        self.due = partitions.rev().collect();
    }

    /// The partitions of the round that are left.
    pub(super) fn due(&mut self) -> &mut Vec<u32> {
        &mut self.due
    }

    /// A commit of the round took so long.
    pub(super) fn committed(&mut self, now: Instant, took: Duration) {
        self.committing += took;
        self.rest_until = now + (self.committing * REST_PER_COMMITTING).min(REST_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn quick_commits_keep_the_rhythm_and_slow_ones_are_followed_by_a_rest() {
        let start = Instant::now();
        let may = |took: Duration, after: Duration| {
            let mut pacing = Pacing::new(start);
            pacing.begin(start, 0..1);
            pacing.due().clear();
            pacing.committed(start + took, took);
            [false, true].map(|pressed| pacing.may_begin(start + after, SECOND, pressed))
        };
        assert_eq!(may(SECOND / 10, SECOND / 2), [false, false]);
        assert_eq!(may(SECOND / 10, SECOND), [true, true]);
        assert_eq!(may(SECOND, SECOND * 3), [false, true]);
        assert_eq!(may(SECOND, SECOND * 4), [true, true]);
        assert_eq!(may(SECOND * 60, SECOND * 69), [false, true]);
        assert_eq!(may(SECOND * 60, SECOND * 60 + REST_MAX), [true, true]);
    }

    #[test]
    fn a_round_takes_every_partition_once_before_the_next_begins() {
        let start = Instant::now();
        let mut pacing = Pacing::new(start);
        pacing.begin(start, [1, 5, 9].into_iter());
        let mut taken = Vec::new();
        while let Some(partition) = pacing.due().pop() {
            taken.push(partition);
            assert_eq!(pacing.may_begin(start + SECOND, SECOND, false), taken.len() == 3);
        }
        assert_eq!(taken, [1, 5, 9]);
    }
}
