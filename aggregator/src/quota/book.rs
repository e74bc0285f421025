//! The log's side of quota: what reservations, plans and terms are at the partition's
//! offset, whoever decided them. A function of the log alone; the live side is brought
//! along.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use bincode::{Decode, Encode};
use odometer_schemas::quota::{
    Action, AlertRow, Plan, PlanOrigin, QuotaOperation, QuotaRow, QuotaRowKind, Scope, TenantTerms,
};
use odometer_schemas::time::{Interval, TimeMs};
use smallvec::SmallVec;

use super::account::{OwnCounter, OwnKey};
use super::alarm::{Alarm, Counted, Entry, Watch};
use super::early::{Earlies, Early};
use super::entitlements::Entitlements;
use super::hold::{Booked, Hold};
use super::holds::AHEAD;
use super::ledger::Ledger;
use super::live::{LiveQuota, Shared};
use super::name::Name;
use super::reservations::Reservations;
use crate::cells::{Cell, LiveCells, LiveUsage};

/// Tenant, subject and key of an accepted record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layers<'a> {
    pub(crate) tenant: &'a str,
    pub(crate) subject: Option<&'a str>,
    pub(crate) key: Option<&'a str>,
}

/// The quota state of one partition at its offset.
#[derive(Debug)]
pub(crate) struct QuotaBook {
    live: LiveQuota,
    cells: LiveCells,
    alarm: Alarm,
    epoch: u64,
    entitlements: Entitlements,
    reservations: Reservations,
    early: Earlies,
    log_ms: i64,
    counters: Counters,
    dirty: BTreeSet<RowKey>,
}

type RowKey = (QuotaRowKind, String, String);
type Counters = HashMap<(String, OwnKey), Settled>;

/// The usage of a subject or key.
#[derive(Debug)]
struct Settled {
    counter: Arc<OwnCounter>,
    watch: Watch,
}

/// What is stored of a subject's or key's usage, besides its row's name.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
struct StoredCounter {
    scope: Scope,
    name: String,
    meter: String,
    period_ms: (i64, i64),
    settled: i64,
}

impl QuotaBook {
    /// A book of nothing yet, over a live side that is its own.
    ///
    /// # Panics
    /// When the live side has another book's reservations: their numbers would be taken for
    /// this one's.
    pub(crate) fn new(live: LiveQuota, cells: LiveCells) -> Self {
        assert!(live.reservations() == 0, "the live side has had a book before");
        Self {
            live,
            cells,
            alarm: Alarm::default(),
            epoch: 0,
            entitlements: Entitlements::default(),
            reservations: Reservations::default(),
            early: Earlies::default(),
            log_ms: 0,
            counters: HashMap::new(),
            dirty: BTreeSet::new(),
        }
    }

    /// Puts back what the totals book holds; the name of what cannot be read.
    pub(crate) fn restore(&mut self, rows: &[QuotaRow]) -> Result<(), String> {
        let mut rows: Vec<&QuotaRow> = rows.iter().collect();
        rows.sort_unstable();
        for row in rows {
            self.restore_row(row)
                .ok_or_else(|| format!("quota state ({:?}, tenant `{}`, name `{}`)", row.kind, row.tenant, row.name))?;
        }
        Ok(())
    }

    fn restore_row(&mut self, row: &QuotaRow) -> Option<()> {
        match row.kind {
            QuotaRowKind::Epoch => self.epoch = decoded(&row.state)?,
            QuotaRowKind::Plan => {
                let (plan, origin) = decoded(&row.state)?;
                self.put_plan(plan, origin);
            }
            QuotaRowKind::Terms => self.put_terms(&row.tenant, decoded(&row.state)?),
            QuotaRowKind::Counter => {
                let StoredCounter { scope, name, meter, period_ms, settled } = decoded(&row.state)?;
                let key = OwnKey { scope, name, meter, period_ms: Some(period_ms) };
                counter_of(&mut self.counters, &self.live, (&row.tenant, key)).counter.settle(settled);
            }
            QuotaRowKind::Early => self.early.put(&Name::of(&row.tenant, &row.name), decoded(&row.state)?),
            QuotaRowKind::Reservations => {
                let Self { reservations, live, .. } = self;
                let book = |name: &str, booked: Booked<'_>| live.book(None, &Name::stored(name), booked, None);
                reservations.restore(&row.name, &row.state, book)?;
            }
        }
        Some(())
    }

