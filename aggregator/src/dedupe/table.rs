//! The open-addressing table of a bucket's newest ids: small slots that are probed, and
//! the entries that they point to in order of arrival.
//!
//! A new id, which nearly every id is, touches one cache line of slots and the end of
//! the entries; only a duplicate reads an old entry. Growing reads the entries in
//! sequence and puts their numbers into slots that fit a core's cache; no entry moves.

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
        Mix((self.low ^ placement).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }
}

/// A mixed fingerprint: its top says where probing starts, its lower half tells most
/// neighbours apart.
#[derive(Clone, Copy)]
struct Mix(u64);

/// Slots of one cache line, beside the word that says how many are filled.
const LINE_SLOTS: usize = 15;
const LINE_WORDS: usize = LINE_SLOTS + 1;
const LINE_BITS: u32 = LINE_WORDS.trailing_zeros();

/// Slots that are looked at together, without a branch for each, filled from the first;
/// the last word says how many. A slot is the number of an entry, in as many bits as the
/// table has of words, and above them what there is room for of the lower half of the
/// entry's mix. An id touches the next line only where this one is full.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Line([u32; LINE_WORDS]);

const _: () = assert!(size_of::<Line>() == 64);

impl Line {
    #[inline(always)]
    fn filled(&self) -> usize {
        self.0[LINE_SLOTS] as usize
    }

    #[inline(always)]
    fn fill(&mut self, slot: u32) {
        self.0[self.filled()] = slot;
        self.0[LINE_SLOTS] += 1;
    }

    /// Whether a word has these bits under the mask; one that is not a filled slot may.
    #[inline(always)]
    fn has_like(&self, alike: u32, mask: u32) -> bool {
        self.0.iter().fold(false, |any, word| any | ((word ^ alike) & mask == 0))
    }
}

/// Lines of the smallest table; a fresh bucket has one such table per shard.
const LINES_MIN: usize = 2;

/// A table is at most this full, in sixteenths: one line in ten is full then.
const FULL_SIXTEENTHS_MAX: usize = 11;

#[derive(Debug)]
pub(crate) struct Table {
    lines: Vec<Line>,
    entries: Entries,
    /// Bits that the number of a line takes.
    bits: u32,
    /// New ids that there is room for.
    room: u32,
}

