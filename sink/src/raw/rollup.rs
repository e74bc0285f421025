//! Accepted records in, rollup rows of one range of offsets out.
//!
//! Every row is absolute for its range, so a range that grew or was written twice
//! replaces itself. Rows are minutes; hours and days are added up when they are read.

use std::collections::hash_map::Entry;

use odometer_schemas::accumulator::{Accumulator, Observation};
use odometer_schemas::limits::ENVELOPE_RECORDS_MAX;
use odometer_schemas::meter::Aggregation;
use odometer_schemas::time::{TimeMs, WindowKind};

use super::batch::{BatchRollup, BatchSeries, RawBatch, Text};
use super::intern::{Interner, NumberMap};

/// Offsets of one range: ranges start at its multiples. Larger ranges mean fewer
/// rows to read; smaller ones mean less to keep and to rebuild. Also bounds what a
/// partition keeps: one entry per record and range at the very worst.
pub const RANGE_OFFSETS: u64 = 1024;

const _: () = assert!(RANGE_OFFSETS * (ENVELOPE_RECORDS_MAX as u64) < u32::MAX as u64);

/// Between tenant and meter of a series' name. No text may hold it.
const SEPARATOR: char = '\0';

/// The first offset of the range that holds `offset`.
#[must_use]
pub const fn range_start(offset: u64) -> u64 {
    offset - offset % RANGE_OFFSETS
}

/// The rollups of a partition's open range.
#[derive(Debug, Default)]
pub(super) struct RangeRollups {
    range_start: u64,
    last_offset: u64,
    /// Added since rows were last taken, by minute.
    fresh: Vec<Fresh>,
    fresh_numbers: NumberMap<(u32, u32, i64), u32>,
    windows: NumberMap<WindowKey, Window>,
    pub(super) names: Names,
}

/// The (tenant, meter) pairs and kept dimensions of the open range, as numbers, and
/// where they stand in the open batch.
#[derive(Debug, Default)]
pub(super) struct Names {
    series: Interner,
    kept: Interner,
    series_in_batch: Vec<u32>,
    kept_in_batch: Vec<Text>,
    name: String,
}

#[derive(Debug)]
struct Fresh {
    series: u32,
    kept: u32,
    minute_ms: i64,
    aggregation: Aggregation,
    accumulator: Accumulator,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct WindowKey {
    start_ms: i64,
    series: u32,
    kept: u32,
}

#[derive(Debug)]
struct Window {
    aggregation: Aggregation,
    accumulator: Accumulator,
    touched: bool,
}

/// A meter adds up differently from before within one range.
#[derive(Debug)]
pub(super) struct AggregationChanged {
    pub(super) meter: String,
}

const NOT_IN_BATCH: u32 = u32::MAX;

impl RangeRollups {
    pub(super) fn new(range_start: u64) -> Self {
        Self { range_start, last_offset: range_start, ..Self::default() }
    }

    /// Whether `offset` belongs to the open range.
    pub(super) fn holds(&self, offset: u64) -> bool {
        range_start(offset) == self.range_start
    }

    /// Notes that everything up to `offset` has been seen.
    pub(super) fn saw(&mut self, offset: u64) {
        self.last_offset = offset;
    }

    /// The place where records of (series, kept dimensions, minute) are added.
    pub(super) fn slot(&mut self, series: u32, kept: u32, time: TimeMs, aggregation: Aggregation) -> usize {
        let minute_ms = WindowKind::Minute.start_of(time).0;
        let next = self.fresh.len();
        let number = self.fresh_numbers.entry((series, kept, minute_ms)).or_insert_with(|| {
            let accumulator = Accumulator::new(aggregation);
            self.fresh.push(Fresh { series, kept, minute_ms, aggregation, accumulator });
            u32::try_from(next).expect("a range of offsets has fewer records")
        });
        *number as usize
    }

    /// Whether `slot` is where a record of this minute belongs, given that series and
    /// dimensions are the same.
    pub(super) fn is_minute_of(&self, slot: usize, time: TimeMs) -> bool {
        (0..WindowKind::Minute.width_ms()).contains(&(time.0 - self.fresh[slot].minute_ms))
    }

    pub(super) fn add(&mut self, slot: usize, seen: &Observation) {
        self.fresh[slot].accumulator.add(seen);
    }

