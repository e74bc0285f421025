//! The counting thread: reads the log, offers every entry to the core, and hands what
//! changed to the committer. One writer for every partition that the node owns.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use odometer_ingest::log::LogReader;
use odometer_sink::totals::OwnedCommit;

use super::committer::{Batch, Committer};
use super::progress::{Progress, StageName};
use super::recover::Owned;

/// Log bytes read from one partition at once: a few milliseconds of counting, so
/// that no partition waits long for its turn.
const READ_BYTES_MAX: usize = 1024 * 1024;
/// How long an idle round waits for the log. Appends in this process end the wait at
/// once.
const IDLE_WAIT: Duration = Duration::from_millis(20);
/// Rows that may pile up for the totals book while it cannot be reached; at about 300
/// bytes each, half a gigabyte. Beyond it the partition pauses.
const PENDING_ROWS_MAX: usize = 2_000_000;

/// When to hand over what changed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cadence {
    pub(crate) commit_every: Duration,
    pub(crate) snapshot_every: Duration,
}

pub(crate) struct Counter {
    pub(crate) log: Box<dyn LogReader>,
    pub(crate) owned: Vec<(u32, Owned)>,
    pub(crate) committer: Committer,
    pub(crate) progress: Arc<Progress>,
    pub(crate) cadence: Cadence,
    /// Set when the node drains: count what the log holds, commit, end.
    pub(crate) draining: Arc<AtomicBool>,
}

impl Counter {
    /// Runs until drained or failed.
    pub(crate) fn run(mut self) {
        let (mut committed, mut snapshotted) = (Instant::now(), Instant::now());
        loop {
            if self.progress.failure().is_some() {
                return self.committer.finish();
            }
            let draining = self.draining.load(Ordering::Acquire);
            let counted = match self.round() {
                Ok(counted) => counted,
                Err(error) => {
                    self.progress.fail(format!("the log cannot be read: {error}"));
                    continue;
                }
            };
            let drained = draining && !counted;
            let due = committed.elapsed() >= self.cadence.commit_every || drained;
            if due && !self.committer.is_busy() {
                let snapshot = drained || snapshotted.elapsed() >= self.cadence.snapshot_every;
                self.hand_over(snapshot);
                committed = Instant::now();
                if snapshot {
                    snapshotted = committed;
                }
                if drained {
                    return self.committer.finish();
                }
            }
            if !counted {
                self.log.wait(IDLE_WAIT.min(self.cadence.commit_every));
            }
        }
    }

    /// Counts a stretch of every partition; whether there was anything to count.
    fn round(&mut self) -> anyhow::Result<bool> {
        let mut any = false;
        for (partition, owned) in &mut self.owned {
            let progress = self.progress.of(*partition);
            if owned.processor.pending_rows() > PENDING_ROWS_MAX {
                progress.stuck(StageName::Count, "paused: too much is waiting for the totals book");
                continue;
            }
            let entries = self.log.read(*partition, owned.processor.next_offset(), READ_BYTES_MAX)?;
            let before = owned.processor.next_offset();
            match entries.iter().try_for_each(|entry| owned.processor.handle(entry)) {
                Ok(()) => progress.moved(StageName::Count),
                Err(refusal) => progress.stuck(StageName::Count, refusal.to_string()),
            }
            publish(progress, owned);
            any |= owned.processor.next_offset() > before;
            progress.end_offset.store(self.log.bounds(*partition)?.end_offset, Ordering::Release);
        }
        Ok(any)
    }

    fn hand_over(&mut self, snapshot: bool) {
        let mut batch = Batch::default();
        for (partition, owned) in &mut self.owned {
            let commit = owned.processor.poll_commit();
            batch.commits.extend(commit.map(|commit| OwnedCommit { epoch: owned.epoch, commit }));
            // The committer writes it once the book has all that it covers.
            if snapshot && owned.snapshot_offset < owned.processor.next_offset() {
                owned.snapshot_offset = owned.processor.next_offset();
                batch.snapshots.push((*partition, owned.processor.snapshot()));
            }
        }
        if !batch.commits.is_empty() || !batch.snapshots.is_empty() {
            self.committer.send(batch);
        }
    }
}

fn publish(progress: &super::progress::PartitionProgress, owned: &Owned) {
    let processor = &owned.processor;
    let (ids, since) = processor.dedupe_window();
    progress.log_time_ms.store(processor.log_time().0, Ordering::Relaxed);
    progress.ids.store(ids as u64, Ordering::Relaxed);
    progress.ids_since_ms.store(since.map_or(0, |t| t.0), Ordering::Relaxed);
    progress.set_counts(processor.counts());
    progress.next_offset.store(processor.next_offset(), Ordering::Release);
}
