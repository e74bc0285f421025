//! Everything emitted is in the real log, in its place, and counts once; whatever
//! happens between the emitter and the log.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use odometer_ingest::emitter::{Emitter, EmitterOptions};
use odometer_ingest::log::embedded::{EmbeddedLog, EmbeddedOptions};
use odometer_ingest::log::{LogAppender, LogReader};
use odometer_schemas::log::{LogEntry, Position};
use odometer_schemas::partition::partition_of;
use odometer_schemas::record::Record;

use crate::logs::{Flaky, counted, record, record_with_id, records_of, sorted};

const PARTITIONS: u32 = 4;

fn open(directory: &tempfile::TempDir) -> EmbeddedLog {
    let options = EmbeddedOptions { partitions: PARTITIONS, queue_envelopes: 16, ..EmbeddedOptions::default() };
    EmbeddedLog::open(&directory.path().join("log.db"), options).expect("a log opens")
}

fn entries(log: &EmbeddedLog) -> Vec<LogEntry> {
    let mut reader = log.reader().expect("a reader opens");
    (0..PARTITIONS).flat_map(|partition| reader.read(partition, 0, usize::MAX).expect("readable")).collect()
}

/// Emits from several tasks at once; the records with their acknowledged positions.
async fn emit_and_wait(emitter: &Emitter, each: i64) -> BTreeMap<Position, Record> {
    let tasks = (0..4).map(|task| {
        let emitter = emitter.clone();
        tokio::spawn(async move {
            let make = |n| if n % 9 == 0 { record_with_id(n) } else { record(n) };
            let records: Vec<Record> = (task * each..(task + 1) * each).map(make).collect();
            let answers = emitter.emit_all(records.clone()).await;
            let mut stored = Vec::new();
            for (record, answer) in records.into_iter().zip(answers) {
                let ack = answer.expect("valid").wait().await.expect("stored in the end");
                stored.push((ack.position, record));
            }
            stored
        })
    });
    let mut stored = BTreeMap::new();
    for task in tasks.collect::<Vec<_>>() {
        for (position, record) in task.await.expect("emitting does not panic") {
            assert!(stored.insert(position, record).is_none(), "two records at {position}");
        }
    }
    stored
}

async fn everything_counts_once(log: EmbeddedLog, transport: Arc<dyn LogAppender>, each: i64) {
    let emitter = Emitter::start(transport, EmitterOptions::default()).expect("the options work");
    let stored = emit_and_wait(&emitter, each).await;
    emitter.flush().await.expect("all is stored");
    emitter.close().await.expect("all is stored");

    let entries = entries(&log);
    let by_place: BTreeMap<_, _> = entries.iter().map(|e| ((e.partition, e.offset), records_of(&e.bytes))).collect();
    for (position, record) in &stored {
        assert_eq!(by_place[&(position.partition, position.offset)][usize::from(position.index)], *record);
        assert_eq!(partition_of(&record.tenant, PARTITIONS), position.partition);
    }
    assert_eq!(sorted(counted(&entries).into_values()), sorted(stored.into_values()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_a_log_that_works() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(&directory);
    let appender = log.appender();
    everything_counts_once(log, appender, 5000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_one_that_fails_delays_and_repeats() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(&directory);
    let seed = rand::random();
    println!("seed {seed}");
    let flaky = Flaky::new(log.appender(), seed);
    everything_counts_once(log, flaky, 3000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_emitted_is_sent_after_the_last_handle_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(&directory);
    let emitter = Emitter::start(log.appender(), EmitterOptions::default()).unwrap();
    let mut pending = Vec::new();
    for n in 0..100 {
        pending.push(emitter.emit(record(n)).await.unwrap());
    }
    drop(emitter);
    let mut positions = BTreeSet::new();
    for ack in pending {
        positions.insert(ack.wait().await.unwrap().position);
    }
    assert_eq!(positions.len(), 100);
    assert_eq!(counted(&entries(&log)).len(), 100);
}
