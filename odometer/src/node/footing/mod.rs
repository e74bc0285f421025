//! What a node stands on: the log, the books, and who owns which partition. The
//! threads above know only these seams, so that one code path counts on SQLite files
//! and on Kafka, PostgreSQL and ClickHouse.

mod books;
pub(crate) mod cluster;
pub(crate) mod embedded;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use odometer_ingest::log::kafka::KafkaOptions;
use odometer_ingest::log::{LogAppender, LogError, LogReader};
use odometer_sink::BookError;
use odometer_sink::raw::RawBook;
use odometer_sink::totals::{Installation, TotalsBook};

pub(crate) use self::books::BookPlace;
use super::Housekeeping;

/// The parts of one footing, each opened as often as threads need it.
pub(crate) trait Footing: Send + Sync {
    /// What the totals book must belong to.
    fn installation(&self) -> Installation;
    /// The log's writing half.
    fn appender(&self) -> Arc<dyn LogAppender>;
    /// A reading half for one thread.
    fn reader(&self) -> Result<Box<dyn LogReader>, LogError>;
    /// Tells how the log's writer is doing.
    fn log_health(&self) -> Box<dyn Fn() -> LogHealth + Send>;
    /// The totals book, for one thread that writes.
    fn totals(&self) -> Result<Box<dyn TotalsBook>, BookError>;
    /// The raw book, for one thread that writes.
    fn raw(&self) -> Result<Box<dyn RawBook>, BookError>;
    /// Where both books are read.
    fn books(&self) -> BookPlace;
    /// Who counts which partition.
    fn counting(&self) -> Result<Box<dyn Ownership>, LogError>;
    /// Who writes the raw rows of which partition.
    fn writing(&self) -> Result<Box<dyn Ownership>, LogError>;
    /// Where snapshots are kept. Nodes that share it take partitions over faster.
    fn snapshots_dir(&self) -> PathBuf;
    /// The name under which partitions are claimed: this node's URL, or empty.
    fn owner(&self) -> String;
    /// How Kafka is reached, where it is the log.
    fn kafka(&self) -> Option<&KafkaOptions>;
    /// What this footing must do by itself while the node runs.
    fn housekeeping(&self) -> anyhow::Result<Option<Box<dyn Housekeeping>>>;
    /// Waits for what is on its way to the log, and closes it.
    fn close(self: Box<Self>) -> Result<(), LogError>;
}

/// How the log's writer is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LogHealth {
    /// Whether it is there; false after close.
    pub(crate) is_running: bool,
    /// Whether its newest attempt failed, so that appends are being refused.
    pub(crate) is_failing: bool,
    /// The last failure, kept after recovery.
    pub(crate) last_error: Option<String>,
    /// Failed attempts since the start.
    pub(crate) failures: u64,
    /// Successful ones.
    pub(crate) commits: u64,
    /// Envelopes that wait.
    pub(crate) queued_envelopes: usize,
}

/// What changed in what a node owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Partitions that it owns from now on, once it has claimed them.
    Assigned(Vec<u32>),
    /// Partitions to give up: commit, then [`Ownership::release`].
    Revoked(Vec<u32>),
    /// Partitions that are gone already: drop them.
    Lost(Vec<u32>),
}

/// Which partitions this node owns.
pub(crate) trait Ownership: Send {
    /// What changed since the last call; waits for `timeout` at most.
    fn poll(&mut self, timeout: Duration) -> Result<Vec<Change>, LogError>;
    /// Whether this node is still what the last change made it.
    fn prove(&mut self) -> Result<bool, LogError>;
    /// After [`Change::Revoked`]: everything is committed, somebody else may go on.
    fn release(&mut self) -> Result<(), LogError>;
    /// Leaves a mark for people who look at the log with its own tools.
    fn hint(&mut self, partition: u32, next_offset: u64);
    /// Whether no other node can ever own a partition.
    fn is_exclusive(&self) -> bool;
    /// Gives everything up.
    fn leave(self: Box<Self>);
}

/// Whether the same question to the log may be answered later.
pub(crate) fn log_may_recover(error: &LogError) -> bool {
    matches!(error, LogError::Storage { .. })
}
