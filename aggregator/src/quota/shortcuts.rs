//! Shortcuts: from (tenant, meter) to the gate that a question of one item passes, with
//! all that its decision reads in one cache line besides the word's own.
//!
//! A shortcut says what the tenant's standing says, and no longer than that. Whoever
//! finds none goes the long way and leaves one here. Nothing here is the only place of
//! anything, and nobody waits here for a place.

use std::cell::{Ref, RefCell};
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::atomic::{AtomicU32, AtomicUsize};
use std::sync::{Arc, OnceLock};

use foldhash::SharedSeed;
use foldhash::fast::FoldHasher;
use odometer_schemas::quota::Decision;
use odometer_schemas::time::{Interval, TimeMs};
use thread_local::ThreadLocal;

use super::account::{Counter, Gate};
use super::sync::{AtomicU64, Mutex, MutexGuard, Ordering, PoisonError};
use super::word::Word;
use crate::cells::Cell;

/// Places of the first table: nothing that a partition without questions would notice.
const PLACES_MIN: usize = 1 << 10;
/// Places of one partition's table at most, at a cache line each. Half a million
/// tenants decide by shortcuts then; whoever finds no place goes the long way.
const PLACES_MAX: usize = 1 << 21;
/// A table has one shortcut for so many places: then nine of ten lie where they are
/// first looked for, and the processor guesses right what comes next.
const PLACES_EACH: usize = 4;
/// Places that are looked at for one key; hardly any needs more than a few.
const WINDOW: usize = 16;
/// A table that cannot grow is cleared of what is over at most this often.
const CLEARED_EVERY_MS: i64 = 60_000;
/// Tenants share these counters of changes: they stay in a core's cache, and a change
/// voids one shortcut in so many.
const CHANGES: usize = 1 << 12;
/// Odd, so that different numbers stay different; its bits look random.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

const _: () = assert!(size_of::<OnceLock<Shortcut>>() == 64, "a place is one cache line");

/// All shortcuts of one partition.
#[derive(Debug)]
pub(super) struct Shortcuts {
    /// What each thread looks through, without a lock and without a count that threads
    /// share.
    seen: ThreadLocal<RefCell<Seen>>,
    /// That of `newest`, where a decision finds it.
    generation: AtomicU64,
    /// How often a tenant's terms changed; each counts for many tenants.
    changes: Box<[AtomicU32]>,
    halves: [Half; 2],
    newest: Mutex<Newest>,
}

/// The table that a thread saw last.
#[derive(Clone, Debug, Default)]
struct Seen {
    /// Zero: none yet.
    generation: u64,
    table: Option<Arc<Table>>,
}

#[derive(Debug)]
struct Newest {
    /// Raised with every table.
    generation: u64,
    table: Arc<Table>,
    /// Tables that were replaced: taken apart by whoever has the time, once no thread has
    /// them in hand. Each thread has one at most.
    before: Vec<Arc<Table>>,
}

/// Open addressing, linear probing; a place is filled once.
#[derive(Debug)]
struct Table {
    places: Box<[OnceLock<Shortcut>]>,
    /// Of the catalogue that its shortcuts were made by.
    version: u64,
    /// When it was last cleared, Unix milliseconds.
    cleared_ms: i64,
    filled: Filled,
}

/// Apart from what every decision reads.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Filled {
    places: AtomicUsize,
    /// Shortcuts that found no place; one may have come again and again.
    refused: AtomicUsize,
}

/// One half of every key: no tenant can choose a name that gets another's key.
#[derive(Debug)]
struct Half {
    start: u64,
    shared: SharedSeed,
}

/// What a question of one item needs.
#[derive(Clone, Debug)]
pub(super) struct Shortcut {
    key: Key,
    start_s: u32,
    end_s: u32,
    /// The policy's; the largest number for none.
    limit: i64,
    hard_limit: i64,
    /// The gate's counter, if that is a live total.
    cell: Option<Arc<Cell>>,
    gate: Arc<Gate>,
}

