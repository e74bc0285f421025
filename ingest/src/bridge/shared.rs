//! What the bridge's thread tells everyone else, in numbers that only grow.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::batch::Batch;

/// How a bridge is doing. Each number is exact; together they are no snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BridgeHealth {
    /// Whether its thread is there.
    pub is_running: bool,
    /// Whether something stood in the way since a batch last got through.
    pub is_failing: bool,
    /// The last trouble, kept after recovery.
    pub last_error: Option<String>,
    /// Messages of which everything is stored.
    pub messages: u64,
    /// Events in them, those that were refused included.
    pub events: u64,
    /// Records that they put into the log.
    pub records: u64,
    /// Messages that went to the dead letters.
    pub dead_letters: u64,
    /// Events that were refused, as far as they were read; counted again when a message
    /// is read again.
    pub events_refused: u64,
    /// Messages that retention removed from the ingress topic before they were read.
    pub messages_removed: u64,
    /// Batches of messages that are not wholly stored yet.
    pub batches_under_way: usize,
    /// Messages of the ingress partitions that this bridge reads beyond the group's
    /// offsets, about a second ago.
    pub lag: u64,
}

#[derive(Debug, Default)]
pub(super) struct Shared {
    is_draining: AtomicBool,
    is_failing: AtomicBool,
    last_error: Mutex<Option<String>>,
    messages: AtomicU64,
    events: AtomicU64,
    records: AtomicU64,
    dead_letters: AtomicU64,
    events_refused: AtomicU64,
    messages_removed: AtomicU64,
    batches_under_way: AtomicUsize,
    lag: AtomicU64,
}

impl Shared {
    pub(super) fn drain(&self) {
        self.is_draining.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::SeqCst)
    }

    pub(super) fn note_trouble(&self, reason: String) {
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
        self.is_failing.store(true, Ordering::Relaxed);
    }

    pub(super) fn add_done(&self, batch: &Batch) {
        let counters = [
            (&self.messages, batch.messages),
            (&self.events, batch.events),
            (&self.records, batch.records),
            (&self.dead_letters, batch.letters),
        ];
        for (counter, n) in counters {
            counter.fetch_add(n as u64, Ordering::Relaxed);
        }
        self.is_failing.store(false, Ordering::Relaxed);
    }

    pub(super) fn add_refused(&self, events: usize) {
        self.events_refused.fetch_add(events as u64, Ordering::Relaxed);
    }

    pub(super) fn add_removed(&self, messages: u64) {
        self.messages_removed.fetch_add(messages, Ordering::Relaxed);
    }

    pub(super) fn set_under_way(&self, batches: usize) {
        self.batches_under_way.store(batches, Ordering::Relaxed);
    }

    pub(super) fn set_lag(&self, messages: u64) {
        self.lag.store(messages, Ordering::Relaxed);
    }

    pub(super) fn health(&self, is_running: bool) -> BridgeHealth {
        BridgeHealth {
            is_running,
            is_failing: self.is_failing.load(Ordering::Relaxed),
            last_error: self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            messages: self.messages.load(Ordering::Relaxed),
            events: self.events.load(Ordering::Relaxed),
            records: self.records.load(Ordering::Relaxed),
            dead_letters: self.dead_letters.load(Ordering::Relaxed),
            events_refused: self.events_refused.load(Ordering::Relaxed),
            messages_removed: self.messages_removed.load(Ordering::Relaxed),
            batches_under_way: self.batches_under_way.load(Ordering::Relaxed),
            lag: if is_running { self.lag.load(Ordering::Relaxed) } else { 0 },
        }
    }
}
