//! Writes decisions into the log: operations go in, written down at once by whoever
//! decided; envelopes of what has gathered come out, one on its way at a time, so that
//! their order is that of the decisions. An envelope that may have arrived is sent again:
//! the log's side takes each operation once.
//!
//! Reading path: [`Place`] (in) → [`writing`] (out).

#[cfg(test)]
mod tests;
mod writing;

use std::cell::RefCell;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;
use odometer_ingest::log::{AppendError, Appended, LogAppender};
use odometer_schemas::envelope::{QuotaSheet, encode_operation};
use odometer_schemas::quota::{QuotaError, QuotaOperation};
use odometer_schemas::time::TimeMs;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;

/// Operations that may wait in front of one partition. A full queue is 503: at some
/// hundred thousand operations a second it is what a log that stalls collects in tens
/// of milliseconds.
const QUEUE_OPERATIONS: usize = 8_192;
/// Most operations of one envelope; its bytes bound it too.
const ENVELOPE_OPERATIONS_MAX: usize = 512;
/// Age of an operation that the log has not got at which it is behind: what gathers and
/// is committed takes a few milliseconds, and some ten where everything is busy.
const BEHIND_MS: i64 = 50;

/// What whoever waits for an operation waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    /// The log has it, as far as it usually has what nobody waits for: the end of this
    /// process does not take it away.
    Written,
    /// The log has it for good.
    Durable,
}

/// Where an operation went, told to whoever waits for it.
pub(super) type Written = oneshot::Receiver<Result<Appended, AppendError>>;

/// The queues of all partitions, and the task that empties them.
pub(super) struct Scribe {
    queues: Arc<Queues>,
    task: JoinSet<()>,
}

/// What waits in front of all partitions, and whoever writes it.
struct Queues {
    queues: Vec<Queue>,
    /// Whoever writes sleeps until it is called: nothing waits.
    is_resting: AtomicBool,
    is_closing: AtomicBool,
    /// Whoever wrote has panicked.
    has_failed: AtomicBool,
    /// Something waits where nothing did, somebody waits for it, or nothing more will come.
    call: Notify,
}

/// What waits in front of one partition.
#[derive(Default)]
struct Queue {
    /// Operations that wait, and places for those that may come.
    places: AtomicUsize,
    /// When the oldest operation was decided that the log has not got, Unix milliseconds;
    /// zero where it has all. Changes under the lock.
    oldest_ms: AtomicI64,
    /// Somebody waits for one of the operations. Changes under the lock.
    is_awaited: AtomicBool,
    gathered: Mutex<Gathered>,
}

#[derive(Default)]
struct Gathered {
    /// In their order; only the last one takes more.
    pages: Vec<Page>,
    /// When the first of them was decided.
    began_ms: i64,
}

/// What becomes one envelope.
struct Page {
    sheet: QuotaSheet,
    /// Those who wait for one of its operations.
    tell: Vec<Tell>,
    /// Some of them wait until it is durable.
    is_durable: bool,
}

/// Tells whoever waits.
type Tell = oneshot::Sender<Result<Appended, AppendError>>;

/// A place in a partition's queue, taken before anything is decided.
pub(super) struct Place<'a> {
    queues: &'a Queues,
    queue: &'a Queue,
    is_used: bool,
}

impl Scribe {
    /// Starts the task that writes; call it within a runtime. `failed` is told if it panics:
    /// the node must stop then.
    pub(super) fn start(log: &Arc<dyn LogAppender>, failed: impl FnOnce(String) + Send + 'static) -> Self {
        let queues = Arc::new(Queues::new(log.partitions()));
        let mut task = JoinSet::new();
        task.spawn(write(Arc::clone(log), Arc::clone(&queues), failed));
        Self { queues, task }
    }

    /// A place in the queue of `partition`, now.
    pub(super) fn place(&self, partition: u32) -> Result<Place<'_>, QuotaError> {
        let queue = &self.queues.queues[partition as usize];
        let is_full = queue.places.fetch_add(1, Ordering::Relaxed) >= QUEUE_OPERATIONS;
        // Given back where it is dropped.
        let place = Place { queues: &self.queues, queue, is_used: false };
        if is_full {
            return Err(QuotaError::Unavailable { why: "the log is behind with decisions".to_owned() });
        }
        if self.queues.has_failed.load(Ordering::Relaxed) {
            return Err(QuotaError::Unavailable { why: "nobody writes decisions any more".to_owned() });
        }
        Ok(place)
    }

    /// Whether the log is behind with decisions about `partition`: who is answered without
    /// waiting for it then would make more of what a crash forgets.
    pub(super) fn is_behind(&self, partition: u32, now: TimeMs) -> bool {
        let oldest_ms = self.queues.queues[partition as usize].oldest_ms.load(Ordering::Relaxed);
        oldest_ms != 0 && now.0.saturating_sub(oldest_ms) > BEHIND_MS
    }

    /// Operations that wait in all queues.
    pub(super) fn queued(&self) -> usize {
        self.queues.queued()
    }

    /// Writes what waits, and ends.
    pub(super) async fn finish(mut self) {
        self.queues.is_closing.store(true, Ordering::Release);
        self.queues.call.notify_one();
        while self.task.join_next().await.is_some() {}
    }
}

