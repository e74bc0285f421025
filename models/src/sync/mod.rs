//! What stands in the place of the aggregator's `quota/sync.rs`: the primitives of each
//! checker, and its threads.

/// Loom's: every interleaving, and every value that a weaker ordering would let a load
/// see.
pub(crate) mod loom {
    pub(crate) use loom::sync::atomic::{AtomicI64, AtomicU64, Ordering};
    pub(crate) use loom::sync::{Arc, Mutex, MutexGuard};
    pub(crate) use loom::thread;
    pub(crate) use std::sync::PoisonError;

    pub(crate) fn pause(_round: u32) {
        thread::yield_now();
    }
}

/// Shuttle's: interleavings at random, from a seed that a failure prints.
pub(crate) mod shuttle {
    pub(crate) use shuttle::sync::atomic::{AtomicI64, AtomicU64, Ordering};
    pub(crate) use shuttle::sync::{Mutex, MutexGuard};
    pub(crate) use shuttle::thread;
    pub(crate) use std::sync::PoisonError;

    pub(crate) fn pause(_round: u32) {
        thread::yield_now();
    }
}

/// The real ones, which now and then let another thread go first: on few cores short
/// operations would hardly ever meet.
pub(crate) mod noisy;
