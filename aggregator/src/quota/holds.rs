//! Where decisions find reservations: by name, under locks of which there are many.

use std::hash::BuildHasher as _;
use std::sync::Arc;

use hashbrown::HashTable;
use smallvec::SmallVec;

use super::hold::Hold;
use super::name::Name;
use super::sync::{Mutex, MutexGuard, PoisonError};
use crate::prefetch::{prefetch_count, prefetch_whole};

/// Far more than processors: while one part of the table grows, whoever wants something of
/// that part waits, and it waits for less.
const SHARDS: usize = 128;
/// Reservations of one partition that are held or remembered. With what the book has of
/// it, one takes some five hundred bytes once it is over, and about a kilobyte while it is
/// held: two to four gigabytes. Nobody can choose names that share a part of the table, so
/// each part has its share of the room, and no thread waits for a count of all.
pub(super) const RESERVATIONS_MAX: usize = 4_000_000;

/// Reservations that are looked for at once: memory brings about as many lines side by side.
pub(super) const AHEAD: usize = 16;

/// All of one partition.
#[derive(Debug)]
pub(super) struct Holds {
    shards: Box<[Mutex<Shard>]>,
    /// Nobody outside knows it, so that nobody can choose names that share a place.
    hashing: foldhash::fast::RandomState,
}

type Shard = HashTable<Entry>;

/// One of them, and the hash of its name: a table that grows looks at no name.
#[derive(Debug)]
struct Entry {
    hash: u64,
    hold: Arc<Hold>,
}

/// The place of a reservation that is not known; until it is taken or let go, whoever wants
/// the same waits.
pub(super) struct Vacancy<'a> {
    hash: u64,
    shard: MutexGuard<'a, Shard>,
}

impl Vacancy<'_> {
    /// Whether there is room for what a caller asks for.
    pub(super) fn has_room(&self) -> bool {
        self.shard.len() < RESERVATIONS_MAX / SHARDS
    }

    pub(super) fn put(mut self, hold: Arc<Hold>) {
        let hash = self.hash;
        self.shard.insert_unique(hash, Entry { hash, hold }, |entry| entry.hash);
    }
}

impl Default for Holds {
    fn default() -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { shards, hashing: foldhash::fast::RandomState::default() }
    }
}

impl Holds {
    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).len()).sum()
    }

    fn place(&self, name: &Name) -> (u64, MutexGuard<'_, Shard>) {
        let hash = self.hashing.hash_one(name);
        (hash, lock(self.shard(hash)))
    }

    fn shard(&self, hash: u64) -> &Mutex<Shard> {
        // The table looks at the highest and the lowest bits.
        &self.shards[usize::try_from(hash >> 32).unwrap_or(0) % SHARDS]
    }

    /// Hints that these will be looked for: what has to come from memory comes for all at once.
    pub(super) fn prefetch(&self, names: &[Name]) {
        let hashes: SmallVec<[u64; AHEAD]> = names.iter().map(|name| self.hashing.hash_one(name)).collect();
        hashes.iter().for_each(|hash| prefetch_whole(&raw const *self.shard(*hash)));
        for hash in hashes {
            if let Some(entry) = lock(self.shard(hash)).find(hash, |entry| entry.hash == hash) {
                prefetch_count(&entry.hold);
                prefetch_whole(Arc::as_ptr(&entry.hold));
            }
        }
    }

    pub(super) fn find(&self, name: &Name) -> Option<Arc<Hold>> {
        self.find_and(name, Arc::clone)
    }

    /// Runs `look`, which is brief, on a known reservation: nobody forgets it meanwhile.
    pub(super) fn find_and<T>(&self, name: &Name, look: impl FnOnce(&Arc<Hold>) -> T) -> Option<T> {
        let (hash, shard) = self.place(name);
        found(&shard, hash, name).map(look)
    }

    /// The same, or the place where it may be put, found in one step.
    pub(super) fn find_or_place<T>(&self, name: &Name, look: impl FnOnce(&Arc<Hold>) -> T) -> Result<T, Vacancy<'_>> {
        let (hash, shard) = self.place(name);
        match found(&shard, hash, name) {
            Some(hold) => Ok(look(hold)),
            None => Err(Vacancy { hash, shard }),
        }
    }

    /// Forgets one that the log never had, unless somebody besides the caller has it in hand:
    /// what they decide about it would be held for ever. Whether it was forgotten.
    pub(super) fn give_up(&self, hold: &Arc<Hold>) -> bool {
        /// The table and the caller.
        const NOBODY_ELSE: usize = 2;
        // Under the lock of its place nobody gets hold of it who has not got it.
        let is_alone = || Arc::strong_count(hold) <= NOBODY_ELSE;
        self.remove(&hold.name, |here| Arc::ptr_eq(here, hold) && is_alone() && here.is_vain()).is_some()
    }

    /// Forgets one.
    pub(super) fn forget(&self, name: &Name) -> Option<Arc<Hold>> {
        self.remove(name, |_| true)
    }

    fn remove(&self, name: &Name, is_so: impl FnOnce(&Arc<Hold>) -> bool) -> Option<Arc<Hold>> {
        let (hash, mut shard) = self.place(name);
        let is_it = |entry: &Entry| entry.hash == hash && entry.hold.name == *name;
        let entry = shard.find_entry(hash, is_it).ok().filter(|entry| is_so(&entry.get().hold))?;
        Some(entry.remove().0.hold)
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

fn found<'a>(shard: &'a Shard, hash: u64, name: &Name) -> Option<&'a Arc<Hold>> {
    shard.find(hash, |entry| entry.hash == hash && entry.hold.name == *name).map(|entry| &entry.hold)
}

