//! What a proof can find, one value per finding, each shown as one clear line.

use odometer_schemas::log::Position;
use odometer_schemas::time::TimeMs;

/// Differences that are kept with their details. All are counted; nobody reads more.
pub const DIFFERENCES_KEPT_MAX: usize = 1000;

/// One way in which the books contradict each other or themselves.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Difference {
    /// A stored value does not read back.
    #[error("table {table}, row {key}: {problem}")]
    Unreadable {
        /// The table.
        table: &'static str,
        /// The row's key.
        key: String,
        /// Column and problem.
        problem: String,
    },
    /// A row is not what was written.
    #[error("row {position} of tenant {tenant}: its checksum is {stored:016x}, its columns give {computed:016x}")]
    Checksum {
        /// The row.
        position: Position,
        /// Its tenant, as it stands.
        tenant: String,
        /// The checksum stored with it.
        stored: u64,
        /// The checksum of its columns.
        computed: u64,
    },
    /// A row's id is not what an emitter makes, though it says so, or its dimensions
    /// are no JSON object.
    #[error("row {position} of tenant {tenant}: its {column} cannot be hashed")]
    Unhashable {
        /// The row.
        position: Position,
        /// Its tenant.
        tenant: String,
        /// The column.
        column: &'static str,
    },
    /// An envelope has rows, but not this one.
    #[error("row {position} is missing: its envelope has {envelope_records} records")]
    MissingRow {
        /// The row.
        position: Position,
        /// Records of its envelope.
        envelope_records: u16,
    },
    /// A row's index lies outside its envelope, or the rows of one envelope disagree
    /// about its size.
    #[error("row {position} does not fit its envelope of {envelope_records} records: it says {stated}")]
    EnvelopeSize {
        /// The row.
        position: Position,
        /// Records of its envelope, as its first row says.
        envelope_records: u16,
        /// What this row says.
        stated: u16,
    },
    /// Two rows of other bytes stand at one position.
    #[error("position {position} has two rows: checksums {first:016x} and {second:016x}")]
    PositionTwice {
        /// The position.
        position: Position,
        /// Checksum of the first row's columns.
        first: u64,
        /// Checksum of the second row's columns.
        second: u64,
    },
    /// A row or undecodable entry where the book itself has written nothing yet.
    #[error("extra {what} {position}: partition {} has been written up to offset {cursor} only", position.partition)]
    BeyondCursor {
        /// `row` or `rejected envelope`.
        what: &'static str,
        /// Where it stands.
        position: Position,
        /// The raw book's cursor.
        cursor: u64,
    },
    /// An accepted row of a tenant that belongs to another partition.
    #[error("row {position} of tenant {tenant} was accepted, but the tenant belongs to partition {belongs_to}")]
    WrongPartition {
        /// The row.
        position: Position,
        /// Its tenant.
        tenant: String,
        /// The tenant's partition.
        belongs_to: u32,
    },
    /// One key was accepted more than once.
    #[error("key {key} was accepted {} times: {}", positions.len(), shown(positions))]
    KeyTwice {
        /// Tenant, source, id and meter.
        key: String,
        /// Where.
        positions: Vec<Position>,
    },
    /// An accepted row that no total covers.
    #[error("row {position}: no total of tenant {tenant}, meter {meter} holds its time {time}")]
    NoTotal {
        /// The row.
        position: Position,
        /// Its tenant.
        tenant: String,
        /// Its meter.
        meter: String,
        /// Its event time.
        time: TimeMs,
    },
    /// Two totals claim the same time.
    #[error("totals of tenant {tenant}, meter {meter}: the period from {first} overlaps the one from {second}")]
    PeriodsOverlap {
        /// Whose usage.
        tenant: String,
        /// Of what.
        meter: String,
        /// Start of the earlier period.
        first: TimeMs,
        /// Start of the later one.
        second: TimeMs,
    },
    /// A total is not what its rows give.
    #[error(
        "total of tenant {tenant}, meter {meter}, period from {period_start}: {column} is {total}, the raw rows give {raw}"
    )]
    Total {
        /// Whose usage.
        tenant: String,
        /// Of what.
        meter: String,
        /// The period's start.
        period_start: TimeMs,
        /// The column.
        column: &'static str,
        /// What the totals book says.
        total: String,
        /// What the raw rows give.
        raw: String,
    },
    /// A partition's counts are not those of its rows.
    #[error("partition {partition}: {verdict} is {total} in the totals book, the raw rows give {raw}")]
    Count {
        /// The partition.
        partition: u32,
        /// `received` or a verdict.
        verdict: &'static str,
        /// What the totals book says.
        total: u64,
        /// What the raw rows give.
        raw: u64,
    },
    /// The rollups of one day are not what the rows give.
    #[error("rollups of tenant {tenant}, meter {meter}, day {day}: {column} is {rollups}, the raw rows give {raw}")]
    Rollup {
        /// Whose usage.
        tenant: String,
        /// Of what.
        meter: String,
        /// The day's start.
        day: TimeMs,
        /// `records`, `sum` or `spread over minutes`.
        column: &'static str,
        /// What the rollups give.
        rollups: i128,
        /// What the raw rows give.
        raw: i128,
    },
    /// A rollup row's own numbers contradict each other.
    #[error("rollup of tenant {tenant}, meter {meter}, minute {start}, range {partition}/{range_start}: {problem}")]
    RollupRow {
        /// Whose usage.
        tenant: String,
        /// Of what.
        meter: String,
        /// The minute's start.
        start: TimeMs,
        /// The partition.
        partition: u32,
        /// First offset of its range.
        range_start: u64,
        /// What does not fit.
        problem: String,
    },
}

fn shown(positions: &[Position]) -> String {
    let shown: Vec<String> = positions.iter().map(ToString::to_string).collect();
    shown.join(", ")
}

/// Findings so far: all counted, the first of them kept.
#[derive(Debug, Default)]
pub(super) struct Differences {
    pub(super) kept: Vec<Difference>,
    pub(super) count: u64,
}

impl Differences {
    /// Counts one; `difference` is only made when it will be kept.
    pub(super) fn push(&mut self, difference: impl FnOnce() -> Difference) {
        self.count += 1;
        if self.kept.len() < DIFFERENCES_KEPT_MAX {
            self.kept.push(difference());
        }
    }
}
