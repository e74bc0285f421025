//! Envoy's rate-limit service: descriptors come in, each is read as (tenant, subject,
//! key, meter), and one status a descriptor goes out.
//!
//! Without hits a request only checks. Hits have no commit: they are checked against
//! what is used and held, and held themselves for a while, so that many at once cannot
//! overrun a limit before the usage records of what was let through are counted. The
//! reservation's id goes to the upstream in a request header: records that carry it
//! draw the hold down, others leave it to its end.

use odometer_schemas::quota::{
    Answer, Check, Decision, Durability, Item, LimitState, QuotaError, Release, Reserve, Who,
};
use odometer_schemas::time::TimeMs;
use prost_types::Duration;
use tonic::{Request, Response, Status};

use super::convert::status_of;
use super::proto::envoy::config::core::v3::HeaderValue;
use super::proto::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;
use super::proto::rls::rate_limit_response::rate_limit::Unit;
use super::proto::rls::rate_limit_response::{Code, DescriptorStatus, RateLimit as CurrentLimit};
use super::proto::rls::rate_limit_service_server::RateLimitService;
use super::proto::rls::{RateLimitRequest, RateLimitResponse};
use crate::config::quota::EnvoyConfig;
use crate::quota::Quota;
use crate::quota::body::random_id;
use crate::quota::ratelimit;
use crate::quota::reply::{Reply, now_of};
use crate::quota::service::QuotaRequest;
use crate::quota::validate::validate;

/// Descriptors of one request. Each is decided on its own; a route has a few.
const DESCRIPTORS_MAX: usize = 32;
/// The request header that names what is held for a request.
const RESERVATION_HEADER: &str = "x-odometer-reservation";

/// What answers.
pub(super) struct RateLimit {
    quota: Quota,
    config: EnvoyConfig,
}

/// A descriptor as it was read.
struct Hit {
    who: Who,
    item: Item,
}

impl RateLimit {
    pub(super) fn new(quota: Quota, config: EnvoyConfig) -> Self {
        Self { quota, config }
    }

    fn read(&self, request: RateLimitRequest) -> Result<Vec<Hit>, Status> {
        let RateLimitRequest { domain, descriptors, hits_addend } = request;
        if !self.config.domain.is_empty() && domain != self.config.domain {
            let text = format!("domain is `{domain}`, but `{}` is answered here", self.config.domain);
            return Err(Status::invalid_argument(text));
        }
        if !(1..=DESCRIPTORS_MAX).contains(&descriptors.len()) {
            let text = format!("descriptors has {} entries; 1 to {DESCRIPTORS_MAX} are answered", descriptors.len());
            return Err(Status::invalid_argument(text));
        }
        let hits = if hits_addend == 0 { self.config.default_hits } else { hits_addend };
        descriptors.into_iter().map(|descriptor| self.hit(descriptor, hits)).collect()
    }

    fn hit(&self, descriptor: RateLimitDescriptor, hits: u32) -> Result<Hit, Status> {
        let config = &self.config;
        let amount = descriptor.hits_addend.unwrap_or_else(|| hits.into());
        let (mut who, mut meter) = (Who::default(), None);
        for entry in descriptor.entries {
            match entry.key {
                key if key == config.tenant => who.tenant = entry.value,
                key if key == config.subject => who.subject = Some(entry.value),
                key if key == config.key => who.key = Some(entry.value),
                key if key == config.meter => meter = Some(entry.value),
                // Others tell routes apart, for limits of other services.
                _ => {}
            }
        }
        if who.tenant.is_empty() {
            let text = format!("a descriptor has no entry `{}`, which names the tenant", config.tenant);
            return Err(Status::invalid_argument(text));
        }
        Ok(Hit { who, item: Item { meter: meter.unwrap_or_else(|| config.default_meter.clone()), amount } })
    }

    async fn decide(&self, request: QuotaRequest) -> Result<Answer, QuotaError> {
        validate(&request)?;
        self.quota.decide(request).await
    }

    /// Checks everything; holds the hits if nothing is over its limit.
    async fn answers(&self, hits: &[Hit]) -> Result<Vec<Answer>, QuotaError> {
        let mut answers = Vec::with_capacity(hits.len());
        for hit in hits {
            let check = Check { who: hit.who.clone(), items: vec![hit.item.clone()] };
            answers.push(self.decide(QuotaRequest::Check(check)).await?);
        }
        if hits.iter().all(|hit| hit.item.amount == 0) || answers.iter().any(is_denied) {
            return Ok(answers);
        }
        let held = self.hold(hits, &mut answers).await;
        if held.is_err() || answers.iter().any(is_denied) {
            self.release(hits, &mut answers).await;
        }
        held.map(|()| answers)
    }

