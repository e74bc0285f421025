//! Writes decisions into the log: operations go in, one queue per partition; envelopes
//! of what has gathered come out, one on its way at a time, so that their order is that
//! of the decisions. An envelope that may have arrived is sent again: the log's side
//! takes each operation once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use odometer_ingest::log::{AppendError, Appended, LogAppender};
use odometer_schemas::control::Control;
use odometer_schemas::envelope::{Origin, encode_control};
use odometer_schemas::limits::ENVELOPE_BYTES_MAX;
use odometer_schemas::quota::{Action, HeldItem, QuotaError, QuotaOperation};
use tokio::sync::mpsc::{Permit, Receiver, Sender, channel};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Operations that may wait in front of one partition. A full queue is 503: at some
/// hundred thousand operations a second it is what a log that stalls collects in tens
/// of milliseconds.
const QUEUE_OPERATIONS: usize = 8_192;
/// Most operations of one envelope; its bytes bound it too.
const ENVELOPE_OPERATIONS_MAX: usize = 512;
/// Bytes of operations in one envelope: leaves room for the frame.
const ENVELOPE_OPERATION_BYTES_MAX: usize = ENVELOPE_BYTES_MAX - 1024;
/// How long operations that nobody waits for gather: far within the 5 ms in which the
/// log has them, and long enough that their envelopes, and who reads them, are few.
const GATHER: Duration = Duration::from_millis(1);
/// How long an envelope that the log does not take is offered again.
const WRITE_MAX: Duration = Duration::from_secs(10);
/// Pause before it is offered again.
const WRITE_PAUSE: Duration = Duration::from_millis(5);

/// Where an operation went, told to whoever waits for it.
pub(super) type Written = oneshot::Receiver<Result<Appended, AppendError>>;

/// The queues of all partitions, and the tasks that empty them.
pub(super) struct Scribe {
    queues: Vec<Queue>,
    tasks: JoinSet<()>,
}

struct Queue {
    entries: Sender<Entry>,
    /// Somebody waits for an operation.
    waiting: Arc<Notify>,
}

/// A place in a partition's queue, taken before anything is decided.
pub(super) struct Place<'a> {
    permit: Permit<'a, Entry>,
    waiting: &'a Notify,
}

struct Entry {
    /// Of the node that decided.
    epoch: u64,
    operation: QuotaOperation,
    /// None where nobody waits.
    written: Option<oneshot::Sender<Result<Appended, AppendError>>>,
}

impl Scribe {
    /// Starts a task per partition; call it within a runtime.
    pub(super) fn start(log: &Arc<dyn LogAppender>) -> Self {
        let mut tasks = JoinSet::new();
        let queues = (0..log.partitions())
            .map(|partition| {
                let ((entries, inbox), waiting) = (channel(QUEUE_OPERATIONS), Arc::default());
                tasks.spawn(write_all(partition, Arc::clone(log), (inbox, Arc::clone(&waiting))));
                Queue { entries, waiting }
            })
            .collect();
        Self { queues, tasks }
    }

    /// A place in the queue of `partition`, now.
    pub(super) fn place(&self, partition: u32) -> Result<Place<'_>, QuotaError> {
        let Queue { entries, waiting } = &self.queues[partition as usize];
        let full = |_| QuotaError::Unavailable { why: "the log is behind with decisions".to_owned() };
        entries.try_reserve().map(|permit| Place { permit, waiting }).map_err(full)
    }

    /// Operations that wait in all queues.
    pub(super) fn queued(&self) -> usize {
        self.queues.iter().map(|queue| queue.entries.max_capacity() - queue.entries.capacity()).sum()
    }

    /// Writes what waits, and ends.
    pub(super) async fn finish(mut self) {
        self.queues.clear();
        while self.tasks.join_next().await.is_some() {}
    }
}

impl Place<'_> {
    /// Hands an operation over that nobody waits for.
    pub(super) fn write(self, epoch: u64, operation: QuotaOperation) {
        self.permit.send(Entry { epoch, operation, written: None });
    }

    /// Hands an operation over and tells where it went.
    pub(super) fn write_and_tell(self, epoch: u64, operation: QuotaOperation) -> Written {
        let (tell, written) = oneshot::channel();
        self.permit.send(Entry { epoch, operation, written: Some(tell) });
        self.waiting.notify_one();
        written
    }
}

async fn write_all(partition: u32, log: Arc<dyn LogAppender>, (mut inbox, waiting): (Receiver<Entry>, Arc<Notify>)) {
    let mut gathered = Vec::new();
    while inbox.recv_many(&mut gathered, ENVELOPE_OPERATIONS_MAX).await > 0 {
        if gathered.iter().all(|entry| entry.written.is_none()) {
            // Meanwhile nobody who decides has to wake this task.
            let _ = timeout(GATHER, waiting.notified()).await;
            let room = ENVELOPE_OPERATIONS_MAX - gathered.len();
            gathered.extend(std::iter::from_fn(|| inbox.try_recv().ok()).take(room));
        }
        while !gathered.is_empty() {
            let rest = gathered.split_off(fitting(&gathered));
            write_one(partition, log.as_ref(), std::mem::replace(&mut gathered, rest)).await;
        }
    }
}

/// How many of the first entries go into one envelope: of one epoch, within its bytes,
/// at least one.
fn fitting(entries: &[Entry]) -> usize {
    let epoch = entries[0].epoch;
    let mut bytes = 0;
    let fits = entries.iter().take_while(|entry| {
        bytes += bytes_of(&entry.operation);
        entry.epoch == epoch && bytes <= ENVELOPE_OPERATION_BYTES_MAX
    });
    fits.count().max(1)
}

/// An upper bound of what an operation takes in an envelope.
fn bytes_of(operation: &QuotaOperation) -> usize {
    /// Numbers, lengths and tags of an operation or an item, all as long as can be.
    const FIXED: usize = 96;
    let items = |items: &[HeldItem]| items.iter().map(|item| item.meter.len() + FIXED).sum::<usize>();
    let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let action = match &operation.action {
        Action::Reserve { subject, key, items: held, .. } => text(subject) + text(key) + items(held),
        Action::Extend { add: held, .. } | Action::Commit { items: held, .. } => items(held),
        Action::Release { .. } => 0,
    };
    operation.tenant.len() + operation.id.len() + action + FIXED
}

async fn write_one(partition: u32, log: &dyn LogAppender, entries: Vec<Entry>) {
    let epoch = entries[0].epoch;
    let (operations, tell): (Vec<_>, Vec<_>) =
        entries.into_iter().map(|entry| (entry.operation, entry.written)).unzip();
    let envelope = encode_control(&Control::Quota { epoch, operations }, Origin::default());
    let deadline = Instant::now() + WRITE_MAX;
    let written = loop {
        match log.append(partition, envelope.clone()).wait().await {
            Err(error) if error.is_retryable() && Instant::now() < deadline => tokio::time::sleep(WRITE_PAUSE).await,
            written => break written,
        }
    };
    if let Err(error) = &written {
        tracing::warn!("decisions of partition {partition} did not get into the log: {error}");
    }
    for waiting in tell.into_iter().flatten() {
        // Whoever does not wait any more asks again with the same id.
        let _ = waiting.send(written.clone());
    }
}
