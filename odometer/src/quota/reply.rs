//! Answers in, HTTP replies out: status, JSON, and the header fields that tell how the
//! limits stand. Says the same whichever server sends it.

use odometer_schemas::quota::{Answer, Decision, LimitState, QuotaError};
use odometer_schemas::time::TimeMs;
use serde::Serialize;

use super::json::{self, Denial};
use super::meters::Meters;
use super::ratelimit;
use crate::api::problem::{self, Problem, ProblemKind};

/// What a denial says besides the answer.
const DENIAL: Denial = Denial {
    // As the draft of the RateLimit fields registers it.
    r#type: "https://iana.org/assignments/http-problem-types#quota-exceeded",
    // What a person whose work was stopped reads.
    title: "Plan limit reached. Upgrade to continue.",
    fix: "wait as Retry-After says, use less, or move to a larger plan",
};
/// When to ask again for a slot, and while quota is unavailable, in seconds: both may
/// change at any moment.
const RETRY_SOON_S: i64 = 1;
/// What an answer about one limit takes, and most about two.
const BODY_BYTES: usize = 512;

/// A reply, ready to be sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) content_type: &'static str,
    /// `RateLimit-Policy` and `RateLimit`; empty where no limit was looked at.
    pub(crate) policies: String,
    pub(crate) standing: String,
    /// `Retry-After`, in seconds.
    pub(crate) retry_after_s: Option<i64>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    /// The reply to a question that was decided, or could not be.
    pub(crate) fn of(decided: Result<Answer, QuotaError>, meters: &Meters) -> Self {
        match decided {
            Ok(answer) => Self::of_answer(&answer, meters),
            Err(error) => Problem::from(error).into(),
        }
    }

    fn of_answer(answer: &Answer, meters: &Meters) -> Self {
        let now = now_of(answer);
        let is_denied = answer.decision == Decision::Deny;
        let mut body = String::with_capacity(BODY_BYTES);
        if is_denied {
            json::append_denial(&DENIAL, answer, meters, &mut body);
        } else {
            json::append(answer, meters, &mut body);
        }
        Self {
            status: if is_denied { 429 } else { 200 },
            content_type: if is_denied { problem::CONTENT_TYPE } else { "application/json" },
            policies: ratelimit::policies(&answer.limits),
            standing: ratelimit::standing(&answer.limits, now),
            retry_after_s: is_denied.then(|| retry_after_s(answer, now)),
            body: body.into_bytes(),
        }
    }

    /// A good answer that is no decision.
    pub(crate) fn good(body: &impl Serialize) -> Self {
        Self {
            status: 200,
            content_type: "application/json",
            policies: String::new(),
            standing: String::new(),
            retry_after_s: None,
            body: serde_json::to_vec(body).expect("texts and numbers always serialise"),
        }
    }
}

impl From<Problem> for Reply {
    fn from(problem: Problem) -> Self {
        let status = problem.status().as_u16();
        Self {
            status,
            content_type: problem::CONTENT_TYPE,
            policies: String::new(),
            standing: String::new(),
            retry_after_s: (status == 503).then_some(RETRY_SOON_S),
            body: problem.to_json(),
        }
    }
}

impl From<QuotaError> for Problem {
    fn from(error: QuotaError) -> Self {
        let detail = error.to_string();
        match error {
            QuotaError::Invalid { field, .. } => {
                Self::new(ProblemKind::BadField, detail, "correct the field as the detail says").field(field)
            }
            QuotaError::Reused { .. } => {
                Self::new(ProblemKind::IdReused, detail, "choose a new id, or send the same request").field("id")
            }
            QuotaError::Unknown { .. } => {
                let fix = "make a reservation with it first; an id is known within its tenant, for a day after its end";
                Self::new(ProblemKind::Unknown, detail, fix).field("id")
            }
            QuotaError::Ended { .. } => {
                let fix = "make another reservation; what was committed or released stays so";
                Self::new(ProblemKind::ReservationEnded, detail, fix).field("id")
            }
            QuotaError::Unavailable { .. } => {
                Self::new(ProblemKind::QuotaUnavailable, detail, "ask again as Retry-After says, with the same id")
            }
        }
    }
}

/// The moment at which an answer was decided.
pub(crate) fn now_of(answer: &Answer) -> TimeMs {
    answer.as_of.plus_ms(answer.lag_ms)
}

/// Seconds until a violated usage limit starts again; a slot may be free at any moment.
pub(crate) fn retry_after_s(answer: &Answer, now: TimeMs) -> i64 {
    let is_violated = |limit: &&LimitState| answer.violated.contains(&limit.policy);
    let resets = answer.limits.iter().filter(is_violated).filter_map(|limit| limit.resets_at);
    resets.min().map_or(RETRY_SOON_S, |at| ratelimit::seconds_until(at, now).max(RETRY_SOON_S))
}
