//! Needs a ClickHouse server: `ODOMETER_TEST_CLICKHOUSE`. Each test has a database of
//! its own.

mod reading;
mod same;
mod schema;
mod writing;

use serde::Deserialize;

use super::super::contract::{Storage, run};
use super::*;
use crate::testing::{entry, record};
use odometer_schemas::log::LogEntry;

/// A database of its own, gone afterwards.
struct Database(ClickHouseOptions);

impl Database {
    /// One without tables, which is not even there.
    fn missing() -> Self {
        let url = std::env::var("ODOMETER_TEST_CLICKHOUSE").unwrap_or_else(|_| {
            panic!("ODOMETER_TEST_CLICKHOUSE is not set: run `eval \"$(dev/services env)\"` after `dev/services up`")
        });
        let database = format!("odometer_test_{:032x}", unique());
        Self(ClickHouseOptions { url, database, user: "default".to_owned(), password: String::new() })
    }

    fn fresh() -> Self {
        let database = Self::missing();
        database.migrate(TableOptions::default()).unwrap();
        database
    }

    fn migrate(&self, tables: TableOptions) -> Result<(), BookError> {
        ClickHouseRaw::migrate(&self.0, &tables)
    }

    fn book(&self) -> ClickHouseRaw {
        ClickHouseRaw::connect(&self.0).unwrap()
    }

    /// Runs SQL as somebody else would.
    fn run(&self, sql: &str) {
        Link::new(&self.0, &self.0.database).unwrap().execute("tampering", sql).unwrap();
    }

    /// One column of an answer, as text; `NULL` where there is nothing.
    fn answers(&self, sql: &str) -> Vec<String> {
        #[derive(clickhouse::Row, Deserialize)]
        struct Answer {
            answer: String,
        }
        let link = Link::new(&self.0, &self.0.database).unwrap();
        let query = link.query(&format!("SELECT ifNull(toString(answer), 'NULL') AS answer FROM ({sql})"));
        let mut answers = Vec::new();
        link.each::<Answer>("asking", query, |row| {
            answers.push(row.answer);
            Ok(())
        })
        .unwrap();
        answers
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let link = Link::new(&self.0, "default").unwrap();
        let dropped = link.execute("cleaning up", &format!("DROP DATABASE IF EXISTS {} SYNC", self.0.database));
        if let Err(error) = dropped {
            eprintln!("{error}");
        }
    }
}

impl Storage for Database {
    fn open(&mut self) -> Box<dyn RawBook> {
        Box::new(self.book())
    }
}

/// A number that no other test has, in this process or another.
fn unique() -> u128 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let random = || u128::from(RandomState::new().build_hasher().finish());
    random() << 64 | random()
}

/// An entry of one record.
fn one(offset: u64) -> LogEntry {
    entry(0, offset, &[record("t", "sum", &format!("id-{offset}"), 1, 0)])
}

fn of_tenant(tenant: &str) -> RecordFilter {
    RecordFilter { tenant: tenant.to_owned(), limit: 1000, ..RecordFilter::default() }
}

#[test]
fn the_contract_holds() {
    run(Database::fresh);
}
