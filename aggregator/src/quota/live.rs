//! What decisions read and change: accounts, plans, reservations. Shared by the writer
//! of a partition, which brings in what the log says, and by any number of deciders.
//! Knows no clock: whoever asks says what time it is.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, RwLock, Weak};

use arc_swap::ArcSwap;
use dashmap::DashMap;
use odometer_schemas::definitions::Definitions;
use odometer_schemas::quota::{Item, Kind, Plan, QuotaError, Scope, TenantTerms, Who};
use odometer_schemas::time::{Interval, TimeMs};
use smallvec::SmallVec;

use super::account::{Account, Counter, Gate, OwnKey, Standing};
use super::catalogue::Catalogue;
use super::expiries::Expiries;
use super::hold::{AWAKE_MS, Awake, Counters, Hold, Next};
use super::holds::Holds;
use super::ledger::{Ledger, Line};
use super::name::Name;
use super::places::{Kept, Key, Shortcut};
use super::shortcuts::Shortcuts;
use super::sync::{AtomicU64, Ordering, PoisonError};
use crate::cells::LiveCells;
use crate::prefetch::prefetch_whole;
use crate::rules::Anchors;

/// Accounts of one partition. Whoever asks names the tenant, so callers could make them
/// without end; at a few hundred bytes each this is about a gigabyte.
const ACCOUNTS_MAX: usize = 4_000_000;

type Map<K, V> = DashMap<K, V, foldhash::fast::RandomState>;

/// The live side of one partition's quota. Clones show the same.
#[derive(Clone, Debug)]
pub struct LiveQuota {
    pub(super) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) struct Shared {
    cells: LiveCells,
    accounts: Map<Arc<str>, Arc<Account>>,
    shortcuts: Shortcuts,
    pub(super) catalogue: ArcSwap<Catalogue>,
    /// That of `catalogue`, where a decision finds it without loading that.
    version: AtomicU64,
    anchors: RwLock<HashMap<Arc<str>, Anchors>>,
    pub(super) holds: Holds,
    pub(super) expiries: Expiries,
    /// Reservations that nobody ended in time.
    expired: AtomicU64,
}

/// All that a decision asks; mostly one thing.
pub(super) type AllAsked = SmallVec<[Asked; 1]>;

/// One thing that a decision asks, and of what.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) gate: Arc<Gate>,
    pub(super) amount: i64,
}

impl LiveQuota {
    /// The quota over `cells`.
    #[must_use]
    pub fn new(cells: LiveCells) -> Self {
        let shared = Shared {
            shortcuts: Shortcuts::new(cells.words()),
            cells,
            accounts: Map::default(),
            catalogue: ArcSwap::from_pointee(Catalogue::default()),
            version: AtomicU64::new(0),
            anchors: RwLock::default(),
            holds: Holds::default(),
            expiries: Expiries::default(),
            expired: AtomicU64::new(0),
        };
        Self { shared: Arc::new(shared) }
    }

    /// All plans in force, by name.
    #[must_use]
    pub fn plans(&self) -> Vec<Plan> {
        self.shared.catalogue.load().plans().values().cloned().collect()
    }

    /// What a tenant was given.
    #[must_use]
    pub fn terms(&self, tenant: &str) -> Option<Arc<TenantTerms>> {
        self.shared.accounts.get(tenant)?.terms().1
    }

    /// The anchor of a tenant's periods as it was set last, in force from the end of the
    /// period in which that was on; none: calendar months.
    #[must_use]
    pub fn anchor(&self, tenant: &str) -> Option<TimeMs> {
        self.shared.anchors.read().unwrap_or_else(PoisonError::into_inner).get(tenant)?.newest()
    }

    /// Whether the log has a reservation, as far as this node has read.
    #[must_use]
    pub fn is_booked(&self, tenant: &str, id: &str) -> bool {
        self.shared.holds.find(&Name::of(tenant, id)).is_some_and(|hold| hold.number().is_some())
    }

    /// Reservations that are held or remembered.
    #[must_use]
    pub fn reservations(&self) -> usize {
        self.shared.holds.len()
    }

    /// Reservations whose time was over before they were committed or released, since
    /// these counters are shown.
    #[must_use]
    pub fn expired(&self) -> u64 {
        self.shared.expired.load(Ordering::Relaxed)
    }

