//! Live answers: counters that the writer updates and any number of readers look at
//! without stopping it.
//!
//! A reader goes through the map once and gets handles; the writer holds its own
//! handles and touches the map only when a new counter appears.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

use dashmap::DashMap;
use odometer_schemas::digest::{Digest, RecordHash};
use odometer_schemas::meter::Aggregation;
use odometer_schemas::time::{Interval, MINUTE_MS, TimeMs};

use crate::quota::{OwnWord, Watch, Word, Words, as_settled};

/// Minutes that a cell shows live. Longer windows are answered from rollups.
pub const RECENT_MINUTES: usize = 8;

/// The live counter of one (tenant, meter, period), and the exact state behind it.
///
/// One writer stores, readers load. Everything that a record changes lies in one
/// cache line; the ring of recent minutes follows, and what the writer knows without
/// looking here. What quota decides on stands elsewhere, close to that of other cells.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Cell {
    /// What of its limit was told, and whether the cell changed.
    watch: Watch,
    /// The aggregated value; saturates at the ends of 64 bits.
    settled: AtomicI64,
    records: AtomicU64,
    /// The exact sum, low half first. Only the writer reads it.
    sum: [AtomicU64; 2],
    /// Digest of the accepted records, low half first. Only the writer reads it.
    digest: [AtomicU64; 2],
    recent: [RecentMinute; RECENT_MINUTES],
    start_ms: i64,
    length_ms: u32,
    /// Settled and held.
    word: OwnWord,
}

/// One minute of event time. A slot is reused when its minute has passed out of the
/// ring.
#[derive(Debug)]
struct RecentMinute {
    start_ms: AtomicI64,
    sum: AtomicI64,
}

/// Bytes that the design allows for one cell.
const CELL_BYTES_MAX: usize = 256;
const _: () = assert!(size_of::<Cell>() <= CELL_BYTES_MAX);
const _: () = assert!(std::mem::offset_of!(Cell, recent) == 64);

impl Cell {
    /// An empty cell. Periods are months, and 31 days of milliseconds fit 32 bits.
    pub(crate) fn new(period: Interval, words: &Arc<Words>) -> Self {
        let length_ms = u32::try_from(period.end.0 - period.start.0).expect("a period is at most 31 days long");
        let minute = || RecentMinute { start_ms: AtomicI64::new(i64::MIN), sum: AtomicI64::new(0) };
        Self {
            watch: Watch::default(),
            settled: AtomicI64::new(0),
            records: AtomicU64::new(0),
            sum: Default::default(),
            digest: Default::default(),
            recent: std::array::from_fn(|_| minute()),
            start_ms: period.start.0,
            length_ms,
            word: words.own(),
        }
    }

    /// Whether a stored period is one that a cell can count.
    pub(crate) fn fits(start_ms: i64, end_ms: i64) -> bool {
        let length_ms = end_ms.checked_sub(start_ms);
        length_ms.is_some_and(|length_ms| length_ms > 0 && u32::try_from(length_ms).is_ok())
    }

    /// The period that the cell counts.
    #[must_use]
    pub fn period(&self) -> Interval {
        Interval { start: TimeMs(self.start_ms), end: TimeMs(self.start_ms + i64::from(self.length_ms)) }
    }

    /// The same as a cell keeps it.
    pub(crate) fn start_and_length_ms(&self) -> (i64, u32) {
        (self.start_ms, self.length_ms)
    }

    /// The aggregated value in base units, saturated at the ends of 64 bits; the exact
    /// 128-bit total is in the totals book.
    #[must_use]
    pub fn settled(&self) -> i64 {
        self.settled.load(Relaxed)
    }

    /// What quota decides on.
    #[inline]
    #[must_use]
    pub fn word(&self) -> &Word {
        &self.word
    }

    /// The word with its number.
    #[inline]
    pub(crate) fn own_word(&self) -> &OwnWord {
        &self.word
    }

    /// What of its limit was told, and when to look again.
    #[inline]
    pub(crate) fn watch(&self) -> &Watch {
        &self.watch
    }

