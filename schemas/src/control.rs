//! Control records: what changes decisions travels in the log like usage does, and
//! holds from its position on.

use bincode::{Decode, Encode};

use crate::definitions::Definitions;

/// One control record, the whole body of a control envelope.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Control {
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
}
