//! Measures the books in one thread: totals per commit, log entries → batches → raw
//! rows, and the proof over all of it.
//!
//! `cargo run --release -p odometer-sink --example book_throughput -- [ROWS] [DIR]`
//! measures SQLite in DIR; with `clickhouse` for DIR the raw book is a database of its
//! own on the server that ODOMETER_TEST_CLICKHOUSE names. It prints rows per second of wall time, and of the thread's own CPU time so that a busy
//! machine shows. Writing is shown by quarters, so that a slowdown as the table grows
//! does.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use odometer_schemas::accumulator::{Accumulator, Observation};
use odometer_schemas::commit::{PartitionCommit, TotalRow};
use odometer_schemas::definitions::Definitions;
use odometer_schemas::digest::{Digest, Hasher};
use odometer_schemas::envelope::{EnvelopeBuilder, Origin};
use odometer_schemas::log::LogEntry;
use odometer_schemas::meter::Aggregation;
use odometer_schemas::partition::partition_of;
use odometer_schemas::period::PeriodRule;
use odometer_schemas::quantity::Quantity;
use odometer_schemas::record::{IdRef, Record};
use odometer_schemas::row::{RawRow, dimensions_hash};
use odometer_schemas::time::TimeMs;
use odometer_sink::raw::{ClickHouseOptions, ClickHouseRaw, RawBatch, RawBook, RawGatherer, SqliteRaw, TableOptions};
use odometer_sink::totals::{Claim, Installation, OwnedCommit, SqliteTotals, TotalsBook};
use odometer_sink::verify::{Attendant, VerifyScope, verify};

const PARTITIONS: u32 = 8;
const TENANTS: u64 = 2_000;
const TENANTS_PER_ENVELOPE: u64 = 4;
const RECORDS_PER_ENVELOPE: u64 = 500;
const TOTALS_PER_COMMIT: u64 = 100_000;
const HASHER: Hasher = Hasher::new(7);

fn main() {
    let mut args = std::env::args().skip(1);
    let rows: u64 = args.next().map_or(4_000_000, |text| text.parse().expect("a number of rows"));
    let keep = args.next();
    let temporary = tempfile::tempdir().expect("a temporary directory");
    if keep.as_deref() == Some("clickhouse") {
        let options = clickhouse_database();
        let mut book = ClickHouseRaw::connect(&options).expect("a raw book");
        let counted = raw(&mut book, rows / RECORDS_PER_ENVELOPE);
        proof(temporary.path(), &mut book, &counted);
        println!("DROP DATABASE {} when you are done with it", options.database);
        return;
    }
    let directory = keep.as_deref().map_or(temporary.path(), Path::new);
    totals(directory);
    let path = directory.join("raw.sqlite");
    let counted = raw(&mut SqliteRaw::open(&path).expect("a raw book"), rows / RECORDS_PER_ENVELOPE);
    proof(directory, &mut SqliteRaw::open_read_only(&path).expect("a raw book"), &counted);
}

fn clickhouse_database() -> ClickHouseOptions {
    let options = ClickHouseOptions {
        url: std::env::var("ODOMETER_TEST_CLICKHOUSE").expect("ODOMETER_TEST_CLICKHOUSE is set"),
        database: format!("odometer_book_throughput_{}", std::process::id()),
        user: "default".to_owned(),
        password: String::new(),
    };
    ClickHouseRaw::migrate(&options, &TableOptions::default()).expect("tables");
    options
}

/// Wall time and the thread's CPU time, added up over several stretches.
#[derive(Default)]
struct Clock {
    wall: Duration,
    cpu: Duration,
}

impl Clock {
    fn time<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let (wall, cpu) = (Instant::now(), cpu_time());
        let result = work();
        self.wall += wall.elapsed();
        self.cpu += cpu_time().saturating_sub(cpu);
        result
    }

    fn rates(&self, n: u64) -> String {
        format!("{} rows/s ({} per CPU second)", per_second(n, self.wall), per_second(n, self.cpu))
    }
}

/// What Linux says this thread has run so far; zero elsewhere.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = stat.split(' ').next().and_then(|text| text.parse().ok());
    Duration::from_nanos(nanoseconds.unwrap_or(0))
}

fn per_second(n: u64, time: Duration) -> u64 {
    (u128::from(n) * 1_000_000_000 / time.as_nanos().max(1)).try_into().unwrap_or(u64::MAX)
}

