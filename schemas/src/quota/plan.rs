//! Plans and limits: what a tenant may use.

use std::fmt;

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

use super::{AMOUNT_MAX, LIMITS_MAX, PLAN_BYTES_MAX};
use crate::limits::METER_BYTES_MAX;

/// What a limit bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// The tenant as a whole.
    Tenant,
    /// Each subject (user, agent) of the tenant.
    Subject,
    /// Each API key of the tenant.
    Key,
}

impl Scope {
    /// The name in configuration and answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::Subject => "subject",
            Self::Key => "key",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What counts against a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// What is used and reserved in a period.
    Usage,
    /// What is reserved at one moment: agents that run side by side.
    Concurrency,
}

/// What is answered while nobody knows the counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenDegraded {
    /// Each node lets a tenth of the limit through.
    #[default]
    OpenWithCap,
    /// Nothing is let through.
    Closed,
}

/// One limit of a plan, or an override of one tenant.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// A defined meter, or any name for a concurrency limit.
    pub meter: String,
    /// Whose use is added up.
    #[serde(default = "tenant_scope")]
    pub scope: Scope,
    /// What is added up.
    #[serde(default = "usage_kind")]
    pub kind: Kind,
    /// In base units; none: counted, never stopped.
    pub limit: Option<i64>,
    /// How far the limit may be overrun, in percent of it. 10 for usage and 0 for
    /// concurrency unless given.
    #[serde(default)]
    pub grace_percent: Option<u8>,
    /// What is answered while the counters are unknown.
    #[serde(default)]
    pub when_degraded: WhenDegraded,
}

const fn tenant_scope() -> Scope {
    Scope::Tenant
}

const fn usage_kind() -> Kind {
    Kind::Usage
}

impl Limit {
    /// Grace of a usage limit unless it says otherwise, in percent.
    pub const GRACE_PERCENT_DEFAULT: u8 = 10;

    /// A limit on a tenant's usage of `meter`, with the usual grace.
    #[must_use]
    pub fn usage(meter: &str, limit: Option<i64>) -> Self {
        Self {
            meter: meter.to_owned(),
            scope: Scope::Tenant,
            kind: Kind::Usage,
            limit,
            grace_percent: None,
            when_degraded: WhenDegraded::OpenWithCap,
        }
    }

    /// A limit on what a tenant holds of `meter` at one moment.
    #[must_use]
    pub fn concurrency(meter: &str, limit: Option<i64>) -> Self {
        Self { kind: Kind::Concurrency, ..Self::usage(meter, limit) }
    }

    /// The limit and its grace, rounded down to a base unit; none when unlimited.
    #[must_use]
    pub fn hard_limit(&self) -> Option<i64> {
        let grace = self.grace_percent.unwrap_or(match self.kind {
            Kind::Usage => Self::GRACE_PERCENT_DEFAULT,
            Kind::Concurrency => 0,
        });
        self.limit.map(|limit| {
            let hard = i128::from(limit) + i128::from(limit) * i128::from(grace) / 100;
            i64::try_from(hard).unwrap_or(AMOUNT_MAX).min(AMOUNT_MAX)
        })
    }

    /// Whether both bound the same use.
    #[must_use]
    pub fn bounds_same(&self, other: &Self) -> bool {
        (&self.meter, self.scope) == (&other.meter, other.scope)
    }

    fn validate(&self) -> Result<(), String> {
        if self.meter.is_empty() || self.meter.len() > METER_BYTES_MAX {
            return Err(format!("meter must have 1 to {METER_BYTES_MAX} bytes"));
        }
        if self.limit.is_some_and(|limit| !(0..=AMOUNT_MAX).contains(&limit)) {
            return Err(format!("limit of `{}` must be from 0 to {AMOUNT_MAX} base units", self.meter));
        }
        if self.grace_percent.is_some_and(|percent| percent > 100) {
            return Err(format!("grace_percent of `{}` must be at most 100", self.meter));
        }
        Ok(())
    }
}

/// A set of limits that tenants subscribe to.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// `free`, `pro` …
    pub name: String,
    /// What it limits; a meter that is not here is counted and never stopped.
    #[serde(default, rename = "limit")]
    pub limits: Vec<Limit>,
    /// Whether tenants have it that were never given a plan. Of several, the first by
    /// name. Not written with the plan: configuration names the default.
    #[serde(skip)]
    pub is_default: bool,
}

