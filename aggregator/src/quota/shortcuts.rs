//! Shortcuts: from (tenant, meter) to the gate that a question of one item passes, with
//! all that its decision reads in one cache line besides the word's own.
//!
//! A shortcut says what the tenant's standing says, and no longer than that. Whoever
//! finds none goes the long way and leaves one here. Nothing here is the only place of
//! anything, and nobody waits here for a place.

use std::cell::Cell;
use std::fmt;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use foldhash::SharedSeed;
use foldhash::fast::FoldHasher;
use odometer_schemas::time::TimeMs;
use thread_local::ThreadLocal;

use super::places::{Kept, Key, Shortcut, Table};
use super::sync::{AtomicU64, Mutex, MutexGuard, Ordering, PoisonError};
use super::words::Words;

/// Tenants share these counters of changes: they stay in a core's cache, and a change
/// voids one shortcut in so many.
const CHANGES: usize = 1 << CHANGES_BITS;
const CHANGES_BITS: u32 = 12;

/// All shortcuts of one partition.
#[derive(Debug)]
pub(super) struct Shortcuts {
    /// What each thread looks through, without a lock and without a count that threads
    /// share.
    seen: ThreadLocal<Seen>,
    /// That of `newest`, where a decision finds it.
    generation: AtomicU64,
    /// How often a tenant's terms changed; each counts for many tenants.
    changes: Box<[AtomicU32; CHANGES]>,
    keys: Keys,
    words: Arc<Words>,
    newest: Mutex<Newest>,
}

/// The table that a thread saw last; none while it looks into it.
#[derive(Default)]
struct Seen(Cell<Option<Arc<Table>>>);

impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seen")
    }
}

#[derive(Debug)]
struct Newest {
    table: Arc<Table>,
    /// Tables that were replaced: taken apart by whoever has the time, once no thread has
    /// them in hand. Each thread has one at most.
    before: Vec<Arc<Table>>,
}

/// What keys are made by: no tenant can choose a name that gets another's key.
#[derive(Debug)]
struct Keys {
    tenant: [Seed; 2],
    meter: SharedSeed,
}

/// Of one hash of names.
#[derive(Debug)]
struct Seed {
    ends: [u64; 2],
    others: SharedSeed,
}

impl Seed {
    fn random() -> Self {
        Self { ends: [random(), random()], others: SharedSeed::from_u64(random()) }
    }

    /// The hash of a name that its two ends and its length say.
    #[inline]
    fn of_ends(&self, first: u64, last: u64, length: usize) -> u64 {
        let product = u128::from(first ^ self.ends[0].rotate_right(length as u32)) * u128::from(last ^ self.ends[1]);
        product as u64 ^ (product >> 64) as u64
    }

    fn of_others(&self, name: &str) -> u64 {
        hash(self.ends[0], &self.others, name)
    }
}

impl Keys {
    fn random() -> Self {
        Self { tenant: [Seed::random(), Seed::random()], meter: SharedSeed::from_u64(random()) }
    }

    /// Two hashes of a tenant that know nothing of each other: tenants that are the same
    /// to one are not to the other.
    #[inline]
    fn of_tenant(&self, tenant: &str) -> (u64, u64) {
        let bytes = tenant.as_bytes();
        match (bytes.first_chunk(), bytes.last_chunk()) {
            (Some(first), Some(last)) if bytes.len() <= 16 => {
                let (first, last) = (u64::from_le_bytes(*first), u64::from_le_bytes(*last));
                let of_ends = |seed: &Seed| seed.of_ends(first, last, bytes.len());
                (of_ends(&self.tenant[0]), of_ends(&self.tenant[1]))
            }
            _ => self.of_long_or_short(tenant),
        }
    }

    #[inline(never)]
    fn of_long_or_short(&self, tenant: &str) -> (u64, u64) {
        (self.tenant[0].of_others(tenant), self.tenant[1].of_others(tenant))
    }

    /// The first of a tenant's hashes and a meter.
    #[inline]
    fn of_both(&self, of_tenant: u64, meter: &str) -> u64 {
        hash(of_tenant, &self.meter, meter)
    }
}

