//! The one task that writes: it takes what has gathered in front of all partitions at the
//! same moments, so that one flush takes the envelopes of all, and whoever reads them is
//! woken once. It looks at the next moment whether the log has them, and is woken for that
//! only where somebody waits. An envelope that the log is slow to take holds up its own
//! partition alone.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use odometer_ingest::log::LogAppender;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{Page, Queues};

/// Operations that nobody waits for gather for so long: within the 5 ms in which the log
/// usually has them, and long enough that envelopes are few.
const GATHER: Duration = Duration::from_millis(3);
/// How long an envelope that the log does not take is offered again.
const WRITE_MAX: Duration = Duration::from_secs(10);
/// Pause before it is offered again.
const WRITE_PAUSE: Duration = Duration::from_millis(5);

/// Writes what comes, until nothing more will.
pub(super) async fn write_all(log: Arc<dyn LogAppender>, queues: Arc<Queues>) {
    let mut moments = interval(GATHER);
    moments.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut writes = Writes::new(queues.queues.len());
    let mut rests = false;
    loop {
        let is_moment = tokio::select! {
            () = queues.call.notified() => false,
            () = writes.end(), if writes.is_hurried => false,
            _ = moments.tick(), if !rests => true,
        };
        writes.go_on();
        let is_closing = queues.is_closing.load(Ordering::Acquire);
        for (partition, queue) in queues.queues.iter().enumerate() {
            let is_due = is_moment || is_closing || queue.is_awaited() || writes.is_late(partition);
            if is_due && writes.is_free(partition) {
                let (pages, is_awaited) = queue.take();
                if !pages.is_empty() {
                    let write = write_pages((partition, &queues), log.as_ref(), pages);
                    writes.begin(partition, write, is_awaited || is_closing);
                }
            }
        }
        writes.go_on();
        rests = (rests || is_moment || is_closing) && writes.under_way.is_empty() && queues.may_rest();
        if rests && is_closing {
            return;
        }
    }
}

/// What is on its way into the log, of each partition what was taken at once.
struct Writes<F> {
    /// Each ends with its partition.
    under_way: FuturesUnordered<F>,
    partitions: Vec<State>,
    /// Somebody waits for one of them, or the next of its partition is due.
    is_hurried: bool,
}

#[derive(Clone, Copy, Default)]
struct State {
    is_writing: bool,
    /// What has gathered was due, and will be taken once the partition is free.
    is_late: bool,
}

impl<F: Future<Output = usize>> Writes<F> {
    fn new(partitions: usize) -> Self {
        let partitions = vec![State::default(); partitions];
        Self { under_way: FuturesUnordered::new(), partitions, is_hurried: false }
    }

    fn is_late(&self, partition: usize) -> bool {
        self.partitions[partition].is_late
    }

    /// Whether what is due may be taken; if not, it is late.
    fn is_free(&mut self, partition: usize) -> bool {
        let state = &mut self.partitions[partition];
        state.is_late = state.is_writing;
        self.is_hurried |= state.is_late;
        !state.is_writing
    }

    fn begin(&mut self, partition: usize, write: F, is_awaited: bool) {
        self.partitions[partition].is_writing = true;
        self.is_hurried |= is_awaited;
        self.under_way.push(write);
    }

    /// Does what can be done now, without asking to be woken.
    fn go_on(&mut self) {
        while let Some(Some(partition)) = self.under_way.next().now_or_never() {
            self.partitions[partition].is_writing = false;
        }
        self.is_hurried &= !self.under_way.is_empty();
    }

    /// Waits until one has ended; to be called while there is one.
    async fn end(&mut self) {
        if let Some(partition) = self.under_way.next().await {
            self.partitions[partition].is_writing = false;
        }
    }
}

/// Writes what was taken from one partition's queue, in its order.
async fn write_pages((partition, queues): (usize, &Queues), log: &dyn LogAppender, pages: Vec<Page>) -> usize {
    for page in pages {
        write_one(partition, log, page).await;
    }
    let queue = &queues.queues[partition];
    queue.note_oldest(&queue.lock(), true);
    partition
}

async fn write_one(partition: usize, log: &dyn LogAppender, page: Page) {
    // There are as many as the log says, in 32 bits.
    let number = u32::try_from(partition).unwrap_or(u32::MAX);
    let envelope = page.sheet.seal();
    let deadline = Instant::now() + WRITE_MAX;
    let written = loop {
        match log.append(number, envelope.clone()).wait().await {
            Err(error) if error.is_retryable() && Instant::now() < deadline => tokio::time::sleep(WRITE_PAUSE).await,
            written => break written,
        }
    };
    if let Err(error) = &written {
        tracing::warn!("decisions of partition {partition} did not get into the log: {error}");
    }
    for waiting in page.tell {
        // Whoever does not wait any more asks again with the same id.
        let _ = waiting.send(written.clone());
    }
}
