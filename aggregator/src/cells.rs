//! Live answers: counters that the writer updates and any number of readers look at
//! without stopping it.
//!
//! A reader goes through the map once and gets handles; the writer holds its own
//! handles and touches the map only when a new counter appears.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use dashmap::DashMap;
use odometer_schemas::meter::Aggregation;
use odometer_schemas::time::{Interval, MINUTE_MS, TimeMs};

/// Minutes that a series shows live. Longer windows are answered from rollups.
pub const RECENT_MINUTES: usize = 8;

/// The live counter of one (tenant, meter, period).
///
/// One writer stores, readers load. The value saturates at the ends of 64 bits; the
/// exact 128-bit total is in the totals book.
#[derive(Debug, Default)]
pub struct Cell {
    settled: AtomicI64,
    records: AtomicU64,
}

impl Cell {
    /// The aggregated value in base units.
    #[must_use]
    pub fn settled(&self) -> i64 {
        self.settled.load(Ordering::Relaxed)
    }

    /// Accepted records.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.records.load(Ordering::Relaxed)
    }

    #[inline]
    pub(crate) fn store(&self, settled: i128, records: u64) {
        let saturated = i64::try_from(settled).unwrap_or(if settled < 0 { i64::MIN } else { i64::MAX });
        self.settled.store(saturated, Ordering::Relaxed);
        self.records.store(records, Ordering::Relaxed);
    }
}

/// Sums of the last minutes of event time of one (tenant, meter). A slot is reused
/// when its minute has passed out of the ring.
#[derive(Debug)]
pub struct Recent {
    slots: [RecentSlot; RECENT_MINUTES],
}

#[derive(Debug)]
struct RecentSlot {
    start_ms: AtomicI64,
    sum: AtomicI64,
}

impl Default for Recent {
    fn default() -> Self {
        let slot = || RecentSlot { start_ms: AtomicI64::new(i64::MIN), sum: AtomicI64::new(0) };
        Self { slots: std::array::from_fn(|_| slot()) }
    }
}

impl Recent {
    /// (minute start in Unix milliseconds, sum in base units), oldest first.
    #[must_use]
    pub fn minutes(&self) -> Vec<(TimeMs, i64)> {
        let read = |slot: &RecentSlot| {
            let start_ms = slot.start_ms.load(Ordering::Acquire);
            let sum = slot.sum.load(Ordering::Acquire);
            // A slot that was reused meanwhile is not this minute's any more.
            let still = slot.start_ms.load(Ordering::Acquire) == start_ms;
            (start_ms != i64::MIN && still).then_some((TimeMs(start_ms), sum))
        };
        let mut minutes: Vec<_> = self.slots.iter().filter_map(read).collect();
        minutes.sort_unstable();
        minutes
    }

    #[inline]
    pub(crate) fn add(&self, minute_ms: i64, quantity: i64) {
        let ring = RECENT_MINUTES as i64;
        let at = usize::try_from((minute_ms / MINUTE_MS).rem_euclid(ring)).unwrap_or(0);
        let slot = &self.slots[at];
        let held_ms = slot.start_ms.load(Ordering::Relaxed);
        if held_ms > minute_ms {
            return;
        }
        if held_ms < minute_ms {
            slot.start_ms.store(i64::MIN, Ordering::Release);
            slot.sum.store(0, Ordering::Release);
            slot.start_ms.store(minute_ms, Ordering::Release);
        }
        let sum = slot.sum.load(Ordering::Relaxed);
        slot.sum.store(sum.saturating_add(quantity), Ordering::Release);
    }
}

/// One live counter with what it counts.
#[derive(Clone, Debug)]
pub struct LiveUsage {
    /// The meter's name.
    pub meter: Arc<str>,
    /// How its records add up.
    pub aggregation: Aggregation,
    /// The period that the counter covers.
    pub period: Interval,
    /// The counter.
    pub cell: Arc<Cell>,
    /// Sums of the last minutes of the meter, shared by all of its periods.
    pub recent: Arc<Recent>,
}

/// All live counters of a node, by tenant.
#[derive(Clone, Debug, Default)]
pub struct LiveCells {
    tenants: Arc<DashMap<Arc<str>, Vec<LiveUsage>>>,
}

impl LiveCells {
    /// The live counters of `tenant`, by meter and period.
    #[must_use]
    pub fn of_tenant(&self, tenant: &str) -> Vec<LiveUsage> {
        // Copied out, so that no guard on the map outlives this call.
        let mut usage = self.tenants.get(tenant).map(|found| found.value().clone()).unwrap_or_default();
        usage.sort_by(|a, b| (&a.meter, a.period.start).cmp(&(&b.meter, b.period.start)));
        usage
    }

    /// Tenants with live counters.
    #[must_use]
    pub fn tenants(&self) -> usize {
        self.tenants.len()
    }

    pub(crate) fn publish(&self, tenant: &Arc<str>, usage: LiveUsage) {
        self.tenants.entry(Arc::clone(tenant)).or_default().push(usage);
    }

    pub(crate) fn withdraw(&self, tenant: &str, cell: &Arc<Cell>) {
        let emptied = self.tenants.get_mut(tenant).is_some_and(|mut found| {
            found.retain(|usage| !Arc::ptr_eq(&usage.cell, cell));
            found.is_empty()
        });
        if emptied {
            self.tenants.remove_if(tenant, |_, usage| usage.is_empty());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_saturates_instead_of_wrapping() {
        let cell = Cell::default();
        cell.store(i128::from(i64::MAX) + 1, 2);
        assert_eq!((cell.settled(), cell.records()), (i64::MAX, 2));
        cell.store(i128::MIN, 3);
        assert_eq!(cell.settled(), i64::MIN);
    }

    #[test]
    fn the_ring_keeps_the_newest_minutes() {
        let recent = Recent::default();
        for minute in 0..20 {
            recent.add(minute * MINUTE_MS, minute);
            recent.add(minute * MINUTE_MS, 1);
        }
        // Out of the ring by now: ignored, and nothing newer is disturbed.
        recent.add(3 * MINUTE_MS, 1000);
        let expected: Vec<_> = (12..20).map(|m| (TimeMs(m * MINUTE_MS), m + 1)).collect();
        assert_eq!(recent.minutes(), expected);
    }
}