    /// Accepted records.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.records.load(Relaxed)
    }

    /// Sums of the last minutes of event time that had any: (minute start, base
    /// units), oldest first.
    #[must_use]
    pub fn recent_minutes(&self) -> Vec<(TimeMs, i64)> {
        use std::sync::atomic::Ordering::Acquire;
        let read = |minute: &RecentMinute| {
            let start_ms = minute.start_ms.load(Acquire);
            let sum = minute.sum.load(Acquire);
            // A slot that was reused meanwhile is not this minute's any more.
            let still = minute.start_ms.load(Acquire) == start_ms;
            (start_ms != i64::MIN && still).then_some((TimeMs(start_ms), sum))
        };
        let mut minutes: Vec<_> = self.recent.iter().filter_map(read).collect();
        minutes.sort_unstable();
        minutes
    }

    /// Adds one accepted record to sum, count and digest; whether the cell was clean.
    #[inline]
    pub(crate) fn add(&self, quantity: i64, hash: RecordHash) -> bool {
        let (sum, mut digest) = (self.sum() + i128::from(quantity), self.digest());
        digest.add(hash);
        store(&self.sum, sum.cast_unsigned());
        store(&self.digest, digest.0);
        self.records.store(self.records.load(Relaxed) + 1, Relaxed);
        let was_clean = !self.is_dirty();
        self.watch.is_dirty.store(true, Relaxed);
        was_clean
    }

    /// Puts back what the totals book holds.
    pub(crate) fn restore(&self, sum: i128, records: u64, digest: Digest) {
        store(&self.sum, sum.cast_unsigned());
        store(&self.digest, digest.0);
        self.records.store(records, Relaxed);
    }

    /// Publishes the aggregated value. What quota decides on moves with it, and by
    /// what a reservation does not hold any more for the same record, in one step.
    #[inline]
    pub(crate) fn publish(&self, value: i128, held_change: i64) {
        self.publish_on(&self.word, value, held_change);
    }

    /// The same for whoever has the cell's word at hand, and need not look up where it
    /// stands.
    #[inline]
    pub(crate) fn publish_on(&self, word: &Word, value: i128, held_change: i64) {
        let saturated = i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX });
        let before = self.settled.load(Relaxed);
        self.settled.store(saturated, Relaxed);
        let change = as_settled(saturated) - as_settled(before) + held_change;
        if change != 0 {
            word.move_by(change);
        }
    }

    #[inline]
    pub(crate) fn sum(&self) -> i128 {
        load(&self.sum).cast_signed()
    }

    #[inline]
    pub(crate) fn digest(&self) -> Digest {
        Digest(load(&self.digest))
    }

    #[inline]
    pub(crate) fn is_dirty(&self) -> bool {
        self.watch.is_dirty.load(Relaxed)
    }

    pub(crate) fn clean(&self) {
        self.watch.is_dirty.store(false, Relaxed);
    }

    #[inline]
    pub(crate) fn add_recent(&self, minute_ms: i64, quantity: i64) {
        use std::sync::atomic::Ordering::Release;
        let minute = &self.recent[ring_index(minute_ms)];
        let held_ms = minute.start_ms.load(Relaxed);
        if held_ms > minute_ms {
            return;
        }
        if held_ms < minute_ms {
            minute.start_ms.store(i64::MIN, Release);
            minute.sum.store(0, Release);
            minute.start_ms.store(minute_ms, Release);
        }
        let sum = minute.sum.load(Relaxed);
        minute.sum.store(sum.saturating_add(quantity), Release);
    }

    /// Fetches what a record at `minute_ms` will change.
    #[inline]
    pub(crate) fn prefetch(&self, minute_ms: i64) {
        crate::prefetch::prefetch(std::slice::from_ref(&self.watch), 0);
        crate::prefetch::prefetch(&self.recent, ring_index(minute_ms));
    }
}

#[inline]
fn ring_index(minute_ms: i64) -> usize {
    (minute_ms / MINUTE_MS).rem_euclid(RECENT_MINUTES as i64) as usize
}

#[inline]
fn load(halves: &[AtomicU64; 2]) -> u128 {
    u128::from(halves[0].load(Relaxed)) | (u128::from(halves[1].load(Relaxed)) << 64)
}

#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the value is split into halves")]
fn store(halves: &[AtomicU64; 2], value: u128) {
    halves[0].store(value as u64, Relaxed);
    halves[1].store((value >> 64) as u64, Relaxed);
}

/// One live counter with what it counts.
#[derive(Clone, Debug)]
pub struct LiveUsage {
    /// The meter's name.
    pub meter: Arc<str>,
    /// How its records add up.
    pub aggregation: Aggregation,
    /// The counter and its period.
    pub cell: Arc<Cell>,
}

