//! Accepted rows in, totals recomputed from nothing, and every way in which the totals
//! book differs from them out.

use std::collections::HashMap;
use std::sync::Arc;

use odometer_schemas::accumulator::{Accumulator, Observation};
use odometer_schemas::commit::TotalRow;
use odometer_schemas::digest::{Digest, RecordHash};
use odometer_schemas::row::RawRow;
use odometer_schemas::time::{Interval, TimeMs};

use super::difference::{Difference, Differences};

/// By tenant and meter.
type BySeries = HashMap<Arc<str>, HashMap<Arc<str>, Vec<usize>>>;

/// The totals of a snapshot and what the rows give for each.
#[derive(Debug)]
pub(super) struct TotalsCheck {
    totals: Vec<Recomputed>,
    /// The totals' places, by period start.
    by_series: BySeries,
    /// Only rows inside must have a total; all of them when `None`.
    scope: Option<Interval>,
}

#[derive(Debug)]
struct Recomputed {
    total: TotalRow,
    accumulator: Accumulator,
    digest: Digest,
}

impl TotalsCheck {
    pub(super) fn new(totals: Vec<TotalRow>, scope: Option<Interval>, differences: &mut Differences) -> Self {
        let mut by_series: BySeries = HashMap::new();
        for pair in totals.windows(2) {
            let [first, second] = pair else { continue };
            let same = (&first.tenant, &first.meter) == (&second.tenant, &second.meter);
            if same && first.period_end_ms > second.period_start_ms {
                differences.push(|| Difference::PeriodsOverlap {
                    tenant: first.tenant.to_string(),
                    meter: first.meter.to_string(),
                    first: TimeMs(first.period_start_ms),
                    second: TimeMs(second.period_start_ms),
                });
            }
        }
        for (place, total) in totals.iter().enumerate() {
            let meters = by_series.entry(Arc::clone(&total.tenant)).or_default();
            meters.entry(Arc::clone(&total.meter)).or_default().push(place);
        }
        let recomputed = |total: TotalRow| Recomputed {
            accumulator: Accumulator::new(total.aggregation),
            digest: Digest::default(),
            total,
        };
        Self { totals: totals.into_iter().map(recomputed).collect(), by_series, scope }
    }

    /// How many totals there are.
    pub(super) fn len(&self) -> usize {
        self.totals.len()
    }

    /// Adds an accepted row to its total.
    pub(super) fn add(
        &mut self,
        row: &RawRow<'_>,
        hash: Option<RecordHash>,
        unique: u64,
        differences: &mut Differences,
    ) {
        let Some(place) = self.place(row) else {
            let time = TimeMs(row.time_ms);
            if self.scope.is_none_or(|scope| scope.contains(time)) {
                differences.push(|| Difference::NoTotal {
                    position: row.position,
                    tenant: row.tenant.to_owned(),
                    meter: row.meter.to_owned(),
                    time,
                });
            }
            return;
        };
        let recomputed = &mut self.totals[place];
        let ordinal = row.position.ordinal();
        recomputed.accumulator.add(&Observation { quantity: row.quantity, time_ms: row.time_ms, ordinal, unique });
        if let Some(hash) = hash {
            recomputed.digest.add(hash);
        }
    }

    /// Compares every total with what the rows gave.
    pub(super) fn finish(self, differences: &mut Differences) {
        for Recomputed { total, accumulator, digest } in self.totals {
            let mut compare = |column, total_says: String, raw_gives: String| {
                if total_says != raw_gives {
                    differences.push(|| Difference::Total {
                        tenant: total.tenant.to_string(),
                        meter: total.meter.to_string(),
                        period_start: TimeMs(total.period_start_ms),
                        column,
                        total: total_says,
                        raw: raw_gives,
                    });
                }
            };
            compare("records", total.records.to_string(), accumulator.records.to_string());
            compare("quantity", total.quantity.to_string(), accumulator.value().to_string());
            compare("sum", total.sum.to_string(), accumulator.sum.to_string());
            compare("digest", Digest(total.digest).to_string(), digest.to_string());
            let state = accumulator.state();
            if total.state != state {
                compare("state", shown(&total.state), shown(&state));
            }
        }
    }

    fn place(&self, row: &RawRow<'_>) -> Option<usize> {
        let places = self.by_series.get(row.tenant)?.get(row.meter)?;
        let next = places.partition_point(|place| self.totals[*place].total.period_start_ms <= row.time_ms);
        let place = *places.get(next.checked_sub(1)?)?;
        (row.time_ms < self.totals[place].total.period_end_ms).then_some(place)
    }
}

/// A state is up to 16 KiB; its beginning and size tell it apart from most others.
fn shown(state: &[u8]) -> String {
    let digits: String = state.iter().take(24).map(|byte| format!("{byte:02x}")).collect();
    format!("{} bytes 0x{digits}, hash {:032x}", state.len(), fingerprint(state))
}

fn fingerprint(state: &[u8]) -> u64 {
    odometer_schemas::digest::Hasher::new(0).bytes64(state)
}
