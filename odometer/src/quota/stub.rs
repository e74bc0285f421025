//! A service that keeps everything in one locked map, for tests of the surfaces. Its
//! clock stands still; limits are those of plans, per tenant only.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use odometer_schemas::quota::{
    Answer, Decision, Durability, Item, Kind, LimitState, Plan, QuotaError, Reserve, Scope, TenantTerms,
};
use odometer_schemas::time::TimeMs;

use super::service::{Ask, BoxFuture, QuotaRequest, QuotaService, Tenant};
use super::tallies::Work;

/// 2026-11-21T12:00:00Z and the end of its month.
pub(crate) const NOW: TimeMs = TimeMs(1_795_262_400_000);
pub(crate) const MONTH_END: TimeMs = TimeMs(1_796_083_200_000);

#[derive(Default)]
pub(crate) struct Stub {
    /// Answers every question with this instead.
    trouble: Option<QuotaError>,
    /// Decides nothing at once.
    slow: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    plans: BTreeMap<String, Plan>,
    tenants: BTreeMap<String, TenantTerms>,
    anchors: BTreeMap<String, Option<TimeMs>>,
    held: BTreeMap<(String, String), i64>,
    reservations: BTreeMap<(String, String), Held>,
}

struct Held {
    made_by: Reserve,
    answer: Answer,
    ended: bool,
}

impl Stub {
    pub(crate) fn new() -> Self {
        let stub = Self::default();
        stub.lock().plans = Plan::built_in().into_iter().map(|plan| (plan.name.clone(), plan)).collect();
        stub
    }

    pub(crate) fn slow() -> Self {
        Self { slow: true, ..Self::new() }
    }

    pub(crate) fn troubled(trouble: QuotaError) -> Self {
        Self { trouble: Some(trouble), ..Self::new() }
    }

    pub(crate) fn shared() -> Arc<Self> {
        Arc::new(Self::new())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn answer(&self, request: &QuotaRequest) -> Result<Answer, QuotaError> {
        if let Some(trouble) = &self.trouble {
            return Err(trouble.clone());
        }
        let mut state = self.lock();
        match request {
            QuotaRequest::Check(check) => Ok(state.look(&check.who.tenant, &check.items)),
            QuotaRequest::Reserve(reserve) => state.reserve(reserve),
            QuotaRequest::Extend(extend) => state.change(&extend.tenant, &extend.id, &extend.add, false),
            QuotaRequest::Commit(commit) => state.change(&commit.tenant, &commit.id, &[], commit.is_final),
            QuotaRequest::Release(release) => state.change(&release.tenant, &release.id, &[], true),
        }
    }
}

impl State {
    fn plan_of(&self, tenant: &str) -> Plan {
        let name = self.tenants.get(tenant).and_then(|terms| terms.plan.clone());
        self.plans[&name.unwrap_or_else(|| Plan::DEFAULT.to_owned())].clone()
    }

    fn look(&self, tenant: &str, items: &[Item]) -> Answer {
        let plan = self.plan_of(tenant);
        let (mut limits, mut violated, mut decision) = (Vec::new(), Vec::new(), Decision::Allow);
        for limit in plan.limits.iter().filter(|limit| limit.scope == Scope::Tenant) {
            let Some(item) = items.iter().find(|item| item.meter == limit.meter) else { continue };
            let policy = format!("{}/{}/{}", plan.name, limit.meter, limit.scope);
            let held = self.held.get(&(tenant.to_owned(), limit.meter.clone())).copied().unwrap_or_default();
            let wanted = i128::from(held) + i128::from(item.amount);
            if limit.hard_limit().is_some_and(|hard| wanted > i128::from(hard)) {
                violated.push(policy.clone());
            } else if limit.limit.is_some_and(|soft| wanted > i128::from(soft)) {
                decision = Decision::Grace;
            }
            limits.push(LimitState {
                policy,
                scope: limit.scope,
                meter: limit.meter.clone(),
                limit: limit.limit,
                hard_limit: limit.hard_limit(),
                used: 0,
                reserved: held,
                remaining: limit.limit.map(|limit| (limit - held).max(0)),
                resets_at: (limit.kind == Kind::Usage).then_some(MONTH_END),
            });
        }
        Answer {
            decision: if violated.is_empty() { decision } else { Decision::Deny },
            reservation_id: None,
            expires_at: None,
            limits,
            violated,
            as_of: NOW.plus_ms(-7),
            lag_ms: 7,
            degraded: false,
            late: false,
        }
    }