    /// Frees what reservations held whose time is over, of at most `most` that are
    /// looked at; whether there are more. Keeps no decision waiting for longer than one of
    /// them takes, and makes room for what makes decisions short: to be called a few times a
    /// second.
    pub fn expire(&self, now: TimeMs, most: usize) -> bool {
        self.shared.shortcuts.tend(self.shared.accounts.len(), now);
        let mut left = most;
        while left > 0 {
            let due = self.shared.expiries.take_due(now.0, left);
            if due.is_empty() {
                return false;
            }
            left -= due.len();
            // Nobody has looked at them for as long as they were held.
            due.iter().for_each(|hold| prefetch_whole(hold.as_ptr()));
            let due: Vec<Arc<Hold>> = due.iter().filter_map(Weak::upgrade).collect();
            due.iter().for_each(|hold| hold.prefetch());
            due.iter().for_each(|hold| hold.prefetch_counters());
            due.iter().for_each(|hold| self.expire_one(hold, now));
        }
        true
    }

    fn expire_one(&self, hold: &Arc<Hold>, now: TimeMs) {
        let (next, has_expired) = hold.expire(now.0);
        self.shared.expired.fetch_add(has_expired.into(), Ordering::Relaxed);
        match next {
            Next::Look { at_ms } => self.shared.expiries.watch(hold, at_ms),
            Next::Remember => {}
            Next::Forget => {
                if !self.shared.holds.give_up(hold) {
                    self.shared.expiries.watch(hold, now.0.saturating_add(AWAKE_MS));
                }
            }
        }
    }

    pub(crate) fn set_plans(&self, plans: &BTreeMap<String, Plan>) {
        self.shared.change(|catalogue| catalogue.set_plans(plans));
    }

    pub(crate) fn set_meters(&self, definitions: Option<&Definitions>) {
        self.shared.change(|catalogue| catalogue.set_meters(definitions));
    }

    pub(crate) fn set_anchors(&self, tenant: &str, anchors: Anchors) {
        self.shared.anchors.write().unwrap_or_else(PoisonError::into_inner).insert(tenant.into(), anchors);
    }

    pub(crate) fn set_terms(&self, tenant: &str, terms: TenantTerms) {
        self.shared.account_of_log(tenant).set_terms(terms);
        self.shared.shortcuts.void_tenant(tenant);
    }
}

impl Shared {
    fn change(&self, change: impl Fn(&mut Catalogue)) {
        let mut version = 0;
        self.catalogue.rcu(|catalogue| {
            let mut next = Catalogue::clone(catalogue);
            change(&mut next);
            next.version += 1;
            version = next.version;
            next
        });
        self.version.fetch_max(version, Ordering::AcqRel);
        self.shortcuts.void_all(version);
    }

    /// The account of a tenant that the log speaks of.
    pub(super) fn account_of_log(&self, tenant: &str) -> Arc<Account> {
        if let Some(account) = self.accounts.get(tenant) {
            return Arc::clone(account.value());
        }
        let tenant: Arc<str> = tenant.into();
        let new = || Arc::new(Account::new(Arc::clone(&tenant), self.cells.words()));
        Arc::clone(self.accounts.entry(Arc::clone(&tenant)).or_insert_with(new).value())
    }

    /// The account of a tenant that a caller names.
    pub(super) fn account(&self, tenant: &str) -> Result<Arc<Account>, QuotaError> {
        if let Some(account) = self.accounts.get(tenant) {
            return Ok(Arc::clone(account.value()));
        }
        if self.accounts.len() >= ACCOUNTS_MAX {
            return Err(QuotaError::Unavailable {
                why: format!("{ACCOUNTS_MAX} tenants are known, as many as allowed"),
            });
        }
        Ok(self.account_of_log(tenant))
    }

