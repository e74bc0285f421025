//! The raw book's seam: every judged record and its rollups go in behind the totals
//! book's cursor; analysts, the query API and the proof read them.
//!
//! A raw row is a pure function of the log and the exceptions, so the book is never
//! asked what to write next: [`RawGatherer`] makes batches, and the book's own
//! cursors say where to go on. A batch moves its cursors only together with its rows.

use std::ops::ControlFlow;

use odometer_schemas::accumulator::{Accumulator, StateError};
use odometer_schemas::log::Position;
use odometer_schemas::meter::Aggregation;
use odometer_schemas::row::RawRow;
use odometer_schemas::time::TimeMs;
use odometer_schemas::verdict::Verdict;

use crate::error::BookError;

mod batch;
mod clickhouse;
#[cfg(any(test, feature = "testing"))]
pub mod contract;
mod gather;
mod intern;
mod judged;
mod rollup;
mod sqlite;
mod usage;

pub use batch::{CursorMove, RawBatch};
pub use clickhouse::{ClickHouseOptions, ClickHouseRaw, TableOptions};
pub use gather::{BATCH_BYTES_MAX, BATCH_ROWS_MAX, GatherError, RawGatherer};
pub use rollup::{RANGE_OFFSETS, range_start};
pub use sqlite::SqliteRaw;
pub(crate) use usage::UsageFold;
pub use usage::{USAGE_ROWS_MAX, UsageQuery, UsageRow, UsageWindow};

/// The next offset that the raw book needs of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RawCursor {
    /// The partition.
    pub partition: u32,
    /// Everything below was written.
    pub next_offset: u64,
}

/// One row of the rollups: what a range of offsets brought to one minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RollupRow<'a> {
    /// The minute's start, Unix milliseconds.
    pub window_start_ms: i64,
    /// Whose usage.
    pub tenant: &'a str,
    /// Of what.
    pub meter: &'a str,
    /// A JSON object of the dimensions that the meter keeps.
    pub dimensions: &'a str,
    /// The partition whose offsets these are.
    pub partition: u32,
    /// First offset of the aligned range.
    pub range_start: u64,
    /// Last offset of the range that was seen; the row's version.
    pub last_offset: u64,
    /// How the records add up.
    pub aggregation: Aggregation,
    /// The aggregated value in base units.
    pub quantity: i128,
    /// The sum of quantities, whatever the aggregation.
    pub sum: i128,
    /// Accepted records.
    pub records: u64,
    /// [`Accumulator::state`].
    pub state: &'a [u8],
}

impl RollupRow<'_> {
    /// What the row's records have become, ready to be merged with others.
    ///
    /// # Errors
    /// When the state does not fit the aggregation.
    pub fn accumulator(&self) -> Result<Accumulator, StateError> {
        Accumulator::restore(self.aggregation, self.records, self.sum, self.state)
    }
}

/// A log entry that could not be decoded, kept whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RejectedEnvelope {
    /// The partition.
    pub partition: u32,
    /// Its offset.
    pub offset: u64,
    /// When the log took it.
    pub append_time: TimeMs,
    /// Why it was rejected.
    pub verdict: Verdict,
    /// What the log holds there.
    pub bytes: Vec<u8>,
}

/// Which raw records to read, in log order; every part that is given must match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordFilter {
    /// Whose records.
    pub tenant: String,
    /// Only this id.
    pub id: Option<String>,
    /// Only this source.
    pub source: Option<String>,
    /// Only this meter.
    pub meter: Option<String>,
    /// Only event times from here on.
    pub from: Option<TimeMs>,
    /// Only event times before.
    pub to: Option<TimeMs>,
    /// Only this verdict's name (`accepted`, `rejected` …).
    pub verdict: Option<String>,
    /// Only positions after this one: the last of the page before.
    pub after: Option<Position>,
    /// At most so many.
    pub limit: usize,
}

/// Which undecodable log entries to read, in log order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RejectedFilter {
    /// Only this partition's.
    pub partition: Option<u32>,
    /// Only entries after this (partition, offset): the last of the page before.
    pub after: Option<(u32, u64)>,
    /// At most so many.
    pub limit: usize,
}

