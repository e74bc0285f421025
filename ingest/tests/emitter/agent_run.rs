//! Runs of agents under a clock that the test moves.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use odometer_ingest::emitter::agent_run::RunReport;
use odometer_ingest::emitter::{AgentRun, AgentRunOptions, EmitError, Emitter, EmitterOptions};
use odometer_ingest::log::LogAppender;
use odometer_schemas::time::TimeMs;
use tokio::time::{Instant, sleep};

use crate::logs::{MemoryLog, record};

const START: TimeMs = TimeMs(1_700_000_000_000);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn start(log: &Arc<MemoryLog>) -> (Emitter, AgentRun) {
    let options = EmitterOptions { memory_bytes_max: 64 * 1024, ..EmitterOptions::default() };
    let emitter = Emitter::start(Arc::clone(log) as Arc<dyn LogAppender>, options).expect("the options work");
    let options = AgentRunOptions {
        subject: Some("agent-7".into()),
        wall_clock: || START,
        ..AgentRunOptions::new("acme", "worker-1")
    };
    let run = AgentRun::start(&emitter, options).expect("the run's records are valid");
    (emitter, run)
}

/// Quantities in order, with their event times since the start.
fn metered(log: &MemoryLog) -> Vec<(i64, i64)> {
    let records = log.records();
    assert!(records.iter().all(|r| r.meter == "agent_minute" && r.tenant == "acme" && r.id.is_none()));
    records.iter().map(|r| (r.quantity.0, r.time.expect("event time").0 - START.0)).collect()
}

#[tokio::test(start_paused = true)]
async fn a_finished_run_is_metered_to_the_millisecond() {
    let log = MemoryLog::new(4);
    let (_emitter, run) = start(&log);
    sleep(ms(25_123)).await;
    assert_eq!(run.settled_ms(), 20_000);
    assert_eq!(run.finish().await, Ok(RunReport { duration_ms: 25_123, unsettled: None }));
    assert_eq!(metered(&log), [(10_000, 10_000), (10_000, 20_000), (5123, 25_123)]);
    sleep(ms(60_000)).await;
    assert_eq!(metered(&log).len(), 3, "a run that has ended is metered no more");
}