    fn hold(&mut self, tenant: &str, items: &[Item], sign: i64) {
        for item in items {
            let amount = i64::try_from(item.amount).unwrap_or(i64::MAX / 4);
            *self.held.entry((tenant.to_owned(), item.meter.clone())).or_default() += sign * amount;
        }
    }

    fn reserve(&mut self, reserve: &Reserve) -> Result<Answer, QuotaError> {
        let name = (reserve.who.tenant.clone(), reserve.id.clone());
        if let Some(held) = self.reservations.get(&name) {
            let is_same = held.made_by == *reserve;
            return if is_same { Ok(held.answer.clone()) } else { Err(QuotaError::Reused { id: reserve.id.clone() }) };
        }
        let mut answer = self.look(&reserve.who.tenant, &reserve.items);
        if answer.decision != Decision::Deny {
            self.hold(&reserve.who.tenant, &reserve.items, 1);
            answer.reservation_id = Some(reserve.id.clone());
            answer.expires_at = Some(NOW.plus_ms(reserve.ttl_ms));
            let held = Held { made_by: reserve.clone(), answer: answer.clone(), ended: false };
            self.reservations.insert(name, held);
        }
        Ok(answer)
    }

    fn change(&mut self, tenant: &str, id: &str, add: &[Item], ends: bool) -> Result<Answer, QuotaError> {
        let name = (tenant.to_owned(), id.to_owned());
        let held = self.reservations.get_mut(&name).ok_or(QuotaError::Unknown { id: id.to_owned() })?;
        if held.ended {
            return Err(QuotaError::Ended { id: id.to_owned() });
        }
        held.ended = ends;
        let items = held.made_by.items.clone();
        if ends {
            self.hold(tenant, &items, -1);
        } else {
            self.hold(tenant, add, 1);
        }
        let mut answer = self.look(tenant, &items);
        answer.decision = Decision::Allow;
        answer.violated.clear();
        answer.reservation_id = Some(id.to_owned());
        Ok(answer)
    }
}

impl QuotaService for Stub {
    fn decide_now(&self, request: &QuotaRequest) -> Option<Result<Answer, QuotaError>> {
        let is_fast = match request {
            QuotaRequest::Check(_) => true,
            QuotaRequest::Reserve(reserve) => reserve.durability == Durability::Fast,
            _ => false,
        };
        (is_fast && !self.slow).then(|| self.answer(request))
    }

    fn may_use(&self, asks: &[Option<Ask<'_>>]) -> Vec<Option<Decision>> {
        let state = self.lock();
        let decide = |Ask { tenant, meter, amount }| {
            let items = [Item { meter: String::from(meter), amount }];
            (!self.slow && self.trouble.is_none()).then(|| state.look(tenant, &items).decision)
        };
        asks.iter().map(|ask| ask.and_then(decide)).collect()
    }

    fn decide(&self, request: QuotaRequest) -> BoxFuture<'_, Result<Answer, QuotaError>> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            self.answer(&request)
        })
    }

    fn put_plan(&self, plan: Plan) -> BoxFuture<'_, Result<(), QuotaError>> {
        Box::pin(async move {
            self.lock().plans.insert(plan.name.clone(), plan);
            Ok(())
        })
    }

    fn put_tenant(
        &self,
        tenant: String,
        terms: TenantTerms,
        anchor: Option<Option<TimeMs>>,
    ) -> BoxFuture<'_, Result<(), QuotaError>> {
        Box::pin(async move {
            let mut state = self.lock();
            if let Some(anchor) = anchor {
                state.anchors.insert(tenant.clone(), anchor);
            }
            state.tenants.insert(tenant, terms);
            Ok(())
        })
    }

    fn work(&self) -> Work {
        Work::default()
    }

    fn plans(&self) -> BoxFuture<'_, Vec<Plan>> {
        Box::pin(async { self.lock().plans.values().cloned().collect() })
    }

    fn tenant(&self, tenant: String) -> BoxFuture<'_, Tenant> {
        Box::pin(async move {
            let state = self.lock();
            let terms = state.tenants.get(&tenant).cloned().unwrap_or_default();
            Tenant { terms, anchor: Some(state.anchors.get(&tenant).copied().flatten()) }
        })
    }
}
