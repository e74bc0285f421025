//! Every stage on its own, in records (or ids, or totals) per second. Whole suite: under
//! two minutes. `cargo bench -p odometer-bench [-- FILTER]`.

use std::hint::black_box;
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, HeaderValue, header::CONTENT_TYPE};
use criterion::{Criterion, SamplingMode, Throughput};
use odometer_aggregator::{LiveState, Options, Processor, Snapshot};
use odometer_bench::traffic::{Ids, TENANTS_DEFAULT, Traffic, write_ndjson};
use odometer_ingest::gateway::{self, Door, GatewayOptions, Incoming, Terms};
use odometer_ingest::log::embedded::{EmbeddedLog, EmbeddedOptions};
use odometer_schemas::commit::PartitionState;
use odometer_schemas::control::Control;
use odometer_schemas::definitions::Definitions;
use odometer_schemas::digest::Hasher;
use odometer_schemas::envelope::{Decoded, EnvelopeBuilder, Origin, decode, encode_control};
use odometer_schemas::log::LogEntry;
use odometer_schemas::record::Record;
use odometer_schemas::time::TimeMs;
use odometer_sink::raw::{BATCH_ROWS_MAX, RawBatch, RawBook, RawGatherer, SqliteRaw};
use odometer_sink::totals::{Claim, Installation, OwnedCommit, SqliteTotals, TotalsBook};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// 2026-01-15T00:00:00Z: any time will do, as long as every run has the same.
const NOW: TimeMs = TimeMs(1_768_435_200_000);
/// Records of one envelope: what 10,000 tenants at random leave room for.
const ENVELOPE_RECORDS: usize = 450;
/// Ids that a processor remembers before it is measured, so that its tables do not
/// fit the caches.
const IDS_REMEMBERED: usize = 1_000_000;
/// Envelopes of one commit of the log.
const COMMIT_ENVELOPES: usize = 256;
/// Records of one request.
const REQUEST_RECORDS: usize = 1000;
/// Envelopes between two commits of the totals: a tenth of a second's at a million
/// records, which changes most totals.
const TOTALS_ENVELOPES: usize = 100_000 / ENVELOPE_RECORDS;

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    envelope(&mut criterion);
    judge(&mut criterion);
    snapshot(&mut criterion);
    log_append(&mut criterion);
    gateway_read(&mut criterion);
    raw_gather(&mut criterion);
    raw_write(&mut criterion);
    totals_commit(&mut criterion);
    criterion.final_summary();
}

fn envelope(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("envelope");
    group.throughput(Throughput::Elements(ENVELOPE_RECORDS as u64));
    for (name, ids) in [("uuid", Ids::Uuid), ("emitted", Ids::Emitted)] {
        let mut traffic = Traffic::new(1, TENANTS_DEFAULT, ids);
        let records: Vec<Record> = (0..ENVELOPE_RECORDS).map(|_| traffic.record(NOW)).collect();
        let sealed = seal(&records);
        group.bench_function(format!("encode/{name}"), |b| b.iter(|| seal(&records)));
        group.bench_function(format!("decode/{name}"), |b| b.iter(|| read_all(&sealed)));
    }
    group.finish();
}

fn seal(records: &[Record]) -> Vec<u8> {
    let mut builder = EnvelopeBuilder::new();
    records.iter().for_each(|record| builder.push(record).expect("the records fit"));
    builder.seal(Origin { source: 7, epoch: 1, first_sequence: 0 })
}

/// Decodes an envelope and looks at every record, as a reader does.
fn read_all(sealed: &[u8]) -> usize {
    match decode(sealed).expect("a good envelope") {
        Decoded::Usage(usage) => usage.records().filter(|record| black_box(record).time.is_some()).count(),
        Decoded::Control(_) => 0,
    }
}

/// One partition with its traffic.
struct Partition {
    processor: Processor,
    traffic: Traffic,
    next_offset: u64,
}

impl Partition {
    fn new(ids: Ids) -> Self {
        let options = Options {
            partition: 0,
            partitions: 1,
            hash_seed: Definitions::HASH_SEED_DEFAULT,
            ids_max: usize::MAX / 2,
            totals_max: usize::MAX / 2,
            placement_seed: 0x5eed,
        };
        let processor = Processor::restore(options, &PartitionState::default(), None, LiveState::default());
        let mut processor = processor.expect("an empty state is a good one");
        processor.handle(&definitions_entry(0)).expect("built-in definitions are accepted");
        Self { processor, traffic: Traffic::new(1, TENANTS_DEFAULT, ids), next_offset: 1 }
    }

