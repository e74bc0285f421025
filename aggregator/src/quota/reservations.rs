//! The reservations that the log has, each until a day after its end, at the least. They
//! stand in pages, in the order in which they came; with the next commit every page is
//! written of which something changed. Pages and their numbers are a function of the
//! log, whenever it is committed.
//!
//! Most are never touched again, so they are kept as they are stored: that takes half
//! the room, and a page is handed over by copying.

use std::collections::BTreeMap;
use std::hash::BuildHasher as _;

use bincode::{BorrowDecode, Decode, Encode};
use hashbrown::HashTable;
use odometer_schemas::quota::{Action, REMEMBERED_MS};

use super::book::{decoded, encoded};
use super::ledger::Ledger;

/// Reservations of one page, which is one row of some two kilobytes: with a row of each,
/// writing them took the books twice as long, and a change of one rewrites no more than a
/// page that the books write anyway.
const PAGE: u64 = 16;
/// Reservations are forgotten in steps of so much log time, so that keeping them in order
/// is a list's end each, and one that is extended often stands in few lists.
const FORGET_STEP_MS: i64 = 60_000;

/// What a reservation is found by, see [`Name`](super::name::Name).
type Name = Box<str>;

/// One of them.
#[derive(Debug, Encode, Decode)]
struct Booked {
    /// On its page.
    place: u8,
    name: Name,
    /// Never earlier than it was.
    forget_ms: i64,
    ledger: Ledger,
}

/// One of them, as it is kept.
#[derive(Debug)]
enum Kept {
    /// As it is stored.
    Stored(Box<[u8]>),
    /// Something was done with it since its page was handed over; more may follow.
    Open(Box<Booked>),
}

/// How what is stored of one begins.
#[derive(BorrowDecode)]
struct Beginning<'a> {
    _place: u8,
    name: &'a str,
    forget_ms: i64,
    /// Of its ledger.
    subject: Option<&'a str>,
    key: Option<&'a str>,
}

/// The number of one of them, and the hash of its name: a table that grows looks at no
/// name.
#[derive(Clone, Copy, Debug)]
struct Entry {
    hash: u64,
    number: u64,
}

#[derive(Debug, Default)]
struct Page {
    places: [Option<Kept>; PAGE as usize],
    /// Whether its number stands in `changed`.
    is_changed: bool,
}

/// All of one partition.
#[derive(Debug, Default)]
pub(super) struct Reservations {
    /// By name. Nobody outside knows the hash, so that nobody can choose names that share
    /// one.
    known: HashTable<Entry>,
    hashing: foldhash::fast::RandomState,
    /// By the number of their first place over [`PAGE`]; none is empty.
    pages: BTreeMap<u64, Page>,
    /// The number that the next one gets: above all of the known ones.
    next: u64,
    /// By the step in which they may be forgotten. One that moved stands in several lists,
    /// and goes with the step that it is in now.
    due: BTreeMap<i64, Vec<u64>>,
    /// Pages.
    changed: Vec<u64>,
}

impl Reservations {
    /// Subject and key of one; `None` for one that is not known.
    pub(super) fn user_of(&self, name: &str) -> Option<(Option<&str>, Option<&str>)> {
        let Beginning { subject, key, .. } = self.at(self.number(name)?)?.beginning();
        Some((subject, key))
    }

    fn number(&self, name: &str) -> Option<u64> {
        let hash = self.hashing.hash_one(name);
        let is_it = |entry: &Entry| {
            entry.hash == hash && self.at(entry.number).is_some_and(|kept| kept.beginning().name == name)
        };
        self.known.find(hash, is_it).map(|entry| entry.number)
    }

    fn at(&self, number: u64) -> Option<&Kept> {
        self.pages.get(&(number / PAGE))?.places[place_of(number)].as_ref()
    }

    /// Puts a stored page back; hands out what is on it. `None` for what no build has
    /// written.
    pub(super) fn restore(&mut self, title: &str, state: &[u8], mut each: impl FnMut(&str, &Ledger)) -> Option<()> {
        let number = u64::from_str_radix(title, 16).ok().filter(|number| *number < u64::MAX / PAGE)?;
        let stored: Vec<Booked> = decoded(state)?;
        for booked in stored {
            each(&booked.name, &booked.ledger);
            let place = Some(u64::from(booked.place)).filter(|place| *place < PAGE)?;
            self.put(number * PAGE + place, &booked);
        }
        Some(())
    }

