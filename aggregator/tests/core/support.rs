//! A random log, and a totals book in memory.

use std::collections::BTreeMap;

use odometer_aggregator::{LiveState, Options, Processor, Snapshot};
use odometer_schemas::commit::{PartitionCommit, PartitionState, SourceMark, TotalRow};
use odometer_schemas::control::Control;
use odometer_schemas::definitions::{DedupeRule, Definitions};
use odometer_schemas::envelope::{EnvelopeBuilder, Origin, encode_control};
use odometer_schemas::log::LogEntry;
use odometer_schemas::meter::{Aggregation, Meter};
use odometer_schemas::quantity::Quantity;
use odometer_schemas::quota::{
    Action, Decision, HeldItem, Limit, Plan, PlanOrigin, QuotaOperation, QuotaRow, QuotaRowKind, Scope, TenantTerms,
};
use odometer_schemas::record::Record;
use odometer_schemas::time::TimeMs;
use proptest::prelude::*;

pub(crate) const OPTIONS: Options = Options {
    partition: 0,
    partitions: 1,
    hash_seed: Definitions::HASH_SEED_DEFAULT,
    ids_max: 1_000_000,
    totals_max: 1_000_000,
    placement_seed: 11,
};

/// 2026-01-15T00:00:00Z.
pub(crate) const BEGIN_MS: i64 = 1_768_435_200_000;
pub(crate) const WINDOW_MS: i64 = 80_000;

/// One meter of each aggregation, a short dedupe window.
pub(crate) fn definitions() -> Definitions {
    let all = [
        ("sum", Aggregation::Sum),
        ("count", Aggregation::Count),
        ("min", Aggregation::Min),
        ("max", Aggregation::Max),
        ("avg", Aggregation::Avg),
        ("latest", Aggregation::Latest),
        ("unique", Aggregation::UniqueCount),
    ];
    let meter = |(name, aggregation): (&str, Aggregation)| Meter {
        name: name.into(),
        aggregation,
        ..Meter::built_in().remove(0)
    };
    let mut definitions = Definitions::with_meters(all.map(meter).into());
    definitions.dedupe = DedupeRule { window_ms: WINDOW_MS };
    definitions
}

/// One envelope of a random log.
#[derive(Clone, Debug)]
pub(crate) enum Message {
    Usage { origin: Origin, records: Vec<Record> },
    Control(Control<'static>),
    Junk(Vec<u8>),
}

impl Message {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Usage { origin, records } => {
                let mut builder = EnvelopeBuilder::new();
                records.iter().for_each(|record| builder.push(record).unwrap());
                builder.seal(*origin)
            }
            Self::Control(control) => encode_control(control, Origin::default()),
            Self::Junk(bytes) => bytes.clone(),
        }
    }
}

fn any_record() -> impl Strategy<Value = Record> {
    let meters = prop::sample::select(vec!["sum", "count", "min", "max", "avg", "latest", "unique", "missing"]);
    let time = prop_oneof![
        6 => (-100_000_i64..100_000).prop_map(|d| Some(BEGIN_MS + d)),
        2 => Just(None),
        1 => prop::sample::select(vec![-40 * 86_400_000_i64, 40 * 86_400_000, -BEGIN_MS]).prop_map(|d| Some(BEGIN_MS + d)),
    ];
    let subject = prop::option::of("[uv]");
    let reservation = prop::option::of("[xyz]");
    ("[ab]", "[st]", prop::option::weighted(0.7, "[0-9]"), meters, -3_i64..4, time, subject, reservation).prop_map(
        |(tenant, source, id, meter, quantity, time, subject, reservation)| Record {
            tenant,
            source,
            id,
            meter: meter.into(),
            quantity: Quantity(quantity),
            time: time.map(TimeMs),
            subject,
            dimensions: vec![],
            reservation,
        },
    )
}

