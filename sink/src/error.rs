//! What can go wrong with a book, and whether trying again helps.

use std::path::PathBuf;

/// Why a book could not answer or keep something.
#[derive(Debug, thiserror::Error)]
pub enum BookError {
    /// The storage failed.
    #[error("the {book} failed while {doing}")]
    Storage {
        /// Which book.
        book: &'static str,
        /// What was being done.
        doing: &'static str,
        /// Whether the same call may succeed later.
        retryable: bool,
        /// The storage's own error.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A book that is only to be read is not there.
    #[error("there is no {book} at {}; start odometer on this data directory first", path.display())]
    Missing {
        /// Which book.
        book: &'static str,
        /// Where it was looked for.
        path: PathBuf,
    },
    /// A server has no tables for a book.
    #[error("there is no {book} at {place}; run `odometer migrate` first")]
    NotMigrated {
        /// Which book.
        book: &'static str,
        /// Which database of which server.
        place: String,
    },
    /// The book's schema is not the one that this build works with.
    #[error("the {book} at {} has schema version {found}, this build knows {known}; {fix}", path.display())]
    SchemaVersion {
        /// Which book.
        book: &'static str,
        /// Where it is.
        path: PathBuf,
        /// The version found.
        found: u32,
        /// The newest version that this build knows.
        known: u32,
        /// What to do.
        fix: &'static str,
    },
    /// The totals book belongs to no installation yet.
    #[error("the totals book belongs to no installation yet; start odometer on it first")]
    NoInstallation,
    /// The book belongs to another installation.
    #[error("the totals book was made for {field} {recorded}, not {expected}; use the data that belong together")]
    Identity {
        /// What differs.
        field: &'static str,
        /// What the book says.
        recorded: String,
        /// What was expected.
        expected: String,
    },
    /// A stored value does not read back.
    #[error("table {table}, row {key}: column {column} {problem}")]
    Corrupt {
        /// The table.
        table: &'static str,
        /// The row's key as text.
        key: String,
        /// The column.
        column: String,
        /// What is wrong with the value.
        problem: String,
    },
    /// Somebody else claimed the partition meanwhile.
    #[error("partition {partition} was to be claimed from epoch {wanted}, but is at epoch {found}; read it again")]
    EpochMoved {
        /// The partition.
        partition: u32,
        /// The epoch that the claim starts from.
        wanted: u64,
        /// The epoch in the book; zero when the partition was never claimed.
        found: u64,
    },
    /// Somebody else moved a raw cursor.
    #[error(
        "the raw book's cursor of partition {partition} is at {found}, not at {expected}; another writer is at work"
    )]
    CursorMoved {
        /// The partition.
        partition: u32,
        /// Where the batch starts.
        expected: u64,
        /// Where the book is.
        found: u64,
    },
    /// The question or the value is beyond what the book can hold or answer.
    #[error("{what}")]
    OutOfRange {
        /// What, the limit and the fix.
        what: String,
    },
}

impl BookError {
    /// Whether the same call may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Storage { retryable: true, .. })
    }

    pub(crate) fn out_of_range(what: impl Into<String>) -> Self {
        Self::OutOfRange { what: what.into() }
    }
}