/// Commits the same totals over and over, as a busy partition does.
fn totals(directory: &Path) {
    let mut book = open_totals(&directory.join("commits.sqlite"));
    let epoch = book.claim(&Claim::default()).expect("a claim").epoch;
    for number in 0..4 {
        let total = |n: u64| TotalRow { quantity: i128::from(n + number), ..total(&format!("tenant-{n}"), "api_call") };
        let totals = (0..TOTALS_PER_COMMIT).map(total).collect();
        let commit = PartitionCommit { from_offset: number, next_offset: number + 1, totals, ..Default::default() };
        let mut clock = Clock::default();
        clock.time(|| book.commit(&[OwnedCommit { epoch, commit }]).expect("a commit"));
        println!("commit of {TOTALS_PER_COMMIT} totals: {:.0?}, CPU {:.0?}", clock.wall, clock.cpu);
    }
    let mut clock = Clock::default();
    let again = Claim { from_epoch: epoch, ..Claim::default() };
    let state = clock.time(|| book.claim(&again).expect("a claim"));
    println!("claim of {} totals: {:.0?}, CPU {:.0?}", state.totals.len(), clock.wall, clock.cpu);
}

fn open_totals(path: &Path) -> SqliteTotals {
    let mut book = SqliteTotals::open(path).expect("a totals book");
    let installation = Installation { log_id: "bench".to_owned(), partitions: PARTITIONS, hash_seed: 7 };
    book.identity(&installation).expect("an installation");
    book
}

fn total(tenant: &str, meter: &str) -> TotalRow {
    let period = PeriodRule::CalendarMonth.period_of(TimeMs(1_700_000_000_000));
    TotalRow {
        tenant: tenant.into(),
        meter: meter.into(),
        period_start_ms: period.start.0,
        period_end_ms: period.end.0,
        aggregation: Aggregation::Sum,
        quantity: 0,
        sum: 0,
        records: 0,
        digest: 0,
        state: Vec::new(),
    }
}

/// Gathers and writes; what a totals book would have counted.
fn raw(book: &mut dyn RawBook, envelopes: u64) -> Counted {
    let mut gatherer = RawGatherer::new(HASHER);
    for partition in 0..PARTITIONS {
        gatherer.open(partition, 0, Some(Definitions::built_in()));
    }
    let tenants = tenants_of_partitions();
    let mut counted = Counted::default();
    let (mut gather, mut write, mut written) = (Clock::default(), Clock::default(), 0);
    for number in 0..envelopes {
        let entry = entry(number, &tenants);
        gather.time(|| gatherer.feed(&entry, None).expect("a good envelope"));
        if gatherer.is_full() || number + 1 == envelopes {
            let batch = gather.time(|| gatherer.take().expect("a good batch").expect("rows were fed"));
            write.time(|| write_all(book, &batch));
            written += batch.len() as u64;
            counted.add(&batch);
        }
        if (number + 1) % (envelopes / 4).max(1) == 0 {
            let rows = (number + 1) * RECORDS_PER_ENVELOPE;
            println!("{rows} rows: gather {}, write {}", gather.rates(written), write.rates(written));
            (gather, write, written) = (Clock::default(), Clock::default(), 0);
        }
    }
    counted
}

/// Goes on while the book may come back.
fn write_all(book: &mut dyn RawBook, batch: &RawBatch) {
    while let Err(error) = book.write(batch) {
        assert!(error.is_retryable(), "{error}");
        println!("{error}; once more");
        std::thread::sleep(Duration::from_millis(500));
    }
}

fn proof(directory: &Path, raw: &mut dyn RawBook, counted: &Counted) {
    let mut totals = open_totals(&directory.join("totals.sqlite"));
    counted.commit(&mut totals);
    let mut attendant = Attendant { progress: &mut |_| {}, wait: &mut |_| false };
    let mut clock = Clock::default();
    let report = clock.time(|| verify(&mut totals, raw, &VerifyScope::default(), &mut attendant)).expect("a report");
    assert_eq!(report.exit_code(), 0, "{report:?}");
    println!("proof: {}", clock.rates(counted.rows));
}

