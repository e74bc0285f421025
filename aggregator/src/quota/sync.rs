//! The primitives that decisions stand on. The model checkers put theirs in their place
//! and run the same code.

pub(crate) use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
pub(crate) use std::sync::{Mutex, MutexGuard, PoisonError};

/// Lets whoever holds a word still go on.
pub(crate) fn pause(round: u32) {
    /// Rounds of a holder that runs; after them it is likely not to be running.
    const SPINS: u32 = 64;
    if round < SPINS {
        std::hint::spin_loop();
    } else {
        std::thread::yield_now();
    }
}
