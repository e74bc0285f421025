//! The totals book's thread: takes commits in order, repeats each until the book has
//! it, and tells everyone how far the book is. A partition that another node has
//! claimed is taken out of its batch; the others go on without it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use odometer_sink::totals::{CommitError, OwnedCommit, TotalsBook};

use super::backoff::Backoff;
use super::progress::{Progress, StageName, with_causes};
use super::snapshots;
use crate::slices::stand_back;

/// What one round of counting changed, and ids to write down once the book has it.
#[derive(Default)]
pub(crate) struct Batch {
    pub(crate) commits: Vec<OwnedCommit>,
    pub(crate) snapshots: Vec<(u32, Vec<u8>)>,
}

impl Batch {
    pub(crate) fn is_empty(&self) -> bool {
        self.commits.is_empty() && self.snapshots.is_empty()
    }
}

/// What became of a batch.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Partitions and the offsets that the book needs next.
    pub(crate) committed: Vec<(u32, u64)>,
    /// Partitions that have another owner, with the epoch that is over, and why.
    pub(crate) fenced: Vec<Fenced>,
    /// The attempt that succeeded, without those before it.
    pub(crate) took: Duration,
}

/// A partition that has another owner.
#[derive(Debug)]
pub(crate) struct Fenced {
    pub(crate) partition: u32,
    /// The epoch that is over.
    pub(crate) epoch: u64,
    pub(crate) why: String,
}

/// The counting thread's end of the committer.
pub(crate) struct Committer {
    batches: SyncSender<Batch>,
    outcomes: Receiver<Outcome>,
    in_flight: bool,
    /// Set to end attempts that do not succeed.
    give_up: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Committer {
    pub(crate) fn start(
        book: Box<dyn TotalsBook>,
        progress: &Arc<Progress>,
        snapshots_dir: PathBuf,
    ) -> std::io::Result<Self> {
        // One batch at a time: the next one is gathered in the core meanwhile, where
        // absolute values of one total collapse into one row.
        let (batches, inbox) = sync_channel::<Batch>(1);
        let (done, outcomes) = sync_channel(1);
        let give_up = Arc::new(AtomicBool::new(false));
        let mut worker = Worker { book, progress: Arc::clone(progress), snapshots_dir, give_up: Arc::clone(&give_up) };
        let thread = super::spawn_caught("totals", progress, move || {
            stand_back();
            while let Ok(batch) = inbox.recv() {
                let Some(outcome) = worker.apply(batch) else { break };
                if done.send(outcome).is_err() {
                    break;
                }
            }
        })?;
        Ok(Self { batches, outcomes, in_flight: false, give_up, thread })
    }

    /// Whether a batch is on its way.
    pub(crate) fn is_busy(&self) -> bool {
        self.in_flight
    }

    /// What became of the batch that was on its way, once that is known.
    pub(crate) fn take(&mut self) -> Option<Outcome> {
        match self.outcomes.try_recv() {
            Ok(outcome) => {
                self.in_flight = false;
                Some(outcome)
            }
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => {
                // It has failed, and said so; nothing follows it.
                self.in_flight = false;
                None
            }
        }
    }

    /// Hands a batch over. Call only while not [busy](Self::is_busy).
    pub(crate) fn send(&mut self, batch: Batch) {
        self.in_flight = self.batches.send(batch).is_ok();
    }

    /// Gives up what is still on its way, and ends the thread.
    pub(crate) fn finish(self) {
        self.give_up.store(true, Ordering::Release);
        drop(self.batches);
        let _ = self.thread.join();
    }
}

struct Worker {
    book: Box<dyn TotalsBook>,
    progress: Arc<Progress>,
    snapshots_dir: PathBuf,
    give_up: Arc<AtomicBool>,
}

impl Worker {
    /// What became of the batch; None when it was given up, or the node must stop.
    fn apply(&mut self, mut batch: Batch) -> Option<Outcome> {
        let started = Instant::now();
        let (fenced, took) = self.commit(&mut batch.commits)?;
        metrics::histogram!("odometer_book_commit_seconds", "book" => "totals").record(started.elapsed());
        for owned in &batch.commits {
            let progress = self.progress.of(owned.commit.partition);
            progress.committed_offset.store(owned.commit.next_offset, Ordering::Release);
            if let Some(alert) = owned.commit.alerts.last() {
                progress.alerted.fetch_max(alert.sequence + 1, Ordering::Release);
            }
            progress.moved(StageName::Totals);
        }
        self.progress.announce_commit();
        batch.snapshots.retain(|(partition, _)| !fenced.iter().any(|fenced| fenced.partition == *partition));
        for (partition, bytes) in &batch.snapshots {
            if let Err(error) = snapshots::write(&self.snapshots_dir, *partition, bytes) {
                tracing::warn!("snapshot of partition {partition} was not written: {error}");
            }
        }
        let committed = batch.commits.iter().map(|owned| (owned.commit.partition, owned.commit.next_offset)).collect();
        Some(Outcome { committed, fenced, took })
    }

    /// Repeats until the book has all that it still takes from this node; what it does
    /// not take, and how long the last attempt took.
    fn commit(&mut self, commits: &mut Vec<OwnedCommit>) -> Option<(Vec<Fenced>, Duration)> {
        let (mut fenced, mut took) = (Vec::new(), Duration::ZERO);
        let mut backoff = Backoff::new();
        while !commits.is_empty() {
            let started = Instant::now();
            let tried = self.book.commit(commits);
            took = started.elapsed();
            match tried {
                Ok(()) => break,
                Err(error @ CommitError::Fenced { partition, epoch, .. }) => {
                    commits.retain(|owned| owned.commit.partition != partition);
                    fenced.push(Fenced { partition, epoch, why: error.to_string() });
                }
                Err(error) if error.is_retryable() => {
                    let why = with_causes(&error);
                    for owned in &*commits {
                        self.progress.of(owned.commit.partition).stuck(StageName::Totals, why.clone());
                    }
                    if self.progress.failure().is_some() || self.give_up.load(Ordering::Acquire) {
                        tracing::warn!("a commit was given up; the log has all of it: {why}");
                        return None;
                    }
                    backoff.sleep();
                }
                Err(error) => {
                    self.progress.fail(format!("the totals book refused a commit: {}", with_causes(&error)));
                    return None;
                }
            }
        }
        Some((fenced, took))
    }
}
