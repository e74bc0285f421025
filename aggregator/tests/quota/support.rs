//! A partition with plans, its log, and questions to it.

use odometer_aggregator::{LiveQuota, LiveState, Options, Processor};
use odometer_schemas::commit::{PartitionCommit, PartitionState};
use odometer_schemas::control::Control;
use odometer_schemas::definitions::Definitions;
use odometer_schemas::envelope::{EnvelopeBuilder, Origin, encode_control};
use odometer_schemas::log::LogEntry;
use odometer_schemas::quantity::Quantity;
use odometer_schemas::quota::{
    Check, Commit, Decision, Item, Limit, Plan, PlanOrigin, QuotaError, QuotaOperation, Reserve, Who,
};
use odometer_schemas::record::Record;
use odometer_schemas::time::TimeMs;

pub(crate) use odometer_aggregator::quota::Outcome;

/// 2026-01-15T00:00:00Z.
pub(crate) const NOW: TimeMs = TimeMs(1_768_435_200_000);
pub(crate) const MINUTE_MS: i64 = 60_000;

const OPTIONS: Options = Options {
    partition: 0,
    partitions: 1,
    hash_seed: Definitions::HASH_SEED_DEFAULT,
    ids_max: 1_000_000,
    totals_max: 1_000_000,
    placement_seed: 11,
};

/// The owner of one partition.
pub(crate) struct Site {
    processor: Processor,
    pub(crate) quota: LiveQuota,
    next_offset: u64,
    pub(crate) commits: Vec<PartitionCommit>,
}

impl Site {
    /// One whose default plan has `limits`.
    pub(crate) fn new(limits: Vec<Limit>) -> Self {
        let mut site = Self::restored(&PartitionState::default());
        site.log(&Control::Definitions(Definitions::built_in()));
        let plan = Plan { name: "free".into(), limits, is_default: true };
        site.log(&Control::Plan { plan, origin: PlanOrigin::Config });
        site
    }

    /// A new owner from what the book holds.
    pub(crate) fn restored(state: &PartitionState) -> Self {
        let live = LiveState::default();
        let quota = live.quota.clone();
        let processor = Processor::restore(OPTIONS, state, None, live).unwrap();
        Self { processor, quota, next_offset: state.next_offset, commits: Vec::new() }
    }

    pub(crate) fn log(&mut self, control: &Control<'_>) {
        self.append(encode_control(control, Origin::default()));
    }

    /// The log has what was decided.
    pub(crate) fn book(&mut self, outcome: Outcome<'_>) {
        let operations: Vec<QuotaOperation<'_>> = outcome.operation.into_iter().collect();
        self.log(&Control::Quota { epoch: 1, operations });
    }

    pub(crate) fn append(&mut self, bytes: Vec<u8>) {
        self.append_at(bytes, NOW);
    }

    /// Log time goes on.
    pub(crate) fn tick_at(&mut self, now: TimeMs) {
        self.append_at(encode_control(&Control::Tick, Origin::default()), now);
    }

    fn append_at(&mut self, bytes: Vec<u8>, append_time: TimeMs) {
        let entry = LogEntry { partition: 0, offset: self.next_offset, append_time, bytes: bytes.into() };
        self.next_offset += 1;
        self.processor.handle(&entry).unwrap();
        self.commits.extend(self.processor.poll_commit());
    }

    /// A record of `quantity` milliseconds of an agent of `subject`.
    pub(crate) fn use_as(&mut self, subject: Option<&str>, quantity: i64) {
        let record =
            Record { subject: subject.map(Into::into), ..minutes(&format!("u{}", self.next_offset), quantity) };
        self.append(sealed(&record));
    }

    /// What a totals book with `state` holds after this site's commits.
    pub(crate) fn book_over(&self, state: PartitionState) -> PartitionState {
        commit_over(state, &self.commits)
    }

    /// All alerts so far: (scope's name, percent, used).
    pub(crate) fn alerts(&self) -> Vec<(String, u16, i64)> {
        let rows = self.commits.iter().flat_map(|commit| &commit.alerts);
        rows.map(|row| (format!("{}{}", row.scope, row.name), row.percent, row.used)).collect()
    }

    /// An accepted record of `quantity` milliseconds of an agent.
    pub(crate) fn use_minutes(&mut self, id: &str, quantity: i64, reservation: Option<&str>) {
        let record = Record { reservation: reservation.map(Into::into), ..minutes(id, quantity) };
        self.append(sealed(&record));
    }

    pub(crate) fn check(&self, meter: &str, amount: u64) -> Outcome<'static> {
        let check = Check { who: who(None, None), items: vec![item(meter, amount)] };
        self.quota.check(&check, NOW).unwrap()
    }

    /// (used, reserved) of a meter of `acme`.
    pub(crate) fn stands(&self, meter: &str) -> (i64, i64) {
        let state = &self.check(meter, 0).limits[0];
        (state.used, state.reserved)
    }
}

/// What a totals book holds after `site`'s commits.
pub(crate) fn book(site: &Site) -> PartitionState {
    site.book_over(PartitionState::default())
}

fn commit_over(mut state: PartitionState, commits: &[PartitionCommit]) -> PartitionState {
    for commit in commits {
        state.next_offset = commit.next_offset;
        state.log_time_ms = commit.log_time_ms;
        state.counts = commit.counts;
        for row in &commit.totals {
            state.totals.retain(|old| (&old.tenant, &old.meter) != (&row.tenant, &row.meter));
            state.totals.push(row.clone());
        }
        for row in &commit.quota {
            state.quota.retain(|old| (old.kind, &old.tenant, &old.name) != (row.kind, &row.tenant, &row.name));
            state.quota.extend((!row.state.is_empty()).then(|| row.clone()));
        }
        state.alerts.extend(commit.alerts.iter().cloned());
        state.rules = commit.rules.clone().or(state.rules);
    }
    state
}

fn minutes(id: &str, quantity: i64) -> Record {
    Record {
        tenant: "acme".into(),
        source: "s".into(),
        id: Some(id.into()),
        meter: "agent_minute".into(),
        quantity: Quantity(quantity),
        time: Some(NOW),
        subject: None,
        dimensions: vec![],
        reservation: None,
    }
}

fn sealed(record: &Record) -> Vec<u8> {
    let mut builder = EnvelopeBuilder::new();
    builder.push(record).unwrap();
    builder.seal(Origin::default())
}

pub(crate) fn who(subject: Option<&str>, key: Option<&str>) -> Who {
    Who { tenant: "acme".into(), subject: subject.map(Into::into), key: key.map(Into::into) }
}

pub(crate) fn item(meter: &str, amount: u64) -> Item {
    Item { meter: meter.into(), amount }
}

pub(crate) fn reserve(id: &str, items: Vec<Item>) -> Reserve {
    Reserve { id: id.into(), who: who(None, None), ttl_ms: MINUTE_MS, items, ..Reserve::default() }
}

pub(crate) fn final_commit(id: &str, items: Vec<Item>) -> Commit {
    Commit { tenant: "acme".into(), id: id.into(), op_id: "done".into(), items, is_final: true, ..Commit::default() }
}

pub(crate) fn decision(outcome: &Result<Outcome<'_>, QuotaError>) -> Decision {
    outcome.as_ref().unwrap().decision
}
