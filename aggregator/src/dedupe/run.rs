//! A frozen shard: fingerprints in ascending order, their tags beside them, and a
//! filter in front that turns nearly every miss into one cache line.

use super::table::Entry;
use crate::prefetch::prefetch;

/// Filter bits per id: 1.25 bytes of the 28 that a frozen id may take.
const FILTER_BITS_PER_ID: usize = 10;
/// Bits set per id within one 64-bit word; about 3 % of misses pass.
const FILTER_PROBES: u32 = 4;

#[derive(Debug, Default)]
pub(crate) struct Run {
    fingerprints: Box<[u128]>,
    tags: Box<[u64]>,
    filter: Box<[u64]>,
}

impl Run {
    /// Freezes entries in any order; of two with one fingerprint the first stays.
    pub(crate) fn freeze(mut entries: Vec<Entry>) -> Self {
        entries.sort_by_key(Entry::fingerprint);
        entries.dedup_by_key(|entry| entry.fingerprint());
        let mut filter = vec![0; (entries.len() * FILTER_BITS_PER_ID).div_ceil(64)].into_boxed_slice();
        for entry in &entries {
            let at = filter_word(entry.low, filter.len());
            filter[at] |= filter_mask(entry.high);
        }
        Self {
            fingerprints: entries.iter().map(Entry::fingerprint).collect(),
            tags: entries.iter().map(|entry| entry.tag).collect(),
            filter,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.fingerprints.len()
    }

    pub(crate) fn prefetch(&self, low: u64) {
        prefetch(&self.filter, filter_word(low, self.filter.len()));
    }

    /// The tag remembered with the entry's fingerprint.
    pub(crate) fn find(&self, entry: &Entry) -> Option<u64> {
        let mask = filter_mask(entry.high);
        let word = self.filter.get(filter_word(entry.low, self.filter.len()))?;
        if word & mask != mask {
            return None;
        }
        let at = self.fingerprints.binary_search(&entry.fingerprint()).ok()?;
        Some(self.tags[at])
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = Entry> + '_ {
        self.fingerprints.iter().zip(&self.tags).map(|(fingerprint, tag)| Entry::new(*fingerprint, *tag))
    }
}

/// Multiply-shift: a uniform word without a division.
#[expect(clippy::cast_possible_truncation, reason = "the product's high half is below `words`")]
fn filter_word(low: u64, words: usize) -> usize {
    ((u128::from(low) * words as u128) >> 64) as usize
}

fn filter_mask(high: u64) -> u64 {
    (0..FILTER_PROBES).fold(0, |mask, probe| mask | 1 << ((high >> (6 * probe)) & 63))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(i: u64) -> Entry {
        let mixed = i.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Entry { high: mixed.rotate_left(17) ^ i, low: mixed, tag: i }
    }

    #[test]
    fn a_run_finds_what_it_holds_and_its_filter_stops_nearly_all_else() {
        let run = Run::freeze((1..=20_000).map(entry).collect());
        assert_eq!(run.len(), 20_000);
        for i in 1..=20_000 {
            assert_eq!(run.find(&entry(i)), Some(i));
        }
        assert!((20_001..60_000).all(|i| run.find(&entry(i)).is_none()));
        let passed = (20_001_u64..60_000)
            .filter(|i| {
                let e = entry(*i);
                let mask = filter_mask(e.high);
                run.filter[filter_word(e.low, run.filter.len())] & mask == mask
            })
            .count();
        assert!(passed < 40_000 / 10, "{passed} of 40,000 misses pass the filter");
        assert!(Run::freeze(Vec::new()).find(&entry(1)).is_none());
    }

    #[test]
    fn a_frozen_id_takes_no_more_than_its_budget() {
        const FROZEN_ID_BYTES_MAX: usize = 28;
        let n = 10_000;
        let run = Run::freeze((1..=n as u64).map(entry).collect());
        let bytes = size_of_val(&*run.fingerprints) + size_of_val(&*run.tags) + size_of_val(&*run.filter);
        assert!(bytes <= n * FROZEN_ID_BYTES_MAX, "{} bytes an id", bytes / n);
    }
}
