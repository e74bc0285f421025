//! The open-addressing table of a bucket's newest ids: fingerprint and content tag,
//! linear probing, one cache line for most lookups.
//!
//! An entry's home is the top of its mixed fingerprint, so doubling the table keeps
//! the order of entries: growing reads and writes memory in sequence.

use crate::prefetch::prefetch;

/// A remembered id. Two fit into a cache line and none lies across two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
#[repr(C, align(32))]
pub(crate) struct Entry {
    /// High half of the fingerprint; orders runs together with `low`.
    pub(crate) high: u64,
    /// Low half of the fingerprint.
    pub(crate) low: u64,
    /// Tells a conflict from a duplicate.
    pub(crate) tag: u64,
}

impl Entry {
    #[expect(clippy::cast_possible_truncation, reason = "the fingerprint is split into halves")]
    pub(crate) fn new(fingerprint: u128, tag: u64) -> Self {
        let entry = Self { high: (fingerprint >> 64) as u64, low: fingerprint as u64, tag };
        // All zeros marks an empty slot; one fingerprint in 2^128 shares a neighbour's.
        if fingerprint == 0 { Self { low: 1, ..entry } } else { entry }
    }

    pub(crate) fn fingerprint(&self) -> u128 {
        (u128::from(self.high) << 64) | u128::from(self.low)
    }

    fn is_empty(&self) -> bool {
        self.high == 0 && self.low == 0
    }

    fn same_key(&self, other: &Self) -> bool {
        self.high == other.high && self.low == other.low
    }
}

/// Smallest capacity; a fresh bucket has one such table per shard.
const CAPACITY_MIN: usize = 16;

#[derive(Debug)]
pub(crate) struct Table {
    slots: Box<[Entry]>,
    len: usize,
    /// Bits of a mixed fingerprint that the capacity does not need.
    shift: u32,
}

impl Table {
    pub(crate) fn new() -> Self {
        Self { slots: Box::default(), len: 0, shift: u64::BITS - 1 }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn prefetch(&self, low: u64, placement: u64) {
        prefetch(&self.slots, self.home(low, placement));
    }

    /// The tag remembered with the entry's fingerprint.
    #[inline]
    pub(crate) fn find(&self, entry: &Entry, placement: u64) -> Option<u64> {
        if self.slots.is_empty() {
            return None;
        }
        let slot = &self.slots[self.probe(entry, placement)];
        (!slot.is_empty()).then_some(slot.tag)
    }

    /// The tag remembered with the entry's fingerprint; when there is none, the entry
    /// is remembered.
    #[inline]
    pub(crate) fn find_or_insert(&mut self, entry: Entry, placement: u64) -> Option<u64> {
        // Three quarters full at most: probes stay within a line or two.
        if (self.len + 1) * 4 > self.slots.len() * 3 {
            self.grow(placement);
        }
        let at = self.probe(&entry, placement);
        let slot = &mut self.slots[at];
        if !slot.is_empty() {
            return Some(slot.tag);
        }
        *slot = entry;
        self.len += 1;
        None
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = Entry> + '_ {
        self.slots.iter().copied().filter(|slot| !slot.is_empty())
    }

    /// The slot that holds the entry's fingerprint, or the empty one where it goes.
    #[inline]
    fn probe(&self, entry: &Entry, placement: u64) -> usize {
        let mask = self.slots.len() - 1;
        let mut at = self.home(entry.low, placement);
        while !self.slots[at].is_empty() && !self.slots[at].same_key(entry) {
            at = (at + 1) & mask;
        }
        at
    }

    /// Where probing starts. The placement seed is not known to callers, so that no
    /// choice of ids can crowd one place; it changes no verdict.
    #[inline]
    fn home(&self, low: u64, placement: u64) -> usize {
        let mixed = (low ^ placement).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> self.shift) as usize
    }

    #[cold]
    fn grow(&mut self, placement: u64) {
        let capacity = (self.slots.len() * 2).max(CAPACITY_MIN);
        let old = std::mem::replace(&mut self.slots, vec![Entry::default(); capacity].into_boxed_slice());
        self.shift = u64::BITS - capacity.trailing_zeros();
        for entry in old.into_iter().filter(|slot| !slot.is_empty()) {
            let at = self.probe(&entry, placement);
            self.slots[at] = entry;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_inserted_is_found_and_nothing_else() {
        let mut table = Table::new();
        let key = |i: u64| Entry::new(u128::from(i) << 64 | u128::from(i.wrapping_mul(0x1234_5678_9abc_def1)), i);
        for i in 0..10_000 {
            assert_eq!(table.find(&key(i), 99), None);
            assert_eq!(table.find_or_insert(key(i), 99), None);
            assert_eq!(table.find_or_insert(key(i), 99), Some(i));
        }
        assert_eq!(table.len(), 10_000);
        for i in 0..10_000 {
            assert_eq!(table.find(&key(i), 99), Some(i));
        }
        assert_eq!(table.find(&key(10_001), 99), None);
        assert_eq!(table.entries().count(), 10_000);
    }

    #[test]
    fn the_zero_fingerprint_is_remembered_too() {
        let mut table = Table::new();
        let zero = Entry::new(0, 5);
        assert_eq!(table.find_or_insert(zero, 0), None);
        assert_eq!(table.find(&zero, 0), Some(5));
    }
}
