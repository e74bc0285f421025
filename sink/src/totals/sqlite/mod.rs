//! The totals book in one SQLite file: WAL, synchronous=FULL, one transaction per
//! commit. Durable against SIGKILL and power loss once a commit has returned.

mod alerts;
mod apply;
mod quota;
mod read;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::path::Path;

use odometer_schemas::commit::{ExceptionsRow, PartitionState, TotalRow};
use odometer_schemas::definitions::Definitions;
use odometer_schemas::quota::{AlertRow, QuotaRow};
use rusqlite::{Connection, Transaction, TransactionBehavior, params};

use super::rules::{checked, claimed_epoch, same_installation};
use super::{
    AlertFilter, Claim, CommitError, Installation, OwnedCommit, PartitionCursor, Told, TotalsBook, TotalsFilter,
    TotalsSnapshot,
};
use crate::error::BookError;
use crate::sqlite::BookFile;

const FILE: BookFile = BookFile {
    book: "totals book",
    migrations: &[
        include_str!("../../../../schemas/migrations/sqlite/totals_1.sql"),
        include_str!("../../../../schemas/migrations/sqlite/totals_2.sql"),
        include_str!("../../../../schemas/migrations/sqlite/totals_3.sql"),
    ],
    // A row of sixteen usual reservations, about 1.84 KB, stays below what SQLite keeps of a
    // record within its page, just under a quarter; in pages of 4 KiB each took an overflow
    // page more, mostly empty. A book that is there keeps its pages. A commit of
    // 100,000 totals touched some 30 MB of the smaller pages; even twice that stays in memory.
    pragmas: "PRAGMA page_size = 8192; PRAGMA cache_size = -65536;",
};

/// The totals book in a SQLite file.
#[derive(Debug)]
pub struct SqliteTotals {
    connection: Connection,
}

impl SqliteTotals {
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

    /// A transaction that will write: it takes the write lock at once, so that what
    /// it reads first stays true.
    fn writing(&mut self, doing: &'static str) -> Result<Transaction<'_>, BookError> {
        self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(FILE.failed(doing))
    }
}

impl TotalsBook for SqliteTotals {
    fn identity(&mut self, expected: &Installation) -> Result<(), BookError> {
        const DOING: &str = "recording what it belongs to";
        let transaction = self.writing(DOING)?;
        match read::installation(&transaction)? {
            Some(recorded) => return same_installation(&recorded, expected),
            None => transaction
                .execute(
                    "INSERT INTO installation (only_row, log_id, partitions, hash_seed) VALUES (1, ?, ?, ?)",
                    params![expected.log_id, expected.partitions, format!("{:016x}", expected.hash_seed)],
                )
                .map_err(FILE.failed(DOING))?,
        };
        transaction.commit().map_err(FILE.failed(DOING))
    }

    fn claim(&mut self, claim: &Claim) -> Result<PartitionState, BookError> {
        const DOING: &str = "claiming a partition";
        let transaction = self.writing(DOING)?;
        let installation = read::installation(&transaction)?.ok_or(BookError::NoInstallation)?;
        let epoch = claimed_epoch(&installation, claim)?;
        let found = read::standing(&transaction, claim.partition)?.unwrap_or_default().epoch;
        if found != claim.from_epoch {
            return Err(BookError::EpochMoved { partition: claim.partition, wanted: claim.from_epoch, found });
        }
        transaction
            .execute(
                "INSERT INTO partitions VALUES (?, ?, ?, 0, 0, 0, 0, 0, 0, 0, 0, NULL)
                 ON CONFLICT (partition) DO UPDATE SET epoch = excluded.epoch, owner = excluded.owner",
                params![claim.partition, epoch, claim.owner],
            )
            .map_err(FILE.failed(DOING))?;
        let state = read::partition_state(&transaction, claim.partition)?;
        transaction.commit().map_err(FILE.failed(DOING))?;
        Ok(state)
    }

    fn commit(&mut self, commits: &[OwnedCommit]) -> Result<(), CommitError> {
        const DOING: &str = "committing decisions";
        let commits = checked(commits)?;
        let transaction = self.writing(DOING)?;
        for owned in commits {
            apply::commit(&transaction, owned)?;
        }
        transaction.commit().map_err(|e| FILE.failed(DOING)(e).into())
    }

    fn totals(&mut self, filter: &TotalsFilter) -> Result<Vec<TotalRow>, BookError> {
        read::totals(&self.connection, filter)
    }

    fn snapshot(&mut self, filter: &TotalsFilter) -> Result<TotalsSnapshot, BookError> {
        let transaction = self.reading()?;
        Ok(TotalsSnapshot {
            installation: read::installation(&transaction)?.ok_or(BookError::NoInstallation)?,
            totals: read::totals(&transaction, filter)?,
            cursors: read::cursors(&transaction)?,
        })
    }

    fn cursors(&mut self) -> Result<Vec<PartitionCursor>, BookError> {
        read::cursors(&self.connection)
    }

    fn exceptions(&mut self, partition: u32, offsets: Range<u64>) -> Result<Vec<ExceptionsRow>, BookError> {
        read::exceptions(&self.connection, partition, &offsets)
    }

    fn definitions_at(&mut self, partition: u32, offset: u64) -> Result<Option<Definitions>, BookError> {
        read::definitions_at(&self.connection, partition, offset)
    }

    fn alerts(&mut self, filter: &AlertFilter) -> Result<Vec<(u32, AlertRow)>, BookError> {
        alerts::read(&self.connection, filter)
    }

    fn told(&mut self, channel: &str) -> Result<Vec<Told>, BookError> {
        alerts::told(&self.connection, channel)
    }

    fn tell(&mut self, channel: &str, told: Told) -> Result<(), BookError> {
        alerts::tell(&self.connection, channel, told)
    }

    fn given(&mut self, wanted: &[(u32, String)]) -> Result<Vec<QuotaRow>, BookError> {
        quota::given(&self.connection, wanted)
    }
}
