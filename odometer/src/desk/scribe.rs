//! Writes decisions into the log: operations go in, written down at once by whoever
//! decided; envelopes of what has gathered come out, one on its way at a time, so that
//! their order is that of the decisions. An envelope that may have arrived is sent again:
//! the log's side takes each operation once.
//!
//! Reading path: [`Place`] (in) → [`writing`] (out).

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
        let queues = Arc::new(Queues {
            queues: (0..log.partitions()).map(|_| Queue::default()).collect(),
            is_resting: AtomicBool::new(false),
            is_closing: AtomicBool::new(false),
            has_failed: AtomicBool::new(false),
            call: Notify::new(),
        });
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
        self.queues.queues.iter().map(|queue| queue.places.load(Ordering::Relaxed)).sum()
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

#[cfg(test)]
mod tests {
    use odometer_ingest::log::PendingAppend;
    use odometer_schemas::control::Control;
    use odometer_schemas::envelope::{Decoded, decode};
    use odometer_schemas::quota::Action;

    use super::*;

    /// Keeps what it is given: epochs, and the numbers of the operations.
    #[derive(Default)]
    struct Log(Mutex<Vec<(u64, Vec<u64>)>>);

    impl LogAppender for Log {
        fn partitions(&self) -> u32 {
            1
        }

        fn append(&self, _partition: u32, envelope: Vec<u8>) -> PendingAppend {
            let Ok(Decoded::Control(control)) = decode(&envelope) else { panic!("no control record") };
            let Control::Quota { epoch, operations } = *control else { panic!("{control:?}") };
            let numbers = operations.iter().map(|operation| match operation.action {
                Action::Release { op } => op,
                ref other => panic!("{other:?}"),
            });
            let mut kept = self.0.lock().unwrap();
            kept.push((epoch, numbers.collect()));
            PendingAppend::ready(Ok(Appended { offset: kept.len() as u64, append_time: TimeMs(0) }))
        }
    }

    /// Keeps whether each envelope was to be durable.
    #[derive(Default)]
    struct Kinds(Mutex<Vec<bool>>);

    impl Kinds {
        fn note(&self, is_durable: bool) -> PendingAppend {
            self.0.lock().unwrap().push(is_durable);
            PendingAppend::ready(Ok(Appended { offset: 0, append_time: TimeMs(0) }))
        }
    }

    impl LogAppender for Kinds {
        fn partitions(&self) -> u32 {
            1
        }

        fn append(&self, _partition: u32, _envelope: Vec<u8>) -> PendingAppend {
            self.note(true)
        }

        fn append_unflushed(&self, _partition: u32, _envelope: Vec<u8>) -> PendingAppend {
            self.note(false)
        }
    }

    #[tokio::test]
    async fn who_waits_until_it_is_written_waits_for_no_flush() {
        let log = Arc::<Kinds>::default();
        let scribe = Scribe::start(&(Arc::clone(&log) as Arc<dyn LogAppender>), |why| panic!("{why}"));
        let put = |until| scribe.place(0).unwrap().write_and_tell(1, &operation(7), until);
        assert!(put(Until::Written).await.unwrap().is_ok());
        assert!(put(Until::Durable).await.unwrap().is_ok());
        // Both in one envelope, whichever comes first.
        for (first, second) in [(Until::Durable, Until::Written), (Until::Written, Until::Durable)] {
            let both = (put(first), put(second));
            assert!(both.0.await.unwrap().is_ok() && both.1.await.unwrap().is_ok());
        }
        assert!(put(Until::Written).await.unwrap().is_ok());
        scribe.finish().await;
        assert_eq!(*log.0.lock().unwrap(), [false, true, true, true, false]);
    }

    /// Answers when it is told to.
    #[derive(Default)]
    struct Slow(Mutex<Vec<oneshot::Sender<Result<Appended, AppendError>>>>);

    impl LogAppender for Slow {
        fn partitions(&self) -> u32 {
            2
        }

        fn append(&self, _partition: u32, _envelope: Vec<u8>) -> PendingAppend {
            let (answer, pending) = PendingAppend::channel();
            self.0.lock().unwrap().push(answer);
            pending
        }
    }

    impl Slow {
        /// Takes what it was given, once it was.
        async fn take(&self) {
            loop {
                if let Some(answer) = self.0.lock().unwrap().pop() {
                    return answer.send(Ok(Appended { offset: 0, append_time: TimeMs(0) })).unwrap();
                }
                tokio::task::yield_now().await;
            }
        }
    }

    #[tokio::test]
    async fn a_log_is_behind_until_it_has_what_was_decided_long_ago() {
        let log = Arc::<Slow>::default();
        let scribe = Scribe::start(&(Arc::clone(&log) as Arc<dyn LogAppender>), |why| panic!("{why}"));
        let write = |at_ms| scribe.place(0).unwrap().write(1, &QuotaOperation { at_ms, ..operation(7) });
        let is_behind = |at_ms| scribe.is_behind(0, TimeMs(at_ms));
        assert!(!is_behind(i64::MAX), "nothing was decided yet");
        write(1_000);
        write(1_010);
        assert_eq!([1_000, 1_000 + BEHIND_MS, 1_001 + BEHIND_MS].map(is_behind), [false, false, true]);
        while log.0.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        write(2_000);
        assert!(is_behind(2_000), "the first ones are on their way only");
        log.take().await;
        while is_behind(2_000) {
            tokio::task::yield_now().await;
        }
        assert!(is_behind(2_001 + BEHIND_MS), "one is left");
        log.take().await;
        scribe.finish().await;
    }