/// What stands for a (tenant, meter) and for how often the tenant's terms have changed:
/// after the next change nobody asks for it any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key([u64; 2]);

impl Shortcut {
    /// The shortcut to a gate in a `period`; `None` where that cannot be told in
    /// seconds.
    pub(super) fn new(key: Key, gate: &Arc<Gate>, period: Interval) -> Option<Self> {
        let cell = match &gate.counter {
            Counter::Total(cell) => Some(Arc::clone(cell)),
            Counter::Own(_) => None,
        };
        Some(Self {
            key,
            start_s: seconds(period.start)?,
            end_s: seconds(period.end)?,
            limit: gate.policy.limit.unwrap_or(i64::MAX),
            hard_limit: gate.policy.hard_limit,
            cell,
            gate: Arc::clone(gate),
        })
    }

    pub(super) fn gate(&self) -> Arc<Gate> {
        Arc::clone(&self.gate)
    }

    /// What the gate would say.
    #[inline]
    pub(super) fn check(&self, amount: i64) -> Decision {
        match self.word().check(amount, self.hard_limit) {
            Ok(whole) if whole > self.limit => Decision::Grace,
            Ok(_) => Decision::Allow,
            Err(_) => Decision::Deny,
        }
    }

    #[inline]
    fn word(&self) -> &Word {
        match &self.cell {
            Some(cell) => cell.word(),
            None => self.gate.counter.word(),
        }
    }

    #[inline]
    fn is_within(&self, now: TimeMs) -> bool {
        (i64::from(self.start_s)..i64::from(self.end_s)).contains(&now.0.div_euclid(1000))
    }
}

/// A time as shortcuts tell it: whole seconds, up to the year 2106.
fn seconds(time: TimeMs) -> Option<u32> {
    (time.0.rem_euclid(1000) == 0).then(|| u32::try_from(time.0.div_euclid(1000)).ok())?
}

impl Half {
    fn random() -> Self {
        let random = || RandomState::new().hash_one(0);
        Self { start: random(), shared: SharedSeed::from_u64(random()) }
    }

    /// Of the tenant alone, and of both.
    #[inline]
    fn of(&self, tenant: &str, meter: &str) -> (u64, u64) {
        let mut hasher = FoldHasher::with_seed(self.start, &self.shared);
        hasher.write(tenant.as_bytes());
        let of_tenant = hasher.finish();
        hasher.write(meter.as_bytes());
        (of_tenant, hasher.finish())
    }
}

impl Shortcuts {
    /// None yet.
    pub(super) fn new() -> Self {
        let table = Arc::new(Table::new(PLACES_MIN, 0, i64::MIN));
        Self {
            seen: ThreadLocal::new(),
            generation: AtomicU64::new(1),
            changes: (0..CHANGES).map(|_| AtomicU32::new(0)).collect(),
            halves: [Half::random(), Half::random()],
            newest: Mutex::new(Newest { generation: 1, table, before: Vec::new() }),
        }
    }

    /// What stands for a (tenant, meter) now. To be asked before anything is read that
    /// a shortcut is made of.
    #[inline]
    pub(super) fn key(&self, tenant: &str, meter: &str) -> Key {
        let (of_tenant, first) = self.halves[0].of(tenant, meter);
        let (_, second) = self.halves[1].of(tenant, meter);
        let changes = u64::from(self.changes_of(of_tenant).load(Ordering::Acquire));
        Key([first, second ^ changes.wrapping_mul(SPREAD)])
    }

    /// Runs `look` on the shortcut, if it is found and holds at `now`.
    #[inline]
    pub(super) fn find<T>(&self, key: Key, now: TimeMs, look: impl FnOnce(&Shortcut) -> T) -> Option<T> {
        self.seen()?.table.as_ref()?.find(key, now).map(look)
    }

