//! A tenant as decisions see it: its terms, its period, and the counters behind its
//! limits.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use odometer_schemas::quota::{Kind, Limit, Plan, Scope, TenantTerms, WhenDegraded};
use odometer_schemas::time::{Interval, TimeMs};

use super::sync::{AtomicI64, AtomicU64, Mutex, Ordering, PoisonError};
use super::word::{UNLIMITED, Word, as_settled};
use super::words::{OwnWord, Words};
use crate::cells::Cell;
use crate::prefetch::{prefetch_count, prefetch_whole};

/// One limit in force for a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Policy {
    /// `PLAN/METER/SCOPE`, or `override/METER/SCOPE`.
    pub(crate) name: Arc<str>,
    pub(crate) meter: Arc<str>,
    pub(crate) scope: Scope,
    pub(crate) kind: Kind,
    pub(crate) limit: Option<i64>,
    /// The limit and its grace, or what stands for none.
    pub(crate) hard_limit: i64,
    pub(crate) when_degraded: WhenDegraded,
}

impl Policy {
    /// Whether a limit bounds the same use.
    fn bounds_same(&self, limit: &Limit) -> bool {
        (&*self.meter, self.scope) == (limit.meter.as_str(), limit.scope)
    }

    fn new(from: &str, limit: &Limit) -> Self {
        Self {
            name: super::policy_name(from, &limit.meter, limit.scope).into(),
            meter: limit.meter.as_str().into(),
            scope: limit.scope,
            kind: limit.kind,
            limit: limit.limit,
            hard_limit: limit.hard_limit().unwrap_or(UNLIMITED),
            when_degraded: limit.when_degraded,
        }
    }
}

/// All limits in force for a tenant.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct Terms {
    plan: String,
    policies: Vec<Arc<Policy>>,
}

impl Terms {
    /// What a plan says; all tenants that have it and nothing else share this. A plan
    /// that is gone limits nothing.
    pub(crate) fn of_plan(plan: Option<&Plan>) -> Self {
        let name = plan.map_or("none", |plan| &plan.name);
        let limits = plan.map_or(&[][..], |plan| &plan.limits);
        let policies = limits.iter().map(|limit| Arc::new(Policy::new(name, limit)));
        Self { plan: name.to_owned(), policies: policies.collect() }
    }

    /// A tenant's overrides, and what its plan says besides.
    pub(crate) fn overridden(plan: &Arc<Self>, overrides: &[Limit]) -> Arc<Self> {
        if overrides.is_empty() {
            return Arc::clone(plan);
        }
        let stays = |policy: &&Arc<Policy>| !overrides.iter().any(|limit| policy.bounds_same(limit));
        let own = overrides.iter().map(|limit| Arc::new(Policy::new("override", limit)));
        let policies = own.chain(plan.policies().filter(stays).cloned()).collect();
        Arc::new(Self { plan: plan.plan.clone(), policies })
    }

    pub(crate) fn policies(&self) -> impl Iterator<Item = &Arc<Policy>> {
        self.policies.iter()
    }

    /// The policy that bounds `meter` at a scope, else one that only counts.
    pub(crate) fn policy_or_none(&self, meter: &str, scope: Scope, kind: Kind) -> Arc<Policy> {
        self.policy(meter, scope).map_or_else(|| self.unlimited(meter, kind), Arc::clone)
    }

    pub(crate) fn policy(&self, meter: &str, scope: Scope) -> Option<&Arc<Policy>> {
        self.policies.iter().find(|policy| policy.scope == scope && *policy.meter == *meter)
    }

    /// What stands for a meter that the plan does not mention: counted, never stopped.
    pub(crate) fn unlimited(&self, meter: &str, kind: Kind) -> Arc<Policy> {
        Arc::new(Policy::new(&self.plan, &Limit { kind, ..Limit::usage(meter, None) }))
    }
}

/// The counter behind a limit that no total stands for: of a subject, of a key, of
/// what runs side by side.
#[derive(Debug)]
pub(crate) struct OwnCounter {
    word: OwnWord,
    settled: AtomicI64,
}

/// What a limit bounds.
#[derive(Clone, Debug)]
pub(crate) enum Counter {
    /// The live total of (tenant, meter, period).
    Total(Arc<Cell>),
    /// Any other.
    Own(Arc<OwnCounter>),
}

impl Counter {
    #[inline]
    pub(crate) fn word(&self) -> &Word {
        self.own_word()
    }

    /// The word with its number.
    #[inline]
    pub(crate) fn own_word(&self) -> &OwnWord {
        match self {
            Self::Total(cell) => cell.own_word(),
            Self::Own(own) => &own.word,
        }
    }