impl Table {
    pub(crate) fn new() -> Self {
        Self { lines: Vec::new(), entries: Entries::default(), bits: LINES_MIN.trailing_zeros(), room: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    #[inline]
    pub(crate) fn prefetch(&self, entry: &Entry, placement: u64) {
        prefetch(&self.lines, self.home(entry.mix(placement)));
    }

    /// The tag remembered with the entry's fingerprint.
    #[inline]
    pub(crate) fn find(&self, entry: &Entry, placement: u64) -> Option<u64> {
        if self.lines.is_empty() {
            return None;
        }
        self.probe(entry, entry.mix(placement)).ok()
    }

    /// The tag remembered with the entry's fingerprint; when there is none, the entry
    /// is remembered.
    #[inline(always)]
    pub(crate) fn find_or_insert(&mut self, entry: Entry, placement: u64) -> Option<u64> {
        if self.room == 0 {
            self.grow(placement);
        }
        let mix = entry.mix(placement);
        match self.probe(&entry, mix) {
            Ok(tag) => Some(tag),
            Err(line) => {
                let slot = self.slot(mix, self.entries.len());
                self.lines[line].fill(slot);
                self.entries.push(entry);
                self.room -= 1;
                None
            }
        }
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = Entry> + '_ {
        self.entries.iter()
    }

    /// The tag of the entry with the same fingerprint, or the line where it goes.
    #[inline(always)]
    fn probe(&self, entry: &Entry, mix: Mix) -> Result<u64, usize> {
        let mut at = self.home(mix);
        loop {
            let line = &self.lines[at];
            if line.has_like(self.alike(mix), !self.number_mask())
                && let Some(known) = self.known(line, entry, mix)
            {
                return Ok(known.tag);
            }
            if line.filled() < LINE_SLOTS {
                return Err(at);
            }
            at = self.after(at);
        }
    }

    /// The entry with the same fingerprint that one of the line's slots points to.
    #[cold]
    fn known(&self, line: &Line, entry: &Entry, mix: Mix) -> Option<Entry> {
        let (alike, number_mask) = (self.alike(mix), self.number_mask());
        let numbers = line.0.iter().take(line.filled()).filter(|slot| **slot & !number_mask == alike);
        numbers.map(|slot| self.entries.get((slot & number_mask) as usize)).find(|known| known.same_key(entry))
    }

    #[inline(always)]
    fn home(&self, mix: Mix) -> usize {
        (mix.0 >> (u64::BITS - self.bits)) as usize
    }

    #[inline(always)]
    fn after(&self, line: usize) -> usize {
        (line + 1) & (self.lines.len() - 1)
    }

    /// What a slot of this mix has above its number.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the lower half is what is wanted")]
    fn alike(&self, mix: Mix) -> u32 {
        mix.0 as u32 & !self.number_mask()
    }

    #[inline(always)]
    fn number_mask(&self) -> u32 {
        (1 << (self.bits + LINE_BITS)) - 1
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "there are fewer entries than slots, and those fit the mask")]
    fn slot(&self, mix: Mix, entry: usize) -> u32 {
        self.alike(mix) | entry as u32
    }

    #[cold]
    fn grow(&mut self, placement: u64) {
        let lines = (self.lines.len() * 2).max(LINES_MIN);
        let room = u32::try_from(lines * LINE_SLOTS * FULL_SIXTEENTHS_MAX / 16 - self.len());
        self.room = room.expect("a shard holds fewer than 2^31 ids");
        self.bits = lines.trailing_zeros();
        assert!(self.bits + LINE_BITS < u32::BITS, "a shard holds fewer than 2^31 ids");
        self.lines = vec![Line([0; LINE_WORDS]); lines];
        for (number, entry) in self.entries.iter().enumerate() {
            let mix = entry.mix(placement);
            let (mut at, slot) = (self.home(mix), self.slot(mix, number));
            while self.lines[at].filled() == LINE_SLOTS {
                at = self.after(at);
            }
            self.lines[at].fill(slot);
        }
    }
}

/// Entries of one chunk, 6 KiB: the chunks that all shards write to fit a core's cache
/// together, a shard that grows copies nothing, and little is left unused.
const CHUNK_ENTRIES: usize = 256;

type Chunk = Box<[Entry]>;

/// Entries in order of arrival, in chunks that never move.
#[derive(Debug, Default)]
struct Entries {
    full: Vec<Chunk>,
    /// Filled with nothing when it is made: what is written then is in the cache already.
    last: Chunk,
    /// Entries in `last`.
    filled: usize,
}

impl Entries {
    #[inline]
    fn len(&self) -> usize {
        self.full.len() * CHUNK_ENTRIES + self.filled
    }

    #[inline]
    fn get(&self, number: usize) -> Entry {
        self.full.get(number / CHUNK_ENTRIES).unwrap_or(&self.last)[number % CHUNK_ENTRIES]
    }

    #[inline]
    fn push(&mut self, entry: Entry) {
        if self.filled == self.last.len() {
            self.add_chunk();
        }
        self.last[self.filled] = entry;
        self.filled += 1;
    }

    #[cold]
    fn add_chunk(&mut self) {
        let filled = std::mem::replace(&mut self.last, vec![Entry::default(); CHUNK_ENTRIES].into());
        self.full.extend((!filled.is_empty()).then_some(filled));
        self.filled = 0;
    }

    fn iter(&self) -> impl Iterator<Item = Entry> + '_ {
        self.full.iter().flatten().chain(&self.last[..self.filled]).copied()
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

    #[test]
    fn what_finds_no_room_at_the_end_goes_to_the_beginning() {
        let key = |i: u64| Entry::new(u128::from(i.wrapping_mul(0x1234_5678_9abc_def1)), i);
        // All of them start in the last sixteenth of the lines, and overflow it.
        let keys: Vec<Entry> = (0..).map(key).filter(|key| key.mix(5).0 >> 60 == 15).take(500).collect();
        let mut table = Table::new();
        for key in &keys {
            assert_eq!(table.find_or_insert(*key, 5), None);
        }
        assert!(table.lines[0].filled() > 0);
        assert!(keys.iter().all(|key| table.find(key, 5) == Some(key.tag)));
    }
}
