//! Where the books are kept, for whoever only reads them: queries, proofs, commands.

use odometer_sink::BookError;
use odometer_sink::raw::{ClickHouseOptions, ClickHouseRaw, RawBook, SqliteRaw};
use odometer_sink::totals::{PgTotals, SqliteTotals, TotalsBook};

use crate::node::files::Files;

/// The place of both books.
#[derive(Clone)]
pub(crate) enum BookPlace {
    /// SQLite files of one data directory.
    Files(Files),
    /// Servers that other nodes use too.
    Servers(Servers),
}

/// PostgreSQL and ClickHouse. Holds passwords, so it is never shown.
#[derive(Clone)]
pub(crate) struct Servers {
    pub(crate) postgres: String,
    pub(crate) clickhouse: ClickHouseOptions,
}

impl BookPlace {
    /// The totals book, read only.
    pub(crate) fn totals(&self) -> Result<Box<dyn TotalsBook>, BookError> {
        match self {
            Self::Files(files) => Ok(Box::new(SqliteTotals::open_read_only(&files.totals())?)),
            Self::Servers(servers) => Ok(Box::new(PgTotals::connect_read_only(&servers.postgres)?)),
        }
    }

    /// The raw book, read only.
    pub(crate) fn raw(&self) -> Result<Box<dyn RawBook>, BookError> {
        match self {
            Self::Files(files) => Ok(Box::new(SqliteRaw::open_read_only(&files.raw())?)),
            Self::Servers(servers) => Ok(Box::new(ClickHouseRaw::connect(&servers.clickhouse)?)),
        }
    }
}
