//! The real thing behind the model's questions: a partition with its log, whose
//! decisions are read back when they are told to be.

use odometer_aggregator::{LiveQuota, LiveState, Options, Processor};
use odometer_schemas::commit::{PartitionCommit, PartitionState};
use odometer_schemas::control::Control;
use odometer_schemas::definitions::Definitions;
use odometer_schemas::envelope::{EnvelopeBuilder, Origin, encode_control};
use odometer_schemas::log::LogEntry;
use odometer_schemas::quantity::Quantity;
use odometer_schemas::quota::{
    Check, Commit, Decision, Extend, Item, Limit, Plan, PlanOrigin, QuotaError, QuotaOperation, Release, Reserve,
    TenantTerms, Who,
};
use odometer_schemas::record::Record;
use odometer_schemas::time::TimeMs;

use super::model::{LIMITS, METERS, Refused, Stands, User};
use crate::support::Outcome;

/// 2026-01-15T00:00:00Z; nothing here lasts until the month is over.
pub(super) const NOW: TimeMs = TimeMs(1_768_435_200_000);

const OPTIONS: Options = Options {
    partition: 0,
    partitions: 1,
    hash_seed: Definitions::HASH_SEED_DEFAULT,
    ids_max: 1_000_000,
    totals_max: 1_000_000,
    placement_seed: 11,
};

pub(super) struct Node {
    processor: Processor,
    quota: LiveQuota,
    log: Vec<LogEntry>,
    book: PartitionState,
    /// Decided, not yet read back.
    pending: Vec<QuotaOperation<'static>>,
    now: TimeMs,
    operations: u64,
}

fn plan(index: usize) -> Plan {
    let of_scope = |(scope, limits): &(_, [Option<i64>; 2])| {
        let limit = |(meter, limit): (&str, &Option<i64>)| {
            limit.map(|limit| Limit { scope: *scope, ..Limit::usage(meter, Some(limit)) })
        };
        METERS.into_iter().zip(limits).filter_map(limit).collect::<Vec<_>>()
    };
    let limits = LIMITS[index].iter().flat_map(of_scope).collect();
    Plan { name: format!("plan-{index}"), limits, is_default: index == 0 }
}

fn who(tenant: u8, user: User) -> Who {
    let named = |kind: &str, name: Option<u8>| name.map(|name| format!("{kind}-{name}"));
    Who { tenant: format!("tenant-{tenant}"), subject: named("subject", user.0), key: named("key", user.1) }
}

fn named(items: &[(usize, u64)]) -> Vec<Item> {
    items.iter().map(|(meter, amount)| Item { meter: METERS[*meter].into(), amount: *amount }).collect()
}

fn restored(state: &PartitionState) -> (Processor, LiveQuota) {
    let live = LiveState::default();
    let quota = live.quota.clone();
    (Processor::restore(OPTIONS, state, None, live).unwrap(), quota)
}

impl Node {
    pub(super) fn new() -> Self {
        let (processor, quota) = restored(&PartitionState::default());
        let (log, book, pending) = (Vec::new(), PartitionState::default(), Vec::new());
        let mut node = Self { processor, quota, log, book, pending, now: NOW, operations: 0 };
        node.control(&Control::Definitions(Definitions::built_in()));
        for index in 0..LIMITS.len() {
            node.control(&Control::Plan { plan: plan(index), origin: PlanOrigin::Config });
        }
        node
    }

    fn control(&mut self, control: &Control<'_>) {
        self.append(encode_control(control, Origin::default()));
    }

    fn append(&mut self, bytes: Vec<u8>) {
        let entry =
            LogEntry { partition: 0, offset: self.log.len() as u64, append_time: self.now, bytes: bytes.into() };
        self.processor.handle(&entry).unwrap();
        self.log.push(entry);
        while let Some(commit) = self.processor.poll_commit() {
            keep(&mut self.book, commit);
        }
    }

    /// A new owner takes over from the book.
    pub(super) fn restart(&mut self) {
        (self.processor, self.quota) = restored(&self.book);
        for entry in &self.log[..usize::try_from(self.book.next_offset).unwrap()] {
            self.processor.learn(entry, None);
        }
        let unread = self.log.split_off(usize::try_from(self.book.next_offset).unwrap());
        for entry in unread {
            self.append(entry.bytes.to_vec());
        }
    }

    pub(super) fn read(&mut self) {
        let operations = std::mem::take(&mut self.pending);
        self.control(&Control::Quota { epoch: 1, operations });
    }

    pub(super) fn wait(&mut self, now_ms: i64) {
        self.now = TimeMs(now_ms);
        while self.quota.expire(self.now, 2) {}
    }

    pub(super) fn plan(&mut self, tenant: u8, plan: usize) {
        let terms = TenantTerms { plan: Some(format!("plan-{plan}")), overrides: vec![] };
        self.control(&Control::Terms { tenant: who(tenant, (None, None)).tenant, terms });
    }

