//! What holds for all tenants: the plans in force, and which meters can be limited. One
//! catalogue follows the other; none changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use odometer_schemas::definitions::Definitions;
use odometer_schemas::meter::Aggregation;
use odometer_schemas::quota::{Kind, Plan, Scope, TenantTerms};

use super::account::Terms;

/// What holds for all tenants.
#[derive(Clone, Debug, Default)]
pub(super) struct Catalogue {
    /// Raised with every change.
    pub(super) version: u64,
    plans: BTreeMap<String, Plan>,
    /// What each plan says, by name: whoever has no overrides shares it.
    terms: BTreeMap<String, Arc<Terms>>,
    /// What a plan says that is gone.
    none: Arc<Terms>,
    /// Meters whose usage can be limited.
    meters: BTreeMap<String, Aggregation>,
}

impl Catalogue {
    pub(super) fn plans(&self) -> &BTreeMap<String, Plan> {
        &self.plans
    }

    pub(super) fn set_plans(&mut self, plans: &BTreeMap<String, Plan>) {
        let terms = |(name, plan): (&String, &Plan)| {
            let known = self.terms.get(name).filter(|_| self.plans.get(name) == Some(plan));
            (name.clone(), known.map_or_else(|| Arc::new(Terms::of_plan(Some(plan))), Arc::clone))
        };
        self.terms = plans.iter().map(terms).collect();
        self.none = Arc::new(Terms::of_plan(None));
        self.plans.clone_from(plans);
    }

    pub(super) fn set_meters(&mut self, definitions: Option<&Definitions>) {
        let countable = |aggregation| matches!(aggregation, Aggregation::Sum | Aggregation::Count);
        let meters = definitions.into_iter().flat_map(|definitions| &definitions.meters);
        let meters = meters.filter(|meter| countable(meter.aggregation));
        self.meters = meters.map(|meter| (meter.name.clone(), meter.aggregation)).collect();
    }

    /// All limits of a tenant that was given this.
    pub(super) fn terms_of(&self, given: &TenantTerms) -> Arc<Terms> {
        let plan = match &given.plan {
            Some(name) => self.terms.get(name),
            None => self.plans.iter().find(|(_, plan)| plan.is_default).and_then(|(name, _)| self.terms.get(name)),
        };
        Terms::overridden(plan.unwrap_or(&self.none), &given.overrides)
    }

    /// How a meter adds up whose usage can be limited.
    pub(super) fn aggregation_of(&self, meter: &str) -> Option<Aggregation> {
        self.meters.get(meter).copied()
    }

    /// What a meter's limits bound; `None` for one that nothing can limit.
    pub(super) fn kind_of(&self, terms: &Terms, meter: &str) -> Option<Kind> {
        let limited = [Scope::Tenant, Scope::Subject, Scope::Key];
        let of_terms = limited.into_iter().find_map(|scope| terms.policy(meter, scope)).map(|policy| policy.kind);
        let of_meters = || self.meters.contains_key(meter).then_some(Kind::Usage);
        let of_plans = || self.plans.values().flat_map(|plan| &plan.limits).find(|limit| limit.meter == meter);
        of_terms.or_else(of_meters).or_else(|| of_plans().map(|limit| limit.kind))
    }
}