    /// With many ids remembered and every cell there.
    fn warmed_up(ids: Ids) -> Self {
        let mut partition = Self::new(ids);
        for _ in 0..IDS_REMEMBERED / ENVELOPE_RECORDS {
            let entry = partition.next_entry();
            partition.handle(&entry);
        }
        partition.processor.poll_commit();
        partition
    }

    fn next_entry(&mut self) -> LogEntry {
        let entry = self.traffic.entry((0, self.next_offset), NOW, ENVELOPE_RECORDS).expect("the records fit");
        self.next_offset += 1;
        entry
    }

    fn handle(&mut self, entry: &LogEntry) {
        self.processor.handle(entry).expect("there is room");
    }
}

fn definitions_entry(partition: u32) -> LogEntry {
    let bytes = encode_control(&Control::Definitions(Definitions::built_in()), Origin::default());
    LogEntry { partition, offset: 0, append_time: NOW, bytes: bytes.into() }
}

fn judge(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("judge");
    group.throughput(Throughput::Elements(ENVELOPE_RECORDS as u64));
    for (name, ids) in [("fresh uuid", Ids::Uuid), ("fresh emitted", Ids::Emitted)] {
        let mut partition = Partition::warmed_up(ids);
        group.bench_function(name, |b| {
            b.iter_custom(|iterations| {
                let entries: Vec<LogEntry> = (0..iterations).map(|_| partition.next_entry()).collect();
                let elapsed = timed(|| entries.iter().for_each(|entry| partition.handle(entry)));
                partition.processor.poll_commit();
                elapsed
            });
        });
    }
    let mut partition = Partition::warmed_up(Ids::Uuid);
    let known: Vec<LogEntry> = (0..500).map(|_| partition.next_entry()).collect();
    known.iter().for_each(|entry| partition.handle(entry));
    group.bench_function("duplicate uuid", |b| {
        b.iter_custom(|iterations| {
            let again = known.iter().cycle().zip(partition.next_offset..partition.next_offset + iterations);
            let entries: Vec<LogEntry> = again.map(|(entry, offset)| LogEntry { offset, ..entry.clone() }).collect();
            partition.next_offset += iterations;
            let elapsed = timed(|| entries.iter().for_each(|entry| partition.handle(entry)));
            partition.processor.poll_commit();
            elapsed
        });
    });
    group.finish();
}

fn snapshot(criterion: &mut Criterion) {
    let processor = Partition::warmed_up(Ids::Uuid).processor;
    let (ids, _) = processor.dedupe_window();
    let bytes = processor.snapshot();
    let mut group = criterion.benchmark_group("snapshot");
    group.throughput(Throughput::Elements(ids as u64));
    group.bench_function("encode", |b| b.iter(|| processor.snapshot()));
    group.bench_function("decode", |b| b.iter(|| Snapshot::decode(&bytes).expect("a good snapshot")));
    group.finish();
}

fn log_append(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let log = EmbeddedLog::open(&directory.path().join("log.sqlite"), EmbeddedOptions::default()).expect("a new log");
    let appender = log.appender();
    let entry = Traffic::new(1, TENANTS_DEFAULT, Ids::Uuid).entry((0, 1), NOW, ENVELOPE_RECORDS);
    let sealed = entry.expect("the records fit").bytes;
    let mut group = criterion.benchmark_group("log");
    group.throughput(Throughput::Elements((COMMIT_ENVELOPES * ENVELOPE_RECORDS) as u64));
    group.bench_function("append durably", |b| {
        b.iter(|| {
            let partitions = (0..appender.partitions()).cycle().take(COMMIT_ENVELOPES);
            let pending: Vec<_> = partitions.map(|partition| appender.append(partition, sealed.to_vec())).collect();
            for append in pending {
                append.wait_blocking().expect("the log takes it");
            }
        });
    });
    group.finish();
}

fn gateway_read(criterion: &mut Criterion) {
    let mut traffic = Traffic::new(1, TENANTS_DEFAULT, Ids::Uuid);
    let mut body = Vec::new();
    (0..REQUEST_RECORDS).for_each(|_| write_ndjson(&traffic.record(NOW), &mut body));
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    let (definitions, limits) = (Definitions::built_in(), GatewayOptions::default());
    let terms = Terms {
        definitions: &definitions,
        partitions: 4,
        inflated_bytes_max: limits.inflated_bytes_max,
        records_max: limits.records_max,
    };
    let incoming = Incoming { door: Door::Native, headers: &headers, body: &body };
    let mut group = criterion.benchmark_group("gateway");
    group.throughput(Throughput::Elements(REQUEST_RECORDS as u64));
    group.bench_function("read ndjson", |b| {
        b.iter(|| {
            let intake = gateway::read(&incoming, &terms).expect("a good request");
            assert_eq!(intake.sheet.records(), REQUEST_RECORDS, "every line is a record");
            intake
        });
    });
    group.finish();
}

