//! The task that keeps a run's reservation: asks for it before the run starts, extends
//! it once per tick by what was used, states the total at the end. What it is told goes
//! to the run's standing. It never meters and never stops a run.

use std::sync::Arc;
use std::time::Duration;

use odometer_schemas::quota::{Answer, Commit, Decision, Extend, Item, Release, Reserve, TTL_MS_MAX, Who};
use odometer_schemas::time::TimeMs;
use rand::RngExt;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout_at};

use super::super::agent_run::Meter;
use super::{AskError, Denial, Question, QuotaClient, RunQuota, Standing, StartError, ms_of};

/// How long one attempt may take. A node answers in milliseconds, or another one owns
/// the tenant by now.
const ATTEMPT_MAX: Duration = Duration::from_secs(5);
/// The first pause before a question is repeated: a connection that broke is replaced
/// at once.
const BACKOFF_MIN: Duration = Duration::from_millis(20);
/// The longest pause: a run that may start should not wait for long.
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// For whom a run asks.
pub(in super::super) struct Request {
    pub(in super::super) who: Who,
    /// The meter of its time, in milliseconds.
    pub(in super::super) meter: String,
    pub(in super::super) tick: Duration,
}

/// A reservation that was granted, and how it stands from now on.
pub(in super::super) struct Granted {
    pub(in super::super) id: String,
    pub(in super::super) standing: watch::Receiver<Standing>,
}

/// A run that has started under a reservation.
pub(in super::super) struct Begun {
    pub(in super::super) meter: Arc<Meter>,
    /// Done, in whatever way, once the run has ended.
    pub(in super::super) ended: oneshot::Receiver<()>,
}

/// Keeps one run's reservation.
pub(in super::super) struct Keeper {
    quota: RunQuota,
    request: Request,
    /// What all ids of the run begin with.
    name: String,
    /// Reservations so far: another one follows where a period ends, or an outage
    /// outlived the one before.
    generation: u32,
    operations: u64,
    stage: Stage,
    /// What was asked and not answered yet. It is asked again as it is: with another
    /// body, its id could be held twice or refused.
    pending: Option<Question>,
    /// Held in all by this generation, drawn or not, in milliseconds.
    reserved_ms: u64,
    /// When the period of the reservation ends.
    period_end: Option<TimeMs>,
    standing: watch::Sender<Standing>,
}

/// What is asked next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// A reservation.
    Reserve,
    /// Its extension, by what was used.
    Extend,
    /// Its extension in time only, since more was denied.
    Prolong,
    /// Its end; another one follows. What it was used for, in milliseconds.
    Replace { used_ms: u64 },
}

/// Whether more is to be asked at this tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Ask,
    Rest,
}

/// The keeper's task: what of the reservation was not settled, and why.
pub(in super::super) type Kept = JoinHandle<Option<AskError>>;

impl Keeper {
    /// Asks for a reservation. A run that does not begin with it gives it back.
    pub(in super::super) async fn open(
        quota: RunQuota,
        request: Request,
    ) -> Result<(Granted, oneshot::Sender<Begun>, Kept), StartError> {
        let (opened, granted) = oneshot::channel();
        let (begin, begun) = oneshot::channel();
        // Ends by itself, when the run does and what it held was settled.
        let task = tokio::spawn(run(quota, request, opened, begun));
        let lost = || AskError::Unavailable { why: "the keeper has ended".into(), retry_after: None };
        let granted = granted.await.unwrap_or_else(|_| Err(StartError::Unanswered(lost())))?;
        Ok((granted, begin, task))
    }

    fn new(quota: RunQuota, request: Request) -> Self {
        let nothing = Standing::Unanswered(AskError::Unavailable { why: "not asked yet".into(), retry_after: None });
        Self {
            quota,
            request,
            name: format!("run-{:032x}", rand::random::<u128>()),
            generation: 1,
            operations: 0,
            stage: Stage::Reserve,
            pending: None,
            reserved_ms: 0,
            period_end: None,
            standing: watch::channel(nothing).0,
        }
    }

    fn id(&self) -> String {
        format!("{}-{}", self.name, self.generation)
    }

    fn ttl_ms(&self) -> i64 {
        i64::try_from(ms_of(self.quota.ttl(self.request.tick))).unwrap_or(TTL_MS_MAX).clamp(1, TTL_MS_MAX)
    }

    fn time(&self, amount_ms: u64) -> Item {
        Item { meter: self.request.meter.clone(), amount: amount_ms }
    }

    fn reserve(&self) -> Reserve {
        let ahead = self.quota.ahead(self.request.tick);
        let first = if self.generation == 1 { self.quota.estimate.unwrap_or(ahead) } else { ahead };
        let slot = self.quota.slot.iter().map(|slot| Item { meter: slot.clone(), amount: 1 });
        Reserve {
            id: self.id(),
            who: self.request.who.clone(),
            ttl_ms: self.ttl_ms(),
            items: slot.chain([self.time(ms_of(first))]).collect(),
            durability: self.quota.durability,
        }
    }

