//! Batches answer what single checks answer, whoever decides; and what is no message is
//! refused like anywhere else.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use odometer_schemas::quota::{Limit, Plan, QuotaError, Scope, TenantTerms};
use prost::Message;
use tempfile::TempDir;
use tonic::{Code, Status};

use super::batch;
use super::proto::quota::quota_client::QuotaClient;
use super::proto::quota::{self as wire, item::Amount};
use super::tests::Rig;
use crate::api::books::Books;
use crate::config::Config;
use crate::config::quota::EnvoyConfig;
use crate::desk::Desk;
use crate::node::Node;
use crate::quota::service::QuotaService;
use crate::quota::stub::Stub;
use crate::quota::tests::quota_of;

/// Far longer than a node needs to answer for its partitions.
const PATIENCE: Duration = Duration::from_secs(30);
const MINUTE: u64 = 60_000;

fn base(meter: &str, amount: u64) -> wire::Item {
    wire::Item { meter: meter.into(), amount: Some(Amount::BaseUnits(amount)) }
}

fn decimal(meter: &str, amount: &str) -> wire::Item {
    wire::Item { meter: meter.into(), amount: Some(Amount::Decimal(amount.into())) }
}

fn check((tenant, subject, key): (&str, &str, &str), items: &[wire::Item]) -> wire::CheckRequest {
    let who = wire::Who { tenant: tenant.into(), subject: subject.into(), key: key.into() };
    wire::CheckRequest { who: Some(who), items: items.to_vec() }
}

/// Everything that a check may be.
fn checks() -> Vec<wire::CheckRequest> {
    let mut checks = Vec::new();
    for tenant in ["acme", "layered", "other", "", &"x".repeat(129)] {
        for within in [("", ""), ("user", ""), ("user", "key"), ("u".repeat(257).as_str(), "")] {
            let who = (tenant, within.0, within.1);
            // Of a hundred minutes and ten as grace.
            let amounts = [0, 1, 100 * MINUTE, 105 * MINUTE, 110 * MINUTE, 110 * MINUTE + 1, u64::MAX];
            checks.extend(amounts.map(|amount| check(who, &[base("agent_minute", amount)])));
            let amounts = ["99.5", "105", "111", "half", "-1", "99999999999999999999"];
            checks.extend(amounts.map(|amount| check(who, &[decimal("agent_minute", amount)])));
            checks.extend(["agents", "api_call", "nonsense", ""].map(|meter| check(who, &[base(meter, 2)])));
            let (minutes, agents) = (base("agent_minute", MINUTE), base("agents", 1));
            checks.extend([
                check(who, &[minutes.clone(), agents]),
                check(who, &[minutes.clone(), minutes]),
                check(who, &[wire::Item { meter: "agents".into(), amount: None }]),
                check(who, &[]),
            ]);
        }
    }
    checks.push(wire::CheckRequest::default());
    checks
}

/// An answer but for the moment of it.
fn timeless(answer: wire::Answer) -> wire::Answer {
    wire::Answer { as_of_ms: 0, lag_ms: 0, ..answer }
}

async fn batch_of(
    quota: &mut QuotaClient<tonic::transport::Channel>,
    batch: wire::CheckBatch,
) -> wire::CheckBatchAnswer {
    let mut answers = quota.check_stream(tokio_stream::iter([batch])).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().unwrap();
    assert!(answers.message().await.unwrap().is_none());
    answer
}

/// Asks everything singly and by the batch; how many of each outcome there were.
async fn compare(rig: &Rig) -> [usize; 4] {
    let mut quota = rig.quota();
    let checks = checks();
    let mut single = Vec::new();
    for check in checks.clone() {
        single.push(quota.check(check).await.map(|answer| timeless(answer.into_inner())));
    }
    let mut outcomes = [0; 4];
    for (tag, with_answers) in [(1, false), (2, true), (3, false)] {
        let answer = batch_of(&mut quota, wire::CheckBatch { tag, checks: checks.clone(), with_answers }).await;
        assert_eq!((answer.tag, answer.decisions.len()), (tag, checks.len()));
        assert_eq!(answer.answers.len(), if with_answers { checks.len() } else { 0 });
        let mut errors = answer.errors.iter();
        let mut whole = answer.answers.into_iter();
        for (index, (expected, decision)) in single.iter().zip(&answer.decisions).enumerate() {
            let (expected_decision, expected) = match expected {
                Ok(answer) => (answer.decision, answer.clone()),
                Err(status) => {
                    let error = errors.next().unwrap();
                    let code = Code::from(error.code);
                    let expected = (index, status.code(), status.message());
                    assert_eq!((error.index as usize, code, error.message.as_str()), expected, "{:?}", checks[index]);
                    (0, wire::Answer::default())
                }
            };
            assert_eq!(*decision, expected_decision, "{:?}", checks[index]);
            outcomes[usize::try_from(*decision).unwrap()] += 1;
            if with_answers {
                assert_eq!(timeless(whole.next().unwrap()), expected, "{:?}", checks[index]);
            }
        }
        assert_eq!(errors.next(), None);
    }
    outcomes
}

