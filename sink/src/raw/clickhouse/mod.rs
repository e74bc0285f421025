//! The raw book on ClickHouse, over its HTTP interface.
//!
//! The engine has no transactions and no compare-and-swap. What stands in for them:
//! every row replaces itself, every insert is confirmed by what the engine then holds,
//! and a cursor only grows, after everything below it was confirmed. It never relies on
//! the engine's own suppression of repeated inserts.
//!
//! Reading path: `write` (one batch) → `pieces` (its blocks) → `block` (their bytes);
//! `read` and `scan` for the other direction; `link` is the only way to the engine.

mod block;
mod http;
mod link;
mod migrate;
mod pieces;
mod read;
mod scan;
mod write;

#[cfg(test)]
mod tests;

pub use migrate::TableOptions;

use super::{
    OwnedRow, RawBatch, RawBook, RawCursor, RawVisitor, RecordFilter, RejectedEnvelope, RejectedFilter, UsageFold,
    UsageQuery, UsageRow,
};
use crate::error::BookError;
use link::Link;

/// The book's name in errors.
const BOOK: &str = "raw book";

/// Where the book is.
#[derive(Clone, PartialEq, Eq)]
pub struct ClickHouseOptions {
    /// The server's HTTP interface, such as `http://127.0.0.1:8123`.
    pub url: String,
    /// The database that holds the book's tables.
    pub database: String,
    /// Who asks.
    pub user: String,
    /// The user's password; may be empty.
    pub password: String,
}

impl std::fmt::Debug for ClickHouseOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { url, database, user, .. } = self;
        f.debug_struct("ClickHouseOptions").field("url", url).field("database", database).field("user", user).finish()
    }
}

/// The raw book in a ClickHouse database. Calls wait for their answers, so they must not
/// be made from async code.
#[derive(Debug)]
pub struct ClickHouseRaw {
    link: Link,
    /// Whether an attempt to write ended without being known to have failed whole.
    doubtful: bool,
}

impl ClickHouseRaw {
    /// Opens the book.
    ///
    /// # Errors
    /// [`BookError::NotMigrated`] when its tables are not there,
    /// [`BookError::SchemaVersion`] when another build made them; a retryable error when
    /// the engine does not answer.
    pub fn connect(options: &ClickHouseOptions) -> Result<Self, BookError> {
        let link = Link::new(options, &options.database)?;
        migrate::check_version(&link)?;
        Ok(Self { link, doubtful: false })
    }

    /// Makes the database and the book's tables, or brings them up to date. It may run
    /// again at any time.
    ///
    /// # Errors
    /// [`BookError::SchemaVersion`] when a newer build made them; a retryable error when
    /// the engine does not answer.
    pub fn migrate(options: &ClickHouseOptions, tables: &TableOptions) -> Result<(), BookError> {
        migrate::migrate(options, tables)
    }
}

impl RawBook for ClickHouseRaw {
    fn cursors(&mut self) -> Result<Vec<RawCursor>, BookError> {
        read::cursors(&self.link)
    }

    fn write(&mut self, batch: &RawBatch) -> Result<(), BookError> {
        write::batch(&self.link, batch, &mut self.doubtful)
    }

    fn records(&mut self, filter: &RecordFilter) -> Result<Vec<OwnedRow>, BookError> {
        read::records(&self.link, filter)
    }

    fn usage(&mut self, query: &UsageQuery) -> Result<Vec<UsageRow>, BookError> {
        let mut fold = UsageFold::new(query);
        read::rollups_of(&self.link, query, &mut fold)?;
        Ok(fold.finish())
    }

    fn rejected(&mut self, filter: &RejectedFilter) -> Result<Vec<RejectedEnvelope>, BookError> {
        read::rejected(&self.link, filter)
    }

    fn scan(&mut self, visitor: &mut dyn RawVisitor) -> Result<(), BookError> {
        scan::all(&self.link, visitor)
    }
}
