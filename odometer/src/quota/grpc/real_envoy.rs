//! A real Envoy in front of an HTTP service asks us before every request, with the
//! example's configuration. Needs `ODOMETER_TEST_ENVOY`, see `dev/services fetch`;
//! without it there is nothing to test.

use std::net::SocketAddr;
use std::sync::Arc;

use odometer_schemas::quota::{Limit, Plan, QuotaError};
use tokio::net::TcpListener;

use self::envoy::Envoy;
use super::serve;
use crate::config::quota::EnvoyConfig;
use crate::quota::service::QuotaService;
use crate::quota::stub::Stub;
use crate::quota::tests::quota_of;

#[path = "../../../tests/common/envoy.rs"]
mod envoy;

async fn ours(service: Arc<dyn QuotaService>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let config = EnvoyConfig { domain: "edge".into(), default_hits: 1, ..EnvoyConfig::default() };
    tokio::spawn(serve(listener, quota_of(service), config, std::future::pending()));
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tenants_over_their_limit_get_429_through_envoy() {
    let stub = Stub::shared();
    let limits = vec![Limit { grace_percent: Some(0), ..Limit::usage("api_call", Some(3)) }];
    stub.put_plan(Plan { is_default: false, name: Plan::DEFAULT.into(), limits }).await.unwrap();
    let Some(envoy) = Envoy::before_a_service(ours(stub).await).await else { return };
    assert_eq!(envoy.client.get(&envoy.url).send().await.unwrap().status(), 401, "without a tenant");
    for left in [2, 1, 0] {
        let allowed = envoy.ask("acme").await;
        let standing = allowed.headers()["ratelimit"].to_str().unwrap().to_owned();
        let id = allowed.text().await.unwrap();
        assert_eq!(id.len(), 32, "the upstream learns the reservation: {id}");
        // The stub tells how it stood before the hit.
        assert_eq!(standing, format!("\"free/api_call/tenant\";r={};t=820800", left + 1));
    }
    let denied = envoy.ask("acme").await;
    assert_eq!(denied.status(), 429);
    assert_eq!(denied.headers()["retry-after"], "820800");
    assert_eq!(denied.headers()["ratelimit"], "\"free/api_call/tenant\";r=0;t=820800");
    let body: serde_json::Value = serde_json::from_str(&denied.text().await.unwrap()).unwrap();
    assert_eq!(body["detail"], "Plan limit reached. Upgrade to continue.");
    assert_eq!(envoy.ask("other").await.status(), 200, "another tenant is not stopped");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn envoy_stops_everybody_while_we_cannot_answer() {
    let trouble = QuotaError::Unavailable { why: "the owner is changing".into() };
    let ours = ours(Arc::new(Stub::troubled(trouble))).await;
    let Some(envoy) = Envoy::before_a_service(ours).await else { return };
    assert_eq!(envoy.ask("acme").await.status(), 503);
}
