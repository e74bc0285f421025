//! The reservations that the log has, each until a day after its end, at the least. They
//! stand in pages, in the order in which they came; with the next commit every page is
//! written of which something changed. Pages and their numbers are a function of the
//! log, whenever it is committed.
//!
//! Most are never touched again, so they are kept as they are stored: that takes half
//! the room, and a page is handed over by copying.

use std::collections::BTreeMap;

use bincode::{BorrowDecode, Decode, Encode};
use odometer_schemas::quota::{Action, REMEMBERED_MS};

use super::book::{decoded, encoded, kept};
use super::hold::Booked;
use super::ledger::Ledger;

/// Reservations of one page, which is one row of some two kilobytes: with a row of each,
/// writing them took the books twice as long, and a change of one rewrites no more than a
/// page that the books write anyway.
const PAGE: u64 = 16;
/// Reservations are forgotten in steps of so much log time, so that keeping them in order
/// is a list's end each, and one that is extended often stands in few lists.
const FORGET_STEP_MS: i64 = 60_000;

/// One of them.
#[derive(Debug, Encode, Decode)]
struct Opened {
    /// On its page.
    place: u8,
    /// See [`Name`](super::name::Name).
    name: Box<str>,
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
    Open(Box<Opened>),
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

#[derive(Debug, Default)]
struct Page {
    places: [Option<Kept>; PAGE as usize],
    /// Whether its number stands in `changed`.
    is_changed: bool,
}

/// All of one partition, by number: which number a name has says the live side, where
/// each is found by its name anyway.
#[derive(Debug, Default)]
pub(super) struct Reservations {
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
    pub(super) fn user_of(&self, number: u64) -> Option<(Option<&str>, Option<&str>)> {
        let Beginning { subject, key, .. } = self.at(number)?.beginning();
        Some((subject, key))
    }

    fn at(&self, number: u64) -> Option<&Kept> {
        self.pages.get(&(number / PAGE))?.places[place_of(number)].as_ref()
    }

