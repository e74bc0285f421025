//! Reading by position, over several partitions and in jumps.

use std::time::Duration;

use odometer_ingest::log::kafka::KafkaLog;
use odometer_ingest::log::{AppendError, LogReader};
use odometer_schemas::limits::ENVELOPE_BYTES_MAX;
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::support::{Fresh, PATIENCE, brokers, read_count};

/// Appends without waiting for each, and waits for all.
fn append_many(fresh: &Fresh, partition: u32, count: u64, bytes: usize) {
    let appender = fresh.log.appender();
    let mut pending = std::collections::VecDeque::new();
    for n in 0..count {
        let mut envelope = n.to_le_bytes().to_vec();
        envelope.resize(bytes, 0);
        pending.push_back(appender.append(partition, envelope));
        if pending.len() > 200 {
            pending.pop_front().expect("not empty").wait_blocking().expect("stored");
        }
    }
    pending.into_iter().for_each(|pending| assert!(pending.wait_blocking().is_ok()));
}

fn numbers(entries: &[odometer_schemas::log::LogEntry]) -> Vec<u64> {
    entries.iter().map(|entry| u64::from_le_bytes(entry.bytes[..8].try_into().expect("eight bytes"))).collect()
}

#[test]
fn partitions_take_turns_and_nothing_is_left_out() {
    const EACH: u64 = 2_000;
    let fresh = Fresh::new(3);
    for partition in 0..3 {
        append_many(&fresh, partition, EACH, 20_000);
    }
    let mut reader = fresh.log.reader().expect("a reader");
    let mut next = [0_u64; 3];
    // The third partition is read only at first, so that its slot fills up meanwhile.
    next[2] += reader.read(2, 0, 1).expect("readable").len() as u64;
    while next[..2] != [EACH; 2] {
        for partition in [0, 1] {
            let at = &mut next[partition as usize];
            let entries = reader.read(partition, *at, 1 << 20).expect("readable");
            assert_eq!(numbers(&entries), (*at..*at + entries.len() as u64).collect::<Vec<_>>());
            *at += entries.len() as u64;
        }
    }
    let rest = read_count(&mut reader, 2, next[2], usize::try_from(EACH - next[2]).expect("small"));
    assert_eq!(numbers(&rest), (next[2]..EACH).collect::<Vec<_>>());
}

#[test]
fn jumps_land_exactly_also_while_much_is_on_its_way() {
    const COUNT: u64 = 3_000;
    let fresh = Fresh::new(2);
    append_many(&fresh, 0, COUNT, 5_000);
    append_many(&fresh, 1, COUNT, 5_000);
    let mut reader = fresh.log.reader().expect("a reader");
    let mut place = 7_u64;
    for round in 0..200_u64 {
        place = (place * 1_103_515_245 + 12_345) % (COUNT - 50);
        let partition = u32::try_from(round % 2).expect("small");
        let entries = read_count(&mut reader, partition, place, 50);
        assert_eq!(numbers(&entries)[..50], (place..place + 50).collect::<Vec<_>>(), "round {round}");
    }
}

#[test]
fn a_reader_at_the_end_sees_what_comes_and_never_blocks_long() {
    let fresh = Fresh::new(4);
    let mut reader = fresh.log.reader().expect("a reader");
    for partition in 0..4 {
        assert_eq!(reader.read(partition, 0, 100).expect("readable"), []);
    }
    for n in 0..20_u64 {
        let partition = u32::try_from(n % 4).expect("small");
        let offset = fresh.append(partition, &n.to_le_bytes()).offset;
        assert_eq!(numbers(&read_count(&mut reader, partition, offset, 1)), [n]);
    }
    reader.wait(Duration::ZERO);
}

#[test]
fn the_largest_envelope_fits_and_answers_carry_the_brokers_time() {
    let fresh = Fresh::new(1);
    let appended = fresh.append(0, &vec![1; ENVELOPE_BYTES_MAX]);
    let entries = read_count(&mut fresh.log.reader().expect("a reader"), 0, appended.offset, 1);
    assert_eq!((entries[0].offset, entries[0].append_time), (appended.offset, appended.append_time));
    let health = fresh.log.health();
    assert!(health.is_running && !health.is_failing && health.stored == 1, "{health:?}");
}

#[test]
fn what_a_transaction_leaves_behind_is_a_gap_and_no_end() {
    let fresh = Fresh::new(1);
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", brokers())
        .set("transactional.id", &fresh.options.topic)
        .create()
        .expect("a producer");
    producer.init_transactions(PATIENCE).expect("transactions");
    let send = |text: &str| {
        let record: BaseRecord<'_, str, str> = BaseRecord::to(&fresh.options.topic).partition(0).payload(text);
        producer.begin_transaction().expect("it begins");
        producer.send(record).map_err(|(error, _)| error).expect("room");
        producer.flush(PATIENCE).expect("flushed");
    };
    send("kept");
    producer.commit_transaction(PATIENCE).expect("it commits");
    send("dropped");
    producer.abort_transaction(PATIENCE).expect("it aborts");
    let mut reader = fresh.log.reader().expect("a reader");
    assert_eq!(read_count(&mut reader, 0, 0, 1)[0].bytes, b"kept".as_slice());
    // Behind it stand only a marker, what was aborted, and another marker.
    for from in [1, 2, 3, 4] {
        assert_eq!(reader.read(0, from, 100).expect("readable"), [], "from {from}");
    }
    let offset = fresh.append(0, b"next").offset;
    let next = read_count(&mut reader, 0, 1, 1);
    assert_eq!((next[0].offset, &*next[0].bytes), (offset, b"next".as_slice()));
}

#[test]
fn a_closed_log_is_seen_to_be_closed() {
    let fresh = Fresh::new(1);
    let log = KafkaLog::open(&fresh.options).expect("it opens");
    let (watch, appender) = (log.health_watch(), log.appender());
    assert!(watch.health().is_running);
    log.close().expect("it closes");
    assert!(!watch.health().is_running);
    assert_eq!(appender.append(0, vec![1]).wait_blocking(), Err(AppendError::Closed));
}
