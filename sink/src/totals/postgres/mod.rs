//! The totals book in PostgreSQL: one transaction per commit, whose answer comes only
//! once the server has it durably.
//!
//! Writes run under READ COMMITTED and begin by locking the rows of their partitions,
//! in ascending order. Whoever holds a partition's row is alone with the partition:
//! every later statement sees all that earlier holders committed, and nobody can add
//! to it before the transaction ends. A stricter level would see the past instead, and
//! fail where waiting is enough. Reads run under REPEATABLE READ, so that all of one
//! answer comes from one moment.
//!
//! Reading path: [`session`] (a connection that comes back) → [`apply`] (commits in) →
//! [`read`] (checked rows out). It needs sessions of its own: no pooler that hands a
//! server connection on between transactions.

mod alerts;
mod apply;
mod columns;
mod failure;
mod quota;
mod read;
mod schema;
mod session;
#[cfg(test)]
mod tests;

use std::ops::Range;

use odometer_schemas::commit::{ExceptionsRow, PartitionState, TotalRow};
use odometer_schemas::definitions::Definitions;
use odometer_schemas::quota::{AlertRow, QuotaRow};

use self::session::{Access, Isolation, Session};
use super::rules::checked;
use super::{
    AlertFilter, Claim, CommitError, Installation, OwnedCommit, PartitionCursor, Told, TotalsBook, TotalsFilter,
    TotalsSnapshot,
};
use crate::error::BookError;

/// The totals book in a PostgreSQL database.
///
/// A synchronous handle over a runtime of its own: call it from a thread that may
/// block, never from inside of an asynchronous task.
#[derive(Debug)]
pub struct PgTotals {
    session: Session,
}

impl PgTotals {
    /// Opens the book in the database at `url` (`postgres://user@host:port/database`)
    /// for a node that commits. Once open, the handle connects again by itself whenever
    /// the server was gone.
    ///
    /// # Errors
    /// [`BookError::SchemaVersion`] unless [`PgTotals::migrate`] of this build was run;
    /// a retryable error while the server cannot be reached.
    pub fn connect(url: &str) -> Result<Self, BookError> {
        Session::open(url, Access::Write).map(|session| Self { session })
    }

    /// Opens the book for reading only: the server refuses every change.
    ///
    /// # Errors
    /// As [`PgTotals::connect`].
    pub fn connect_read_only(url: &str) -> Result<Self, BookError> {
        Session::open(url, Access::Read).map(|session| Self { session })
    }

    /// Makes the book's tables in the database at `url`, or brings them up to date.
    /// Several at once wait for each other.
    ///
    /// # Errors
    /// [`BookError::SchemaVersion`] when a newer build made them;
    /// [`BookError::OutOfRange`] when the database cannot hold every text.
    pub fn migrate(url: &str) -> Result<(), BookError> {
        schema::migrate(&mut Session::unchecked(url)?)
    }
}

impl TotalsBook for PgTotals {
    fn identity(&mut self, expected: &Installation) -> Result<(), BookError> {
        self.session.transaction(Isolation::Write, "recording what it belongs to", async |link| {
            apply::identity(link, expected).await
        })
    }

    fn claim(&mut self, claim: &Claim) -> Result<PartitionState, BookError> {
        self.session.transaction(Isolation::Write, "claiming a partition", async |link| {
            apply::claim(link, claim).await?;
            read::partition_state(link, claim.partition).await
        })
    }

    fn commit(&mut self, commits: &[OwnedCommit]) -> Result<(), CommitError> {
        let commits = checked(commits)?;
        if commits.is_empty() {
            return Ok(());
        }
        self.session
            .transaction(Isolation::Write, "committing decisions", async |link| apply::commits(link, &commits).await)
    }

    fn totals(&mut self, filter: &TotalsFilter) -> Result<Vec<TotalRow>, BookError> {
        self.session
            .transaction(Isolation::Moment, "reading totals", async |link| read::totals(link, filter, None).await)
    }

    fn snapshot(&mut self, filter: &TotalsFilter) -> Result<TotalsSnapshot, BookError> {
        self.session.transaction(Isolation::Moment, "reading a snapshot", async |link| {
            Ok(TotalsSnapshot {
                installation: read::installation(link).await?.ok_or(BookError::NoInstallation)?,
                totals: read::totals(link, filter, None).await?,
                cursors: read::cursors(link).await?,
            })
        })
    }

    fn cursors(&mut self) -> Result<Vec<PartitionCursor>, BookError> {
        self.session.transaction(Isolation::Moment, "reading cursors", async |link| read::cursors(link).await)
    }

    fn exceptions(&mut self, partition: u32, offsets: Range<u64>) -> Result<Vec<ExceptionsRow>, BookError> {
        self.session.transaction(Isolation::Moment, "reading exceptions", async |link| {
            read::exceptions(link, partition, &offsets).await
        })
    }

    fn definitions_at(&mut self, partition: u32, offset: u64) -> Result<Option<Definitions>, BookError> {
        self.session.transaction(Isolation::Moment, "reading definitions", async |link| {
            read::definitions_at(link, partition, offset).await
        })
    }

    fn alerts(&mut self, filter: &AlertFilter) -> Result<Vec<(u32, AlertRow)>, BookError> {
        self.session.transaction(Isolation::Moment, "reading alerts", async |link| alerts::read(link, filter).await)
    }

    fn told(&mut self, channel: &str) -> Result<Vec<Told>, BookError> {
        self.session
            .transaction(Isolation::Moment, "reading what was told", async |link| alerts::told(link, channel).await)
    }

    fn tell(&mut self, channel: &str, told: Told) -> Result<(), BookError> {
        self.session.transaction(Isolation::Write, "recording what was told", async |link| {
            alerts::tell(link, channel, told).await
        })
    }

    fn given(&mut self, wanted: &[(u32, String)]) -> Result<Vec<QuotaRow>, BookError> {
        self.session.transaction(Isolation::Moment, "reading what tenants were given", async |link| {
            quota::given(link, wanted).await
        })
    }
}
