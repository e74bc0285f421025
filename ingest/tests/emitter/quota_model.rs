//! A place that decides about quota by itself, in memory, and may lose questions and
//! answers. Holds whoever asks to its word: an id means one body.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use odometer_ingest::emitter::quota::contract::Place;
use odometer_ingest::emitter::quota::{AskError, BoxFuture, Question, QuotaClient, RunQuota};
use odometer_ingest::emitter::{Emitter, EmitterOptions};
use odometer_ingest::log::LogAppender;
use odometer_schemas::quota::{Answer, Decision, Item, LimitState, Scope};
use odometer_schemas::time::TimeMs;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::{Instant, sleep};

use crate::logs::MemoryLog;

/// When the model's clock starts.
pub(crate) const NOON: TimeMs = TimeMs(1_700_000_000_000);

/// What becomes of questions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// Each question or answer is lost with this chance in percent.
    Lossy(u8),
    /// Every question is lost.
    Away,
    /// Every answer is lost.
    Deaf,
    /// No question is ever answered, nor refused.
    Silent,
}

pub(crate) struct Model {
    started_at: Instant,
    pub(crate) log: Arc<MemoryLog>,
    state: Mutex<State>,
}

struct State {
    agents: i64,
    time_ms: i64,
    fault: Fault,
    rng: StdRng,
    /// When the period ends, in milliseconds after the start.
    period_ends_after_ms: i64,
    reservations: BTreeMap<String, Reservation>,
    /// Every question that arrived, in order, repetitions included.
    asked: Vec<Question>,
    operations: BTreeMap<(String, String), Question>,
}

#[derive(Clone)]
struct Reservation {
    body: Question,
    slot: i64,
    reserved_ms: i64,
    committed_ms: Option<i64>,
    expires_ms: i64,
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Model")
    }
}

impl Model {
    pub(crate) fn new(agents: i64, time_ms: i64) -> Arc<Self> {
        let state = State {
            agents,
            time_ms,
            fault: Fault::None,
            rng: StdRng::seed_from_u64(7),
            period_ends_after_ms: i64::MAX / 2,
            reservations: BTreeMap::new(),
            asked: Vec::new(),
            operations: BTreeMap::new(),
        };
        Arc::new(Self { started_at: Instant::now(), log: MemoryLog::new(2), state: Mutex::new(state) })
    }

    pub(crate) fn set_fault(&self, fault: Fault) {
        self.state().fault = fault;
    }

    pub(crate) fn set_limits(&self, agents: i64, time_ms: i64) {
        let mut state = self.state();
        (state.agents, state.time_ms) = (agents, time_ms);
    }

    pub(crate) fn end_period_after(&self, ms: i64) {
        self.state().period_ends_after_ms = ms;
    }

    /// Everything that arrived.
    pub(crate) fn asked(&self) -> Vec<Question> {
        self.state().asked.clone()
    }

    /// (used, held) of time, and slots held.
    pub(crate) fn standing(&self) -> ((i64, i64), i64) {
        let state = self.state();
        ((self.used_ms(), self.held_ms(&state)), self.slots(&state))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("not poisoned")
    }

    fn now_ms(&self) -> i64 {
        i64::try_from(self.started_at.elapsed().as_millis()).expect("a short test")
    }

    fn used_ms(&self) -> i64 {
        self.log.records().iter().map(|record| record.quantity.0).sum()
    }

    fn drawn_ms(&self, id: &str) -> i64 {
        let records = self.log.records();
        let drawing = records.iter().filter(|record| record.reservation.as_deref() == Some(id));
        drawing.map(|record| record.quantity.0.max(0)).sum()
    }

    fn held_ms(&self, state: &State) -> i64 {
        let held = |(id, r): (&String, &Reservation)| {
            let is_over = r.committed_ms.is_none() && r.expires_ms <= self.now_ms();
            let whole = if is_over { 0 } else { r.committed_ms.unwrap_or(r.reserved_ms) };
            (whole - self.drawn_ms(id)).max(0)
        };
        state.reservations.iter().map(held).sum()
    }

    fn slots(&self, state: &State) -> i64 {
        let open = |r: &&Reservation| r.committed_ms.is_none() && r.expires_ms > self.now_ms();
        state.reservations.values().filter(open).map(|r| r.slot).sum()
    }

