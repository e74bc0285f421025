//! Where an accepted record goes: the cell of its (tenant, meter, period), which is
//! its live counter and its exact total in one.

mod order;
mod table;

use std::collections::HashMap;
use std::sync::Arc;

use odometer_schemas::accumulator::{Accumulator, Observation};
use odometer_schemas::commit::TotalRow;
use odometer_schemas::digest::{Digest, RecordHash};
use odometer_schemas::meter::Aggregation;
use odometer_schemas::time::{Interval, TimeMs, WindowKind};

use crate::cells::{Cell, LiveCells};
use crate::prefetch::prefetch;
pub(crate) use table::{SeriesId, SeriesKey};

/// All totals of one partition that are not closed.
#[derive(Debug)]
pub(crate) struct Totals {
    table: table::SeriesTable,
    /// By series number: what a record needs.
    hot: Vec<Hot>,
    /// By series number: what only a new period or a commit needs.
    series: Vec<Series>,
    slots: Vec<Slot>,
    /// What minimum, maximum, latest and distinct counts need besides their cell.
    extras: HashMap<SlotId, Accumulator>,
    /// Slots whose period was closed, for reuse.
    free: Vec<SlotId>,
    dirty: Vec<SlotId>,
    /// What the entry under way was counted in; shown when it ends.
    unpublished: Vec<Counted>,
    order: order::Order,
    cells: LiveCells,
}

/// A total that the entry under way changed.
#[derive(Clone, Copy, Debug)]
struct Counted {
    series: SeriesId,
    slot: SlotId,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct SlotId(u32);

impl SlotId {
    fn at(self) -> usize {
        self.0 as usize
    }
}

/// The period that a series counted last, and how it adds up. The cell stands here a
/// second time, with what never changes of it, so that a record reaches it through one
/// cache line.
#[derive(Debug)]
struct Hot {
    cell: Option<Arc<Cell>>,
    start_ms: i64,
    /// Zero without a cell.
    length_ms: u32,
    slot: SlotId,
    /// The number of the cell's word.
    word: u32,
    aggregation: Aggregation,
    /// Whether the definitions in force have the meter.
    active: bool,
    /// Whether the cell stands among those to be published.
    is_unpublished: bool,
}

const _: () = assert!(size_of::<Hot>() <= 32, "two to a cache line");

impl Hot {
    fn new(aggregation: Aggregation) -> Self {
        let (cell, slot) = (None, SlotId(0));
        Self { cell, start_ms: 0, length_ms: 0, slot, word: 0, aggregation, active: true, is_unpublished: false }
    }

    fn turn_to(&mut self, slot: SlotId, cell: &Arc<Cell>) {
        (self.start_ms, self.length_ms) = cell.start_and_length_ms();
        (self.slot, self.word) = (slot, cell.own_word().number());
        self.cell = Some(Arc::clone(cell));
        self.is_unpublished = false;
    }

    fn turn_away(&mut self) {
        (self.cell, self.length_ms) = (None, 0);
    }

    /// The period that holds `time`, if it is that of the cell.
    #[inline]
    fn period_of(&self, time: TimeMs) -> Option<Interval> {
        let length_ms = i64::from(self.length_ms);
        let is_within = (0..length_ms).contains(&time.0.wrapping_sub(self.start_ms));
        is_within.then(|| Interval { start: TimeMs(self.start_ms), end: TimeMs(self.start_ms + length_ms) })
    }
}

#[derive(Debug)]
struct Series {
    tenant: Arc<str>,
    meter: Arc<str>,
    slots: Vec<SlotId>,
}

#[derive(Debug)]
struct Slot {
    cell: Arc<Cell>,
    series: SeriesId,
}

/// Where a record would be counted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    series: SeriesId,
    /// Whether the series' current cell is that of the period.
    is_open: bool,
    /// The period that the record falls into.
    pub(crate) period: Interval,
}

