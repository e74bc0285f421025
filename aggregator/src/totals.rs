//! Where an accepted record goes: the total of its (tenant, meter, period), the live
//! cell beside it, and the recent minutes.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::Arc;

use odometer_schemas::accumulator::{Accumulator, Observation};
use odometer_schemas::commit::TotalRow;
use odometer_schemas::digest::{Digest, RecordHash, TextHash};
use odometer_schemas::meter::Aggregation;
use odometer_schemas::time::{Interval, TimeMs, WindowKind};

use crate::cells::{Cell, LiveCells, LiveUsage, Recent};
use crate::prefetch::prefetch;

/// The number of a (tenant, meter) within its partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SeriesId(u32);

/// A hash that identifies (tenant, meter).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SeriesKey(u128);

impl SeriesKey {
    pub(crate) fn new(tenant: TextHash, meter: TextHash) -> Self {
        // Both are 128-bit hashes already; the rotation keeps their roles apart.
        Self(tenant.0.rotate_left(1).wrapping_add(meter.0))
    }
}

/// All totals of one partition that are not closed.
#[derive(Debug)]
pub(crate) struct Totals {
    series: Vec<Series>,
    series_by_key: HashMap<SeriesKey, u32, BuildHasherDefault<Folded>>,
    slots: Vec<Slot>,
    /// Slots whose period was closed, for reuse.
    free: Vec<u32>,
    dirty: Vec<u32>,
    cells: LiveCells,
}

/// One (tenant, meter): its current period's slot at hand, all others by start.
#[derive(Debug)]
struct Series {
    current: Interval,
    current_slot: u32,
    tenant: Arc<str>,
    meter: Arc<str>,
    aggregation: Aggregation,
    /// Whether the definitions in force have the meter.
    active: bool,
    recent: Arc<Recent>,
    slots: Vec<(i64, u32)>,
}

#[derive(Debug)]
struct Slot {
    total: Accumulator,
    digest: Digest,
    cell: Arc<Cell>,
    series: u32,
    dirty: bool,
    period: Interval,
}

/// No slot: an empty interval holds no time, so this is never followed.
const NO_SLOT: u32 = u32::MAX;
const NO_PERIOD: Interval = Interval { start: TimeMs(i64::MAX), end: TimeMs(i64::MIN) };

impl Totals {
    pub(crate) fn new(cells: LiveCells) -> Self {
        Self {
            series: Vec::new(),
            series_by_key: HashMap::default(),
            slots: Vec::new(),
            free: Vec::new(),
            dirty: Vec::new(),
            cells,
        }
    }

    /// Totals held, closed ones not counted.
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(crate) fn dirty(&self) -> usize {
        self.dirty.len()
    }

    #[inline]
    pub(crate) fn find_series(&self, key: SeriesKey) -> Option<SeriesId> {
        self.series_by_key.get(&key).copied().map(SeriesId)
    }

    pub(crate) fn add_series(
        &mut self,
        key: SeriesKey,
        tenant: &str,
        meter: &str,
        aggregation: Aggregation,
    ) -> SeriesId {
        let number = u32::try_from(self.series.len()).expect("series are bounded far below 2^32");
        self.series.push(Series {
            current: NO_PERIOD,
            current_slot: NO_SLOT,
            tenant: tenant.into(),
            meter: meter.into(),
            aggregation,
            active: true,
            recent: Arc::default(),
            slots: Vec::new(),
        });
        self.series_by_key.insert(key, number);
        SeriesId(number)
    }

    /// How the series adds up; `None` while its meter is not defined.
    #[inline]
    pub(crate) fn active(&self, series: SeriesId) -> Option<Aggregation> {
        let found = &self.series[series.0 as usize];
        found.active.then_some(found.aggregation)
    }

    #[inline]
    pub(crate) fn prefetch(&self, series: SeriesId) {
        let at = self.series[series.0 as usize].current_slot as usize;
        prefetch(&self.slots, at);
    }

    /// The slot of the period that `time` falls into, when the series' latest period
    /// holds it or it was used before.
    #[inline]
    pub(crate) fn slot_at(
        &mut self,
        series: SeriesId,
        time: TimeMs,
        period_of: impl FnOnce(&str) -> Interval,
    ) -> SlotRef {
        let found = &self.series[series.0 as usize];
        if found.current.contains(time) {
            return SlotRef { slot: found.current_slot, period: found.current };
        }
        self.switch(series, period_of(&Arc::clone(&found.tenant)))
    }

    /// Makes `period` the series' current one. Creates no slot yet: a late record
    /// must leave no total behind.
    #[cold]
    fn switch(&mut self, series: SeriesId, period: Interval) -> SlotRef {
        let found = &mut self.series[series.0 as usize];
        let known = found.slots.iter().find(|(start_ms, _)| *start_ms == period.start.0);
        let slot = known.map_or(NO_SLOT, |(_, slot)| *slot);
        if slot != NO_SLOT {
            (found.current, found.current_slot) = (period, slot);
        }
        SlotRef { slot, period }
    }

