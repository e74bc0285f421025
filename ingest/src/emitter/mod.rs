//! The client for agent workers: records in, acknowledgements out once the log holds
//! them durably.
//!
//! Records gather in lanes, are sealed into envelopes and sent by one driver per
//! lane. Memory is bounded: when it is in use, [`Emitter::emit`] waits. Records
//! without an id get the emitter's own, so that a retry is never counted twice. It
//! decides nothing about a record beyond whether it may enter the log. Runs of agents
//! meter themselves ([`AgentRun`]), within their tenant's quota if asked to
//! ([`RunQuota`]).

mod ack;
pub mod agent_run;
mod driver;
pub mod http;
mod lane;
pub mod quota;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use odometer_schemas::limits::ENVELOPE_BYTES_MAX;
use odometer_schemas::partition::partition_of;
use odometer_schemas::record::{FieldError, Record};
use tokio::sync::{Semaphore, TryAcquireError};
use tokio::task::{JoinHandle, coop};

pub use ack::{Ack, PendingAck, Unacknowledged};
pub use agent_run::{AgentRun, AgentRunOptions, RunError, RunReport};
pub use http::HttpTransport;
pub use quota::{HttpQuota, RunQuota};

use crate::log::LogAppender;
use ack::Ledger;
use driver::{Driver, Outlet};
use lane::Lane;

/// How long a record waits for others to share its envelope. Far below anything that
/// a person or a quota check notices, and a hundred times a commit.
pub const LINGER_DEFAULT: Duration = Duration::from_millis(5);
/// Memory for records that are not acknowledged yet: some hundred thousand of them.
pub const MEMORY_BYTES_MAX_DEFAULT: usize = 64 * 1024 * 1024;
/// Envelopes in flight per lane: enough to hide a commit or a round trip.
pub const IN_FLIGHT_MAX_DEFAULT: usize = 8;
/// How long an envelope is tried: outlives a restart of the log, yet tells its caller
/// while that still remembers.
pub const DELIVERY_TIMEOUT_DEFAULT: Duration = Duration::from_secs(120);

/// What a record takes besides its texts: its numbers and its share of the tables.
const RECORD_OVERHEAD_BYTES: usize = 64;
/// Lanes of one partition: records with the emitter's own ids, and those with their
/// caller's. Only the former are told apart by sequence, so a sequence must count
/// nothing else, or it would have gaps.
const LANES_PER_PARTITION: usize = 2;

/// How an emitter works.
#[derive(Clone, Debug)]
pub struct EmitterOptions {
    /// How long a record waits for others to share its envelope.
    pub linger: Duration,
    /// Memory in bytes for records that are not acknowledged yet; each counts with its
    /// texts and a constant. At least one envelope's size.
    pub memory_bytes_max: usize,
    /// Most envelopes in flight per partition and kind of id; at least one.
    pub in_flight_max: usize,
    /// How long after its first record an envelope is given up.
    pub delivery_timeout: Duration,
}

impl Default for EmitterOptions {
    fn default() -> Self {
        Self {
            linger: LINGER_DEFAULT,
            memory_bytes_max: MEMORY_BYTES_MAX_DEFAULT,
            in_flight_max: IN_FLIGHT_MAX_DEFAULT,
            delivery_timeout: DELIVERY_TIMEOUT_DEFAULT,
        }
    }
}

/// Why a record was not taken, or not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EmitError {
    /// The record may not enter the log.
    #[error(transparent)]
    Refused(#[from] FieldError),
    /// The emitter's memory is in use.
    #[error("the emitter's memory is in use by records that are not acknowledged yet")]
    Full,
    /// The emitter takes no more records.
    #[error("the emitter is closed")]
    Closed,
    /// The emitter has given up on the record.
    #[error("the record was not acknowledged{}: {reason}", if *may_be_stored { " and may be stored" } else { "" })]
    Unacknowledged {
        /// The last thing that went wrong.
        reason: String,
        /// Whether the log may hold it all the same.
        may_be_stored: bool,
    },
}