    /// A new one.
    pub(super) fn open(&mut self, name: &str, ledger: Ledger) {
        let number = self.next;
        let place = u8::try_from(number % PAGE).unwrap_or(0);
        let forget_ms = ledger.expires_ms.saturating_add(REMEMBERED_MS);
        self.put(number, &Booked { place, name: name.into(), forget_ms, ledger });
        self.change(number / PAGE);
    }

    fn put(&mut self, number: u64, booked: &Booked) {
        self.due.entry(step_of(booked.forget_ms)).or_default().push(number);
        let hash = self.hashing.hash_one(&*booked.name);
        self.known.insert_unique(hash, Entry { hash, number }, |entry| entry.hash);
        self.pages.entry(number / PAGE).or_default().places[place_of(number)] = Some(Kept::stored(booked));
        self.next = self.next.max(number + 1);
    }

    /// One that something is done with.
    fn booked(&mut self, number: u64) -> Option<&mut Booked> {
        self.pages.get_mut(&(number / PAGE))?.places[place_of(number)].as_mut().map(Kept::open)
    }

    fn change(&mut self, page: u64) {
        let is_changed = self.pages.get_mut(&page).map(|page| std::mem::replace(&mut page.is_changed, true));
        if is_changed == Some(false) {
            self.changed.push(page);
        }
    }

    /// An operation on a known one; whether it is known.
    pub(super) fn apply(&mut self, name: &str, action: &Action) -> bool {
        let Some(number) = self.number(name) else { return false };
        let Some(booked) = self.booked(number) else { return false };
        booked.ledger.apply(action);
        let before = step_of(booked.forget_ms);
        if let Some(ends_ms) = booked.ledger.ends_ms() {
            booked.forget_ms = booked.forget_ms.max(ends_ms.saturating_add(REMEMBERED_MS));
        }
        let step = step_of(booked.forget_ms);
        if step != before {
            self.due.entry(step).or_default().push(number);
        }
        self.change(number / PAGE);
        true
    }

    /// A record drew on one: whether that is of its meters; `None` for one that is not
    /// known.
    pub(super) fn draw(&mut self, name: &str, meter: &str, quantity: i64) -> Option<bool> {
        let number = self.number(name)?;
        let is_drawn = self.booked(number)?.ledger.draw(meter, quantity);
        if is_drawn {
            self.change(number / PAGE);
        } else if let Some(page) = self.pages.get_mut(&(number / PAGE)) {
            // Nobody hands it over, and nothing more may be done with it.
            page.places[place_of(number)].as_mut().map(Kept::store);
        }
        Some(is_drawn)
    }

    /// One that may be forgotten at this log time, and is.
    pub(super) fn forget_next(&mut self, log_ms: i64) -> Option<Name> {
        loop {
            let mut first = self.due.first_entry()?;
            let step = *first.key();
            if step >= step_of(log_ms) {
                return None;
            }
            let Some(number) = first.get_mut().pop() else {
                first.remove();
                continue;
            };
            if self.at(number).is_some_and(|kept| step_of(kept.beginning().forget_ms) == step) {
                return self.forget(number);
            }
        }
    }

    fn forget(&mut self, number: u64) -> Option<Name> {
        self.change(number / PAGE);
        let page = self.pages.get_mut(&(number / PAGE))?;
        let kept = page.places[place_of(number)].take()?;
        if page.places.iter().all(Option::is_none) {
            self.pages.remove(&(number / PAGE));
        }
        let name = kept.beginning().name;
        let hash = self.hashing.hash_one(name);
        if let Ok(entry) = self.known.find_entry(hash, |entry| entry.number == number) {
            entry.remove();
        }
        if number + 1 == self.next {
            self.next = self.pages.last_key_value().map_or(0, |(number, page)| number * PAGE + page.end());
        }
        Some(name.into())
    }

    /// Pages that changed since [`take_changed`](Self::take_changed), some perhaps twice.
    pub(super) fn changed(&self) -> usize {
        self.changed.len()
    }

