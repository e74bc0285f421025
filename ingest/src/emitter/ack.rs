//! Acknowledgements: one shared completion per envelope, handed out per record as a
//! counted reference and an index. Answers exactly once, whatever becomes of the
//! envelope.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use odometer_schemas::log::Position;
use odometer_schemas::time::TimeMs;
use tokio::sync::{Notify, Semaphore};

use super::EmitError;
use crate::log::Appended;

/// Where an acknowledged record stands in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// Its place. A retried envelope may stand in the log twice; this is one of them.
    pub position: Position,
    /// When the log took it.
    pub append_time: TimeMs,
}

/// A record's acknowledgement, still on its way. Dropping it changes nothing for the
/// record.
#[derive(Debug)]
#[must_use = "without its acknowledgement, a record is not known to be stored"]
pub struct PendingAck {
    completion: Arc<Completion>,
    index: u16,
}

/// What all records of one envelope wait for.
#[derive(Debug)]
pub(super) struct Completion {
    partition: u32,
    outcome: OnceLock<Result<Appended, EmitError>>,
    settled: Notify,
}

/// The books of one emitter: memory in use, and what was not acknowledged.
#[derive(Debug)]
pub(super) struct Ledger {
    /// Free bytes of memory.
    pub(super) budget: Semaphore,
    losses: Mutex<BTreeMap<u32, Unacknowledged>>,
}

/// Records of one partition that were not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unacknowledged {
    /// The partition that they belong to.
    pub partition: u32,
    /// How many.
    pub records: u64,
    /// Why; of several reasons, the last.
    pub error: EmitError,
}

/// An envelope's claim on memory and its duty to answer. Settles as stopped when it is
/// dropped without an outcome.
#[derive(Debug)]
pub(super) struct Ticket {
    completion: Arc<Completion>,
    ledger: Arc<Ledger>,
    pub(super) cost_bytes: usize,
    pub(super) records: u16,
}

impl PendingAck {
    /// Waits until the record is durable in the log.
    ///
    /// # Errors
    /// [`EmitError::Unacknowledged`], which says whether it may be stored all the
    /// same.
    pub async fn wait(&self) -> Result<Ack, EmitError> {
        self.completion.wait().await;
        self.outcome().unwrap_or_else(|| Err(EmitError::stopped(true)))
    }

    /// The acknowledgement, when it is there already.
    #[must_use]
    pub fn outcome(&self) -> Option<Result<Ack, EmitError>> {
        let (partition, index) = (self.completion.partition, self.index);
        let outcome = self.completion.outcome.get()?;
        Some(outcome.clone().map(|Appended { offset, append_time }| Ack {
            position: Position { partition, offset, index },
            append_time,
        }))
    }
}

impl Completion {
    /// Waits for the outcome.
    pub(super) async fn wait(&self) {
        loop {
            let settled = self.settled.notified();
            // From its creation on, `settled` sees the wake-up; so look only now.
            if self.outcome.get().is_some() {
                return;
            }
            settled.await;
        }
    }

    pub(super) fn is_settled(&self) -> bool {
        self.outcome.get().is_some()
    }
}

impl Ledger {
    pub(super) fn new(memory_bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { budget: Semaphore::new(memory_bytes_max), losses: Mutex::default() })
    }

    /// What was not acknowledged since the last call.
    pub(super) fn take_losses(&self) -> Vec<Unacknowledged> {
        std::mem::take(&mut *self.losses()).into_values().collect()
    }

    fn note_loss(&self, partition: u32, records: u64, error: &EmitError) {
        let mut losses = self.losses();
        let loss =
            losses.entry(partition).or_insert_with(|| Unacknowledged { partition, records: 0, error: error.clone() });
        loss.records += records;
        loss.error = error.clone();
    }

    fn losses(&self) -> MutexGuard<'_, BTreeMap<u32, Unacknowledged>> {
        self.losses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ticket {
    pub(super) fn new(partition: u32, ledger: Arc<Ledger>) -> Self {
        let completion = Arc::new(Completion { partition, outcome: OnceLock::new(), settled: Notify::new() });
        Self { completion, ledger, cost_bytes: 0, records: 0 }
    }

    /// Takes one more record on, together with its claim on memory.
    pub(super) fn admit(&mut self, cost_bytes: usize) -> PendingAck {
        let index = self.records;
        self.records += 1;
        self.cost_bytes += cost_bytes;
        PendingAck { completion: Arc::clone(&self.completion), index }
    }

    pub(super) fn completion(&self) -> Arc<Completion> {
        Arc::clone(&self.completion)
    }

    /// Answers every record, and gives the memory back.
    pub(super) fn settle(self, outcome: Result<Appended, EmitError>) {
        self.answer(outcome);
    }

    fn answer(&self, outcome: Result<Appended, EmitError>) {
        if self.records > 0
            && let Err(error) = &outcome
        {
            self.ledger.note_loss(self.completion.partition, self.records.into(), error);
        }
        // Only the first answer counts; there is a second one from the destructor.
        let _ = self.completion.outcome.set(outcome);
        self.completion.settled.notify_waiters();
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.completion.is_settled() {
            self.answer(Err(EmitError::stopped(true)));
        }
        self.ledger.budget.add_permits(self.cost_bytes);
    }
}
