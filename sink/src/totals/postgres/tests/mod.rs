//! The contract on a real server, and what only a server can do to a book.

mod broken;
mod large;
mod proxy;
mod races;

use odometer_schemas::commit::PartitionCommit;

use super::super::contract::{Storage, commit, installation, run, total};
use super::super::{CommitError, OwnedCommit, TotalsBook, TotalsFilter};
use super::*;
use crate::testing::postgres::PgDatabase;

impl Storage for PgDatabase {
    fn open(&mut self) -> Box<dyn TotalsBook> {
        Box::new(open(self))
    }
}

fn open(database: &PgDatabase) -> PgTotals {
    PgTotals::connect(database.url()).unwrap()
}

/// A book that belongs to the installation and whose partition 0 is at epoch 1.
fn claimed(database: &PgDatabase) -> PgTotals {
    let mut book = open(database);
    book.identity(&installation()).unwrap();
    book.claim(&Claim::default()).unwrap();
    book
}

fn owned(epoch: u64, commit: PartitionCommit) -> OwnedCommit {
    OwnedCommit { epoch, commit }
}

/// A book with one commit of one total.
fn written(database: &PgDatabase) -> PgTotals {
    let mut book = claimed(database);
    let commit = PartitionCommit { totals: vec![total("a", "m", 1)], ..commit(0, 0, 1) };
    book.commit(&[owned(1, commit)]).unwrap();
    book
}

#[test]
fn the_contract_holds() {
    run(PgDatabase::migrated);
}

#[test]
fn several_may_migrate_at_once_and_again() {
    let database = PgDatabase::empty();
    let error = PgTotals::connect(database.url()).unwrap_err();
    assert!(matches!(error, BookError::SchemaVersion { found: 0, known: 3, .. }), "{error}");
    assert!(error.to_string().contains("run `odometer migrate` first"), "{error}");
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| PgTotals::migrate(database.url()))).collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap().unwrap());
    });
    drop(written(&database));
    PgTotals::migrate(database.url()).unwrap();
    assert_eq!(open(&database).snapshot(&TotalsFilter::default()).unwrap().totals.len(), 1);
}

#[test]
fn a_newer_schema_is_refused() {
    let database = PgDatabase::migrated();
    database.execute("UPDATE totals_schema SET version = 99");
    for error in [PgTotals::connect(database.url()).unwrap_err(), PgTotals::migrate(database.url()).unwrap_err()] {
        assert!(error.to_string().contains("schema version 99, this build knows 3; use the newer build"), "{error}");
        assert!(!error.is_retryable());
    }
}

#[test]
fn a_database_that_cannot_hold_every_text_is_refused() {
    let database = PgDatabase::empty();
    let name = database.url().rsplit_once('/').unwrap().1;
    let latin = format!("{name}_latin");
    database.execute(&format!("CREATE DATABASE {latin} TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'"));
    let error = PgTotals::migrate(&format!("{}_latin", database.url())).unwrap_err();
    database.execute(&format!("DROP DATABASE {latin} WITH (FORCE)"));
    assert!(error.to_string().contains("LATIN1; make it with ENCODING 'UTF8'"), "{error}");
}

#[test]
fn a_reader_changes_nothing() {
    let database = PgDatabase::migrated();
    let mut book = written(&database);
    let mut reader = PgTotals::connect_read_only(database.url()).unwrap();
    assert_eq!(reader.totals(&TotalsFilter::default()).unwrap(), [total("a", "m", 1)]);
    assert!(matches!(reader.claim(&Claim { from_epoch: 1, ..Claim::default() }), Err(BookError::OutOfRange { .. })));
    let refused = reader.commit(&[owned(1, commit(0, 1, 2))]);
    assert!(matches!(refused, Err(CommitError::Book(BookError::OutOfRange { .. }))), "{refused:?}");
    book.commit(&[owned(1, commit(0, 1, 2))]).unwrap();
    assert_eq!(reader.cursors().unwrap()[0].next_offset, 2);
}

#[test]
fn an_answered_commit_is_durable_whatever_the_server_defaults_to() {
    let database = PgDatabase::migrated();
    let name = database.url().rsplit_once('/').unwrap().1;
    for (default, used) in [("off", "on"), ("local", "on"), ("remote_apply", "remote_apply")] {
        database.execute(&format!("ALTER DATABASE {name} SET synchronous_commit = '{default}'"));
        let found = open(&database).session.transaction(Isolation::Moment, "looking", async |link| {
            schema::one::<String>(link, "looking", "SHOW synchronous_commit").await
        });
        assert_eq!(found.unwrap(), used);
    }
}

#[test]
fn nothing_shows_the_password() {
    let database = PgDatabase::migrated();
    let book = PgTotals::connect(&database.url().replacen('@', ":secret@", 1)).unwrap();
    assert!(!format!("{book:?}").contains("secret"), "{book:?}");
    for url in
        ["postgres://user:secret@127.0.0.1:1/database", "mysql://user:secret@127.0.0.1/", "postgres://u:secret@[/"]
    {
        let error = PgTotals::connect(url).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
    }
    assert!(PgTotals::connect("postgres://user:secret@127.0.0.1:1/database").unwrap_err().is_retryable());
}

#[test]
fn people_read_periods_as_times() {
    let database = PgDatabase::migrated();
    let mut book = claimed(&database);
    let (period_start_ms, period_end_ms) = (1_735_689_600_000, 1_738_368_000_000);
    let totals = vec![TotalRow { period_start_ms, period_end_ms, ..total("a", "m", i128::MAX) }];
    book.commit(&[owned(1, PartitionCommit { totals, ..commit(0, 0, 1) })]).unwrap();
    let row = database.text(
        "SELECT tenant || ' ' || (period_start AT TIME ZONE 'UTC') || ' ' || (period_end AT TIME ZONE 'UTC') || ' '
             || quantity FROM period_totals_readable",
    );
    assert_eq!(row, "a 2025-01-01 00:00:00 2025-02-01 00:00:00 170141183460469231731687303715884105727");
}

#[test]
fn a_value_that_does_not_read_back_is_named() {
    let cases = [
        ("UPDATE period_totals SET quantity = 'NaN'", "period_totals, row (a, m, 1000): column quantity holds \"NaN\""),
        ("UPDATE period_totals SET sum = 1e38::numeric * 9", "column sum"),
        ("UPDATE period_totals SET digest = 'ff'", "column digest"),
        ("UPDATE period_totals SET aggregation = 'median'", "column aggregation"),
        ("UPDATE period_totals SET records = -1", "column records"),
        ("UPDATE partitions SET accepted = -5", "table partitions, row (0): column accepted"),
        ("UPDATE installation SET hash_seed = 'x'", "table installation"),
        (
            "DROP VIEW period_totals_readable; ALTER TABLE period_totals ALTER records TYPE text",
            "column records cannot be read",
        ),
    ];
    for (tamper, named) in cases {
        let database = PgDatabase::migrated();
        drop(written(&database));
        database.execute(tamper);
        let error = open(&database).snapshot(&TotalsFilter::default()).unwrap_err();
        assert!(error.to_string().contains(named), "{error}");
        assert!(!error.is_retryable());
    }
}