#[tokio::test]
async fn batches_answer_like_single_checks_whoever_decides() {
    let trouble = QuotaError::Unavailable { why: "the owner is changing".into() };
    for (stub, decides) in [(Stub::new(), true), (Stub::slow(), true), (Stub::troubled(trouble), false)] {
        let rig = Rig::start(Arc::new(stub), EnvoyConfig::default()).await;
        let outcomes = compare(&rig).await;
        assert!(outcomes.iter().all(|count| *count > 0) == decides, "{outcomes:?}");
        rig.end().await;
    }
}

/// A plan whose limits hold for each user and key too.
fn layered() -> Plan {
    let minutes = |scope, limit| Limit { scope, ..Limit::usage("agent_minute", Some(limit)) };
    let limits = [(Scope::Tenant, 6_000_000), (Scope::Subject, 60_000), (Scope::Key, 1)];
    Plan {
        name: "layered".into(),
        limits: limits.map(|(scope, limit)| minutes(scope, limit)).into(),
        is_default: false,
    }
}

async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(Instant::now() < deadline, "{what} takes too long");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_answer_like_single_checks_on_a_node() {
    let directory = TempDir::new().unwrap();
    let config = Config::in_directory(directory.path().to_owned());
    let node = tokio::task::block_in_place(|| Node::start(&config)).unwrap();
    let books = Arc::new(Books::new(node.footing.books()));
    let desk = Arc::new(Desk::open(&node, books, (&config.definitions(), config.plans.clone())).unwrap());
    until("taking the partitions", async || node.progress.is_authoritative()).await;
    desk.put_plan(layered()).await.unwrap();
    let terms = TenantTerms { plan: Some("layered".into()), ..TenantTerms::default() };
    desk.put_tenant("layered".into(), terms, None).await.unwrap();
    let rig = Rig::start(Arc::clone(&desk) as Arc<dyn QuotaService>, EnvoyConfig::default()).await;
    let of_user = check(("layered", "user", ""), &[base("agent_minute", 2 * MINUTE)]);
    until("the plan", async || {
        rig.quota().check(of_user.clone()).await.is_ok_and(|answer| answer.into_inner().violated.len() == 1)
    })
    .await;
    let outcomes = compare(&rig).await;
    assert!(outcomes.iter().all(|count| *count > 0), "{outcomes:?}");
    rig.end().await;
    Arc::into_inner(desk).unwrap().close().await;
    let drained = tokio::task::block_in_place(|| node.drain()).unwrap();
    assert!(drained.failure.is_none());
}

#[tokio::test]
async fn what_is_no_message_is_refused_as_the_generated_code_does() {
    let quota = quota_of(Stub::shared());
    let good =
        wire::CheckBatch { tag: 1, checks: vec![check(("acme", "", ""), &[base("agents", 1)])], ..Default::default() };
    let good = good.encode_to_vec();
    let mut refused = 0;
    for length in 0..good.len() {
        for byte in [0, 0x0a, 0x12, 0x7f, 0x80, 0xff] {
            let mut bytes = good[..length].to_vec();
            bytes.push(byte);
            let expected = wire::CheckBatch::decode(bytes.as_slice());
            let answer = batch::answer(&quota, Bytes::from(bytes)).await;
            match expected {
                Ok(_) => drop(answer.unwrap()),
                Err(error) => {
                    let status = answer.unwrap_err();
                    assert_eq!(
                        (status.code(), status.message()),
                        (Code::Internal, Status::internal(error.to_string()).message())
                    );
                    refused += 1;
                }
            }
        }
    }
    assert!(refused > good.len());
}
