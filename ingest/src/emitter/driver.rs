//! A lane's driver: full envelopes in, sealed and numbered envelopes out to the log,
//! retried with the same bytes until they are acknowledged or given up. Owns the
//! lane's sequence. Keeps few envelopes in flight, so that a reader that misses one of
//! them need not remember many others.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use odometer_schemas::envelope::Origin;
use odometer_schemas::limits::ENVELOPE_RECORDS_MAX;
use rand::RngExt;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::ack::Ticket;
use super::lane::{Batch, Lane, Next};
use super::{EmitError, EmitterOptions};
use crate::log::{AppendError, Appended, LogAppender, PendingAppend};

/// How far the newest sequence in flight may be ahead of the oldest one that is not
/// acknowledged. The aggregator remembers 4096 sequences above a gap and must reject
/// what lies beyond; one envelope less leaves it room.
const SEQUENCES_AHEAD_MAX: u64 = 4096 - ENVELOPE_RECORDS_MAX as u64;
/// The first pause before a retry: the log's queue empties within some milliseconds.
const BACKOFF_MIN: Duration = Duration::from_millis(20);
/// The longest pause before a retry: recovery should be noticed within seconds.
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// Drives one lane from its start to its end.
pub(super) struct Driver {
    lane: Arc<Lane>,
    outlet: Outlet,
    origin: Origin,
    /// In order of sending; the first one is not settled.
    in_flight: VecDeque<Slot>,
    deliveries: JoinSet<(u64, Result<Appended, EmitError>)>,
    sent_count: u64,
}

/// Where envelopes go, and how hard it is tried.
#[derive(Clone)]
pub(super) struct Outlet {
    pub(super) transport: Arc<dyn LogAppender>,
    pub(super) options: EmitterOptions,
    pub(super) retries: Arc<AtomicU64>,
}

struct Slot {
    number: u64,
    origin: Origin,
    /// None once it was answered.
    ticket: Option<Ticket>,
}

/// An envelope that is being delivered.
struct Delivery {
    outlet: Outlet,
    partition: u32,
    envelope: Vec<u8>,
    deadline: Instant,
    /// Whether an attempt so far may have stored it.
    may_be_stored: bool,
}

impl Driver {
    pub(super) fn new(lane: Arc<Lane>, outlet: Outlet) -> Self {
        let (in_flight, deliveries) = (VecDeque::new(), JoinSet::new());
        Self { lane, outlet, origin: fresh_origin(), in_flight, deliveries, sent_count: 0 }
    }

    /// Works until the lane is closed and everything in it was answered.
    pub(super) async fn run(mut self) {
        loop {
            let wait_until = match self.send_all() {
                Next::End if self.in_flight.is_empty() => return,
                Next::Wait(until) => until,
                Next::End | Next::Send(_) => None,
            };
            tokio::select! {
                Some(done) = self.deliveries.join_next() => self.settle(done),
                () = self.lane.news.notified() => {}
                () = sleep_until(wait_until.unwrap_or_else(Instant::now)), if wait_until.is_some() => {}
            }
        }
    }

    /// Sends what may be sent now. Answers what to wait for.
    fn send_all(&mut self) -> Next {
        while self.has_room() {
            match self.lane.next(Instant::now(), self.outlet.options.linger) {
                Next::Send(batch) => self.send(*batch),
                other => return other,
            }
        }
        Next::Wait(None)
    }

    fn has_room(&self) -> bool {
        let oldest = self.in_flight.iter().find(|slot| slot.origin.source == self.origin.source);
        let ahead = oldest.map_or(0, |slot| self.origin.first_sequence - slot.origin.first_sequence);
        self.in_flight.len() < self.outlet.options.in_flight_max
            && ahead + ENVELOPE_RECORDS_MAX as u64 <= SEQUENCES_AHEAD_MAX
    }

    fn send(&mut self, mut batch: Batch) {
        let deadline = batch.opened_at + self.outlet.options.delivery_timeout;
        if deadline <= Instant::now() {
            // Nobody saw it, so it needs no sequence and leaves no gap.
            let error = EmitError::timed_out(self.outlet.options.delivery_timeout, false);
            batch.ticket.settle(Err(error));
            return;
        }
        let origin = self.origin;
        let envelope = batch.builder.seal(origin);
        self.lane.give_back(batch.builder);
        self.origin.first_sequence += u64::from(batch.ticket.records);
        let number = self.sent_count;
        self.sent_count += 1;
        // The first attempt is made here, so that envelopes reach the log in order
        // while nothing fails.
        let pending = self.outlet.transport.append(self.lane.partition, envelope.clone());
        let (outlet, partition) = (self.outlet.clone(), self.lane.partition);
        let delivery = Delivery { outlet, partition, envelope, deadline, may_be_stored: false };
        self.deliveries.spawn(async move { (number, delivery.run(pending).await) });
        self.in_flight.push_back(Slot { number, origin, ticket: Some(batch.ticket) });
    }

    fn settle(&mut self, done: Result<(u64, Result<Appended, EmitError>), tokio::task::JoinError>) {
        // A delivery that panicked leaves its slot unanswered; ending the driver
        // answers all of them.
        let (number, outcome) = done.expect("a delivery does not panic");
        if outcome.is_err()
            && self.in_flight.iter().any(|s| s.number == number && s.origin.source == self.origin.source)
        {
            // The given-up envelope is a gap that will not close. What follows takes
            // a new source, so that no reader waits for it.
            self.origin = fresh_origin();
        }
        if let Some(slot) = self.in_flight.iter_mut().find(|slot| slot.number == number)
            && let Some(ticket) = slot.ticket.take()
        {
            ticket.settle(outcome);
        }
        while self.in_flight.front().is_some_and(|slot| slot.ticket.is_none()) {
            self.in_flight.pop_front();
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // However the driver ends, nobody waits for it in vain.
        self.lane.abandon();
    }
}

impl Delivery {
    /// Tries until the envelope is stored, refused for good, or out of time.
    async fn run(mut self, first: PendingAppend) -> Result<Appended, EmitError> {
        let mut pending = first;
        let mut pause = BACKOFF_MIN;
        loop {
            let error = match timeout_at(self.deadline, pending.wait()).await {
                Ok(Ok(appended)) => return Ok(appended),
                Ok(Err(error)) => error,
                Err(_) => return Err(EmitError::timed_out(self.outlet.options.delivery_timeout, true)),
            };
            self.may_be_stored |= error.may_be_stored();
            if !error.is_retryable() {
                return Err(self.give_up(&error));
            }
            let retry_at = Instant::now() + pause.mul_f64(rand::rng().random_range(0.5..1.0));
            sleep_until(retry_at.min(self.deadline)).await;
            if retry_at >= self.deadline {
                return Err(self.give_up(&error));
            }
            pause = (pause * 2).min(BACKOFF_MAX);
            self.outlet.retries.fetch_add(1, Ordering::Relaxed);
            pending = self.outlet.transport.append(self.partition, self.envelope.clone());
        }
    }

    fn give_up(&self, error: &AppendError) -> EmitError {
        EmitError::Unacknowledged { reason: error.to_string(), may_be_stored: self.may_be_stored }
    }
}

/// A source that no reader has seen before, from its beginning.
fn fresh_origin() -> Origin {
    Origin { source: rand::random(), epoch: 0, first_sequence: 0 }
}
