//! How far every partition has come: written by the node's threads, read by health,
//! metrics and live answers. Holds no decision and takes none.

use std::sync::atomic::{
    AtomicBool, AtomicI64, AtomicU8, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use odometer_schemas::time::TimeMs;
use odometer_schemas::verdict::VerdictCounts;

/// Now, by the wall clock.
pub(crate) fn now() -> TimeMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    TimeMs(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// What this node has to do with a partition's counting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Another node counts it, or nobody.
    Elsewhere = 0,
    /// Assigned to this node, whose answers are not authoritative yet.
    Recovering = 1,
    /// Counted here, with everything that the log held when it was taken over.
    Authoritative = 2,
}

/// The progress of one partition. Offsets satisfy
/// `raw_offset ≤ committed_offset ≤ next_offset ≤ end_offset`.
#[derive(Debug, Default)]
pub(crate) struct PartitionProgress {
    /// Where the log ends.
    pub(crate) end_offset: AtomicU64,
    /// Counted up to here.
    pub(crate) next_offset: AtomicU64,
    /// In the totals book up to here.
    pub(crate) committed_offset: AtomicU64,
    /// In the raw book up to here.
    pub(crate) raw_offset: AtomicU64,
    /// Log time at `next_offset`, Unix milliseconds.
    pub(crate) log_time_ms: AtomicI64,
    /// Ids in the dedupe window.
    pub(crate) ids: AtomicU64,
    /// Log time since which all ids are remembered, Unix milliseconds.
    pub(crate) ids_since_ms: AtomicI64,
    /// The epoch that this node owns it with, once it is authoritative.
    pub(crate) epoch: AtomicU64,
    /// Above the sequence of the newest alert that this node committed; zero for none.
    pub(crate) alerted: AtomicU64,
    /// Wakes whoever waits for the counting to reach an offset.
    counted: tokio::sync::Notify,
    /// Whether this node writes its raw rows.
    pub(crate) writes_raw: AtomicBool,
    standing: AtomicU8,
    counts: [AtomicU64; 6],
    stages: [Stage; 3],
}

/// Where one stage of a partition is stuck, if it is.
#[derive(Debug, Default)]
struct Stage {
    /// Wall-clock time since which it has had work and not moved; zero when it moves.
    stuck_since_ms: AtomicI64,
    reason: Mutex<Option<String>>,
}

/// The stages that can be stuck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StageName {
    /// Reading the log and counting.
    Count = 0,
    /// Committing to the totals book.
    Totals = 1,
    /// Writing to the raw book.
    Raw = 2,
}

impl StageName {
    pub(crate) const ALL: [Self; 3] = [Self::Count, Self::Totals, Self::Raw];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Count => "counting",
            Self::Totals => "the totals book",
            Self::Raw => "the raw book",
        }
    }
}

impl PartitionProgress {
    pub(crate) fn standing(&self) -> Standing {
        match self.standing.load(Acquire) {
            0 => Standing::Elsewhere,
            1 => Standing::Recovering,
            _ => Standing::Authoritative,
        }
    }

    pub(crate) fn stand(&self, standing: Standing) {
        self.standing.store(standing as u8, Release);
    }

    /// Forgets what another node counts from now on.
    pub(crate) fn leave(&self) {
        self.stand(Standing::Elsewhere);
        for offset in [&self.end_offset, &self.next_offset, &self.committed_offset, &self.ids, &self.alerted] {
            offset.store(0, Relaxed);
        }
        for time in [&self.log_time_ms, &self.ids_since_ms] {
            time.store(0, Relaxed);
        }
        self.set_counts(&VerdictCounts::default());
        self.moved(StageName::Count);
        self.moved(StageName::Totals);
    }

    /// Publishes how far it is counted.
    pub(crate) fn counted_to(&self, next_offset: u64) {
        self.next_offset.store(next_offset, Release);
        self.counted.notify_waiters();
    }

    /// Waits until the entry at `offset` is counted here.
    pub(crate) async fn counted_beyond(&self, offset: u64) {
        loop {
            // Asked for before the look, so that nothing in between is missed.
            let counted = self.counted.notified();
            if self.next_offset.load(Acquire) > offset {
                return;
            }
            counted.await;
        }
    }

    /// Raises the log's known end.
    pub(crate) fn ends_at_least(&self, offset: u64) {
        self.end_offset.fetch_max(offset, Release);
    }

    /// Publishes the counts of a partition.
    pub(crate) fn set_counts(&self, counts: &VerdictCounts) {
        let values =
            [counts.received, counts.accepted, counts.duplicate, counts.conflict, counts.late, counts.rejected];
        for (slot, value) in self.counts.iter().zip(values) {
            slot.store(value, Relaxed);
        }
    }

    pub(crate) fn counts(&self) -> VerdictCounts {
        let [received, accepted, duplicate, conflict, late, rejected] =
            [0, 1, 2, 3, 4, 5].map(|i: usize| self.counts[i].load(Relaxed));
        VerdictCounts { received, accepted, duplicate, conflict, late, rejected }
    }