/// What counting one accepted record needs besides the record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counting {
    pub(crate) hash: RecordHash,
    pub(crate) is_recent: bool,
    /// What a reservation holds less on the same counter because of the record.
    pub(crate) held_change: i64,
}

impl Totals {
    pub(crate) fn new(cells: LiveCells) -> Self {
        Self {
            table: table::SeriesTable::new(),
            hot: Vec::new(),
            series: Vec::new(),
            slots: Vec::new(),
            extras: HashMap::new(),
            free: Vec::new(),
            dirty: Vec::new(),
            unpublished: Vec::new(),
            order: order::Order::default(),
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
    pub(crate) fn prefetch_series(&self, key: SeriesKey) {
        self.table.prefetch(key);
    }

    /// Finds a series, and asks for what its next record needs.
    #[inline]
    pub(crate) fn find_series(&self, key: SeriesKey) -> Option<SeriesId> {
        let series = self.table.find(key);
        if let Some(series) = series {
            prefetch(&self.hot, series.0 as usize);
        }
        series
    }

    pub(crate) fn add_series(
        &mut self,
        key: SeriesKey,
        tenant: &str,
        meter: &str,
        aggregation: Aggregation,
    ) -> SeriesId {
        self.hot.push(Hot::new(aggregation));
        self.series.push(Series { tenant: tenant.into(), meter: meter.into(), slots: Vec::new() });
        self.table.insert(key)
    }

    /// How the series adds up; `None` while its meter is not defined.
    #[inline]
    pub(crate) fn active(&self, series: SeriesId) -> Option<Aggregation> {
        let hot = &self.hot[series.0 as usize];
        hot.active.then_some(hot.aggregation)
    }

    #[inline]
    pub(crate) fn prefetch_cell(&self, series: SeriesId, time: TimeMs) {
        let hot = &self.hot[series.0 as usize];
        if let Some(cell) = &hot.cell {
            cell.prefetch(time.0);
            self.cells.words().prefetch(hot.word);
        }
    }

    /// Where a record of `series` at `time` would be counted. Creates nothing: a late
    /// record must leave no total behind.
    #[inline]
    pub(crate) fn target(
        &mut self,
        series: SeriesId,
        time: TimeMs,
        period_of: impl FnOnce(&str) -> Interval,
    ) -> Target {
        match self.hot[series.0 as usize].period_of(time) {
            Some(period) => Target { series, is_open: true, period },
            None => self.turn_to(series, period_of),
        }
    }

    #[cold]
    fn turn_to(&mut self, series: SeriesId, period_of: impl FnOnce(&str) -> Interval) -> Target {
        let owner = &self.series[series.0 as usize];
        let period = period_of(&owner.tenant);
        let slot = owner.slots.iter().copied().find(|slot| self.slots[slot.at()].cell.period() == period);
        if let Some(slot) = slot {
            self.hot[series.0 as usize].turn_to(slot, &self.slots[slot.at()].cell);
        }
        Target { series, is_open: slot.is_some(), period }
    }

    /// Counts one accepted record, right after its [`target`](Self::target) was found.
    /// It is shown by [`publish_next`](Self::publish_next), or at once where a
    /// reservation holds less because of it.
    #[inline]
    pub(crate) fn add(&mut self, target: Target, seen: &Observation, counting: Counting) {
        let Counting { hash, is_recent, held_change } = counting;
        let Target { series, is_open, period } = target;
        if !is_open {
            self.open(series, period);
        }
        let Self { hot, extras, dirty, unpublished, .. } = self;
        let hot = &mut hot[series.0 as usize];
        let (slot, cell) = (&hot.slot, hot.cell.as_ref().expect("an open total has its cell"));
        if cell.add(seen.quantity, hash) {
            dirty.push(*slot);
        }
        if !is_plain(hot.aggregation)
            && let Some(total) = extras.get_mut(slot)
        {
            total.add(seen);
        }
        if !hot.is_unpublished {
            hot.is_unpublished = true;
            unpublished.push(Counted { series, slot: *slot });
        }
        if is_recent {
            cell.add_recent(WindowKind::Minute.start_of(TimeMs(seen.time_ms)).0, seen.quantity);
        }
        if held_change != 0 {
            cell.publish(value_of(cell, *slot, (hot.aggregation, extras)), held_change);
        }
    }

    /// Shows the next total that the entry changed, with what it is compared with:
    /// its series and how that adds up. What is shown moves what decisions are made on,
    /// a locked instruction, which waits for every store before it: once an entry and
    /// total, and one after the other, it is cheap.
    #[inline]
    pub(crate) fn publish_next(&mut self) -> Option<(SeriesId, &Arc<Cell>)> {
        let Self { hot, slots, extras, unpublished, cells, .. } = self;
        let Counted { series, slot } = unpublished.pop()?;
        let hot = &mut hot[series.0 as usize];
        hot.is_unpublished = false;
        let (cell, word) = match &hot.cell {
            Some(cell) if hot.slot == slot => (cell, cells.words().of(hot.word)),
            // Later records of the entry fell into another period.
            _ => (&slots[slot.at()].cell, slots[slot.at()].cell.word()),
        };
        cell.publish_on(word, value_of(cell, slot, (hot.aggregation, extras)), 0);
        Some((series, cell))
    }

    /// The counter that a record would be added to; opened if need be.
    pub(crate) fn cell(&mut self, target: &mut Target) -> Arc<Cell> {
        if !target.is_open {
            self.open(target.series, target.period);
            target.is_open = true;
        }
        let cell = self.hot[target.series.0 as usize].cell.as_ref();
        Arc::clone(cell.expect("an open total has its cell"))
    }

    /// The tenant and meter of a series.
    pub(crate) fn names(&self, series: SeriesId) -> (Arc<str>, Arc<str>) {
        let series = &self.series[series.0 as usize];
        (Arc::clone(&series.tenant), Arc::clone(&series.meter))
    }

    #[cold]
    fn open(&mut self, series: SeriesId, period: Interval) {
        let aggregation = self.hot[series.0 as usize].aggregation;
        self.put(series, period, Accumulator::new(aggregation));
    }

    /// Puts back a total from the book.
    pub(crate) fn restore(&mut self, series: SeriesId, row: &TotalRow, total: Accumulator) {
        let period = Interval { start: TimeMs(row.period_start_ms), end: TimeMs(row.period_end_ms) };
        let (sum, records, value) = (total.sum, total.records, total.value());
        let cell = self.put(series, period, total);
        cell.restore(sum, records, Digest(row.digest));
        cell.publish(value, 0);
    }

    fn put(&mut self, series: SeriesId, period: Interval, total: Accumulator) -> Arc<Cell> {
        let hot = &mut self.hot[series.0 as usize];
        let owner = &mut self.series[series.0 as usize];
        // A decision may have asked for it before there was any usage.
        let cell = self.cells.cell(&owner.tenant, &owner.meter, hot.aggregation, period);
        let slot = self
            .free
            .pop()
            .unwrap_or_else(|| SlotId(u32::try_from(self.slots.len()).expect("totals are bounded far below 2^32")));
        hot.turn_to(slot, &cell);
        let place = Slot { cell: Arc::clone(&cell), series };
        if slot.at() == self.slots.len() {
            self.slots.push(place);
        } else {
            self.slots[slot.at()] = place;
        }
        if !is_plain(hot.aggregation) {
            self.extras.insert(slot, total);
        }
        owner.slots.push(slot);
        cell
    }

    /// What changed since the last call, absolute values, by tenant, meter and
    /// period.
    pub(crate) fn take_dirty(&mut self) -> Vec<TotalRow> {
        let dirty = std::mem::take(&mut self.dirty);
        let Self { order, series, slots, .. } = self;
        order.rank_all(series.len(), |id| {
            let Series { tenant, meter, .. } = &series[id.0 as usize];
            (tenant, meter)
        });
        let mut ranked: Vec<(u32, SlotId)> =
            dirty.into_iter().map(|slot| (order.rank(slots[slot.at()].series), slot)).collect();
        ranked.sort_unstable_by(|(a, a_slot), (b, b_slot)| {
            let start = |slot: &SlotId| slots[slot.at()].cell.period().start;
            a.cmp(b).then_with(|| start(a_slot).cmp(&start(b_slot)))
        });
        ranked.into_iter().map(|(_, slot)| self.row(slot)).collect()
    }

    fn row(&self, slot: SlotId) -> TotalRow {
        let Slot { cell, series } = &self.slots[slot.at()];
        cell.clean();
        let (owner, aggregation) = (&self.series[series.0 as usize], self.hot[series.0 as usize].aggregation);
        let total = self.extras.get(&slot).cloned().unwrap_or_else(|| {
            let mut plain = Accumulator::new(aggregation);
            (plain.records, plain.sum) = (cell.records(), cell.sum());
            plain
        });
        TotalRow {
            tenant: Arc::clone(&owner.tenant),
            meter: Arc::clone(&owner.meter),
            period_start_ms: cell.period().start.0,
            period_end_ms: cell.period().end.0,
            aggregation,
            quantity: total.value(),
            sum: total.sum,
            records: total.records,
            digest: cell.digest().0,
            state: total.state(),
        }
    }

    /// Lets go of periods that are closed and committed: they never change again.
    pub(crate) fn release(&mut self, is_closed: impl Fn(Interval) -> bool) {
        let Self { hot, series, slots, extras, free, cells, .. } = self;
        for (owner, hot) in series.iter_mut().zip(hot) {
            owner.slots.retain(|slot| {
                let cell = &slots[slot.at()].cell;
                let keep = cell.is_dirty() || !is_closed(cell.period());
                if !keep {
                    cells.withdraw(&owner.tenant, cell);
                    extras.remove(slot);
                    free.push(*slot);
                }
                keep
            });
            if !owner.slots.contains(&hot.slot) {
                hot.turn_away();
            }
        }
    }

    /// Definitions changed: records of a series whose meter is gone are refused until
    /// it comes back. Totals stay.
    pub(crate) fn set_active(&mut self, is_defined: impl Fn(&str) -> bool) {
        for (owner, hot) in self.series.iter().zip(&mut self.hot) {
            hot.active = is_defined(&owner.meter);
        }
    }
}

/// Whether the cell alone is the exact total.
#[inline]
fn is_plain(aggregation: Aggregation) -> bool {
    matches!(aggregation, Aggregation::Sum | Aggregation::Count)
}

/// The aggregated value of a total.
#[inline]
fn value_of(cell: &Cell, slot: SlotId, (how, extras): (Aggregation, &HashMap<SlotId, Accumulator>)) -> i128 {
    match how {
        Aggregation::Sum => cell.sum(),
        Aggregation::Count => i128::from(cell.records()),
        _ => extras.get(&slot).expect("such a total has its state").value(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_knows_the_period_of_its_cell_which_is_half_open() {
        let mut hot = Hot::new(Aggregation::Sum);
        let is_within = |hot: &Hot| [999, 1000, 1999, 2000].map(|ms| hot.period_of(TimeMs(ms)).is_some());
        assert_eq!(is_within(&hot), [false; 4]);
        let period = Interval { start: TimeMs(1000), end: TimeMs(2000) };
        hot.turn_to(SlotId(7), &LiveCells::default().cell(&"acme".into(), "api_call", Aggregation::Sum, period));
        assert_eq!((is_within(&hot), hot.period_of(period.start)), ([false, true, true, false], Some(period)));
        hot.turn_away();
        assert_eq!(is_within(&hot), [false; 4]);
    }
}