    /// Hands over the title and state of every page that changed, in order; the state of
    /// one that is no more is empty.
    pub(super) fn take_changed(&mut self, mut each: impl FnMut(String, Vec<u8>)) {
        let mut changed = std::mem::take(&mut self.changed);
        changed.sort_unstable();
        changed.dedup();
        for number in changed {
            let state = self.pages.get_mut(&number).map(|page| {
                page.is_changed = false;
                page.state()
            });
            // As long as any, so that they are read in order.
            each(format!("{number:016x}"), state.unwrap_or_default());
        }
    }
}

impl Page {
    /// The place behind the last that is taken.
    fn end(&self) -> u64 {
        (0..PAGE).rfind(|place| self.places[place_of(*place)].is_some()).map_or(0, |place| place + 1)
    }

    /// As a list of them is stored: how many they are, and each.
    fn state(&mut self) -> Vec<u8> {
        let stored: Vec<&[u8]> = self.places.iter_mut().flatten().map(Kept::store).collect();
        let length = encoded(&stored.len());
        let mut state = Vec::with_capacity(length.len() + stored.iter().map(|stored| stored.len()).sum::<usize>());
        state.extend(length);
        stored.into_iter().for_each(|stored| state.extend(stored));
        state
    }
}

impl Kept {
    fn stored(booked: &Booked) -> Self {
        Self::Stored(encoded(booked).into())
    }

    fn beginning(&self) -> Beginning<'_> {
        match self {
            Self::Open(booked) => {
                let Booked { place, name, forget_ms, ledger } = &**booked;
                let (subject, key) = (ledger.subject.as_deref(), ledger.key.as_deref());
                Beginning { _place: *place, name, forget_ms: *forget_ms, subject, key }
            }
            Self::Stored(stored) => {
                let read = bincode::borrow_decode_from_slice(stored, bincode::config::standard());
                read.expect("what is kept was written here").0
            }
        }
    }

    fn open(&mut self) -> &mut Booked {
        if let Self::Stored(stored) = self {
            *self = Self::Open(decoded(stored).expect("what is kept was written here"));
        }
        match self {
            Self::Open(booked) => booked,
            Self::Stored(_) => unreachable!("it was opened"),
        }
    }

    fn store(&mut self) -> &[u8] {
        if let Self::Open(booked) = self {
            *self = Self::stored(booked);
        }
        match self {
            Self::Stored(stored) => stored,
            Self::Open(_) => unreachable!("it was stored"),
        }
    }
}

fn place_of(number: u64) -> usize {
    usize::try_from(number % PAGE).unwrap_or(0)
}

fn step_of(time_ms: i64) -> i64 {
    time_ms.div_euclid(FORGET_STEP_MS)
}

#[cfg(test)]
mod tests {
    use odometer_schemas::quota::Decision;

    use super::*;

    fn ledger(expires_ms: i64) -> Ledger {
        let (subject, key, items, body, decision) = (None, None, Vec::new(), 1, Decision::Allow);
        Ledger::open(&Action::Reserve { subject, key, items, expires_ms, body, decision }).unwrap()
    }

    fn forgotten(reservations: &mut Reservations, log_ms: i64) -> Vec<String> {
        std::iter::from_fn(|| reservations.forget_next(log_ms)).map(|name| name.to_string()).collect()
    }

    fn taken(reservations: &mut Reservations) -> BTreeMap<String, Vec<u8>> {
        let mut pages = BTreeMap::new();
        reservations.take_changed(|title, state| assert_eq!(pages.insert(title, state), None));
        pages
    }

    #[test]
    fn each_is_forgotten_a_day_after_its_end_and_at_most_a_step_later() {
        let mut reservations = Reservations::default();
        for (name, expires_ms) in [("a", 5), ("b", 10 * FORGET_STEP_MS)] {
            reservations.open(name, ledger(expires_ms));
        }
        let extend = |op, steps| Action::Extend { op, expires_ms: steps * FORGET_STEP_MS, add: Vec::new() };
        assert!(reservations.apply("a", &extend(1, 20)) && reservations.apply("a", &extend(2, 3)));
        assert!(!reservations.apply("c", &Action::Release { op: 2 }));
        let after = |steps| REMEMBERED_MS + steps * FORGET_STEP_MS;
        assert_eq!(forgotten(&mut reservations, after(10)), [""; 0]);
        assert_eq!(forgotten(&mut reservations, after(11)), ["b"]);
        assert_eq!(forgotten(&mut reservations, after(20)), [""; 0], "not before its first end");
        assert_eq!(forgotten(&mut reservations, after(21)), ["a"]);
        assert!(reservations.user_of("a").is_none());
    }

