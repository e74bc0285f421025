use rusqlite::Connection;
use tempfile::TempDir;

use super::super::contract::{Storage, run};
use super::*;
use crate::testing::{batch, entry, gatherer, record};

struct File(TempDir);

impl File {
    fn path(&self) -> std::path::PathBuf {
        self.0.path().join("raw.sqlite")
    }
}

impl Storage for File {
    fn open(&mut self) -> Box<dyn RawBook> {
        Box::new(SqliteRaw::open(&self.path()).unwrap())
    }
}

fn fresh() -> File {
    File(tempfile::tempdir().unwrap())
}

#[test]
fn the_contract_holds() {
    run(fresh);
}

#[test]
fn a_reader_never_makes_a_book_and_works_beside_a_writer() {
    let mut file = fresh();
    let path = file.path();
    assert!(matches!(SqliteRaw::open_read_only(&path), Err(BookError::Missing { .. })));
    assert!(!path.exists());
    let mut book = file.open();
    let mut gatherer = gatherer(1);
    let one = |offset| entry(0, offset, &[record("t", "sum", "id", 1, 0)]);
    book.write(&batch(&mut gatherer, &[one(0)])).unwrap();
    let mut reader = SqliteRaw::open_read_only(&path).unwrap();
    let transaction = reader.reading().unwrap();
    assert_eq!(read::cursors(&transaction).unwrap()[0].next_offset, 1);
    book.write(&batch(&mut gatherer, &[one(1)])).unwrap();
    assert_eq!(read::cursors(&transaction).unwrap()[0].next_offset, 1);
    drop(transaction);
    assert_eq!(reader.cursors().unwrap()[0].next_offset, 2);
}

/// What an analyst's SQL sees in `file`.
fn sql<T: rusqlite::types::FromSql>(file: &File, query: &str) -> rusqlite::Result<T> {
    Connection::open(file.path()).unwrap().query_row(query, [], |row| row.get(0))
}

#[test]
fn analysts_read_by_the_documented_names() {
    let mut file = fresh();
    let mut book = file.open();
    let mut gatherer = gatherer(1);
    let accepted = entry(0, 0, &[record("t", "sum", "a", 5, 0), record("t", "avg", "b", -7, 0)]);
    let mixed = entry(0, 1, &[record("t", "sum", "c", 6, 60_000), record("t", "avg", "b", -8, 0)]);
    let verdicts = [odometer_schemas::verdict::Verdict::Late, odometer_schemas::verdict::Verdict::Accepted];
    gatherer.feed(&accepted, None).unwrap();
    gatherer.feed(&mixed, Some(&crate::testing::exceptions(1, &verdicts))).unwrap();
    book.write(&gatherer.take().unwrap().unwrap()).unwrap();
    let columns = "tenant, meter, source, id, subject, quantity, time, dimensions, partition, offset, idx, verdict,
        reason, append_time, row_hash";
    let count: i64 = sql(&file, &format!("SELECT count(*) FROM (SELECT {columns} FROM usage_records)")).unwrap();
    assert_eq!(count, 4);
    assert_eq!(sql::<i64>(&file, "SELECT count(*) FROM usage"), Ok(3));
    assert_eq!(sql::<i64>(&file, "SELECT quantity FROM usage_by_minute WHERE meter = 'sum'"), Ok(5));
    assert_eq!(sql::<i64>(&file, "SELECT records FROM usage_by_hour WHERE meter = 'avg'"), Ok(2));
    // -7.5 is rounded away from zero, as in the totals.
    assert_eq!(sql::<i64>(&file, "SELECT quantity FROM usage_by_day WHERE meter = 'avg'"), Ok(-8));
    // A tamperer needs no more than the documented columns.
    let insert = format!(
        "INSERT INTO usage_records ({columns}) SELECT {} FROM usage_records LIMIT 1",
        columns.replace("idx", "9")
    );
    assert_eq!(Connection::open(file.path()).unwrap().execute(&insert, []), Ok(1));
}

#[test]
fn a_view_never_shows_a_clamped_quantity() {
    let mut file = fresh();
    let mut book = file.open();
    let mut gatherer = gatherer(1);
    let most = |id, meter| record("t", meter, id, i64::MAX, 0);
    let sent = [most("1", "sum"), most("2", "sum"), most("1", "count")];
    book.write(&batch(&mut gatherer, &[entry(0, 0, &sent)])).unwrap();
    let quantity =
        |meter: &str| sql::<Option<i64>>(&file, &format!("SELECT quantity FROM usage_by_day WHERE meter = '{meter}'"));
    assert_eq!(quantity("sum"), Ok(None));
    assert_eq!(quantity("count"), Ok(Some(1)));
}

#[test]
fn a_value_that_does_not_read_back_is_named() {
    let cases = [
        ("UPDATE usage_records SET verdict = 'fine'", "usage_records, row (0, 0, 0): column verdict"),
        ("UPDATE usage_records SET reason = 'late'", "column verdict"),
        ("UPDATE usage_records SET id_emitted = 2", "column id_emitted"),
        ("UPDATE usage_records SET envelope_records = 70000", "column envelope_records"),
    ];
    for (tamper, named) in cases {
        let mut file = fresh();
        let one = entry(0, 0, &[record("t", "sum", "id", 1, 0)]);
        file.open().write(&batch(&mut gatherer(1), &[one])).unwrap();
        Connection::open(file.path()).unwrap().execute(tamper, []).unwrap();
        let filter = RecordFilter { tenant: "t".to_owned(), limit: 1, ..RecordFilter::default() };
        let error = file.open().records(&filter).unwrap_err().to_string();
        assert!(error.contains(named), "{error}");
    }
}
