//! What quota means, as plainly as it can be said: maps and 128-bit numbers, every
//! question answered by adding everything up.

use std::collections::BTreeMap;

use odometer_schemas::quota::{Decision, SETTLE_MS, Scope};

pub(super) const METERS: [&str; 2] = ["agent_minute", "llm.prompt_tokens"];
/// By plan, scope and meter.
pub(super) const LIMITS: [[(Scope, [Option<i64>; 2]); 3]; 2] = [
    [(Scope::Tenant, [Some(20), Some(12)]), (Scope::Subject, [Some(11), None]), (Scope::Key, [Some(7), Some(9)])],
    [(Scope::Tenant, [Some(40), None]), (Scope::Subject, [Some(20), None]), (Scope::Key, [Some(30), Some(10)])],
];

/// Subject and key.
pub(super) type User = (Option<u8>, Option<u8>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Reused,
    Unknown,
    Ended,
    Invalid,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    Settling,
    Ended,
}

#[derive(Clone, Debug)]
struct Line {
    meter: usize,
    reserved: i128,
    drawn: i128,
    committed: Option<i128>,
}

#[derive(Clone, Debug)]
struct Reservation {
    body: u128,
    user: User,
    lines: Vec<Line>,
    phase: Phase,
    ends_ms: i64,
    is_over: bool,
    decision: Decision,
    /// Whether the log has been read so far.
    is_read: bool,
}

impl Reservation {
    fn held(&self, meter: usize) -> i128 {
        let of = |line: &Line| {
            let whole = match self.phase {
                Phase::Open => line.reserved.max(line.committed.unwrap_or(0)),
                Phase::Settling => line.committed.unwrap_or(line.drawn),
                Phase::Ended => 0,
            };
            (whole - line.drawn).max(0)
        };
        if self.is_over { 0 } else { self.lines.iter().filter(|line| line.meter == meter).map(of).sum() }
    }
}

/// One limit as an answer shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stands {
    pub(super) scope: Scope,
    pub(super) meter: usize,
    pub(super) limit: Option<i64>,
    pub(super) used: i128,
    pub(super) reserved: i128,
    pub(super) remaining: Option<i128>,
}

/// Which limit of a tenant.
type Place = (Scope, Option<u8>, usize);

#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    /// Index of each tenant's plan.
    pub(super) plans: BTreeMap<u8, usize>,
    pub(super) now_ms: i64,
    used: BTreeMap<(u8, Place), i128>,
    reservations: BTreeMap<(u8, u8), Reservation>,
    early: BTreeMap<(u8, u8), Early>,
}

/// What records drew on a reservation that the log does not have yet.
#[derive(Clone, Copy, Debug, Default)]
struct Early {
    since_ms: i64,
    drawn: [i128; 2],
}

fn scoped(user: User, scope: Scope) -> Option<Option<u8>> {
    match scope {
        Scope::Tenant => Some(None),
        Scope::Subject => user.0.map(Some),
        Scope::Key => user.1.map(Some),
    }
}

impl Model {
    fn limit(&self, tenant: u8, scope: Scope, meter: usize) -> Option<i64> {
        let plan = LIMITS[self.plans.get(&tenant).copied().unwrap_or(0)];
        plan.iter().find(|(of, _)| *of == scope).and_then(|(_, limits)| limits[meter])
    }

    /// The limits that a user's use of a meter meets.
    fn places(&self, tenant: u8, user: User, meter: usize) -> Vec<Place> {
        let bound = |scope| scope == Scope::Tenant || self.limit(tenant, scope, meter).is_some();
        let scopes = [Scope::Tenant, Scope::Subject, Scope::Key].into_iter().filter(|scope| bound(*scope));
        scopes.filter_map(|scope| Some((scope, scoped(user, scope)?, meter))).collect()
    }

    fn stands_at(&self, tenant: u8, place: Place) -> Stands {
        let (scope, name, meter) = place;
        let used = self.used.get(&(tenant, place)).copied().unwrap_or(0);
        let of_place = |((of, _), reservation): &(&(u8, u8), &Reservation)| {
            *of == tenant && scoped(reservation.user, scope) == Some(name)
        };
        let held = self.reservations.iter().filter(of_place).map(|(_, reservation)| reservation.held(meter));
        let reserved = held.sum::<i128>();
        let limit = self.limit(tenant, scope, meter);
        let remaining = limit.map(|limit| (i128::from(limit) - used - reserved).max(0));
        Stands { scope, meter, limit, used, reserved, remaining }
    }

    /// Asks for amounts by meter; the decision and how every limit stands then.
    fn ask(&self, tenant: u8, user: User, items: &[(usize, u64)]) -> (Decision, Vec<Stands>) {
        let mut decision = Decision::Allow;
        let mut stands = Vec::new();
        for (meter, amount) in summed(items) {
            for place in self.places(tenant, user, meter) {
                let at = self.stands_at(tenant, place);
                let whole = at.used + at.reserved + i128::from(amount);
                if let Some(limit) = at.limit.map(i128::from) {
                    let hard = limit + limit / 10;
                    let here = if whole > hard { Decision::Deny } else { Decision::Grace };
                    decision = decision.max(if whole > limit { here } else { Decision::Allow });
                }
                stands.push(at);
            }
        }
        (decision, stands)
    }

    pub(super) fn check(&self, tenant: u8, user: User, items: &[(usize, u64)]) -> (Decision, Vec<Stands>) {
        self.ask(tenant, user, items)
    }

