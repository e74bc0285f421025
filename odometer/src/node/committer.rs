//! The totals book's thread: takes commits in order, repeats each until the book has
//! it, and tells everyone how far the book is.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use odometer_sink::totals::{OwnedCommit, TotalsBook};

use super::progress::{Progress, StageName, with_causes};
use super::snapshots;

/// Longest pause between two attempts while the book cannot be reached.
const RETRY_MAX: Duration = Duration::from_secs(2);

/// What one round of counting changed, and ids to write down once the book has it.
#[derive(Default)]
pub(crate) struct Batch {
    pub(crate) commits: Vec<OwnedCommit>,
    pub(crate) snapshots: Vec<(u32, Vec<u8>)>,
}

/// The counting thread's end of the committer.
pub(crate) struct Committer {
    batches: SyncSender<Batch>,
    done: Receiver<()>,
    in_flight: bool,
    thread: JoinHandle<()>,
}

impl Committer {
    pub(crate) fn start(
        book: Box<dyn TotalsBook>,
        progress: Arc<Progress>,
        snapshots_dir: PathBuf,
    ) -> std::io::Result<Self> {
        // One batch at a time: the next one is gathered in the core meanwhile, where
        // absolute values of one total collapse into one row.
        let (batches, inbox) = sync_channel::<Batch>(1);
        let (done_sender, done) = sync_channel(1);
        let mut worker = Worker { book, progress, snapshots_dir };
        let thread = std::thread::Builder::new().name("totals".into()).spawn(move || {
            while let Ok(batch) = inbox.recv() {
                if !worker.apply(&batch) || done_sender.send(()).is_err() {
                    break;
                }
            }
        })?;
        Ok(Self { batches, done, in_flight: false, thread })
    }

    /// Whether the last batch is still on its way.
    pub(crate) fn is_busy(&mut self) -> bool {
        if self.in_flight {
            // A committer that is gone has failed, and said so; nothing follows it.
            self.in_flight = matches!(self.done.try_recv(), Err(TryRecvError::Empty));
        }
        self.in_flight
    }

    /// Hands a batch over. Call only while not [`busy`](Self::is_busy).
    pub(crate) fn send(&mut self, batch: Batch) -> bool {
        self.in_flight = self.batches.send(batch).is_ok();
        self.in_flight
    }

    /// Waits for what is on its way.
    pub(crate) fn finish(self) {
        drop(self.batches);
        let _ = self.thread.join();
    }
}

struct Worker {
    book: Box<dyn TotalsBook>,
    progress: Arc<Progress>,
    snapshots_dir: PathBuf,
}

impl Worker {
    /// Whether the book has the batch now; if not, the node must stop.
    fn apply(&mut self, batch: &Batch) -> bool {
        let started = Instant::now();
        let mut pause = Duration::from_millis(20);
        while let Err(error) = self.book.commit(&batch.commits) {
            if !error.is_retryable() {
                self.progress.fail(format!("the totals book refused a commit: {}", with_causes(&error)));
                return false;
            }
            if self.progress.failure().is_some() {
                return false;
            }
            for owned in &batch.commits {
                self.progress.of(owned.commit.partition).stuck(StageName::Totals, with_causes(&error));
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(RETRY_MAX);
        }
        metrics::histogram!("odometer_book_commit_seconds", "book" => "totals").record(started.elapsed());
        for owned in &batch.commits {
            let progress = self.progress.of(owned.commit.partition);
            progress.committed_offset.store(owned.commit.next_offset, std::sync::atomic::Ordering::Release);
            progress.moved(StageName::Totals);
        }
        self.progress.announce_commit();
        for (partition, bytes) in &batch.snapshots {
            if let Err(error) = snapshots::write(&self.snapshots_dir, *partition, bytes) {
                tracing::warn!("snapshot of partition {partition} was not written: {error}");
            }
        }
        true
    }
}
