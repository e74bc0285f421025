use odometer_schemas::commit::PartitionCommit;
use rusqlite::Connection;
use tempfile::TempDir;

use super::super::contract::{Storage, commit, installation, run, total};
use super::super::{Claim, OwnedCommit, TotalsBook, TotalsFilter};
use super::*;

struct File(TempDir);

impl Storage for File {
    fn open(&mut self) -> Box<dyn TotalsBook> {
        Box::new(SqliteTotals::open(&self.0.path().join("totals.sqlite")).unwrap())
    }
}

fn fresh() -> File {
    File(tempfile::tempdir().unwrap())
}

/// A book with one commit of one total.
fn written(file: &mut File) -> Box<dyn TotalsBook> {
    let mut book = file.open();
    book.identity(&installation()).unwrap();
    book.claim(&Claim::default()).unwrap();
    let commit = PartitionCommit { totals: vec![total("a", "m", 1)], ..commit(0, 0, 1) };
    book.commit(&[OwnedCommit { epoch: 1, commit }]).unwrap();
    book
}

#[test]
fn the_contract_holds() {
    run(fresh);
}

#[test]
fn a_book_that_is_not_there_is_not_made_by_reading() {
    let file = fresh();
    let path = file.0.path().join("totals.sqlite");
    assert!(matches!(SqliteTotals::open_read_only(&path), Err(BookError::Missing { .. })));
    assert!(!path.exists());
}

#[test]
fn a_reader_works_beside_a_writer_and_after_it() {
    let mut file = fresh();
    let path = file.0.path().join("totals.sqlite");
    let read = || SqliteTotals::open_read_only(&path).unwrap().snapshot(&TotalsFilter::default()).unwrap();
    let mut book = written(&mut file);
    assert_eq!(read().totals.len(), 1);
    // A reader's open snapshot neither blocks the writer nor changes.
    let mut reader = SqliteTotals::open_read_only(&path).unwrap();
    let transaction = reader.reading().unwrap();
    assert_eq!(read::cursors(&transaction).unwrap()[0].next_offset, 1);
    book.commit(&[OwnedCommit { epoch: 1, commit: commit(0, 1, 2) }]).unwrap();
    assert_eq!(read::cursors(&transaction).unwrap()[0].next_offset, 1);
    drop(transaction);
    assert_eq!(read().cursors[0].next_offset, 2);
    drop(book);
    assert_eq!(read().cursors[0].next_offset, 2);
}

#[test]
fn a_reader_sees_what_a_killed_writer_left_in_the_wal() {
    let mut file = fresh();
    let book = written(&mut file);
    let copy = tempfile::tempdir().unwrap();
    // What a SIGKILL leaves: a main file without the commit, and the WAL with it.
    for name in ["totals.sqlite", "totals.sqlite-wal", "totals.sqlite-shm"] {
        std::fs::copy(file.0.path().join(name), copy.path().join(name)).unwrap();
    }
    drop(book);
    let path = copy.path().join("totals.sqlite");
    for leave_out in [&[][..], &["totals.sqlite-shm"]] {
        for name in leave_out {
            std::fs::remove_file(copy.path().join(name)).unwrap();
        }
        let snapshot = SqliteTotals::open_read_only(&path).unwrap().snapshot(&TotalsFilter::default()).unwrap();
        assert_eq!(snapshot.totals.len(), 1);
        assert!(copy.path().join("totals.sqlite-wal").exists(), "a reader does not move the WAL");
    }
    let snapshot = SqliteTotals::open(&path).unwrap().snapshot(&TotalsFilter::default()).unwrap();
    assert_eq!(snapshot.totals.len(), 1);
}

#[test]
fn a_newer_and_an_unfinished_schema_are_refused() {
    let mut file = fresh();
    let path = file.0.path().join("totals.sqlite");
    drop(file.open());
    for (version, found) in [("99", 99), ("0", 0)] {
        Connection::open(&path).unwrap().pragma_update(None, "user_version", version).unwrap();
        let error = SqliteTotals::open_read_only(&path).unwrap_err();
        assert!(matches!(&error, BookError::SchemaVersion { found: f, known: 3, .. } if *f == found), "{error}");
        if found == 99 {
            let error = SqliteTotals::open(&path).unwrap_err().to_string();
            assert!(error.contains("schema version 99, this build knows 3; use the newer build"), "{error}");
        }
    }
    std::fs::write(&path, "not a database at all, but long enough to look at").unwrap();
    assert!(SqliteTotals::open_read_only(&path).is_err());
}

#[test]
fn a_value_that_does_not_read_back_is_named() {
    let cases = [
        ("UPDATE period_totals SET quantity = '1.5'", "period_totals, row (a, m, 1000): column quantity holds \"1.5\""),
        ("UPDATE period_totals SET sum = ''", "column sum"),
        ("UPDATE period_totals SET digest = 'ff'", "column digest"),
        ("UPDATE period_totals SET aggregation = 'median'", "column aggregation"),
        ("UPDATE period_totals SET records = -1", "column records"),
        ("UPDATE partitions SET accepted = -5", "table partitions, row (0): column accepted"),
        ("UPDATE installation SET hash_seed = 'x'", "table installation"),
    ];
    for (tamper, named) in cases {
        let mut file = fresh();
        drop(written(&mut file));
        Connection::open(file.0.path().join("totals.sqlite")).unwrap().execute(tamper, []).unwrap();
        let error = file.open().snapshot(&TotalsFilter::default()).unwrap_err();
        assert!(error.to_string().contains(named), "{error}");
        assert!(!error.is_retryable());
    }
}
