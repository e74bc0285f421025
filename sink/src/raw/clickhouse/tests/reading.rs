use std::ops::ControlFlow;

use odometer_schemas::envelope::{EnvelopeBuilder, Origin};
use odometer_schemas::row::RawRow;
use odometer_schemas::time::TimeMs;
use odometer_schemas::verdict::{RejectReason, Verdict};

use super::*;
use crate::raw::{RollupRow, Scanned};
use crate::testing::{batch, exceptions, gatherer, log_entry};

#[test]
fn a_value_that_does_not_read_back_is_named() {
    let cases = [
        ("'fine' AS verdict", "usage_records, row (0, 0, 0): column verdict"),
        ("'late' AS reason", "column verdict"),
        ("unhex('ff') AS id", "column id is not UTF-8"),
        ("unhex('ff') AS subject", "column subject is not UTF-8"),
    ];
    for (tamper, named) in cases {
        let database = Database::fresh();
        database.book().write(&batch(&mut gatherer(1), &[one(0)])).unwrap();
        database.run("CREATE TABLE changed AS usage_records");
        database.run(&format!("INSERT INTO changed SELECT * REPLACE ({tamper}) FROM usage_records"));
        database.run("EXCHANGE TABLES changed AND usage_records");
        let error = database.book().records(&of_tenant("t")).unwrap_err().to_string();
        assert!(error.contains(named), "{error}");
        let mut seen = Seen::default();
        database.book().scan(&mut seen).unwrap();
        assert_eq!((seen.rows.len(), seen.unreadable.len()), (0, 1), "a scan shows it and goes on");
        assert!(seen.unreadable[0].contains(named.rsplit("column").next().unwrap()), "{}", seen.unreadable[0]);
        assert_eq!(seen.rollup_records, 1);
    }
}

#[test]
fn a_table_of_other_types_is_an_error() {
    let database = Database::fresh();
    database.book().write(&batch(&mut gatherer(1), &[one(0)])).unwrap();
    database.run("ALTER TABLE usage_records MODIFY COLUMN quantity Int32");
    let error = database.book().records(&of_tenant("t")).unwrap_err();
    assert!(!error.is_retryable(), "{error}");
}

#[test]
fn times_are_exact_whatever_they_are() {
    let database = Database::fresh();
    let times = [i64::MIN / 2, -1, 0, 7_258_118_400_000, 253_402_300_800_000, i64::MAX / 2];
    let mut builder = EnvelopeBuilder::new();
    for time in times {
        let record = record("t", "sum", &time.to_string(), 1, 0);
        builder.push(&odometer_schemas::record::Record { time: Some(TimeMs(time)), ..record }).unwrap();
    }
    let sent = log_entry(0, 0, builder.seal(Origin::default()));
    let verdicts = [Verdict::Rejected(RejectReason::TimeOutOfRange); 6];
    let mut gatherer = gatherer(1);
    gatherer.feed(&sent, Some(&exceptions(0, &verdicts))).unwrap();
    let mut book = database.book();
    book.write(&gatherer.take().unwrap().unwrap()).unwrap();
    for (first, from) in times.into_iter().enumerate() {
        for (end, to) in times.into_iter().enumerate() {
            let filter = RecordFilter { from: Some(TimeMs(from)), to: Some(TimeMs(to)), ..of_tenant("t") };
            let found: Vec<i64> = book.records(&filter).unwrap().iter().map(|row| row.time.0).collect();
            assert_eq!(found, times[first..end.max(first)], "from {from} to {to}");
        }
    }
    let exact = "SELECT toUnixTimestamp64Milli(time) AS answer FROM usage_records ORDER BY time";
    assert_eq!(database.answers(exact), times.map(|time| time.to_string()));
}

#[test]
fn texts_are_only_texts() {
    let database = Database::fresh();
    let odd = "a'b\\c`d\"e?f{x:String}";
    let sent = entry(0, 0, &[record(odd, "sum", odd, 1, 0)]);
    let mut book = database.book();
    book.write(&batch(&mut gatherer(1), &[sent])).unwrap();
    let filter = RecordFilter { id: Some(odd.to_owned()), ..of_tenant(odd) };
    assert_eq!(book.records(&filter).unwrap()[0].id, odd);
    let foreign = RecordFilter { id: Some("\u{0}\n\t".to_owned()), ..of_tenant(odd) };
    assert_eq!(book.records(&foreign).unwrap(), []);
    let query = UsageQuery {
        tenant: Some(odd.to_owned()),
        meter: "sum".to_owned(),
        from: TimeMs(i64::MIN),
        to: TimeMs(i64::MAX),
        window: crate::raw::UsageWindow::Day,
        group_by: None,
    };
    assert_eq!(book.usage(&query).unwrap()[0].records, 1);
}

#[test]
fn a_scan_shows_one_moment_of_a_book_at_work() {
    let database = Database::fresh();
    let mut book = database.book();
    let mut gatherer = gatherer(2);
    let first = [one(0), one(1), entry(1, 0, &[record("u", "sum", "id", 1, 0)])];
    book.write(&batch(&mut gatherer, &first)).unwrap();
    let next = batch(&mut gatherer, &[one(2), one(4)]);
    // Rows that no rollup has yet are not there yet.
    for block in pieces::records(&next) {
        book.link.insert("writing", "usage_records", block).unwrap();
    }
    let seen = scan(&mut book);
    assert_eq!((seen.cursors, seen.rows.len(), seen.rollup_records), (vec![(0, 2), (1, 1)], 3, 3));
    // Once their rollups are, all of them are.
    book.link.insert("writing", "usage_rollups", pieces::rollups(&next).0).unwrap();
    let seen = scan(&mut book);
    assert_eq!((seen.cursors, seen.rows.len(), seen.rollup_records), (vec![(0, 5), (1, 1)], 5, 5));
    book.write(&next).unwrap();
    let seen = scan(&mut book);
    assert_eq!((seen.cursors, seen.rollup_records), (vec![(0, 5), (1, 1)], 5));
    assert!(seen.rows.windows(2).all(|pair| pair[0] <= pair[1]), "by position, copies side by side");
    assert_eq!(seen.rows.iter().collect::<std::collections::BTreeSet<_>>().len(), 5);
}

#[derive(Default)]
struct Seen {
    cursors: Vec<(u32, u64)>,
    rows: Vec<odometer_schemas::log::Position>,
    unreadable: Vec<String>,
    rollup_records: u64,
}

fn scan(book: &mut ClickHouseRaw) -> Seen {
    let mut seen = Seen::default();
    book.scan(&mut seen).unwrap();
    seen
}

impl RawVisitor for Seen {
    fn cursors(&mut self, cursors: &[RawCursor]) -> ControlFlow<()> {
        self.cursors = cursors.iter().map(|cursor| (cursor.partition, cursor.next_offset)).collect();
        ControlFlow::Continue(())
    }

    fn row(&mut self, row: Scanned<'_, RawRow<'_>>, _: u64) {
        match row {
            Scanned::Row(row) => self.rows.push(row.position),
            Scanned::Unreadable { table, key, problem } => {
                self.unreadable.push(format!("table {table}, row {key}: {problem}"));
            }
        }
    }

    fn rejected(&mut self, _: Scanned<'_, RejectedEnvelope>) {}

    fn rollup(&mut self, rollup: Scanned<'_, RollupRow<'_>>) {
        if let Scanned::Row(rollup) = rollup {
            self.rollup_records += rollup.records;
        }
    }
}
