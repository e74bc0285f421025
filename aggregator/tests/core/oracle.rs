//! The core against a naive model: plain maps, no windows of hashes, no slots. Both
//! must give every record the same verdict and every total the same value.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::support::{MemoryBook, OPTIONS, any_log};
use odometer_aggregator::{LiveState, Processor};
use odometer_schemas::commit::PartitionState;
use odometer_schemas::control::Control;
use odometer_schemas::definitions::Definitions;
use odometer_schemas::envelope::{Decoded, decode};
use odometer_schemas::log::LogEntry;
use odometer_schemas::meter::Aggregation;
use odometer_schemas::record::Record;
use odometer_schemas::time::TimeMs;
use odometer_schemas::verdict::{RejectReason, Verdict, unpack};
use proptest::prelude::*;

/// Event time, order of acceptance, record.
type Counted = (i64, usize, Record);

/// (tenant, source, id, meter).
type Key = (String, String, String, String);

#[derive(Default)]
struct Naive {
    definitions: Option<Definitions>,
    closed_through_ms: i64,
    log_time_ms: i64,
    /// Remembered keys: content, and the log time at which their bucket ends.
    ids: HashMap<Key, (Record, i64)>,
    open_bucket_end_ms: i64,
    emitted: HashMap<u128, (u32, HashSet<u64>)>,
    accepted: BTreeMap<(String, String, String), Vec<Counted>>,
    order: usize,
}

impl Naive {
    fn handle(&mut self, entry: &LogEntry) -> Vec<Verdict> {
        self.log_time_ms = self.log_time_ms.max(entry.append_time.0);
        self.turn_buckets();
        match decode(&entry.bytes) {
            Err(error) => vec![Verdict::Rejected(error.into())],
            Ok(Decoded::Control(control)) => {
                self.control(*control);
                vec![]
            }
            Ok(Decoded::Usage(usage)) => (0..usage.len())
                .map(|i| {
                    let origin = usage.origin();
                    let emitted = (origin.source, origin.epoch, origin.first_sequence + i as u64);
                    self.record(&usage.to_owned_record(i), emitted, entry.append_time)
                })
                .collect(),
        }
    }

    fn turn_buckets(&mut self) {
        let Some(rule) = self.definitions.as_ref().map(|d| d.dedupe) else { return };
        if self.log_time_ms >= self.open_bucket_end_ms {
            self.open_bucket_end_ms = (rule.bucket_of(self.log_time_ms) + 1) * rule.bucket_ms();
        }
        let forget_ms = self.log_time_ms - rule.window_ms;
        self.ids.retain(|_, (_, bucket_end_ms)| *bucket_end_ms > forget_ms);
    }

    fn control(&mut self, control: Control<'_>) {
        match control {
            Control::Definitions(definitions) => {
                let changed = self.definitions.as_ref().is_some_and(|old| old.dedupe != definitions.dedupe);
                if changed {
                    let (open_ms, now_ms) = (self.open_bucket_end_ms, self.log_time_ms);
                    self.ids
                        .values_mut()
                        .filter(|(_, end)| *end == open_ms)
                        .for_each(|(_, end)| *end = open_ms.min(now_ms));
                    self.open_bucket_end_ms = now_ms;
                }
                self.definitions = Some(definitions);
                self.turn_buckets();
            }
            Control::Close { through_ms, .. } => self.closed_through_ms = self.closed_through_ms.max(through_ms),
            // Quota decides about no record.
            Control::Tick
            | Control::Anchor { .. }
            | Control::Owner { .. }
            | Control::Plan { .. }
            | Control::Terms { .. }
            | Control::Quota { .. } => {}
        }
    }

    fn record(&mut self, record: &Record, emitted: (u128, u32, u64), append_time: TimeMs) -> Verdict {
        let verdict = self.judge(record, emitted, append_time);
        // A rejected record uses its sequence up, too.
        if matches!(verdict, Verdict::Rejected(_)) && record.id.is_none() {
            self.seen(record, emitted);
        }
        verdict
    }

