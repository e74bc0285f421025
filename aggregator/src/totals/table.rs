//! Finds the series of a (tenant, meter): open addressing over 128-bit keys, so that
//! a lookup is one cache line and no text is compared.

use odometer_schemas::digest::TextHash;

use crate::prefetch::prefetch;

/// A hash that identifies (tenant, meter).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct SeriesKey(u128);

impl SeriesKey {
    pub(crate) fn new(tenant: TextHash, meter: TextHash) -> Self {
        // Both are 128-bit hashes already; the rotation keeps their roles apart.
        Self(tenant.0.rotate_left(1).wrapping_add(meter.0))
    }
}

/// The number of a (tenant, meter) within its partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SeriesId(pub(crate) u32);

#[derive(Clone, Copy, Debug)]
#[repr(C, align(32))]
struct Entry {
    key: SeriesKey,
    series: Option<SeriesIndex>,
}

/// Series number plus one, so that absence costs nothing.
type SeriesIndex = std::num::NonZeroU32;

const EMPTY: Entry = Entry { key: SeriesKey(0), series: None };
const CAPACITY_MIN: usize = 64;

#[derive(Debug)]
pub(crate) struct SeriesTable {
    entries: Vec<Entry>,
    len: u32,
}

impl SeriesTable {
    pub(crate) fn new() -> Self {
        Self { entries: vec![EMPTY; CAPACITY_MIN], len: 0 }
    }

    #[inline]
    pub(crate) fn prefetch(&self, key: SeriesKey) {
        prefetch(&self.entries, self.home(key));
    }

    #[inline]
    pub(crate) fn find(&self, key: SeriesKey) -> Option<SeriesId> {
        self.entries[self.probe(key)].series.map(|index| SeriesId(index.get() - 1))
    }

    /// Numbers a key that [`find`](Self::find) did not know.
    pub(crate) fn insert(&mut self, key: SeriesKey) -> SeriesId {
        if (self.len as usize + 1) * 2 > self.entries.len() {
            let doubled = vec![EMPTY; self.entries.len() * 2];
            for entry in std::mem::replace(&mut self.entries, doubled).into_iter().filter(|e| e.series.is_some()) {
                let at = self.probe(entry.key);
                self.entries[at] = entry;
            }
        }
        let series = SeriesId(self.len);
        self.len = self.len.checked_add(1).expect("series are bounded far below 2^32");
        let at = self.probe(key);
        self.entries[at] = Entry { key, series: SeriesIndex::new(self.len) };
        series
    }

    #[inline]
    fn probe(&self, key: SeriesKey) -> usize {
        let mut at = self.home(key);
        while self.entries[at].series.is_some() && self.entries[at].key != key {
            at = (at + 1) & (self.entries.len() - 1);
        }
        at
    }

    #[inline]
    fn home(&self, key: SeriesKey) -> usize {
        (key.0 ^ (key.0 >> 64)) as usize & (self.entries.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_keeps_its_number() {
        let key =
            |i: u128| SeriesKey::new(TextHash(i.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)), TextHash(i));
        let mut table = SeriesTable::new();
        for i in 0..10_000 {
            assert_eq!(table.find(key(i)), None);
            assert_eq!(table.insert(key(i)), SeriesId(u32::try_from(i).unwrap()));
        }
        assert!((0..10_000).all(|i| table.find(key(i)) == Some(SeriesId(u32::try_from(i).unwrap()))));
    }
}
