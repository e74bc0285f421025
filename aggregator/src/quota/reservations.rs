//! The reservations that the log has, each until a day after its end. What became of one
//! is written with the next commit.

use std::collections::{BTreeMap, HashMap};

use bincode::{Decode, Encode};
use odometer_schemas::quota::{Action, REMEMBERED_MS};

use super::ledger::Ledger;
use super::live::hold_key;

/// Reservations are forgotten in steps of so much log time, so that keeping them in order
/// is a list's end each, and one that is extended often stands in few lists.
const FORGET_STEP_MS: i64 = 60_000;

/// One reservation, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct Booked {
    pub(super) tenant: String,
    pub(super) id: String,
    pub(super) forget_ms: i64,
    pub(super) ledger: Ledger,
}

impl Booked {
    pub(super) fn new(tenant: String, id: String, ledger: Ledger) -> Self {
        let forget_ms = ledger.expires_ms.saturating_add(REMEMBERED_MS);
        Self { tenant, id, forget_ms, ledger }
    }
}

#[derive(Debug)]
struct Kept {
    booked: Booked,
    /// Whether its key stands in `changed`.
    is_changed: bool,
}

/// All of one partition, by [`hold_key`].
#[derive(Debug, Default)]
pub(super) struct Reservations {
    known: HashMap<Box<str>, Kept, foldhash::fast::RandomState>,
    /// By the step in which they may be forgotten. One that moved stands in several lists,
    /// and goes with the step that it is in now.
    due: BTreeMap<i64, Vec<Box<str>>>,
    changed: Vec<Box<str>>,
}

impl Reservations {
    pub(super) fn get(&self, key: &str) -> Option<&Booked> {
        self.known.get(key).map(|kept| &kept.booked)
    }

    /// Puts back what is stored.
    pub(super) fn restore(&mut self, booked: Booked) {
        let key = hold_key(&booked.tenant, &booked.id);
        self.due.entry(step_of(booked.forget_ms)).or_default().push(key.clone());
        self.known.insert(key, Kept { booked, is_changed: false });
    }

    /// A new one.
    pub(super) fn open(&mut self, key: Box<str>, booked: Booked) {
        self.due.entry(step_of(booked.forget_ms)).or_default().push(key.clone());
        self.changed.push(key.clone());
        self.known.insert(key, Kept { booked, is_changed: true });
    }

    /// An operation on a known one; whether it is known.
    pub(super) fn apply(&mut self, key: &str, action: &Action) -> bool {
        let Some(Kept { booked, is_changed }) = self.known.get_mut(key) else { return false };
        booked.ledger.apply(action);
        let before = step_of(booked.forget_ms);
        if let Some(ends_ms) = booked.ledger.ends_ms() {
            booked.forget_ms = ends_ms + REMEMBERED_MS;
        }
        let step = step_of(booked.forget_ms);
        if step != before {
            self.due.entry(step).or_default().push(key.into());
        }
        if !std::mem::replace(is_changed, true) {
            self.changed.push(key.into());
        }
        true
    }

    /// A record drew on one: whether that is of its meters; `None` for one that is not
    /// known.
    pub(super) fn draw(&mut self, key: &str, meter: &str, quantity: i64) -> Option<bool> {
        let Kept { booked, is_changed } = self.known.get_mut(key)?;
        let is_drawn = booked.ledger.draw(meter, quantity);
        if is_drawn && !std::mem::replace(is_changed, true) {
            self.changed.push(key.into());
        }
        Some(is_drawn)
    }

    /// One that may be forgotten at this log time, and is.
    pub(super) fn forget_next(&mut self, log_ms: i64) -> Option<Booked> {
        loop {
            let mut first = self.due.first_entry()?;
            let step = *first.key();
            if step >= step_of(log_ms) {
                return None;
            }
            let Some(key) = first.get_mut().pop() else {
                first.remove();
                continue;
            };
            if self.get(&key).is_some_and(|booked| step_of(booked.forget_ms) == step) {
                return self.known.remove(&key).map(|kept| kept.booked);
            }
        }
    }

    /// Changed since [`take_changed`](Self::take_changed), some perhaps twice.
    pub(super) fn changed(&self) -> usize {
        self.changed.len()
    }

    /// Hands over what changed and is still known, in no order.
    pub(super) fn take_changed(&mut self, mut each: impl FnMut(&Booked)) {
        for key in std::mem::take(&mut self.changed) {
            if let Some(kept) = self.known.get_mut(&key) {
                kept.is_changed = false;
                each(&kept.booked);
            }
        }
    }
}

fn step_of(time_ms: i64) -> i64 {
    time_ms.div_euclid(FORGET_STEP_MS)
}

#[cfg(test)]
mod tests {
    use odometer_schemas::quota::Decision;

    use super::*;

    fn booked(id: &str, expires_ms: i64) -> Booked {
        let action = Action::Reserve {
            subject: None,
            key: None,
            items: Vec::new(),
            expires_ms,
            body: 1,
            decision: Decision::Allow,
        };
        Booked::new("acme".into(), id.into(), Ledger::open(&action).unwrap())
    }

    fn forgotten(reservations: &mut Reservations, log_ms: i64) -> Vec<String> {
        std::iter::from_fn(|| reservations.forget_next(log_ms)).map(|booked| booked.id).collect()
    }

    #[test]
    fn each_is_forgotten_a_day_after_its_end_and_at_most_a_step_later() {
        let mut reservations = Reservations::default();
        let key = |id| hold_key("acme", id);
        for (id, expires_ms) in [("a", 5), ("b", 10 * FORGET_STEP_MS)] {
            reservations.open(key(id), booked(id, expires_ms));
        }
        let extend = Action::Extend { op: 1, expires_ms: 20 * FORGET_STEP_MS, add: Vec::new() };
        assert!(reservations.apply(&key("a"), &extend));
        assert!(!reservations.apply(&key("c"), &Action::Release { op: 2 }));
        let after = |steps| REMEMBERED_MS + steps * FORGET_STEP_MS;
        assert_eq!(forgotten(&mut reservations, after(10)), [""; 0]);
        assert_eq!(forgotten(&mut reservations, after(11)), ["b"]);
        assert_eq!(forgotten(&mut reservations, after(20)), [""; 0]);
        assert_eq!(forgotten(&mut reservations, after(21)), ["a"]);
        assert!(reservations.get(&key("a")).is_none());
    }

    #[test]
    fn what_changed_is_handed_over_once() {
        let mut reservations = Reservations::default();
        let key = hold_key("acme", "a");
        reservations.open(key.clone(), booked("a", 5));
        assert!(reservations.apply(&key, &Action::Release { op: 2 }));
        let taken = |reservations: &mut Reservations| {
            let mut ids = Vec::new();
            reservations.take_changed(|booked| ids.push(booked.id.clone()));
            ids
        };
        assert_eq!((taken(&mut reservations), taken(&mut reservations)), (vec!["a".to_owned()], vec![]));
        assert_eq!(reservations.draw(&key, "m", 1), Some(false));
        assert_eq!(reservations.changed(), 0);
    }
}
