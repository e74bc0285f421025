//! When which reservation is looked at, because its time may be over. Whether that is so,
//! and whether it is still wanted, is not decided here.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use super::hold::Hold;
use super::sync::{Mutex, MutexGuard, PoisonError};

/// They are looked at in steps of this many milliseconds.
const STEP_MS: i64 = 250;
/// Reservations in one list of a step: where a million end at once, nobody waits until
/// a long list has moved.
const LIST_MAX: usize = 1024;

/// Those of one partition: by step, and the number of the list within it.
#[derive(Debug, Default)]
pub(super) struct Expiries(Mutex<Lists>);

type Lists = BTreeMap<(i64, u32), Vec<Weak<Hold>>>;

impl Expiries {
    /// Has a reservation looked at once it is `ends_ms`.
    pub(super) fn watch(&self, hold: &Arc<Hold>, ends_ms: i64) {
        let hold = Arc::downgrade(hold);
        let step = ends_ms.div_euclid(STEP_MS) + 1;
        let mut lists = self.lock();
        let number = match lists.range_mut((step, 0)..=(step, u32::MAX)).next_back() {
            Some((_, list)) if list.len() < LIST_MAX => return list.push(hold),
            Some(((_, number), _)) => number + 1,
            None => 0,
        };
        lists.insert((step, number), vec![hold]);
    }

    /// Up to `most` of those whose time may be over. Whoever decides wants the same lock,
    /// so it is held once for many.
    pub(super) fn take_due(&self, now_ms: i64, most: usize) -> Vec<Weak<Hold>> {
        let mut lists = self.lock();
        let first = lists.first_entry().filter(|first| first.key().0 <= now_ms.div_euclid(STEP_MS));
        let Some(mut first) = first else { return Vec::new() };
        match first.get().len().checked_sub(most) {
            Some(rest @ 1..) => first.get_mut().split_off(rest),
            _ => first.remove(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Lists> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
