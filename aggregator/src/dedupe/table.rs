//! The open-addressing table of a bucket's newest ids: small slots that are probed, and
//! the entries that they point to in order of arrival.
//!
//! A new id, which nearly every id is, touches one cache line of slots and the end of
//! the entries; only a duplicate reads an old entry. A slot's home is the top of its
//! mixed fingerprint, so doubling the slots keeps their order: growing reads and writes
//! memory in sequence, and never moves an entry.

use crate::prefetch::prefetch;

/// A remembered id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
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
        Self { high: (fingerprint >> 64) as u64, low: fingerprint as u64, tag }
    }

    pub(crate) fn fingerprint(&self) -> u128 {
        (u128::from(self.high) << 64) | u128::from(self.low)
    }

    fn same_key(&self, other: &Self) -> bool {
        self.high == other.high && self.low == other.low
    }

    /// Its place among all. The placement seed is not known to callers, so that no
    /// choice of ids can crowd one place; it changes no verdict.
    #[inline]
    fn mix(&self, placement: u64) -> Mix {
        Mix(((self.low ^ placement).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32)
    }
}

/// The top half of a mixed fingerprint: where probing starts, and what tells most
/// neighbours apart.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Mix(u32);

/// A mix and the number of its entry plus one; zero when empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slot(u64);

const EMPTY: Slot = Slot(0);

impl Slot {
    fn new(mix: Mix, entry: usize) -> Self {
        // Ids are bounded far below: one entry takes 24 bytes.
        let number = u32::try_from(entry + 1).expect("a shard holds fewer than 2^32 ids");
        Self((u64::from(mix.0) << 32) | u64::from(number))
    }

    fn mix(self) -> Mix {
        Mix((self.0 >> 32) as u32)
    }

    /// Meaningless for an empty slot.
    #[expect(clippy::cast_possible_truncation, reason = "a slot is two halves")]
    fn entry(self) -> usize {
        (self.0 as u32).wrapping_sub(1) as usize
    }
}

/// Smallest number of slots; a fresh bucket has one such table per shard.
const CAPACITY_MIN: usize = 16;

/// Slots that a probe usually looks at, at most.
const PROBES_USUAL: usize = 5;

#[derive(Debug)]
pub(crate) struct Table {
    slots: Vec<Slot>,
    entries: Entries,
    /// Bits of a mix that the number of slots does not need.
    shift: u32,
}

impl Table {
    pub(crate) fn new() -> Self {
        Self { slots: Vec::new(), entries: Entries::default(), shift: u32::BITS - 1 }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    #[inline]
    pub(crate) fn prefetch(&self, entry: &Entry, placement: u64) {
        let home = self.home(entry.mix(placement));
        prefetch(&self.slots, home);
        // Probes often end in the next line.
        prefetch(&self.slots, home + PROBES_USUAL);
    }

    /// The tag remembered with the entry's fingerprint.
    #[inline]
    pub(crate) fn find(&self, entry: &Entry, placement: u64) -> Option<u64> {
        if self.slots.is_empty() {
            return None;
        }
        self.probe(entry, entry.mix(placement)).ok()
    }

    /// The tag remembered with the entry's fingerprint; when there is none, the entry
    /// is remembered.
    #[inline(always)]
    pub(crate) fn find_or_insert(&mut self, entry: Entry, placement: u64) -> Option<u64> {
        // Three quarters full at most: probes stay within a line or two.
        if (self.len() + 1) * 4 > self.slots.len() * 3 {
            self.grow();
        }
        let mix = entry.mix(placement);
        match self.probe(&entry, mix) {
            Ok(tag) => Some(tag),
            Err(at) => {
                self.slots[at] = Slot::new(mix, self.entries.len());
                self.entries.push(entry);
                None
            }
        }
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = Entry> + '_ {
        self.entries.iter()
    }

    /// The tag of the entry with the same fingerprint, or the empty slot where it goes.
    #[inline]
    fn probe(&self, entry: &Entry, mix: Mix) -> Result<u64, usize> {
        let slots = self.slots.as_slice();
        let mut at = self.home(mix);
        loop {
            let slot = slots[at];
            if slot == EMPTY {
                return Err(at);
            }
            if slot.mix() == mix {
                let known = self.entries.get(slot.entry());
                if known.same_key(entry) {
                    return Ok(known.tag);
                }
            }
            at = (at + 1) & (slots.len() - 1);
        }
    }

    #[inline]
    fn home(&self, mix: Mix) -> usize {
        (mix.0 >> self.shift) as usize
    }

    #[cold]
    fn grow(&mut self) {
        let capacity = (self.slots.len() * 2).max(CAPACITY_MIN);
        let old = std::mem::replace(&mut self.slots, vec![EMPTY; capacity]);
        self.shift = u32::BITS - capacity.trailing_zeros();
        for slot in old.into_iter().filter(|slot| *slot != EMPTY) {
            let mut at = self.home(slot.mix());
            while self.slots[at] != EMPTY {
                at = (at + 1) & (capacity - 1);
            }
            self.slots[at] = slot;
        }
    }
}

/// Entries of one chunk: 48 KiB, so that a shard that grows copies nothing and leaves
/// little unused.
const CHUNK_ENTRIES: usize = 2048;

/// Entries in order of arrival, in chunks that never move.
#[derive(Debug, Default)]
struct Entries {
    full: Vec<Box<[Entry]>>,
    last: Vec<Entry>,
}

impl Entries {
    #[inline]
    fn len(&self) -> usize {
        self.full.len() * CHUNK_ENTRIES + self.last.len()
    }

    #[inline]
    fn get(&self, number: usize) -> Entry {
        let within = number % CHUNK_ENTRIES;
        self.full.get(number / CHUNK_ENTRIES).map_or_else(|| self.last[within], |chunk| chunk[within])
    }

    #[inline]
    fn push(&mut self, entry: Entry) {
        self.last.push(entry);
        if self.last.len() == CHUNK_ENTRIES {
            self.full.push(std::mem::replace(&mut self.last, Vec::with_capacity(CHUNK_ENTRIES)).into_boxed_slice());
        }
    }

    fn iter(&self) -> impl Iterator<Item = Entry> + '_ {
        self.full.iter().flatten().chain(&self.last).copied()
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
        assert_eq!(table.find(&zero, 0), None);
        assert_eq!(table.find_or_insert(zero, 0), None);
        assert_eq!(table.find(&zero, 0), Some(5));
    }

    #[test]
    fn ids_of_one_place_are_told_apart() {
        let mut table = Table::new();
        // The same low half: every one starts where the others do.
        let key = |i: u64| Entry::new(u128::from(i) << 64 | 7, i);
        for i in 0..100 {
            assert_eq!(table.find_or_insert(key(i), 3), None);
        }
        assert!((0..100).all(|i| table.find(&key(i), 3) == Some(i)));
    }
}
