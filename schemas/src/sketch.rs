//! Distinct counting: exact up to a bound, then an estimate with a stated error.

use std::collections::BTreeSet;

/// Distinct values that are counted exactly, and hashes that are kept beyond.
pub const DISTINCT_EXACT_MAX: usize = 2048;

/// The number of distinct 64-bit hashes seen, from the smallest of them (a
/// k-minimum-values sketch; Bar-Yossef et al., "Counting distinct elements in a
/// data stream", 2002).
///
/// Up to [`DISTINCT_EXACT_MAX`] the count is exact; above, its standard error is
/// 1/sqrt(k - 2) = 2.2 %. Order-free, mergeable, and integer arithmetic throughout,
/// so that every machine gets the same number.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Distinct {
    smallest: BTreeSet<u64>,
}

impl Distinct {
    /// Notes one hash.
    pub fn add(&mut self, hash: u64) {
        if self.smallest.len() < DISTINCT_EXACT_MAX {
            self.smallest.insert(hash);
            return;
        }
        // One slot more than the bound tells "exactly the bound" from "more".
        let largest = self.smallest.last().copied().unwrap_or(u64::MAX);
        if self.smallest.len() <= DISTINCT_EXACT_MAX || hash < largest {
            self.smallest.insert(hash);
            if self.smallest.len() > DISTINCT_EXACT_MAX + 1 {
                self.smallest.pop_last();
            }
        }
    }

    /// Adds everything that another sketch has seen.
    pub fn merge(&mut self, other: &Self) {
        for hash in &other.smallest {
            self.add(*hash);
        }
    }

    /// The number of distinct values.
    #[must_use]
    pub fn count(&self) -> u64 {
        let kept = self.smallest.len() as u64;
        let largest = self.smallest.last().copied().unwrap_or(0);
        if self.smallest.len() <= DISTINCT_EXACT_MAX || largest == 0 {
            return kept;
        }
        let estimate = (u128::from(kept - 1) << 64) / u128::from(largest);
        u64::try_from(estimate).unwrap_or(u64::MAX).max(kept)
    }

    /// The kept hashes as little-endian words, ascending.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.smallest.iter().flat_map(|hash| hash.to_le_bytes()).collect()
    }

    /// Reads what [`Distinct::to_bytes`] wrote.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (words, []) = bytes.as_chunks::<8>() else { return None };
        if words.len() > DISTINCT_EXACT_MAX + 1 {
            return None;
        }
        Some(Self { smallest: words.iter().map(|word| u64::from_le_bytes(*word)).collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Hasher;

    fn of(range: std::ops::Range<u64>) -> Distinct {
        let hasher = Hasher::new(1);
        let mut distinct = Distinct::default();
        for i in range {
            distinct.add(hasher.bytes64(&i.to_le_bytes()));
        }
        distinct
    }

    #[test]
    fn exact_up_to_the_bound_then_close() {
        for n in [0, 1, 100, 2047, 2048] {
            assert_eq!(of(0..n).count(), n);
        }
        for n in [2049, 10_000, 1_000_000] {
            let estimate = of(0..n).count();
            // Four standard errors.
            assert!(estimate.abs_diff(n) * 100 < n * 9, "{n} estimated as {estimate}");
        }
    }

    #[test]
    fn merging_and_repeating_change_nothing() {
        let whole = of(0..5000);
        let mut parts = of(2500..5000);
        parts.merge(&of(0..3000));
        assert_eq!(parts, whole);
        assert_eq!(Distinct::from_bytes(&whole.to_bytes()), Some(whole));
        assert_eq!(Distinct::from_bytes(&[1, 2, 3]), None);
    }
}
