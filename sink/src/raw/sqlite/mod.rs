//! The raw book in one SQLite file: WAL, synchronous=FULL, one transaction per batch.
//! Rows are clustered by their place in the log, so writing appends and the proof
//! reads in order.

mod blocks;
mod read;
mod records;
mod scan;
mod write;

#[cfg(test)]
mod tests;

use std::path::Path;

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::{
    OwnedRow, RawBatch, RawBook, RawCursor, RawVisitor, RecordFilter, RejectedEnvelope, RejectedFilter, UsageFold,
    UsageQuery, UsageRow,
};
use crate::error::BookError;
use crate::sqlite::BookFile;

const FILE: BookFile = BookFile {
    book: "raw book",
    migrations: &[include_str!("../../../../schemas/migrations/sqlite/raw_1.sql")],
    // Larger pages split less often; a batch stays in the cache; a long WAL copies a page back once instead of once per batch.
    pragmas: "PRAGMA page_size = 8192; PRAGMA cache_size = -131072; PRAGMA wal_autocheckpoint = 8192;",
};

/// The raw book in a SQLite file.
#[derive(Debug)]
pub struct SqliteRaw {
    connection: Connection,
}

impl SqliteRaw {
    /// Opens the book at `path` for its one writer, and makes it if it is not there.
    ///
    /// # Errors
    /// [`BookError::SchemaVersion`] when a newer build made it.
    pub fn open(path: &Path) -> Result<Self, BookError> {
        FILE.open(path).map(|connection| Self { connection })
    }

    /// Opens the book at `path` to read it, beside a running process or on a stopped
    /// one, and never makes it.
    ///
    /// # Errors
    /// [`BookError::Missing`] when it is not there.
    pub fn open_read_only(path: &Path) -> Result<Self, BookError> {
        FILE.open_read_only(path).map(|connection| Self { connection })
    }

    /// A transaction that reads one moment.
    fn reading(&mut self) -> Result<Transaction<'_>, BookError> {
        self.connection.transaction_with_behavior(TransactionBehavior::Deferred).map_err(FILE.failed("reading"))
    }
}

impl RawBook for SqliteRaw {
    fn cursors(&mut self) -> Result<Vec<RawCursor>, BookError> {
        read::cursors(&self.connection)
    }

    fn write(&mut self, batch: &RawBatch) -> Result<(), BookError> {
        const DOING: &str = "writing a batch";
        let transaction =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(FILE.failed(DOING))?;
        if write::batch(&transaction, batch)? {
            transaction.commit().map_err(FILE.failed(DOING))?;
        }
        Ok(())
    }

    fn records(&mut self, filter: &RecordFilter) -> Result<Vec<OwnedRow>, BookError> {
        let transaction = self.reading()?;
        records::find(&transaction, filter)
    }

    fn usage(&mut self, query: &UsageQuery) -> Result<Vec<UsageRow>, BookError> {
        let transaction = self.reading()?;
        let mut fold = UsageFold::new(query);
        read::rollups_of(&transaction, query, &mut fold)?;
        Ok(fold.finish())
    }

    fn rejected(&mut self, filter: &RejectedFilter) -> Result<Vec<RejectedEnvelope>, BookError> {
        read::rejected(&self.connection, filter)
    }

    fn scan(&mut self, visitor: &mut dyn RawVisitor) -> Result<(), BookError> {
        let transaction = self.reading()?;
        scan::all(&transaction, visitor)
    }
}
