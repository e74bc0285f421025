//! Is a recorded history linearizable? A search after Wing and Gong (1993): take any
//! operation that began before all unfinished ones ended, if the model says the same as
//! it did, and go on; what led nowhere is remembered (Lowe 2017).

use std::collections::HashSet;
use std::hash::Hash;

/// One operation: what was asked and answered, and when by one clock for all threads.
#[derive(Clone, Debug)]
pub struct Event<O> {
    /// Asked and answered.
    pub operation: O,
    /// Taken before it was asked.
    pub began: u64,
    /// Taken after it was answered.
    pub ended: u64,
}

/// Operations of one history at most: a set of them is the bits of a `u64`.
const EVENTS_MAX: usize = 64;

/// Whether one order of the events, none before one that had ended, makes `apply` agree
/// with every answer. `apply` gives the state after an operation; `None` if it could not
/// have been answered like that.
///
/// # Panics
/// When the history is longer than 64 events.
pub fn is_linearizable<O, S: Clone + Eq + Hash>(
    events: &[Event<O>],
    start: S,
    apply: impl Fn(&S, &O) -> Option<S>,
) -> bool {
    assert!(events.len() <= EVENTS_MAX, "{} events", events.len());
    let all = if events.len() == EVENTS_MAX { u64::MAX } else { (1 << events.len()) - 1 };
    let mut seen = HashSet::new();
    let mut open = vec![(0_u64, start)];
    while let Some((done, state)) = open.pop() {
        if done == all {
            return true;
        }
        let left = || events.iter().enumerate().filter(|(at, _)| done & (1 << at) == 0);
        let first_end = left().map(|(_, event)| event.ended).min().unwrap_or(u64::MAX);
        for (at, event) in left().filter(|(_, event)| event.began < first_end) {
            let Some(next) = apply(&state, &event.operation) else { continue };
            let next = (done | 1 << at, next);
            if seen.insert(next.clone()) {
                open.push(next);
            }
        }
    }
    false
}