    /// Accepted usage.
    #[inline]
    pub(crate) fn used(&self) -> i64 {
        match self {
            Self::Total(cell) => as_settled(cell.settled()),
            Self::Own(own) => own.settled.load(Ordering::Acquire),
        }
    }

    /// Hints that its word will be moved, and its owners counted.
    pub(crate) fn prefetch(&self) {
        prefetch_whole(std::ptr::from_ref(self.own_word()));
        match self {
            Self::Total(cell) => prefetch_count(cell),
            Self::Own(own) => prefetch_count(own),
        }
    }

    pub(crate) fn is_cell(&self, cell: &Arc<Cell>) -> bool {
        matches!(self, Self::Total(own) if Arc::ptr_eq(own, cell))
    }
}

impl OwnCounter {
    fn new(words: &Arc<Words>) -> Self {
        Self { word: words.own(), settled: AtomicI64::new(0) }
    }

    /// Settles usage; one writer.
    pub(crate) fn settle(&self, quantity: i64) {
        let old = self.settled.load(Ordering::Relaxed);
        let new = as_settled(old.saturating_add(quantity));
        self.settled.store(new, Ordering::Release);
        self.word.move_by(new - old);
    }

    pub(crate) fn settled(&self) -> i64 {
        self.settled.load(Ordering::Relaxed)
    }
}

/// Which counter of a tenant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct OwnKey {
    pub(crate) scope: Scope,
    /// The subject or key; empty for the tenant.
    pub(crate) name: String,
    pub(crate) meter: String,
    /// The period's start; none for concurrency.
    pub(crate) period_ms: Option<(i64, i64)>,
}

/// A limit and its counter in one period.
#[derive(Clone, Debug)]
pub(crate) struct Gate {
    pub(crate) policy: Arc<Policy>,
    pub(crate) counter: Counter,
    /// None for concurrency.
    pub(crate) period: Option<Interval>,
}

impl Gate {
    /// The period's start and end; none for concurrency.
    pub(crate) fn period_ms(&self) -> Option<(i64, i64)> {
        self.period.map(|period| (period.start.0, period.end.0))
    }
}

/// What most decisions need, found once per period and change of terms.
#[derive(Debug)]
pub(crate) struct Standing {
    /// Of all plans and of the tenant's terms, when this was made.
    pub(crate) version: (u64, u64),
    pub(crate) period: Interval,
    pub(crate) terms: Arc<Terms>,
    /// The tenant's own limits.
    pub(crate) gates: Vec<Arc<Gate>>,
    /// Whether subjects or keys have limits of their own.
    pub(crate) is_layered: bool,
}

impl Standing {
    pub(crate) fn is_current(&self, version: (u64, u64), now: TimeMs) -> bool {
        self.version == version && self.period.contains(now)
    }

    #[inline]
    pub(crate) fn gate(&self, meter: &str) -> Option<&Arc<Gate>> {
        self.gates.iter().find(|gate| *gate.policy.meter == *meter)
    }
}

/// One tenant.
#[derive(Debug)]
pub(crate) struct Account {
    pub(crate) tenant: Arc<str>,
    /// The lock of all decisions over several of its words.
    pub(crate) several: Mutex<()>,
    pub(crate) standing: ArcSwapOption<Standing>,
    own: Mutex<HashMap<OwnKey, Arc<OwnCounter>>>,
    /// Where those have their words.
    words: Arc<Words>,
    terms: ArcSwapOption<TenantTerms>,
    /// Raised with every change of `terms`.
    terms_version: AtomicU64,
}

impl Account {
    pub(crate) fn new(tenant: Arc<str>, words: &Arc<Words>) -> Self {
        Self {
            tenant,
            several: Mutex::new(()),
            standing: ArcSwapOption::empty(),
            own: Mutex::default(),
            words: Arc::clone(words),
            terms: ArcSwapOption::empty(),
            terms_version: AtomicU64::new(0),
        }
    }

    /// The counter that no total stands for.
    pub(crate) fn own(&self, key: OwnKey) -> Arc<OwnCounter> {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(own.entry(key).or_insert_with(|| Arc::new(OwnCounter::new(&self.words))))
    }

    pub(crate) fn drop_own(&self, key: &OwnKey) {
        self.own.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    /// What the tenant is entitled to, and the version to know a change by: read first,
    /// so that terms that change meanwhile only look too old.
    pub(crate) fn terms(&self) -> (u64, Option<Arc<TenantTerms>>) {
        let version = self.terms_version();
        (version, self.terms.load_full())
    }

    #[inline]
    pub(crate) fn terms_version(&self) -> u64 {
        self.terms_version.load(Ordering::Acquire)
    }

    pub(crate) fn set_terms(&self, terms: TenantTerms) {
        self.terms.store(Some(Arc::new(terms)));
        self.terms_version.fetch_add(1, Ordering::AcqRel);
    }
}
