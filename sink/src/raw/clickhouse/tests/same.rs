//! The same batches into SQLite and into ClickHouse leave the same book behind, to the
//! last byte of every value.

use std::ops::ControlFlow;

use odometer_schemas::record::Record;
use odometer_schemas::row::RawRow;
use odometer_schemas::time::{DAY_MS, MINUTE_MS, TimeMs};
use odometer_schemas::verdict::{RejectReason, Verdict};

use super::*;
use crate::raw::{
    OwnedRow, RawCursor, RawVisitor, RejectedEnvelope, RollupRow, Scanned, SqliteRaw, UsageQuery, UsageWindow,
};
use crate::testing::{DAY_START, definitions, exceptions, gatherer, log_entry, of_model};

/// Everything that a scan shows, in an order of its own.
#[derive(Debug, Default, PartialEq)]
struct Whole {
    cursors: Vec<RawCursor>,
    rows: Vec<(OwnedRow, u64)>,
    rejected: Vec<RejectedEnvelope>,
    rollups: Vec<String>,
}

impl RawVisitor for Whole {
    fn cursors(&mut self, cursors: &[RawCursor]) -> ControlFlow<()> {
        self.cursors = cursors.to_vec();
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
        self.rollups.push(format!("{rollup:?}"));
    }
}

fn whole(book: &mut dyn RawBook) -> Whole {
    let mut whole = Whole::default();
    book.scan(&mut whole).unwrap();
    whole.rows.sort_by_key(|(row, _)| row.position);
    whole.rejected.sort_by_key(|envelope| (envelope.partition, envelope.offset));
    whole.rollups.sort_unstable();
    whole
}

/// Numbers that look random and are the same in every run.
fn mixed(seed: u64) -> u64 {
    crate::testing::HASHER.bytes64(&seed.to_le_bytes())
}

/// An entry of records of every meter, some of them not accepted, or one that is none.
fn feed(gatherer: &mut crate::raw::RawGatherer, partition: u32, offset: u64) {
    if mixed(offset).is_multiple_of(11) {
        let rejected = exceptions(offset, &[Verdict::Rejected(RejectReason::NotAnEnvelope)]);
        return gatherer.feed(&log_entry(partition, offset, vec![0, 255, 10]), Some(&rejected)).unwrap();
    }
    let meters = definitions().meters;
    let make = |index: u64| {
        let word = mixed((u64::from(partition) << 40) ^ (offset << 8) ^ index);
        let meter = &meters[(word % meters.len() as u64) as usize].name;
        let quantity = (word >> 3).cast_signed() >> (word % 60);
        let ms = (word % 5) as i64 * MINUTE_MS + (word % 3) as i64 * DAY_MS;
        let named = record(&format!("tenant-{}-é", word % 4), meter, &format!("{offset}-{index}"), quantity, ms);
        let named = Record { subject: Some(format!("user-{}", word % 7)), ..named };
        of_model(named, ["small", "large", "\"quoted\""][(word % 3) as usize])
    };
    let records: Vec<_> = (0..8).map(make).collect();
    let verdict = |index: u64| match mixed(offset ^ index) % 6 {
        0 => Verdict::Duplicate,
        1 => Verdict::Late,
        2 => Verdict::Rejected(RejectReason::TimeInFuture),
        3 => Verdict::Conflict,
        _ => Verdict::Accepted,
    };
    let verdicts: Vec<_> = (0..8).map(verdict).collect();
    gatherer.feed(&entry(partition, offset, &records), Some(&exceptions(offset, &verdicts))).unwrap();
}

#[test]
fn both_engines_hold_the_same_book() {
    let (database, directory) = (Database::fresh(), tempfile::tempdir().unwrap());
    let mut books: [Box<dyn RawBook>; 2] =
        [Box::new(SqliteRaw::open(&directory.path().join("raw.sqlite")).unwrap()), Box::new(database.book())];
    let mut gatherer = gatherer(3);
    for batch in 0..6 {
        for partition in 0..3 {
            (batch * 7..(batch + 1) * 7).for_each(|offset| feed(&mut gatherer, partition, offset));
        }
        let batch = gatherer.take().unwrap().unwrap();
        books.iter_mut().for_each(|book| book.write(&batch).unwrap());
    }
    let [sqlite, clickhouse] = &mut books;
    let found = whole(clickhouse.as_mut());
    assert!(found.rows.len() > 800 && !found.rejected.is_empty() && found.rollups.len() > 100);
    assert_eq!(found, whole(sqlite.as_mut()));
    for meter in definitions().meters {
        for window in [UsageWindow::Minute, UsageWindow::Hour, UsageWindow::Day, UsageWindow::Month] {
            for group_by in [None, Some("model".to_owned())] {
                let query = UsageQuery {
                    tenant: None,
                    meter: meter.name.clone(),
                    from: TimeMs(DAY_START),
                    to: TimeMs(DAY_START + 30 * DAY_MS),
                    window,
                    group_by,
                };
                assert_eq!(clickhouse.usage(&query).unwrap(), sqlite.usage(&query).unwrap(), "{query:?}");
            }
        }
    }
}
