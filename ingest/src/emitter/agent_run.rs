//! The metering of one agent's run: its start, end or failure in, one usage record per
//! tick out. The quantities of a run's records add up to its duration in whole
//! milliseconds, whatever the emitter and quota do meanwhile. Time is the monotonic
//! clock's; the wall clock is read once, at the start.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use odometer_schemas::quantity::Quantity;
use odometer_schemas::quota::Who;
use odometer_schemas::record::{Dimensions, Record};
use odometer_schemas::time::TimeMs;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::quota::{AskError, Begun, Denial, Keeper, Request, RunQuota, Standing, StartError};
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

    /// Every record but for its quantity, time and reservation.
    fn template(self, started_time: TimeMs) -> Result<Record, EmitError> {
        assert!(!self.tick.is_zero(), "a run's tick must not be zero");
        let template = Record {
            tenant: self.tenant,
            source: self.source,
            id: None,
            meter: self.meter,
            quantity: Quantity(0),
            time: Some(started_time),
            subject: self.subject,
            dimensions: self.dimensions,
            reservation: None,
        };
        template.validate()?;
        Ok(template)
    }
}

/// A run that is being metered. Ends with [`finish`](Self::finish) or
/// [`fail`](Self::fail); dropping it settles it up to that moment without waiting for
/// the log or for quota.
#[derive(Debug)]
pub struct AgentRun {
    meter: Arc<Meter>,
    ticker: JoinHandle<()>,
    kept: Option<Kept>,
}

/// What is kept of a run within quota.
#[derive(Debug)]
struct Kept {
    standing: watch::Receiver<Standing>,
    /// Dropped when the run ends.
    going_on: oneshot::Sender<()>,
    /// Ends by itself once the reservation is settled, or its patience is over.
    keeper: JoinHandle<Option<AskError>>,
}

/// A run that has ended and whose records are all stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunReport {
    /// Its duration in milliseconds, which is what it is billed.
    pub duration_ms: u64,
    /// Why the total of a run within quota could not be stated: what it still holds
    /// ends by itself. What it is billed is the same.
    pub unsettled: Option<AskError>,
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
    /// As in [`RunReport`].
    pub unsettled: Option<AskError>,
}

#[derive(Debug)]
pub(super) struct Meter {
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
    /// What its records draw on.
    reservation: Option<Carried>,
    /// Records that are not known to be stored, with their quantities. Bounded: the
    /// emitter answers each within its delivery timeout.
    pending: Vec<(i64, PendingAck)>,
    unacknowledged_ms: i64,
    last_error: Option<EmitError>,
}

