//! The same log on both footings leaves the same books behind, to the last byte of
//! every value: what the cluster counted from Kafka is copied, entry by entry with its
//! append times, into an embedded log, and counted again from there.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};

use odometer_ingest::log::LogReader;
use odometer_ingest::log::embedded::{EmbeddedLog, EmbeddedOptions};
use odometer_ingest::log::kafka::KafkaLog;
use odometer_schemas::commit::{ExceptionsRow, PartitionState};
use odometer_schemas::definitions::Definitions;
use odometer_schemas::log::LogEntry;
use odometer_schemas::row::RawRow;
use odometer_schemas::time::TimeMs;
use odometer_schemas::verdict::VerdictCounts;
use odometer_sink::raw::{
    ClickHouseOptions, ClickHouseRaw, OwnedRow, RawBook, RawCursor, RawVisitor, RejectedEnvelope, RollupRow, Scanned,
    SqliteRaw,
};
use odometer_sink::totals::{Claim, PgTotals, SqliteTotals, TotalsBook};

use crate::odd::odd_entries;
use crate::support::{Cluster, Process, Trace, await_ready, json, part, patiently, run, synthetic, verify_at};

const PARTITIONS: u32 = 4;
/// One meter for each way of adding up.
const METERS: &str = include_str!("../../../examples/custom-meters.toml");

/// All that a totals book holds, but for who owned what.
#[derive(Debug, PartialEq)]
struct Decisions {
    cursors: Vec<(u32, u64, i64, VerdictCounts)>,
    states: Vec<PartitionState>,
    exceptions: Vec<Vec<ExceptionsRow>>,
    definitions: Vec<Option<Definitions>>,
}

fn decisions(book: &mut dyn TotalsBook) -> Decisions {
    let cursors = book.cursors().unwrap();
    let mut found =
        Decisions { cursors: Vec::new(), states: Vec::new(), exceptions: Vec::new(), definitions: Vec::new() };
    for cursor in cursors {
        let (partition, end) = (cursor.partition, cursor.next_offset);
        found.cursors.push((partition, end, cursor.log_time_ms, cursor.counts));
        found.exceptions.push(book.exceptions(partition, 0..end).unwrap());
        found.definitions.push(book.definitions_at(partition, end).unwrap());
        // What a new owner gets: totals with their states, watermarks and rules.
        let claim = Claim { partition, from_epoch: cursor.epoch, owner: String::new() };
        let mut state = PartitionState { epoch: 0, ..book.claim(&claim).unwrap() };
        state
            .totals
            .sort_by(|a, b| (&a.tenant, &a.meter, a.period_start_ms).cmp(&(&b.tenant, &b.meter, b.period_start_ms)));
        state.marks.sort_by_key(|mark| mark.source);
        found.states.push(state);
    }
    found
}

/// All that a raw book holds, in an order of its own.
#[derive(Debug, Default, PartialEq)]
struct Rows {
    cursors: Vec<(u32, u64)>,
    rows: Vec<(OwnedRow, u64)>,
    rejected: Vec<RejectedEnvelope>,
    rollups: Vec<String>,
}

impl RawVisitor for Rows {
    fn cursors(&mut self, cursors: &[RawCursor]) -> ControlFlow<()> {
        self.cursors = cursors.iter().map(|cursor| (cursor.partition, cursor.next_offset)).collect();
        ControlFlow::Continue(())
    }

    fn row(&mut self, row: Scanned<'_, RawRow<'_>>, stored_hash: u64) {
        let Scanned::Row(row) = row else { panic!("{row:?}") };
        self.rows.push((OwnedRow::from(row), stored_hash));
    }

    fn rejected(&mut self, envelope: Scanned<'_, RejectedEnvelope>) {
        let Scanned::Row(envelope) = envelope else { panic!("{envelope:?}") };
        self.rejected.push(envelope.clone());
    }

    fn rollup(&mut self, rollup: Scanned<'_, RollupRow<'_>>) {
        let Scanned::Row(rollup) = rollup else { panic!("{rollup:?}") };
        // How far the batch had read that wrote the row: a version, and batches are cut by time.
        self.rollups.push(format!("{:?}", RollupRow { last_offset: 0, ..*rollup }));
    }
}

fn rows(book: &mut dyn RawBook) -> Rows {
    let mut found = Rows::default();
    book.scan(&mut found).unwrap();
    found.rows.sort_by_key(|(row, _)| row.position);
    found.rejected.sort_by_key(|envelope| (envelope.partition, envelope.offset));
    found.rollups.sort_unstable();
    found
}

/// Everything in a log, in order of appending.
fn entries(log: &KafkaLog) -> Vec<LogEntry> {
    let (mut reader, mut entries) = (log.reader().unwrap(), Vec::new());
    for partition in 0..reader.partitions() {
        let (mut next, end) = (0, reader.bounds(partition).unwrap().end_offset);
        while next < end {
            let read = reader.read(partition, next, 1 << 20).unwrap();
            next = read.last().map_or(next, |entry| entry.offset + 1);
            entries.extend(read);
        }
    }
    entries.sort_by_key(|entry| (entry.append_time, entry.partition, entry.offset));
    entries
}

/// What the embedded log takes for the time.
static CLOCK: AtomicI64 = AtomicI64::new(0);

