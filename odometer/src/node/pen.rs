//! The thread that writes the raw book: one batch at a time, each tried once. Whether
//! to try again is for the [`raw`](super::raw) thread to say, which gathers the next
//! batch meanwhile.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use odometer_sink::BookError;
use odometer_sink::raw::{RawBatch, RawBook};

use super::progress::Progress;
use crate::slices::stand_back;

/// One attempt to write a batch.
pub(crate) struct Stroke {
    pub(crate) batch: RawBatch,
    pub(crate) outcome: Result<(), BookError>,
    pub(crate) elapsed: Duration,
}

/// The raw thread's end of it.
pub(crate) struct Pen {
    batches: SyncSender<RawBatch>,
    strokes: Receiver<Stroke>,
    is_writing: bool,
    thread: JoinHandle<()>,
}

impl Pen {
    pub(crate) fn start(mut book: Box<dyn RawBook>, progress: &Arc<Progress>) -> std::io::Result<Self> {
        // Room for the one batch that there ever is.
        let (batches, inbox) = sync_channel::<RawBatch>(1);
        let (done, strokes) = sync_channel(1);
        let thread = super::spawn_caught("pen", progress, move || {
            stand_back();
            while let Ok(batch) = inbox.recv() {
                let started = Instant::now();
                let outcome = book.write(&batch);
                if done.send(Stroke { batch, outcome, elapsed: started.elapsed() }).is_err() {
                    break;
                }
            }
        })?;
        Ok(Self { batches, strokes, is_writing: false, thread })
    }

    /// Begins to write. Call only while nothing is being written.
    pub(crate) fn write(&mut self, batch: RawBatch) {
        // A thread that is gone has failed, and said so.
        self.is_writing = self.batches.send(batch).is_ok();
    }

    /// Whether there is something to wait for.
    pub(crate) fn is_writing(&self) -> bool {
        self.is_writing
    }

    /// What became of the batch, if that is known.
    pub(crate) fn poll(&mut self) -> Option<Stroke> {
        self.wait_for(Duration::ZERO)
    }

    /// What became of the batch, if that is known within `timeout`.
    pub(crate) fn wait_for(&mut self, timeout: Duration) -> Option<Stroke> {
        let stroke = self.strokes.recv_timeout(timeout).ok();
        self.is_writing &= stroke.is_none();
        stroke
    }

    /// What became of the batch that is being written; None when there is none.
    pub(crate) fn wait(&mut self) -> Option<Stroke> {
        std::mem::take(&mut self.is_writing).then(|| self.strokes.recv().ok()).flatten()
    }

    /// Waits for what is being written, and ends the thread.
    pub(crate) fn finish(self) {
        drop((self.batches, self.strokes));
        let _ = self.thread.join();
    }
}
