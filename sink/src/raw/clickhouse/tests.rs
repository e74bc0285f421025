//! Needs a ClickHouse server: `ODOMETER_TEST_CLICKHOUSE`.

use super::super::contract::{Storage, run};
use super::*;

/// A database of its own, gone afterwards.
struct Database(ClickHouseOptions);

impl Database {
    fn fresh() -> Self {
        let url = std::env::var("ODOMETER_TEST_CLICKHOUSE").unwrap_or_else(|_| {
            panic!("ODOMETER_TEST_CLICKHOUSE is not set: run `eval \"$(dev/services env)\"` after `dev/services up`")
        });
        let database = format!("odometer_test_{:032x}", unique());
        let options = ClickHouseOptions { url, database, user: "default".to_owned(), password: String::new() };
        ClickHouseRaw::migrate(&options, &TableOptions::default()).unwrap();
        Self(options)
    }

    fn book(&self) -> ClickHouseRaw {
        ClickHouseRaw::connect(&self.0).unwrap()
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

#[test]
fn the_contract_holds() {
    run(Database::fresh);
}
