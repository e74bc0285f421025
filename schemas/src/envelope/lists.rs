//! Lists of numbers or bytes in, their numbers in order of first appearance out: the
//! tables of an envelope while it is put together. All lists stand in one buffer, so
//! that a new one costs no allocation.

use std::hash::{BuildHasher, Hash};

use foldhash::fast::RandomState;
use hashbrown::HashTable;

/// Distinct lists, each known by its number.
#[derive(Debug)]
pub(super) struct Lists<T> {
    items: Vec<T>,
    /// Where each list ends, by number.
    ends: Vec<usize>,
    numbers: HashTable<u16>,
    /// Keyed per table, so that chosen texts cannot crowd one bucket.
    hashing: RandomState,
}

impl<T> Default for Lists<T> {
    fn default() -> Self {
        Self { items: Vec::new(), ends: Vec::new(), numbers: HashTable::new(), hashing: RandomState::default() }
    }
}

impl<T: Copy + Eq + Hash> Lists<T> {
    /// The number of `list`, and whether it is new.
    pub(super) fn number_of(&mut self, list: &[T]) -> (u16, bool) {
        let Self { items, ends, numbers, hashing } = self;
        let hash = hashing.hash_one(list);
        if let Some(number) = numbers.find(hash, |number| at(items, ends, *number) == list) {
            return (*number, false);
        }
        // 512 records bring at most 512 * 38 strings, which fits 16 bits.
        let number = u16::try_from(ends.len()).expect("an envelope's tables fit 16 bits");
        items.extend_from_slice(list);
        ends.push(items.len());
        numbers.insert_unique(hash, number, |number| hashing.hash_one(at(items, ends, *number)));
        (number, true)
    }

    /// The list of a number, if there is one.
    pub(super) fn get(&self, number: u16) -> Option<&[T]> {
        (usize::from(number) < self.ends.len()).then(|| at(&self.items, &self.ends, number))
    }

    /// All lists by number.
    pub(super) fn iter(&self) -> impl Iterator<Item = &[T]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| &self.items[start..*end])
    }

    /// Forgets all lists; their memory stays.
    pub(super) fn clear(&mut self) {
        self.items.clear();
        self.ends.clear();
        self.numbers.clear();
    }
}

fn at<'a, T>(items: &'a [T], ends: &[usize], number: u16) -> &'a [T] {
    let number = usize::from(number);
    let start = if number == 0 { 0 } else { ends[number - 1] };
    &items[start..ends[number]]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_keep_the_number_of_their_first_appearance() {
        let mut lists = Lists::default();
        for _ in 0..2 {
            assert_eq!(lists.get(0), None);
            let texts = ["b", "", "a", "b", "", "ab"];
            let numbers: Vec<_> = texts.iter().map(|text| lists.number_of(text.as_bytes())).collect();
            assert_eq!(numbers, [(0, true), (1, true), (2, true), (0, false), (1, false), (3, true)]);
            assert_eq!(lists.iter().collect::<Vec<_>>(), [&b"b"[..], b"", b"a", b"ab"]);
            assert_eq!((lists.get(3), lists.get(4)), (Some(&b"ab"[..]), None));
            lists.clear();
        }
    }
}