impl EmitError {
    /// Whether emitting the same record again may succeed and cannot count it twice.
    /// A record with an id of its caller's can always be emitted again.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Full | Self::Unacknowledged { may_be_stored: false, .. })
    }

    fn stopped(may_be_stored: bool) -> Self {
        Self::Unacknowledged { reason: "the emitter stopped".into(), may_be_stored }
    }

    fn timed_out(after: Duration, may_be_stored: bool) -> Self {
        Self::Unacknowledged { reason: format!("no answer within {after:?}"), may_be_stored }
    }
}

/// What a flush found unacknowledged since the one before.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} records were not acknowledged; the last reason: {}", self.records(), self.reason())]
pub struct FlushError {
    /// By partition.
    pub unacknowledged: Vec<Unacknowledged>,
}

impl FlushError {
    /// How many records were not acknowledged.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.unacknowledged.iter().map(|partition| partition.records).sum()
    }

    fn reason(&self) -> String {
        self.unacknowledged.last().map(|partition| partition.error.to_string()).unwrap_or_default()
    }
}

/// The emitter's options cannot work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("emitter option {option} is {value}, but must be at least {least}")]
pub struct OptionsError {
    option: &'static str,
    value: usize,
    least: usize,
}

/// A handle to an emitter; clones share it. When the last one is dropped, what was
/// emitted is still sent, but nobody waits for it: [`Emitter::close`] does.
#[derive(Clone, Debug)]
pub struct Emitter {
    handle: Arc<Handle>,
}

#[derive(Debug)]
struct Handle {
    partitions: u32,
    memory_bytes_max: usize,
    /// By partition, then by kind of id.
    lanes: Vec<Arc<Lane>>,
    ledger: Arc<Ledger>,
    retries: Arc<AtomicU64>,
    drivers: Mutex<Vec<JoinHandle<()>>>,
}