/// Totals as the aggregator would make them.
#[derive(Default)]
struct Counted {
    rows: u64,
    commits: Vec<PartitionCommit>,
    totals: HashMap<(String, String), (u32, Accumulator, Digest)>,
}

impl Counted {
    fn add(&mut self, batch: &RawBatch) {
        self.commits.resize_with(PARTITIONS as usize, PartitionCommit::default);
        for (row, _) in batch.rows() {
            self.rows += 1;
            let counts = &mut self.commits[row.position.partition as usize].counts;
            counts.count(row.verdict);
            self.total(&row);
        }
        for cursor in batch.cursors() {
            let commit = &mut self.commits[cursor.partition as usize];
            (commit.partition, commit.next_offset) = (cursor.partition, cursor.next_offset);
        }
    }

    fn total(&mut self, row: &RawRow<'_>) {
        let key = row.fingerprint(&HASHER).expect("a key");
        let dimensions = dimensions_hash(&HASHER, row.dimensions).expect("dimensions");
        let name = (row.tenant.to_owned(), row.meter.to_owned());
        let new = || (row.position.partition, Accumulator::new(Aggregation::Sum), Digest::default());
        let (_, accumulator, digest) = self.totals.entry(name).or_insert_with(new);
        let ordinal = row.position.ordinal();
        accumulator.add(&Observation { quantity: row.quantity, time_ms: row.time_ms, ordinal, unique: 0 });
        digest.add(row.record_hash(&HASHER, key, dimensions));
    }

    fn commit(&self, book: &mut SqliteTotals) {
        for commit in self.commits.iter().filter(|commit| commit.next_offset > 0) {
            let claim = Claim { partition: commit.partition, ..Claim::default() };
            let epoch = book.claim(&claim).expect("a claim").epoch;
            let mine = self.totals.iter().filter(|(_, (partition, ..))| *partition == commit.partition);
            let rows = mine.map(|((tenant, meter), (_, sum, digest))| TotalRow {
                quantity: sum.value(),
                sum: sum.sum,
                records: sum.records,
                digest: digest.0,
                ..total(tenant, meter)
            });
            let commit = PartitionCommit { totals: rows.collect(), ..commit.clone() };
            book.commit(&[OwnedCommit { epoch, commit }]).expect("a commit");
        }
    }
}

fn tenants_of_partitions() -> Vec<Vec<String>> {
    let mut tenants = vec![Vec::new(); PARTITIONS as usize];
    for name in (0..TENANTS).map(|n| format!("tenant-{n}")) {
        tenants[partition_of(&name, PARTITIONS) as usize].push(name);
    }
    tenants
}

/// Envelope `number` of the log: four tenants, two meters, caller-made UUIDs.
fn entry(number: u64, tenants: &[Vec<String>]) -> LogEntry {
    let place = |n: u64| usize::try_from(n).expect("a small number");
    let partition = number % u64::from(PARTITIONS);
    let tenants = &tenants[place(partition)];
    let mut builder = EnvelopeBuilder::new();
    for index in 0..RECORDS_PER_ENVELOPE {
        let n = number * RECORDS_PER_ENVELOPE + index;
        let signed = i64::try_from(n).expect("a small number");
        let id = Hasher::new(1).text(&n.to_string()).0;
        let record = Record {
            tenant: tenants[place(number * TENANTS_PER_ENVELOPE + index % TENANTS_PER_ENVELOPE) % tenants.len()]
                .clone(),
            source: "worker-pool".to_owned(),
            id: Some(IdRef::Uuid(id).to_string()),
            meter: ["llm.prompt_tokens", "llm.generated_tokens"][place(n % 2)].to_owned(),
            quantity: Quantity(signed % 4096),
            time: Some(TimeMs(1_700_000_000_000 + signed / 100)),
            subject: Some(format!("user-{}", n % 50)),
            dimensions: vec![("model".to_owned(), format!("model-{}", n % 5))],
            reservation: None,
        };
        builder.push(&record).expect("records fit");
    }
    let origin = Origin { source: 1, epoch: 1, first_sequence: number * RECORDS_PER_ENVELOPE };
    LogEntry {
        partition: u32::try_from(partition).expect("a small number"),
        offset: number / u64::from(PARTITIONS),
        append_time: TimeMs(1_700_000_000_000 + i64::try_from(number).expect("a small number")),
        bytes: builder.seal(origin).into(),
    }
}
