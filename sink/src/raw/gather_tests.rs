use std::collections::BTreeMap;

use odometer_schemas::accumulator::Accumulator;
use odometer_schemas::definitions::Definitions;
use odometer_schemas::log::Position;
use odometer_schemas::record::Record;
use odometer_schemas::time::{DAY_MS, HOUR_MS, WindowKind};
use odometer_schemas::verdict::RejectReason;
use proptest::prelude::*;

use super::super::{OwnedRow, RANGE_OFFSETS};
use super::*;
use crate::testing::{
    DAY_START, HASHER, batch, definitions, definitions_entry, entry, exceptions, gatherer, log_entry, of_model, record,
};

fn taken(gatherer: &mut RawGatherer) -> RawBatch {
    gatherer.take().unwrap().unwrap()
}

fn contradiction(answer: Result<(), GatherError>) -> String {
    match answer.unwrap_err() {
        GatherError::Contradiction { problem, .. } => problem,
        other => panic!("{other}"),
    }
}

#[test]
fn rows_carry_their_checksums_and_stand_by_position_or_by_key() {
    let mut gatherer = gatherer(3);
    let one = |tenant, meter, ms| record(tenant, meter, "id", 1, ms);
    let entries = [
        entry(2, 0, &[one("b", "sum", 5), one("a", "sum", 9)]),
        entry(0, 0, &[one("a", "sum", 5), one("a", "max", 7)]),
        entry(2, 1, &[one("a", "sum", 9), one("a", "sum", 1)]),
        entry(1, 0, &[one("ab", "sum", 0)]),
    ];
    let batch = batch(&mut gatherer, &entries);
    let mut scratch = Vec::new();
    for (row, stored) in batch.rows() {
        assert_eq!(row.checksum(&HASHER, &mut scratch), stored);
    }
    let positions: Vec<Position> = batch.rows().map(|(row, _)| row.position).collect();
    assert!(positions.is_sorted() && positions.len() == 7);
    let by_key: Vec<_> =
        batch.rows_by_key().map(|(row, _)| (row.tenant, row.meter, row.time_ms - DAY_START, row.position)).collect();
    assert!(by_key.is_sorted() && by_key.len() == 7, "{by_key:?}");
}

#[test]
fn contradictions_between_log_and_exceptions_are_named() {
    let one = entry(0, 5, &[record("t", "sum", "id", 1, 0)]);
    let feed = |entry: &LogEntry, row: Option<&ExceptionsRow>| contradiction(gatherer(1).feed(entry, row));
    let two = exceptions(5, &[Verdict::Late, Verdict::Late]);
    assert!(feed(&one, Some(&two)).contains("1 records have 2 verdicts"));
    assert!(feed(&one, Some(&exceptions(6, &[Verdict::Late]))).contains("offset 6"));
    assert!(feed(&one, Some(&ExceptionsRow { offset: 5, verdicts: vec![1] })).contains("unpack"));
    assert!(feed(&log_entry(0, 5, vec![1]), None).contains("does not decode"));
    assert!(feed(&definitions_entry(0, 5, definitions()), Some(&two)).contains("control"));
    assert!(feed(&entry(0, 5, &[record("t", "unknown", "id", 1, 0)]), None).contains("not defined"));
    assert!(feed(&entry(0, 5, &[record("t", "unique_count", "id", 1, 0)]), None).contains("counts"));
    let mut gatherer = gatherer(1);
    assert_eq!(
        gatherer.feed(&entry(1, 0, &[record("t", "sum", "id", 1, 0)]), None),
        Err(GatherError::NotOpen { partition: 1 })
    );
    gatherer.feed(&one, None).unwrap();
    let again = gatherer.feed(&one, None);
    assert_eq!(again, Err(GatherError::OutOfOrder { partition: 0, offset: 5, next_offset: 6 }));
}

#[test]
fn a_rejected_envelope_stays_rejected_for_a_build_that_could_decode_it() {
    let mut gatherer = gatherer(1);
    let sent = entry(0, 0, &[record("t", "sum", "id", 1, 0)]);
    let verdict = Verdict::Rejected(RejectReason::UnknownVersion);
    gatherer.feed(&sent, Some(&exceptions(0, &[verdict]))).unwrap();
    let batch = taken(&mut gatherer);
    assert!(batch.is_empty());
    assert_eq!((batch.rejected()[0].verdict, &*batch.rejected()[0].bytes), (verdict, &*sent.bytes));
}