#[tokio::test(start_paused = true)]
async fn a_run_shorter_than_a_tick_is_one_record_and_one_of_no_time_none() {
    let log = MemoryLog::new(4);
    let (emitter, run) = start(&log);
    sleep(ms(7)).await;
    run.fail().await.unwrap();
    assert_eq!(metered(&log), [(7, 7)]);
    let run = AgentRun::start(&emitter, AgentRunOptions::new("acme", "worker-1")).unwrap();
    assert_eq!(run.finish().await, Ok(RunReport { duration_ms: 0, unsettled: None }));
    assert_eq!(metered(&log).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_billed_up_to_its_moment_even_when_it_is_seen_late() {
    for (failed_after, expected) in [
        (33_333, vec![(10_000, 10_000), (10_000, 20_000), (10_000, 30_000), (3333, 33_333)]),
        (20_000, vec![(10_000, 10_000), (10_000, 20_000), (10_000, 30_000), (-10_000, 20_000)]),
        (12_345, vec![(10_000, 10_000), (10_000, 20_000), (10_000, 30_000), (-17_655, 12_345)]),
        (99_999, vec![(10_000, 10_000), (10_000, 20_000), (10_000, 30_000), (5000, 35_000)]),
    ] {
        let log = MemoryLog::new(1);
        let (_emitter, run) = start(&log);
        let failed_at = (Instant::now() + ms(failed_after)).into_std();
        sleep(ms(35_000)).await;
        let report = run.fail_at(failed_at).await.unwrap();
        assert_eq!(metered(&log), expected);
        assert_eq!(report.duration_ms, failed_after.min(35_000));
    }
}

#[tokio::test(start_paused = true)]
async fn a_dropped_run_is_settled_even_when_memory_is_full() {
    let log = MemoryLog::new(4);
    let (emitter, run) = start(&log);
    sleep(ms(11_001)).await;
    drop(run);
    sleep(ms(60_000)).await;
    assert_eq!(metered(&log), [(10_000, 10_000), (1001, 11_001)]);

    let log = MemoryLog::new(4);
    let (emitter, run) = {
        let _ = emitter;
        start(&log)
    };
    log.is_down.store(true, Ordering::SeqCst);
    while emitter.try_emit(&record(1)).is_ok() {}
    sleep(ms(31_234)).await;
    assert_eq!(run.settled_ms(), 0, "no tick found memory");
    drop(run);
    log.is_down.store(false, Ordering::SeqCst);
    emitter.close().await.unwrap();
    let run: Vec<_> = log.records().into_iter().filter(|r| r.meter == "agent_minute").collect();
    assert_eq!(run.iter().map(|r| r.quantity.0).collect::<Vec<_>>(), [31_234]);
}

#[tokio::test(start_paused = true)]
async fn a_panicking_task_is_billed_up_to_its_panic() {
    let log = MemoryLog::new(4);
    let (emitter, run) = start(&log);
    let task = tokio::spawn(async move {
        let _run = run;
        sleep(ms(10_500)).await;
        panic!("the agent failed");
    });
    task.await.unwrap_err();
    sleep(ms(5000)).await;
    emitter.flush().await.unwrap();
    assert_eq!(metered(&log), [(10_000, 10_000), (500, 10_500)]);
}

#[tokio::test(start_paused = true)]
async fn time_without_memory_is_metered_once_and_whole() {
    let log = MemoryLog::new(4);
    let (emitter, run) = start(&log);
    sleep(ms(10_001)).await;
    log.is_down.store(true, Ordering::SeqCst);
    while emitter.try_emit(&record(1)).is_ok() {}
    sleep(ms(25_000)).await;
    assert_eq!(run.settled_ms(), 10_000);
    log.is_down.store(false, Ordering::SeqCst);
    sleep(ms(20_000)).await;
    assert_eq!(run.finish().await, Ok(RunReport { duration_ms: 55_001, unsettled: None }));
    let run: Vec<i64> = log.records().iter().filter(|r| r.meter == "agent_minute").map(|r| r.quantity.0).collect();
    assert_eq!(run.iter().sum::<i64>(), 55_001);
    assert_eq!(run[..2], [10_000, 30_000]);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_known_to_be_stored_is_reported() {
    let log = MemoryLog::new(4);
    let (_emitter, run) = start(&log);
    sleep(ms(10_100)).await;
    log.is_down.store(true, Ordering::SeqCst);
    sleep(ms(600_000)).await;
    let error = run.finish().await.unwrap_err();
    assert_eq!((error.duration_ms, error.unacknowledged_ms), (610_100, 600_100));
    assert!(matches!(error.source, EmitError::Unacknowledged { may_be_stored: true, .. }));
}

#[tokio::test(start_paused = true)]
async fn a_closed_emitter_is_reported_with_all_that_is_missing() {
    let log = MemoryLog::new(4);
    let (emitter, run) = start(&log);
    sleep(ms(15_000)).await;
    emitter.close().await.unwrap();
    sleep(ms(15_000)).await;
    let error = run.finish().await.unwrap_err();
    assert_eq!((error.duration_ms, error.unacknowledged_ms), (30_000, 20_000));
    assert_eq!(error.source, EmitError::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_finish_still_ends_where_it_began() {
    let log = MemoryLog::new(4);
    let (emitter, run) = start(&log);
    sleep(ms(5000)).await;
    log.is_down.store(true, Ordering::SeqCst);
    while emitter.try_emit(&record(1)).is_ok() {}
    assert!(tokio::time::timeout(ms(3000), run.finish()).await.is_err());
    log.is_down.store(false, Ordering::SeqCst);
    emitter.close().await.unwrap();
    let run: Vec<i64> = log.records().iter().filter(|r| r.meter == "agent_minute").map(|r| r.quantity.0).collect();
    assert_eq!(run, [5000]);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_could_not_be_metered_does_not_start() {
    let log = MemoryLog::new(1);
    let (emitter, _run) = start(&log);
    let error = AgentRun::start(&emitter, AgentRunOptions::new("", "worker")).unwrap_err();
    assert!(matches!(error, EmitError::Refused(error) if error.field == "tenant"));
}
