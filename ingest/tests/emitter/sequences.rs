//! The emitter's sequences, whatever it is given and however its log behaves.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use odometer_ingest::emitter::{EmitError, Emitter, EmitterOptions, PendingAck};
use odometer_ingest::log::LogAppender;
use proptest::prelude::*;
use tokio::runtime::Builder;

use crate::logs::{Flaky, MemoryLog, counted, record, record_with_id, sorted};

#[derive(Clone, Debug)]
enum Step {
    Emit { count: u16, with_ids: bool },
    Sleep(u8),
    Flush,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1_u16..900, any::<bool>()).prop_map(|(count, with_ids)| Step::Emit { count, with_ids }),
        2 => (0_u8..40).prop_map(Step::Sleep),
        1 => Just(Step::Flush),
    ]
}

async fn run(steps: Vec<Step>, transport: Arc<dyn LogAppender>) -> i64 {
    let emitter = Emitter::start(transport, EmitterOptions::default()).expect("the options work");
    let mut emitted = 0;
    for step in steps {
        match step {
            Step::Emit { count, with_ids } => {
                for _ in 0..count {
                    let record = if with_ids { record_with_id(emitted) } else { record(emitted) };
                    let _pending = emitter.emit(record).await.expect("valid");
                    emitted += 1;
                }
            }
            Step::Sleep(ms) => tokio::time::sleep(Duration::from_millis(ms.into())).await,
            Step::Flush => emitter.flush().await.expect("all is stored"),
        }
    }
    emitter.close().await.expect("all is stored");
    emitted
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn are_contiguous_and_count_once(
        steps in prop::collection::vec(step(), 1..12), partitions in 1_u32..4, seed: u64
    ) {
        let runtime = Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let log = MemoryLog::new(partitions);
        let flaky = Flaky::new(Arc::clone(&log) as Arc<dyn LogAppender>, seed);
        let emitted = runtime.block_on(run(steps, flaky));
        let quantities: Vec<i64> =
            sorted(counted(&log.entries()).into_values()).into_iter().map(|r| r.quantity.0).collect();
        prop_assert_eq!(quantities, (0..emitted).collect::<Vec<_>>());
    }
}

async fn outcomes(pending: Vec<PendingAck>) -> (usize, Vec<EmitError>) {
    let (mut stored, mut errors) = (0, Vec::new());
    for ack in pending {
        match ack.wait().await {
            Ok(_) => stored += 1,
            Err(error) => errors.push(error),
        }
    }
    (stored, errors)
}

#[tokio::test(start_paused = true)]
async fn a_given_up_envelope_leaves_no_gap_to_those_that_follow() {
    let log = MemoryLog::new(1);
    let options = EmitterOptions { in_flight_max: 2, ..EmitterOptions::default() };
    let emitter = Emitter::start(Arc::clone(&log) as Arc<dyn LogAppender>, options).unwrap();
    let mut pending = Vec::new();
    for n in 0..600 {
        pending.push(emitter.emit(record(n)).await.unwrap());
    }
    assert_eq!(outcomes(std::mem::take(&mut pending)).await, (600, vec![]));

    log.is_down.store(true, Ordering::SeqCst);
    for n in 600..2600 {
        pending.push(emitter.emit(record(n)).await.unwrap());
    }
    let (stored, errors) = outcomes(std::mem::take(&mut pending)).await;
    assert_eq!((stored, errors.len()), (0, 2000));
    // Two envelopes were tried; the others were never sent, and say so.
    let tried = |error: &EmitError| matches!(error, EmitError::Unacknowledged { may_be_stored: true, .. });
    assert_eq!(errors.iter().filter(|error| tried(error)).count(), 1024);
    assert!(errors.iter().all(|error| error.is_retryable() != tried(error)));

    log.is_down.store(false, Ordering::SeqCst);
    for n in 2600..12600 {
        pending.push(emitter.emit(record(n)).await.unwrap());
    }
    assert_eq!(outcomes(pending).await, (10_000, vec![]));
    assert_eq!(counted(&log.entries()).len(), 10_600);
    let lost = emitter.flush().await.unwrap_err();
    assert_eq!(lost.records(), 2000);
    assert_eq!(emitter.close().await, Ok(()));
}
