//! The usage log's seam: envelopes go in durably, and come out in order per
//! partition. One implementation per footing; every implementation passes the same
//! test body.

#[cfg(any(test, feature = "testing"))]
pub mod contract;
pub mod embedded;
pub mod kafka;

use std::time::Duration;

use odometer_schemas::log::LogEntry;
use odometer_schemas::time::TimeMs;
use tokio::sync::oneshot;

/// The log's writing half.
pub trait LogAppender: Send + Sync + 'static {
    /// How many partitions the log has.
    fn partitions(&self) -> u32;

    /// Hands an envelope over. Never blocks: when the log's bounded queue is full,
    /// the answer is [`AppendError::Busy`]. The answer is `Ok` only once the envelope
    /// is durable. A partition that the log does not have is `Refused`.
    fn append(&self, partition: u32, envelope: Vec<u8>) -> PendingAppend;

    /// The same, but a log may answer `Ok` once the envelope survives the end of this
    /// process, however that ends. It is durable, and readers see it, some tens of
    /// milliseconds later, or once the disk has taken a flush, or together with the next
    /// envelope that is appended durably.
    fn append_unflushed(&self, partition: u32, envelope: Vec<u8>) -> PendingAppend {
        self.append(partition, envelope)
    }
}

/// The log's reading half. One reader serves one thread.
pub trait LogReader: Send {
    /// How many partitions the log has.
    fn partitions(&self) -> u32;

    /// The entries of `partition` from `from_offset` on, in order: as many as fit
    /// into `bytes_max`, but at least one when there is one. Empty at the end.
    ///
    /// # Errors
    /// [`LogError::Truncated`] when retention has removed `from_offset`.
    fn read(&mut self, partition: u32, from_offset: u64, bytes_max: usize) -> Result<Vec<LogEntry>, LogError>;

    /// The offsets that `partition` holds.
    ///
    /// # Errors
    /// When the log cannot be asked.
    fn bounds(&mut self, partition: u32) -> Result<Bounds, LogError>;

    /// Returns when something may have been appended since the last call, or after
    /// `timeout`.
    fn wait(&mut self, timeout: Duration);
}

/// The offsets of one partition, half-open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The first offset that is still there.
    pub start_offset: u64,
    /// The offset behind the last envelope that is durable: the next one's, unless some are
    /// unflushed.
    pub end_offset: u64,
}

/// Where an envelope went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Its offset.
    pub offset: u64,
    /// Its append time.
    pub append_time: TimeMs,
}

/// The answer to an append, still on its way.
#[derive(Debug)]
pub struct PendingAppend(oneshot::Receiver<Result<Appended, AppendError>>);

impl PendingAppend {
    /// A pending answer and the half that gives it.
    #[must_use]
    pub fn channel() -> (oneshot::Sender<Result<Appended, AppendError>>, Self) {
        let (sender, receiver) = oneshot::channel();
        (sender, Self(receiver))
    }

    /// An answer that is already known.
    #[must_use]
    pub fn ready(answer: Result<Appended, AppendError>) -> Self {
        let (sender, pending) = Self::channel();
        // The receiver lives in `pending`.
        let _ = sender.send(answer);
        pending
    }

    /// The answer, when it is there already; at most once.
    #[must_use]
    pub fn try_wait(&mut self) -> Option<Result<Appended, AppendError>> {
        match self.0.try_recv() {
            Ok(answer) => Some(answer),
            Err(oneshot::error::TryRecvError::Empty) => None,
            Err(oneshot::error::TryRecvError::Closed) => Some(Err(AppendError::Closed)),
        }
    }

    /// Waits for the answer.
    ///
    /// # Errors
    /// [`AppendError`], which says whether the envelope may be in the log all the
    /// same.
    pub async fn wait(self) -> Result<Appended, AppendError> {
        self.0.await.unwrap_or(Err(AppendError::Closed))
    }

    /// Waits for the answer on a thread that is not part of an async runtime.
    ///
    /// # Errors
    /// As [`PendingAppend::wait`].
    pub fn wait_blocking(self) -> Result<Appended, AppendError> {
        self.0.blocking_recv().unwrap_or(Err(AppendError::Closed))
    }
}

/// Why an envelope was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The queue in front of the log is full.
    #[error("the log's queue is full")]
    Busy,
    /// The log cannot be written.
    #[error("the log cannot be written: {0}")]
    Unavailable(String),
    /// The envelope is larger than the log takes.
    #[error("the envelope has {bytes} bytes, more than the log takes")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// What stands before the log will never take this envelope.
    #[error("the envelope was refused: {0}")]
    Refused(String),
    /// The log has been closed.
    #[error("the log is closed")]
    Closed,
}

impl AppendError {
    /// Whether the same append may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Busy | Self::Unavailable(_))
    }

    /// Whether the envelope may be in the log all the same.
    #[must_use]
    pub fn may_be_stored(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Closed)
    }
}

/// Why the log could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Retention has removed what was asked for.
    #[error("partition {partition} starts at offset {start_offset}; offset {wanted} has been removed")]
    Truncated {
        /// The partition.
        partition: u32,
        /// The first offset that is still there.
        start_offset: u64,
        /// The offset that was asked for.
        wanted: u64,
    },
    /// The log was created differently from how it is opened.
    #[error("the log {what}")]
    Mismatch {
        /// What differs, with both values.
        what: String,
    },
    /// The storage failed.
    #[error("the log's storage failed while {doing}")]
    Storage {
        /// What was being done.
        doing: &'static str,
        /// The storage's own error.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl LogError {
    /// Whether the same call may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Storage { .. })
    }
}