    /// Runs `look`, which is brief and takes no lock, on the shortcut of a question of
    /// one item; `None` where several words may have a say, or nobody asked before.
    #[inline]
    pub(super) fn shortcut<T>(
        &self,
        (tenant, meter): (&str, &str),
        now: TimeMs,
        look: impl Fn(&Shortcut<'_>) -> T + Copy,
    ) -> Option<T> {
        let key = self.shortcuts.key(tenant, meter);
        match self.shortcuts.find(key, now, look) {
            Some(seen) => Some(seen),
            None => self.look_the_long_way((key, tenant, meter), now, look),
        }
    }

    #[cold]
    #[inline(never)]
    fn look_the_long_way<T>(
        &self,
        (key, tenant, meter): (Key, &str, &str),
        now: TimeMs,
        look: impl Fn(&Shortcut<'_>) -> T,
    ) -> Option<T> {
        self.long_way(key, (tenant, meter), now).map(|kept| look(&Shortcut::New(&kept)))
    }

    /// As [`shortcut`](Self::shortcut), of several: `look` is told which.
    pub(super) fn shortcuts<'a>(
        &self,
        of: impl Iterator<Item = (&'a str, &'a str)> + Clone,
        now: TimeMs,
        mut look: impl FnMut(usize, &Shortcut<'_>),
    ) {
        let keys: Vec<Key> = of.clone().map(|(tenant, meter)| self.shortcuts.key(tenant, meter)).collect();
        let mut missing = Vec::new();
        self.shortcuts.find_each(&keys, now, |at, shortcut| match shortcut {
            Some(shortcut) => look(at, shortcut),
            None => missing.push(at),
        });
        if missing.is_empty() {
            return;
        }
        let of: Vec<_> = of.collect();
        for at in missing {
            if let Some(kept) = self.long_way(keys[at], of[at], now) {
                look(at, &Shortcut::New(&kept));
            }
        }
    }

    /// What the shortcut says, from where it says so; leaves it for the next.
    #[cold]
    fn long_way(&self, key: Key, (tenant, meter): (&str, &str), now: TimeMs) -> Option<Kept> {
        let account = Arc::clone(self.accounts.get(tenant)?.value());
        let standing = self.standing(&account, now);
        if standing.is_layered {
            return None;
        }
        let shortcut = Kept::new(key, standing.gate(meter)?, standing.period);
        self.shortcuts.leave(shortcut.clone(), standing.version.0);
        Some(shortcut)
    }

    #[inline]
    pub(super) fn version(&self, account: &Account) -> (u64, u64) {
        (self.version.load(Ordering::Acquire), account.terms_version())
    }

    /// What the account's decisions at `now` stand on.
    pub(super) fn standing(&self, account: &Account, now: TimeMs) -> Arc<Standing> {
        let version = self.version(account);
        if let Some(standing) = &*account.standing.load()
            && standing.is_current(version, now)
        {
            return Arc::clone(standing);
        }
        let standing = Arc::new(self.build(account, version, now));
        account.standing.store(Some(Arc::clone(&standing)));
        standing
    }

    fn build(&self, account: &Account, version: (u64, u64), now: TimeMs) -> Standing {
        let catalogue = self.catalogue.load();
        let given = account.terms().1.unwrap_or_default();
        let terms = catalogue.terms_of(&given);
        let period = self.period(&account.tenant, now);
        let own = terms.policies().filter(|policy| policy.scope == Scope::Tenant);
        let gates = own
            .filter_map(|policy| {
                let place = Place { scope: Scope::Tenant, name: "", meter: &policy.meter, kind: policy.kind };
                let counter = self.counter(&catalogue, account, place, period)?;
                let period = (policy.kind == Kind::Usage).then_some(period);
                Some(Arc::new(Gate { policy: Arc::clone(policy), counter, period }))
            })
            .collect();
        let is_layered = terms.policies().any(|policy| policy.scope != Scope::Tenant);
        Standing { version, period, terms, gates, is_layered }
    }

    fn period(&self, tenant: &str, now: TimeMs) -> Interval {
        let anchors = self.anchors.read().unwrap_or_else(PoisonError::into_inner);
        anchors.get(tenant).map_or_else(|| Anchors::default().period_of(now), |anchors| anchors.period_of(now))
    }

    /// Everything that a request asks, every word once.
    pub(super) fn asked(&self, who: &Who, items: &[Item], now: TimeMs) -> Result<AllAsked, QuotaError> {
        let account = &self.account(&who.tenant)?;
        let standing = self.standing(account, now);
        let catalogue = self.catalogue.load();
        let mut asked = AllAsked::new();
        for item in items {
            let kind = catalogue.kind_of(&standing.terms, &item.meter).ok_or_else(|| unknown_meter(&item.meter))?;
            let amount = amount_of(item);
            for (scope, name) in layers(who) {
                let place = Place { scope, name, meter: &item.meter, kind };
                let Some(gate) = self.gate(&catalogue, account, place, &standing) else { continue };
                match asked.iter_mut().find(|asked| asked.gate.policy == gate.policy) {
                    Some(asked) => asked.amount = asked.amount.saturating_add(amount),
                    None => asked.push(Asked { gate, amount }),
                }
            }
        }
        Ok(asked)
    }

    fn gate(
        &self,
        catalogue: &Catalogue,
        account: &Account,
        place: Place<'_>,
        standing: &Standing,
    ) -> Option<Arc<Gate>> {
        if place.scope == Scope::Tenant
            && let Some(gate) = standing.gate(place.meter)
        {
            return Some(Arc::clone(gate));
        }
        let policy = match standing.terms.policy(place.meter, place.scope) {
            Some(policy) => Arc::clone(policy),
            None if place.scope == Scope::Tenant => standing.terms.unlimited(place.meter, place.kind),
            None => return None,
        };
        let counter = self.counter(catalogue, account, place, standing.period)?;
        Some(Arc::new(Gate { policy, counter, period: (place.kind == Kind::Usage).then_some(standing.period) }))
    }

    /// The counter at a place in a period; `None` for usage of a meter that is not
    /// defined.
    fn counter(&self, catalogue: &Catalogue, account: &Account, place: Place<'_>, period: Interval) -> Option<Counter> {
        if place.kind == Kind::Usage && place.scope == Scope::Tenant {
            let aggregation = catalogue.aggregation_of(place.meter)?;
            return Some(Counter::Total(self.cells.cell(&account.tenant, place.meter, aggregation, period)));
        }
        let period_ms = (place.kind == Kind::Usage).then_some((period.start.0, period.end.0));
        let (scope, name, meter) = (place.scope, place.name.to_owned(), place.meter.to_owned());
        Some(Counter::Own(account.own(OwnKey { scope, name, meter, period_ms })))
    }

    /// The counters that a reservation from the log holds on.
    pub(super) fn counters_of(&self, tenant: &str, ledger: &Ledger) -> Counters {
        let account = &self.account_of_log(tenant);
        let catalogue = self.catalogue.load();
        // Which subjects and keys are limited.
        let terms = catalogue.terms_of(&account.terms().1.unwrap_or_default());
        let who = Who { tenant: String::new(), subject: ledger.subject.clone(), key: ledger.key.clone() };
        let of_line = |line: &Line| {
            let kind = if line.period_ms.is_some() { Kind::Usage } else { Kind::Concurrency };
            let period = line.period().unwrap_or(NO_PERIOD);
            let is_bound = |scope| scope == Scope::Tenant || terms.policy(&line.meter, scope).is_some();
            let counter = |(scope, name)| {
                let place = Place { scope, name, meter: &line.meter, kind };
                self.counter(&catalogue, account, place, period).map(|counter| (scope, counter))
            };
            layers(&who).filter(|(scope, _)| is_bound(*scope)).filter_map(counter).collect()
        };
        ledger.lines.iter().map(of_line).collect()
    }

    /// A reservation, to look at it and change it. One that slept is looked at again soon:
    /// then it may sleep on, unless something was decided about it.
    pub(super) fn open<'a>(&self, hold: &'a Arc<Hold>) -> Awake<'a> {
        hold.open(|ledger| {
            self.expiries.watch(hold, i64::MIN);
            self.counters_of(hold.name.parts().0, ledger)
        })
    }
}

/// Stands where concurrency has none.
const NO_PERIOD: Interval = Interval { start: TimeMs(0), end: TimeMs(0) };

/// Where a counter stands.
#[derive(Clone, Copy, Debug)]
struct Place<'a> {
    scope: Scope,
    name: &'a str,
    meter: &'a str,
    kind: Kind,
}

/// Base units of an item; more than can be counted is as much as can be.
#[inline]
pub(super) fn amount_of(item: &Item) -> i64 {
    i64::try_from(item.amount).unwrap_or(i64::MAX)
}

/// The tenant, and whoever asks within it.
fn layers(who: &Who) -> impl Iterator<Item = (Scope, &str)> {
    let subject = who.subject.as_deref().map(|name| (Scope::Subject, name));
    let key = who.key.as_deref().map(|name| (Scope::Key, name));
    std::iter::once((Scope::Tenant, "")).chain(subject).chain(key)
}

fn unknown_meter(meter: &str) -> QuotaError {
    QuotaError::Invalid {
        field: "items.meter",
        problem: format!("`{meter}` is neither a defined meter that adds up nor a concurrency limit of any plan"),
    }
}