#[test]
fn nothing_is_taken_when_no_cursor_moves() {
    let mut gatherer = gatherer(2);
    assert!(gatherer.take().unwrap().is_none());
    gatherer.feed(&definitions_entry(1, 0, definitions()), None).unwrap();
    let moves = taken(&mut gatherer).cursors().to_vec();
    assert_eq!(moves, [CursorMove { partition: 1, from_offset: 0, next_offset: 1 }]);
    assert!(gatherer.take().unwrap().is_none());
}

#[test]
fn new_definitions_change_what_is_kept_from_there_on() {
    let mut gatherer = RawGatherer::new(HASHER);
    gatherer.open(0, 0, None);
    let mut without = definitions();
    without.meters.iter_mut().for_each(|meter| meter.dimensions.clear());
    let one = |offset| entry(0, offset, &[of_model(record("t", "sum", "id", 1, 0), "m")]);
    let entries = [definitions_entry(0, 0, definitions()), one(1), definitions_entry(0, 2, without), one(3)];
    let batch = batch(&mut gatherer, &entries);
    let mut kept: Vec<&str> = batch.rollups().map(|rollup| rollup.dimensions).collect();
    kept.sort_unstable();
    assert_eq!(kept, ["{\"model\":\"m\"}", "{}"]);
    let mut changed = definitions();
    changed.meters.iter_mut().for_each(|meter| meter.aggregation = Aggregation::Max);
    gatherer.feed(&definitions_entry(0, 4, changed), None).unwrap();
    gatherer.feed(&one(5), None).unwrap();
    let answer = gatherer.take().map(|_| ());
    assert!(contradiction(answer).contains("meter sum changed its aggregation"));
}

/// Minute, tenant, meter, kept dimensions, partition and range.
type RollupKey = (i64, String, String, String, u32, u64);
/// Version, quantity, sum, records and state.
type RollupValue = (u64, i128, i128, u64, Vec<u8>);

/// A raw book in memory, with nothing but the rule that a rollup row replaces an
/// older one.
#[derive(Debug, Default, PartialEq)]
struct Model {
    rows: BTreeMap<Position, (OwnedRow, u64)>,
    rollups: BTreeMap<RollupKey, RollupValue>,
}

impl Model {
    fn write(&mut self, batch: &RawBatch) {
        for (row, hash) in batch.rows() {
            let before = self.rows.insert(row.position, (OwnedRow::from(&row), hash));
            assert_eq!(before, None, "a row was written twice");
        }
        for r in batch.rollups() {
            let names = (r.tenant.to_owned(), r.meter.to_owned(), r.dimensions.to_owned());
            let key = (r.window_start_ms, names.0, names.1, names.2, r.partition, r.range_start);
            let value = (r.last_offset, r.quantity, r.sum, r.records, r.state.to_vec());
            let older = self.rollups.get(&key).is_none_or(|known| known.0 <= value.0);
            assert!(older, "a rollup went back");
            self.rollups.insert(key, value);
        }
    }

    /// Without versions, which say how far the writer was.
    fn usage(&self) -> Vec<impl PartialEq + std::fmt::Debug> {
        self.rollups
            .iter()
            .map(|(key, (_, quantity, sum, records, state))| (key.clone(), *quantity, *sum, *records, state.clone()))
            .collect()
    }

    /// What the rows give, minute by minute, added up in no particular way.
    fn expected(&self) -> BTreeMap<(i64, String, u64), (i128, u64)> {
        let mut sums = BTreeMap::new();
        for (row, _) in self.rows.values().filter(|(row, _)| row.verdict == Verdict::Accepted) {
            let minute = WindowKind::Minute.start_of(row.time).0;
            let key = (minute, row.meter.clone(), range_start(row.position.offset));
            let sum: &mut (i128, u64) = sums.entry(key).or_default();
            *sum = (sum.0 + i128::from(row.quantity), sum.1 + 1);
        }
        sums
    }

    fn found(&self) -> BTreeMap<(i64, String, u64), (i128, u64)> {
        let mut sums = BTreeMap::new();
        for (key, (_, _, added, records, _)) in &self.rollups {
            let sum: &mut (i128, u64) = sums.entry((key.0, key.2.clone(), key.5)).or_default();
            *sum = (sum.0 + added, sum.1 + records);
        }
        sums
    }
}

/// One entry of a random log: the gap before it, its records and their verdicts.
type Step = (u64, Vec<(u8, u8, i64, i64, bool)>);

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let record = (0_u8..7, 0_u8..3, any::<i64>(), -DAY_MS..2 * HOUR_MS, prop::bool::weighted(0.8));
    // Gaps let a short log reach over several ranges.
    let gap = prop_oneof![4 => 0_u64..3, 1 => 0..RANGE_OFFSETS];
    prop::collection::vec((gap, prop::collection::vec(record, 1..6)), 1..30)
}

