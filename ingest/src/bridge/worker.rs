//! The bridge's one thread: reads messages, sends what they hold, and commits their
//! offsets once everything of them is stored. Only the oldest batch under way may
//! commit, so an offset never passes a message that is not stored.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::Message;
use rdkafka::message::BorrowedMessage;

use super::batch::{Batch, Obstacle, Outlets};
use super::dead::{DeadLetters, Verdict};
use super::headers::http_headers;
use super::ingress::Ingress;
use super::raw_headers::raw_headers;
use super::shared::Shared;
use super::{BridgeError, BridgeOptions};
use crate::gateway::{Door, Gather, Incoming, SharedDefinitions, Terms, read_onto};
use crate::log::kafka::rebalances::Rebalance;
use crate::log::{LogAppender, LogError};

/// Messages of one batch: enough to fill envelopes, few enough that a batch is read
/// within some milliseconds.
const BATCH_MESSAGES_MAX: usize = 1_000;
/// Bytes after which a batch takes no further message.
const BATCH_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Batches under way: the log's round trip is hidden by a few, and what has to be read
/// again after a crash stays small.
const BATCHES_MAX: usize = 8;
/// Largest message after inflating, in bytes: a compressed message of a broker's
/// largest default size stays far below it.
const INFLATED_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Events of one message are bounded by its bytes alone, so that a message is never
/// refused after some of its events were gathered.
const RECORDS_MAX: usize = usize::MAX;
/// How long the first message of a batch is waited for.
const IDLE_WAIT: Duration = Duration::from_millis(100);
/// The same while answers are awaited, which come without waking the consumer.
const BUSY_WAIT: Duration = Duration::from_millis(1);
/// How long a full bridge waits for the log before it pauses the ingress topic.
const PAUSE_AFTER: Duration = Duration::from_secs(1);
/// How often offsets are committed. What lies between is read again after a crash.
const COMMIT_EVERY: Duration = Duration::from_millis(500);
/// How long what is under way may take when partitions move or the bridge drains:
/// longer than an append.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(35);
/// How long the bridge waits before it joins the group again after an error.
const REJOIN_AFTER: Duration = Duration::from_secs(1);

pub(super) struct Worker {
    pub(super) options: BridgeOptions,
    pub(super) definitions: SharedDefinitions,
    pub(super) log: Arc<dyn LogAppender>,
    pub(super) dead: DeadLetters,
    pub(super) shared: Arc<Shared>,
    pub(super) under_way: VecDeque<Batch>,
    /// Stored, and not committed yet.
    pub(super) next_offsets: BTreeMap<u32, u64>,
    pub(super) committed_at: Instant,
}

impl Worker {
    /// Runs until it is told to drain, or the log is closed.
    pub(super) fn run(mut self) -> Result<(), BridgeError> {
        let outcome = self.serve_until_drained();
        if let Err(error) = &outcome {
            self.shared.note_trouble(error.to_string());
        }
        let closed = self.dead.close().map_err(BridgeError::Kafka);
        outcome.and(closed)
    }

    fn serve_until_drained(&mut self) -> Result<(), BridgeError> {
        loop {
            let Err(error) = self.serve() else { return Ok(()) };
            if self.shared.is_draining() || !error.is_retryable() {
                return Err(error);
            }
            tracing::warn!(%error, "the bridge joins its group again");
            self.shared.note_trouble(error.to_string());
            // Whatever is under way will be read again; it is not to be committed for
            // partitions that may belong to somebody else by then.
            self.under_way.iter_mut().for_each(|batch| batch.next_offsets.clear());
            self.next_offsets.clear();
            std::thread::sleep(REJOIN_AFTER);
        }
    }

    /// One membership of the group; ends well only when drained.
    fn serve(&mut self) -> Result<(), BridgeError> {
        let mut ingress = Ingress::join(&self.options.kafka, &self.options.group)?;
        let mut full_since = None;
        while !self.shared.is_draining() {
            self.settle()?;
            self.shared.set_lag(ingress.lag());
            if self.committed_at.elapsed() >= COMMIT_EVERY {
                self.commit(&ingress)?;
            }
            let is_full = self.under_way.len() >= BATCHES_MAX;
            if is_full {
                let since = *full_since.get_or_insert_with(Instant::now);
                ingress.set_paused(since.elapsed() > PAUSE_AFTER)?;
                std::thread::sleep(BUSY_WAIT);
            } else {
                full_since = None;
                ingress.set_paused(false)?;
            }
            // A paused topic gives no messages, but the group wants to be served.
            if !is_full || full_since.is_some_and(|since| since.elapsed() > PAUSE_AFTER) {
                self.read_batch(&ingress)?;
            }
            while let Some(rebalance) = ingress.next_rebalance() {
                self.answer(&ingress, rebalance)?;
            }
        }
        self.settle_and_commit(&ingress)
    }

