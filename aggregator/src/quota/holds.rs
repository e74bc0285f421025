//! Where decisions find reservations. What holds something, or may soon, is a hold. What
//! is over is only remembered, for a day and mostly asked for by nobody: it sleeps, which
//! takes a fifth of the room, and gives the rest to those that come.

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
}

impl Default for Holds {
    fn default() -> Self {
        Self(DashMap::with_hasher_and_shard_amount(foldhash::fast::RandomState::default(), SHARDS))
    }
}

impl Known {
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

    /// Puts one to sleep that is over, unless somebody else has it in hand, or is to look
    /// at it again.
    pub(super) fn lay_down(&self, key: &str, hold: &Arc<Hold>) {
        /// The map and the caller.
        const NOBODY_ELSE: usize = 2;
        let Some(mut known) = self.0.get_mut(key) else { return };
        let Known::Awake(here) = &*known else { return };
        // Under the lock of its place nobody gets hold of it who has not got it.
        if !Arc::ptr_eq(here, hold) || Arc::strong_count(hold) > NOBODY_ELSE {
            return;
        }
        let at_rest = hold.lock().at_rest().map(|ledger| Known::Asleep(encoded(ledger).into()));
        if let Some(asleep) = at_rest {
            *known = asleep;
        }
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
    /// Nothing is waited for in the log any more.
    const LONG_OVER: TimeMs = TimeMs(OVER.0 + 1_000_000);

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
            self.live.release(&request, 1 << 32, OVER).unwrap()
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
        assert!(!site.sleeps_at(LONG_OVER), "the release is on its way");
        site.read(released.clone());
        assert!(site.sleeps_at(LONG_OVER));
        let again = site.reserve();
        assert_eq!((again.decision, again.operation, site.sleeps_at(LONG_OVER)), (made.decision, None, true));
        assert_eq!((site.release().decision, site.sleeps_at(LONG_OVER)), (released.decision, true));
    }

    #[test]
    fn whoever_has_it_in_hand_keeps_it_awake() {
        let mut site = site();
        let made = site.reserve();
        site.read(made);
        let in_hand = site.live.shared.hold("t", "r");
        assert!(!site.sleeps_at(OVER));
        drop(in_hand);
        site.live.shared.watch(site.live.shared.hold("t", "r").unwrap(), 0);
        assert!(site.sleeps_at(OVER));
        let [first, second] = [(); 2].map(|()| site.live.shared.hold("t", "r").unwrap());
        assert!(Arc::ptr_eq(&first, &second) && !site.sleeps_at(OVER));
    }
}