    /// What was told before is not told again.
    pub(crate) fn remember(&mut self, alerts: &[AlertRow]) {
        for alert in alerts {
            let AlertRow { tenant, meter, percent, scope, .. } = alert;
            let period_ms = (alert.period_start_ms, alert.period_end_ms);
            if *scope == Scope::Tenant {
                let is_it = |usage: &LiveUsage| *usage.meter == **meter && usage.cell.period().start.0 == period_ms.0;
                self.cells.each(tenant, |usage| {
                    if is_it(usage) {
                        usage.cell.watch().remember(*percent);
                    }
                });
                continue;
            }
            let (name, meter) = (alert.name.clone(), meter.clone());
            let key = OwnKey { scope: *scope, name, meter, period_ms: Some(period_ms) };
            if let Some(settled) = self.counters.get(&(tenant.clone(), key)) {
                settled.watch.remember(*percent);
            }
        }
    }

    /// The owner that decides from here on.
    pub(crate) fn own(&mut self, epoch: u64) {
        if epoch > self.epoch {
            self.epoch = epoch;
            self.dirty.insert((QuotaRowKind::Epoch, String::new(), String::new()));
        }
    }

    pub(crate) fn live(&self) -> &LiveQuota {
        &self.live
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(crate) fn entitlements(&self) -> &Entitlements {
        &self.entitlements
    }

    /// A plan holds from here on.
    pub(crate) fn plan(&mut self, plan: Plan, origin: PlanOrigin) {
        if self.entitlements.takes(&plan, origin) {
            self.dirty.insert((QuotaRowKind::Plan, String::new(), plan.name.clone()));
            self.put_plan(plan, origin);
        }
    }

    fn put_plan(&mut self, plan: Plan, origin: PlanOrigin) {
        self.entitlements.put_plan(plan, origin);
        let plans = self.entitlements.plans().map(|(plan, _)| (plan.name.clone(), plan.clone()));
        self.live.set_plans(&plans.collect());
    }

    pub(crate) fn terms(&mut self, tenant: &str, terms: TenantTerms) {
        self.dirty.insert((QuotaRowKind::Terms, tenant.to_owned(), String::new()));
        self.put_terms(tenant, terms);
    }

    fn put_terms(&mut self, tenant: &str, terms: TenantTerms) {
        self.live.set_terms(tenant, terms.clone());
        self.entitlements.put_terms(tenant, terms);
        self.cells.each(tenant, |usage| usage.cell.watch().wake());
    }

    /// What the owner of `epoch` decided. A node that was followed decides in vain.
    pub(crate) fn operate(&mut self, epoch: u64, operations: &[QuotaOperation<'_>]) {
        if epoch < self.epoch {
            return;
        }
        for some in operations.chunks(AHEAD) {
            let names: SmallVec<[Name; AHEAD]> = some.iter().map(|one| Name::of(&one.tenant, &one.id)).collect();
            self.live.shared.holds.prefetch(&names);
            some.iter().zip(names).for_each(|(operation, name)| self.apply(operation, &name));
        }
    }

    fn apply(&mut self, QuotaOperation { tenant, id, action, .. }: &QuotaOperation<'_>, name: &Name) {
        let hold = self.live.shared.holds.find(name);
        if let Some((hold, number)) = hold.as_ref().and_then(numbered) {
            self.reservations.apply(number, action);
            return self.live.bring(hold, action);
        }
        // Else an operation on a reservation that is forgotten.
        let Some(mut ledger) = Ledger::open(action) else { return };
        let early = self.early.take(name);
        if let Some(early) = &early {
            early.drawn().for_each(|(meter, quantity)| _ = ledger.draw(meter, quantity));
            self.dirty.insert((QuotaRowKind::Early, tenant.to_string(), id.to_string()));
        }
        let booked = Booked { number: self.reservations.open(name, &ledger), ledger: &ledger };
        self.live.book(hold.as_ref(), name, booked, early.as_ref());
    }

    /// An accepted record drew on a reservation and was counted in `cell`: by how much
    /// the cell's word moves for that, besides the record itself.
    pub(crate) fn draw(&mut self, (tenant, id): (&str, &str), meter: &str, quantity: i64, cell: &Arc<Cell>) -> i64 {
        let name = Name::of(tenant, id);
        let hold = self.live.shared.holds.find(&name);
        match hold.as_ref().and_then(numbered) {
            Some((hold, number)) if self.reservations.draw(number, meter, quantity) => {
                self.live.draw(hold, meter, quantity, cell)
            }
            Some(_) => 0,
            None => {
                if self.early.draw(&name, (tenant, id), (meter, quantity), self.log_ms) {
                    self.dirty.insert((QuotaRowKind::Early, tenant.to_owned(), id.to_owned()));
                }
                0
            }
        }
    }

    /// Who used a reservation, where its records do not say.
    pub(crate) fn user_of(&self, tenant: &str, id: &str) -> (Option<&str>, Option<&str>) {
        let number = self.live.shared.holds.find_and(&Name::of(tenant, id), |hold| hold.number()).flatten();
        number.and_then(|number| self.reservations.user_of(number)).unwrap_or_default()
    }

    /// Settles an accepted record below its tenant, where anything is limited there.
    pub(crate) fn settle(&mut self, entry: Entry, layers: Layers<'_>, meter: &str, used: (Interval, i64)) {
        let Self { alarm, counters, dirty, entitlements, live, .. } = self;
        let Layers { tenant, subject, key } = layers;
        let (period, quantity) = used;
        for (scope, name) in [(Scope::Subject, subject), (Scope::Key, key)] {
            let Some(name) = name.filter(|_| entitlements.has_limit(tenant, meter, scope)) else { continue };
            let period_ms = (period.start.0, period.end.0);
            let key = OwnKey { scope, name: name.to_owned(), meter: meter.to_owned(), period_ms: Some(period_ms) };
            dirty.insert((QuotaRowKind::Counter, tenant.to_owned(), counter_name(&key)));
            let settled = counter_of(counters, live, (tenant, key));
            settled.counter.settle(quantity);
            let counted = Counted { tenant, meter, scope, name, period, used: settled.counter.settled() };
            let bound = entitlements.bound(tenant, meter, scope);
            alarm.look(entry, counted, bound, (&settled.watch, entitlements.version()));
        }
    }

    /// Tells what a total crossed of its tenant's limit.
    pub(crate) fn look_at_total(&mut self, entry: Entry, (tenant, meter): (&str, &str), cell: &Cell, adds_up: bool) {
        let (period, used) = (cell.period(), cell.settled());
        let counted = Counted { tenant, meter, scope: Scope::Tenant, name: "", period, used };
        let bound = self.entitlements.bound(tenant, meter, Scope::Tenant).filter(|_| adds_up);
        self.alarm.look(entry, counted, bound, (cell.watch(), self.entitlements.version()));
    }

    /// Limits that were crossed since the last call, in their order.
    pub(crate) fn take_alerts(&mut self) -> Vec<AlertRow> {
        self.alarm.take()
    }

    /// Forgets what nobody asks for any more at this log time.
    pub(crate) fn advance(&mut self, log_time_ms: i64) {
        self.log_ms = log_time_ms;
        while let Some((tenant, id)) = self.early.give_up(log_time_ms) {
            self.dirty.insert((QuotaRowKind::Early, tenant, id));
        }
        while let Some(name) = self.reservations.forget_next(log_time_ms) {
            self.live.forget(&Name::stored(&name));
        }
    }

    /// Lets go of counters of closed periods: nothing is settled there any more.
    pub(crate) fn close(&mut self, is_closed: impl Fn(Interval) -> bool) {
        let Self { counters, dirty, live, .. } = self;
        counters.retain(|(tenant, key), _| {
            let period = key.period_ms.map(|(start, end)| Interval { start: TimeMs(start), end: TimeMs(end) });
            let keep = period.is_none_or(|period| !is_closed(period));
            if !keep {
                live.drop_counter(tenant, key);
                dirty.insert((QuotaRowKind::Counter, tenant.clone(), counter_name(key)));
            }
            keep
        });
    }

    pub(crate) fn pending(&self) -> usize {
        self.dirty.len() + self.reservations.changed() + self.alarm.len()
    }

    /// What changed since the last call, absolute values, by key; `between` is called
    /// between pages of reservations.
    pub(crate) fn take_dirty(&mut self, mut between: impl FnMut()) -> Vec<QuotaRow> {
        let dirty = std::mem::take(&mut self.dirty);
        let mut rows: Vec<QuotaRow> = dirty.into_iter().map(|key| self.row(key)).collect();
        self.reservations.take_changed(|name, state| {
            rows.push(QuotaRow { kind: QuotaRowKind::Reservations, tenant: String::new(), name, state });
            between();
        });
        rows.sort_unstable();
        rows
    }

    fn row(&self, (kind, tenant, name): RowKey) -> QuotaRow {
        let state = match kind {
            QuotaRowKind::Epoch => encoded(&self.epoch),
            QuotaRowKind::Plan => self.entitlements.plan(&name).map_or(Vec::new(), encoded),
            QuotaRowKind::Terms => self.entitlements.terms(&tenant).map_or(Vec::new(), encoded),
            QuotaRowKind::Reservations => unreachable!("they are handed over page by page"),
            QuotaRowKind::Early => self.early.get(&Name::of(&tenant, &name)).map_or(Vec::new(), encoded),
            QuotaRowKind::Counter => self.stored_counter(&tenant, &name).map_or(Vec::new(), |c| encoded(&c)),
        };
        QuotaRow { kind, tenant, name, state }
    }

    fn stored_counter(&self, tenant: &str, name: &str) -> Option<StoredCounter> {
        let key = parse_counter_name(name)?;
        let settled = self.counters.get(&(tenant.to_owned(), key.clone()))?.counter.settled();
        let OwnKey { scope, name, meter, period_ms } = key;
        Some(StoredCounter { scope, name, meter, period_ms: period_ms?, settled })
    }
}

/// A reservation that the log has, and its number.
fn numbered(hold: &Arc<Hold>) -> Option<(&Arc<Hold>, u64)> {
    Some((hold, hold.number()?))
}

/// The counter of a subject or key; made if nothing was settled there yet.
fn counter_of<'a>(counters: &'a mut Counters, live: &LiveQuota, (tenant, key): (&str, OwnKey)) -> &'a Settled {
    counters.entry((tenant.to_owned(), key)).or_insert_with_key(|(tenant, key)| Settled {
        counter: live.own_counter(tenant, key.clone()),
        watch: Watch::default(),
    })
}