fn any_amount() -> impl Strategy<Value = Vec<HeldItem<'static>>> {
    let period = Some((1_767_225_600_000, 1_769_904_000_000));
    let items = [("sum", period), ("count", period), ("agents", None)];
    let item = (prop::sample::select(items.to_vec()), 0_i64..9).prop_map(|((meter, period_ms), amount)| HeldItem {
        meter: meter.into(),
        amount,
        period_ms,
    });
    prop::collection::vec(item, 0..3)
}

fn any_action() -> impl Strategy<Value = Action<'static>> {
    let user = || prop::option::of("[uv]".prop_map(Into::into));
    let ends = || BEGIN_MS - 20_000..BEGIN_MS + 200_000;
    prop_oneof![
        4 => (user(), user(), any_amount(), ends()).prop_map(|(subject, key, items, expires_ms)| Action::Reserve {
            subject, key, items, expires_ms, body: 1, decision: Decision::Allow,
        }),
        2 => (0_u64..30, ends(), any_amount()).prop_map(|(op, expires_ms, add)| Action::Extend { op, expires_ms, add }),
        2 => (0_u64..30, any_amount(), prop::option::of(ends()))
            .prop_map(|(op, items, settle_until_ms)| Action::Commit { op, items, settle_until_ms }),
        1 => (0_u64..30).prop_map(|op| Action::Release { op }),
    ]
}

/// Whatever quota puts into the log.
fn any_quota() -> impl Strategy<Value = Control<'static>> {
    let operation = ("[ab]", "[xyz]", any_action()).prop_map(|(tenant, id, action)| QuotaOperation {
        tenant: tenant.into(),
        id: id.into(),
        at_ms: BEGIN_MS,
        action,
    });
    let operations = prop::collection::vec(operation, 1..5);
    let limits = prop::sample::subsequence(vec![Scope::Tenant, Scope::Subject, Scope::Key], 0..4).prop_map(|scopes| {
        scopes.into_iter().map(|scope| Limit { scope, ..Limit::usage("sum", Some(9)) }).collect::<Vec<_>>()
    });
    let plan =
        ("[pq]", limits, any::<bool>(), any::<bool>()).prop_map(|(name, limits, is_default, put)| Control::Plan {
            plan: Plan { name, limits, is_default },
            origin: if put { PlanOrigin::Api } else { PlanOrigin::Config },
        });
    let terms = ("[ab]", prop::option::of("[pq]".prop_map(String::from)))
        .prop_map(|(tenant, plan)| Control::Terms { tenant, terms: TenantTerms { plan, overrides: vec![] } });
    prop_oneof![
        6 => (0_u64..4, operations).prop_map(|(epoch, operations)| Control::Quota { epoch, operations }),
        2 => plan,
        1 => terms,
        1 => (0_u64..4).prop_map(|epoch| Control::Owner { epoch }),
    ]
}

fn any_message() -> impl Strategy<Value = Message> {
    let origin = (1_u128..3, 0_u32..2, 0_u64..30).prop_map(|(source, epoch, first_sequence)| Origin {
        source,
        epoch,
        first_sequence,
    });
    let usage = (origin, prop::collection::vec(any_record(), 1..12))
        .prop_map(|(origin, records)| Message::Usage { origin, records });
    let anchor = ("[ab]", prop::option::of(BEGIN_MS - 100_000_000..BEGIN_MS))
        .prop_map(|(tenant, anchor_ms)| Control::Anchor { tenant, anchor_ms });
    let close = (BEGIN_MS - 86_400_000 * 20..BEGIN_MS)
        .prop_map(|through_ms| Control::Close { close_id: "c".into(), through_ms });
    let definitions = prop::sample::select(vec![WINDOW_MS, WINDOW_MS / 4])
        .prop_map(|window_ms| Control::Definitions(Definitions { dedupe: DedupeRule { window_ms }, ..definitions() }));
    prop_oneof![
        20 => usage,
        6 => any_quota().prop_map(Message::Control),
        1 => Just(Message::Control(Control::Tick)),
        1 => anchor.prop_map(Message::Control),
        1 => close.prop_map(Message::Control),
        1 => definitions.prop_map(Message::Control),
        1 => prop::collection::vec(any::<u8>(), 0..80).prop_map(Message::Junk),
    ]
}