async fn write(log: Arc<dyn LogAppender>, queues: Arc<Queues>, failed: impl FnOnce(String)) {
    // The state that a panic leaves behind is never looked at again.
    if AssertUnwindSafe(writing::write_all(log.as_ref(), &queues)).catch_unwind().await.is_err() {
        queues.has_failed.store(true, Ordering::Relaxed);
        // Whoever waits is told so.
        queues.queues.iter().for_each(|queue| drop(queue.take()));
        failed("the scribe panicked; this is a bug".to_owned());
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if !self.is_used {
            self.queue.places.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Place<'_> {
    /// Hands an operation over that nobody waits for.
    pub(super) fn write(self, epoch: u64, operation: &QuotaOperation) {
        self.put(epoch, operation, None);
    }

    /// Hands an operation over and tells where it went, once the log has it.
    pub(super) fn write_and_tell(self, epoch: u64, operation: &QuotaOperation, until: Until) -> Written {
        let (tell, written) = oneshot::channel();
        self.put(epoch, operation, Some((tell, until)));
        written
    }

    fn put(mut self, epoch: u64, operation: &QuotaOperation, tell: Option<(Tell, Until)>) {
        thread_local! {
            static BYTES: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        self.is_used = true;
        let (is_first, is_first_awaited) = BYTES.with_borrow_mut(|bytes| {
            bytes.clear();
            // Not under the lock: whoever decides beside this one waits for as little as can be.
            encode_operation(operation, bytes);
            let mut gathered = self.queue.lock();
            let is_first_awaited = tell.is_some() && !self.queue.is_awaited.swap(true, Ordering::Relaxed);
            let is_first = gathered.put(epoch, bytes, tell);
            if is_first {
                gathered.began_ms = operation.at_ms;
                self.queue.note_oldest(&gathered, false);
            }
            (is_first, is_first_awaited)
        });
        // Whoever put the first one in has called for all until they are taken.
        if is_first_awaited || is_first && self.queues.is_resting.load(Ordering::Relaxed) {
            self.queues.call.notify_one();
        }
    }
}

impl Queues {
    fn new(partitions: u32) -> Self {
        Self {
            queues: (0..partitions).map(|_| Queue::default()).collect(),
            is_resting: AtomicBool::new(false),
            is_closing: AtomicBool::new(false),
            has_failed: AtomicBool::new(false),
            call: Notify::new(),
        }
    }

    /// Operations that wait, in all queues.
    fn queued(&self) -> usize {
        self.queues.iter().map(|queue| queue.places.load(Ordering::Relaxed)).sum()
    }

    /// Whether nothing waits anywhere, so that whoever writes may rest. It says so first, and
    /// the lock of each queue orders this look and whoever puts something in.
    fn may_rest(&self) -> bool {
        self.is_resting.store(true, Ordering::Relaxed);
        !self.queues.iter().any(Queue::has_some)
    }
}

impl Queue {
    /// Whole at every step.
    fn lock(&self) -> MutexGuard<'_, Gathered> {
        self.gathered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes since when the log is without an operation; `is_written`: it has all that was
    /// taken.
    fn note_oldest(&self, gathered: &Gathered, is_written: bool) {
        let began_ms = if gathered.pages.is_empty() { 0 } else { gathered.began_ms };
        if is_written || self.oldest_ms.load(Ordering::Relaxed) == 0 {
            self.oldest_ms.store(began_ms, Ordering::Relaxed);
        }
    }

    fn is_awaited(&self) -> bool {
        self.is_awaited.load(Ordering::Relaxed)
    }

    fn has_some(&self) -> bool {
        !self.lock().pages.is_empty()
    }

    /// Takes all that waits, and whether somebody waits for it.
    fn take(&self) -> (Vec<Page>, bool) {
        let mut gathered = self.lock();
        let is_awaited = self.is_awaited.swap(false, Ordering::Relaxed);
        let pages = std::mem::take(&mut gathered.pages);
        drop(gathered);
        let operations = pages.iter().map(|page| page.sheet.operations()).sum();
        self.places.fetch_sub(operations, Ordering::Relaxed);
        (pages, is_awaited)
    }
}

impl Gathered {
    /// Adds an operation; whether it is the first.
    fn put(&mut self, epoch: u64, operation: &[u8], tell: Option<(Tell, Until)>) -> bool {
        let takes_it = |page: &Page| {
            let Page { sheet, .. } = page;
            sheet.epoch() == epoch && sheet.operations() < ENVELOPE_OPERATIONS_MAX && sheet.has_room(operation.len())
        };
        let is_first = self.pages.is_empty();
        if !self.pages.last().is_some_and(takes_it) {
            self.pages.push(Page { sheet: QuotaSheet::new(epoch), tell: Vec::new(), is_durable: false });
        }
        if let Some(page) = self.pages.last_mut() {
            page.sheet.push(operation);
            page.is_durable |= tell.as_ref().is_some_and(|(_, until)| *until == Until::Durable);
            page.tell.extend(tell.map(|(tell, _)| tell));
        }
        is_first
    }
}