    fn decide(&self, state: &mut State, question: &Question) -> Result<Answer, AskError> {
        if let Some((id, op)) = operation_of(question) {
            if !state.reservations.contains_key(id) {
                return Err(AskError::Gone { why: "unknown".into() });
            }
            let known = state.operations.get(&(id.to_owned(), op.to_owned()));
            assert!(known.is_none_or(|known| known == question), "another body under {op}: {known:?}, {question:?}");
            if known.is_some() {
                return Ok(self.answer(state, Decision::Allow));
            }
        }
        let decided = match question {
            Question::Reserve(reserve) => {
                if let Some(known) = state.reservations.get(&reserve.id) {
                    assert_eq!(known.body, *question, "another body under {}", reserve.id);
                    return Ok(self.answer(state, Decision::Allow));
                }
                let (slot, time) = (amount(&reserve.items, "agents"), amount(&reserve.items, "agent_minute"));
                if !self.fits(state, slot, time) {
                    return Ok(self.answer(state, Decision::Deny));
                }
                let expires_ms = self.now_ms() + reserve.ttl_ms;
                let body = question.clone();
                let held = Reservation { body, slot, reserved_ms: time, committed_ms: None, expires_ms };
                state.reservations.insert(reserve.id.clone(), held);
                Decision::Allow
            }
            Question::Extend(extend) => {
                let time = amount(&extend.add, "agent_minute");
                let fits = self.fits(state, 0, time);
                let (now_ms, held) = (self.now_ms(), state.reservations.get_mut(&extend.id).expect("known"));
                if held.committed_ms.is_some() || held.expires_ms <= now_ms {
                    return Err(AskError::Gone { why: "ended".into() });
                }
                if time > 0 && !fits {
                    return Ok(self.answer(state, Decision::Deny));
                }
                (held.reserved_ms, held.expires_ms) = (held.reserved_ms + time, now_ms + extend.ttl_ms);
                Decision::Allow
            }
            Question::Commit(commit) => {
                let total = amount(&commit.items, "agent_minute");
                assert!(commit.is_final);
                state.reservations.get_mut(&commit.id).expect("known").committed_ms = Some(total);
                Decision::Allow
            }
            Question::Release(release) => {
                state.reservations.get_mut(&release.id).expect("known").committed_ms = Some(0);
                Decision::Allow
            }
        };
        if let Some((id, op)) = operation_of(question) {
            state.operations.insert((id.to_owned(), op.to_owned()), question.clone());
        }
        Ok(self.answer(state, decided))
    }

    fn fits(&self, state: &State, slot: i64, time: i64) -> bool {
        self.slots(state) + slot <= state.agents && self.used_ms() + self.held_ms(state) + time <= state.time_ms
    }

    fn answer(&self, state: &State, decision: Decision) -> Answer {
        let limit = |meter: &str, limit: i64, used: i64, reserved: i64| LimitState {
            policy: format!("free/{meter}/tenant"),
            scope: Scope::Tenant,
            meter: meter.into(),
            limit: Some(limit),
            hard_limit: Some(limit),
            used,
            reserved,
            remaining: Some((limit - used - reserved).max(0)),
            resets_at: (meter == "agent_minute").then(|| NOON.plus_ms(state.period_ends_after_ms)),
        };
        let (used, held, slots) = (self.used_ms(), self.held_ms(state), self.slots(state));
        let violated = if decision == Decision::Allow {
            Vec::new()
        } else if slots >= state.agents {
            vec!["free/agents/tenant".into()]
        } else {
            vec!["free/agent_minute/tenant".into()]
        };
        Answer {
            decision,
            reservation_id: None,
            expires_at: None,
            limits: vec![limit("agents", state.agents, 0, slots), limit("agent_minute", state.time_ms, used, held)],
            violated,
            as_of: NOON,
            lag_ms: self.now_ms(),
            degraded: false,
            late: false,
        }
    }
}

impl QuotaClient for Model {
    fn ask(&self, question: Question) -> BoxFuture<'_, Result<Answer, AskError>> {
        Box::pin(async move {
            // As long as a decision takes.
            sleep(Duration::from_millis(1)).await;
            let lost = |what: &str| AskError::Unavailable { why: format!("{what} was lost"), retry_after: None };
            let (fault, asks, hears) = {
                let mut state = self.state();
                let (asks, hears) = (state.rng.random_range(0..100), state.rng.random_range(0..100));
                (state.fault, asks, hears)
            };
            match fault {
                Fault::Away => return Err(lost("the question")),
                Fault::Silent => std::future::pending().await,
                Fault::Lossy(percent) if asks < percent => return Err(lost("the question")),
                Fault::Lossy(_) | Fault::Deaf | Fault::None => {}
            }
            let answer = {
                let mut state = self.state();
                state.asked.push(question.clone());
                self.decide(&mut state, &question)
            };
            match fault {
                Fault::Deaf => Err(lost("the answer")),
                Fault::Lossy(percent) if hears < percent => Err(lost("the answer")),
                _ => answer,
            }
        })
    }
}

/// Runs metered into a log in memory, with quota decided by the model.
pub(crate) struct ModelPlace {
    pub(crate) model: Arc<Model>,
    emitter: Emitter,
}

impl ModelPlace {
    pub(crate) fn new(agents: i64, time_ms: i64) -> Self {
        let model = Model::new(agents, time_ms);
        let log = Arc::clone(&model.log) as Arc<dyn LogAppender>;
        let emitter = Emitter::start(log, EmitterOptions::default()).expect("the options work");
        Self { model, emitter }
    }
}

impl Place for ModelPlace {
    fn emitter(&self) -> &Emitter {
        &self.emitter
    }

    fn quota(&self) -> RunQuota {
        RunQuota::new(Arc::clone(&self.model) as Arc<dyn QuotaClient>)
    }

    async fn limit(&self, agents: i64, time_ms: i64) {
        self.model.set_limits(agents, time_ms);
    }

    async fn stands(&self, meter: &str) -> (i64, i64) {
        let (time, slots) = self.model.standing();
        if meter == "agents" { (0, slots) } else { time }
    }
}

/// The reservation and the id of an operation on one.
fn operation_of(question: &Question) -> Option<(&str, &str)> {
    match question {
        Question::Reserve(_) => None,
        Question::Extend(extend) => Some((&extend.id, &extend.op_id)),
        Question::Commit(commit) => Some((&commit.id, &commit.op_id)),
        Question::Release(release) => Some((&release.id, &release.op_id)),
    }
}

fn amount(items: &[Item], meter: &str) -> i64 {
    items.iter().find(|item| item.meter == meter).map_or(0, |item| i64::try_from(item.amount).expect("small"))
}