    pub(super) fn reserve(
        &mut self,
        (tenant, id): (u8, u8),
        (user, body): (User, u128),
        items: &[(usize, u64)],
        ttl_ms: i64,
    ) -> Result<Decision, Refused> {
        if let Some(known) = self.reservations.get(&(tenant, id)) {
            return if known.body == body { Ok(known.decision) } else { Err(Refused::Reused) };
        }
        let (decision, _) = self.ask(tenant, user, items);
        if decision != Decision::Deny {
            let line =
                |(meter, amount): (usize, u64)| Line { meter, reserved: amount.into(), drawn: 0, committed: None };
            let lines = summed(items).into_iter().map(line).collect();
            let (phase, ends_ms, is_over, is_read) = (Phase::Open, self.now_ms + ttl_ms, false, false);
            let made = Reservation { body, user, lines, phase, ends_ms, is_over, decision, is_read };
            self.reservations.insert((tenant, id), made);
        }
        Ok(decision)
    }

    pub(super) fn extend(
        &mut self,
        (tenant, id): (u8, u8),
        add: &[(usize, u64)],
        ttl_ms: i64,
    ) -> Result<Decision, Refused> {
        let known = self.known(tenant, id, add)?;
        if known.phase != Phase::Open || known.is_over {
            return Err(Refused::Ended);
        }
        let (decision, _) = self.ask(tenant, known.user, add);
        let ends_ms = self.now_ms + ttl_ms;
        if decision != Decision::Deny
            && let Some(known) = self.reservations.get_mut(&(tenant, id))
        {
            known.ends_ms = ends_ms;
            for line in &mut known.lines {
                line.reserved +=
                    add.iter().filter(|item| item.0 == line.meter).map(|item| i128::from(item.1)).sum::<i128>();
            }
        }
        Ok(decision)
    }

    fn known(&self, tenant: u8, id: u8, items: &[(usize, u64)]) -> Result<Reservation, Refused> {
        let known = self.reservations.get(&(tenant, id)).ok_or(Refused::Unknown)?;
        let has = |meter| known.lines.iter().any(|line| line.meter == meter);
        if items.iter().all(|(meter, _)| has(*meter)) { Ok(known.clone()) } else { Err(Refused::Invalid) }
    }

    /// Whether it came late.
    pub(super) fn commit(
        &mut self,
        (tenant, id): (u8, u8),
        items: &[(usize, u64)],
        is_final: bool,
    ) -> Result<bool, Refused> {
        let known = self.known(tenant, id, items)?;
        if known.phase == Phase::Ended {
            return Err(Refused::Ended);
        }
        let settle_ms = self.now_ms + SETTLE_MS;
        if let Some(known) = self.reservations.get_mut(&(tenant, id)) {
            for line in &mut known.lines {
                let amount = items.iter().find(|item| item.0 == line.meter).map(|item| i128::from(item.1));
                line.committed = amount.or(line.committed);
            }
            if is_final {
                (known.phase, known.ends_ms, known.is_over) = (Phase::Settling, settle_ms, false);
            }
        }
        Ok(known.is_over)
    }

    pub(super) fn release(&mut self, tenant: u8, id: u8) -> Result<(), Refused> {
        let known = self.reservations.get_mut(&(tenant, id)).ok_or(Refused::Unknown)?;
        known.phase = Phase::Ended;
        Ok(())
    }

    /// An accepted record.
    pub(super) fn record(&mut self, tenant: u8, subject: Option<u8>, (meter, quantity): (usize, u64), id: Option<u8>) {
        self.forget_early();
        let drawn = id.and_then(|id| self.reservations.get_mut(&(tenant, id))).filter(|drawn| drawn.is_read);
        if let (Some(id), None) = (id, &drawn) {
            let early = Early { since_ms: self.now_ms, ..Early::default() };
            self.early.entry((tenant, id)).or_insert(early).drawn[meter] += i128::from(quantity);
        }
        let mut user = (subject, None);
        if let Some(drawn) = drawn {
            user = (subject.or(drawn.user.0), drawn.user.1);
            for line in drawn.lines.iter_mut().filter(|line| line.meter == meter) {
                line.drawn += i128::from(quantity);
            }
        }
        for place in self.places(tenant, user, meter) {
            *self.used.entry((tenant, place)).or_default() += i128::from(quantity);
        }
    }

    /// Everything has been read back from the log.
    pub(super) fn read(&mut self) {
        self.forget_early();
        for (key, reservation) in self.reservations.iter_mut().filter(|(_, reservation)| !reservation.is_read) {
            reservation.is_read = true;
            if let Some(early) = self.early.remove(key) {
                reservation.lines.iter_mut().for_each(|line| line.drawn += early.drawn[line.meter]);
            }
        }
    }

    fn forget_early(&mut self) {
        let now_ms = self.now_ms;
        self.early.retain(|_, early| early.since_ms + 10_000 > now_ms);
    }

    pub(super) fn wait(&mut self, ms: i64) {
        self.now_ms += ms;
        // Expiries are looked at in steps: right after its end a reservation may be
        // over or not.
        let is_due = |of: &Reservation, now_ms: i64| !of.is_over && (of.ends_ms..of.ends_ms + 500).contains(&now_ms);
        while self.reservations.values().any(|reservation| is_due(reservation, self.now_ms)) {
            self.now_ms += 500;
        }
        for reservation in self.reservations.values_mut() {
            reservation.is_over |= reservation.ends_ms < self.now_ms;
        }
    }
}

/// Each meter once, in the order of the items.
fn summed(items: &[(usize, u64)]) -> Vec<(usize, u64)> {
    let mut summed: Vec<(usize, u64)> = Vec::new();
    for (meter, amount) in items {
        match summed.iter_mut().find(|known| known.0 == *meter) {
            Some(known) => known.1 += amount,
            None => summed.push((*meter, *amount)),
        }
    }
    summed
}
