//! Where records gather: one open envelope and a queue of full ones per partition and
//! kind of id. Records enter under a short lock on the caller's thread; the lane's
//! driver takes envelopes out. Never sends, never waits.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use odometer_schemas::envelope::EnvelopeBuilder;
use odometer_schemas::limits::ENVELOPE_RECORDS_MAX;
use odometer_schemas::record::Record;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::EmitError;
use super::ack::{Completion, Ledger, PendingAck, Ticket};

/// The records of one partition on their way into envelopes.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) partition: u32,
    ledger: Arc<Ledger>,
    state: Mutex<State>,
    /// Wakes the driver.
    pub(super) news: Notify,
}

#[derive(Debug, Default)]
struct State {
    open: Option<Batch>,
    /// Full envelopes; bounded by the emitter's memory.
    full: VecDeque<Batch>,
    /// Envelopes with the driver, oldest first.
    sent: VecDeque<Arc<Completion>>,
    /// One whose envelope was sealed: its tables have the size that this lane needs.
    spare: Option<EnvelopeBuilder>,
    is_closed: bool,
}

/// One envelope's worth of records.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) builder: EnvelopeBuilder,
    pub(super) ticket: Ticket,
    pub(super) opened_at: Instant,
}

/// What the driver finds in its lane.
#[derive(Debug)]
pub(super) enum Next {
    /// An envelope to send.
    Send(Box<Batch>),
    /// Nothing until then, or until news.
    Wait(Option<Instant>),
    /// Nothing ever again.
    End,
}

impl Lane {
    pub(super) fn new(partition: u32, ledger: Arc<Ledger>) -> Self {
        Self { partition, ledger, state: Mutex::default(), news: Notify::new() }
    }

    /// Adds a record that was validated and whose memory was reserved.
    pub(super) fn push(&self, record: &Record, cost_bytes: usize) -> Result<PendingAck, EmitError> {
        let mut state = self.state();
        if state.is_closed {
            return Err(EmitError::Closed);
        }
        if state.open.as_mut().is_none_or(|batch| batch.builder.push(record).is_err()) {
            let outgrown = state.open.take();
            state.full.extend(outgrown);
            let builder = state.spare.take().unwrap_or_default();
            state.open = Some(self.open_with(builder, record));
            // One more full envelope, or a new time to wait for.
            self.news.notify_one();
        }
        let batch = state.open.as_mut().expect("a batch was opened if there was none");
        let ack = batch.ticket.admit(cost_bytes);
        if batch.builder.len() == ENVELOPE_RECORDS_MAX {
            let filled = state.open.take();
            state.full.extend(filled);
            self.news.notify_one();
        }
        Ok(ack)
    }

    fn open_with(&self, mut builder: EnvelopeBuilder, first: &Record) -> Batch {
        // The limits make room for at least four of the largest records.
        builder.push(first).expect("an empty envelope takes any valid record");
        let ticket = Ticket::new(self.partition, Arc::clone(&self.ledger));
        Batch { builder, ticket, opened_at: Instant::now() }
    }

    /// Takes back the empty builder of an envelope that was sealed.
    pub(super) fn give_back(&self, builder: EnvelopeBuilder) {
        self.state().spare = Some(builder);
    }

    /// What to do at `now`. An open envelope is taken once it has waited for `linger`.
    pub(super) fn next(&self, now: Instant, linger: Duration) -> Next {
        let mut state = self.state();
        let is_closed = state.is_closed;
        let due_at = |batch: &Batch| batch.opened_at + linger;
        if state.full.is_empty() {
            match &state.open {
                None if is_closed => return Next::End,
                Some(batch) if !is_closed && due_at(batch) > now => return Next::Wait(Some(due_at(batch))),
                _ => {}
            }
        }
        let Some(batch) = state.full.pop_front().or_else(|| state.open.take()) else { return Next::Wait(None) };
        while state.sent.front().is_some_and(|sent| sent.is_settled()) {
            state.sent.pop_front();
        }
        state.sent.push_back(batch.ticket.completion());
        Next::Send(Box::new(batch))
    }

    /// Makes the open envelope a full one, and returns everything that is not settled
    /// yet.
    pub(super) fn flush(&self) -> Vec<Arc<Completion>> {
        let mut state = self.state();
        let open = state.open.take();
        state.full.extend(open);
        self.news.notify_one();
        let queued = state.full.iter().map(|batch| batch.ticket.completion());
        state.sent.iter().cloned().chain(queued).filter(|completion| !completion.is_settled()).collect()
    }

    /// Takes no more records; those that are here still go out.
    pub(super) fn close(&self) {
        self.state().is_closed = true;
        self.news.notify_one();
    }

    /// Takes no more records, and answers those that are here as stopped.
    pub(super) fn abandon(&self) {
        let left = {
            let mut state = self.state();
            state.is_closed = true;
            (state.open.take(), std::mem::take(&mut state.full))
        };
        // Answered outside the lock: whoever wakes may look at the lane.
        for batch in left.0.into_iter().chain(left.1) {
            batch.ticket.settle(Err(EmitError::stopped(false)));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
