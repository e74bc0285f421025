//! Quota for runs: what a run asks, who answers, and what a run is told. A run within
//! quota holds a slot and the time ahead of it, and settles what it used.
//!
//! Billing never depends on any of it: records are emitted whatever is answered.

#[cfg(any(test, feature = "testing"))]
pub mod contract;
pub mod http;
mod keeper;
mod wire;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use odometer_schemas::quota::{Answer, Commit, Durability, Extend, LimitState, Plan, QuotaError, Release, Reserve};

pub use http::HttpQuota;
pub(super) use keeper::{Begun, Keeper, Request};

use super::EmitError;

/// How long a question may stay without an answer where somebody waits for it: longer
/// than a node takes to restart, or another one to take over.
pub const PATIENCE_DEFAULT: Duration = Duration::from_secs(20);
/// A reservation outlives this many ticks that were missed.
const TICKS_PER_TTL: u32 = 6;
/// The shortest life of a reservation unless told otherwise: longer than a cluster
/// takes to give a tenant another owner.
const TTL_MIN: Duration = Duration::from_secs(60);
/// Ticks that are held ahead: the one that runs, and one that may be missed.
const TICKS_AHEAD: u32 = 2;
/// When to ask again where no limit says when it starts again: a slot may be free at
/// any moment.
const RETRY_SOON: Duration = Duration::from_secs(1);

/// One question of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// Hold this much.
    Reserve(Reserve),
    /// Hold it for longer, and perhaps more.
    Extend(Extend),
    /// This much was used.
    Commit(Commit),
    /// Hold nothing any more.
    Release(Release),
}

/// An answer that may be waited for.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Whoever decides about quota: [`HttpQuota`], or a way of your own.
pub trait QuotaClient: fmt::Debug + Send + Sync + 'static {
    /// Asks once. The same question may be asked again and must then mean the same: its
    /// ids tell repetitions from news. Amounts are base units.
    ///
    /// # Errors
    /// [`AskError`]; a denial is an answer.
    fn ask(&self, question: Question) -> BoxFuture<'_, Result<Answer, AskError>>;
}

/// Why a question has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// Nobody answers now; asking again helps.
    #[error("quota is unavailable: {why}")]
    Unavailable {
        /// What is missing.
        why: String,
        /// When to ask again, if that was said.
        retry_after: Option<Duration>,
    },
    /// The reservation has ended or is forgotten.
    #[error("the reservation is no more: {why}")]
    Gone {
        /// As it was said.
        why: String,
    },
    /// The question is wrong, and will be when it is asked again.
    #[error("quota cannot be asked this: {why}")]
    Refused {
        /// What is wrong, and what would be right.
        why: String,
    },
}

impl AskError {
    /// Whether the same question may be answered later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}

impl From<QuotaError> for AskError {
    fn from(error: QuotaError) -> Self {
        let why = error.to_string();
        match error {
            QuotaError::Unavailable { .. } => Self::Unavailable { why, retry_after: None },
            QuotaError::Unknown { .. } | QuotaError::Ended { .. } => Self::Gone { why },
            QuotaError::Invalid { .. } | QuotaError::Reused { .. } => Self::Refused { why },
        }
    }
}

/// Limits that said no, and how they stand.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("plan limit reached: {}", self.reasons())]
pub struct Denial {
    /// Every limit that was looked at.
    pub limits: Vec<LimitState>,
    /// Policies that said no, `PLAN/METER/SCOPE`.
    pub violated: Vec<String>,
    /// When asking again may help: when the first violated limit starts again, or soon
    /// for a slot.
    pub retry_after: Duration,
    /// Whether it was decided without knowing the counters.
    pub degraded: bool,
}

impl Denial {
    fn of(answer: Answer) -> Self {
        let now = answer.as_of.plus_ms(answer.lag_ms);
        let violated = |limit: &&LimitState| answer.violated.contains(&limit.policy);
        let resets = answer.limits.iter().filter(violated).filter_map(|limit| limit.resets_at);
        let wait_ms = resets.min().map(|at| at.0.saturating_sub(now.0)).and_then(|ms| u64::try_from(ms).ok());
        let retry_after = wait_ms.map_or(RETRY_SOON, Duration::from_millis).max(RETRY_SOON);
        Self { limits: answer.limits, violated: answer.violated, retry_after, degraded: answer.degraded }
    }

    fn reasons(&self) -> String {
        let state = |policy: &String| {
            let limit = self.limits.iter().find(|limit| limit.policy == *policy);
            let Some(limit) = limit else { return policy.clone() };
            let bound = limit.hard_limit.map_or_else(|| "no limit".into(), |hard| format!("of {hard}"));
            format!("{policy} ({} used, {} held, {bound})", limit.used, limit.reserved)
        };
        self.violated.iter().map(state).collect::<Vec<_>>().join(", ")
    }
}

/// How a run stands with its quota.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// What it will use next is held. The answer tells limits, grace, and whether it
    /// was decided without knowing the counters.
    Held(Answer),
    /// What it will use next was denied. It is metered all the same; whether it goes on
    /// is the caller's decision.
    OverLimit(Denial),
    /// Quota could not be asked lately. It is asked again.
    Unanswered(AskError),
}

/// Why a run within quota did not start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// A limit is reached.
    #[error(transparent)]
    Denied(Denial),
    /// Nobody could be asked for as long as the run's patience lasted, or the question
    /// was refused. Nothing is held, or not for longer than a reservation's life.
    #[error(transparent)]
    Unanswered(AskError),
    /// The run's records could not enter the log.
    #[error(transparent)]
    Refused(#[from] EmitError),
}

/// What a run holds while it goes on, and who is asked.
#[derive(Clone, Debug)]
pub struct RunQuota {
    /// Who decides.
    pub client: Arc<dyn QuotaClient>,
    /// The concurrency limit that the run takes a slot of; none: it takes none. A name
    /// that no plan limits is refused.
    pub slot: Option<String>,
    /// The API key, where plans limit keys.
    pub key: Option<String>,
    /// How long the run is expected to take, which is held from the start. None: as much
    /// as is held ahead.
    pub estimate: Option<Duration>,
    /// How much time is held ahead of what was used, at every tick. None: two ticks.
    pub ahead: Option<Duration>,
    /// How long a reservation lives without being extended, which every tick does. When
    /// this process dies, what it held is free after this time. None: six ticks, a
    /// minute at least.
    pub ttl: Option<Duration>,
    /// How long the start and the end of a run wait for an answer.
    pub patience: Duration,
    /// When reservations are answered.
    pub durability: Durability,
}

impl RunQuota {
    /// A slot of `agents` and two ticks ahead, decided by `client`.
    pub fn new(client: Arc<dyn QuotaClient>) -> Self {
        Self {
            client,
            slot: Some(Plan::AGENTS.into()),
            key: None,
            estimate: None,
            ahead: None,
            ttl: None,
            patience: PATIENCE_DEFAULT,
            durability: Durability::Strict,
        }
    }

    fn ahead(&self, tick: Duration) -> Duration {
        self.ahead.unwrap_or(tick.saturating_mul(TICKS_AHEAD))
    }

    fn ttl(&self, tick: Duration) -> Duration {
        self.ttl.unwrap_or(tick.saturating_mul(TICKS_PER_TTL).max(TTL_MIN))
    }
}

/// Whole milliseconds.
fn ms_of(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
