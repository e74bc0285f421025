//! The totals book's seam: decisions of the aggregator go in, one transaction per
//! commit; what a partition's new owner, billing and the proof need comes out.
//!
//! The book is the truth about how far each partition has been decided. It never
//! adds anything up: every total, watermark and count arrives as an absolute value,
//! so a commit that was applied once and one that was sent twice look the same.
//!
//! | partition's row | answer to a commit of `[from, next)` under `epoch` |
//! | --- | --- |
//! | `epoch`, at `from` | applied |
//! | `epoch`, at `next` | applied before: `Ok`, nothing is written |
//! | anything else | [`CommitError::Fenced`]: stop and drop the state |

use std::ops::Range;

use odometer_schemas::commit::{ExceptionsRow, PartitionCommit, PartitionState, TotalRow};
use odometer_schemas::definitions::Definitions;
use odometer_schemas::digest::Hasher;
use odometer_schemas::quota::{AlertRow, QuotaRow};
use odometer_schemas::time::Interval;
use odometer_schemas::verdict::VerdictCounts;

use crate::error::BookError;

#[cfg(any(test, feature = "testing"))]
pub mod contract;
mod postgres;
mod rules;
mod sqlite;
mod values;

pub use postgres::PgTotals;
pub use sqlite::SqliteTotals;

/// What a book belongs to. It never changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installation {
    /// The log's own identity (Kafka: topic id).
    pub log_id: String,
    /// Partitions of the log.
    pub partitions: u32,
    /// Keys every fingerprint and digest.
    pub hash_seed: u64,
}

impl Installation {
    /// Makes the installation's hashes.
    #[must_use]
    pub fn hasher(&self) -> Hasher {
        Hasher::new(self.hash_seed)
    }
}

/// One partition's decisions and the epoch of the owner that made them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedCommit {
    /// The epoch that [`TotalsBook::claim`] gave.
    pub epoch: u64,
    /// What changed.
    pub commit: PartitionCommit,
}

/// What a node asks for to become a partition's only owner.
///
/// A node reads the cursors, makes sure that it is still assigned the partition, and
/// claims from the epoch that it read. A node that lost the partition in between
/// cannot raise the epoch over its successor's: the successor's claim has moved it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// The partition.
    pub partition: u32,
    /// The epoch that the caller found; zero for a partition that has no cursor yet.
    pub from_epoch: u64,
    /// Where the owner answers (its public URL), for other nodes; may be empty.
    pub owner: String,
}

/// How far one partition has been decided, and by whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartitionCursor {
    /// The partition.
    pub partition: u32,
    /// The epoch of its owner.
    pub epoch: u64,
    /// What the owner said of itself in its [`Claim`].
    pub owner: String,
    /// The next offset that the book needs.
    pub next_offset: u64,
    /// Log time there, Unix milliseconds.
    pub log_time_ms: i64,
    /// Absolute counts up to there.
    pub counts: VerdictCounts,
}

/// Which totals to read; every part that is given must match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TotalsFilter {
    /// Only this tenant's.
    pub tenant: Option<String>,
    /// Only this meter's.
    pub meter: Option<String>,
    /// Only these periods.
    pub period: Option<PeriodFilter>,
}

/// Which periods to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeriodFilter {
    /// Periods that start inside.
    StartsIn(Interval),
    /// Periods that share a millisecond with it.
    Overlaps(Interval),
}

impl PeriodFilter {
    /// Whether the period `[start_ms, end_ms)` is meant.
    #[must_use]
    pub fn matches(&self, start_ms: i64, end_ms: i64) -> bool {
        let (starts, end_above) = self.bounds();
        (starts.start.0..starts.end.0).contains(&start_ms) && end_ms > end_above
    }

    /// The starts that are meant, and what the end must lie above.
    fn bounds(&self) -> (Interval, i64) {
        match *self {
            Self::StartsIn(interval) => (interval, i64::MIN),
            Self::Overlaps(Interval { start, end }) => {
                (Interval { start: odometer_schemas::time::TimeMs(i64::MIN), end }, start.0)
            }
        }
    }
}

/// Whose alerts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AlertsOf {
    /// A partition's.
    Partition(u32),
    /// A tenant's, which are all of one partition.
    Tenant(String),
}

/// Which alerts to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlertFilter {
    /// Whose.
    pub of: AlertsOf,
    /// Only those that follow this one in their partition.
    pub after: Option<u64>,
    /// How many at most.
    pub most: Option<u32>,
}

impl AlertFilter {
    /// All alerts of one partition or tenant.
    #[must_use]
    pub fn all(of: AlertsOf) -> Self {
        Self { of, after: None, most: None }
    }
}

/// How far a channel has told of a partition's alerts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// The partition.
    pub partition: u32,
    /// [`AlertRow::sequence`] of the last that was told.
    pub sequence: u64,
}

