//! Where the books are kept, for whoever only reads them: queries, proofs, commands.

use odometer_sink::BookError;
use odometer_sink::raw::{RawBook, SqliteRaw};
use odometer_sink::totals::{SqliteTotals, TotalsBook};

use crate::node::files::Files;

/// The place of both books.
#[derive(Clone, Debug)]
pub(crate) enum BookPlace {
    /// SQLite files of one data directory.
    Files(Files),
}

impl BookPlace {
    /// The totals book, read only.
    pub(crate) fn totals(&self) -> Result<Box<dyn TotalsBook>, BookError> {
        match self {
            Self::Files(files) => Ok(Box::new(SqliteTotals::open_read_only(&files.totals())?)),
        }
    }

    /// The raw book, read only.
    pub(crate) fn raw(&self) -> Result<Box<dyn RawBook>, BookError> {
        match self {
            Self::Files(files) => Ok(Box::new(SqliteRaw::open_read_only(&files.raw())?)),
        }
    }
}
