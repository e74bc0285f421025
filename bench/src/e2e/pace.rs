//! When a sender may send its next records.

use std::time::{Duration, Instant};

/// The rhythm of one of several equal senders.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    started: Instant,
    /// Records per second of this sender; none sends at once.
    per_s: Option<f64>,
}

impl Pace {
    /// A share of `rate` records per second for one of `senders`.
    pub(crate) fn new(started: Instant, rate: Option<u64>, senders: u64) -> Self {
        Self { started, per_s: rate.map(|rate| rate as f64 / senders as f64) }
    }

    /// When the record after `sent` others is meant to be sent, so that waiting for it
    /// counts as delay; now, without a rate.
    pub(crate) fn due(&self, sent: u64) -> Instant {
        self.per_s.map_or_else(Instant::now, |per_s| self.started + Duration::from_secs_f64(sent as f64 / per_s))
    }

    /// Waits until the record after `sent` others is due.
    pub(crate) async fn wait(&self, sent: u64) {
        if self.per_s.is_some() {
            tokio::time::sleep_until(self.due(sent).into()).await;
        }
    }

    /// Records to make between two looks at the clock: a hundredth of a second's.
    pub(crate) fn stride(&self) -> u64 {
        /// Keeps a clock reading per record out of the figures.
        const STRIDE_MAX: u64 = 512;
        self.per_s.map_or(STRIDE_MAX, |per_s| (per_s / 100.0) as u64).clamp(1, STRIDE_MAX)
    }
}
