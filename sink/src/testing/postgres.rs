//! Databases of tests' own on the PostgreSQL server that `dev/services` runs.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection};
use tokio::runtime::{Builder, Runtime};

use crate::totals::PgTotals;

const VARIABLE: &str = "ODOMETER_TEST_POSTGRES";

/// An empty database with a random name, dropped with the value.
#[derive(Debug)]
pub struct PgDatabase {
    server_url: String,
    url: String,
    name: String,
}

impl PgDatabase {
    /// Makes a database without tables.
    ///
    /// # Panics
    /// Without a server: `ODOMETER_TEST_POSTGRES` names it.
    #[must_use]
    pub fn empty() -> Self {
        let server_url = std::env::var(VARIABLE).unwrap_or_else(|_| {
            panic!("{VARIABLE} is not set: run `eval \"$(dev/services env)\"` after `dev/services up`")
        });
        let name = format!("odometer_test_{:016x}", RandomState::new().hash_one("a database"));
        run(&server_url, format!("CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'"));
        let (server, _) = server_url.rsplit_once('/').expect("a URL names a database");
        let url = format!("{server}/{name}");
        Self { url, server_url, name }
    }

    /// Makes a database with the totals book's tables.
    ///
    /// # Panics
    /// As [`PgDatabase::empty`].
    #[must_use]
    pub fn migrated() -> Self {
        let database = Self::empty();
        PgTotals::migrate(&database.url).expect("an empty database takes the tables");
        database
    }

    /// Where the database is.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The same database through another port of 127.0.0.1.
    #[must_use]
    pub fn url_through(&self, port: u16) -> String {
        let (scheme, rest) = self.url.split_once("://").expect("a URL");
        let (user, _) = rest.rsplit_once('@').unwrap_or(("odometer", rest));
        format!("{scheme}://{user}@127.0.0.1:{port}/{}?sslmode=disable", self.name)
    }

    /// Host and port of the server.
    #[must_use]
    pub fn address(&self) -> &str {
        let (_, rest) = self.url.split_once("://").expect("a URL");
        let (server, _) = rest.split_once('/').expect("a URL with a database");
        server.rsplit_once('@').map_or(server, |(_, address)| address)
    }

    /// Runs statements in the database.
    ///
    /// # Panics
    /// When one fails.
    pub fn execute(&self, sql: &str) {
        run(&self.url, sql.to_owned());
    }

    /// The only column of the only row that a query gives, which must be text.
    ///
    /// # Panics
    /// When it gives something else.
    #[must_use]
    pub fn text(&self, sql: &str) -> String {
        runtime().block_on(async {
            let mut connection = PgConnection::connect(&self.url).await.expect("the test server answers");
            let query = sqlx::query_scalar(AssertSqlSafe(sql.to_owned()));
            query.fetch_one(&mut connection).await.expect("the query gives one text")
        })
    }

    /// Ends every other connection to the database, as a restart of the server does.
    pub fn disconnect_all(&self) {
        self.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE datname = current_database() AND pid <> pg_backend_pid()",
        );
    }
}

impl Drop for PgDatabase {
    fn drop(&mut self) {
        run(&self.server_url, format!("DROP DATABASE {} WITH (FORCE)", self.name));
    }
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn run(url: &str, sql: String) {
    runtime().block_on(async {
        let mut connection = PgConnection::connect(url).await.expect("the test server answers");
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.expect("the statements run");
    });
}
