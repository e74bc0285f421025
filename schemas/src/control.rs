//! Control records: what changes decisions travels in the log like usage does, and
//! holds from its position on.

use bincode::{BorrowDecode, Encode};

use crate::definitions::Definitions;
use crate::quota::{Plan, PlanOrigin, QuotaOperation, TenantTerms};

/// One control record, the whole body of a control envelope.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub enum Control<'a> {
    /// New definitions hold from here on.
    Definitions(Definitions),
    /// Moves log time in an idle partition; decides nothing else.
    Tick,
    /// The tenant's period anchor: months count from it once the current period has
    /// ended. Within the tolerance for times ahead of log time, the period that
    /// begins next is current already: it may have usage.
    Anchor {
        /// Whose periods.
        tenant: String,
        /// The subscription's start, Unix milliseconds; `None` returns to calendar
        /// months.
        anchor_ms: Option<i64>,
    },
    /// Closes every period of this partition that ended at or before `through_ms`:
    /// a record of such a period is late from here on.
    Close {
        /// Shared by the close records of all partitions.
        close_id: String,
        /// Unix milliseconds, exclusive end of the last closed period.
        through_ms: i64,
    },
    /// A node took the partition over with this epoch. Quota operations of older ones
    /// that stand behind it are void: their node may not know yet that it was
    /// followed.
    Owner {
        /// As in the totals book.
        epoch: u64,
    },
    /// A plan holds from here on, under its name.
    Plan {
        /// The plan.
        plan: Plan,
        /// Who may replace it.
        origin: PlanOrigin,
    },
    /// What a tenant is entitled to from here on.
    Terms {
        /// Whose.
        tenant: String,
        /// Plan and overrides.
        terms: TenantTerms,
    },
    /// Reservations were made, extended, committed or released.
    Quota {
        /// The epoch of the node that decided.
        epoch: u64,
        /// In the order in which they were decided.
        operations: Vec<QuotaOperation<'a>>,
    },
}