    /// Merges what is fresh into the windows.
    pub(super) fn settle(&mut self) -> Result<(), AggregationChanged> {
        self.fresh_numbers.clear();
        for fresh in self.fresh.drain(..) {
            let key = WindowKey { start_ms: fresh.minute_ms, series: fresh.series, kept: fresh.kept };
            match self.windows.entry(key) {
                Entry::Vacant(entry) => {
                    let Fresh { aggregation, accumulator, .. } = fresh;
                    entry.insert(Window { aggregation, accumulator, touched: true });
                }
                Entry::Occupied(entry) => {
                    let known = entry.into_mut();
                    if known.aggregation != fresh.aggregation {
                        return Err(AggregationChanged { meter: self.names.pair(fresh.series).1.to_owned() });
                    }
                    known.touched = true;
                    known.accumulator.merge(&fresh.accumulator);
                }
            }
        }
        Ok(())
    }

    /// Forgets which windows changed: the book has them already.
    pub(super) fn are_written(&mut self) {
        self.windows.values_mut().for_each(|window| window.touched = false);
    }

    /// Puts every window that changed into the batch.
    pub(super) fn take(&mut self, partition: u32, batch: &mut RawBatch) {
        for (key, window) in &mut self.windows {
            if !std::mem::take(&mut window.touched) {
                continue;
            }
            let state_start = batch.states.len();
            batch.states.extend_from_slice(&window.accumulator.state());
            let rollup = BatchRollup {
                window_start_ms: key.start_ms,
                series: self.names.series_in(batch, key.series),
                dimensions: self.names.kept_in(batch, key.kept),
                partition,
                range_start: self.range_start,
                last_offset: self.last_offset,
                aggregation: window.aggregation,
                quantity: window.accumulator.value(),
                sum: window.accumulator.sum,
                records: window.accumulator.records,
                state_start,
                state_end: batch.states.len(),
            };
            batch.rollups.push(rollup);
        }
    }

    /// Closes the range and opens the one that holds `offset`.
    pub(super) fn open(&mut self, offset: u64) {
        self.windows.clear();
        // Texts that enter the open batch a second time are harmless there.
        self.names = Names::default();
        self.range_start = range_start(offset);
        self.last_offset = self.range_start;
    }

    /// The next batch has an arena of its own.
    pub(super) fn batch_taken(&mut self) {
        self.names.series_in_batch.clear();
        self.names.kept_in_batch.clear();
    }
}

impl Names {
    pub(super) fn series(&mut self, tenant: &str, meter: &str) -> u32 {
        self.name.clear();
        self.name.push_str(tenant);
        self.name.push(SEPARATOR);
        self.name.push_str(meter);
        self.series.number(&self.name)
    }

    pub(super) fn kept(&mut self, dimensions: &str) -> u32 {
        self.kept.number(dimensions)
    }

    /// The batch's number of a series; its texts enter the batch once.
    pub(super) fn series_in(&mut self, batch: &mut RawBatch, series: u32) -> u32 {
        let place = series as usize;
        if self.series_in_batch.len() <= place {
            self.series_in_batch.resize(place + 1, NOT_IN_BATCH);
        }
        if self.series_in_batch[place] == NOT_IN_BATCH {
            let (tenant, meter) = self.pair(series);
            let texts = BatchSeries { tenant: batch.texts.push(tenant), meter: batch.texts.push(meter) };
            let number = u32::try_from(batch.series.len()).expect("a batch has fewer series than rows");
            batch.series.push(texts);
            self.series_in_batch[place] = number;
        }
        self.series_in_batch[place]
    }

    fn kept_in(&mut self, batch: &mut RawBatch, kept: u32) -> Text {
        let place = kept as usize;
        if self.kept_in_batch.len() <= place {
            self.kept_in_batch.resize(place + 1, Text::ABSENT);
        }
        if self.kept_in_batch[place] == Text::ABSENT {
            self.kept_in_batch[place] = batch.texts.push(self.kept.text(kept));
        }
        self.kept_in_batch[place]
    }

    fn pair(&self, series: u32) -> (&str, &str) {
        let name = self.series.text(series);
        name.split_once(SEPARATOR).unwrap_or((name, ""))
    }
}