    /// Counts one accepted record.
    #[inline]
    pub(crate) fn add(&mut self, series: SeriesId, at: SlotRef, seen: &Observation, hash: RecordHash) {
        let number = if at.slot == NO_SLOT { self.create(series, at.period) } else { at.slot };
        let slot = &mut self.slots[number as usize];
        slot.total.add(seen);
        slot.digest.add(hash);
        slot.cell.store(slot.total.value(), slot.total.records);
        if !slot.dirty {
            slot.dirty = true;
            self.dirty.push(number);
        }
    }

    #[inline]
    pub(crate) fn add_recent(&self, series: SeriesId, time: TimeMs, quantity: i64) {
        self.series[series.0 as usize].recent.add(WindowKind::Minute.start_of(time).0, quantity);
    }

    #[cold]
    fn create(&mut self, series: SeriesId, period: Interval) -> u32 {
        let aggregation = self.series[series.0 as usize].aggregation;
        self.put(series, period, Accumulator::new(aggregation), Digest::default())
    }

    /// Puts back a total from the book.
    pub(crate) fn restore(&mut self, series: SeriesId, row: &TotalRow, total: Accumulator) {
        let period = Interval { start: TimeMs(row.period_start_ms), end: TimeMs(row.period_end_ms) };
        self.put(series, period, total, Digest(row.digest));
    }

    fn put(&mut self, series: SeriesId, period: Interval, total: Accumulator, digest: Digest) -> u32 {
        let owner = &mut self.series[series.0 as usize];
        let cell = Arc::new(Cell::default());
        cell.store(total.value(), total.records);
        let usage = LiveUsage {
            meter: Arc::clone(&owner.meter),
            aggregation: owner.aggregation,
            period,
            cell: Arc::clone(&cell),
            recent: Arc::clone(&owner.recent),
        };
        self.cells.publish(&owner.tenant, usage);
        let slot = Slot { total, digest, cell, series: series.0, dirty: false, period };
        let number = if let Some(number) = self.free.pop() {
            self.slots[number as usize] = slot;
            number
        } else {
            self.slots.push(slot);
            u32::try_from(self.slots.len() - 1).expect("totals are bounded far below 2^32")
        };
        owner.slots.push((period.start.0, number));
        (owner.current, owner.current_slot) = (period, number);
        number
    }

    /// What changed since the last call, absolute values, by tenant, meter and
    /// period.
    pub(crate) fn take_dirty(&mut self) -> Vec<TotalRow> {
        let dirty = std::mem::take(&mut self.dirty);
        let mut rows: Vec<TotalRow> = dirty.into_iter().map(|number| self.row(number)).collect();
        rows.sort_unstable_by(|a, b| {
            (&a.tenant, &a.meter, a.period_start_ms).cmp(&(&b.tenant, &b.meter, b.period_start_ms))
        });
        rows
    }

    fn row(&mut self, number: u32) -> TotalRow {
        let slot = &mut self.slots[number as usize];
        slot.dirty = false;
        let series = &self.series[slot.series as usize];
        TotalRow {
            tenant: series.tenant.to_string(),
            meter: series.meter.to_string(),
            period_start_ms: slot.period.start.0,
            period_end_ms: slot.period.end.0,
            aggregation: series.aggregation,
            quantity: slot.total.value(),
            sum: slot.total.sum,
            records: slot.total.records,
            digest: slot.digest.0,
            state: slot.total.state(),
        }
    }

    /// Lets go of periods that are closed and committed: they never change again.
    pub(crate) fn release(&mut self, is_closed: impl Fn(Interval) -> bool) {
        let Self { series, slots, free, cells, .. } = self;
        for owner in series {
            let before = owner.slots.len();
            owner.slots.retain(|(_, number)| {
                let slot = &slots[*number as usize];
                let keep = slot.dirty || !is_closed(slot.period);
                if !keep {
                    cells.withdraw(&owner.tenant, &slot.cell);
                    free.push(*number);
                }
                keep
            });
            if owner.slots.len() < before {
                (owner.current, owner.current_slot) = (NO_PERIOD, NO_SLOT);
            }
        }
    }

    /// Definitions changed: records of a series whose meter is gone are refused until
    /// it comes back. Totals stay.
    pub(crate) fn set_active(&mut self, is_defined: impl Fn(&str) -> bool) {
        for owner in &mut self.series {
            owner.active = is_defined(&owner.meter);
        }
    }
}

/// Where a record would be counted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SlotRef {
    slot: u32,
    /// The period that the record falls into.
    pub(crate) period: Interval,
}

/// Passes a 128-bit hash through to the map.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Folded(u64);

impl std::hash::Hasher for Folded {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u128(u128::from(*byte));
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "both halves are folded into one")]
    fn write_u128(&mut self, word: u128) {
        self.0 ^= word as u64 ^ (word >> 64) as u64;
    }
}