/// Where a plan comes from, which decides who may replace it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum PlanOrigin {
    /// From a configuration file: replaced by the next file that says otherwise.
    Config,
    /// Put over the API: stays until it is put again.
    Api,
}

/// What is wrong with a plan: the field and the fix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("plan `{plan}`: {problem}")]
pub struct PlanError {
    /// The plan's name as given.
    pub plan: String,
    /// What is wrong, and what would be right.
    pub problem: String,
}

impl Plan {
    /// The plan of tenants that were never given one, unless configured otherwise.
    pub const DEFAULT: &'static str = "free";
    /// The meter of built-in concurrency limits.
    pub const AGENTS: &'static str = "agents";

    /// The plans that every installation has unless it changes them.
    #[must_use]
    pub fn built_in() -> Vec<Self> {
        const MINUTE_MS: i64 = crate::time::MINUTE_MS;
        let plan = |name: &str, agents: Option<i64>, minutes: Option<i64>| Self {
            name: name.to_owned(),
            is_default: name == Self::DEFAULT,
            limits: vec![
                Limit::concurrency(Self::AGENTS, agents),
                Limit::usage("agent_minute", minutes.map(|minutes| minutes * MINUTE_MS)),
            ],
        };
        vec![
            plan("free", Some(1), Some(100)),
            plan("starter", Some(5), Some(1_000)),
            plan("pro", Some(20), Some(10_000)),
            plan("enterprise", None, None),
        ]
    }

    /// Checks the plan on its own.
    ///
    /// # Errors
    /// Names the field and the fix.
    pub fn validate(&self) -> Result<(), PlanError> {
        let wrong = |problem: String| Err(PlanError { plan: self.name.clone(), problem });
        let name_is_plain = self.name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        if self.name.is_empty() || self.name.len() > PLAN_BYTES_MAX || !name_is_plain {
            return wrong(format!("its name must be 1 to {PLAN_BYTES_MAX} ASCII letters, digits, `.`, `_` or `-`"));
        }
        check_limits(&self.limits).or_else(wrong)
    }
}

/// What a tenant is entitled to.
#[derive(Clone, Debug, PartialEq, Eq, Default, Encode, Decode)]
pub struct TenantTerms {
    /// The plan's name; the default plan when none.
    pub plan: Option<String>,
    /// Limits that hold instead of the plan's, or besides them.
    pub overrides: Vec<Limit>,
}

impl TenantTerms {
    /// Checks the overrides.
    ///
    /// # Errors
    /// Names the field and the fix.
    pub fn validate(&self) -> Result<(), PlanError> {
        let plan = self.plan.clone().unwrap_or_default();
        check_limits(&self.overrides).map_err(|problem| PlanError { plan, problem: format!("overrides: {problem}") })
    }
}

fn check_limits(limits: &[Limit]) -> Result<(), String> {
    if limits.len() > LIMITS_MAX {
        return Err(format!("has {} limits; at most {LIMITS_MAX} are allowed", limits.len()));
    }
    for (index, limit) in limits.iter().enumerate() {
        limit.validate()?;
        if limits[..index].iter().any(|other| other.bounds_same(limit)) {
            return Err(format!("limits `{}` per {} twice", limit.meter, limit.scope));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grace_is_a_tenth_for_usage_and_none_for_concurrency() {
        assert_eq!(Limit::usage("m", Some(105)).hard_limit(), Some(115));
        assert_eq!(Limit::concurrency("m", Some(20)).hard_limit(), Some(20));
        assert_eq!(Limit::usage("m", Some(AMOUNT_MAX)).hard_limit(), Some(AMOUNT_MAX));
        assert_eq!(Limit { grace_percent: Some(0), ..Limit::usage("m", Some(7)) }.hard_limit(), Some(7));
        assert_eq!(Limit::usage("m", None).hard_limit(), None);
    }

    #[test]
    fn plans_are_checked() {
        Plan::built_in().iter().for_each(|plan| plan.validate().unwrap());
        let plan = |limits| Plan { name: "p".into(), limits, is_default: false };
        let twice = plan(vec![Limit::usage("m", Some(1)), Limit::usage("m", None)]);
        assert_eq!(twice.validate().unwrap_err().to_string(), "plan `p`: limits `m` per tenant twice");
        let negative = plan(vec![Limit::usage("m", Some(-1))]);
        assert!(negative.validate().unwrap_err().problem.contains("from 0 to"));
        let named = Plan { name: "a b".into(), ..plan(vec![]) };
        assert!(named.validate().is_err());
    }
}
