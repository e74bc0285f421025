//! Measures the raw path in one thread: log entries → batches → SQLite.
//!
//! `cargo run --release -p odometer-sink --example raw_throughput -- [ROWS] [DIR]`
//! prints rows per second of gathering and of writing, by quarter, so that a slowdown
//! as the table grows shows.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use odometer_schemas::definitions::Definitions;
use odometer_schemas::digest::Hasher;
use odometer_schemas::envelope::{EnvelopeBuilder, Origin};
use odometer_schemas::log::LogEntry;
use odometer_schemas::quantity::Quantity;
use odometer_schemas::record::Record;
use odometer_schemas::time::TimeMs;
use odometer_sink::raw::{RawBook, RawGatherer, SqliteRaw};

const PARTITIONS: u32 = 8;
const TENANTS: u64 = 2_000;
const RECORDS_PER_ENVELOPE: u64 = 500;

fn main() {
    let mut args = std::env::args().skip(1);
    let rows: u64 = args.next().map_or(4_000_000, |text| text.parse().expect("a number of rows"));
    let keep = args.next().map(PathBuf::from);
    let temporary = tempfile::tempdir().expect("a temporary directory");
    let directory = keep.as_deref().unwrap_or(temporary.path());
    let mut book = SqliteRaw::open(&directory.join("raw.sqlite")).expect("a raw book");
    let mut gatherer = RawGatherer::new(Hasher::new(7));
    for partition in 0..PARTITIONS {
        gatherer.open(partition, 0, Some(Definitions::built_in()));
    }
    let envelopes = rows / RECORDS_PER_ENVELOPE;
    let (mut gathering, mut writing, mut written) = (Duration::ZERO, Duration::ZERO, 0);
    for number in 0..envelopes {
        let entry = entry(number);
        let start = Instant::now();
        gatherer.feed(&entry, None).expect("a good envelope");
        gathering += start.elapsed();
        if gatherer.is_full() || number + 1 == envelopes {
            let start = Instant::now();
            let batch = gatherer.take().expect("a good batch").expect("rows were fed");
            gathering += start.elapsed();
            let start = Instant::now();
            book.write(&batch).expect("the batch can be written");
            writing += start.elapsed();
            written += batch.len();
        }
        if (number + 1) % (envelopes / 4) == 0 {
            let rate = |time: Duration| written as f64 / time.as_secs_f64();
            println!(
                "{} rows: gather {:.0} rows/s, write {:.0} rows/s, both {:.0} rows/s",
                (number + 1) * RECORDS_PER_ENVELOPE,
                rate(gathering),
                rate(writing),
                rate(gathering + writing)
            );
            (gathering, writing, written) = (Duration::ZERO, Duration::ZERO, 0);
        }
    }
}

/// Envelope `number` of the log: four tenants, two meters, caller-made UUIDs.
fn entry(number: u64) -> LogEntry {
    let mut builder = EnvelopeBuilder::new();
    for index in 0..RECORDS_PER_ENVELOPE {
        let n = number * RECORDS_PER_ENVELOPE + index;
        let id = Hasher::new(1).text(&n.to_string()).0;
        let time_ms = 1_700_000_000_000 + i64::try_from(n / 100).expect("a small number");
        let record = Record {
            tenant: format!("tenant-{}", (number * 4 + index % 4) % TENANTS),
            source: "worker-pool".to_owned(),
            id: Some(odometer_schemas::record::IdRef::Uuid(id.to_be_bytes()).to_string()),
            meter: ["llm.prompt_tokens", "llm.generated_tokens"][(n % 2) as usize].to_owned(),
            quantity: Quantity(i64::try_from(n % 4096).expect("a small number")),
            time: Some(TimeMs(time_ms)),
            subject: Some(format!("user-{}", n % 50)),
            dimensions: vec![("model".to_owned(), format!("model-{}", n % 5))],
            reservation: None,
        };
        builder.push(&record).expect("records fit");
    }
    let origin = Origin { source: 1, epoch: 1, first_sequence: number * RECORDS_PER_ENVELOPE };
    LogEntry {
        partition: u32::try_from(number % u64::from(PARTITIONS)).expect("a small number"),
        offset: number / u64::from(PARTITIONS),
        append_time: TimeMs(1_700_000_000_000),
        bytes: builder.seal(origin),
    }
}