    #[test]
    fn a_page_is_handed_over_once_for_all_that_changed_on_it() {
        let mut reservations = Reservations::default();
        for number in 0..=PAGE {
            reservations.open(&number.to_string(), ledger(5));
        }
        assert!(reservations.apply("0", &Action::Release { op: 2 }));
        assert_eq!(taken(&mut reservations).into_keys().collect::<Vec<_>>(), ["0000000000000000", "0000000000000001"]);
        assert!(taken(&mut reservations).is_empty());
        assert_eq!(reservations.draw("0", "m", 1), Some(false));
        assert_eq!(reservations.changed(), 0);
    }

    fn store(rows: &mut BTreeMap<String, Vec<u8>>, pages: BTreeMap<String, Vec<u8>>) {
        for (title, state) in pages {
            if state.is_empty() {
                rows.remove(&title)
            } else {
                rows.insert(title, state)
            };
        }
    }

    fn restored(rows: &BTreeMap<String, Vec<u8>>) -> Reservations {
        let mut restored = Reservations::default();
        for (title, state) in rows {
            restored.restore(title, state, |name, _| assert!(!name.is_empty())).unwrap();
        }
        restored
    }

    #[test]
    fn what_is_restored_goes_on_like_what_was_stored() {
        let (mut old, mut rows) = (Reservations::default(), BTreeMap::new());
        for number in 0..=PAGE {
            // The last one, and every other, ends late.
            let steps = i64::try_from(number % 2).unwrap() * 5 + if number == PAGE { 9 } else { 0 };
            old.open(&number.to_string(), ledger(steps * FORGET_STEP_MS));
        }
        let after = |steps| REMEMBERED_MS + steps * FORGET_STEP_MS;
        for (log_ms, left) in [(after(1), 9), (after(6), 1), (after(10), 0)] {
            store(&mut rows, taken(&mut old));
            let mut new = restored(&rows);
            assert_eq!((new.next, new.known.len()), (old.next, old.known.len()));
            let mut gone = [&mut old, &mut new].map(|reservations| forgotten(reservations, log_ms));
            gone.iter_mut().for_each(|gone| gone.sort_unstable());
            assert_eq!((&gone[0], new.known.len()), (&gone[1], left));
            [&mut old, &mut new].into_iter().for_each(|reservations| reservations.open("new", ledger(0)));
            let pages = taken(&mut old);
            assert_eq!(pages, taken(&mut new));
            store(&mut rows, pages);
            old = new;
            assert_eq!(forgotten(&mut old, after(1)), ["new"]);
        }
        assert_eq!((old.next, old.pages.len()), (0, 0));
    }

    #[test]
    fn one_says_the_same_as_it_is_stored_and_while_it_is_open() {
        let mut reservations = Reservations::default();
        let mut of_ann = ledger(5);
        (of_ann.subject, of_ann.key) = (Some("ann".into()), Some("k".into()));
        reservations.open("a", of_ann);
        reservations.open("b", ledger(5));
        let says = |reservations: &Reservations| {
            assert_eq!(reservations.user_of("a"), Some((Some("ann"), Some("k"))));
            assert_eq!((reservations.user_of("b"), reservations.user_of("c")), (Some((None, None)), None));
        };
        says(&reservations);
        let stored = taken(&mut reservations);
        for name in ["a", "b"] {
            assert_eq!(reservations.draw(name, "m", 1), Some(false));
        }
        says(&reservations);
        let is_open = |reservations: &Reservations, number| matches!(reservations.at(number), Some(Kept::Open(_)));
        assert_eq!([0, 1].map(|number| is_open(&reservations, number)), [false; 2]);
        assert!(taken(&mut reservations).is_empty(), "nothing was changed");
        assert!(reservations.apply("a", &Action::Release { op: 2 }));
        assert!(is_open(&reservations, 0));
        says(&reservations);
        assert_ne!(taken(&mut reservations), stored);
        says(&reservations);
    }

    #[test]
    fn what_no_build_has_written_is_not_read() {
        let mut reservations = Reservations::default();
        for (title, state) in [("x", &[0][..]), ("0", &[1]), ("", &[0]), ("ffffffffffffffff", &[0])] {
            assert_eq!(reservations.restore(title, state, |_, _| ()), None, "{title}");
        }
    }
}