/// A log that begins with definitions; append times run on irregularly, offsets have
/// gaps as Kafka's do.
pub(crate) fn any_log() -> impl Strategy<Value = Vec<LogEntry>> {
    let step = (any_message(), 0_i64..9_000, 1_u64..3);
    prop::collection::vec(step, 1..60).prop_map(|steps| {
        let first = (Message::Control(Control::Definitions(definitions())), 0, 1);
        let (mut time, mut offset) = (BEGIN_MS, 0);
        let entry = |(message, gap_ms, gap): (Message, i64, u64)| {
            time += gap_ms;
            offset += gap;
            LogEntry { partition: 0, offset, append_time: TimeMs(time), bytes: message.bytes().into() }
        };
        std::iter::once(first).chain(steps).map(entry).collect()
    })
}

/// A totals book in memory: one partition, applied commit by commit.
#[derive(Clone, Debug, Default)]
pub(crate) struct MemoryBook {
    pub(crate) state: PartitionState,
    pub(crate) totals: BTreeMap<(String, String, i64), TotalRow>,
    marks: BTreeMap<u128, SourceMark>,
    pub(crate) exceptions: BTreeMap<u64, Vec<u8>>,
    pub(crate) quota: BTreeMap<(QuotaRowKind, String, String), Vec<u8>>,
}

impl MemoryBook {
    pub(crate) fn apply(&mut self, commit: &PartitionCommit) {
        assert_eq!(commit.from_offset, self.state.next_offset);
        self.state.next_offset = commit.next_offset;
        self.state.log_time_ms = commit.log_time_ms;
        self.state.counts = commit.counts;
        for row in &commit.totals {
            self.totals.insert((row.tenant.to_string(), row.meter.to_string(), row.period_start_ms), row.clone());
        }
        self.marks.extend(commit.marks.iter().map(|mark| (mark.source, mark.clone())));
        self.state.alerts.extend(commit.alerts.iter().cloned());
        self.exceptions.extend(commit.exceptions.iter().map(|row| (row.offset, row.verdicts.clone())));
        for QuotaRow { kind, tenant, name, state } in commit.quota.clone() {
            match state.is_empty() {
                true => self.quota.remove(&(kind, tenant, name)),
                false => self.quota.insert((kind, tenant, name), state),
            };
        }
        if let Some(rules) = &commit.rules {
            self.state.rules = Some(rules.clone());
        }
    }

    fn quota_rows(&self) -> Vec<QuotaRow> {
        let row = |((kind, tenant, name), state): (&(QuotaRowKind, String, String), &Vec<u8>)| QuotaRow {
            kind: *kind,
            tenant: tenant.clone(),
            name: name.clone(),
            state: state.clone(),
        };
        self.quota.iter().map(row).collect()
    }

    /// A new owner takes over: from the book, a snapshot or none, and the log.
    pub(crate) fn recover(&self, log: &[LogEntry], snapshot: Option<&[u8]>) -> Processor {
        let state = PartitionState {
            totals: self.totals.values().cloned().collect(),
            marks: self.marks.values().cloned().collect(),
            quota: self.quota_rows(),
            ..self.state.clone()
        };
        let snapshot = snapshot.map(|bytes| Snapshot::decode(bytes).unwrap());
        let mut processor = Processor::restore(OPTIONS, &state, snapshot, LiveState::default()).unwrap();
        let (from, to) = (processor.learn_from(), processor.next_offset());
        for entry in log.iter().filter(|entry| (from..to).contains(&entry.offset)) {
            processor.learn(entry, self.exceptions.get(&entry.offset).map(Vec::as_slice));
        }
        processor
    }
}
