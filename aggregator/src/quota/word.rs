//! The admission word: what is settled and held of one (scope, meter, period), in one
//! atomic, so that any number of threads can decide about it at once.
//!
//! Its lowest bit says that a decision over several words is being made and holds this
//! one still; whoever decides about it alone waits for that moment. What the log brings
//! goes in at any time.

use super::sync::{AtomicU64, Ordering, pause};

/// Set while a decision over several words looks at this one.
const STILL: u64 = 1;

/// The bounds of what is settled as the word sees it. Together with what may be held
/// it stays inside 63 bits.
pub(crate) const SETTLED_MAX: i64 = 1 << 61;
/// What stands for no limit: nothing is admitted beyond it either, so that nothing
/// wraps.
pub(crate) const UNLIMITED: i64 = 1 << 61;

/// `settled + held`, in base units.
#[derive(Debug)]
pub struct Word {
    raw: AtomicU64,
}

/// A word that says no, and what it held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full {
    /// Settled and held when it was asked.
    pub held: i64,
}

impl Default for Word {
    fn default() -> Self {
        Self::new(0)
    }
}

impl Word {
    /// A word that holds `held`.
    #[must_use]
    pub fn new(held: i64) -> Self {
        Self { raw: AtomicU64::new(raw_of(held)) }
    }

    /// Forgets what it held, for a new owner that nobody else knows yet.
    pub(crate) fn clear(&self) {
        self.raw.store(0, Ordering::Relaxed);
    }

    /// What is settled and held now; what a decision that is being made would hold is
    /// not in it.
    #[must_use]
    pub fn held(&self) -> i64 {
        held_of(self.raw.load(Ordering::Acquire))
    }

    /// Holds `amount` if the whole stays within `hard_limit`; what is held then.
    ///
    /// # Errors
    /// [`Full`]: it would not, and nothing has changed.
    #[inline]
    pub fn admit(&self, amount: i64, hard_limit: i64) -> Result<i64, Full> {
        let mut raw = self.raw.load(Ordering::Acquire);
        let mut round = 0;
        loop {
            let held = held_of(raw);
            if raw & STILL != 0 {
                pause(round);
                round += 1;
                raw = self.raw.load(Ordering::Acquire);
                continue;
            }
            let Some(whole) = within(held, amount, hard_limit) else { return Err(Full { held }) };
            match self.raw.compare_exchange_weak(raw, raw_of(whole), Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Ok(whole),
                Err(now) => raw = now,
            }
        }
    }

    /// Whether [`admit`](Self::admit) would say yes now; changes nothing.
    ///
    /// # Errors
    /// [`Full`]: it would say no.
    #[inline]
    pub fn check(&self, amount: i64, hard_limit: i64) -> Result<i64, Full> {
        let mut raw = self.raw.load(Ordering::Acquire);
        if raw & STILL == STILL {
            raw = self.moved_on();
        }
        let held = held_of(raw);
        within(held, amount, hard_limit).ok_or(Full { held })
    }

    /// What it says once nobody holds it still.
    #[cold]
    fn moved_on(&self) -> u64 {
        let mut round = 0;
        loop {
            let raw = self.raw.load(Ordering::Acquire);
            if raw & STILL == 0 {
                return raw;
            }
            pause(round);
            round += 1;
        }
    }

    /// Moves the whole by what the log says, or by what is not held any more. Never
    /// waits.
    #[inline]
    pub fn move_by(&self, amount: i64) {
        self.raw.fetch_add(raw_of(amount), Ordering::AcqRel);
    }

    /// Holds the word still for a decision over several; what it holds. Only under the
    /// lock that all such decisions about it take.
    pub(crate) fn hold_still(&self) -> i64 {
        held_of(self.raw.fetch_or(STILL, Ordering::AcqRel))
    }

    /// Lets it go after [`hold_still`](Self::hold_still), moved by `amount`.
    pub(crate) fn let_go(&self, amount: i64) {
        self.raw.fetch_add(raw_of(amount).wrapping_sub(STILL), Ordering::AcqRel);
    }
}

/// What would be held in all, if `hard_limit` allows it.
#[inline]
pub(crate) fn within(held: i64, amount: i64, hard_limit: i64) -> Option<i64> {
    held.checked_add(amount).filter(|whole| *whole <= hard_limit)
}

/// A settled value as the word sees it.
#[inline]
pub(crate) fn as_settled(value: i64) -> i64 {
    value.clamp(-SETTLED_MAX, SETTLED_MAX)
}

#[inline]
fn held_of(raw: u64) -> i64 {
    raw.cast_signed() >> 1
}

#[inline]
fn raw_of(held: i64) -> u64 {
    held.cast_unsigned() << 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_admits_up_to_the_limit_and_changes_nothing_beyond() {
        let word = Word::default();
        assert_eq!(word.admit(7, 10), Ok(7));
        assert_eq!(word.admit(4, 10), Err(Full { held: 7 }));
        assert_eq!((word.check(3, 10), word.held()), (Ok(10), 7));
        assert_eq!(word.admit(3, 10), Ok(10));
        word.move_by(-10);
        assert_eq!(word.held(), 0);
    }

    #[test]
    fn amounts_at_the_ends_are_denied_not_wrapped() {
        let word = Word::new(as_settled(i64::MAX));
        assert_eq!(word.admit(i64::MAX, i64::MAX).unwrap_err().held, SETTLED_MAX);
        let below = Word::new(as_settled(i64::MIN));
        assert_eq!(below.admit(1, 0), Ok(1 - SETTLED_MAX));
    }

    #[test]
    fn what_the_log_brings_goes_in_while_it_is_held_still() {
        let word = Word::new(5);
        assert_eq!(word.hold_still(), 5);
        word.move_by(-2);
        assert_eq!(word.held(), 3);
        word.let_go(10);
        assert_eq!(word.admit(0, 13), Ok(13));
    }

    #[test]
    fn many_threads_never_overrun_it() {
        let word = Word::default();
        let admitted: u32 = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| (0..10_000).map(|_| u32::from(word.admit(1, 12_345).is_ok())).sum::<u32>()))
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!((admitted, word.held()), (12_345, 12_345));
    }
}