/// A raw gatherer and the log that it follows.
struct Gathering {
    gatherer: RawGatherer,
    traffic: Traffic,
    next_offset: u64,
}

impl Gathering {
    fn new() -> Self {
        let mut gatherer = RawGatherer::new(Hasher::new(Definitions::HASH_SEED_DEFAULT));
        gatherer.open(0, 0, Some(Definitions::built_in()));
        Self { gatherer, traffic: Traffic::new(1, TENANTS_DEFAULT, Ids::Uuid), next_offset: 0 }
    }

    /// Entries for one batch.
    fn entries(&mut self) -> Vec<LogEntry> {
        let offsets = self.next_offset..self.next_offset + (BATCH_ROWS_MAX / ENVELOPE_RECORDS) as u64;
        self.next_offset = offsets.end;
        offsets.map(|offset| self.traffic.entry((0, offset), NOW, ENVELOPE_RECORDS).expect("they fit")).collect()
    }

    fn batch(&mut self, entries: &[LogEntry]) -> RawBatch {
        entries.iter().for_each(|entry| self.gatherer.feed(entry, None).expect("a good entry"));
        self.gatherer.take().expect("a good batch").expect("entries were fed")
    }
}

/// Rows of one batch.
const BATCH_ROWS: u64 = (BATCH_ROWS_MAX / ENVELOPE_RECORDS * ENVELOPE_RECORDS) as u64;

fn raw_gather(criterion: &mut Criterion) {
    let mut gathering = Gathering::new();
    let mut group = criterion.benchmark_group("raw");
    group.throughput(Throughput::Elements(BATCH_ROWS)).sampling_mode(SamplingMode::Flat);
    group.bench_function("gather", |b| {
        b.iter_custom(|iterations| {
            let batches: Vec<_> = (0..iterations).map(|_| gathering.entries()).collect();
            timed(|| batches.iter().for_each(|entries| drop(gathering.batch(entries))))
        });
    });
    group.finish();
}

fn raw_write(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut book = SqliteRaw::open(&directory.path().join("raw.sqlite")).expect("a new book");
    let mut gathering = Gathering::new();
    let mut group = criterion.benchmark_group("raw");
    group.throughput(Throughput::Elements(BATCH_ROWS)).sampling_mode(SamplingMode::Flat);
    group.bench_function("write sqlite", |b| {
        b.iter_custom(|iterations| {
            let mut elapsed = Duration::ZERO;
            for _ in 0..iterations {
                let entries = gathering.entries();
                let batch = gathering.batch(&entries);
                elapsed += timed(|| book.write(&batch).expect("the book takes it"));
            }
            elapsed
        });
    });
    group.finish();
}

fn totals_commit(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut book = SqliteTotals::open(&directory.path().join("totals.sqlite")).expect("a new book");
    let installation =
        Installation { log_id: "bench".into(), partitions: 1, hash_seed: Definitions::HASH_SEED_DEFAULT };
    book.identity(&installation).expect("a new book belongs to nobody");
    let epoch = book.claim(&Claim::default()).expect("the partition is there").epoch;
    let mut partition = Partition::new(Ids::Uuid);
    let mut next_commit = || {
        for _ in 0..TOTALS_ENVELOPES {
            let entry = partition.next_entry();
            partition.handle(&entry);
        }
        vec![OwnedCommit { epoch, commit: partition.processor.poll_commit().expect("entries were counted") }]
    };
    let first = next_commit();
    let rows = first[0].commit.totals.len() as u64;
    book.commit(&first).expect("the book takes it");
    let mut group = criterion.benchmark_group("totals");
    group.throughput(Throughput::Elements(rows)).sampling_mode(SamplingMode::Flat);
    group.bench_function("commit sqlite", |b| {
        b.iter_custom(|iterations| {
            let mut elapsed = Duration::ZERO;
            for _ in 0..iterations {
                let commit = next_commit();
                elapsed += timed(|| book.commit(&commit).expect("the book takes it"));
            }
            elapsed
        });
    });
    group.finish();
}

fn timed(work: impl FnOnce()) -> Duration {
    let started = Instant::now();
    work();
    started.elapsed()
}
