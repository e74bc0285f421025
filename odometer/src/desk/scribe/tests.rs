//! What the scribe writes, in which order, and who hears of it.

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
