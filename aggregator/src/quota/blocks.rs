//! Items that are reached by number without a lock and never move: blocks, each twice as
//! long as the one before. A number names a block and a place in it, so that finding an
//! item takes no arithmetic.

use std::sync::OnceLock;

/// The first block has two to this power: few items take a few kilobytes.
const FIRST_BITS: u32 = 10;
/// Bits of a number that say where in its block the item stands; the others say which
/// block.
const AT_BITS: u32 = 27;
/// One for all that the other bits can say; the longest that is ever made has two to the
/// power of [`AT_BITS`].
const BLOCKS: usize = 1 << (u32::BITS - AT_BITS);
/// So many items at most: 268 million, far more than what they belong to has room for.
pub(super) const ITEMS_MAX: u32 = (1 << (AT_BITS + 1)) - (1 << FIRST_BITS);
/// Eight items of eight bytes are a cache line.
const LINE_BITS: u32 = 3;

const _: () = assert!(LINE_BITS <= FIRST_BITS && AT_BITS - FIRST_BITS < BLOCKS as u32);

#[derive(Debug)]
pub(super) struct Blocks<T> {
    blocks: [Block<T>; BLOCKS],
}

/// Aligned so that its place takes no multiplication.
#[derive(Debug)]
#[repr(align(32))]
struct Block<T>(OnceLock<Box<[T]>>);

/// The number of the item that is made after so many others, below [`ITEMS_MAX`]. The
/// first ones do not share a cache line: where there are few, each may be much in use.
/// Later ones lie densely.
pub(super) fn number_of(nth: u32) -> u32 {
    debug_assert!(nth < ITEMS_MAX);
    if nth < 1 << FIRST_BITS {
        return ((nth << LINE_BITS) | (nth >> (FIRST_BITS - LINE_BITS))) & ((1 << FIRST_BITS) - 1);
    }
    let from_first = nth + (1 << FIRST_BITS);
    let bits = from_first.ilog2();
    (bits - FIRST_BITS) << AT_BITS | (from_first ^ (1 << bits))
}

#[inline]
fn block_of(number: u32) -> usize {
    (number >> AT_BITS) as usize
}

#[inline]
fn at(number: u32) -> usize {
    (number & ((1 << AT_BITS) - 1)) as usize
}

impl<T> Blocks<T> {
    #[inline]
    pub(super) fn get(&self, number: u32) -> Option<&T> {
        self.blocks[block_of(number)].0.get()?.get(at(number))
    }

    /// The item of a number, with its block made if need be of what `new` makes.
    pub(super) fn make(&self, number: u32, new: impl Fn() -> T) -> &T {
        let block = block_of(number);
        let length = 1_usize << (FIRST_BITS as usize + block);
        &self.blocks[block].0.get_or_init(|| (0..length).map(|_| new()).collect())[at(number)]
    }

    /// Fetches an item that will be looked at.
    #[inline]
    pub(super) fn prefetch(&self, number: u32) {
        if let Some(block) = self.blocks[block_of(number)].0.get() {
            crate::prefetch::prefetch(block, at(number));
        }
    }
}

impl<T> Default for Blocks<T> {
    fn default() -> Self {
        Self { blocks: std::array::from_fn(|_| Block(OnceLock::new())) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_number_has_its_own_item_that_stays() {
        let blocks = Blocks::default();
        assert!(blocks.get(0).is_none() && blocks.get(u32::MAX).is_none());
        let numbers: Vec<_> = (0..10_000).map(number_of).collect();
        let made: HashSet<_> = numbers.iter().map(|at| std::ptr::from_ref(blocks.make(*at, || 7_u64))).collect();
        let found: HashSet<_> = numbers.iter().map(|at| std::ptr::from_ref(blocks.get(*at).unwrap())).collect();
        assert_eq!((made.len(), found), (10_000, made));
        assert_eq!(
            blocks.blocks.iter().filter_map(|block| block.0.get()).map(|block| block.len()).sum::<usize>(),
            15 << 10
        );
    }

    #[test]
    fn the_last_item_has_the_last_place_of_the_last_block() {
        let last = number_of(ITEMS_MAX - 1);
        assert_eq!((block_of(last), at(last)), ((AT_BITS - FIRST_BITS) as usize, (1 << AT_BITS) - 1));
    }

    #[test]
    fn the_first_items_lie_apart() {
        let lines: HashSet<_> = (0..128).map(|nth| number_of(nth) >> LINE_BITS).collect();
        assert_eq!(lines.len(), 128);
    }
}
