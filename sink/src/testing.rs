//! Small logs for the test bodies: records, envelopes, and a naive writer that brings
//! them into a raw book.

pub mod postgres;

use odometer_schemas::commit::ExceptionsRow;
use odometer_schemas::control::Control;
use odometer_schemas::definitions::Definitions;
use odometer_schemas::digest::Hasher;
use odometer_schemas::envelope::{EnvelopeBuilder, Origin, encode_control};
use odometer_schemas::log::LogEntry;
use odometer_schemas::meter::{Aggregation, Dimension, Meter};
use odometer_schemas::quantity::Quantity;
use odometer_schemas::record::Record;
use odometer_schemas::time::TimeMs;
use odometer_schemas::verdict::{Verdict, pack};

use crate::raw::{RawBatch, RawGatherer};

/// 2023-11-16T00:00:00Z.
pub const DAY_START: i64 = 1_700_092_800_000;
/// The seed of every hash in the tests.
pub const HASHER: Hasher = Hasher::new(7);

/// One meter per aggregation, by the aggregation's name, each keeping `model`; and
/// `plain`, a sum that keeps nothing.
#[must_use]
pub fn definitions() -> Definitions {
    let names = ["sum", "count", "min", "max", "avg", "latest", "unique_count"];
    let meter = |name: &str, aggregation, dimensions| Meter {
        name: name.to_owned(),
        unit: "unit".to_owned(),
        base_unit: "unit".to_owned(),
        scale: 0,
        aggregation,
        event_type: None,
        value: None,
        dimensions,
    };
    let model = || vec![Dimension { name: "model".to_owned(), path: None }];
    let meters = names.iter().filter_map(|name| Some(meter(name, Aggregation::from_name(name)?, model())));
    Definitions {
        hash_seed: 7,
        ..Definitions::with_meters(meters.chain([meter("plain", Aggregation::Sum, vec![])]).collect())
    }
}

/// A record at `DAY_START + ms` with caller-made id, and nothing optional.
#[must_use]
pub fn record(tenant: &str, meter: &str, id: &str, quantity: i64, ms: i64) -> Record {
    Record {
        tenant: tenant.to_owned(),
        source: "worker".to_owned(),
        id: Some(id.to_owned()),
        meter: meter.to_owned(),
        quantity: Quantity(quantity),
        time: Some(TimeMs(DAY_START + ms)),
        subject: None,
        dimensions: Vec::new(),
        reservation: None,
    }
}

/// `record` with the dimension `model`.
#[must_use]
pub fn of_model(record: Record, model: &str) -> Record {
    Record { dimensions: vec![("model".to_owned(), model.to_owned())], ..record }
}

/// An envelope of `records` in the log.
#[must_use]
pub fn entry(partition: u32, offset: u64, records: &[Record]) -> LogEntry {
    let mut builder = EnvelopeBuilder::new();
    for record in records {
        record.validate().expect("a good record");
        builder.push(record).expect("few records fit");
    }
    let origin = Origin { source: 0xabc, epoch: 3, first_sequence: offset * 1000 };
    log_entry(partition, offset, builder.seal(origin))
}

/// Definitions in the log.
#[must_use]
pub fn definitions_entry(partition: u32, offset: u64, definitions: Definitions) -> LogEntry {
    log_entry(partition, offset, encode_control(&Control::Definitions(definitions), Origin::default()))
}

/// Any bytes in the log.
#[must_use]
pub fn log_entry(partition: u32, offset: u64, bytes: Vec<u8>) -> LogEntry {
    let append_time = TimeMs(DAY_START + i64::try_from(offset).expect("a small offset"));
    LogEntry { partition, offset, append_time, bytes: bytes.into() }
}

/// The exceptions of an entry.
#[must_use]
pub fn exceptions(offset: u64, verdicts: &[Verdict]) -> ExceptionsRow {
    ExceptionsRow { offset, verdicts: pack(verdicts) }
}

/// A gatherer whose `partitions` are open at offset 0 under [`definitions`].
#[must_use]
pub fn gatherer(partitions: u32) -> RawGatherer {
    let mut gatherer = RawGatherer::new(HASHER);
    for partition in 0..partitions {
        gatherer.open(partition, 0, Some(definitions()));
    }
    gatherer
}

/// The batch of `entries`, all accepted.
#[must_use]
pub fn batch(gatherer: &mut RawGatherer, entries: &[LogEntry]) -> RawBatch {
    for entry in entries {
        gatherer.feed(entry, None).expect("a good entry");
    }
    gatherer.take().expect("a good batch").expect("cursors move")
}
