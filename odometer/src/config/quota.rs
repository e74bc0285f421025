//! What the surfaces of quota are configured with.

use std::net::SocketAddr;
use std::time::Duration;

use odometer_schemas::quota::Plan;

/// `[quota]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct QuotaConfig {
    /// The plan of tenants that were given none.
    pub(crate) default_plan: String,
    /// The address of every gRPC surface; none: there is no gRPC.
    pub(crate) grpc_listen: Option<SocketAddr>,
}

impl Default for QuotaConfig {
    fn default() -> Self {
        // One more open port is somebody's decision.
        Self { default_plan: Plan::DEFAULT.into(), grpc_listen: None }
    }
}

/// Marks the plan that tenants have who were given none.
pub(super) fn with_default(mut plans: Vec<Plan>, default_plan: &str) -> Vec<Plan> {
    for plan in &mut plans {
        plan.is_default = plan.name == default_plan;
    }
    plans
}

/// `[envoy]`: which entries of a descriptor say what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EnvoyConfig {
    /// Requests of other domains are refused; empty: all are taken.
    pub(crate) domain: String,
    /// The key of the entry that names the tenant.
    pub(crate) tenant: String,
    /// The key of the entry that names the user or agent.
    pub(crate) subject: String,
    /// The key of the entry that names the API key.
    pub(crate) key: String,
    /// The key of the entry that names the meter.
    pub(crate) meter: String,
    /// The meter of descriptors that name none.
    pub(crate) default_meter: String,
    /// What a request without hits of its own adds; 0 only checks.
    pub(crate) default_hits: u32,
    /// How long hits are held, until the usage records of what was let through count.
    pub(crate) hold: Duration,
}

impl Default for EnvoyConfig {
    fn default() -> Self {
        Self {
            domain: String::new(),
            tenant: "tenant".into(),
            subject: "subject".into(),
            key: "key".into(),
            meter: "meter".into(),
            default_meter: "api_call".into(),
            // Usage is what records say; a gateway only asks.
            default_hits: 0,
            // Emitters deliver within seconds.
            hold: Duration::from_secs(60),
        }
    }
}

/// Built-in plans, replaced by name, and the others, ascending by name.
pub(crate) fn with_built_in(own: Vec<Plan>) -> Vec<Plan> {
    let mut plans = Plan::built_in();
    plans.retain(|plan| own.iter().all(|own| own.name != plan.name));
    plans.extend(own);
    plans.sort_by(|a, b| a.name.cmp(&b.name));
    plans
}