    /// As [`find`](Self::find) of each of several: what has to come from memory for one is
    /// on its way while another is looked at.
    #[inline]
    pub(super) fn find_each(&self, keys: &[Key], now: TimeMs, mut look: impl FnMut(usize, Option<&Shortcut>)) {
        let seen = self.seen();
        let table = seen.as_ref().and_then(|seen| seen.table.as_ref());
        for (at, key) in keys.iter().enumerate() {
            look(at, table.and_then(|table| table.find(*key, now)));
        }
    }

    /// Leaves a shortcut that was made by `version` of the catalogue.
    pub(super) fn leave(&self, shortcut: Shortcut, version: u64) {
        if let Some(table) = self.table().filter(|table| table.version == version) {
            table.leave(shortcut);
        }
    }

    /// A tenant's terms have changed: once this returns, no shortcut says what was
    /// before.
    pub(super) fn void_tenant(&self, tenant: &str) {
        let (of_tenant, _) = self.halves[0].of(tenant, "");
        self.changes_of(of_tenant).fetch_add(1, Ordering::AcqRel);
    }

    /// The catalogue has changed, and is at `version` now: the same for all tenants.
    pub(super) fn void_all(&self, version: u64) {
        let mut newest = self.newest();
        if newest.table.version < version {
            self.replace(&mut newest, Table::new(PLACES_MIN, version, i64::MIN));
        }
    }

    /// Makes room where it is wanted, for `tenants` at most, and lets go of what is
    /// over. Takes its time, and no decision waits for it.
    pub(super) fn tend(&self, tenants: usize, now: TimeMs) {
        let Some(table) = self.table() else { return };
        let mut newest = self.newest();
        let vain: Vec<_> = newest.before.extract_if(.., |table| Arc::strong_count(table) == 1).collect();
        drop(newest);
        drop(vain);
        if !table.is_crowded(now) {
            return;
        }
        let next = table.cleared(tenants, now);
        newest = self.newest();
        // Else it was voided meanwhile, and what was copied with it.
        if Arc::ptr_eq(&newest.table, &table) {
            self.replace(&mut newest, next);
        }
    }

    /// What this thread looks through; none while another look of it is not over.
    #[inline]
    fn seen(&self) -> Option<Ref<'_, Seen>> {
        let seen = self.seen.get_or_default();
        if seen.try_borrow().ok()?.generation != self.generation.load(Ordering::Acquire) {
            let newest = self.newest();
            let (generation, table) = (newest.generation, Some(Arc::clone(&newest.table)));
            *seen.try_borrow_mut().ok()? = Seen { generation, table };
        }
        seen.try_borrow().ok()
    }

    fn table(&self) -> Option<Arc<Table>> {
        self.seen()?.table.clone()
    }

    fn newest(&self) -> MutexGuard<'_, Newest> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Once it returns, no look that begins is into the old table.
    fn replace(&self, newest: &mut Newest, next: Table) {
        let replaced = std::mem::replace(&mut newest.table, Arc::new(next));
        newest.before.push(replaced);
        newest.generation += 1;
        self.generation.store(newest.generation, Ordering::Release);
    }

    #[inline]
    fn changes_of(&self, tenant: u64) -> &AtomicU32 {
        &self.changes[tenant as usize & (CHANGES - 1)]
    }
}

impl Table {
    fn new(places: usize, version: u64, cleared_ms: i64) -> Self {
        let places = (0..places).map(|_| OnceLock::new()).collect();
        Self { places, version, cleared_ms, filled: Filled::default() }
    }

    #[inline]
    fn find(&self, key: Key, now: TimeMs) -> Option<&Shortcut> {
        for at in 0..WINDOW {
            let shortcut = self.place(key, at).get()?;
            if shortcut.key == key && shortcut.is_within(now) {
                return Some(shortcut);
            }
        }
        None
    }

