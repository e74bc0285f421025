//! The values of quota, each checked alone, and plans against meters.

use std::ops::RangeInclusive;
use std::time::Duration;

use odometer_schemas::meter::Meter;
use odometer_schemas::quota::{Kind, PLANS_MAX, Plan, QuotaError, TTL_MS_MAX};

use super::check::{Reader, socket_address};
use super::document::DocumentError;
use super::quota::{EnvoyConfig, QuotaConfig, with_built_in};
use super::raw::{RawEnvoy, RawPlan, RawQuota};
use crate::quota::meters::Meters;
use crate::quota::terms::check_meter;

/// A hit is one call or a few; more is said by records.
const DEFAULT_HITS: RangeInclusive<usize> = 0..=1_000_000;
/// As long as any reservation may be held.
const HOLD: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_millis(TTL_MS_MAX.unsigned_abs());

impl Reader<'_> {
    /// Built-in plans, replaced by name, and the others. A usage limit is on a meter
    /// that is there and adds up.
    pub(super) fn plans(&self, own: Vec<RawPlan>, defined: &[Meter]) -> Result<Vec<Plan>, DocumentError> {
        let meters = Meters::new(defined);
        let mut plans: Vec<Plan> = Vec::with_capacity(own.len());
        for (index, raw) in own.into_iter().enumerate() {
            if plans.iter().any(|earlier| earlier.name == raw.name) {
                let problem = format!("`{}` is defined twice; remove one definition", raw.name);
                return self.wrong(&format!("plan[{index}].name"), &problem);
            }
            plans.push(self.plan(index, raw, &meters)?);
        }
        let plans = with_built_in(plans);
        if plans.len() > PLANS_MAX {
            return self.wrong("plan", &format!("lists more than {PLANS_MAX} plans, built-in ones included"));
        }
        for plan in &plans {
            let mut usage = plan.limits.iter().filter(|limit| limit.kind == Kind::Usage);
            if let Some(error) = usage.find_map(|limit| check_meter(&limit.meter, &meters).err()) {
                // Only a built-in plan comes so far: its meter was redefined.
                return self.wrong("meter", &format!("is limited by the built-in plan `{}`: {error}", plan.name));
            }
        }
        Ok(plans)
    }

    fn plan(&self, index: usize, raw: RawPlan, meters: &Meters) -> Result<Plan, DocumentError> {
        let mut limits = Vec::with_capacity(raw.limit.len());
        for (at, limit) in raw.limit.into_iter().enumerate() {
            match limit.resolve(meters) {
                Ok(limit) => limits.push(limit),
                Err(QuotaError::Invalid { field, problem }) => {
                    return self.wrong(&format!("plan[{index}].limit[{at}].{field}"), &problem);
                }
                Err(other) => return self.wrong(&format!("plan[{index}].limit[{at}]"), &other.to_string()),
            }
        }
        let plan = Plan { name: raw.name, limits, is_default: false };
        match plan.validate() {
            Ok(()) => Ok(plan),
            Err(error) => self.wrong(&format!("plan[{index}]"), &format!("is wrong: {}", error.problem)),
        }
    }

    pub(super) fn quota(
        &self,
        raw: RawQuota,
        default: QuotaConfig,
        plans: &[Plan],
    ) -> Result<QuotaConfig, DocumentError> {
        let default_plan = self.text("quota.default_plan", raw.default_plan, default.default_plan)?;
        if !plans.iter().any(|plan| plan.name == default_plan) {
            let names: Vec<_> = plans.iter().map(|plan| plan.name.as_str()).collect();
            let problem = format!("names no plan; there are {}", names.join(", "));
            return self.wrong("quota.default_plan", &problem);
        }
        let grpc_listen = match raw.grpc_listen.filter(|text| !text.is_empty()) {
            None => default.grpc_listen,
            Some(text) => match socket_address(&text) {
                Some(address) => Some(address),
                None => {
                    return self.wrong("quota.grpc_listen", "must be empty or HOST:PORT such as `127.0.0.1:7071`");
                }
            },
        };
        Ok(QuotaConfig { default_plan, grpc_listen })
    }

    pub(super) fn envoy(
        &self,
        raw: RawEnvoy,
        default: EnvoyConfig,
        defined: &[Meter],
    ) -> Result<EnvoyConfig, DocumentError> {
        let hits = usize::try_from(default.default_hits).unwrap_or(0);
        let hits = self.count("envoy.default_hits", raw.default_hits, hits, &DEFAULT_HITS)?;
        let config = EnvoyConfig {
            domain: raw.domain.unwrap_or(default.domain),
            tenant: self.text("envoy.tenant", raw.tenant, default.tenant)?,
            subject: self.text("envoy.subject", raw.subject, default.subject)?,
            key: self.text("envoy.key", raw.key, default.key)?,
            meter: self.text("envoy.meter", raw.meter, default.meter)?,
            default_meter: self.text("envoy.default_meter", raw.default_meter, default.default_meter)?,
            default_hits: u32::try_from(hits).unwrap_or(u32::MAX),
            hold: self.duration("envoy.hold", raw.hold, default.hold, &HOLD)?,
        };
        let entries = [
            ("envoy.tenant", &config.tenant),
            ("envoy.subject", &config.subject),
            ("envoy.key", &config.key),
            ("envoy.meter", &config.meter),
        ];
        for (index, (key, name)) in entries.iter().enumerate() {
            if let Some((other, _)) = entries[..index].iter().find(|(_, earlier)| earlier == name) {
                return self.wrong(key, &format!("must differ from `{other}`, which is `{name}` too"));
            }
        }
        if !defined.iter().any(|meter| meter.name == config.default_meter) {
            return self.wrong("envoy.default_meter", &format!("names no meter: `{}`", config.default_meter));
        }
        Ok(config)
    }
}
