//! One table of shortcuts: from a key to the number of a word, and to what bounds that.
//!
//! What every decision reads is packed four to a cache line. Beside it, by the same
//! place, stands what keeps the word its owner's for as long as the table is there, so a
//! number that is found here never is another's. A place is filled once and never
//! emptied.

use std::collections::HashMap;
use std::hint::select_unpredictable;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, OnceLock};

use odometer_schemas::quota::Decision;
use odometer_schemas::time::{Interval, TimeMs};

use super::account::{Counter, Gate};
use super::blocks::{Blocks, number_of};
use super::sync::{AtomicI64, AtomicU64, Mutex, Ordering, PoisonError};
use super::word::Word;
use super::words::Words;

/// Places of the first table: nothing that a partition without questions would notice.
const PLACES_MIN: usize = 1 << 10;
/// Places of one partition's table at most, at 80 bytes each, of which decisions read 16.
/// A million and a half of tenants decide by shortcuts then; whoever finds no place goes the
/// long way.
const PLACES_MAX: usize = 1 << 21;
/// Places on one cache line.
const LINE: usize = 4;
/// A table is made so full that some 90 of 100 shortcuts lie on the line where they are
/// first looked for. Fuller would send more of them on, and emptier would keep less of the
/// table in a core's cache.
const FULL_AT_FIRST: Share = Share { of: 8, filled: 5 };
/// A fifth more tenants later it is made anew: 85 of 100 then, and one of 100,000 finds no
/// place.
const FULL_AT_LAST: Share = Share { of: 4, filled: 3 };
/// Plans and periods of one partition are hardly ever more; the tenants whose bounds come
/// after them, by terms of their own, are looked up the slower way.
const BOUNDS_FIRST: usize = 255;
/// Lines that are looked at for one key at most: up to one that is not full.
const WINDOW: usize = 32;
/// A table that cannot grow is cleared of what is over at most this often.
const CLEARED_EVERY_MS: i64 = 60_000;

/// Open addressing, line by line.
#[derive(Debug)]
pub(super) struct Table {
    lines: Box<[Line]>,
    /// By place, what is not read on the way.
    kept: Box<[Keep]>,
    bounds: BoundsTable,
    words: Arc<Words>,
    /// Another for every table of a partition.
    pub(super) generation: u64,
    /// Of the catalogue that its shortcuts were made by.
    pub(super) version: u64,
    /// When it was last cleared, Unix milliseconds.
    cleared_ms: i64,
    filled: Filled,
}

/// How full a table is: so many places filled of so many.
struct Share {
    of: usize,
    filled: usize,
}

impl Share {
    fn of_places(&self, places: usize) -> usize {
        places * self.filled / self.of
    }

    /// Whole lines of places that so many shortcuts fill to this share.
    fn places_for(&self, shortcuts: usize) -> usize {
        (shortcuts * self.of / self.filled).next_multiple_of(LINE)
    }
}

/// Four places, filled one after the other.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Line {
    /// Of the keys; zero for none.
    checks: [AtomicU64; LINE],
    /// Which word, and which bounds. There before the check is.
    what: [AtomicU64; LINE],
}

const _: () = assert!(size_of::<Line>() == 64, "four places are one cache line");

/// Which word, and which bounds: from the lowest bit on 32 of the word's number, 24 of
/// that of the bounds, and 8 of where among the first the bounds are, so that one shift
/// finds them.
#[derive(Clone, Copy, Debug)]
struct What(u64);

const _: () = assert!(PLACES_MAX <= 1 << 24, "there are no more bounds than places");
const _: () = assert!(BOUNDS_FIRST < 1 << 8, "one of what eight bits can say is none of the first");

/// Where a place keeps what is not read on the way; one line, for those who need it after
/// all.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Keep(OnceLock<Kept>);

const _: () = assert!(size_of::<Keep>() == 64, "what is kept is one cache line");

/// Apart from what every decision reads.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Filled {
    places: AtomicUsize,
    /// Shortcuts that found no place; one may have come again and again.
    refused: AtomicUsize,
}

/// What stands for a (tenant, meter) and for how often the tenant's terms have changed:
/// after the next change nobody asks for it any more.
///
/// Another key is taken for it if the checks are the same, 64 bits, and the lines at
/// most [`WINDOW`] apart. No tenant can aim at that: both are of hashes whose seeds
/// nobody outside knows, and the line is also of one that the check knows nothing of. By
/// chance, with a million tenants on 400,000 lines, two of them meet like that in one of
/// 2^37 tables; with 100,000 on 40,000, in one of 2^41. Of two meters of the same tenant
/// the check alone tells: one of 2^64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    line: u32,
    /// By which the maker of keys knows whether anybody asks for it any more.
    pub(super) stamp: u32,
    /// Never zero.
    check: u64,
}

