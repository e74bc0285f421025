//! Quota: may this tenant go on? Decided in memory while the work is running, and kept
//! right by the log.
//!
//! What is settled and held of one (scope, meter, period) is one atomic `word`. The
//! live side (`live`, `decide`) admits on it, from any thread; the log's side
//! (`book`) is a function of the log, like totals are, and brings the live side along.
//! A decision made here stands on the words before its record is in the log; read back,
//! the record finds it there and changes nothing.
//!
//! Reading path: `word` → `words` → `several` → `ledger` (one reservation) → `hold` (it
//! and its words) → `decide` → `book` → `stand_in`.

mod account;
mod alarm;
mod blocks;
mod book;
mod catalogue;
mod decide;
mod early;
mod entitlements;
mod expiries;
mod hold;
mod holds;
mod ledger;
mod live;
mod name;
mod places;
mod reservations;
mod several;
mod short;
mod shortcuts;
mod stand_in;
mod sync;
mod word;
mod words;

pub use decide::Outcome;
pub use live::LiveQuota;
pub use stand_in::Given;
pub use word::{Full, Word};

pub(crate) use alarm::{Entry, Watch};
pub(crate) use book::{Layers, QuotaBook};
pub(crate) use word::as_settled;
pub(crate) use words::{OwnWord, Words};

use odometer_schemas::quota::Scope;

/// What a policy is called in answers and alerts; `from` is its plan, or `override`.
fn policy_name(from: &str, meter: &str, scope: Scope) -> String {
    format!("{from}/{meter}/{scope}")
}