    /// A stage has moved, or has nothing to do.
    pub(crate) fn moved(&self, stage: StageName) {
        let stage = &self.stages[stage as usize];
        if stage.stuck_since_ms.swap(0, Relaxed) != 0 {
            *lock(&stage.reason) = None;
        }
    }

    /// A stage has work that it cannot do, and why.
    pub(crate) fn stuck(&self, stage: StageName, reason: impl Into<String>) {
        let stage = &self.stages[stage as usize];
        let _ = stage.stuck_since_ms.compare_exchange(0, now().0, Relaxed, Relaxed);
        *lock(&stage.reason) = Some(reason.into());
    }

    /// How long a stage has been stuck, and why.
    pub(crate) fn stuck_for(&self, stage: StageName) -> Option<(Duration, String)> {
        let stage = &self.stages[stage as usize];
        let since_ms = stage.stuck_since_ms.load(Relaxed);
        let elapsed_ms = u64::try_from(now().0 - since_ms).unwrap_or(0);
        (since_ms != 0).then(|| (Duration::from_millis(elapsed_ms), lock(&stage.reason).clone().unwrap_or_default()))
    }

    /// Milliseconds that live answers of this partition are behind the log.
    pub(crate) fn lag_ms(&self, now: TimeMs) -> i64 {
        if self.next_offset.load(Relaxed) >= self.end_offset.load(Relaxed) {
            return 0;
        }
        (now.0 - self.log_time_ms.load(Relaxed)).max(0)
    }
}

/// The progress of all partitions, and the first failure that none can survive.
#[derive(Debug)]
pub(crate) struct Progress {
    pub(crate) partitions: Vec<PartitionProgress>,
    /// Whether it is known which partitions this node counts.
    pub(crate) joined: AtomicBool,
    /// How often that changed.
    pub(crate) rebalances: AtomicU64,
    failure: OnceLock<String>,
    /// Until when this node may decide, in milliseconds since `started`.
    lease_ms: AtomicI64,
    started: Instant,
    committed: Mutex<u64>,
    committed_changed: Condvar,
}

impl Progress {
    pub(crate) fn new(partitions: u32) -> Self {
        Self {
            partitions: (0..partitions).map(|_| PartitionProgress::default()).collect(),
            joined: AtomicBool::new(false),
            rebalances: AtomicU64::new(0),
            failure: OnceLock::new(),
            lease_ms: AtomicI64::new(i64::MAX),
            started: Instant::now(),
            committed: Mutex::new(0),
            committed_changed: Condvar::new(),
        }
    }

    pub(crate) fn of(&self, partition: u32) -> &PartitionProgress {
        &self.partitions[partition as usize]
    }

    /// Whether every partition that this node counts is authoritative.
    pub(crate) fn is_authoritative(&self) -> bool {
        self.joined.load(Acquire) && self.partitions.iter().all(|p| p.standing() != Standing::Recovering)
    }

    /// Whether no other node can have taken this one's partitions over by now.
    pub(crate) fn may_decide(&self) -> bool {
        let lease_ms = self.lease_ms.load(Acquire);
        // Whoever is alone asks no clock.
        lease_ms == i64::MAX || self.since_start_ms(Instant::now()) < lease_ms
    }

    /// This node may decide until `until`, and no longer unless that is renewed.
    pub(crate) fn lease_until(&self, until: Instant) {
        self.lease_ms.store(self.since_start_ms(until), Release);
    }

    fn since_start_ms(&self, time: Instant) -> i64 {
        i64::try_from(time.saturating_duration_since(self.started).as_millis()).unwrap_or(i64::MAX)
    }

    /// Notes a failure that stops the node; the first one stays. Whoever stops it
    /// tells the user.
    pub(crate) fn fail(&self, failure: String) {
        let _ = self.failure.set(failure);
        self.committed_changed.notify_all();
    }

    pub(crate) fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }

    /// Tells whoever follows the totals book that it has moved.
    pub(crate) fn announce_commit(&self) {
        *lock(&self.committed) += 1;
        self.committed_changed.notify_all();
    }

    /// Waits until the totals book has moved since `seen`, or for `timeout`; the new
    /// mark to wait from.
    pub(crate) fn await_commit(&self, seen: u64, timeout: Duration) -> u64 {
        let guard = lock(&self.committed);
        let waited = self.committed_changed.wait_timeout_while(guard, timeout, |now| *now == seen);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Counts over all partitions.
    pub(crate) fn counts(&self) -> VerdictCounts {
        self.partitions.iter().fold(VerdictCounts::default(), |mut sum, partition| {
            sum.merge(&partition.counts());
            sum
        })
    }
}

/// An error with everything that caused it, on one line.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// The data behind these locks is valid at every step, so a panic elsewhere does not
/// make it unusable.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
