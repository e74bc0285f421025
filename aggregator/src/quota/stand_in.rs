//! Decides where nobody knows the counters: by the same plans and terms, with a tenth
//! of their limits, and nothing of what was used. What tenants were given comes in as
//! the totals book keeps it; nothing goes back into the log.

use std::collections::BTreeMap;

use odometer_schemas::definitions::Definitions;
use odometer_schemas::quota::{Limit, Plan, PlanOrigin, QuotaError, QuotaRow, QuotaRowKind, TenantTerms, WhenDegraded};

use super::book::decoded;
use super::live::LiveQuota;
use crate::cells::LiveCells;

/// What tenants are entitled to, read from rows of quota state.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Given {
    /// Plans, ascending by name.
    pub plans: Vec<Plan>,
    /// Terms by tenant.
    pub terms: BTreeMap<String, TenantTerms>,
}

impl Given {
    /// Reads plans and terms; other rows are passed over.
    ///
    /// # Errors
    /// The name of the row that cannot be read.
    pub fn of_rows(rows: &[QuotaRow]) -> Result<Self, String> {
        let (mut plans, mut terms) = (BTreeMap::new(), BTreeMap::new());
        for QuotaRow { kind, tenant, name, state } in rows {
            let unreadable = || format!("quota state ({kind:?}, tenant `{tenant}`, name `{name}`)");
            match kind {
                QuotaRowKind::Plan => {
                    let (plan, _): (Plan, PlanOrigin) = decoded(state).ok_or_else(unreadable)?;
                    plans.insert(plan.name.clone(), plan);
                }
                QuotaRowKind::Terms => {
                    terms.insert(tenant.clone(), decoded(state).ok_or_else(unreadable)?);
                }
                QuotaRowKind::Epoch | QuotaRowKind::Counter | QuotaRowKind::Reservations | QuotaRowKind::Early => {}
            }
        }
        Ok(Self { plans: plans.into_values().collect(), terms })
    }
}

impl LiveQuota {
    /// A quota that stands in where nobody knows the counters: a tenth of every limit,
    /// without grace, where limits are open then, and nothing of the others.
    #[must_use]
    pub fn stand_in(definitions: &Definitions) -> Self {
        let stand_in = Self::new(LiveCells::default());
        stand_in.set_meters(Some(definitions));
        stand_in
    }

    /// The plans that a stand-in decides by.
    pub fn stand_in_for(&self, plans: &[Plan]) {
        let capped = |plan: &Plan| Plan { limits: plan.limits.iter().map(tenth).collect(), ..plan.clone() };
        let capped: BTreeMap<String, Plan> = plans.iter().map(|plan| (plan.name.clone(), capped(plan))).collect();
        if *self.shared.catalogue.load().plans() != capped {
            self.set_plans(&capped);
        }
    }

    /// What a stand-in decides by for one tenant. A plan that it does not know is the
    /// default plan.
    ///
    /// # Errors
    /// [`QuotaError::Unavailable`] beyond the tenants that are kept.
    pub fn stand_in_terms(&self, tenant: &str, terms: &TenantTerms) -> Result<(), QuotaError> {
        let is_known = |name: &String| self.shared.catalogue.load().plans().contains_key(name);
        let plan = terms.plan.clone().filter(is_known);
        let capped = TenantTerms { plan, overrides: terms.overrides.iter().map(tenth).collect() };
        let account = self.shared.account(tenant)?;
        if account.terms().1.map_or_else(TenantTerms::default, |terms| (*terms).clone()) != capped {
            self.set_terms(tenant, capped);
        }
        Ok(())
    }
}

/// Rounded up, so that what is open is never closed.
fn tenth(limit: &Limit) -> Limit {
    let open = limit.limit.map(|limit| limit / 10 + i64::from(limit % 10 > 0));
    let limit_now = match limit.when_degraded {
        WhenDegraded::OpenWithCap => open,
        WhenDegraded::Closed => Some(0),
    };
    Limit { limit: limit_now, grace_percent: Some(0), ..limit.clone() }
}

#[cfg(test)]
mod tests {
    use odometer_schemas::quota::{Check, Decision, Item, Who};
    use odometer_schemas::time::TimeMs;

    use super::*;

    fn decision(stand_in: &LiveQuota, tenant: &str, amount: u64) -> Decision {
        let who = Who { tenant: tenant.to_owned(), ..Who::default() };
        let items = vec![Item { meter: "api_call".into(), amount }];
        stand_in.check(&Check { who, items }, TimeMs(0)).unwrap().decision
    }

    fn terms(plan: Option<&str>, overrides: Vec<Limit>) -> TenantTerms {
        TenantTerms { plan: plan.map(str::to_owned), overrides }
    }

    #[test]
    fn a_tenant_has_a_tenth_of_what_it_was_given() {
        let stand_in = LiveQuota::stand_in(&Definitions::built_in());
        let plan = |name: &str, limit, is_default| Plan {
            name: name.into(),
            limits: vec![Limit::usage("api_call", limit)],
            is_default,
        };
        stand_in.stand_in_for(&[plan("free", Some(95), true), plan("enterprise", None, false)]);
        let closed = Limit { when_degraded: WhenDegraded::Closed, ..Limit::usage("api_call", Some(1_000)) };
        for (tenant, given, most) in [
            ("nobody", terms(None, vec![]), 10),
            ("large", terms(Some("enterprise"), vec![]), 1 << 40),
            ("forgotten", terms(Some("gone"), vec![]), 10),
            ("special", terms(Some("enterprise"), vec![Limit::usage("api_call", Some(501))]), 51),
            ("careful", terms(Some("enterprise"), vec![closed]), 0),
        ] {
            stand_in.stand_in_terms(tenant, &given).unwrap();
            assert_eq!(decision(&stand_in, tenant, most), Decision::Allow, "{tenant}");
            if most < 1 << 40 {
                assert_eq!(decision(&stand_in, tenant, most + 1), Decision::Deny, "{tenant}");
            }
        }
        stand_in.stand_in_terms("special", &terms(None, vec![])).unwrap();
        assert_eq!(decision(&stand_in, "special", 11), Decision::Deny, "terms that were taken away");
    }

    #[test]
    fn a_row_that_cannot_be_read_is_named() {
        let row = QuotaRow { kind: QuotaRowKind::Terms, tenant: "a".into(), name: String::new(), state: vec![255] };
        assert_eq!(Given::of_rows(&[row]).unwrap_err(), "quota state (Terms, tenant `a`, name ``)");
    }
}