    /// Puts a stored page back; hands out what is on it, by name. `None` for what no build
    /// has written.
    pub(super) fn restore(&mut self, title: &str, state: &[u8], mut each: impl FnMut(&str, Booked<'_>)) -> Option<()> {
        let page = u64::from_str_radix(title, 16).ok().filter(|page| *page < u64::MAX / PAGE)?;
        let stored: Vec<Opened> = decoded(state)?;
        for Opened { place, name, forget_ms, ledger } in &stored {
            let number = page * PAGE + Some(u64::from(*place)).filter(|place| *place < PAGE)?;
            self.put(number, name, (*forget_ms, ledger));
            each(name, Booked { number, ledger });
        }
        Some(())
    }

    /// A new one; its number.
    pub(super) fn open(&mut self, name: &str, ledger: &Ledger) -> u64 {
        let number = self.next;
        self.put(number, name, (ledger.expires_ms.saturating_add(REMEMBERED_MS), ledger));
        self.change(number / PAGE);
        number
    }

    fn put(&mut self, number: u64, name: &str, (forget_ms, ledger): (i64, &Ledger)) {
        self.due.entry(step_of(forget_ms)).or_default().push(number);
        let place = place_of(number);
        // As it is stored once it is opened.
        let stored = kept(&(u8::try_from(place).unwrap_or(0), name, forget_ms, ledger));
        self.pages.entry(number / PAGE).or_default().places[place] = Some(Kept::Stored(stored));
        self.next = self.next.max(number + 1);
    }

    /// One that something is done with.
    fn opened(&mut self, number: u64) -> Option<&mut Opened> {
        self.pages.get_mut(&(number / PAGE))?.places[place_of(number)].as_mut().map(Kept::open)
    }

    fn change(&mut self, page: u64) {
        let is_changed = self.pages.get_mut(&page).map(|page| std::mem::replace(&mut page.is_changed, true));
        if is_changed == Some(false) {
            self.changed.push(page);
        }
    }

    /// An operation on a known one.
    pub(super) fn apply(&mut self, number: u64, action: &Action<'_>) {
        let Some(opened) = self.opened(number) else { return };
        opened.ledger.apply(action);
        let before = step_of(opened.forget_ms);
        if let Some(ends_ms) = opened.ledger.ends_ms() {
            opened.forget_ms = opened.forget_ms.max(ends_ms.saturating_add(REMEMBERED_MS));
        }
        let step = step_of(opened.forget_ms);
        if step != before {
            self.due.entry(step).or_default().push(number);
        }
        self.change(number / PAGE);
    }

    /// A record drew on a known one: whether that is of its meters.
    pub(super) fn draw(&mut self, number: u64, meter: &str, quantity: i64) -> bool {
        let Some(opened) = self.opened(number) else { return false };
        let is_drawn = opened.ledger.draw(meter, quantity);
        if is_drawn {
            self.change(number / PAGE);
        } else if let Some(page) = self.pages.get_mut(&(number / PAGE)) {
            // Nobody hands it over, and nothing more may be done with it.
            page.places[place_of(number)].as_mut().map(Kept::store);
        }
        is_drawn
    }

    /// One that may be forgotten at this log time, and is.
    pub(super) fn forget_next(&mut self, log_ms: i64) -> Option<Box<str>> {
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

    fn forget(&mut self, number: u64) -> Option<Box<str>> {
        self.change(number / PAGE);
        let page = self.pages.get_mut(&(number / PAGE))?;
        let kept = page.places[place_of(number)].take()?;
        if page.places.iter().all(Option::is_none) {
            self.pages.remove(&(number / PAGE));
        }
        if number + 1 == self.next {
            self.next = self.pages.last_key_value().map_or(0, |(number, page)| number * PAGE + page.end());
        }
        Some(kept.beginning().name.into())
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
    fn beginning(&self) -> Beginning<'_> {
        match self {
            Self::Open(opened) => {
                let Opened { place, name, forget_ms, ledger } = &**opened;
                let (subject, key) = (ledger.subject.as_deref(), ledger.key.as_deref());
                Beginning { _place: *place, name, forget_ms: *forget_ms, subject, key }
            }
            Self::Stored(stored) => {
                let read = bincode::borrow_decode_from_slice(stored, bincode::config::standard());
                read.expect("what is kept was written here").0
            }
        }
    }

    fn open(&mut self) -> &mut Opened {
        if let Self::Stored(stored) = self {
            *self = Self::Open(decoded(stored).expect("what is kept was written here"));
        }
        match self {
            Self::Open(opened) => opened,
            Self::Stored(_) => unreachable!("it was opened"),
        }
    }

    fn store(&mut self) -> &[u8] {
        if let Self::Open(opened) = self {
            *self = Self::Stored(kept(opened));
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
        let a = reservations.open("a", &ledger(5));
        reservations.open("b", &ledger(10 * FORGET_STEP_MS));
        let extend = |op, steps| Action::Extend { op, expires_ms: steps * FORGET_STEP_MS, add: Vec::new() };
        reservations.apply(a, &extend(1, 20));
        reservations.apply(a, &extend(2, 3));
        let after = |steps| REMEMBERED_MS + steps * FORGET_STEP_MS;
        assert_eq!(forgotten(&mut reservations, after(10)), [""; 0]);
        assert_eq!(forgotten(&mut reservations, after(11)), ["b"]);
        assert_eq!(forgotten(&mut reservations, after(20)), [""; 0], "not before its first end");
        assert_eq!(forgotten(&mut reservations, after(21)), ["a"]);
        assert!(reservations.user_of(a).is_none());
    }

    #[test]
    fn a_page_is_handed_over_once_for_all_that_changed_on_it() {
        let mut reservations = Reservations::default();
        for number in 0..=PAGE {
            reservations.open(&number.to_string(), &ledger(5));
        }
        reservations.apply(0, &Action::Release { op: 2 });
        assert_eq!(taken(&mut reservations).into_keys().collect::<Vec<_>>(), ["0000000000000000", "0000000000000001"]);
        assert!(taken(&mut reservations).is_empty());
        assert!(!reservations.draw(0, "m", 1));
        assert_eq!(reservations.changed(), 0);
    }

    impl Reservations {
        fn known(&self) -> usize {
            self.pages.values().flat_map(|page| &page.places).flatten().count()
        }
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
            old.open(&number.to_string(), &ledger(steps * FORGET_STEP_MS));
        }
        let after = |steps| REMEMBERED_MS + steps * FORGET_STEP_MS;
        for (log_ms, left) in [(after(1), 9), (after(6), 1), (after(10), 0)] {
            store(&mut rows, taken(&mut old));
            let mut new = restored(&rows);
            assert_eq!((new.next, new.known()), (old.next, old.known()));
            let mut gone = [&mut old, &mut new].map(|reservations| forgotten(reservations, log_ms));
            gone.iter_mut().for_each(|gone| gone.sort_unstable());
            assert_eq!((&gone[0], new.known()), (&gone[1], left));
            let opened = [&mut old, &mut new].map(|reservations| reservations.open("new", &ledger(0)));
            assert_eq!(opened[0], opened[1]);
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
        let [a, b] = [("a", of_ann), ("b", ledger(5))].map(|(name, ledger)| reservations.open(name, &ledger));
        let says = |reservations: &Reservations| {
            assert_eq!(reservations.user_of(a), Some((Some("ann"), Some("k"))));
            assert_eq!((reservations.user_of(b), reservations.user_of(b + 1)), (Some((None, None)), None));
        };
        says(&reservations);
        let stored = taken(&mut reservations);
        for number in [a, b] {
            assert!(!reservations.draw(number, "m", 1));
        }
        says(&reservations);
        let is_open = |reservations: &Reservations, number| matches!(reservations.at(number), Some(Kept::Open(_)));
        assert_eq!([0, 1].map(|number| is_open(&reservations, number)), [false; 2]);
        assert!(taken(&mut reservations).is_empty(), "nothing was changed");
        reservations.change(0);
        assert_eq!(taken(&mut reservations), stored, "opened and stored again");
        reservations.apply(a, &Action::Release { op: 2 });
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
