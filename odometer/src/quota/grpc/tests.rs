//! Both services over a real connection, with the generated clients.

use std::sync::Arc;

use odometer_schemas::quota::{Plan, QuotaError};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::Code as Status;
use tonic::transport::Channel;

use super::proto::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;
use super::proto::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::Entry;
use super::proto::quota::quota_client::QuotaClient;
use super::proto::quota::{self as wire, item::Amount};
use super::proto::rls::rate_limit_response::Code;
use super::proto::rls::rate_limit_service_client::RateLimitServiceClient;
use super::proto::rls::{RateLimitRequest, RateLimitResponse};
use super::{BATCH_CHECKS_MAX, serve};
use crate::config::quota::EnvoyConfig;
use crate::quota::service::QuotaService;
use crate::quota::stub::Stub;
use crate::quota::tests::quota_of;

/// A server on a port of its own, and a connection to it.
pub(super) struct Rig {
    channel: Channel,
    stop: oneshot::Sender<()>,
    served: JoinHandle<Result<(), tonic::transport::Error>>,
}

impl Rig {
    pub(super) async fn start(service: Arc<dyn QuotaService>, config: EnvoyConfig) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel();
        let stopped = async move { drop(stopped.await) };
        let served = tokio::spawn(serve(listener, quota_of(service), config, stopped));
        let channel = Channel::from_shared(url).unwrap().connect().await.unwrap();
        Self { channel, stop, served }
    }

    pub(super) fn quota(&self) -> QuotaClient<Channel> {
        QuotaClient::new(self.channel.clone())
    }

    async fn limit(&self, request: RateLimitRequest) -> Result<RateLimitResponse, tonic::Status> {
        let answer = RateLimitServiceClient::new(self.channel.clone()).should_rate_limit(request).await;
        answer.map(tonic::Response::into_inner)
    }

    pub(super) async fn end(self) {
        drop(self.channel);
        self.stop.send(()).unwrap();
        self.served.await.unwrap().unwrap();
    }
}

fn who(tenant: &str) -> Option<wire::Who> {
    Some(wire::Who { tenant: tenant.into(), ..wire::Who::default() })
}

fn item(meter: &str, amount: Amount) -> wire::Item {
    wire::Item { meter: meter.into(), amount: Some(amount) }
}

fn check(meter: &str, amount: u64) -> wire::CheckRequest {
    wire::CheckRequest { who: who("acme"), items: vec![item(meter, Amount::BaseUnits(amount))] }
}

#[tokio::test]
async fn calls_mean_what_they_mean_over_http() {
    let rig = Rig::start(Stub::shared(), EnvoyConfig::default()).await;
    let mut quota = rig.quota();
    let allowed = quota.check(check("agent_minute", 60_000)).await.unwrap().into_inner();
    assert_eq!((allowed.decision(), allowed.limits[0].hard_limit), (wire::Decision::Allow, Some(6_600_000)));
    assert_eq!((allowed.limits[0].unit.as_str(), allowed.lag_ms), ("ms", 7));
    let denied = quota.check(check("agents", 2)).await.unwrap().into_inner();
    assert_eq!((denied.decision(), denied.violated), (wire::Decision::Deny, vec!["free/agents/tenant".to_owned()]));
    let reserve = |id: &str, ttl_ms, amount: &str| wire::ReserveRequest {
        id: id.into(),
        who: who("acme"),
        ttl_ms,
        items: vec![item("agents", Amount::Decimal(amount.into()))],
        mode: wire::Mode::Fast.into(),
    };
    let made = quota.reserve(reserve("", 1_000, "1")).await.unwrap().into_inner();
    assert_eq!(made.reservation_id.len(), 32);
    quota.reserve(reserve("r", 1_000, "0")).await.unwrap();
    let (tenant, id, op_id) = ("acme".to_owned(), "r".to_owned(), "1".to_owned());
    let extend = wire::ExtendRequest { tenant, id, op_id, ttl_ms: 1_000, ..wire::ExtendRequest::default() };
    quota.extend(extend.clone()).await.unwrap();
    let wire::ExtendRequest { tenant, id, op_id, .. } = extend;
    let release = wire::ReleaseRequest { tenant, id, op_id, mode: 0 };
    quota.release(release.clone()).await.unwrap();
    let commit = wire::CommitRequest { tenant: "acme".into(), id: "x".into(), op_id: "1".into(), ..Default::default() };
    for (status, error) in [
        (Status::FailedPrecondition, quota.release(release).await.unwrap_err()),
        (Status::AlreadyExists, quota.reserve(reserve("r", 2_000, "0")).await.unwrap_err()),
        (Status::NotFound, quota.commit(commit).await.unwrap_err()),
        (Status::InvalidArgument, quota.reserve(reserve("s", 0, "0")).await.unwrap_err()),
        (Status::InvalidArgument, quota.reserve(reserve("s", 1, "half")).await.unwrap_err()),
        (Status::InvalidArgument, quota.check(wire::CheckRequest::default()).await.unwrap_err()),
    ] {
        assert_eq!(error.code(), status, "{error}");
    }
    drop(quota);
    rig.end().await;
}