    fn leave(&self, mut shortcut: Shortcut) {
        let key = shortcut.key;
        for at in 0..WINDOW {
            match self.place(key, at).set(shortcut) {
                Ok(()) => {
                    self.filled.places.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                Err(back) => shortcut = back,
            }
            // It is there already: another thread came first.
            let is_same = |there: &Shortcut| there.key == key && there.start_s == shortcut.start_s;
            if self.place(key, at).get().is_some_and(is_same) {
                return;
            }
        }
        self.filled.refused.fetch_add(1, Ordering::Relaxed);
    }

    #[inline]
    fn place(&self, key: Key, at: usize) -> &OnceLock<Shortcut> {
        &self.places[(key.0[0] as usize).wrapping_add(at) & (self.places.len() - 1)]
    }

    fn is_crowded(&self, now: TimeMs) -> bool {
        let Filled { places, refused } = &self.filled;
        let wanted = places.load(Ordering::Relaxed).saturating_add(refused.load(Ordering::Relaxed));
        let may_grow = self.places.len() < PLACES_MAX;
        wanted > self.places.len() / PLACES_EACH
            && (may_grow || now.0.saturating_sub(self.cleared_ms) >= CLEARED_EVERY_MS)
    }

    /// What of it is not over, and room for what found none.
    fn cleared(&self, tenants: usize, now: TimeMs) -> Self {
        let live = || self.places.iter().filter_map(OnceLock::get).filter(|shortcut| shortcut.is_within(now));
        let wanted = live().count() + self.filled.refused.load(Ordering::Relaxed).min(tenants);
        let places = (PLACES_EACH * wanted).next_power_of_two().clamp(PLACES_MIN, PLACES_MAX);
        let next = Self::new(places, self.version, now.0);
        live().for_each(|shortcut| next.leave(shortcut.clone()));
        next
    }
}

#[cfg(test)]
mod tests {
    use odometer_schemas::quota::{Limit, Plan};

    use super::super::account::Terms;
    use super::*;

    const PERIOD: Interval = Interval { start: TimeMs(0), end: TimeMs(10_000) };

    fn gate(cell: &Arc<Cell>) -> Arc<Gate> {
        let plan = Plan { name: "p".into(), limits: vec![Limit::usage("m", Some(1))], is_default: true };
        let policy = Arc::clone(Terms::of_plan(Some(&plan)).policies().next().unwrap());
        Arc::new(Gate { policy, counter: Counter::Total(Arc::clone(cell)), period: Some(PERIOD) })
    }

    fn leave(shortcuts: &Shortcuts, number: usize, cell: &Arc<Cell>) {
        let key = shortcuts.key(&format!("t{number}"), "m");
        shortcuts.leave(Shortcut::new(key, &gate(cell), PERIOD).unwrap(), 0);
    }

    fn finds(shortcuts: &Shortcuts, number: usize, now: TimeMs) -> bool {
        shortcuts.find(shortcuts.key(&format!("t{number}"), "m"), now, |_| ()).is_some()
    }

    #[test]
    fn a_table_grows_and_lets_go_of_what_is_over() {
        let (shortcuts, cell) = (Shortcuts::new(), Arc::new(Cell::new(PERIOD)));
        for _ in 0..4 {
            (0..5_000).for_each(|number| leave(&shortcuts, number, &cell));
            shortcuts.tend(5_000, PERIOD.start);
        }
        assert!((0..5_000).all(|number| finds(&shortcuts, number, PERIOD.start)));
        assert!(!finds(&shortcuts, 1, PERIOD.end) && !finds(&shortcuts, 5_000, PERIOD.start));
        assert!(shortcuts.table().unwrap().places.len() <= 65_536, "no more room than is wanted");
        (0..30_000).for_each(|number| leave(&shortcuts, number, &cell));
        (0..2).for_each(|_| shortcuts.tend(30_000, PERIOD.end));
        assert_eq!(Arc::strong_count(&cell), 1, "no cell is kept by a shortcut that is over");
    }

    #[test]
    fn what_is_voided_is_not_found_and_nothing_older_is_left() {
        let (shortcuts, cell) = (Shortcuts::new(), Arc::new(Cell::new(PERIOD)));
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
}