    fn next_op(&mut self) -> String {
        self.operations += 1;
        self.operations.to_string()
    }

    fn extend(&mut self, add_ms: u64) -> Question {
        let add = if add_ms == 0 { Vec::new() } else { vec![self.time(add_ms)] };
        Question::Extend(Extend {
            tenant: self.request.who.tenant.clone(),
            id: self.id(),
            op_id: self.next_op(),
            ttl_ms: self.ttl_ms(),
            add,
            durability: self.quota.durability,
        })
    }

    fn commit(&mut self, used_ms: u64) -> Question {
        Question::Commit(Commit {
            tenant: self.request.who.tenant.clone(),
            id: self.id(),
            op_id: self.next_op(),
            items: vec![self.time(used_ms)],
            is_final: true,
            durability: self.quota.durability,
        })
    }

    fn release(&mut self) -> Question {
        Question::Release(Release {
            tenant: self.request.who.tenant.clone(),
            id: self.id(),
            op_id: self.next_op(),
            durability: self.quota.durability,
        })
    }

    /// Asks what this tick asks, as far as anybody answers.
    async fn keep(&mut self, meter: &Meter) {
        loop {
            let is_old = self.pending.is_some();
            let question = self.pending.clone().unwrap_or_else(|| self.question(meter));
            self.pending = Some(question.clone());
            let outcome =
                insist(&*self.quota.client, &question, Instant::now() + self.request.tick.max(ATTEMPT_MAX)).await;
            if let Err(error) = &outcome
                && error.is_retryable()
            {
                self.show(Standing::Unanswered(error.clone()));
                return;
            }
            self.pending = None;
            if self.hear(meter, &question, outcome) == Next::Rest && !is_old {
                return;
            }
        }
    }

    fn question(&mut self, meter: &Meter) -> Question {
        match self.stage {
            Stage::Reserve => Question::Reserve(self.reserve()),
            Stage::Extend => {
                let ahead_ms = ms_of(self.quota.ahead(self.request.tick));
                let needed_ms = meter.elapsed_under_reservation_ms(Instant::now()).saturating_add(ahead_ms);
                self.extend(needed_ms.saturating_sub(self.reserved_ms))
            }
            Stage::Prolong => self.extend(0),
            Stage::Replace { used_ms } => self.commit(used_ms),
        }
    }

    /// Takes an answer in.
    fn hear(&mut self, meter: &Meter, question: &Question, outcome: Result<Answer, AskError>) -> Next {
        match (question, outcome) {
            (Question::Reserve(reserve), Ok(answer)) => self.hear_reserved(meter, reserve, answer),
            (Question::Extend(extend), Ok(answer)) => self.hear_extended(meter, extend, answer),
            (Question::Extend(_), Err(AskError::Gone { .. })) => self.replace(meter),
            // Whatever became of the one before: another one is asked for.
            (Question::Commit(_) | Question::Release(_), _) => {
                self.generation += 1;
                self.stage = Stage::Reserve;
                Next::Ask
            }
            (Question::Reserve(_) | Question::Extend(_), Err(error)) => {
                // Asked anew at the next tick, under another id if need be.
                self.generation += u32::from(matches!(question, Question::Reserve(_)));
                self.show(Standing::Unanswered(error));
                Next::Rest
            }
        }
    }

    fn hear_reserved(&mut self, meter: &Meter, reserve: &Reserve, answer: Answer) -> Next {
        if answer.decision == Decision::Deny {
            self.show(Standing::OverLimit(Denial::of(answer)));
            return Next::Rest;
        }
        self.hold(reserve, &answer);
        meter.carry(Some(self.id()));
        self.show(Standing::Held(answer));
        Next::Rest
    }

    fn hear_extended(&mut self, meter: &Meter, extend: &Extend, answer: Answer) -> Next {
        let is_over = self.period_end.is_some_and(|end| now_of(&answer) >= end);
        let is_denied = answer.decision == Decision::Deny;
        if is_over {
            return self.replace(meter);
        }
        if is_denied {
            self.stage = Stage::Prolong;
            self.show(Standing::OverLimit(Denial::of(answer)));
            return Next::Ask;
        }
        for item in &extend.add {
            self.reserved_ms = self.reserved_ms.saturating_add(item.amount);
        }
        // One that only prolongs says nothing about what was denied.
        if self.stage == Stage::Extend {
            self.show(Standing::Held(answer));
        }
        self.stage = Stage::Extend;
        Next::Rest
    }

    /// The reservation is held.
    fn hold(&mut self, reserve: &Reserve, answer: &Answer) {
        let time = |item: &&Item| item.meter == self.request.meter;
        self.reserved_ms = reserve.items.iter().find(time).map_or(0, |item| item.amount);
        let limits = answer.limits.iter().filter(|limit| limit.meter == self.request.meter);
        self.period_end = limits.filter_map(|limit| limit.resets_at).min();
        self.stage = Stage::Extend;
    }

