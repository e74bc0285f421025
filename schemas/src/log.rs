//! What flows from the log to its readers.

use bytes::Bytes;

use crate::limits::ENVELOPE_RECORDS_MAX;
use crate::time::TimeMs;

/// One envelope as the log holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// The partition it stands in.
    pub partition: u32,
    /// Its place in the partition; ascending, gaps allowed.
    pub offset: u64,
    /// When the log took it (Kafka: LogAppendTime; embedded: commit time).
    pub append_time: TimeMs,
    /// The envelope, or whatever a foreign producer put there; clones share it.
    pub bytes: Bytes,
}

/// The place of one record in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The partition.
    pub partition: u32,
    /// The envelope's offset.
    pub offset: u64,
    /// The record's index in its envelope.
    pub index: u16,
}

/// Offsets that a position's ordinal can hold: 2^54, centuries of envelopes.
pub const OFFSET_MAX: u64 = 1 << 54;

impl Position {
    /// A number that orders the records of one partition.
    #[must_use]
    pub fn ordinal(self) -> u64 {
        self.offset * ENVELOPE_RECORDS_MAX as u64 + u64::from(self.index)
    }
}

impl std::fmt::Display for Position {
    /// `partition/offset/index`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/{}", self.partition, self.offset, self.index)
    }
}
