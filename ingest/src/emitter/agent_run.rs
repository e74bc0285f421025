//! The metering of one agent's run: its start, end or failure in, one usage record per
//! tick out. The quantities of a run's records add up to its duration in whole
//! milliseconds, whatever the emitter does meanwhile. Time is the monotonic clock's;
//! the wall clock is read once, at the start.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use odometer_schemas::quantity::Quantity;
use odometer_schemas::record::{Dimensions, Record};
use odometer_schemas::time::TimeMs;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::{EmitError, Emitter, PendingAck};

/// The meter of a run unless told otherwise; its base unit is the millisecond.
pub const METER_DEFAULT: &str = "agent_minute";
/// How often a run is metered: often enough for quotas to bite while it runs.
pub const TICK_DEFAULT: Duration = Duration::from_secs(10);

/// Whose run it is, and how it is metered.
#[derive(Clone, Debug)]
pub struct AgentRunOptions {
    /// The organisation that is billed.
    pub tenant: String,
    /// Who meters: the worker or its service.
    pub source: String,
    /// The user or agent.
    pub subject: Option<String>,
    /// Dimensions of every record, ascending by name.
    pub dimensions: Dimensions,
    /// The meter, whose base unit must be the millisecond.
    pub meter: String,
    /// How often the run is metered; at least a millisecond.
    pub tick: Duration,
    /// The wall clock, read once at the start.
    pub wall_clock: fn() -> TimeMs,
}

impl AgentRunOptions {
    /// A run of `tenant`, metered by `source` with everything else as usual.
    pub fn new(tenant: impl Into<String>, source: impl Into<String>) -> Self {
        Self {
            tenant: tenant.into(),
            source: source.into(),
            subject: None,
            dimensions: Dimensions::new(),
            meter: METER_DEFAULT.into(),
            tick: TICK_DEFAULT,
            wall_clock: || TimeMs::floor(Timestamp::now()),
        }
    }
}

/// A run that is being metered. Ends with [`finish`](Self::finish) or
/// [`fail`](Self::fail); dropping it settles it up to that moment without waiting for
/// the log.
#[derive(Debug)]
pub struct AgentRun {
    meter: Arc<Meter>,
    ticker: JoinHandle<()>,
}

/// A run that has ended and whose records are all stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunReport {
    /// Its duration in milliseconds, which is what it is billed.
    pub duration_ms: u64,
}

/// A run has ended, but not all of it is known to be stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("of a run of {duration_ms} ms, {unacknowledged_ms} ms are not known to be stored: {source}")]
pub struct RunError {
    /// The run's duration in milliseconds.
    pub duration_ms: u64,
    /// What of it was not acknowledged, in milliseconds; negative for a part that was
    /// to be taken back.
    pub unacknowledged_ms: i64,
    /// Why; of several reasons, the last.
    pub source: EmitError,
}

#[derive(Debug)]
struct Meter {
    emitter: Emitter,
    /// Every record but for its quantity and time.
    template: Record,
    started_at: Instant,
    started_time: TimeMs,
    account: Mutex<Account>,
}

#[derive(Debug, Default)]
struct Account {
    /// What the records so far add up to.
    settled_ms: u64,
    /// When the run ended; nothing is metered beyond.
    ended_at: Option<Instant>,
    /// Records that are not known to be stored, with their quantities. Bounded: the
    /// emitter answers each within its delivery timeout.
    pending: Vec<(i64, PendingAck)>,
    unacknowledged_ms: i64,
    last_error: Option<EmitError>,
}

impl AgentRun {
    /// Starts metering now.
    ///
    /// # Errors
    /// [`EmitError::Refused`] when the run's records could not enter the log.
    ///
    /// # Panics
    /// Outside a tokio runtime, and when the tick is zero.
    pub fn start(emitter: &Emitter, options: AgentRunOptions) -> Result<Self, EmitError> {
        assert!(!options.tick.is_zero(), "a run's tick must not be zero");
        let (started_at, started_time) = (Instant::now(), (options.wall_clock)());
        let template = Record {
            tenant: options.tenant,
            source: options.source,
            id: None,
            meter: options.meter,
            quantity: Quantity(0),
            time: Some(started_time),
            subject: options.subject,
            dimensions: options.dimensions,
            reservation: None,
        };
        template.validate()?;
        let (emitter, account) = (emitter.clone(), Mutex::default());
        let meter = Arc::new(Meter { emitter, template, started_at, started_time, account });
        let ticker = tokio::spawn(tick(Arc::clone(&meter), options.tick));
        Ok(Self { meter, ticker })
    }

    /// Ends the run now, and waits until all of it is stored.
    ///
    /// # Errors
    /// [`RunError`] when part of it is not known to be stored.
    pub async fn finish(self) -> Result<RunReport, RunError> {
        self.end(Instant::now()).await
    }

    /// Ends the run because it failed now; it is billed up to this moment.
    ///
    /// # Errors
    /// As [`AgentRun::finish`].
    pub async fn fail(self) -> Result<RunReport, RunError> {
        self.end(Instant::now()).await
    }