    /// Another reservation is to follow. Until it is there, records carry none.
    fn replace(&mut self, meter: &Meter) -> Next {
        let used_ms = meter.used_under_reservation_ms().unwrap_or(0);
        meter.carry(None);
        self.stage = Stage::Replace { used_ms };
        Next::Ask
    }

    fn show(&self, standing: Standing) {
        let was_answered = !matches!(&*self.standing.borrow(), Standing::Unanswered(_));
        if let Standing::Unanswered(error) = &standing
            && was_answered
        {
            tracing::warn!(%error, tenant = self.request.who.tenant, "a run's quota was not answered");
        }
        self.standing.send_replace(standing);
    }

    /// States what was used, for as long as the run is patient.
    async fn settle(mut self, meter: &Meter) -> Option<AskError> {
        let mut questions = match self.pending.take() {
            Some(commit @ Question::Commit(_)) => vec![commit],
            // Perhaps it is held.
            Some(Question::Reserve(_)) => vec![self.release()],
            _ => Vec::new(),
        };
        if let Some(used_ms) = meter.used_under_reservation_ms() {
            questions.push(self.commit(used_ms));
        }
        let mut failed = None;
        for question in questions {
            let until = Instant::now() + self.quota.patience;
            let error = insist(&*self.quota.client, &question, until).await.err();
            let is_fine = matches!((&question, &error), (Question::Release(_), Some(AskError::Gone { .. })));
            failed = error.filter(|_| !is_fine).or(failed);
        }
        if let Some(error) = &failed {
            tracing::warn!(%error, tenant = self.request.who.tenant, "a run's reservation was not settled: its life ends it");
        }
        failed
    }
}

/// From the first question to the last.
async fn run(
    quota: RunQuota,
    request: Request,
    opened: oneshot::Sender<Result<Granted, StartError>>,
    begun: oneshot::Receiver<Begun>,
) -> Option<AskError> {
    let until = Instant::now() + quota.patience;
    let mut keeper = Keeper::new(quota, request);
    let reserve = keeper.reserve();
    let outcome = insist(&*keeper.quota.client, &Question::Reserve(reserve.clone()), until).await;
    let may_be_held = match outcome {
        Ok(answer) if answer.decision == Decision::Deny => {
            // Whoever stopped waiting does not want to know.
            let _ = opened.send(Err(StartError::Denied(Denial::of(answer))));
            return None;
        }
        Ok(answer) => {
            keeper.hold(&reserve, &answer);
            keeper.show(Standing::Held(answer));
            let _ = opened.send(Ok(Granted { id: keeper.id(), standing: keeper.standing.subscribe() }));
            if let Ok(begun) = begun.await {
                return attend(keeper, begun).await;
            }
            true
        }
        Err(error) => {
            let may_be_held = error.is_retryable();
            let _ = opened.send(Err(StartError::Unanswered(error)));
            may_be_held
        }
    };
    if may_be_held {
        let (release, until) = (keeper.release(), Instant::now() + keeper.quota.patience);
        return insist(&*keeper.quota.client, &release, until).await.err();
    }
    None
}

/// Keeps the reservation while the run goes on, and settles it then.
async fn attend(mut keeper: Keeper, begun: Begun) -> Option<AskError> {
    let Begun { meter, mut ended } = begun;
    let tick = keeper.request.tick;
    let mut ticks = interval_at(meter.started_at() + tick, tick);
    // A late tick asks for more, the ones it ran over have nothing left to ask.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let keeping = async {
        loop {
            ticks.tick().await;
            keeper.keep(&meter).await;
        }
    };
    tokio::select! {
        () = keeping => {}
        _ = &mut ended => {}
    }
    keeper.settle(&meter).await
}

/// Asks until there is an answer that stays, or until then; at least once.
async fn insist(client: &dyn QuotaClient, question: &Question, until: Instant) -> Result<Answer, AskError> {
    let mut pause = BACKOFF_MIN;
    loop {
        let attempt_until = (Instant::now() + ATTEMPT_MAX).min(until);
        let late = || AskError::Unavailable { why: "no answer in time".into(), retry_after: None };
        let outcome = timeout_at(attempt_until, client.ask(question.clone())).await.unwrap_or_else(|_| Err(late()));
        let Err(AskError::Unavailable { why, retry_after }) = outcome else { return outcome };
        let spread = pause.mul_f64(rand::rng().random_range(0.5..1.0));
        let again_at = Instant::now() + retry_after.map_or(spread, |after| after.min(BACKOFF_MAX).max(spread));
        if again_at >= until {
            return Err(AskError::Unavailable { why, retry_after });
        }
        sleep_until(again_at).await;
        pause = (pause * 2).min(BACKOFF_MAX);
    }
}

/// When it was decided.
fn now_of(answer: &Answer) -> TimeMs {
    answer.as_of.plus_ms(answer.lag_ms)
}