    #[tokio::test]
    async fn a_partition_that_the_log_is_slow_to_take_holds_up_no_other() {
        let log = Arc::<Slow>::default();
        let scribe = Scribe::start(&(Arc::clone(&log) as Arc<dyn LogAppender>), |why| panic!("{why}"));
        let first = scribe.place(0).unwrap().write_and_tell(1, &operation(7), Until::Written);
        let slow = loop {
            if let Some(answer) = log.0.lock().unwrap().pop() {
                break answer;
            }
            tokio::task::yield_now().await;
        };
        let behind_it = scribe.place(0).unwrap().write_and_tell(1, &operation(8), Until::Written);
        scribe.place(1).unwrap().write(1, &operation(9));
        let beside_it = scribe.place(1).unwrap().write_and_tell(1, &operation(10), Until::Written);
        log.take().await;
        assert!(beside_it.await.unwrap().is_ok());
        assert!(log.0.lock().unwrap().is_empty(), "one envelope of a partition on its way");
        slow.send(Ok(Appended { offset: 0, append_time: TimeMs(0) })).unwrap();
        assert!(first.await.unwrap().is_ok());
        log.take().await;
        assert!(behind_it.await.unwrap().is_ok());
        scribe.finish().await;
    }

    /// Panics at whatever it is given.
    struct Broken;

    impl LogAppender for Broken {
        fn partitions(&self) -> u32 {
            1
        }

        fn append(&self, _partition: u32, _envelope: Vec<u8>) -> PendingAppend {
            panic!("as planned")
        }
    }

    #[tokio::test]
    async fn a_panic_is_told_to_the_node_and_to_whoever_waits() {
        let (tell, told) = oneshot::channel();
        let log: Arc<dyn LogAppender> = Arc::new(Broken);
        let scribe = Scribe::start(&log, |why| tell.send(why).unwrap());
        let written = scribe.place(0).unwrap().write_and_tell(1, &operation(7), Until::Written);
        assert!(written.await.is_err());
        assert!(told.await.unwrap().contains("panicked"));
        assert!(scribe.place(0).is_err(), "nothing more is taken");
        scribe.finish().await;
    }

    #[tokio::test]
    async fn what_comes_after_a_rest_is_written_too() {
        let (log, scribe) = start();
        for op in 0..3 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            scribe.place(0).unwrap().write(1, &operation(op));
            while scribe.queued() > 0 {
                tokio::task::yield_now().await;
            }
        }
        assert_eq!(log.0.lock().unwrap().len(), 3);
        scribe.finish().await;
    }

    fn operation(op: u64) -> QuotaOperation<'static> {
        QuotaOperation { tenant: "t".into(), id: "r".into(), at_ms: 0, action: Action::Release { op } }
    }

    fn start() -> (Arc<Log>, Scribe) {
        let log = Arc::<Log>::default();
        let scribe = Scribe::start(&(Arc::clone(&log) as Arc<dyn LogAppender>), |why| panic!("{why}"));
        (log, scribe)
    }

    #[tokio::test]
    async fn operations_come_into_the_log_in_their_order_and_by_epoch() {
        let (log, scribe) = start();
        let operations = ENVELOPE_OPERATIONS_MAX as u64 * 2 + 7;
        for op in 0..operations {
            scribe.place(0).unwrap().write(1 + op / 600, &operation(op));
        }
        scribe.finish().await;
        let kept = log.0.lock().unwrap();
        assert_eq!(
            kept.iter().flat_map(|(_, numbers)| numbers).copied().collect::<Vec<_>>(),
            (0..operations).collect::<Vec<_>>()
        );
        for (epoch, numbers) in &*kept {
            assert!(numbers.iter().all(|op| 1 + op / 600 == *epoch), "one epoch an envelope");
            assert!(numbers.len() <= ENVELOPE_OPERATIONS_MAX);
        }
    }

    #[tokio::test]
    async fn who_waits_is_told_where_its_operation_went() {
        let (_log, scribe) = start();
        for offset in 1..4 {
            scribe.place(0).unwrap().write(1, &operation(7));
            let written = scribe.place(0).unwrap().write_and_tell(1, &operation(8), Until::Written).await.unwrap();
            assert_eq!(written.map(|appended| appended.offset), Ok(offset));
        }
        scribe.finish().await;
    }

    #[tokio::test]
    async fn a_full_queue_takes_no_more_until_it_is_written() {
        let (log, scribe) = start();
        // Nothing else runs on this thread meanwhile.
        let mut places: Vec<_> = (0..QUEUE_OPERATIONS).map(|_| scribe.place(0).unwrap()).collect();
        assert!(scribe.place(0).is_err() && scribe.place(0).is_err());
        drop(places.split_off(1));
        assert_eq!(scribe.queued(), 1);
        places.remove(0).write(1, &operation(7));
        drop(places);
        assert_eq!(scribe.queued(), 1, "a place that was used is taken until it is written");
        for op in 1..QUEUE_OPERATIONS as u64 {
            scribe.place(0).unwrap().write(1, &operation(op));
        }
        assert!(scribe.place(0).is_err());
        scribe.finish().await;
        assert_eq!(log.0.lock().unwrap().iter().map(|(_, numbers)| numbers.len()).sum::<usize>(), QUEUE_OPERATIONS);
    }
}
