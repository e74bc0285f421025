//! A random log, and a totals book in memory.

use std::collections::BTreeMap;

use odometer_aggregator::{LiveCells, Options, Processor, Snapshot};
use odometer_schemas::commit::{PartitionCommit, PartitionState, SourceMark, TotalRow};
use odometer_schemas::control::Control;
use odometer_schemas::definitions::{DedupeRule, Definitions};
use odometer_schemas::envelope::{EnvelopeBuilder, Origin, encode_control};
use odometer_schemas::log::LogEntry;
use odometer_schemas::meter::{Aggregation, Meter};
use odometer_schemas::quantity::Quantity;
use odometer_schemas::record::Record;
use odometer_schemas::time::TimeMs;
use proptest::prelude::*;

pub(crate) const OPTIONS: Options = Options {
    partition: 0,
    partitions: 1,
    hash_seed: Definitions::HASH_SEED_DEFAULT,
    ids_max: 1_000_000,
    totals_max: 1_000_000,
    placement_seed: 11,
};

/// 2026-01-15T00:00:00Z.
pub(crate) const BEGIN_MS: i64 = 1_768_435_200_000;
pub(crate) const WINDOW_MS: i64 = 80_000;

/// One meter of each aggregation, a short dedupe window.
pub(crate) fn definitions() -> Definitions {
    let all = [
        ("sum", Aggregation::Sum),
        ("count", Aggregation::Count),
        ("min", Aggregation::Min),
        ("max", Aggregation::Max),
        ("avg", Aggregation::Avg),
        ("latest", Aggregation::Latest),
        ("unique", Aggregation::UniqueCount),
    ];
    let meter = |(name, aggregation): (&str, Aggregation)| Meter {
        name: name.into(),
        aggregation,
        ..Meter::built_in().remove(0)
    };
    let mut definitions = Definitions::with_meters(all.map(meter).into());
    definitions.dedupe = DedupeRule { window_ms: WINDOW_MS };
    definitions
}

/// One envelope of a random log.
#[derive(Clone, Debug)]
pub(crate) enum Message {
    Usage { origin: Origin, records: Vec<Record> },
    Control(Control),
    Junk(Vec<u8>),
}

impl Message {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Usage { origin, records } => {
                let mut builder = EnvelopeBuilder::new();
                records.iter().for_each(|record| builder.push(record).unwrap());
                builder.seal(*origin)
            }
            Self::Control(control) => encode_control(control, Origin::default()),
            Self::Junk(bytes) => bytes.clone(),
        }
    }
}

fn any_record() -> impl Strategy<Value = Record> {
    let meters = prop::sample::select(vec!["sum", "count", "min", "max", "avg", "latest", "unique", "missing"]);
    let time = prop_oneof![
        6 => (-100_000_i64..100_000).prop_map(|d| Some(BEGIN_MS + d)),
        2 => Just(None),
        1 => prop::sample::select(vec![-40 * 86_400_000_i64, 40 * 86_400_000, -BEGIN_MS]).prop_map(|d| Some(BEGIN_MS + d)),
    ];
    let subject = prop::option::of("[uv]");
    ("[ab]", "[st]", prop::option::weighted(0.7, "[0-9]"), meters, -3_i64..4, time, subject).prop_map(
        |(tenant, source, id, meter, quantity, time, subject)| Record {
            tenant,
            source,
            id,
            meter: meter.into(),
            quantity: Quantity(quantity),
            time: time.map(TimeMs),
            subject,
            dimensions: vec![],
            reservation: None,
        },
    )
}

fn any_message() -> impl Strategy<Value = Message> {
    let origin = (1_u128..3, 0_u32..2, 0_u64..30).prop_map(|(source, epoch, first_sequence)| Origin {
        source,
        epoch,
        first_sequence,
    });
    let usage = (origin, prop::collection::vec(any_record(), 1..12))
        .prop_map(|(origin, records)| Message::Usage { origin, records });
    let anchor = ("[ab]", prop::option::of(BEGIN_MS - 100_000_000..BEGIN_MS))
        .prop_map(|(tenant, anchor_ms)| Control::Anchor { tenant, anchor_ms });
    let close = (BEGIN_MS - 86_400_000 * 20..BEGIN_MS)
        .prop_map(|through_ms| Control::Close { close_id: "c".into(), through_ms });
    let definitions = prop::sample::select(vec![WINDOW_MS, WINDOW_MS / 4])
        .prop_map(|window_ms| Control::Definitions(Definitions { dedupe: DedupeRule { window_ms }, ..definitions() }));
    prop_oneof![
        20 => usage,
        1 => Just(Message::Control(Control::Tick)),
        1 => anchor.prop_map(Message::Control),
        1 => close.prop_map(Message::Control),
        1 => definitions.prop_map(Message::Control),
        1 => prop::collection::vec(any::<u8>(), 0..80).prop_map(Message::Junk),
    ]
}

/// A log that begins with definitions; append times run on irregularly, offsets have
/// gaps as Kafka's do.
pub(crate) fn any_log() -> impl Strategy<Value = Vec<LogEntry>> {
    let step = (any_message(), 0_i64..9_000, 1_u64..3);
    prop::collection::vec(step, 1..60).prop_map(|steps| {
        let first = (Message::Control(Control::Definitions(definitions())), 0, 1);
        let (mut time, mut offset) = (BEGIN_MS, 0);
        let entry = |(message, gap_ms, gap): (Message, i64, u64)| {
            time += gap_ms;
            offset += gap;
            LogEntry { partition: 0, offset, append_time: TimeMs(time), bytes: message.bytes() }
        };
        std::iter::once(first).chain(steps).map(entry).collect()
    })
}

/// A totals book in memory: one partition, applied commit by commit.
#[derive(Clone, Debug, Default)]
pub(crate) struct MemoryBook {
    pub(crate) state: PartitionState,
    pub(crate) totals: BTreeMap<(String, String, i64), TotalRow>,
    marks: BTreeMap<u128, SourceMark>,
    pub(crate) exceptions: BTreeMap<u64, Vec<u8>>,
}

impl MemoryBook {
    pub(crate) fn apply(&mut self, commit: &PartitionCommit) {
        assert_eq!(commit.from_offset, self.state.next_offset);
        self.state.next_offset = commit.next_offset;
        self.state.log_time_ms = commit.log_time_ms;
        self.state.counts = commit.counts;
        for row in &commit.totals {
            self.totals.insert((row.tenant.clone(), row.meter.clone(), row.period_start_ms), row.clone());
        }
        self.marks.extend(commit.marks.iter().map(|mark| (mark.source, mark.clone())));
        self.exceptions.extend(commit.exceptions.iter().map(|row| (row.offset, row.verdicts.clone())));
        if let Some(rules) = &commit.rules {
            self.state.rules = Some(rules.clone());
        }
    }

    /// A new owner takes over: from the book, a snapshot or none, and the log.
    pub(crate) fn recover(&self, log: &[LogEntry], snapshot: Option<&[u8]>) -> Processor {
        let state = PartitionState {
            totals: self.totals.values().cloned().collect(),
            marks: self.marks.values().cloned().collect(),
            ..self.state.clone()
        };
        let snapshot = snapshot.map(|bytes| Snapshot::decode(bytes).unwrap());
        let mut processor = Processor::restore(OPTIONS, &state, snapshot, LiveCells::default()).unwrap();
        let (from, to) = (processor.learn_from(), processor.next_offset());
        for entry in log.iter().filter(|entry| (from..to).contains(&entry.offset)) {
            processor.learn(entry, self.exceptions.get(&entry.offset).map(Vec::as_slice));
        }
        processor
    }
}