    fn judge(&mut self, record: &Record, emitted: (u128, u32, u64), append_time: TimeMs) -> Verdict {
        let Some(meter) = self.definitions.as_ref().and_then(|d| d.meter(&record.meter)) else {
            return Verdict::Rejected(RejectReason::UnknownMeter);
        };
        let aggregation = meter.aggregation;
        let time = record.time.unwrap_or(append_time);
        if time.checked().is_err() {
            return Verdict::Rejected(RejectReason::TimeOutOfRange);
        }
        if time.0 > self.log_time_ms + Definitions::FUTURE_MS_MAX_DEFAULT {
            return Verdict::Rejected(RejectReason::TimeInFuture);
        }
        if aggregation == Aggregation::UniqueCount && record.subject.is_none() {
            return Verdict::Rejected(RejectReason::MissingUniqueValue);
        }
        if let Some(verdict) = self.seen(record, emitted) {
            return verdict;
        }
        let month = time.to_string()[..7].to_owned();
        let end = odometer_schemas::period::parse_month(&month).unwrap().end;
        if end.0 <= self.closed_through_ms {
            return Verdict::Late;
        }
        self.order += 1;
        let total = self.accepted.entry((record.tenant.clone(), record.meter.clone(), month)).or_default();
        total.push((time.0, self.order, record.clone()));
        Verdict::Accepted
    }

    fn seen(&mut self, record: &Record, (source, epoch, sequence): (u128, u32, u64)) -> Option<Verdict> {
        let Some(id) = &record.id else {
            let (newest, seen) = self.emitted.entry(source).or_insert((epoch, HashSet::new()));
            if epoch < *newest {
                return Some(Verdict::Rejected(RejectReason::StaleEpoch));
            }
            if epoch > *newest {
                (*newest, *seen) = (epoch, HashSet::new());
            }
            return (!seen.insert(sequence)).then_some(Verdict::Duplicate);
        };
        let key = (record.tenant.clone(), record.source.clone(), id.clone(), record.meter.clone());
        match self.ids.get(&key) {
            Some((known, _)) if known == record => Some(Verdict::Duplicate),
            Some(_) => Some(Verdict::Conflict),
            None => {
                self.ids.insert(key, (record.clone(), self.open_bucket_end_ms));
                None
            }
        }
    }

    fn value(aggregation: Aggregation, records: &[Counted]) -> i128 {
        let quantities = records.iter().map(|(_, _, r)| i128::from(r.quantity.0));
        let n = records.len() as i128;
        match aggregation {
            Aggregation::Sum => quantities.sum(),
            Aggregation::Count => n,
            Aggregation::Min => quantities.min().unwrap_or(0),
            Aggregation::Max => quantities.max().unwrap_or(0),
            Aggregation::Avg => {
                let sum: i128 = quantities.sum();
                let half_up = (2 * sum.abs() + n) / (2 * n);
                half_up * sum.signum()
            }
            Aggregation::Latest => {
                let latest = records.iter().max_by_key(|(time, order, _)| (*time, *order));
                latest.map_or(0, |(_, _, r)| i128::from(r.quantity.0))
            }
            Aggregation::UniqueCount => {
                records.iter().map(|(_, _, r)| &r.subject).collect::<HashSet<_>>().len() as i128
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn every_verdict_and_every_total_is_what_the_naive_model_says(log in any_log()) {
        // Anchors have their own tests; the model knows calendar months only.
        let is_anchor = |entry: &LogEntry| match decode(&entry.bytes) {
            Ok(Decoded::Control(control)) => matches!(*control, Control::Anchor { .. }),
            _ => false,
        };
        let mut naive = Naive::default();
        let mut processor = Processor::restore(OPTIONS, &PartitionState::default(), None, LiveState::default()).unwrap();
        let mut book = MemoryBook::default();
        for entry in log.iter().filter(|entry| !is_anchor(entry)) {
            let expected = naive.handle(entry);
            processor.handle(entry).unwrap();
            book.apply(&processor.poll_commit().unwrap());
            let packed = book.exceptions.get(&entry.offset);
            let verdicts = packed.map_or(vec![Verdict::Accepted; expected.len()], |packed| unpack(packed).unwrap());
            prop_assert_eq!(verdicts, expected, "offset {}", entry.offset);
        }
        prop_assert_eq!(book.totals.len(), naive.accepted.len());
        for ((tenant, meter, month), records) in &naive.accepted {
            let start = odometer_schemas::period::parse_month(month).unwrap().start;
            let row = &book.totals[&(tenant.clone(), meter.clone(), start.0)];
            prop_assert_eq!(row.records, records.len() as u64);
            prop_assert_eq!(row.quantity, Naive::value(row.aggregation, records), "{} {}", tenant, meter);
        }
    }
}