/// A raw row that owns its texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedRow {
    /// Whose usage.
    pub tenant: String,
    /// Of what.
    pub meter: String,
    /// Who produced it.
    pub source: String,
    /// The id as text.
    pub id: String,
    /// Whether the emitter made the id.
    pub id_emitted: bool,
    /// User, agent or API key.
    pub subject: Option<String>,
    /// Base units.
    pub quantity: i64,
    /// Event time.
    pub time: TimeMs,
    /// Whether the producer gave the time.
    pub time_given: bool,
    /// A JSON object of the dimensions.
    pub dimensions: String,
    /// The reservation that it draws down.
    pub reservation: Option<String>,
    /// Where it stands in the log.
    pub position: Position,
    /// Records in its envelope.
    pub envelope_records: u16,
    /// The decision.
    pub verdict: Verdict,
    /// When the log took it.
    pub append_time: TimeMs,
}

impl From<&RawRow<'_>> for OwnedRow {
    fn from(row: &RawRow<'_>) -> Self {
        Self {
            tenant: row.tenant.to_owned(),
            meter: row.meter.to_owned(),
            source: row.source.to_owned(),
            id: row.id.to_owned(),
            id_emitted: row.id_emitted,
            subject: row.subject.map(str::to_owned),
            quantity: row.quantity,
            time: TimeMs(row.time_ms),
            time_given: row.time_given,
            dimensions: row.dimensions.to_owned(),
            reservation: row.reservation.map(str::to_owned),
            position: row.position,
            envelope_records: row.envelope_records,
            verdict: row.verdict,
            append_time: TimeMs(row.append_time_ms),
        }
    }
}

/// What a scan finds where a row or rollup should be.
#[derive(Clone, Copy, Debug)]
pub enum Scanned<'a, T> {
    /// A value that reads back.
    Row(&'a T),
    /// One that does not.
    Unreadable {
        /// The table.
        table: &'static str,
        /// The row's key as text.
        key: &'a str,
        /// Column and problem.
        problem: &'a str,
    },
}

/// A value that does not read back is something to show, not the end of the scan.
fn show<T>(read: Result<T, BookError>, visit: impl FnOnce(Scanned<'_, T>)) -> Result<(), BookError> {
    match read {
        Ok(value) => visit(Scanned::Row(&value)),
        Err(BookError::Corrupt { table, key, column, problem }) => {
            let problem = format!("column {column} {problem}");
            visit(Scanned::Unreadable { table, key: &key, problem: &problem });
        }
        Err(other) => return Err(other),
    }
    Ok(())
}

/// Takes what a scan finds.
pub trait RawVisitor {
    /// First of all, once: the book's cursors. `Break` ends the scan.
    fn cursors(&mut self, cursors: &[RawCursor]) -> ControlFlow<()>;
    /// Every row by position, with the checksum stored beside it.
    fn row(&mut self, row: Scanned<'_, RawRow<'_>>, stored_hash: u64);
    /// Every undecodable log entry by position.
    fn rejected(&mut self, envelope: Scanned<'_, RejectedEnvelope>);
    /// Every rollup row.
    fn rollup(&mut self, rollup: Scanned<'_, RollupRow<'_>>);
}

/// The raw book. One handle serves one thread.
pub trait RawBook: Send {
    /// The cursors of all partitions that were ever written, ascending. Any other
    /// partition is at offset 0.
    ///
    /// # Errors
    /// When the book fails.
    fn cursors(&mut self) -> Result<Vec<RawCursor>, BookError>;

    /// Writes rows, rollups and undecodable entries, and moves the cursors when all
    /// of them are safe. A batch that was written before is known by its cursors.
    ///
    /// # Errors
    /// [`BookError::CursorMoved`] when a cursor stands elsewhere; a retryable error
    /// when the batch may or may not have been written: repeat it as it is.
    fn write(&mut self, batch: &RawBatch) -> Result<(), BookError>;

    /// Raw records with their verdicts, in log order.
    ///
    /// # Errors
    /// When the book fails or a value does not read back.
    fn records(&mut self, filter: &RecordFilter) -> Result<Vec<OwnedRow>, BookError>;

    /// Usage per window, from rollups only.
    ///
    /// # Errors
    /// [`BookError::OutOfRange`] when the answer has more than [`USAGE_ROWS_MAX`]
    /// rows.
    fn usage(&mut self, query: &UsageQuery) -> Result<Vec<UsageRow>, BookError>;

    /// Log entries that could not be decoded, in log order.
    ///
    /// # Errors
    /// As [`RawBook::records`].
    fn rejected(&mut self, filter: &RejectedFilter) -> Result<Vec<RejectedEnvelope>, BookError>;

    /// Shows the whole book, as it stood at one moment, to `visitor`.
    ///
    /// # Errors
    /// When the book fails; values that do not read back are shown as such.
    fn scan(&mut self, visitor: &mut dyn RawVisitor) -> Result<(), BookError>;
}