fn log_of(steps: &[Step]) -> Vec<(LogEntry, ExceptionsRow)> {
    let mut offset = 0;
    let meters = ["sum", "count", "min", "max", "avg", "latest", "unique_count"];
    let mut log = Vec::new();
    for (gap, records) in steps {
        offset += gap;
        let of = |(meter, model, quantity, ms, _): &(u8, u8, i64, i64, bool)| Record {
            subject: Some(format!("user-{}", quantity % 5)),
            ..of_model(record("t", meters[usize::from(*meter)], "id", *quantity, *ms), &format!("m{model}"))
        };
        let verdict = |accepted: bool| if accepted { Verdict::Accepted } else { Verdict::Late };
        let verdicts: Vec<Verdict> = records.iter().map(|record| verdict(record.4)).collect();
        let records: Vec<Record> = records.iter().map(of).collect();
        log.push((entry(0, offset, &records), exceptions(offset, &verdicts)));
        offset += 1;
    }
    log
}

/// Writes the whole log; after each entry, `cuts` say whether the batch is taken and
/// whether the writer starts again from the book's cursor.
fn write_all(log: &[(LogEntry, ExceptionsRow)], cuts: &[(bool, bool)]) -> Model {
    let mut model = Model::default();
    let mut gatherer = gatherer(1);
    for (place, (entry, exceptions)) in log.iter().enumerate() {
        gatherer.feed(entry, Some(exceptions)).unwrap();
        let (take, restart) = cuts[place % cuts.len()];
        if take || place + 1 == log.len() {
            model.write(&taken(&mut gatherer));
        }
        if take && restart {
            gatherer = RawGatherer::new(HASHER);
            let cursor = entry.offset + 1;
            let start = gatherer.open(0, cursor, Some(definitions()));
            let open_range = log.iter().filter(|(entry, _)| (start..cursor).contains(&entry.offset));
            open_range.for_each(|(entry, exceptions)| gatherer.feed(entry, Some(exceptions)).unwrap());
        }
    }
    model
}

proptest! {
    #[test]
    fn cuts_and_restarts_change_nothing(steps in steps(), cuts in prop::collection::vec(any::<(bool, bool)>(), 1..20)) {
        let log = log_of(&steps);
        let whole = write_all(&log, &[(false, false)]);
        let cut = write_all(&log, &cuts);
        prop_assert_eq!(&cut.rows, &whole.rows);
        prop_assert_eq!(cut.usage(), whole.usage());
        prop_assert_eq!(whole.found(), whole.expected());
        for (key, (_, quantity, sum, records, state)) in &whole.rollups {
            let aggregation = Aggregation::from_name(&key.2).unwrap();
            let restored = Accumulator::restore(aggregation, *records, *sum, state).unwrap();
            prop_assert_eq!(restored.value(), *quantity);
        }
    }
}

#[test]
fn what_a_restart_rebuilds_is_not_written_again() {
    let usage = |offset| entry(0, offset, &[record("t", "sum", "id", 1, 0)]);
    let mut gatherer = gatherer(2);
    gatherer.open(0, 2, Some(definitions()));
    for entry in [usage(0), usage(1)] {
        gatherer.feed(&entry, None).unwrap();
    }
    // Nothing but control records since, beside another partition's usage.
    gatherer.feed(&definitions_entry(0, 2, definitions()), None).unwrap();
    gatherer.feed(&entry(1, 0, &[record("u", "sum", "id", 1, 0)]), None).unwrap();
    let batch = taken(&mut gatherer);
    assert_eq!(batch.rollups().map(|rollup| (rollup.partition, rollup.records)).collect::<Vec<_>>(), [(1, 1)]);
    assert_eq!(batch.cursors().len(), 2);
    gatherer.feed(&usage(3), None).unwrap();
    let rollups: Vec<_> = taken(&mut gatherer).rollups().map(|rollup| (rollup.partition, rollup.records)).collect();
    assert_eq!(rollups, [(0, 3)], "absolute for its range");
}

#[test]
fn a_restart_that_never_meets_an_entry_writes_nothing_new() {
    let mut gatherer = RawGatherer::new(HASHER);
    let start = gatherer.open(0, 10, Some(Definitions::built_in()));
    assert_eq!((start, gatherer.next_offset(0)), (0, Some(0)));
    gatherer.advance(0, 10);
    assert!(gatherer.take().unwrap().is_none());
}