impl Emitter {
    /// Starts an emitter over `transport`: a log's appender in the same process, or an
    /// [`HttpTransport`]. Its tasks run on the current tokio runtime.
    ///
    /// # Errors
    /// When an option cannot work.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(transport: Arc<dyn LogAppender>, options: EmitterOptions) -> Result<Self, OptionsError> {
        at_least("memory_bytes_max", options.memory_bytes_max, ENVELOPE_BYTES_MAX)?;
        at_least("in_flight_max", options.in_flight_max, 1)?;
        let partitions = transport.partitions();
        let memory_bytes_max = options.memory_bytes_max.min(Semaphore::MAX_PERMITS);
        let ledger = Ledger::new(memory_bytes_max);
        let outlet = Outlet { transport, options, retries: Arc::default() };
        let retries = Arc::clone(&outlet.retries);
        let lanes: Vec<Arc<Lane>> = (0..partitions)
            .flat_map(|partition| [partition; LANES_PER_PARTITION])
            .map(|partition| Arc::new(Lane::new(partition, Arc::clone(&ledger))))
            .collect();
        let drivers =
            lanes.iter().map(|lane| tokio::spawn(Driver::new(Arc::clone(lane), outlet.clone()).run())).collect();
        let drivers = Mutex::new(drivers);
        Ok(Self { handle: Arc::new(Handle { partitions, memory_bytes_max, lanes, ledger, retries, drivers }) })
    }

    /// Takes a record, waiting while memory is in use. The answer is its pending
    /// acknowledgement. Cancelling it while it waits emits nothing.
    ///
    /// # Errors
    /// [`EmitError::Refused`] for a record that may not enter the log, and
    /// [`EmitError::Closed`].
    pub async fn emit(&self, record: Record) -> Result<PendingAck, EmitError> {
        record.validate()?;
        let cost_bytes = cost_bytes(&record);
        // Lets the drivers work even when nothing ever has to be waited for.
        coop::consume_budget().await;
        let budget = &self.handle.ledger.budget;
        let reserved = match budget.try_acquire_many(cost_bytes) {
            Err(TryAcquireError::NoPermits) => budget.acquire_many(cost_bytes).await.map_err(|_| EmitError::Closed)?,
            other => other.map_err(|_| EmitError::Closed)?,
        };
        let ack = self.lane_of(&record).push(&record, cost_bytes as usize)?;
        // From here on, the envelope gives it back.
        reserved.forget();
        Ok(ack)
    }

    /// Takes a record if there is memory for it at once.
    ///
    /// # Errors
    /// As [`Emitter::emit`], and [`EmitError::Full`].
    pub fn try_emit(&self, record: &Record) -> Result<PendingAck, EmitError> {
        record.validate()?;
        let cost_bytes = cost_bytes(record);
        let reserved = self.handle.ledger.budget.try_acquire_many(cost_bytes).map_err(|error| match error {
            TryAcquireError::NoPermits => EmitError::Full,
            TryAcquireError::Closed => EmitError::Closed,
        })?;
        let ack = self.lane_of(record).push(record, cost_bytes as usize)?;
        reserved.forget();
        Ok(ack)
    }

    /// Takes a record whether there is memory for it or not, for callers that can
    /// neither wait nor come again: the last record of a dropped run. There are as few
    /// of them as there are runs.
    fn emit_beyond_memory(&self, record: &Record) -> Result<PendingAck, EmitError> {
        record.validate()?;
        self.lane_of(record).push(record, 0)
    }

    /// Takes many records, waiting while memory is in use; answers per record, in
    /// order. Cancelling it leaves those taken that were taken.
    pub async fn emit_all(&self, records: Vec<Record>) -> Vec<Result<PendingAck, EmitError>> {
        let mut answers = Vec::with_capacity(records.len());
        for record in records {
            answers.push(self.emit(record).await);
        }
        answers
    }

    /// Sends everything emitted before at once, and waits until all of it is
    /// acknowledged or given up.
    ///
    /// # Errors
    /// [`FlushError`] tells what was not acknowledged since the last flush of any
    /// clone.
    pub async fn flush(&self) -> Result<(), FlushError> {
        let unsettled: Vec<_> = self.handle.lanes.iter().flat_map(|lane| lane.flush()).collect();
        for completion in unsettled {
            completion.wait().await;
        }
        let unacknowledged = self.handle.ledger.take_losses();
        if unacknowledged.is_empty() { Ok(()) } else { Err(FlushError { unacknowledged }) }
    }

    /// Takes no more records from any clone, and waits until everything emitted is
    /// acknowledged or given up.
    ///
    /// # Errors
    /// As [`Emitter::flush`].
    pub async fn close(self) -> Result<(), FlushError> {
        self.handle.close_lanes();
        let drivers = std::mem::take(&mut *self.handle.drivers.lock().unwrap_or_else(PoisonError::into_inner));
        for driver in drivers {
            if let Err(error) = driver.await {
                tracing::error!(%error, "an emitter's driver did not end by itself");
            }
        }
        self.flush().await
    }

    /// Memory in use by records that are not acknowledged yet, in bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.handle.memory_bytes_max.saturating_sub(self.handle.ledger.budget.available_permits())
    }

    /// Envelopes that were sent again, since the start.
    #[must_use]
    pub fn retries(&self) -> u64 {
        self.handle.retries.load(Ordering::Relaxed)
    }

    fn lane_of(&self, record: &Record) -> &Lane {
        let partition = partition_of(&record.tenant, self.handle.partitions) as usize;
        &self.handle.lanes[partition * LANES_PER_PARTITION + usize::from(record.id.is_some())]
    }
}

impl Handle {
    fn close_lanes(&self) {
        self.lanes.iter().for_each(|lane| lane.close());
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.close_lanes();
    }
}

fn at_least(option: &'static str, value: usize, least: usize) -> Result<(), OptionsError> {
    if value < least { Err(OptionsError { option, value, least }) } else { Ok(()) }
}

/// What a valid record claims of the memory, in bytes.
fn cost_bytes(record: &Record) -> u32 {
    let optional = [&record.id, &record.subject, &record.reservation];
    let texts = record.tenant.len() + record.source.len() + record.meter.len();
    let optional: usize = optional.into_iter().flatten().map(String::len).sum();
    let dimensions: usize = record.dimensions.iter().map(|(name, value)| name.len() + value.len()).sum();
    let bytes = RECORD_OVERHEAD_BYTES + texts + optional + dimensions;
    u32::try_from(bytes).expect("a valid record is a few kilobytes at most")
}
