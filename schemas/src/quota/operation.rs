//! What of a decision stands in the log: reservations and what becomes of them, already
//! decided. And how a book keeps a reservation.

use std::borrow::Cow;

use bincode::{BorrowDecode, Decode, Encode};

use super::decision::Decision;

/// One operation on one reservation. It was decided by the partition's owner before it
/// was written, and holds from its position on. Texts are borrowed: from the request, or
/// from the envelope.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub struct QuotaOperation<'a> {
    /// Whose reservation.
    pub tenant: Cow<'a, str>,
    /// The reservation's id, unique within the tenant.
    pub id: Cow<'a, str>,
    /// When it was decided, Unix milliseconds.
    pub at_ms: i64,
    /// What it does.
    pub action: Action<'a>,
}

impl QuotaOperation<'_> {
    /// The same, borrowed from nobody.
    #[must_use]
    pub fn into_owned(self) -> QuotaOperation<'static> {
        let Self { tenant, id, at_ms, action } = self;
        QuotaOperation { tenant: owned(tenant), id: owned(id), at_ms, action: action.into_owned() }
    }
}

fn owned(text: Cow<'_, str>) -> Cow<'static, str> {
    Cow::Owned(text.into_owned())
}

/// What an operation does.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub enum Action<'a> {
    /// Makes the reservation.
    Reserve {
        /// The user or agent.
        subject: Option<Cow<'a, str>>,
        /// The API key.
        key: Option<Cow<'a, str>>,
        /// What is held.
        items: Vec<HeldItem<'a>>,
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
        add: Vec<HeldItem<'a>>,
    },
    /// States what was used in all, up to now or finally.
    Commit {
        /// Hash of the caller's operation id.
        op: u64,
        /// Used in all, by item; what is not named is what its records say.
        items: Vec<HeldItem<'a>>,
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

impl Action<'_> {
    fn into_owned(self) -> Action<'static> {
        let all = |items: Vec<HeldItem<'_>>| items.into_iter().map(HeldItem::into_owned).collect();
        match self {
            Self::Reserve { subject, key, items, expires_ms, body, decision } => {
                let (subject, key) = (subject.map(owned), key.map(owned));
                Action::Reserve { subject, key, items: all(items), expires_ms, body, decision }
            }
            Self::Extend { op, expires_ms, add } => Action::Extend { op, expires_ms, add: all(add) },
            Self::Commit { op, items, settle_until_ms } => Action::Commit { op, items: all(items), settle_until_ms },
            Self::Release { op } => Action::Release { op },
        }
    }
}

/// An amount of one meter in one period.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub struct HeldItem<'a> {
    /// The meter, or the name of a concurrency limit.
    pub meter: Cow<'a, str>,
    /// Base units.
    pub amount: i64,
    /// The period that it was reserved in, Unix milliseconds; none for concurrency.
    pub period_ms: Option<(i64, i64)>,
}

impl HeldItem<'_> {
    fn into_owned(self) -> HeldItem<'static> {
        HeldItem { meter: owned(self.meter), amount: self.amount, period_ms: self.period_ms }
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
