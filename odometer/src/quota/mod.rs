//! The surfaces of quota: questions come in over HTTP, gRPC and Envoy's rate-limit
//! service, and are answered by whoever implements [`service::QuotaService`]. Decides
//! nothing and keeps nothing.
//!
//! Reading path: [`service`] (the seam) → [`body`] and [`validate`] (what is asked) →
//! [`reply`] (what is answered) → [`http`], [`lean`],
//! [`grpc`] (over which protocol) → [`tallies`] (what came of it).

mod body;
pub(crate) mod grpc;
pub(crate) mod http;
mod json;
pub(crate) mod lean;
pub(crate) mod meters;
mod ratelimit;
mod reply;
pub(crate) mod service;
#[cfg(test)]
pub(crate) mod stub;
pub(crate) mod tallies;
pub(crate) mod terms;
#[cfg(test)]
mod tests;
mod text;
mod validate;

use std::sync::Arc;
use std::time::Instant;

use odometer_schemas::quota::{Answer, Decision, QuotaError};

use self::meters::Meters;
use self::service::{Ask, QuotaRequest, QuotaService};
use self::tallies::{Surface, Tallies};
use crate::config::Config;

/// What every surface holds.
#[derive(Clone)]
pub(crate) struct Quota {
    pub(crate) service: Arc<dyn QuotaService>,
    pub(crate) meters: Arc<Meters>,
    /// The plan of tenants that were given none.
    pub(crate) default_plan: Arc<str>,
    tallies: Arc<Tallies>,
    /// Where questions of this copy come in.
    surface: Surface,
}

impl Quota {
    pub(crate) fn new(config: &Config, service: Arc<dyn QuotaService>) -> Self {
        let default_plan = config.quota.default_plan.as_str().into();
        let (meters, tallies) = (Arc::new(Meters::new(&config.meters)), Arc::<Tallies>::default());
        Self { service, meters, default_plan, tallies, surface: Surface::Http }
    }

    /// The same for another surface, which is counted on its own.
    pub(crate) fn at(self, surface: Surface) -> Self {
        Self { surface, ..self }
    }

    /// Decides at once, or not yet: see [`QuotaService::decide_now`]. `started`: when the
    /// caller turned to the question.
    pub(crate) fn decide_now(&self, request: &QuotaRequest, started: Instant) -> Option<Result<Answer, QuotaError>> {
        let decided = self.service.decide_now(request)?;
        self.tallies.count(self.surface, &decided, started.elapsed());
        Some(decided)
    }

    /// Decides at once where that is possible.
    pub(crate) async fn decide(&self, request: QuotaRequest) -> Result<Answer, QuotaError> {
        let started = Instant::now();
        if let Some(decided) = self.decide_now(&request, started) {
            return decided;
        }
        let decided = self.service.decide(request).await;
        self.tallies.count(self.surface, &decided, started.elapsed());
        decided
    }
    /// Decides what of `asks` can be decided from one counter each; one for each.
    pub(crate) fn may_use(&self, asks: &[Option<Ask<'_>>]) -> Vec<Option<Decision>> {
        let started = Instant::now();
        let decided = self.service.may_use(asks);
        self.tallies.count_all(self.surface, &decided, started.elapsed());
        decided
    }
}
