//! Alerts: usage that crossed a part of its limit.

use bincode::{Decode, Encode};

use super::plan::Scope;

/// The parts of a limit whose crossing is told, in percent, ascending.
pub const ALERT_PERCENTS: [u16; 4] = [50, 80, 100, 110];

/// Alerts that one log entry may bring: 512 records, each counted for a tenant, a subject
/// and a key, that cross every percentage. Stays inside [`AlertRow::SEQUENCE_BITS`].
const ALERTS_OF_ENTRY_MAX: u64 = crate::limits::ENVELOPE_RECORDS_MAX as u64 * 3 * ALERT_PERCENTS.len() as u64;
const _: () = assert!(ALERTS_OF_ENTRY_MAX < 1 << AlertRow::SEQUENCE_BITS);

/// One crossing of one limit in one period. A function of the log, like a total is.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct AlertRow {
    /// Its place among its partition's alerts, ascending: the offset of the entry that
    /// crossed, and the number of the alert within that entry.
    pub sequence: u64,
    /// Append time of that entry, Unix milliseconds.
    pub at_ms: i64,
    /// Whose usage.
    pub tenant: String,
    /// Of what.
    pub meter: String,
    /// What the limit bounds.
    pub scope: Scope,
    /// The subject or key; empty for a tenant's own limit.
    pub name: String,
    /// Period start, Unix milliseconds.
    pub period_start_ms: i64,
    /// Period end (exclusive), Unix milliseconds.
    pub period_end_ms: i64,
    /// The part of the limit that was crossed; one of [`ALERT_PERCENTS`].
    pub percent: u16,
    /// The policy whose limit it is: `PLAN/METER/SCOPE`, or `override/METER/SCOPE`.
    pub policy: String,
    /// The limit then, in base units.
    pub limit: i64,
    /// What was used when it was crossed, in base units.
    pub used: i64,
}

impl AlertRow {
    /// Bits of [`sequence`](Self::sequence) below the offset.
    pub const SEQUENCE_BITS: u32 = 16;

    /// The `number`th alert of the entry at `offset`.
    #[must_use]
    pub const fn sequence(offset: u64, number: u64) -> u64 {
        (offset << Self::SEQUENCE_BITS) | number
    }

    /// The offset of the entry that crossed.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.sequence >> Self::SEQUENCE_BITS
    }
}

/// The least usage at which `percent` of `limit` is crossed: none is never a crossing.
#[must_use]
pub fn alert_at(limit: i64, percent: u16) -> i64 {
    let part = (i128::from(limit) * i128::from(percent) + 99).div_euclid(100);
    i64::try_from(part).unwrap_or(i64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quota::AMOUNT_MAX;

    #[test]
    fn a_part_is_crossed_once_usage_reaches_it() {
        assert_eq!(ALERT_PERCENTS.map(|percent| alert_at(100, percent)), [50, 80, 100, 110]);
        assert_eq!(ALERT_PERCENTS.map(|percent| alert_at(3, percent)), [2, 3, 3, 4]);
        assert_eq!(ALERT_PERCENTS.map(|percent| alert_at(0, percent)), [1; 4]);
        assert_eq!(alert_at(AMOUNT_MAX, 100), AMOUNT_MAX);
    }

    #[test]
    fn alerts_are_in_the_order_of_their_entries() {
        let last = AlertRow::sequence(6, ALERTS_OF_ENTRY_MAX);
        assert!(last < AlertRow::sequence(7, 0));
    }
}