#[inline]
fn hash(start: u64, seed: &SharedSeed, name: &str) -> u64 {
    let mut hasher = FoldHasher::with_seed(start, seed);
    hasher.write(name.as_bytes());
    hasher.finish()
}

/// Which counter of changes is a tenant's, and from there on the lower bits of what it says.
#[inline]
fn stamp(of_tenant: u64, changes: u32) -> u32 {
    (of_tenant as u32 & (CHANGES as u32 - 1)) | (changes << CHANGES_BITS)
}

fn random() -> u64 {
    RandomState::new().hash_one(0)
}

impl Shortcuts {
    /// None yet; of what decides on these words.
    pub(super) fn new(words: &Arc<Words>) -> Self {
        let table = Table::new(words, 0);
        Self {
            seen: ThreadLocal::new(),
            generation: AtomicU64::new(table.generation),
            changes: Box::new([const { AtomicU32::new(0) }; CHANGES]),
            keys: Keys::random(),
            words: Arc::clone(words),
            newest: Mutex::new(Newest { table: Arc::new(table), before: Vec::new() }),
        }
    }

    /// What stands for a (tenant, meter) now. To be asked before anything is read that
    /// a shortcut is made of.
    #[inline]
    pub(super) fn key(&self, tenant: &str, meter: &str) -> Key {
        let (of_tenant, other) = self.keys.of_tenant(tenant);
        let of_both = self.keys.of_both(of_tenant, meter);
        let changes = self.changes_of(of_tenant).load(Ordering::Acquire);
        let check = of_both.wrapping_add(changes.into());
        Key::new((other ^ of_both.rotate_left(32), check), stamp(of_tenant, changes))
    }

    /// Whether a key is of terms that are in force, or were so many changes ago that its
    /// stamp is the same again: then it is only kept for longer.
    fn is_asked_for(&self, key: Key) -> bool {
        let of_tenant = u64::from(key.stamp);
        key.stamp == stamp(of_tenant, self.changes_of(of_tenant).load(Ordering::Acquire))
    }

