//! Real atomics and locks that now and then let another thread go first.

use std::cell::Cell;
pub(crate) use std::sync::atomic::Ordering;
use std::sync::{LockResult, atomic};
pub(crate) use std::sync::{MutexGuard, PoisonError};

thread_local! {
    static STATE: Cell<u64> = const { Cell::new(0x9e37_79b9_7f4a_7c15) };
}

/// Begins this thread's sequence of steps aside.
pub(crate) fn seed(seed: u64) {
    STATE.set(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
}

/// Every other time, somebody else goes first.
fn step_aside() {
    let mut x = STATE.get();
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    STATE.set(x);
    if x.is_multiple_of(2) {
        std::thread::yield_now();
    }
}

/// Far more rounds than a holder that runs can make anybody wait.
const ROUNDS_MAX: u32 = 200_000;

pub(crate) fn pause(round: u32) {
    assert!(round < ROUNDS_MAX, "a word is held still for ever");
    std::thread::yield_now();
}

#[derive(Debug)]
pub(crate) struct AtomicU64(atomic::AtomicU64);

impl AtomicU64 {
    pub(crate) fn new(value: u64) -> Self {
        Self(atomic::AtomicU64::new(value))
    }

    pub(crate) fn load(&self, order: Ordering) -> u64 {
        step_aside();
        self.0.load(order)
    }

    pub(crate) fn store(&self, value: u64, order: Ordering) {
        step_aside();
        self.0.store(value, order);
    }

    pub(crate) fn fetch_add(&self, value: u64, order: Ordering) -> u64 {
        step_aside();
        self.0.fetch_add(value, order)
    }

    pub(crate) fn fetch_or(&self, value: u64, order: Ordering) -> u64 {
        step_aside();
        self.0.fetch_or(value, order)
    }

    pub(crate) fn compare_exchange_weak(
        &self,
        current: u64,
        new: u64,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u64, u64> {
        step_aside();
        self.0.compare_exchange_weak(current, new, success, failure)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(std::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(std::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        step_aside();
        self.0.lock()
    }
}
