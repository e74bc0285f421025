//! Quota: who may use how much, what is asked, what is answered, and what of it stands
//! in the log. Amounts are whole base units of their meter; nothing here decides.

mod alert;
mod decision;
mod operation;
mod plan;

pub use alert::{ALERT_PERCENTS, AlertRow, alert_at};
pub use decision::{
    Answer, Check, Commit, Decision, Durability, Extend, Item, LimitState, QuotaError, Release, Reserve, Who,
};
pub use operation::{Action, HeldItem, QuotaOperation, QuotaRow, QuotaRowKind};
pub use plan::{Kind, Limit, Plan, PlanError, PlanOrigin, Scope, TenantTerms, WhenDegraded};

/// Largest amount of one item, in base units, and largest limit. What is settled and
/// held then stays far inside 64 bits, whatever is added up.
pub const AMOUNT_MAX: i64 = 1 << 60;
/// Items of one decision. All of them are held still for a moment, so that nobody sees
/// a half-made decision.
pub const ITEMS_MAX: usize = 16;
/// Limits of one plan, and overrides of one tenant.
pub const LIMITS_MAX: usize = 64;
/// Plans of one installation.
pub const PLANS_MAX: usize = 256;
/// Longest name of a plan in bytes.
pub const PLAN_BYTES_MAX: usize = 64;
/// Longest life of a reservation without being extended: one day, in milliseconds.
pub const TTL_MS_MAX: i64 = 24 * 3_600_000;
/// How long a reservation is remembered after its expiry, so that the same request
/// gets the same answer: one day, in milliseconds.
pub const REMEMBERED_MS: i64 = 24 * 3_600_000;
/// How long a final commit waits for the records that it counted, in milliseconds.
/// Emitters deliver within seconds; one that was offline for longer settles without
/// a hold.
pub const SETTLE_MS: i64 = 120_000;
/// Operations of one reservation whose repetition is recognised: the newest ones. A
/// client repeats what it got no answer to, which is never long ago.
pub const OPERATIONS_REMEMBERED: usize = 16;