    /// Runs `look` on the shortcut, if it is found and holds at `now`.
    #[inline]
    pub(super) fn find<T>(&self, key: Key, now: TimeMs, look: impl FnOnce(&Shortcut<'_>) -> T) -> Option<T> {
        self.with_table(|table| table.find(key, now, look))
    }

    /// As [`find`](Self::find) of each of several: what has to come from memory for one is
    /// on its way while another is looked at.
    #[inline]
    pub(super) fn find_each(&self, keys: &[Key], now: TimeMs, mut look: impl FnMut(usize, Option<&Shortcut<'_>>)) {
        self.with_table(|table| {
            for (at, key) in keys.iter().enumerate() {
                if table.find(*key, now, |shortcut| look(at, Some(shortcut))).is_none() {
                    look(at, None);
                }
            }
        });
    }

    /// Leaves a shortcut that was made by `version` of the catalogue.
    pub(super) fn leave(&self, shortcut: Kept, version: u64) {
        let current = Some(self.table()).filter(|table| table.version == version);
        if let Some(table) = current {
            table.leave(shortcut);
        }
    }

    /// A tenant's terms have changed: once this returns, no shortcut says what was
    /// before.
    pub(super) fn void_tenant(&self, tenant: &str) {
        let (of_tenant, _) = self.keys.of_tenant(tenant);
        self.changes_of(of_tenant).fetch_add(1, Ordering::AcqRel);
    }

    /// The catalogue has changed, and is at `version` now: the same for all tenants.
    pub(super) fn void_all(&self, version: u64) {
        let mut newest = self.newest();
        if newest.table.version < version {
            self.replace(&mut newest, Table::new(&self.words, version));
        }
    }

    /// Makes room where it is wanted, for `tenants` at most, and lets go of what is
    /// over. Takes its time, and no decision waits for it.
    pub(super) fn tend(&self, tenants: usize, now: TimeMs) {
        let table = self.table();
        let mut newest = self.newest();
        let vain: Vec<_> = newest.before.extract_if(.., |table| Arc::strong_count(table) == 1).collect();
        drop(newest);
        drop(vain);
        if !table.is_crowded(now) {
            return;
        }
        let next = table.cleared(tenants, now, |key| self.is_asked_for(key));
        newest = self.newest();
        // Else it was voided meanwhile, and what was copied with it.
        if Arc::ptr_eq(&newest.table, &table) {
            self.replace(&mut newest, next);
        }
    }

    /// Runs `look` on the newest table.
    #[inline]
    fn with_table<T>(&self, look: impl FnOnce(&Arc<Table>) -> T) -> T {
        let Seen(seen) = self.seen.get_or_default();
        let table = match seen.take() {
            Some(table) if table.generation == self.generation.load(Ordering::Acquire) => table,
            // Or another look of this thread is not over.
            _ => self.newest_table(),
        };
        let looked = look(&table);
        seen.set(Some(table));
        looked
    }

    #[cold]
    #[inline(never)]
    fn newest_table(&self) -> Arc<Table> {
        Arc::clone(&self.newest().table)
    }

    fn table(&self) -> Arc<Table> {
        self.with_table(Arc::clone)
    }

    fn newest(&self) -> MutexGuard<'_, Newest> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Once it returns, no look that begins is into the old table.
    fn replace(&self, newest: &mut Newest, mut next: Table) {
        let generation = newest.table.generation + 1;
        next.generation = generation;
        let replaced = std::mem::replace(&mut newest.table, Arc::new(next));
        newest.before.push(replaced);
        self.generation.store(generation, Ordering::Release);
    }

    #[inline]
    fn changes_of(&self, tenant: u64) -> &AtomicU32 {
        &self.changes[tenant as usize & (CHANGES - 1)]
    }
}

#[cfg(test)]
mod tests {
    use odometer_schemas::quota::{Decision, Limit, Plan};
    use odometer_schemas::time::Interval;

    use super::super::account::{Counter, Gate, Terms};
    use super::*;
    use crate::cells::Cell as Counted;

    const PERIOD: Interval = Interval { start: TimeMs(0), end: TimeMs(10_000) };

    fn site() -> (Arc<Words>, Shortcuts, Arc<Counted>) {
        let words = Arc::default();
        let (shortcuts, cell) = (Shortcuts::new(&words), Arc::new(Counted::new(PERIOD, &words)));
        (words, shortcuts, cell)
    }

    fn gate(cell: &Arc<Counted>, limit: i64) -> Arc<Gate> {
        let plan = Plan { name: "p".into(), limits: vec![Limit::usage("m", Some(limit))], is_default: true };
        let policy = Arc::clone(Terms::of_plan(Some(&plan)).policies().next().unwrap());
        Arc::new(Gate { policy, counter: Counter::Total(Arc::clone(cell)), period: Some(PERIOD) })
    }

    fn leave(shortcuts: &Shortcuts, number: usize, cell: &Arc<Counted>) {
        leave_limited(shortcuts, number, &gate(cell, 1));
    }

    fn leave_limited(shortcuts: &Shortcuts, number: usize, gate: &Arc<Gate>) {
        let key = shortcuts.key(&format!("t{number}"), "m");
        shortcuts.leave(Kept::new(key, gate, PERIOD), 0);
    }

    fn finds(shortcuts: &Shortcuts, number: usize, now: TimeMs) -> bool {
        shortcuts.find(shortcuts.key(&format!("t{number}"), "m"), now, |_| ()).is_some()
    }

    #[test]
    fn a_table_grows_and_lets_go_of_what_is_over() {
        let (_words, shortcuts, cell) = site();
        for _ in 0..4 {
            (0..5_000).for_each(|number| leave(&shortcuts, number, &cell));
            shortcuts.tend(5_000, PERIOD.start);
        }
        assert!((0..5_000).all(|number| finds(&shortcuts, number, PERIOD.start)));
        assert!(!finds(&shortcuts, 1, PERIOD.end) && !finds(&shortcuts, 5_000, PERIOD.start));
        assert_eq!(shortcuts.table().len(), 8_000, "no more room than is wanted");
        (0..30_000).for_each(|number| leave(&shortcuts, number, &cell));
        (0..2).for_each(|_| shortcuts.tend(30_000, PERIOD.end));
        assert_eq!(Arc::strong_count(&cell), 1, "no cell is kept by a shortcut that is over");
    }

    #[test]
    fn a_table_is_made_anew_once_three_quarters_are_filled() {
        const PLACES: usize = 1 << 10;
        let (_words, shortcuts, cell) = site();
        let fill = |tenants: usize| {
            (0..2).for_each(|_| (0..tenants).for_each(|number| leave(&shortcuts, number, &cell)));
            shortcuts.tend(tenants, PERIOD.start);
            shortcuts.table().len()
        };
        assert_eq!(fill(PLACES * 5 / 8), PLACES, "there is room enough, and nobody is left twice");
        assert!((0..PLACES * 5 / 8).all(|number| finds(&shortcuts, number, PERIOD.start)));
        assert!(fill(PLACES * 3 / 4 + 1) > PLACES);
        assert!((0..PLACES * 5 / 8).all(|number| finds(&shortcuts, number, PERIOD.start)));
    }

    #[test]
    fn what_was_voided_takes_no_room_for_ever() {
        let (_words, shortcuts, cell) = site();
        for _ in 0..4_000 {
            leave(&shortcuts, 1, &cell);
            shortcuts.void_tenant("t1");
            shortcuts.tend(1, PERIOD.start);
        }
        // Found no place beside those before, mostly, and asked again and again.
        (0..1 << 10).for_each(|_| leave(&shortcuts, 1, &cell));
        shortcuts.tend(1, PERIOD.start);
        leave(&shortcuts, 1, &cell);
        assert!(finds(&shortcuts, 1, PERIOD.start));
        assert_eq!(shortcuts.table().len(), 1 << 10);
    }

    #[test]
    fn what_is_voided_is_not_found_and_nothing_older_is_left() {
        let (_words, shortcuts, cell) = site();
        leave(&shortcuts, 1, &cell);
        shortcuts.void_tenant("t1");
        assert!(!finds(&shortcuts, 1, PERIOD.start));
        leave(&shortcuts, 1, &cell);
        assert!(finds(&shortcuts, 1, PERIOD.start));
        shortcuts.void_all(1);
        leave(&shortcuts, 1, &cell);
        assert!(!finds(&shortcuts, 1, PERIOD.start), "made by an older catalogue");
        shortcuts.tend(1, PERIOD.start);
        assert_eq!(Arc::strong_count(&cell), 1, "the table before is taken apart");
    }

    #[test]
    fn a_shortcut_never_reads_the_word_of_another() {
        let (words, shortcuts, cell) = site();
        let number = cell.own_word().number();
        let says = |now| shortcuts.find(shortcuts.key("t1", "m"), now, |shortcut| shortcut.check(1));
        leave(&shortcuts, 1, &cell);
        drop(cell);
        // Whoever comes next has used up what it may.
        let next = words.own();
        next.move_by(1);
        assert_ne!(next.number(), number, "as long as it can be asked for");
        assert_eq!(says(PERIOD.start), Some(Decision::Allow));
        shortcuts.void_all(1);
        assert_eq!(says(PERIOD.start), None);
        shortcuts.tend(1, PERIOD.start);
        assert_eq!(words.own().number(), number, "nobody can ask for it any more");
    }

    #[test]
    fn of_more_bounds_than_come_first_each_is_found() {
        let (_words, shortcuts, cell) = site();
        (1..=400).for_each(|limit| leave_limited(&shortcuts, limit, &gate(&cell, limit as i64)));
        for limit in 1..=400 {
            let key = shortcuts.key(&format!("t{limit}"), "m");
            let says = |amount| shortcuts.find(key, PERIOD.start, |shortcut| shortcut.check(amount));
            let told = [limit as i64, 2 * limit as i64].map(says);
            assert_eq!(told, [Some(Decision::Allow), Some(Decision::Deny)], "{limit}");
            assert!(!finds(&shortcuts, limit, TimeMs(-1)) && !finds(&shortcuts, limit, PERIOD.end));
        }
    }

    #[test]
    fn a_gate_on_words_of_elsewhere_is_left_nowhere() {
        let (_words, shortcuts, _cell) = site();
        leave(&shortcuts, 1, &Arc::new(Counted::new(PERIOD, &Arc::default())));
        assert!(!finds(&shortcuts, 1, PERIOD.start));
    }
}
