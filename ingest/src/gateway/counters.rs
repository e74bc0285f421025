//! What the gateway has done so far, in numbers that only grow.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::refusal::RefusalCode;
use super::sheet::Tally;

/// Counters of one gateway. Each is exact; together they are no snapshot.
#[derive(Debug, Default)]
pub struct GatewayCounters {
    /// Requests for events and envelopes that began.
    pub requests: AtomicU64,
    /// Requests refused as a whole, for a fault of the client.
    pub requests_refused: AtomicU64,
    /// Requests answered 5xx: too many at once, the log, or a fault of our own.
    pub requests_unavailable: AtomicU64,
    /// Bytes of bodies as they arrived.
    pub body_bytes: AtomicU64,
    /// Bytes of bodies after inflating.
    pub plain_bytes: AtomicU64,
    /// Events that the log holds.
    pub events_stored: AtomicU64,
    /// Records that the log holds.
    pub records_stored: AtomicU64,
    /// Envelopes of remote emitters that the log holds.
    pub remote_envelopes_stored: AtomicU64,
    /// Waits for the log.
    pub appends: AtomicU64,
    /// Time spent in them, in microseconds.
    pub append_us: AtomicU64,
    refused: [AtomicU64; RefusalCode::ALL.len()],
}

impl GatewayCounters {
    /// Events refused, by reason.
    pub fn events_refused(&self) -> impl Iterator<Item = (RefusalCode, u64)> {
        RefusalCode::ALL.into_iter().zip(self.refused.iter().map(|counter| counter.load(Ordering::Relaxed)))
    }

    pub(super) fn add_tally(&self, tally: &Tally) {
        add(&self.events_stored, tally.stored);
        add(&self.records_stored, tally.records_stored);
        for (counter, refused) in self.refused.iter().zip(tally.refused) {
            add(counter, refused);
        }
    }

    pub(super) fn add_append(&self, took: Duration) {
        add(&self.appends, 1);
        self.append_us.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

pub(super) fn add(counter: &AtomicU64, n: usize) {
    counter.fetch_add(n as u64, Ordering::Relaxed);
}