    /// Stops at the first that cannot be held: others were faster.
    async fn hold(&self, hits: &[Hit], answers: &mut [Answer]) -> Result<(), QuotaError> {
        for (hit, answer) in hits.iter().zip(answers).filter(|(hit, _)| hit.item.amount > 0) {
            let reserve = Reserve {
                id: random_id(),
                who: hit.who.clone(),
                ttl_ms: i64::try_from(self.config.hold.as_millis()).unwrap_or(i64::MAX),
                items: vec![hit.item.clone()],
                durability: Durability::Fast,
            };
            *answer = self.decide(QuotaRequest::Reserve(reserve)).await?;
            if is_denied(answer) {
                break;
            }
        }
        Ok(())
    }

    /// Gives back what was held for a request that does not go on. What cannot be given
    /// back now ends by itself.
    async fn release(&self, hits: &[Hit], answers: &mut [Answer]) {
        for (hit, answer) in hits.iter().zip(answers) {
            let Some(id) = answer.reservation_id.take() else { continue };
            let (tenant, op_id) = (hit.who.tenant.clone(), id.clone());
            let release = Release { tenant, id, op_id, durability: Durability::Fast };
            if let Err(error) = self.decide(QuotaRequest::Release(release)).await {
                tracing::debug!("hits stay held until they expire: {error}");
            }
        }
    }
}

#[tonic::async_trait]
impl RateLimitService for RateLimit {
    async fn should_rate_limit(
        &self,
        request: Request<RateLimitRequest>,
    ) -> Result<Response<RateLimitResponse>, Status> {
        let hits = self.read(request.into_inner())?;
        let answers = self.answers(&hits).await.map_err(|error| status_of(&error))?;
        Ok(Response::new(respond(answers, &self.quota)))
    }
}

fn is_denied(answer: &Answer) -> bool {
    answer.decision == Decision::Deny
}

fn respond(mut answers: Vec<Answer>, quota: &Quota) -> RateLimitResponse {
    let statuses = answers.iter().map(status).collect();
    let header = |key: &str, value: String| HeaderValue { key: key.to_owned(), value };
    let held: Vec<String> = answers.iter_mut().filter_map(|answer| answer.reservation_id.take()).collect();
    let limits: Vec<LimitState> = answers.iter().flat_map(|answer| answer.limits.iter().cloned()).collect();
    let now = answers.iter().map(now_of).max().unwrap_or_default();
    let mut headers = vec![
        header("ratelimit-policy", ratelimit::policies(&limits)),
        header("ratelimit", ratelimit::standing(&limits, now)),
    ];
    headers.retain(|header| !header.value.is_empty());
    let denied = answers.into_iter().find(is_denied).map(|answer| Reply::of(Ok(answer), &quota.meters));
    if let Some(reply) = &denied {
        headers.push(header("content-type", reply.content_type.to_owned()));
        headers.extend(reply.retry_after_s.map(|seconds| header("retry-after", seconds.to_string())));
    }
    let code = if denied.is_some() { Code::OverLimit } else { Code::Ok };
    RateLimitResponse {
        overall_code: code.into(),
        statuses,
        response_headers_to_add: headers,
        request_headers_to_add: held.into_iter().map(|id| header(RESERVATION_HEADER, id)).collect(),
        raw_body: denied.map(|reply| reply.body).unwrap_or_default(),
    }
}

/// What a descriptor's tightest limit says: a violated one, else the one with the least
/// left.
fn status(answer: &Answer) -> DescriptorStatus {
    let code = if is_denied(answer) { Code::OverLimit } else { Code::Ok };
    let is_violated = |limit: &LimitState| answer.violated.contains(&limit.policy);
    let tightest = answer.limits.iter().min_by_key(|limit| {
        (!is_violated(limit), limit.remaining.unwrap_or(i64::MAX), limit.resets_at.map_or(i64::MAX, |at| at.0))
    });
    let now = now_of(answer);
    DescriptorStatus {
        code: code.into(),
        current_limit: tightest.and_then(current_limit),
        limit_remaining: tightest.map_or(u32::MAX, |limit| saturated(limit.remaining)),
        duration_until_reset: tightest.and_then(|limit| limit.resets_at).map(|at| until(at, now)),
    }
}

/// Envoy's limits are per unit of time; one on what is held at a moment is none.
fn current_limit(limit: &LimitState) -> Option<CurrentLimit> {
    limit.resets_at?;
    let (requests_per_unit, name) = (saturated(Some(limit.limit?)), limit.policy.clone());
    Some(CurrentLimit { requests_per_unit, unit: Unit::Month.into(), name })
}

/// The protocol has 32 bits; unlimited is as much as it can say.
fn saturated(amount: Option<i64>) -> u32 {
    amount.map_or(u32::MAX, |amount| u32::try_from(amount.max(0)).unwrap_or(u32::MAX))
}

fn until(at: TimeMs, now: TimeMs) -> Duration {
    let ms = at.0.saturating_sub(now.0).max(0);
    let nanos = i32::try_from(ms % 1_000).unwrap_or(0) * 1_000_000;
    Duration { seconds: ms / 1_000, nanos }
}