    pub(super) fn record(&mut self, tenant: u8, subject: Option<u8>, (meter, quantity): (usize, u64), id: Option<u8>) {
        let Who { tenant, subject, .. } = who(tenant, (subject, None));
        let record = Record {
            tenant,
            source: "s".into(),
            id: Some(format!("record-{}", self.log.len())),
            meter: METERS[meter].into(),
            quantity: Quantity(i64::try_from(quantity).unwrap()),
            time: Some(self.now),
            subject,
            dimensions: vec![],
            reservation: id.map(|id| format!("run-{id}")),
        };
        let mut builder = EnvelopeBuilder::new();
        builder.push(&record).unwrap();
        self.append(builder.seal(Origin::default()));
    }

    pub(super) fn check(&self, tenant: u8, user: User, items: &[(usize, u64)]) -> (Decision, Vec<Stands>) {
        let outcome = self.quota.check(&Check { who: who(tenant, user), items: named(items) }, self.now).unwrap();
        let over = outcome.limits.iter().filter(|state| outcome.violated.contains(&state.policy)).count();
        assert_eq!(over > 0, outcome.decision == Decision::Deny, "{outcome:?}");
        let stands = outcome.limits.iter().map(|state| Stands {
            scope: state.scope,
            meter: METERS.iter().position(|meter| *meter == state.meter).unwrap(),
            limit: state.limit,
            used: state.used.into(),
            reserved: state.reserved.into(),
            remaining: state.remaining.map(i128::from),
        });
        (outcome.decision, stands.collect())
    }

    fn decided(&mut self, outcome: Result<Outcome<'static>, QuotaError>) -> Result<Outcome<'static>, Refused> {
        match outcome {
            Ok(outcome) => {
                self.pending.extend(outcome.operation.clone());
                Ok(outcome)
            }
            Err(QuotaError::Reused { .. }) => Err(Refused::Reused),
            Err(QuotaError::Unknown { .. }) => Err(Refused::Unknown),
            Err(QuotaError::Ended { .. }) => Err(Refused::Ended),
            Err(QuotaError::Invalid { .. }) => Err(Refused::Invalid),
            Err(error) => panic!("{error}"),
        }
    }

    /// A new operation's name and hash.
    fn operation(&mut self) -> (String, u64) {
        self.operations += 1;
        (format!("op-{}", self.operations), self.operations << 32)
    }

    pub(super) fn reserve(
        &mut self,
        (tenant, id): (u8, u8),
        (user, body): (User, u128),
        items: &[(usize, u64)],
        ttl_ms: i64,
    ) -> Result<Decision, Refused> {
        let id = format!("run-{id}");
        let request = Reserve { id, who: who(tenant, user), ttl_ms, items: named(items), ..Reserve::default() };
        let outcome = self.quota.reserve(&request, body, self.now).map(Outcome::into_owned);
        self.decided(outcome).map(|outcome| outcome.decision)
    }

    pub(super) fn extend(
        &mut self,
        (tenant, id): (u8, u8),
        add: &[(usize, u64)],
        ttl_ms: i64,
    ) -> Result<Decision, Refused> {
        let (op_id, op) = self.operation();
        let (tenant, id) = (who(tenant, (None, None)).tenant, format!("run-{id}"));
        let request = Extend { tenant, id, op_id, ttl_ms, add: named(add), ..Extend::default() };
        let outcome = self.quota.extend(&request, op, self.now).map(Outcome::into_owned);
        self.decided(outcome).map(|outcome| outcome.decision)
    }

    /// Whether it came late.
    pub(super) fn commit(
        &mut self,
        (tenant, id): (u8, u8),
        items: &[(usize, u64)],
        is_final: bool,
    ) -> Result<bool, Refused> {
        let (op_id, op) = self.operation();
        let (tenant, id) = (who(tenant, (None, None)).tenant, format!("run-{id}"));
        let request = Commit { tenant, id, op_id, items: named(items), is_final, ..Commit::default() };
        let outcome = self.quota.commit(&request, op, self.now).map(Outcome::into_owned);
        self.decided(outcome).map(|outcome| outcome.late)
    }

    pub(super) fn release(&mut self, tenant: u8, id: u8) -> Result<(), Refused> {
        let (op_id, op) = self.operation();
        let (tenant, id) = (who(tenant, (None, None)).tenant, format!("run-{id}"));
        let outcome = self
            .quota
            .release(&Release { tenant, id, op_id, ..Release::default() }, op, self.now)
            .map(Outcome::into_owned);
        self.decided(outcome).map(drop)
    }
}

/// What a totals book does with a commit.
fn keep(state: &mut PartitionState, commit: PartitionCommit) {
    (state.next_offset, state.log_time_ms, state.counts) = (commit.next_offset, commit.log_time_ms, commit.counts);
    for row in commit.totals {
        state.totals.retain(|old| (&old.tenant, &old.meter) != (&row.tenant, &row.meter));
        state.totals.push(row);
    }
    for row in commit.quota {
        state.quota.retain(|old| (old.kind, &old.tenant, &old.name) != (row.kind, &row.tenant, &row.name));
        state.quota.extend((!row.state.is_empty()).then_some(row));
    }
    state.rules = commit.rules.or(state.rules.take());
}
