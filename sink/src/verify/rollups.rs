//! Accepted rows and rollup rows in; every day whose rollups do not add up to its rows
//! out.

use std::collections::HashMap;

use odometer_schemas::digest::Hasher;
use odometer_schemas::row::RawRow;
use odometer_schemas::time::{DAY_MS, Interval, MINUTE_MS, TimeMs};

use super::difference::{Difference, Differences};
use crate::raw::RollupRow;

/// These hashes never leave the check, so they need no key.
const MINUTE_HASHER: Hasher = Hasher::new(0);

/// Records and sums per (tenant, meter) and day, from rows and from rollups.
#[derive(Debug, Default)]
pub(super) struct RollupCheck {
    series: HashMap<String, HashMap<String, u32>>,
    next_series: u32,
    days: HashMap<(u32, i64), Day>,
    /// Only whole days inside are compared; all when `None`.
    scope: Option<Interval>,
    checked: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Day {
    rows: Sums,
    rollups: Sums,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sums {
    records: u64,
    sum: i128,
    /// How records and sums are spread over the day's minutes: each weighed by its
    /// minute's hash, modulo 2^64.
    spread: u64,
}

impl Sums {
    fn add(&mut self, minute: i64, records: u64, sum: i128) {
        self.records = self.records.wrapping_add(records);
        self.sum = self.sum.wrapping_add(sum);
        let weight = MINUTE_HASHER.bytes64(&minute.to_le_bytes());
        #[expect(clippy::cast_possible_truncation, reason = "modulo 2^64 is meant")]
        let low = sum.cast_unsigned() as u64;
        let amounts = weight.wrapping_mul(records).wrapping_add((!weight).wrapping_mul(low));
        self.spread = self.spread.wrapping_add(amounts);
    }
}

impl RollupCheck {
    pub(super) fn new(scope: Option<Interval>) -> Self {
        Self { scope, ..Self::default() }
    }

    /// Rollup rows seen.
    pub(super) fn checked(&self) -> u64 {
        self.checked
    }

    /// Adds an accepted row below the raw book's cursor.
    pub(super) fn add_row(&mut self, row: &RawRow<'_>) {
        let minute = row.time_ms.div_euclid(MINUTE_MS);
        self.day(row.tenant, row.meter, row.time_ms).rows.add(minute, 1, i128::from(row.quantity));
    }

    /// Adds a rollup row, and checks its own numbers against each other.
    pub(super) fn add_rollup(&mut self, row: &RollupRow<'_>, differences: &mut Differences) {
        self.checked += 1;
        if let Some(problem) = contradiction(row) {
            differences.push(|| Difference::RollupRow {
                tenant: row.tenant.to_owned(),
                meter: row.meter.to_owned(),
                start: TimeMs(row.window_start_ms),
                partition: row.partition,
                range_start: row.range_start,
                problem,
            });
        }
        let minute = row.window_start_ms.div_euclid(MINUTE_MS);
        self.day(row.tenant, row.meter, row.window_start_ms).rollups.add(minute, row.records, row.sum);
    }

    /// Compares every day.
    pub(super) fn finish(self, differences: &mut Differences) {
        let mut names: Vec<(&str, &str)> = vec![("", ""); self.next_series as usize];
        for (tenant, meters) in &self.series {
            for (meter, series) in meters {
                names[*series as usize] = (tenant, meter);
            }
        }
        let mut keys: Vec<(u32, i64)> = self.days.keys().copied().collect();
        keys.sort_unstable_by_key(|(series, day)| (names[*series as usize], *day));
        for key in keys {
            let whole = |scope: Interval| scope.start <= start_of(key.1) && start_of(key.1 + 1) <= scope.end;
            if self.scope.is_none_or(whole) {
                compare(names[key.0 as usize], key.1, &self.days[&key], differences);
            }
        }
    }

    fn day(&mut self, tenant: &str, meter: &str, time_ms: i64) -> &mut Day {
        let known = self.series.get(tenant).and_then(|meters| meters.get(meter)).copied();
        let series = known.unwrap_or_else(|| {
            let series = self.next_series;
            self.next_series += 1;
            self.series.entry(tenant.to_owned()).or_default().insert(meter.to_owned(), series);
            series
        });
        self.days.entry((series, time_ms.div_euclid(DAY_MS))).or_default()
    }
}

fn compare((tenant, meter): (&str, &str), day: i64, sums: &Day, differences: &mut Differences) {
    let columns = [
        ("records", i128::from(sums.rollups.records), i128::from(sums.rows.records)),
        ("sum", sums.rollups.sum, sums.rows.sum),
        ("spread over minutes", i128::from(sums.rollups.spread), i128::from(sums.rows.spread)),
    ];
    for (column, rollups, raw) in columns {
        if rollups != raw {
            differences.push(|| Difference::Rollup {
                tenant: tenant.to_owned(),
                meter: meter.to_owned(),
                day: start_of(day),
                column,
                rollups,
                raw,
            });
        }
    }
}

/// The start of a day, as far as 64 bits reach: a row may claim any time.
fn start_of(day: i64) -> TimeMs {
    TimeMs(day.saturating_mul(DAY_MS))
}

/// What is wrong with a rollup row taken alone.
fn contradiction(row: &RollupRow<'_>) -> Option<String> {
    if row.window_start_ms.rem_euclid(MINUTE_MS) != 0 {
        return Some("it does not start where a minute starts".to_owned());
    }
    match row.accumulator() {
        Err(error) => Some(error.to_string()),
        Ok(accumulator) if accumulator.value() != row.quantity => {
            Some(format!("its quantity is {}, its records give {}", row.quantity, accumulator.value()))
        }
        Ok(_) => None,
    }
}
