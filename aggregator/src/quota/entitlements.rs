//! What the log says of limits: the plans in force, and what tenants were given. A
//! tenant's own overrides come first, then its plan, then the default plan.

use std::collections::{BTreeMap, HashMap};

use odometer_schemas::quota::{Kind, Limit, Plan, PlanOrigin, Scope, TenantTerms};

use super::alarm::Bound;

/// Who may use how much, at one offset of the log.
#[derive(Debug)]
pub(crate) struct Entitlements {
    plans: BTreeMap<String, (Plan, PlanOrigin)>,
    terms: HashMap<String, TenantTerms>,
    /// Raised with every change of `plans`.
    version: u32,
    /// Some plan or override limits subjects or keys.
    is_layered: bool,
}

impl Default for Entitlements {
    fn default() -> Self {
        Self { plans: BTreeMap::new(), terms: HashMap::new(), version: 1, is_layered: false }
    }
}

impl Entitlements {
    pub(crate) fn plans(&self) -> impl Iterator<Item = (&Plan, PlanOrigin)> {
        self.plans.values().map(|(plan, origin)| (plan, *origin))
    }

    pub(crate) fn plan(&self, name: &str) -> Option<&(Plan, PlanOrigin)> {
        self.plans.get(name)
    }

    /// What a tenant was given.
    pub(crate) fn terms(&self, tenant: &str) -> Option<&TenantTerms> {
        self.terms.get(tenant)
    }

    /// The plans in force, to know a change by; never zero.
    #[inline]
    pub(crate) fn version(&self) -> u32 {
        self.version
    }

    #[inline]
    pub(crate) fn is_layered(&self) -> bool {
        self.is_layered
    }

    /// Whether a plan from there holds from here on: one from a file does not replace one
    /// that was put.
    pub(crate) fn takes(&self, plan: &Plan, origin: PlanOrigin) -> bool {
        let was_put = self.plan(&plan.name).is_some_and(|(_, origin)| *origin == PlanOrigin::Api);
        !was_put || origin == PlanOrigin::Api
    }

    pub(crate) fn put_plan(&mut self, plan: Plan, origin: PlanOrigin) {
        self.version = self.version.wrapping_add(1).max(1);
        self.is_layered |= is_layered(&plan.limits);
        self.plans.insert(plan.name.clone(), (plan, origin));
    }

    pub(crate) fn put_terms(&mut self, tenant: &str, terms: TenantTerms) {
        self.is_layered |= is_layered(&terms.overrides);
        self.terms.insert(tenant.to_owned(), terms);
    }

    /// Whether anything bounds a meter at a scope.
    pub(crate) fn has_limit(&self, tenant: &str, meter: &str, scope: Scope) -> bool {
        self.limit(tenant, meter, scope).is_some()
    }

    /// The limit on a meter's usage in a period.
    pub(crate) fn bound(&self, tenant: &str, meter: &str, scope: Scope) -> Option<Bound<'_>> {
        let (from, limit) = self.limit(tenant, meter, scope)?;
        let limit = limit.limit.filter(|_| limit.kind == Kind::Usage)?;
        Some(Bound { from, limit })
    }

    /// What limits a meter at a scope, and where that is from.
    fn limit(&self, tenant: &str, meter: &str, scope: Scope) -> Option<(&str, &Limit)> {
        let bounds = |limit: &&Limit| limit.scope == scope && limit.meter == meter;
        let given = self.terms(tenant);
        let own = given.and_then(|terms| terms.overrides.iter().find(bounds)).map(|limit| ("override", limit));
        own.or_else(|| {
            let plan = match given.and_then(|terms| terms.plan.as_ref()) {
                Some(name) => self.plan(name).map(|(plan, _)| plan),
                None => self.plans().map(|(plan, _)| plan).find(|plan| plan.is_default),
            }?;
            plan.limits.iter().find(bounds).map(|limit| (plan.name.as_str(), limit))
        })
    }
}

fn is_layered(limits: &[Limit]) -> bool {
    limits.iter().any(|limit| limit.scope != Scope::Tenant)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound(entitlements: &Entitlements, tenant: &str) -> Option<(String, i64)> {
        entitlements.bound(tenant, "m", Scope::Tenant).map(|bound| (bound.from.to_owned(), bound.limit))
    }

    fn plan(name: &str, limit: i64, is_default: bool) -> Plan {
        Plan { name: name.into(), limits: vec![Limit::usage("m", Some(limit))], is_default }
    }

    #[test]
    fn an_override_comes_before_the_plan_and_that_before_the_default() {
        let mut entitlements = Entitlements::default();
        assert_eq!(bound(&entitlements, "any"), None);
        entitlements.put_plan(plan("free", 1, true), PlanOrigin::Config);
        entitlements.put_plan(plan("pro", 2, false), PlanOrigin::Config);
        let given = |plan: Option<&str>, overrides| TenantTerms { plan: plan.map(str::to_owned), overrides };
        entitlements.put_terms("pro", given(Some("pro"), vec![]));
        entitlements.put_terms("own", given(Some("pro"), vec![Limit::usage("m", Some(3))]));
        entitlements.put_terms("gone", given(Some("gone"), vec![]));
        let expected = [("any", "free", 1), ("pro", "pro", 2), ("own", "override", 3)];
        for (tenant, from, limit) in expected {
            assert_eq!(bound(&entitlements, tenant), Some((from.to_owned(), limit)));
        }
        assert_eq!(bound(&entitlements, "gone"), None);
        assert!(!entitlements.is_layered());
    }

    #[test]
    fn a_plan_that_was_put_is_not_replaced_from_a_file() {
        let mut entitlements = Entitlements::default();
        entitlements.put_plan(plan("free", 1, true), PlanOrigin::Api);
        let other = plan("free", 2, true);
        assert!(!entitlements.takes(&other, PlanOrigin::Config) && entitlements.takes(&other, PlanOrigin::Api));
    }
}