/// Totals and cursors as they stood at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TotalsSnapshot {
    /// What the book belongs to.
    pub installation: Installation,
    /// The totals asked for, by (tenant, meter, period start).
    pub totals: Vec<TotalRow>,
    /// Every partition that was ever claimed, ascending.
    pub cursors: Vec<PartitionCursor>,
}

/// Why a commit was not applied. Nothing of it was.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// Another owner has the partition: stop, and drop its state.
    #[error(
        "partition {partition} is fenced: epoch {epoch} wanted to commit from offset {from_offset}, \
         the book is at epoch {found_epoch}, offset {found_offset}"
    )]
    Fenced {
        /// The partition.
        partition: u32,
        /// The epoch that tried.
        epoch: u64,
        /// Where its commit starts.
        from_offset: u64,
        /// The epoch in the book; zero when the partition was never claimed.
        found_epoch: u64,
        /// The next offset in the book.
        found_offset: u64,
    },
    /// The commit contradicts itself or another partition: our own bug, named
    /// before it reaches the book.
    #[error("the commit of partition {partition} up to offset {next_offset} is invalid: {problem}")]
    Invalid {
        /// The partition.
        partition: u32,
        /// Where the commit ends.
        next_offset: u64,
        /// What is wrong.
        problem: String,
    },
    /// The book failed.
    #[error(transparent)]
    Book(#[from] BookError),
}

impl CommitError {
    /// Whether the same commit may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Book(error) if error.is_retryable())
    }
}

/// The totals book. One handle serves one thread.
pub trait TotalsBook: Send {
    /// Records what the book belongs to the first time, and refuses anything else
    /// afterwards.
    ///
    /// # Errors
    /// [`BookError::Identity`] names both values.
    fn identity(&mut self, expected: &Installation) -> Result<(), BookError>;

    /// Makes the caller the partition's only owner: raises the epoch by one and gives
    /// back everything that was committed.
    ///
    /// # Errors
    /// [`BookError::EpochMoved`] when the epoch is not the one that the caller found:
    /// begin again with reading the cursors. [`BookError::OutOfRange`] for a partition
    /// that the installation does not have. After a retryable error the epoch may have
    /// been raised: begin again as well.
    fn claim(&mut self, claim: &Claim) -> Result<PartitionState, BookError>;

    /// Applies commits of several partitions in one transaction: all or nothing.
    ///
    /// # Errors
    /// [`CommitError::Fenced`] when a partition has another owner; a retryable error
    /// when the commit may or may not have been applied: repeat it as it is.
    fn commit(&mut self, commits: &[OwnedCommit]) -> Result<(), CommitError>;

    /// The totals asked for, by (tenant, meter, period start).
    ///
    /// # Errors
    /// When the book fails or a value does not read back.
    fn totals(&mut self, filter: &TotalsFilter) -> Result<Vec<TotalRow>, BookError>;

    /// Totals and all cursors, read at one moment.
    ///
    /// # Errors
    /// As [`TotalsBook::totals`]; [`BookError::NoInstallation`] when the book belongs
    /// to none yet.
    fn snapshot(&mut self, filter: &TotalsFilter) -> Result<TotalsSnapshot, BookError>;

    /// Every partition that was ever claimed, ascending.
    ///
    /// # Errors
    /// As [`TotalsBook::totals`].
    fn cursors(&mut self) -> Result<Vec<PartitionCursor>, BookError>;

    /// The exceptions of `partition` in a range of offsets, ascending.
    ///
    /// # Errors
    /// As [`TotalsBook::totals`].
    fn exceptions(&mut self, partition: u32, offsets: Range<u64>) -> Result<Vec<ExceptionsRow>, BookError>;

    /// The definitions in force for the records at `offset`: the latest that came at
    /// a lower offset.
    ///
    /// # Errors
    /// As [`TotalsBook::totals`].
    fn definitions_at(&mut self, partition: u32, offset: u64) -> Result<Option<Definitions>, BookError>;

    /// The alerts asked for, with their partitions, by sequence.
    ///
    /// # Errors
    /// As [`TotalsBook::totals`].
    fn alerts(&mut self, filter: &AlertFilter) -> Result<Vec<(u32, AlertRow)>, BookError>;

    /// How far `channel` has told of each partition's alerts, ascending; partitions of
    /// which it never told are not among them.
    ///
    /// # Errors
    /// As [`TotalsBook::totals`].
    fn told(&mut self, channel: &str) -> Result<Vec<Told>, BookError>;

    /// `channel` has told of a partition's alerts up to one of them. Never goes back:
    /// what an earlier owner says late changes nothing.
    ///
    /// # Errors
    /// When the book fails.
    fn tell(&mut self, channel: &str, told: Told) -> Result<(), BookError>;

    /// What tenants were given, each looked up in its partition: the rows of their terms;
    /// under the empty name, the partition's plans. In no order.
    ///
    /// # Errors
    /// As [`TotalsBook::totals`].
    fn given(&mut self, wanted: &[(u32, String)]) -> Result<Vec<QuotaRow>, BookError>;
}
