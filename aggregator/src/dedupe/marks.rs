//! Lane A: an emitter's own ids are its sequence, so a low-water mark and a bounded
//! bitmap above it remember all of them exactly, for ever.

use std::collections::{HashMap, VecDeque};

use odometer_schemas::commit::SourceMark;
use odometer_schemas::verdict::RejectReason;

/// How far ahead of the lowest gap a sequence may run. An emitter keeps at most eight
/// envelopes of 512 records in flight per partition.
pub const AHEAD_MAX: u64 = 4096;
/// Emitter sources that one partition remembers. At about 100 bytes each, this is a
/// hundred megabytes; a fleet of a million emitters has long outgrown one partition.
pub const SOURCES_MAX: usize = 1 << 20;

const WORD_BITS: u64 = 64;

/// The watermarks of all emitter sources of one partition.
#[derive(Debug, Default)]
pub struct Marks {
    /// Keyed per process, so that chosen sources cannot crowd one bucket.
    sources: HashMap<u128, Mark, foldhash::fast::RandomState>,
    changed: Vec<u128>,
}

#[derive(Debug, Default)]
struct Mark {
    epoch: u32,
    low_water: u64,
    /// Bits of what was decided from `low_water` on, which is itself never set.
    above: VecDeque<u64>,
    /// Sequence of the first bit of `above`, a multiple of the word size.
    base: u64,
    changed: bool,
}

impl Marks {
    /// Takes up where the totals book left off.
    #[must_use]
    pub fn restore(marks: &[SourceMark]) -> Self {
        let sources = marks.iter().map(|mark| (mark.source, Mark::restore(mark))).collect();
        Self { sources, changed: Vec::new() }
    }

    /// Decides one sequence of an emitter: `Ok(true)` when it is new (and notes it),
    /// `Ok(false)` when it was decided before.
    ///
    /// # Errors
    /// The reason for which the record must be rejected instead.
    pub fn decide(&mut self, source: u128, epoch: u32, sequence: u64) -> Result<bool, RejectReason> {
        let full = self.sources.len() >= SOURCES_MAX;
        let mark = match self.sources.entry(source) {
            std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::hash_map::Entry::Vacant(_) if full => return Err(RejectReason::TooManySources),
            std::collections::hash_map::Entry::Vacant(new) => new.insert(Mark { epoch, ..Mark::default() }),
        };
        let new = mark.decide(epoch, sequence)?;
        if new && !mark.changed {
            mark.changed = true;
            self.changed.push(source);
        }
        Ok(new)
    }

    /// Emitter sources remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sources.len()
    }

    /// Whether no emitter has been seen.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    /// What changed since the last call, in order of first change.
    pub fn take_changed(&mut self) -> Vec<SourceMark> {
        let changed = std::mem::take(&mut self.changed);
        let row = |source: u128| {
            let mark = self.sources.get_mut(&source)?;
            mark.changed = false;
            Some(SourceMark {
                source,
                epoch: mark.epoch,
                low_water: mark.low_water,
                above: mark.above.iter().copied().collect(),
            })
        };
        changed.into_iter().filter_map(row).collect()
    }
}

impl Mark {
    fn restore(mark: &SourceMark) -> Self {
        Self {
            epoch: mark.epoch,
            low_water: mark.low_water,
            above: mark.above.iter().copied().collect(),
            base: mark.low_water - mark.low_water % WORD_BITS,
            changed: false,
        }
    }

    fn decide(&mut self, epoch: u32, sequence: u64) -> Result<bool, RejectReason> {
        if epoch < self.epoch {
            return Err(RejectReason::StaleEpoch);
        }
        if epoch > self.epoch {
            *self = Self { epoch, changed: self.changed, ..Self::default() };
        }
        if sequence < self.low_water {
            return Ok(false);
        }
        if sequence - self.low_water >= AHEAD_MAX {
            return Err(RejectReason::SequenceTooFar);
        }
        if sequence == self.low_water && self.above.is_empty() {
            self.low_water += 1;
            self.base = self.low_water - self.low_water % WORD_BITS;
            return Ok(true);
        }
        Ok(self.set(sequence))
    }

    /// Sets a bit at or above the low-water mark and moves the mark over what has
    /// become contiguous. The bitmap has no trailing zero words.
    fn set(&mut self, sequence: u64) -> bool {
        let distance = sequence - self.base;
        let (word, bit) = ((distance / WORD_BITS) as usize, 1 << (distance % WORD_BITS));
        if self.above.len() <= word {
            self.above.resize(word + 1, 0);
        }
        if self.above[word] & bit != 0 {
            return false;
        }
        self.above[word] |= bit;
        self.advance();
        true
    }

    fn advance(&mut self) {
        while let Some(first) = self.above.front() {
            let within = self.low_water - self.base;
            // Bits below the mark count as set: they were decided.
            let run = u64::from((!(first | ((1 << within) - 1))).trailing_zeros());
            self.low_water = self.base + run;
            if run < WORD_BITS {
                break;
            }
            self.base += WORD_BITS;
            self.above.pop_front();
        }
        let beyond = |word: &u64, within: u64| *word >> within == 0;
        if self.above.len() == 1 && self.above.front().is_some_and(|w| beyond(w, self.low_water - self.base)) {
            self.above.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    #[test]
    fn epochs_and_limits_have_their_names() {
        let mut marks = Marks::default();
        assert_eq!(marks.decide(1, 5, 0), Ok(true));
        assert_eq!(marks.decide(1, 4, 1), Err(RejectReason::StaleEpoch));
        assert_eq!(marks.decide(1, 5, AHEAD_MAX + 1), Err(RejectReason::SequenceTooFar));
        assert_eq!(marks.decide(1, 5, AHEAD_MAX), Ok(true));
        assert_eq!(marks.decide(1, 5, AHEAD_MAX), Ok(false));
        assert_eq!(marks.decide(1, 6, 0), Ok(true));
        assert_eq!(marks.decide(1, 5, 1), Err(RejectReason::StaleEpoch));
    }

    proptest! {
        #[test]
        fn every_sequence_is_new_exactly_once_across_restores(
            sequences in prop::collection::vec(0_u64..400, 1..600), restore_every in 1_usize..50
        ) {
            let mut marks = Marks::default();
            let mut stored: HashMap<u128, SourceMark> = HashMap::new();
            let mut model = HashSet::new();
            for (i, sequence) in sequences.into_iter().enumerate() {
                prop_assert_eq!(marks.decide(9, 1, sequence), Ok(model.insert(sequence)), "sequence {}", sequence);
                if i % restore_every == 0 {
                    stored.extend(marks.take_changed().into_iter().map(|m| (m.source, m)));
                    let rows: Vec<SourceMark> = stored.values().cloned().collect();
                    marks = Marks::restore(&rows);
                }
            }
        }

        #[test]
        fn equal_histories_leave_equal_marks(order in Just((0_u64..300).collect::<Vec<_>>()).prop_shuffle()) {
            let mut shuffled = Marks::default();
            order.iter().for_each(|s| { let _ = shuffled.decide(9, 1, *s); });
            let mut straight = Marks::default();
            (0..300).for_each(|s| { let _ = straight.decide(9, 1, s); });
            prop_assert_eq!(shuffled.take_changed(), straight.take_changed());
        }
    }
}
