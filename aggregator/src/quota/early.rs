//! Records that came before the reservation that they carry: a `fast` one is written a
//! few milliseconds after it was answered. What they draw is kept until the reservation
//! comes; a function of the log, like the rest of the book.

use std::collections::{BTreeSet, HashMap};

use bincode::{Decode, Encode};
use odometer_schemas::quota::ITEMS_MAX;

/// How long it is kept, in milliseconds of log time: as long as a node tries to write
/// what it decided.
const KEPT_MS: i64 = 10_000;
/// Reservations that are waited for at most, at some hundred bytes each. What else
/// comes early draws nothing, which holds too much until the reservation ends.
const RESERVATIONS_MAX: usize = 16_384;

/// What was drawn on one reservation.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Early {
    until_ms: i64,
    tenant: String,
    id: String,
    /// By meter.
    drawn: Vec<(String, i64)>,
}

impl Early {
    /// What was drawn, by meter.
    pub(crate) fn drawn(&self) -> impl Iterator<Item = (&str, i64)> {
        self.drawn.iter().map(|(meter, quantity)| (meter.as_str(), *quantity))
    }
}

/// All that is waited for, by what reservations are found by.
#[derive(Debug, Default)]
pub(crate) struct Earlies {
    waiting: HashMap<Box<str>, Early>,
    ends: BTreeSet<(i64, Box<str>)>,
}

impl Earlies {
    /// A record drew on a reservation that is not known; whether that is kept.
    pub(crate) fn draw(&mut self, key: &str, (tenant, id): (&str, &str), drawn: (&str, i64), log_ms: i64) -> bool {
        let (meter, quantity) = (drawn.0, drawn.1.max(0));
        if !self.waiting.contains_key(key) {
            if self.waiting.len() >= RESERVATIONS_MAX {
                return false;
            }
            let until_ms = log_ms.saturating_add(KEPT_MS);
            self.put(key, Early { until_ms, tenant: tenant.to_owned(), id: id.to_owned(), drawn: Vec::new() });
        }
        let Some(early) = self.waiting.get_mut(key) else { return false };
        if let Some((_, sum)) = early.drawn.iter_mut().find(|(known, _)| known == meter) {
            *sum = sum.saturating_add(quantity);
            return true;
        }
        let has_room = early.drawn.len() < ITEMS_MAX;
        if has_room {
            early.drawn.push((meter.to_owned(), quantity));
        }
        has_room
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Early> {
        self.waiting.get(key)
    }

    /// Puts back what the totals book holds.
    pub(crate) fn put(&mut self, key: &str, early: Early) {
        self.ends.insert((early.until_ms, key.into()));
        self.waiting.insert(key.into(), early);
    }

    /// The reservation came.
    pub(crate) fn take(&mut self, key: &str) -> Option<Early> {
        let early = self.waiting.remove(key)?;
        self.ends.remove(&(early.until_ms, key.into()));
        Some(early)
    }

    /// The next one that is not waited for any more: whose, and its id.
    pub(crate) fn give_up(&mut self, log_ms: i64) -> Option<(String, String)> {
        let key = self.ends.first().filter(|(until_ms, _)| *until_ms <= log_ms)?.1.clone();
        self.take(&key).map(|early| (early.tenant, early.id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_kept_for_a_while_and_given_once() {
        let mut earlies = Earlies::default();
        assert!(earlies.draw("k", ("t", "r"), ("m", 3), 100) && earlies.draw("k", ("t", "r"), ("m", 4), 5_000));
        assert!(earlies.draw("l", ("t", "s"), ("m", 1), 101));
        assert_eq!(earlies.give_up(10_099), None);
        assert_eq!(earlies.take("k").unwrap().drawn().collect::<Vec<_>>(), [("m", 7)]);
        assert_eq!(earlies.take("k"), None);
        assert_eq!(earlies.give_up(10_101), Some(("t".into(), "s".into())));
        assert_eq!(earlies.give_up(i64::MAX), None);
    }

    #[test]
    fn it_is_bounded() {
        let mut earlies = Earlies::default();
        for number in 0..RESERVATIONS_MAX {
            assert!(earlies.draw(&number.to_string(), ("t", "r"), ("m", 1), 0));
        }
        assert!(!earlies.draw("more", ("t", "r"), ("m", 1), 0));
        for meter in 1..ITEMS_MAX {
            assert!(earlies.draw("0", ("t", "r"), (&meter.to_string(), 1), 0));
        }
        assert!(!earlies.draw("0", ("t", "r"), ("one more", 1), 0));
    }
}