/// What a limit admits, and when; the same for all tenants of a plan and period. Filled
/// before its number is shown to anyone; nothing holds by one that is not filled.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct Bounds {
    start_ms: AtomicI64,
    /// From the start to the end.
    length_ms: AtomicU64,
    /// The policy's; the largest number for none.
    limit: AtomicI64,
    hard_limit: AtomicI64,
    /// The smaller of the two: what is not beyond it needs no second look.
    freely: AtomicI64,
}

/// Bounds by number, each once. No more than places, because a place is taken first.
#[derive(Debug)]
struct BoundsTable {
    /// Nearly always all of them. The last is never filled, and stands for those that are
    /// elsewhere.
    first: [Bounds; BOUNDS_FIRST + 1],
    more: Blocks<Bounds>,
    /// By period, limit and hard limit.
    numbers: Mutex<HashMap<[i64; 4], usize>>,
}

/// What a shortcut is made of, and what keeps its word its owner's.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    key: Key,
    period: Interval,
    gate: Arc<Gate>,
    /// That of the gate, which is fetched at the same time.
    counter: Counter,
}

/// What a question of one item needs.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shortcut<'a> {
    /// In a table; what is seldom needed is looked for at its place.
    Found { word: &'a Word, bounds: &'a Bounds, place: (&'a Table, usize) },
    /// Just made.
    New(&'a Kept),
}

impl Key {
    /// The key of two hashes that do not depend on each other.
    #[inline]
    pub(super) fn new((line, check): (u64, u64), stamp: u32) -> Self {
        Self { line: (line >> u32::BITS) as u32, stamp, check: check.max(1) }
    }
}

impl Bounds {
    #[inline]
    fn hold_at(&self, now: TimeMs) -> bool {
        // Whatever is before the start is beyond every end, too.
        let since_start_ms = now.0.wrapping_sub(self.start_ms.load(Ordering::Relaxed)).cast_unsigned();
        since_start_ms < self.length_ms.load(Ordering::Relaxed)
    }

    #[inline]
    fn limits(&self) -> (i64, i64) {
        (self.limit.load(Ordering::Relaxed), self.hard_limit.load(Ordering::Relaxed))
    }

    fn set(&self, [start_ms, end_ms, limit, hard_limit]: [i64; 4]) {
        self.limit.store(limit, Ordering::Relaxed);
        self.freely.store(limit.min(hard_limit), Ordering::Relaxed);
        self.hard_limit.store(hard_limit, Ordering::Relaxed);
        self.start_ms.store(start_ms, Ordering::Relaxed);
        let length_ms = end_ms.saturating_sub(start_ms).max(0).cast_unsigned();
        self.length_ms.store(length_ms, Ordering::Relaxed);
    }
}

impl Kept {
    /// The shortcut to a gate in a `period`.
    pub(super) fn new(key: Key, gate: &Arc<Gate>, period: Interval) -> Self {
        Self { key, period, gate: Arc::clone(gate), counter: gate.counter.clone() }
    }

    /// Period, limit and hard limit.
    fn bounds(&self) -> [i64; 4] {
        let (limit, hard_limit) = self.limits();
        [self.period.start.0, self.period.end.0, limit, hard_limit]
    }

    /// The policy's limit, the largest number for none, and its hard limit.
    fn limits(&self) -> (i64, i64) {
        (self.gate.policy.limit.unwrap_or(i64::MAX), self.gate.policy.hard_limit)
    }
}

impl Shortcut<'_> {
    /// Whose word it is.
    #[inline]
    pub(super) fn gate(&self) -> &Arc<Gate> {
        &self.kept().gate
    }

    /// The gate's counter and word, both at hand before the gate is.
    #[inline]
    pub(super) fn counter(&self) -> (&Counter, &Word) {
        let counter = &self.kept().counter;
        match self {
            Self::Found { word, .. } => (counter, word),
            Self::New(_) => (counter, counter.word()),
        }
    }

    #[inline]
    fn kept(&self) -> &Kept {
        match self {
            Self::Found { place: (table, at), .. } => table.kept[*at].0.get().expect("what is found is kept"),
            Self::New(kept) => kept,
        }
    }

    /// What the gate would say.
    #[inline]
    pub(super) fn check(&self, amount: i64) -> Decision {
        match self {
            Self::Found { word, bounds, .. } => {
                let freely = bounds.freely.load(Ordering::Relaxed);
                match word.check(amount, freely) {
                    Ok(_) => Decision::Allow,
                    Err(_) => decide(word, amount, bounds.limits()),
                }
            }
            Self::New(kept) => decide(kept.counter.word(), amount, kept.limits()),
        }
    }
}

/// By a limit and a hard limit.
#[cold]
fn decide(word: &Word, amount: i64, (limit, hard_limit): (i64, i64)) -> Decision {
    match word.check(amount, hard_limit) {
        Ok(whole) if whole > limit => Decision::Grace,
        Ok(_) => Decision::Allow,
        Err(_) => Decision::Deny,
    }
}

impl BoundsTable {
    fn new() -> Self {
        Self { first: std::array::from_fn(|_| Bounds::default()), more: Blocks::default(), numbers: Mutex::default() }
    }

    /// Those that a place says, or what never holds.
    #[inline]
    fn first(&self, what: What) -> &Bounds {
        &self.first[what.first()]
    }

    fn get(&self, what: What) -> Option<&Bounds> {
        match what.bounds() {
            nth if nth < BOUNDS_FIRST => Some(&self.first[nth]),
            nth => self.more.get(number_of((nth - BOUNDS_FIRST) as u32)),
        }
    }

    /// The number of bounds that stand here from now on.
    fn number(&self, bounds: [i64; 4]) -> usize {
        let mut numbers = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        let nth = numbers.len();
        *numbers.entry(bounds).or_insert_with(|| {
            match nth < BOUNDS_FIRST {
                true => self.first[nth].set(bounds),
                false => self.more.make(number_of((nth - BOUNDS_FIRST) as u32), Bounds::default).set(bounds),
            }
            nth
        })
    }
}

impl What {
    fn new(word: u32, bounds: usize) -> Self {
        let first = bounds.min(BOUNDS_FIRST) as u64;
        Self(first << 56 | (bounds as u64) << 32 | u64::from(word))
    }

    #[inline]
    fn word(self) -> u32 {
        self.0 as u32
    }

    #[inline]
    fn first(self) -> usize {
        (self.0 >> 56) as usize
    }

    fn bounds(self) -> usize {
        (self.0 >> 32) as usize & ((1 << 24) - 1)
    }
}

impl Line {
    /// The only place where a check may stand, of several the one that was filled last.
    /// Without a branch, so that the processor need not wait for the line to know where to
    /// go on.
    #[inline]
    fn place_of(&self, check: u64) -> usize {
        let is_at = |at: usize| self.checks[at].load(Ordering::Relaxed) == check;
        (1..LINE).fold(0, |found, at| select_unpredictable(is_at(at), at, found))
    }

    /// What a place says, if it has this check.
    #[inline]
    fn what(&self, at: usize, check: u64) -> Option<What> {
        let has_check = self.checks[at].load(Ordering::Acquire) == check;
        has_check.then(|| What(self.what[at].load(Ordering::Relaxed)))
    }

    #[inline]
    fn is_full(&self) -> bool {
        self.checks[LINE - 1].load(Ordering::Relaxed) != 0
    }

    fn is_full_of_others(&self, check: u64) -> bool {
        self.is_full() && self.checks.iter().all(|at| at.load(Ordering::Relaxed) != check)
    }
}

impl Table {
    /// An empty one, over these words.
    pub(super) fn new(words: &Arc<Words>, version: u64) -> Self {
        Self::sized(PLACES_MIN, words, version, i64::MIN)
    }

    fn sized(places: usize, words: &Arc<Words>, version: u64, cleared_ms: i64) -> Self {
        Self {
            lines: (0..places / LINE).map(|_| Line::default()).collect(),
            kept: (0..places).map(|_| Keep::default()).collect(),
            bounds: BoundsTable::new(),
            words: Arc::clone(words),
            generation: 0,
            version,
            cleared_ms,
            filled: Filled::default(),
        }
    }

    /// Runs `look` on the shortcut of a key, if there is one that holds at `now`.
    #[inline]
    pub(super) fn find<T>(&self, key: Key, now: TimeMs, look: impl FnOnce(&Shortcut<'_>) -> T) -> Option<T> {
        let number = self.first_line(key);
        let line = &self.lines[number];
        let at = line.place_of(key.check);
        let first = line.what(at, key.check);
        let first = first.and_then(|what| self.shortcut(number * LINE + at, what, (self.bounds.first(what), now)));
        match first {
            Some(shortcut) => Some(look(&shortcut)),
            None => self.find_in_all(key, now, look),
        }
    }

    /// The same for those that are not where they are looked for first.
    #[cold]
    #[inline(never)]
    fn find_in_all<T>(&self, key: Key, now: TimeMs, look: impl FnOnce(&Shortcut<'_>) -> T) -> Option<T> {
        for number in self.lines(key) {
            let line = &self.lines[number];
            let at = |at| {
                let what = line.what(at, key.check)?;
                self.shortcut(number * LINE + at, what, (self.bounds.get(what)?, now))
            };
            if let Some(found) = (0..LINE).find_map(at) {
                return Some(look(&found));
            }
            if !line.is_full() {
                return None;
            }
        }
        None
    }

    /// What a place says, if that holds at `now`.
    #[inline]
    fn shortcut<'a>(&'a self, place: usize, what: What, (bounds, now): (&'a Bounds, TimeMs)) -> Option<Shortcut<'a>> {
        let found = || Shortcut::Found { word: self.words.of(what.word()), bounds, place: (self, place) };
        bounds.hold_at(now).then(found)
    }

    /// The line where a key is looked for first: its hash as a fraction of one, times the
    /// lines.
    #[inline]
    fn first_line(&self, key: Key) -> usize {
        ((u64::from(key.line) * self.lines.len() as u64) >> u32::BITS) as usize
    }

    /// All where it is looked for, in their order.
    fn lines(&self, key: Key) -> impl Iterator<Item = usize> {
        let (first, lines) = (self.first_line(key), self.lines.len());
        (first..first + WINDOW.min(lines)).map(move |number| number % lines)
    }

    /// Leaves a shortcut where it will be found.
    pub(super) fn leave(&self, mut kept: Kept) {
        let Kept { key, period, .. } = kept;
        let word = kept.counter.own_word();
        // Its number would be another's here.
        if !word.is_of(&self.words) {
            return;
        }
        let (word, bounds) = (word.number(), kept.bounds());
        let open = self.lines(key).filter(|number| !self.lines[*number].is_full_of_others(key.check));
        for place in open.flat_map(|number| (0..LINE).map(move |at| number * LINE + at)) {
            match self.kept[place].0.set(kept) {
                Ok(()) => return self.publish(place, key, (word, bounds)),
                Err(back) => kept = back,
            }
            // It is there already: another thread came first.
            if self.kept[place].0.get().is_some_and(|there| there.key == key && there.period == period) {
                return;
            }
        }
        self.filled.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Shows a place to decisions; only for whoever filled it.
    fn publish(&self, place: usize, key: Key, (word, bounds): (u32, [i64; 4])) {
        let (line, at) = (&self.lines[place / LINE], place % LINE);
        let What(what) = What::new(word, self.bounds.number(bounds));
        line.what[at].store(what, Ordering::Relaxed);
        line.checks[at].store(key.check, Ordering::Release);
        self.filled.places.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn is_crowded(&self, now: TimeMs) -> bool {
        let Filled { places, refused } = &self.filled;
        let wanted = places.load(Ordering::Relaxed).saturating_add(refused.load(Ordering::Relaxed));
        let may_grow = self.kept.len() < PLACES_MAX;
        wanted > FULL_AT_LAST.of_places(self.kept.len())
            && (may_grow || now.0.saturating_sub(self.cleared_ms) >= CLEARED_EVERY_MS)
    }

    /// What of it is not over at `now` and still asked for, and room for what found none, of
    /// `tenants` at most.
    pub(super) fn cleared(&self, tenants: usize, now: TimeMs, is_asked_for: impl Fn(Key) -> bool) -> Self {
        let is_live = |kept: &&Kept| kept.period.contains(now) && is_asked_for(kept.key);
        let live = || self.kept.iter().filter_map(|keep| keep.0.get()).filter(is_live);
        let wanted = live().count() + self.filled.refused.load(Ordering::Relaxed).min(tenants);
        let places = FULL_AT_FIRST.places_for(wanted).clamp(PLACES_MIN, PLACES_MAX);
        let next = Self::sized(places, &self.words, self.version, now.0);
        live().for_each(|kept| next.leave(kept.clone()));
        next
    }

    /// Places, filled or not.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.kept.len()
    }
}
