//! The proof over a totals book on PostgreSQL.

use super::*;
use crate::testing::postgres::PgDatabase;
use crate::totals::{PgTotals, TotalsBook, TotalsFilter};

#[test]
fn the_proof_holds_whatever_keeps_the_totals() {
    let database = PgDatabase::migrated();
    let books = Books::agreeing();
    let mut writer = PgTotals::connect(database.url()).unwrap();
    books.count_into(&mut writer);
    let mut totals: Box<dyn TotalsBook> = Box::new(PgTotals::connect_read_only(database.url()).unwrap());
    for scope in [VerifyScope::default(), VerifyScope { tenant: Some(tenant(0)), period: parse_month("2023-11") }] {
        assert_eq!(books.report_of(&mut *totals, &scope), books.report(&scope));
        assert_eq!(books.report(&scope).exit_code(), 0);
    }
    let mut sqlite = SqliteTotals::open_read_only(&books.path("totals")).unwrap();
    let filter = TotalsFilter::default();
    assert_eq!(totals.snapshot(&filter).unwrap(), sqlite.snapshot(&filter).unwrap());
}

#[test]
fn what_was_changed_in_postgresql_is_named() {
    let database = PgDatabase::migrated();
    let books = Books::agreeing();
    let mut totals = PgTotals::connect(database.url()).unwrap();
    books.count_into(&mut totals);
    for tamper in [
        "UPDATE period_totals SET quantity = quantity + 1 WHERE meter = 'max'",
        "DELETE FROM period_totals WHERE meter = 'avg'",
        "UPDATE partitions SET accepted = accepted + 1, received = received + 1 WHERE partition = 1",
    ] {
        database.execute(tamper);
        let report = books.report_of(&mut totals, &VerifyScope::default());
        assert_eq!(report.exit_code(), 1, "{tamper}");
    }
}
