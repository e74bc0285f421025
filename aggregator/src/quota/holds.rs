//! Where decisions find reservations. What holds something, or may soon, is a hold. What
//! is over is only remembered, for a day and mostly asked for by nobody: it sleeps, which
//! takes little room, and gives the rest to those that come.

use std::sync::Arc;

use dashmap::DashMap;
use dashmap::mapref::entry::{Entry, VacantEntry};

use super::book::{decoded, encoded};
use super::hold::Hold;
use super::ledger::Ledger;

/// Locks of the map, far more than processors: while one part of it grows, whoever wants
/// something of that part waits, and it waits for less.
const SHARDS: usize = 128;

/// All of one partition, by [`hold_key`](super::live::hold_key).
#[derive(Debug)]
pub(super) struct Holds(DashMap<Box<str>, Known, foldhash::fast::RandomState>);

#[derive(Debug)]
enum Known {
    Awake(Arc<Hold>),
    /// Its ledger. It holds nothing, the log has it, and all that was decided about it.
    Asleep(Box<[u8]>),
}

/// The place of a reservation that is not known.
pub(super) struct Vacancy<'a>(VacantEntry<'a, Box<str>, Known>);

impl Vacancy<'_> {
    pub(super) fn put(self, hold: &Arc<Hold>) {
        self.0.insert(Known::Awake(Arc::clone(hold)));
    }

    /// One that has ended and that the log has.
    pub(super) fn put_asleep(self, ledger: &Ledger) {
        self.0.insert(Known::asleep(ledger));
    }
}

impl Default for Holds {
    fn default() -> Self {
        Self(DashMap::with_hasher_and_shard_amount(foldhash::fast::RandomState::default(), SHARDS))
    }
}

impl Known {
    fn asleep(ledger: &Ledger) -> Self {
        Self::Asleep(encoded(ledger).into())
    }

    /// `wake` makes the hold of one that sleeps, and takes no lock of this map.
    fn awake(&mut self, wake: impl FnOnce(Ledger) -> Arc<Hold>) -> Arc<Hold> {
        let hold = match self {
            Self::Awake(hold) => return Arc::clone(hold),
            Self::Asleep(ledger) => wake(decoded(ledger).expect("what sleeps was written here")),
        };
        *self = Self::Awake(Arc::clone(&hold));
        hold
    }
}

impl Holds {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Runs `look`, which is brief, on the hold of a known reservation, awake from here on:
    /// nobody forgets it meanwhile.
    pub(super) fn find<T>(
        &self,
        key: &str,
        wake: impl FnOnce(Ledger) -> Arc<Hold>,
        look: impl FnOnce(&Arc<Hold>) -> T,
    ) -> Option<T> {
        if let Known::Awake(hold) = &*self.0.get(key)? {
            return Some(look(hold));
        }
        Some(look(&self.0.get_mut(key)?.awake(wake)))
    }

