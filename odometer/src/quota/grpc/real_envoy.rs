//! A real Envoy in front of an HTTP service asks us before every request, with the
//! example's configuration. Needs `ODOMETER_TEST_ENVOY`, see `dev/services fetch`;
//! without it there is nothing to test.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::HeaderMap;
use axum::routing::get;
use odometer_schemas::quota::{Limit, Plan, QuotaError};
use reqwest::{Client, Response};
use tempfile::TempDir;
use tokio::net::TcpListener;

use super::serve;
use crate::config::quota::EnvoyConfig;
use crate::quota::service::QuotaService;
use crate::quota::stub::Stub;
use crate::quota::tests::quota_of;

/// Looks until it answers. Far above what a start takes on a busy machine.
const LOOKS_MAX: u32 = 600;
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Envoy, ended with the test.
struct Envoy {
    child: Child,
    url: String,
    client: Client,
    _directory: TempDir,
}

impl Drop for Envoy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Envoy {
    async fn start(program: &str, service: SocketAddr, quota: SocketAddr) -> Self {
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/envoy/envoy.yaml");
        let edge = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut config = std::fs::read_to_string(example).unwrap();
        for (port, ours) in [("10000", edge), ("8000", service), ("7071", quota)] {
            let named = format!("port_value: {port}}}");
            assert!(config.contains(&named), "{port}");
            config = config.replace(&named, &format!("port_value: {}}}", ours.port()));
        }
        let directory = TempDir::new().unwrap();
        let file = directory.path().join("envoy.yaml");
        std::fs::write(&file, config).unwrap();
        let log = std::fs::File::create(directory.path().join("log")).unwrap();
        let flags = ["--use-dynamic-base-id", "--concurrency", "1", "--log-level", "warning", "-c"];
        let child = Command::new(program).args(flags).arg(&file).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let client = Client::builder().no_proxy().build().unwrap();
        let mut envoy = Self { child, url: format!("http://{edge}/"), client, _directory: directory };
        for _ in 0..LOOKS_MAX {
            if envoy.client.get(&envoy.url).send().await.is_ok() {
                return envoy;
            }
            if envoy.child.try_wait().unwrap().is_some() {
                break;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        panic!("envoy does not answer: {}", std::fs::read_to_string(envoy._directory.path().join("log")).unwrap());
    }

    async fn ask(&self, tenant: &str) -> Response {
        self.client.get(&self.url).header("x-tenant", tenant).header("x-user", "u").send().await.unwrap()
    }
}

/// A service that answers with the reservation that its request came with.
async fn upstream() -> SocketAddr {
    let name = |headers: HeaderMap| async move {
        headers.get("x-odometer-reservation").map(|id| id.to_str().unwrap().to_owned()).unwrap_or_default()
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(axum::serve(listener, Router::new().route("/", get(name))).into_future());
    address
}

async fn ours(service: Arc<dyn QuotaService>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let config = EnvoyConfig { domain: "edge".into(), default_hits: 1, ..EnvoyConfig::default() };
    tokio::spawn(serve(listener, quota_of(service), config, std::future::pending()));
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tenants_over_their_limit_get_429_through_envoy() {
    let Ok(program) = std::env::var("ODOMETER_TEST_ENVOY") else {
        eprintln!("ODOMETER_TEST_ENVOY is not set: run `eval \"$(dev/services fetch)\"`; nothing was tested");
        return;
    };
    let stub = Stub::shared();
    let limits = vec![Limit { grace_percent: Some(0), ..Limit::usage("api_call", Some(3)) }];
    stub.put_plan(Plan { is_default: false, name: Plan::DEFAULT.into(), limits }).await.unwrap();
    let envoy = Envoy::start(&program, upstream().await, ours(stub).await).await;
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
    let Ok(program) = std::env::var("ODOMETER_TEST_ENVOY") else { return };
    let trouble = QuotaError::Unavailable { why: "the owner is changing".into() };
    let envoy = Envoy::start(&program, upstream().await, ours(Arc::new(Stub::troubled(trouble))).await).await;
    assert_eq!(envoy.ask("acme").await.status(), 503);
}
