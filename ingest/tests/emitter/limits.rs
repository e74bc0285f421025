//! Back-pressure, refusals, and the emitter's end.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use odometer_ingest::emitter::{EmitError, Emitter, EmitterOptions};
use odometer_ingest::log::{AppendError, Appended, LogAppender, PendingAppend};
use odometer_schemas::record::Record;
use odometer_schemas::time::TimeMs;
use tokio::runtime::Builder;
use tokio::time::timeout;

use crate::logs::{MemoryLog, record, record_with_id};

const MEMORY_BYTES: usize = 64 * 1024;

fn start(log: &Arc<MemoryLog>) -> Emitter {
    let options = EmitterOptions { memory_bytes_max: MEMORY_BYTES, ..EmitterOptions::default() };
    Emitter::start(Arc::clone(log) as Arc<dyn LogAppender>, options).expect("the options work")
}

#[tokio::test(start_paused = true)]
async fn memory_is_bounded_and_comes_back() {
    let log = MemoryLog::new(2);
    log.is_down.store(true, Ordering::SeqCst);
    let emitter = start(&log);
    let mut pending = Vec::new();
    loop {
        match emitter.try_emit(&record(7)) {
            Ok(ack) => pending.push(ack),
            Err(error) => {
                assert_eq!(error, EmitError::Full);
                assert!(error.is_retryable());
                break;
            }
        }
    }
    assert!(emitter.memory_bytes() <= MEMORY_BYTES && emitter.memory_bytes() > MEMORY_BYTES - 200);
    let taken = pending.len();
    // Waits while the log is down, and cancelling it emits nothing.
    assert!(timeout(Duration::from_secs(10), emitter.emit(record(7))).await.is_err());
    let waiting = tokio::spawn({
        let emitter = emitter.clone();
        async move { emitter.emit_all((0..2000).map(record).collect()).await }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!waiting.is_finished());
    log.is_down.store(false, Ordering::SeqCst);
    for answer in waiting.await.unwrap() {
        pending.push(answer.unwrap());
    }
    for ack in &pending {
        ack.wait().await.unwrap();
    }
    assert_eq!((pending.len(), log.records().len()), (taken + 2000, taken + 2000));
    assert!(emitter.retries() > 0);
    emitter.flush().await.unwrap();
    assert_eq!(emitter.memory_bytes(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_record_that_may_not_enter_the_log_is_refused_at_once() {
    let log = MemoryLog::new(1);
    let emitter = start(&log);
    let refused = Record { tenant: String::new(), ..record(1) };
    assert!(matches!(emitter.try_emit(&refused), Err(EmitError::Refused(error)) if error.field == "tenant"));
    let answers = emitter.emit_all(vec![record(1), refused, record_with_id(3)]).await;
    let answers: Vec<bool> = answers.iter().map(Result::is_ok).collect();
    assert_eq!(answers, [true, false, true]);
    emitter.flush().await.unwrap();
    assert_eq!(log.records().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_flush_does_not_wait_for_others_to_come() {
    let log = MemoryLog::new(1);
    let options = EmitterOptions { linger: Duration::from_secs(3600), ..EmitterOptions::default() };
    let emitter = Emitter::start(Arc::clone(&log) as Arc<dyn LogAppender>, options).unwrap();
    let ack = emitter.emit(record(1)).await.unwrap();
    timeout(Duration::from_secs(60), emitter.flush()).await.unwrap().unwrap();
    assert!(ack.outcome().unwrap().is_ok());
    let ack = emitter.emit(record(2)).await.unwrap();
    // Closing does not wait either, and takes no more from anyone.
    let clone = emitter.clone();
    timeout(Duration::from_secs(60), emitter.close()).await.unwrap().unwrap();
    assert!(ack.outcome().unwrap().is_ok());
    assert_eq!(clone.emit(record(3)).await.unwrap_err(), EmitError::Closed);
    assert_eq!(clone.try_emit(&record(3)).unwrap_err(), EmitError::Closed);
    assert_eq!(clone.memory_bytes(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_hung_log_is_given_up_in_time() {
    let log = MemoryLog::new(1);
    log.is_hung.store(true, Ordering::SeqCst);
    let emitter = start(&log);
    let ack = emitter.emit(record(1)).await.unwrap();
    assert!(matches!(ack.wait().await, Err(EmitError::Unacknowledged { may_be_stored: true, .. })));
    let error = emitter.flush().await.unwrap_err();
    assert!(error.to_string().starts_with("1 records were not acknowledged"), "{error}");
}

/// Answers everything in one way.
struct Always(AppendError);

impl LogAppender for Always {
    fn partitions(&self) -> u32 {
        1
    }

    fn append(&self, _: u32, _: Vec<u8>) -> PendingAppend {
        PendingAppend::ready(Err(self.0.clone()))
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_for_good_is_not_retried() {
    for error in [AppendError::Closed, AppendError::Refused("no".into()), AppendError::TooLarge { bytes: 9 }] {
        let emitter = Emitter::start(Arc::new(Always(error.clone())), EmitterOptions::default()).unwrap();
        let lost = emitter.emit(record(1)).await.unwrap().wait().await.unwrap_err();
        let expected = EmitError::Unacknowledged { reason: error.to_string(), may_be_stored: error.may_be_stored() };
        assert_eq!((lost, emitter.retries()), (expected, 0));
    }
    // One that was never queued may be emitted again without counting twice.
    let emitter = Emitter::start(Arc::new(Always(AppendError::Busy)), EmitterOptions::default()).unwrap();
    let lost = emitter.emit(record(1)).await.unwrap().wait().await.unwrap_err();
    assert!(lost.is_retryable() && emitter.retries() > 5, "{lost} after {} retries", emitter.retries());
}

#[test]
fn the_end_of_the_runtime_is_an_answer() {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let log = MemoryLog::new(1);
    log.is_hung.store(true, Ordering::SeqCst);
    let (emitter, acks) = runtime.block_on(async {
        let emitter = start(&log);
        let mut acks = Vec::new();
        for n in 0..300 {
            acks.push(emitter.emit(record(n % 10)).await.unwrap());
        }
        (emitter, acks)
    });
    drop(runtime);
    assert!(acks.iter().all(|ack| matches!(ack.outcome(), Some(Err(EmitError::Unacknowledged { .. })))));
    assert_eq!(emitter.try_emit(&record(1)).unwrap_err(), EmitError::Closed);
    assert_eq!(emitter.memory_bytes(), 0);
}

/// Counts what it is given.
struct Nowhere;

impl LogAppender for Nowhere {
    fn partitions(&self) -> u32 {
        1
    }

    fn append(&self, _: u32, _: Vec<u8>) -> PendingAppend {
        PendingAppend::ready(Ok(Appended { offset: 0, append_time: TimeMs(0) }))
    }
}

#[tokio::test]
async fn options_that_cannot_work_are_named() {
    for (options, name) in [
        (EmitterOptions { memory_bytes_max: 1, ..EmitterOptions::default() }, "memory_bytes_max"),
        (EmitterOptions { in_flight_max: 0, ..EmitterOptions::default() }, "in_flight_max"),
    ] {
        let error = Emitter::start(Arc::new(Nowhere), options).unwrap_err().to_string();
        assert!(error.contains(name), "{error}");
    }
}
