//! The edge from the aggregator to the totals book: what one partition's decisions
//! changed, as absolute values, and what the book gives back when a partition is
//! claimed.

use std::sync::Arc;

use bincode::{Decode, Encode};

use crate::definitions::Definitions;
use crate::quota::{AlertRow, QuotaRow};
use crate::time::TimeMs;
use crate::verdict::VerdictCounts;

/// What one partition changed between two offsets. Applied whole or not at all.
#[derive(Clone, Debug, PartialEq, Eq, Default, Encode, Decode)]
pub struct PartitionCommit {
    /// The partition.
    pub partition: u32,
    /// The first offset that these decisions cover.
    pub from_offset: u64,
    /// The next offset that the book needs after them.
    pub next_offset: u64,
    /// Log time at `next_offset`, Unix milliseconds.
    pub log_time_ms: i64,
    /// Absolute counts since the log's beginning.
    pub counts: VerdictCounts,
    /// Changed totals, absolute values.
    pub totals: Vec<TotalRow>,
    /// Changed emitter watermarks, absolute values.
    pub marks: Vec<SourceMark>,
    /// Envelopes that were not wholly accepted.
    pub exceptions: Vec<ExceptionsRow>,
    /// The aggregator's own rules state, when it changed; opaque to the book.
    pub rules: Option<Vec<u8>>,
    /// Definitions that came into force, each at its offset.
    pub definitions: Vec<DefinitionsAt>,
    /// Changed quota state, absolute values.
    pub quota: Vec<QuotaRow>,
    /// Limits that were crossed, ascending.
    pub alerts: Vec<AlertRow>,
}

/// Definitions and the offset of the envelope that brought them.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DefinitionsAt {
    /// In force for all later offsets.
    pub offset: u64,
    /// The definitions.
    pub definitions: Definitions,
}

/// The total of one (tenant, meter, period).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TotalRow {
    /// Whose usage; shared with whoever counts it.
    pub tenant: Arc<str>,
    /// Of what.
    pub meter: Arc<str>,
    /// Period start, Unix milliseconds.
    pub period_start_ms: i64,
    /// Period end (exclusive), Unix milliseconds.
    pub period_end_ms: i64,
    /// The aggregation's name, so that the row can be read without definitions.
    pub aggregation: crate::meter::Aggregation,
    /// The aggregated value in base units.
    pub quantity: i128,
    /// The sum of accepted quantities, whatever the aggregation.
    pub sum: i128,
    /// Accepted records.
    pub records: u64,
    /// Digest of the accepted records.
    pub digest: u128,
    /// [`Accumulator::state`](crate::accumulator::Accumulator::state).
    pub state: Vec<u8>,
}

/// What is known of one emitter source in one partition.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SourceMark {
    /// The emitter's random identity.
    pub source: u128,
    /// The newest epoch seen; older ones are stale.
    pub epoch: u32,
    /// Every sequence below it was decided.
    pub low_water: u64,
    /// Bitmap words of what was decided at and above `low_water`, lowest first,
    /// without trailing zeros.
    pub above: Vec<u64>,
}

/// The verdicts of one envelope that was not wholly accepted.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ExceptionsRow {
    /// The envelope's offset.
    pub offset: u64,
    /// [`pack`](crate::verdict::pack)ed verdicts, one per record.
    pub verdicts: Vec<u8>,
}

/// What the totals book knows of one partition, for its new owner.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct PartitionState {
    /// The owner's epoch, raised by the claim.
    pub epoch: u64,
    /// The next offset that the book needs.
    pub next_offset: u64,
    /// Log time at `next_offset`, Unix milliseconds.
    pub log_time_ms: i64,
    /// Absolute counts.
    pub counts: VerdictCounts,
    /// All totals of the partition.
    pub totals: Vec<TotalRow>,
    /// All emitter watermarks of the partition.
    pub marks: Vec<SourceMark>,
    /// The aggregator's rules state as last committed.
    pub rules: Option<Vec<u8>>,
    /// All quota state of the partition.
    pub quota: Vec<QuotaRow>,
    /// All alerts of the partition, ascending.
    pub alerts: Vec<AlertRow>,
}

impl PartitionState {
    /// Log time as a time.
    #[must_use]
    pub fn log_time(&self) -> TimeMs {
        TimeMs(self.log_time_ms)
    }
}