    /// The same, or the place where it may be put, found in one step: whoever wants the
    /// same meanwhile waits.
    pub(super) fn find_or_place<T>(
        &self,
        key: Box<str>,
        wake: impl FnOnce(Ledger) -> Arc<Hold>,
        look: impl FnOnce(&Arc<Hold>) -> T,
    ) -> Result<T, Vacancy<'_>> {
        match self.0.entry(key) {
            Entry::Occupied(mut found) => Ok(look(&found.get_mut().awake(wake))),
            Entry::Vacant(vacant) => Err(Vacancy(vacant)),
        }
    }

    /// Whether the log has it.
    pub(super) fn is_booked(&self, key: &str) -> bool {
        self.0.get(key).is_some_and(|known| match &*known {
            Known::Awake(hold) => hold.lock().is_booked,
            Known::Asleep(_) => true,
        })
    }

    /// Puts one to sleep that is over; else, whether it is to be asked again, because somebody
    /// has it in hand or something that was decided about it is on its way.
    pub(super) fn lay_down(&self, key: &str, hold: &Arc<Hold>, now_ms: i64) -> bool {
        /// The map and the caller.
        const NOBODY_ELSE: usize = 2;
        let Some(mut known) = self.0.get_mut(key) else { return false };
        let Known::Awake(here) = &*known else { return false };
        if !Arc::ptr_eq(here, hold) {
            return false;
        }
        // Under the lock of its place nobody gets hold of it who has not got it.
        if Arc::strong_count(hold) > NOBODY_ELSE {
            return true;
        }
        let at_rest = hold.lock().at_rest(now_ms).map(Known::asleep);
        let Some(asleep) = at_rest else { return true };
        *known = asleep;
        false
    }

    /// Forgets one that the log never had.
    pub(super) fn give_up(&self, key: &str, hold: &Arc<Hold>) {
        let is_vain = |known: &Known| match known {
            Known::Awake(here) => Arc::ptr_eq(here, hold) && !here.lock().is_booked,
            Known::Asleep(_) => false,
        };
        self.0.remove_if(key, |_, known| is_vain(known));
    }

    /// Forgets one; its hold, if it has one.
    pub(super) fn forget(&self, key: &str) -> Option<Arc<Hold>> {
        match self.0.remove(key)?.1 {
            Known::Awake(hold) => Some(hold),
            Known::Asleep(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use odometer_schemas::definitions::Definitions;
    use odometer_schemas::quota::{Item, Release, Reserve, Who};
    use odometer_schemas::time::TimeMs;

    use super::super::book::QuotaBook;
    use super::super::decide::Outcome;
    use super::super::live::{LiveQuota, hold_key};
    use super::*;
    use crate::cells::LiveCells;

    const NOW: TimeMs = TimeMs(1_768_435_200_000);
    const TTL_MS: i64 = 1_000;
    const OVER: TimeMs = TimeMs(NOW.0 + 2 * TTL_MS);
    /// Before and after an append that was not confirmed is given up.
    const SOON: TimeMs = TimeMs(OVER.0 + 60_000);
    const LATE: TimeMs = TimeMs(OVER.0 + 130_000);
    const LONG_OVER: TimeMs = TimeMs(LATE.0 + 130_000);

    struct Site {
        live: LiveQuota,
        book: QuotaBook,
    }

    fn site() -> Site {
        let cells = LiveCells::default();
        let live = LiveQuota::new(cells.clone());
        live.set_meters(Some(&Definitions::built_in()));
        Site { book: QuotaBook::new(live.clone(), cells), live }
    }

    impl Site {
        fn reserve(&self) -> Outcome {
            let who = Who { tenant: "t".into(), ..Who::default() };
            let items = vec![Item { meter: "api_call".into(), amount: 3 }];
            let request = Reserve { id: "r".into(), who, ttl_ms: TTL_MS, items, ..Reserve::default() };
            self.live.reserve(&request, 7, NOW).unwrap()
        }

        fn release(&self) -> Outcome {
            let request = Release { tenant: "t".into(), id: "r".into(), ..Release::default() };
            self.live.release(&request, 1 << 32, SOON).unwrap()
        }

        fn read(&mut self, outcome: Outcome) {
            self.book.operate(1, outcome.operation.into_iter().collect());
        }

        /// Time goes on; whether the reservation sleeps then.
        fn sleeps_at(&self, now: TimeMs) -> bool {
            while self.live.expire(now, 10) {}
            matches!(*self.live.shared.holds.0.get(&*hold_key("t", "r")).unwrap(), Known::Asleep(_))
        }
    }

    #[test]
    fn it_sleeps_once_it_is_over_and_the_log_has_all_of_it() {
        let mut site = site();
        let made = site.reserve();
        assert!(!site.sleeps_at(OVER), "the log has not got it");
        site.read(made.clone());
        assert!(!site.sleeps_at(OVER), "it is looked at again later");
        let released = site.release();
        assert!(!site.sleeps_at(LATE), "the release is on its way");
        site.read(released.clone());
        assert!(site.sleeps_at(LATE));
        let again = site.reserve();
        assert_eq!((again.decision, again.operation, site.sleeps_at(LATE)), (made.decision, None, true));
        assert_eq!((site.release().decision, site.sleeps_at(LATE)), (released.decision, true));
    }

    #[test]
    fn it_sleeps_once_what_was_decided_about_it_never_reaches_the_log() {
        let mut site = site();
        let made = site.reserve();
        site.read(made);
        site.release();
        assert!(!site.sleeps_at(LATE));
        assert!(site.sleeps_at(LONG_OVER));
    }

    #[test]
    fn one_that_has_ended_sleeps_where_the_log_brings_it() {
        let (mut site, mut other) = (site(), site());
        for decided in [site.reserve(), site.release()] {
            site.read(decided);
        }
        assert!(site.sleeps_at(NOW), "long before its time is over");
        other.book.restore(&site.book.take_dirty(|| {})).unwrap();
        assert!(other.sleeps_at(NOW));
        assert!(other.live.is_booked("t", "r") && other.reserve().operation.is_none());
    }

    #[test]
    fn whoever_has_it_in_hand_keeps_it_awake() {
        let mut site = site();
        let made = site.reserve();
        site.read(made);
        let in_hand = site.live.shared.hold("t", "r");
        assert!(!site.sleeps_at(OVER));
        drop(in_hand);
        assert!(!site.sleeps_at(OVER), "it is looked at again a little later");
        assert!(site.sleeps_at(SOON));
        let [first, second] = [(); 2].map(|()| site.live.shared.hold("t", "r").unwrap());
        assert!(Arc::ptr_eq(&first, &second) && !site.sleeps_at(SOON));
    }
}
