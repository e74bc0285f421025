//! Rollup rows in, usage per window and group out. The same for every engine: the
//! engine finds the rows, this adds them up in 128 bits.

use std::collections::{BTreeMap, HashMap};

use odometer_schemas::accumulator::Accumulator;
use odometer_schemas::limits::{TIME_MS_MAX, TIME_MS_MIN};
use odometer_schemas::meter::Aggregation;
use odometer_schemas::period::PeriodRule;
use odometer_schemas::row::parse_dimensions;
use odometer_schemas::time::{Interval, TimeMs, WindowKind};

use super::RollupRow;
use crate::error::BookError;

/// Most rows of one answer: a minute window over two months, or fewer with groups.
/// More would not be read by anybody, and an answer must fit in memory.
pub const USAGE_ROWS_MAX: usize = 100_000;

/// The windows that usage is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsageWindow {
    /// Sixty seconds.
    Minute,
    /// Sixty minutes.
    Hour,
    /// A UTC day.
    Day,
    /// A UTC calendar month.
    Month,
}

/// A question about usage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageQuery {
    /// Whose usage; everybody's together without it.
    pub tenant: Option<String>,
    /// Of what.
    pub meter: String,
    /// Windows that hold or follow this time; a window is never cut.
    pub from: TimeMs,
    /// Windows that start before this time.
    pub to: TimeMs,
    /// How time is cut.
    pub window: UsageWindow,
    /// The kept dimension that splits each window, if any.
    pub group_by: Option<String>,
}

/// The answer for one window and group. Windows without usage have none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageRow {
    /// First millisecond of the window.
    pub window_start: TimeMs,
    /// First millisecond after it.
    pub window_end: TimeMs,
    /// The dimension's value; `None` when not grouped, and for records without it.
    pub group: Option<String>,
    /// The meter's aggregated value in base units.
    pub quantity: i128,
    /// The sum of quantities, whatever the aggregation.
    pub sum: i128,
    /// Accepted records.
    pub records: u64,
}

impl UsageWindow {
    /// The window that holds `time`.
    #[must_use]
    pub fn of(self, time: TimeMs) -> Interval {
        let kind = match self {
            Self::Minute => WindowKind::Minute,
            Self::Hour => WindowKind::Hour,
            Self::Day => WindowKind::Day,
            Self::Month => return PeriodRule::CalendarMonth.period_of(time),
        };
        let start = kind.start_of(time);
        Interval { start, end: start.plus_ms(kind.width_ms()) }
    }
}

impl UsageQuery {
    /// The times of the rollup rows that answer it.
    #[must_use]
    pub fn window_starts(&self) -> Interval {
        // No record has a time outside.
        let from = self.from.max(TimeMs(TIME_MS_MIN));
        let to = self.to.min(TimeMs(TIME_MS_MAX));
        if to <= from {
            return Interval { start: from, end: from };
        }
        Interval { start: self.window.of(from).start, end: self.window.of(to.plus_ms(-1)).end }
    }
}

/// Adds rollup rows up, in any order.
#[derive(Debug)]
pub(crate) struct UsageFold<'q> {
    query: &'q UsageQuery,
    sums: BTreeMap<(Interval, Option<String>), (Aggregation, Accumulator)>,
    /// The group of each dimensions text: many rows share few texts.
    groups: HashMap<String, Option<String>>,
}

impl<'q> UsageFold<'q> {
    /// An empty answer to `query`.
    #[must_use]
    pub(crate) fn new(query: &'q UsageQuery) -> Self {
        Self { query, sums: BTreeMap::new(), groups: HashMap::new() }
    }

    /// Adds one row of the query's meter and tenant.
    ///
    /// # Errors
    /// When the row does not read back, or the answer grows too large.
    pub(crate) fn add(&mut self, row: &RollupRow<'_>) -> Result<(), BookError> {
        let group = self.group(row)?;
        let accumulator = row.accumulator().map_err(|e| corrupt(row, "state", format!("is damaged: {e}")))?;
        let window = self.query.window.of(TimeMs(row.window_start_ms));
        let room = self.sums.len() < USAGE_ROWS_MAX;
        match self.sums.entry((window, group)) {
            std::collections::btree_map::Entry::Occupied(entry) => {
                let (aggregation, sum) = entry.into_mut();
                if *aggregation != row.aggregation {
                    let problem = format!("is {}, other rows have {}", row.aggregation.name(), aggregation.name());
                    return Err(corrupt(row, "aggregation", problem));
                }
                let fits = sum.sum.checked_add(row.sum).is_some() && sum.records.checked_add(row.records).is_some();
                if !fits {
                    return Err(corrupt(row, "sum", "is larger than any usage".to_owned()));
                }
                sum.merge(&accumulator);
            }
            std::collections::btree_map::Entry::Vacant(entry) if room => {
                entry.insert((row.aggregation, accumulator));
            }
            std::collections::btree_map::Entry::Vacant(_) => {
                return Err(BookError::out_of_range(format!(
                    "the answer has more than {USAGE_ROWS_MAX} rows; ask for a shorter time or a wider window"
                )));
            }
        }
        Ok(())
    }

    /// The answer, by window and group.
    #[must_use]
    pub(crate) fn finish(self) -> Vec<UsageRow> {
        let row = |((window, group), (_, sum)): ((Interval, _), (_, Accumulator))| UsageRow {
            window_start: window.start,
            window_end: window.end,
            group,
            quantity: sum.value(),
            sum: sum.sum,
            records: sum.records,
        };
        self.sums.into_iter().map(row).collect()
    }

    fn group(&mut self, row: &RollupRow<'_>) -> Result<Option<String>, BookError> {
        let Some(name) = &self.query.group_by else { return Ok(None) };
        if let Some(group) = self.groups.get(row.dimensions) {
            return Ok(group.clone());
        }
        let pairs = parse_dimensions(row.dimensions).map_err(|e| corrupt(row, "dimensions", e.to_string()))?;
        let group = pairs.into_iter().find(|(known, _)| known == name).map(|(_, value)| value);
        self.groups.insert(row.dimensions.to_owned(), group.clone());
        Ok(group)
    }
}

fn corrupt(row: &RollupRow<'_>, column: &str, problem: String) -> BookError {
    let RollupRow { tenant, meter, window_start_ms, partition, range_start, .. } = row;
    let key = format!("({tenant}, {meter}, {window_start_ms}, {partition}, {range_start})");
    BookError::Corrupt { table: "usage_rollups", key, column: column.to_owned(), problem }
}
