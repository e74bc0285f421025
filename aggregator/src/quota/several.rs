//! A decision over several words, all or nothing.
//!
//! Its words are held still while it looks at them, so that nobody sees half of it and
//! nobody takes what it was just told is there.

use super::sync::{Mutex, PoisonError};
use super::word::{Word, within};

/// What one decision asks of one word.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask<'a> {
    pub(crate) word: &'a Word,
    pub(crate) amount: i64,
    pub(crate) hard_limit: i64,
}

/// What every word held when it was looked at, and whether all said yes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// In the order of the asks, the decision not included.
    pub(crate) held: Vec<i64>,
    /// Whether every word had room.
    pub(crate) fits: bool,
}

/// Asks all words at one moment; takes the amounts if all have room and `take` is set.
/// `several` is the lock of all decisions that share a word, and no word is asked
/// twice.
pub(crate) fn ask_all(several: &Mutex<()>, asks: &[Ask<'_>], take: bool) -> Seen {
    // Nothing is protected but the words themselves, which a panic cannot leave half
    // changed.
    let _alone = several.lock().unwrap_or_else(PoisonError::into_inner);
    let held: Vec<i64> = asks.iter().map(|ask| ask.word.hold_still()).collect();
    let fits = asks.iter().zip(&held).all(|(ask, held)| within(*held, ask.amount, ask.hard_limit).is_some());
    for ask in asks {
        ask.word.let_go(if fits && take { ask.amount } else { 0 });
    }
    Seen { held, fits }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_full_word_leaves_all_as_they_were() {
        let words = [Word::new(0), Word::new(9)];
        let several = Mutex::new(());
        let ask = |amount| words.each_ref().map(|word| Ask { word, amount, hard_limit: 10 });
        assert_eq!(ask_all(&several, &ask(2), true), Seen { held: vec![0, 9], fits: false });
        assert_eq!(ask_all(&several, &ask(1), false), Seen { held: vec![0, 9], fits: true });
        assert_eq!(words.each_ref().map(Word::held), [0, 9]);
        assert!(ask_all(&several, &ask(1), true).fits);
        assert_eq!(words.each_ref().map(Word::held), [1, 10]);
        assert_eq!(words[0].admit(9, 10), Ok(10), "nothing is held still any more");
    }
}
