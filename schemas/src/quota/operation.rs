//! What of a decision stands in the log: reservations and what becomes of them, already
//! decided. And how a book keeps a reservation.

use bincode::{Decode, Encode};

use super::decision::Decision;
use crate::time::Interval;

/// One operation on one reservation. It was decided by the partition's owner before it
/// was written, and holds from its position on.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct QuotaOperation {
    /// Whose reservation.
    pub tenant: String,
    /// The reservation's id, unique within the tenant.
    pub id: String,
    /// When it was decided, Unix milliseconds.
    pub at_ms: i64,
    /// What it does.
    pub action: Action,
}

/// What an operation does.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Action {
    /// Makes the reservation.
    Reserve {
        /// The user or agent.
        subject: Option<String>,
        /// The API key.
        key: Option<String>,
        /// What is held.
        items: Vec<HeldItem>,
        /// When it ends by itself, Unix milliseconds.
        expires_ms: i64,
        /// Fingerprint of the request, to know it again.
        body: u128,
        /// What was answered.
        decision: Decision,
    },
    /// Lengthens its life, and may add to it.
    Extend {
        /// Hash of the caller's operation id.
        op: u64,
        /// When it ends by itself, Unix milliseconds.
        expires_ms: i64,
        /// What is held besides; of the reservation's own items.
        add: Vec<HeldItem>,
    },
    /// States what was used in all, up to now or finally.
    Commit {
        /// Hash of the caller's operation id.
        op: u64,
        /// Used in all, by item; what is not named is what its records say.
        items: Vec<HeldItem>,
        /// Whether nothing more will be used; then the rest is held until its records
        /// are there, until this time at most (Unix milliseconds).
        settle_until_ms: Option<i64>,
    },
    /// Ends it; nothing is held any more.
    Release {
        /// Hash of the caller's operation id.
        op: u64,
    },
}

/// An amount of one meter in one period.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct HeldItem {
    /// The meter, or the name of a concurrency limit.
    pub meter: String,
    /// Base units.
    pub amount: i64,
    /// The period that it was reserved in, Unix milliseconds; none for concurrency.
    pub period_ms: Option<(i64, i64)>,
}

impl HeldItem {
    /// The period as an interval.
    #[must_use]
    pub fn period(&self) -> Option<Interval> {
        use crate::time::TimeMs;
        self.period_ms.map(|(start, end)| Interval { start: TimeMs(start), end: TimeMs(end) })
    }
}

/// What a row of quota state is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub enum QuotaRowKind {
    /// The partition's owner.
    Epoch,
    /// A plan; its name is the row's.
    Plan,
    /// A tenant's terms.
    Terms,
    /// The usage of a subject or key.
    Counter,
    /// Some reservations, whoever's; what the row is named by is the aggregator's business.
    Reservations,
    /// What records drew on a reservation that is not there yet; its id is the row's name.
    Early,
}

impl QuotaRowKind {
    /// All kinds, in the order in which a partition is restored from them.
    pub const ALL: [Self; 6] = [Self::Epoch, Self::Plan, Self::Terms, Self::Counter, Self::Reservations, Self::Early];

    /// The number that books store.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The kind of a stored number.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }
}

/// One piece of a partition's quota state, as the totals book keeps it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct QuotaRow {
    /// What it is about.
    pub kind: QuotaRowKind,
    /// Whose; empty for what holds for all.
    pub tenant: String,
    /// Unique within kind and tenant.
    pub name: String,
    /// The aggregator's own state; opaque to the book. Empty: the row is no more.
    pub state: Vec<u8>,
}