#[cfg(test)]
mod tests {
    use odometer_schemas::definitions::Definitions;
    use odometer_schemas::quota::{Item, Release, Reserve, Who};
    use odometer_schemas::time::TimeMs;

    use super::super::book::QuotaBook;
    use super::super::decide::Outcome;
    use super::super::live::LiveQuota;
    use super::super::name::Name;
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
        fn reserve(&self) -> Outcome<'static> {
            let who = Who { tenant: "t".into(), ..Who::default() };
            let items = vec![Item { meter: "api_call".into(), amount: 3 }];
            let request = Reserve { id: "r".into(), who, ttl_ms: TTL_MS, items, ..Reserve::default() };
            self.live.reserve(&request, 7, NOW).unwrap().into_owned()
        }

        fn release(&self) -> Outcome<'static> {
            let request = Release { tenant: "t".into(), id: "r".into(), ..Release::default() };
            self.live.release(&request, 1 << 32, SOON).unwrap().into_owned()
        }

        fn read(&mut self, outcome: &Outcome<'_>) {
            self.book.operate(1, outcome.operation.as_slice());
        }

        /// Time goes on; whether the reservation sleeps then.
        fn sleeps_at(&self, now: TimeMs) -> bool {
            while self.live.expire(now, 10) {}
            self.live.shared.holds.find(&Name::of("t", "r")).unwrap().is_asleep()
        }
    }

    #[test]
    fn it_sleeps_once_it_is_over_and_the_log_has_all_of_it() {
        let mut site = site();
        let made = site.reserve();
        assert!(!site.sleeps_at(OVER), "the log has not got it");
        site.read(&made);
        assert!(!site.sleeps_at(OVER), "it is looked at again later");
        let released = site.release();
        assert!(!site.sleeps_at(LATE), "the release is on its way");
        site.read(&released);
        assert!(site.sleeps_at(LATE));
        let again = site.reserve();
        assert_eq!((again.decision, again.operation, site.sleeps_at(LATE)), (made.decision, None, true));
        assert_eq!((site.release().decision, site.sleeps_at(LATE)), (released.decision, true));
    }

    #[test]
    fn it_sleeps_once_what_was_decided_about_it_never_reaches_the_log() {
        let mut site = site();
        let made = site.reserve();
        site.read(&made);
        site.release();
        assert!(!site.sleeps_at(LATE));
        assert!(site.sleeps_at(LONG_OVER));
    }

    #[test]
    fn one_that_has_ended_sleeps_where_the_log_brings_it() {
        let (mut site, mut other) = (site(), site());
        for decided in [site.reserve(), site.release()] {
            site.read(&decided);
        }
        assert!(site.sleeps_at(NOW), "long before its time is over");
        other.book.restore(&site.book.take_dirty(|| {})).unwrap();
        assert!(other.sleeps_at(NOW));
        assert!(other.live.is_booked("t", "r") && other.reserve().operation.is_none());
    }

    #[test]
    fn one_that_somebody_has_in_hand_is_the_one_that_sleeps() {
        let mut site = site();
        let made = site.reserve();
        site.read(&made);
        let in_hand = site.live.shared.holds.find(&Name::of("t", "r")).unwrap();
        assert!(site.sleeps_at(OVER));
        assert!(site.release().operation.is_some());
        assert!(!in_hand.is_asleep(), "woken, wherever it is looked at");
    }

    #[test]
    fn one_that_the_log_never_had_is_forgotten_once_nobody_has_it_in_hand() {
        let site = site();
        site.reserve();
        while site.live.expire(OVER, 10) {}
        let in_hand = site.live.shared.holds.find(&Name::of("t", "r"));
        while site.live.expire(LATE, 10) {}
        assert_eq!(site.live.reservations(), 1);
        drop(in_hand);
        while site.live.expire(LONG_OVER, 10) {}
        assert_eq!(site.live.reservations(), 0);
    }
}