    /// Ends the run because it failed at `failed_at`; it is billed up to that moment.
    /// What was metered since is taken back by a record with a negative quantity.
    ///
    /// # Errors
    /// As [`AgentRun::finish`].
    pub async fn fail_at(self, failed_at: std::time::Instant) -> Result<RunReport, RunError> {
        self.end(Instant::from_std(failed_at).min(Instant::now())).await
    }

    /// What was metered so far, in milliseconds.
    #[must_use]
    pub fn settled_ms(&self) -> u64 {
        self.meter.account().settled_ms
    }

    async fn end(self, ended_at: Instant) -> Result<RunReport, RunError> {
        self.stop(ended_at);
        let meter = &self.meter;
        let due = meter.due(&meter.account(), ended_at);
        if let Some(record) = due {
            // Cancelled here, the destructor settles the rest.
            let answer = meter.emitter.emit(record.clone()).await;
            meter.enter(&mut meter.account(), &record, answer);
        }
        let pending = std::mem::take(&mut meter.account().pending);
        for (quantity_ms, ack) in pending {
            let outcome = ack.wait().await;
            meter.account().note(quantity_ms, outcome.err());
        }
        let duration_ms = meter.elapsed_ms(ended_at);
        let account = meter.account();
        match account.last_error.clone() {
            None => Ok(RunReport { duration_ms }),
            Some(source) => Err(RunError { duration_ms, unacknowledged_ms: account.unacknowledged_ms, source }),
        }
    }

    /// Stops the clock.
    fn stop(&self, ended_at: Instant) {
        self.ticker.abort();
        self.meter.account().ended_at.get_or_insert(ended_at);
    }
}

impl Drop for AgentRun {
    fn drop(&mut self) {
        self.stop(Instant::now());
        let meter = &self.meter;
        let mut account = meter.account();
        let ended_at = account.ended_at.unwrap_or_else(Instant::now);
        if let Some(record) = meter.due(&account, ended_at) {
            let answer = meter.emitter.emit_beyond_memory(&record);
            if let Err(error) = &answer {
                tracing::error!(%error, tenant = record.tenant, quantity_ms = record.quantity.0, "a dropped run was not settled");
            }
            meter.enter(&mut account, &record, answer);
        }
    }
}

/// Meters the run once per tick.
async fn tick(meter: Arc<Meter>, tick: Duration) {
    let mut ticks = interval_at(meter.started_at + tick, tick);
    // A late tick meters more, the ones it ran over have nothing left to meter.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        meter.settle(Instant::now());
    }
}

impl Meter {
    /// Emits what is due at `now`, if the emitter takes it; else the next tick does.
    fn settle(&self, now: Instant) {
        let mut account = self.account();
        account.forget_settled();
        if account.ended_at.is_some() {
            return;
        }
        if let Some(record) = self.due(&account, now) {
            let answer = self.emitter.try_emit(&record);
            self.enter(&mut account, &record, answer);
        }
    }

    /// The record that brings the account to `at`; none when it is there.
    fn due(&self, account: &Account, at: Instant) -> Option<Record> {
        let elapsed_ms = self.elapsed_ms(at);
        let quantity_ms = as_signed(elapsed_ms) - as_signed(account.settled_ms);
        if quantity_ms == 0 {
            return None;
        }
        let time = Some(self.started_time.plus_ms(as_signed(elapsed_ms)));
        Some(Record { quantity: Quantity(quantity_ms), time, ..self.template.clone() })
    }

    /// Enters what became of `record`. One that was not taken is still due.
    fn enter(&self, account: &mut Account, record: &Record, answer: Result<PendingAck, EmitError>) {
        let quantity_ms = record.quantity.0;
        match answer {
            Ok(ack) => {
                account.settled_ms = account.settled_ms.saturating_add_signed(quantity_ms);
                account.pending.push((quantity_ms, ack));
            }
            // Only a tick meets it, and the next one meters this one's time, too.
            Err(EmitError::Full) => {}
            Err(error) => {
                if account.ended_at.is_some() {
                    account.unacknowledged_ms += quantity_ms;
                }
                account.last_error = Some(error);
            }
        }
    }

    fn elapsed_ms(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.started_at).as_millis()).unwrap_or(u64::MAX)
    }

    fn account(&self) -> MutexGuard<'_, Account> {
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Account {
    /// Drops the records that are answered, and keeps what went wrong with them.
    fn forget_settled(&mut self) {
        let mut pending = std::mem::take(&mut self.pending);
        pending.retain(|(quantity_ms, ack)| match ack.outcome() {
            None => true,
            Some(outcome) => {
                self.note(*quantity_ms, outcome.err());
                false
            }
        });
        self.pending = pending;
    }

    fn note(&mut self, quantity_ms: i64, error: Option<EmitError>) {
        if let Some(error) = error {
            self.unacknowledged_ms += quantity_ms;
            self.last_error = Some(error);
        }
    }
}

/// Milliseconds of a run: 292 million years fit.
fn as_signed(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}