/// A reservation that a run's records carry.
#[derive(Debug)]
struct Carried {
    id: String,
    /// What was metered before it.
    from_ms: u64,
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
        let (tick, started_time) = (options.tick, (options.wall_clock)());
        Ok(Self::begin(emitter, tick, (options.template(started_time)?, started_time), None))
    }

    /// Asks `quota` for a slot and the time ahead, and starts metering once it is
    /// granted; the wait is not billed. The run's records draw on the reservation, each
    /// tick extends it by what was used, and the end of the run settles it. Cancelling
    /// this gives back what was reserved.
    ///
    /// What a plan says later does not stop the run: [`AgentRun::over_limit`] tells.
    ///
    /// # Errors
    /// [`StartError::Denied`] with the limits; [`StartError::Unanswered`] when nobody
    /// could be asked within the quota's patience, or what was asked is wrong: start
    /// without quota if it may run all the same; [`StartError::Refused`] as
    /// [`AgentRun::start`].
    ///
    /// # Panics
    /// As [`AgentRun::start`].
    pub async fn start_within(
        emitter: &Emitter,
        options: AgentRunOptions,
        quota: RunQuota,
    ) -> Result<Self, StartError> {
        let (asked_at, asked_time) = (Instant::now(), (options.wall_clock)());
        let who = Who { tenant: options.tenant.clone(), subject: options.subject.clone(), key: quota.key.clone() };
        let request = Request { who, meter: options.meter.clone(), tick: options.tick };
        let (tick, template) = (options.tick, options.template(asked_time)?);
        let (granted, begin, keeper) = Keeper::open(quota, request).await?;
        let waited_ms = u64::try_from(asked_at.elapsed().as_millis()).unwrap_or(u64::MAX);
        let started_time = asked_time.plus_ms(as_signed(waited_ms));
        let mut run = Self::begin(emitter, tick, (template, started_time), Some(granted.id));
        let (going_on, ended) = oneshot::channel();
        let meter = Arc::clone(&run.meter);
        // A keeper that is no more says so when the run ends.
        drop(begin.send(Begun { meter, ended }));
        run.kept = Some(Kept { standing: granted.standing, going_on, keeper });
        Ok(run)
    }

    fn begin(
        emitter: &Emitter,
        tick_every: Duration,
        (template, started_time): (Record, TimeMs),
        reservation: Option<String>,
    ) -> Self {
        let reservation = reservation.map(|id| Carried { id, from_ms: 0 });
        let account = Mutex::new(Account { reservation, ..Account::default() });
        let (emitter, started_at) = (emitter.clone(), Instant::now());
        let meter = Arc::new(Meter { emitter, template, started_at, started_time, account });
        let ticker = tokio::spawn(tick(Arc::clone(&meter), tick_every));
        Self { meter, ticker, kept: None }
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

    /// How the run stands with its quota; none for a run that was started without.
    #[must_use]
    pub fn standing(&self) -> Option<watch::Receiver<Standing>> {
        self.kept.as_ref().map(|kept| kept.standing.clone())
    }

    /// Waits until what the run will use next was denied; for ever if it never is. The
    /// run is metered on: spent is spent. Finish it, or let it go on.
    pub async fn over_limit(&self) -> Denial {
        if let Some(mut standing) = self.standing()
            && let Ok(standing) = standing.wait_for(|standing| matches!(standing, Standing::OverLimit(_))).await
            && let Standing::OverLimit(denial) = &*standing
        {
            return denial.clone();
        }
        std::future::pending().await
    }

    /// The reservation that records of this run draw on now: give it to records of the
    /// same work. None without quota, and while another one is asked for.
    #[must_use]
    pub fn reservation(&self) -> Option<String> {
        self.meter.account().reservation.as_ref().map(|carried| carried.id.clone())
    }

    async fn end(mut self, ended_at: Instant) -> Result<RunReport, RunError> {
        self.stop(ended_at);
        let kept = self.kept.take();
        let ((), unsettled) = tokio::join!(self.deliver(ended_at), settle(kept));
        let duration_ms = self.meter.elapsed_ms(ended_at);
        let account = self.meter.account();
        match account.last_error.clone() {
            None => Ok(RunReport { duration_ms, unsettled }),
            Some(source) => {
                let unacknowledged_ms = account.unacknowledged_ms;
                Err(RunError { duration_ms, unacknowledged_ms, source, unsettled })
            }
        }
    }

    /// Emits what is due, and waits for all that was emitted.
    async fn deliver(&self, ended_at: Instant) {
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

/// Tells a run's keeper that it has ended, and waits for the reservation's end.
async fn settle(kept: Option<Kept>) -> Option<AskError> {
    let Kept { going_on, keeper, .. } = kept?;
    drop(going_on);
    let lost = |error| AskError::Unavailable { why: format!("its keeper: {error}"), retry_after: None };
    keeper.await.unwrap_or_else(|error| Some(lost(error)))
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
        let reservation = account.reservation.as_ref().map(|carried| carried.id.clone());
        Some(Record { quantity: Quantity(quantity_ms), time, reservation, ..self.template.clone() })
    }

    pub(super) fn started_at(&self) -> Instant {
        self.started_at
    }

    /// The reservation that records carry from now on.
    pub(super) fn carry(&self, id: Option<String>) {
        let mut account = self.account();
        let from_ms = account.settled_ms;
        account.reservation = id.map(|id| Carried { id, from_ms });
    }

    /// What records of the reservation add up to, in milliseconds: so far or, once the
    /// run has ended, in all. None without a reservation.
    pub(super) fn used_under_reservation_ms(&self) -> Option<u64> {
        let account = self.account();
        let until_ms = account.ended_at.map_or(account.settled_ms, |ended_at| self.elapsed_ms(ended_at));
        account.reservation.as_ref().map(|carried| until_ms.saturating_sub(carried.from_ms))
    }

    /// What records of the reservation would add up to if the run ended now.
    pub(super) fn elapsed_under_reservation_ms(&self, now: Instant) -> u64 {
        let account = self.account();
        let from_ms = account.reservation.as_ref().map_or(account.settled_ms, |carried| carried.from_ms);
        self.elapsed_ms(now).saturating_sub(from_ms)
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