/// All live counters of a partition, by tenant.
#[derive(Clone, Debug, Default)]
pub struct LiveCells {
    tenants: Arc<DashMap<Arc<str>, Vec<LiveUsage>>>,
    words: Arc<Words>,
}

impl LiveCells {
    /// The live counters of `tenant`, by meter and period.
    #[must_use]
    pub fn of_tenant(&self, tenant: &str) -> Vec<LiveUsage> {
        // Copied out, so that no guard on the map outlives this call.
        let mut usage = self.tenants.get(tenant).map(|found| found.value().clone()).unwrap_or_default();
        // Those that a decision asked for hold none yet.
        usage.retain(|usage| usage.cell.records() > 0);
        usage.sort_by(|a, b| (&a.meter, a.cell.start_ms).cmp(&(&b.meter, b.cell.start_ms)));
        usage
    }

    /// Tenants with live counters.
    #[must_use]
    pub fn tenants(&self) -> usize {
        self.tenants.len()
    }

    /// Where they have what quota decides on.
    pub(crate) fn words(&self) -> &Arc<Words> {
        &self.words
    }

    /// Looks at every counter of a tenant.
    pub(crate) fn each(&self, tenant: &str, mut look: impl FnMut(&LiveUsage)) {
        if let Some(found) = self.tenants.get(tenant) {
            found.iter().for_each(&mut look);
        }
    }

    /// The counter of a tenant's meter in a period; made if nobody asked for it yet.
    pub(crate) fn cell(&self, tenant: &Arc<str>, meter: &str, aggregation: Aggregation, period: Interval) -> Arc<Cell> {
        let mut found = self.tenants.entry(Arc::clone(tenant)).or_default();
        let usage = found.iter().find(|usage| usage.cell.period() == period && *usage.meter == *meter);
        if let Some(usage) = usage {
            return Arc::clone(&usage.cell);
        }
        let cell = Arc::new(Cell::new(period, &self.words));
        found.push(LiveUsage { meter: meter.into(), aggregation, cell: Arc::clone(&cell) });
        cell
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

    fn cell() -> Cell {
        Cell::new(Interval { start: TimeMs(1000), end: TimeMs(2000) }, &Arc::default())
    }

    #[test]
    fn a_cell_counts_exactly_beyond_64_bits_and_shows_the_nearest() {
        let cell = cell();
        for _ in 0..3 {
            cell.add(i64::MAX, RecordHash(u128::MAX / 2));
        }
        cell.publish(cell.sum(), 0);
        assert_eq!(cell.sum(), 3 * i128::from(i64::MAX));
        assert_eq!((cell.settled(), cell.records()), (i64::MAX, 3));
        assert_eq!(cell.digest().0, (u128::MAX / 2).wrapping_mul(3));
        cell.restore(-1, 1, Digest(5));
        assert_eq!((cell.sum(), cell.digest()), (-1, Digest(5)));
    }

    #[test]
    fn only_the_first_record_finds_it_clean() {
        let cell = cell();
        assert!(cell.add(1, RecordHash(0)));
        assert!(!cell.add(1, RecordHash(0)));
        cell.clean();
        assert!(cell.add(1, RecordHash(0)));
    }

    #[test]
    fn only_periods_of_a_month_or_so_fit() {
        const MONTH_MS: i64 = 31 * 24 * 60 * MINUTE_MS;
        assert!(Cell::fits(5, 5 + MONTH_MS));
        assert!(![(5, 5), (5, 4), (i64::MIN, i64::MAX), (0, 2 * MONTH_MS)].iter().any(|p| Cell::fits(p.0, p.1)));
    }

    #[test]
    fn the_ring_keeps_the_newest_minutes() {
        let cell = cell();
        for minute in 0..20 {
            cell.add_recent(minute * MINUTE_MS, minute);
            cell.add_recent(minute * MINUTE_MS, 1);
        }
        // Out of the ring by now: ignored, and nothing newer is disturbed.
        cell.add_recent(3 * MINUTE_MS, 1000);
        let expected: Vec<_> = (12..20).map(|m| (TimeMs(m * MINUTE_MS), m + 1)).collect();
        assert_eq!(cell.recent_minutes(), expected);
    }
}