#[tokio::test]
async fn a_stream_answers_every_batch_in_order_and_names_what_is_wrong_in_it() {
    let rig = Rig::start(Stub::shared(), EnvoyConfig::default()).await;
    let mixed = vec![check("agents", 1), wire::CheckRequest::default(), check("agents", 2)];
    let batch = |tag, checks, with_answers| wire::CheckBatch { tag, checks, with_answers };
    let full = vec![check("api_call", 1); BATCH_CHECKS_MAX];
    let batches = tokio_stream::iter([
        batch(1, mixed.clone(), false),
        batch(2, mixed, true),
        batch(3, full.clone(), false),
        batch(4, [full, vec![check("api_call", 1)]].concat(), false),
    ]);
    let mut answers = rig.quota().check_stream(batches).await.unwrap().into_inner();
    let expected = [wire::Decision::Allow, wire::Decision::Undecided, wire::Decision::Deny].map(i32::from);
    for (tag, whole) in [(1, 0), (2, 3)] {
        let answer = answers.message().await.unwrap().unwrap();
        assert_eq!((answer.tag, answer.answers.len()), (tag, whole));
        assert_eq!(answer.decisions, expected);
        let error = &answer.errors[0];
        assert_eq!((error.index, error.code), (1, Status::InvalidArgument.into()));
    }
    assert_eq!(answers.message().await.unwrap().unwrap().decisions.len(), BATCH_CHECKS_MAX);
    assert_eq!(answers.message().await.unwrap_err().code(), Status::InvalidArgument);
}

fn descriptor(entries: &[(&str, &str)]) -> RateLimitDescriptor {
    let entry = |(key, value): &(&str, &str)| Entry { key: (*key).into(), value: (*value).into() };
    RateLimitDescriptor { entries: entries.iter().map(entry).collect(), hits_addend: None }
}

fn request(hits_addend: u32, descriptors: Vec<RateLimitDescriptor>) -> RateLimitRequest {
    RateLimitRequest { domain: "edge".into(), descriptors, hits_addend }
}

fn codes(answer: &RateLimitResponse) -> (Code, Vec<Code>) {
    (answer.overall_code(), answer.statuses.iter().map(|status| status.code()).collect())
}