/// Names and meters hold no control characters.
fn counter_name(key: &OwnKey) -> String {
    let (start, end) = key.period_ms.unwrap_or_default();
    format!("{}\u{1}{}\u{1}{}\u{1}{start}\u{1}{end}", key.scope, key.name, key.meter)
}

fn parse_counter_name(text: &str) -> Option<OwnKey> {
    let mut parts = text.split('\u{1}');
    let scope = parts.next()?;
    let scope = [Scope::Subject, Scope::Key].into_iter().find(|known| known.name() == scope)?;
    let (name, meter) = (parts.next()?.to_owned(), parts.next()?.to_owned());
    let period_ms = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    Some(OwnKey { scope, name, meter, period_ms: Some(period_ms) })
}

pub(super) fn encoded<T: Encode>(value: &T) -> Vec<u8> {
    kept(value).into_vec()
}

/// As it is stored, without room for more.
pub(super) fn kept<T: Encode>(value: &T) -> Box<[u8]> {
    thread_local! {
        // Most values need no memory besides: how long they are is known once they are written.
        static BYTES: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    BYTES.with_borrow_mut(|bytes| {
        bytes.clear();
        let standard = bincode::config::standard();
        bincode::encode_into_std_write(value, bytes, standard).expect("writing to memory cannot fail");
        bytes.as_slice().into()
    })
}

pub(super) fn decoded<T: Decode<()>>(bytes: &[u8]) -> Option<T> {
    let (value, used) = bincode::decode_from_slice(bytes, bincode::config::standard()).ok()?;
    (used == bytes.len()).then_some(value)
}

impl LiveQuota {
    /// The log has a reservation, which `early` records had drawn on; its ledger knows of
    /// them. `known`: it was decided here. Else it is found or put in one step: the same
    /// request may be decided here meanwhile, or given up.
    fn book(&self, known: Option<&Arc<Hold>>, name: &Name, booked: Booked<'_>, early: Option<&Early>) {
        let Shared { holds, expiries, .. } = &*self.shared;
        let Booked { number, ledger } = booked;
        let book = |hold: &Arc<Hold>| {
            hold.book(number);
            early.inspect(|early| self.shared.open(hold).draw_early(early));
        };
        if let Some(hold) = known {
            return book(hold);
        }
        let Err(vacancy) = holds.find_or_place(name, book) else { return };
        let Some(ends_ms) = ledger.ends_ms() else {
            return vacancy.put(Arc::new(Hold::remembered(name.clone(), booked)));
        };
        let counters = self.shared.counters_of(name.parts().0, ledger);
        let hold = Arc::new(Hold::booked(name.clone(), counters, booked));
        expiries.watch(&hold, ends_ms);
        vacancy.put(hold);
    }

    /// The log has an operation on a reservation; one that was decided here changed the
    /// live side already.
    fn bring(&self, hold: &Arc<Hold>, action: &Action<'_>) {
        let mut state = self.shared.open(hold);
        let (was_over, ended_ms) = (state.is_over, state.ledger.ends_ms());
        state.take(action, &[]);
        let ends_ms = state.ledger.ends_ms();
        drop(state);
        // Else it is looked at when it would have ended before, and then again.
        if was_over || ends_ms.is_none() || ends_ms < ended_ms {
            self.shared.expiries.watch(hold, ends_ms.unwrap_or(i64::MIN));
        }
    }

    fn draw(&self, hold: &Arc<Hold>, meter: &str, quantity: i64, cell: &Arc<Cell>) -> i64 {
        let mut state = self.shared.open(hold);
        state.draw(meter, quantity, cell)
    }

    fn forget(&self, name: &Name) {
        if let Some(hold) = self.shared.holds.forget(name) {
            hold.forget();
        }
    }

    fn own_counter(&self, tenant: &str, key: OwnKey) -> Arc<OwnCounter> {
        self.shared.account_of_log(tenant).own(key)
    }

    fn drop_counter(&self, tenant: &str, key: &OwnKey) {
        self.shared.account_of_log(tenant).drop_own(key);
    }
}