/// Writes an embedded log of these entries, at their offsets and times.
fn copy(entries: &[LogEntry], data_dir: &Path) {
    let options = EmbeddedOptions {
        partitions: PARTITIONS,
        clock: || TimeMs(CLOCK.load(Ordering::SeqCst)),
        ..EmbeddedOptions::default()
    };
    let log = EmbeddedLog::open(&data_dir.join("log.sqlite"), options).unwrap();
    let appender = log.appender();
    for entry in entries {
        CLOCK.store(entry.append_time.0, Ordering::SeqCst);
        let appended = appender.append(entry.partition, entry.bytes.to_vec()).wait_blocking().unwrap();
        assert_eq!((appended.offset, appended.append_time), (entry.offset, entry.append_time));
    }
    drop(appender);
    log.close().unwrap();
}

fn await_cursors(book: &mut dyn TotalsBook, wanted: &[LogEntry]) {
    patiently("the totals book reaches the log's end", || {
        // Neither log leaves an offset out.
        let counted: u64 = book.cursors().unwrap().iter().map(|cursor| cursor.next_offset).sum();
        counted == wanted.len() as u64
    });
}

/// Real usage through a node, the same again straight into the log, and what no
/// honest producer sends.
fn fill(cluster: &Cluster, node: &Process) -> Vec<LogEntry> {
    let trace: Trace = synthetic(cluster.directory(), 1500);
    trace.replay(&node.url);
    let (file, map) = (trace.file.to_str().unwrap(), trace.map.to_str().unwrap());
    json(&["replay", file, "--map", map, "--config", cluster.config(), "--json"]);
    let log = cluster.log();
    let appender = log.appender();
    for (partition, bytes) in odd_entries(PARTITIONS) {
        appender.append(partition, bytes).wait_blocking().unwrap();
    }
    let entries = entries(&log);
    drop(appender);
    log.close().unwrap();
    entries
}

fn assert_is_rich(decisions: &Decisions, rows: &Rows) {
    let sum = |of: fn(&VerdictCounts) -> u64| decisions.cursors.iter().map(|(_, _, _, counts)| of(counts)).sum::<u64>();
    let counts = [sum(|c| c.accepted), sum(|c| c.duplicate), sum(|c| c.conflict), sum(|c| c.late), sum(|c| c.rejected)];
    println!("accepted, duplicate, conflict, late, rejected: {counts:?}");
    println!(
        "{} rows, {} undecodable entries, {} rollups, {} envelopes with exceptions",
        rows.rows.len(),
        rows.rejected.len(),
        rows.rollups.len(),
        decisions.exceptions.iter().map(Vec::len).sum::<usize>()
    );
    assert!(counts.iter().all(|count| *count > 10), "{counts:?}");
    assert!(rows.rejected.len() > 5);
    let aggregations: std::collections::BTreeSet<_> =
        decisions.states.iter().flat_map(|state| &state.totals).map(|total| total.aggregation.name()).collect();
    assert_eq!(aggregations.len(), 7, "{aggregations:?}");
}

#[test]
fn both_footings_hold_the_same_books() {
    let cluster = Cluster::with(PARTITIONS, METERS);
    let node = cluster.node();
    await_ready(&node);
    let entries = fill(&cluster, &node);
    let mut totals = PgTotals::connect(cluster.postgres().url()).unwrap();
    await_cursors(&mut totals, &entries);
    cluster.prove();
    node.stop();
    let options = ClickHouseOptions {
        url: part("ODOMETER_TEST_CLICKHOUSE"),
        database: cluster.name().to_owned(),
        user: "default".to_owned(),
        password: String::new(),
    };
    let expected = (decisions(&mut totals), rows(&mut ClickHouseRaw::connect(&options).unwrap()));
    assert_is_rich(&expected.0, &expected.1);

    let data_dir = tempfile::tempdir().unwrap();
    copy(&entries, data_dir.path());
    let config = data_dir.path().join("embedded.toml");
    std::fs::write(&config, METERS).unwrap();
    let place = ["--data-dir", data_dir.path().to_str().unwrap()];
    let node = Process::spawn(&["dev", place[0], place[1], "--config", config.to_str().unwrap()]);
    let mut totals = SqliteTotals::open(&data_dir.path().join("totals.sqlite")).unwrap();
    await_cursors(&mut totals, &entries);
    let (code, report) = verify_at(place);
    assert_eq!(code, 0, "{report}");
    node.stop();
    let found = (decisions(&mut totals), rows(&mut SqliteRaw::open(&data_dir.path().join("raw.sqlite")).unwrap()));
    assert_same("cursors", &expected.0.cursors, &found.0.cursors);
    assert_same("totals and states", &expected.0.states, &found.0.states);
    assert_same("exceptions", &expected.0.exceptions, &found.0.exceptions);
    assert_same("definitions", &expected.0.definitions, &found.0.definitions);
    assert_same("raw cursors", &expected.1.cursors, &found.1.cursors);
    assert_same("raw rows", &expected.1.rows, &found.1.rows);
    assert_same("undecodable entries", &expected.1.rejected, &found.1.rejected);
    assert_same("rollups", &expected.1.rollups, &found.1.rollups);
    // And as users read them.
    let printed = |place: [&str; 2]| run(&["totals", "--json", place[0], place[1]]).stdout;
    assert_eq!(printed(["--config", cluster.config()]), printed(place));
}

/// As `assert_eq`, naming the first difference only.
fn assert_same<T: PartialEq + std::fmt::Debug>(what: &str, cluster: &[T], embedded: &[T]) {
    if let Some((a, b)) = cluster.iter().zip(embedded).find(|(a, b)| a != b) {
        panic!("{what} differ: on the cluster {a:?}, embedded {b:?}");
    }
    assert_eq!(cluster.len(), embedded.len(), "{what}");
}
