//! The admission words of a partition, side by side: 100,000 of them stay in a core's
//! cache, wherever the rest of what they count lies.
//!
//! A word has one owner, and its number is given to the next one when that is dropped.
//! Whoever keeps a number must keep the owner too: here nothing tells the two apart.

use std::ops::Deref;
// Not a checker's: nothing happens under this lock that others could get between.
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::blocks::{Blocks, ITEMS_MAX, number_of};
use super::word::Word;

/// All words of one partition.
#[derive(Debug, Default)]
pub(crate) struct Words {
    words: Blocks<Word>,
    numbers: Mutex<Numbers>,
}

#[derive(Debug, Default)]
struct Numbers {
    /// How many were given out for the first time.
    given: u32,
    /// Those whose owners are gone.
    free: Vec<u32>,
}

/// A word, for as long as this lives.
#[derive(Debug)]
pub(crate) struct OwnWord {
    words: Arc<Words>,
    number: u32,
}

impl Words {
    /// A word that holds nothing.
    pub(crate) fn own(self: &Arc<Self>) -> OwnWord {
        let mut numbers = self.numbers();
        let number = numbers.free.pop().unwrap_or_else(|| {
            let next = numbers.given;
            assert!(next < ITEMS_MAX, "{next} words, though counters are bounded far below");
            numbers.given += 1;
            number_of(next)
        });
        self.words.make(number, Word::default);
        drop(numbers);
        let own = OwnWord { words: Arc::clone(self), number };
        own.clear();
        own
    }

    /// The word of a number whose owner is kept.
    ///
    /// # Panics
    /// Where no owner ever had that number.
    #[inline]
    pub(crate) fn of(&self, number: u32) -> &Word {
        self.words.get(number).expect("a number is its owner's")
    }

    /// Fetches a word that will be moved.
    #[inline]
    pub(crate) fn prefetch(&self, number: u32) {
        self.words.prefetch(number);
    }

    fn numbers(&self) -> MutexGuard<'_, Numbers> {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OwnWord {
    /// By which [`Words::of`] finds it.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// Whether it is one of these.
    pub(crate) fn is_of(&self, words: &Arc<Words>) -> bool {
        Arc::ptr_eq(&self.words, words)
    }
}

impl Deref for OwnWord {
    type Target = Word;

    #[inline]
    fn deref(&self) -> &Word {
        self.words.of(self.number)
    }
}

impl Drop for OwnWord {
    fn drop(&mut self) {
        self.words.numbers().free.push(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_given_again_once_its_owner_is_gone_and_holds_nothing_then() {
        let words = Arc::new(Words::default());
        let [first, second] = [words.own(), words.own()];
        assert_ne!(first.number(), second.number());
        first.move_by(5);
        second.move_by(7);
        let number = first.number();
        assert_eq!((words.of(number).held(), second.held()), (5, 7));
        drop(first);
        let third = words.own();
        assert_eq!((third.number(), third.held(), second.held()), (number, 0, 7));
        assert!(third.is_of(&words) && !third.is_of(&Arc::default()));
    }

    #[test]
    fn owners_that_come_and_go_on_many_threads_never_share_a_word() {
        let words = Arc::new(Words::default());
        std::thread::scope(|scope| {
            for thread in 1..=8_i64 {
                let words = &words;
                scope.spawn(move || {
                    for _ in 0..2_000 {
                        let own: Vec<_> = (0..4).map(|_| words.own()).collect();
                        own.iter().for_each(|own| own.move_by(thread));
                        assert!(own.iter().all(|own| own.held() == thread));
                    }
                });
            }
        });
        let numbers = words.numbers();
        assert_eq!(numbers.given as usize, numbers.free.len());
        assert!(numbers.given <= 32, "{} for 32 at a time", numbers.given);
    }
}
