//! What is asked and what is answered, the same over every surface.

use bincode::{Decode, Encode};
use serde::Serialize;

use super::plan::Scope;
use crate::time::TimeMs;

/// Who asks: all three are looked at together.
#[derive(Clone, Debug, PartialEq, Eq, Default, Encode, Decode)]
pub struct Who {
    /// The organisation.
    pub tenant: String,
    /// The user or agent.
    pub subject: Option<String>,
    /// The API key.
    pub key: Option<String>,
}

/// An amount of one meter.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Item {
    /// A meter, or the name of a concurrency limit.
    pub meter: String,
    /// Base units. What does not fit 64 signed bits is denied like any amount that is
    /// too large.
    pub amount: u64,
}

/// May this much be used? Changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Default, Encode, Decode)]
pub struct Check {
    /// Who asks.
    pub who: Who,
    /// For what; decided together.
    pub items: Vec<Item>,
}

/// When a reservation is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Encode, Decode)]
pub enum Durability {
    /// Once the log has it: survives this node.
    #[default]
    Strict,
    /// At once; the log has it within five milliseconds.
    Fast,
}

/// Hold this much while the work is running.
#[derive(Clone, Debug, PartialEq, Eq, Default, Encode, Decode)]
pub struct Reserve {
    /// The caller's id, unique within the tenant.
    pub id: String,
    /// Who asks.
    pub who: Who,
    /// How long it is held without being extended, in milliseconds.
    pub ttl_ms: i64,
    /// What is held; all of it or nothing.
    pub items: Vec<Item>,
    /// When it is answered.
    pub durability: Durability,
}

/// Hold it for longer, and perhaps more.
#[derive(Clone, Debug, PartialEq, Eq, Default, Encode, Decode)]
pub struct Extend {
    /// Whose.
    pub tenant: String,
    /// The reservation.
    pub id: String,
    /// The caller's id of this operation, for repetitions.
    pub op_id: String,
    /// From now on, in milliseconds.
    pub ttl_ms: i64,
    /// What is held besides.
    pub add: Vec<Item>,
    /// When it is answered.
    pub durability: Durability,
}

/// This much was used in all.
#[derive(Clone, Debug, PartialEq, Eq, Default, Encode, Decode)]
pub struct Commit {
    /// Whose.
    pub tenant: String,
    /// The reservation.
    pub id: String,
    /// The caller's id of this operation, for repetitions.
    pub op_id: String,
    /// By item; what is not named is what its records say.
    pub items: Vec<Item>,
    /// Whether nothing more will be used.
    pub is_final: bool,
    /// When it is answered.
    pub durability: Durability,
}

/// Hold nothing any more.
#[derive(Clone, Debug, PartialEq, Eq, Default, Encode, Decode)]
pub struct Release {
    /// Whose.
    pub tenant: String,
    /// The reservation.
    pub id: String,
    /// The caller's id of this operation, for repetitions.
    pub op_id: String,
    /// When it is answered.
    pub durability: Durability,
}

/// May it go on?
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// Yes, within every limit.
    Allow,
    /// Yes, but a limit is overrun, within its grace.
    Grace,
    /// No; nothing was changed.
    Deny,
}

impl Decision {
    /// The name in answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Grace => "grace",
            Self::Deny => "deny",
        }
    }
}

/// How a limit stood when it was decided, this decision included.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct LimitState {
    /// `PLAN/METER/SCOPE`, or `override/METER/SCOPE`.
    pub policy: String,
    /// Whose use it adds up.
    pub scope: Scope,
    /// What it limits.
    pub meter: String,
    /// In base units; none: unlimited.
    pub limit: Option<i64>,
    /// The limit and its grace.
    pub hard_limit: Option<i64>,
    /// Accepted usage of the period.
    pub used: i64,
    /// Held by reservations.
    pub reserved: i64,
    /// Left below the limit; none: unlimited.
    pub remaining: Option<i64>,
    /// When the period ends; none for concurrency.
    pub resets_at: Option<TimeMs>,
}

/// The answer to every question.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Answer {
    /// May it go on?
    pub decision: Decision,
    /// The reservation, where there is one.
    pub reservation_id: Option<String>,
    /// When it ends by itself.
    pub expires_at: Option<TimeMs>,
    /// Every limit that was looked at.
    pub limits: Vec<LimitState>,
    /// Policies that said no.
    pub violated: Vec<String>,
    /// Everything acknowledged before this time is counted.
    pub as_of: TimeMs,
    /// The answer's distance from now, in milliseconds.
    pub lag_ms: i64,
    /// Whether it was decided without knowing the counters.
    pub degraded: bool,
    /// Whether the reservation had expired before this operation came: what was used
    /// counts all the same.
    pub late: bool,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuotaError {
    /// The request cannot be understood.
    #[error("{field} {problem}")]
    Invalid {
        /// The field as a caller writes it.
        field: &'static str,
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// The id was used for something else.
    #[error("`{id}` was used with another body; choose a new id, or send the same request")]
    Reused {
        /// The reservation's or the operation's id.
        id: String,
    },
    /// There is no such reservation, or it is forgotten.
    #[error("reservation `{id}` is not known")]
    Unknown {
        /// The reservation's id.
        id: String,
    },
    /// The reservation has ended, by commit or release.
    #[error("reservation `{id}` has ended")]
    Ended {
        /// The reservation's id.
        id: String,
    },
    /// Nothing can be decided now; asking again helps.
    #[error("{why}")]
    Unavailable {
        /// What is missing.
        why: String,
    },
}