#[tokio::test]
async fn envoy_checks_without_hits_and_holds_with_them() {
    let rig = Rig::start(Stub::shared(), EnvoyConfig::default()).await;
    let minutes = || descriptor(&[("tenant", "acme"), ("meter", "agent_minute"), ("route", "x")]);
    let calls = || descriptor(&[("tenant", "acme"), ("subject", "user")]);
    let checked = rig.limit(request(0, vec![minutes(), calls()])).await.unwrap();
    assert_eq!(codes(&checked), (Code::Ok, vec![Code::Ok, Code::Ok]));
    assert_eq!((checked.statuses[0].limit_remaining, checked.statuses[1].limit_remaining), (6_000_000, u32::MAX));
    assert_eq!(checked.statuses[0].duration_until_reset.unwrap().seconds, 820_800);
    assert!(checked.request_headers_to_add.is_empty(), "a check holds nothing");
    // 6.6 M may be held in all: two of three million fit, a third does not.
    for hit in 1..=2_u32 {
        let held = rig.limit(request(3_000_000, vec![minutes()])).await.unwrap();
        assert_eq!(codes(&held), (Code::Ok, vec![Code::Ok]));
        assert_eq!(held.request_headers_to_add[0].key, "x-odometer-reservation");
        let left = rig.limit(request(0, vec![minutes()])).await.unwrap();
        assert_eq!(left.statuses[0].limit_remaining, 6_000_000 - hit * 3_000_000);
    }
    let over = rig.limit(request(3_000_000, vec![minutes(), calls()])).await.unwrap();
    assert_eq!(codes(&over), (Code::OverLimit, vec![Code::OverLimit, Code::Ok]));
    assert!(over.request_headers_to_add.is_empty(), "a denial changes nothing");
    assert!(String::from_utf8_lossy(&over.raw_body).contains("Plan limit reached. Upgrade to continue."));
    let names: Vec<_> = over.response_headers_to_add.iter().map(|header| header.key.as_str()).collect();
    assert_eq!(names, ["ratelimit-policy", "ratelimit", "content-type", "retry-after"]);
    rig.end().await;
}

#[tokio::test]
async fn what_was_held_is_given_back_when_a_later_descriptor_is_denied() {
    let rig = Rig::start(Stub::shared(), EnvoyConfig::default()).await;
    // Each fits alone; together they do not, which only holding finds out.
    let half = || RateLimitDescriptor {
        hits_addend: Some(4_000_000),
        ..descriptor(&[("tenant", "acme"), ("meter", "agent_minute")])
    };
    let over = rig.limit(request(0, vec![half(), half()])).await.unwrap();
    assert_eq!(codes(&over), (Code::OverLimit, vec![Code::Ok, Code::OverLimit]));
    let one = rig.limit(request(0, vec![half()])).await.unwrap();
    assert_eq!(codes(&one), (Code::Ok, vec![Code::Ok]));
}

#[tokio::test]
async fn amounts_saturate_and_hits_may_be_the_default() {
    let stub = Stub::shared();
    let limits = vec![odometer_schemas::quota::Limit::usage("api_call", Some(1 << 40))];
    stub.put_plan(Plan { is_default: false, name: Plan::DEFAULT.into(), limits }).await.unwrap();
    let config = EnvoyConfig { default_hits: 1, domain: "edge".into(), ..EnvoyConfig::default() };
    let rig = Rig::start(stub, config).await;
    let acme = || descriptor(&[("tenant", "acme")]);
    let held = rig.limit(request(0, vec![acme()])).await.unwrap();
    assert_eq!((held.statuses[0].limit_remaining, held.request_headers_to_add.len()), (u32::MAX, 1));
    assert_eq!(held.statuses[0].current_limit.as_ref().unwrap().requests_per_unit, u32::MAX);
    let explicit = RateLimitDescriptor { hits_addend: Some(0), ..acme() };
    let checked = rig.limit(request(0, vec![explicit])).await.unwrap();
    assert!(checked.request_headers_to_add.is_empty(), "an explicit zero checks only");
    for wrong in [
        RateLimitRequest { domain: "other".into(), ..request(0, vec![acme()]) },
        request(0, vec![]),
        request(0, vec![descriptor(&[("user", "x")])]),
        request(0, vec![acme(); 33]),
    ] {
        assert_eq!(rig.limit(wrong).await.unwrap_err().code(), Status::InvalidArgument);
    }
}

#[tokio::test]
async fn our_own_trouble_is_unavailable_and_never_an_unknown_code() {
    let trouble = QuotaError::Unavailable { why: "the owner is changing".into() };
    let rig = Rig::start(Arc::new(Stub::troubled(trouble)), EnvoyConfig::default()).await;
    let error = rig.limit(request(0, vec![descriptor(&[("tenant", "acme")])])).await.unwrap_err();
    assert_eq!((error.code(), error.message()), (Status::Unavailable, "the owner is changing"));
    let error = rig.quota().check(check("agents", 1)).await.unwrap_err();
    assert_eq!(error.code(), Status::Unavailable);
}