    fn answer(&mut self, ingress: &Ingress, rebalance: Rebalance) -> Result<(), BridgeError> {
        match rebalance {
            Rebalance::Assign(partitions) => {
                let removed = ingress.take(&partitions)?;
                if removed > 0 {
                    tracing::error!(removed, "retention removed messages from the ingress topic before they were read");
                    self.shared.add_removed(removed);
                }
            }
            Rebalance::Revoke { partitions, is_lost } => {
                // A log or group that does not answer must not hold up the others: the
                // partitions go, and what is not committed is read again.
                let settled = if is_lost || partitions.is_empty() { Ok(()) } else { self.settle_and_commit(ingress) };
                let moved = |partition: &u32| partitions.iter().any(|p| u32::try_from(*p) == Ok(*partition));
                self.next_offsets.retain(|partition, _| !moved(partition));
                for batch in &mut self.under_way {
                    batch.next_offsets.retain(|partition, _| !moved(partition));
                }
                ingress.give_back(&partitions)?;
                settled?;
            }
        }
        Ok(())
    }

    /// Reads the messages at hand into one batch and sends it.
    fn read_batch(&mut self, ingress: &Ingress) -> Result<(), LogError> {
        let definitions = self.definitions.load();
        let terms = Terms {
            definitions: &definitions,
            partitions: self.log.partitions(),
            inflated_bytes_max: INFLATED_BYTES_MAX,
            records_max: RECORDS_MAX,
        };
        let mut gather = Gather::new(terms.partitions);
        let (mut batch, mut bytes) = (Batch::default(), 0);
        let mut timeout = if self.under_way.is_empty() { IDLE_WAIT } else { BUSY_WAIT };
        let mut outcome = Ok(());
        while batch.messages < BATCH_MESSAGES_MAX && bytes < BATCH_BYTES_MAX {
            match ingress.poll(timeout) {
                Ok(Some(message)) => {
                    bytes += message.payload_len();
                    self.read(&message, &terms, &mut gather, &mut batch);
                }
                Ok(None) => break,
                Err(error) => {
                    outcome = Err(error);
                    break;
                }
            }
            timeout = Duration::ZERO;
        }
        if batch.messages > 0 {
            batch.add_envelopes(gather.finish());
            self.under_way.push_back(batch);
        }
        outcome
    }

    fn read(&self, message: &BorrowedMessage<'_>, terms: &Terms<'_>, gather: &mut Gather, batch: &mut Batch) {
        let headers = http_headers(&raw_headers(message));
        let body = message.payload().unwrap_or_default();
        let incoming = Incoming { door: Door::Native, headers: &headers, body };
        let verdict = match read_onto(&incoming, terms, gather) {
            Ok((sheet, _)) => {
                batch.events += sheet.len();
                batch.records += sheet.records();
                Verdict::of_events(&sheet)
            }
            Err(problem) => {
                batch.events += 1;
                Some(Verdict::whole(&problem))
            }
        };
        if let Some(verdict) = verdict {
            tracing::debug!(reason = verdict.reason(), offset = message.offset(), "a message goes to the dead letters");
            self.shared.add_refused(verdict.refused_count());
            batch.add_letter(self.dead.letter(message, &verdict));
        }
        batch.messages += 1;
        if let (Ok(partition), Ok(offset)) = (u32::try_from(message.partition()), u64::try_from(message.offset())) {
            batch.next_offsets.insert(partition, offset + 1);
        }
    }

    /// Takes the answers that are there; the oldest batches that are done may commit.
    fn settle(&mut self) -> Result<(), BridgeError> {
        let outlets = Outlets { log: self.log.as_ref(), dead: &self.dead };
        for batch in &mut self.under_way {
            match batch.advance(&outlets) {
                None => {}
                Some(Obstacle::Passing(reason)) => self.shared.note_trouble(reason),
                Some(Obstacle::Final(reason)) => return Err(BridgeError::Stopped { reason }),
            }
        }
        while self.under_way.front().is_some_and(Batch::is_done) {
            let Some(done) = self.under_way.pop_front() else { break };
            self.shared.add_done(&done);
            self.next_offsets.extend(done.next_offsets);
        }
        self.shared.set_under_way(self.under_way.len());
        Ok(())
    }

    /// Waits until nothing is under way.
    fn settle_all(&mut self) -> Result<(), BridgeError> {
        let started = Instant::now();
        loop {
            self.settle()?;
            if self.under_way.is_empty() {
                return Ok(());
            }
            if started.elapsed() > SETTLE_TIMEOUT {
                return Err(BridgeError::Unsettled { batches: self.under_way.len() });
            }
            std::thread::sleep(BUSY_WAIT);
        }
    }

    fn commit(&mut self, ingress: &Ingress) -> Result<(), BridgeError> {
        ingress.commit(&self.next_offsets)?;
        self.next_offsets.clear();
        self.committed_at = Instant::now();
        Ok(())
    }

    /// Has everything under way stored, and the group know it.
    fn settle_and_commit(&mut self, ingress: &Ingress) -> Result<(), BridgeError> {
        self.settle_all()?;
        ingress.commit_surely(&self.next_offsets)?;
        self.next_offsets.clear();
        Ok(())
    }
}
