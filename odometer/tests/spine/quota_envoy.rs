//! Envoy asks a node before every request to a service: whoever is over its limit does
//! not get through, and usage that is counted afterwards moves the limit.

use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::common::Process;
use crate::envoy::{Envoy, free_address};

/// Far longer than usage takes to show.
const PATIENCE: Duration = Duration::from_secs(30);
const CALLS: u64 = 4;

struct Site {
    process: Process,
    envoy: Envoy,
}

impl Site {
    async fn send(&self, path: &str, body: &Value) {
        let url = format!("{}{path}", self.process.url);
        let request = if path == "/v1/events" { self.envoy.client.post(url) } else { self.envoy.client.put(url) };
        let status = request.json(body).send().await.unwrap().status();
        assert!(status.is_success(), "{path}: {status}");
    }

    /// Used and reserved.
    async fn stands(&self, tenant: &str) -> (u64, u64) {
        let body = json!({"tenant": tenant, "items": [{"meter": "api_call", "amount": 0}]});
        let url = format!("{}/v1/quota/check", self.process.url);
        let answer: Value = self.envoy.client.post(url).json(&body).send().await.unwrap().json().await.unwrap();
        let number = |name: &str| answer["limits"][0][name].as_str().unwrap().parse().unwrap();
        (number("used"), number("reserved"))
    }

    async fn await_standing(&self, tenant: &str, wanted: (u64, u64)) {
        let deadline = Instant::now() + PATIENCE;
        while self.stands(tenant).await != wanted && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(self.stands(tenant).await, wanted, "{tenant}");
    }

    /// Waits until the log has what was decided about a tenant: a strict answer comes
    /// behind it.
    async fn await_log(&self, tenant: &str) {
        let items = json!([{"meter": "agents", "amount": 1}]);
        let body = json!({"id": "last", "tenant": tenant, "ttl_ms": 1_000, "mode": "strict", "items": items});
        let url = format!("{}/v1/quota/reservations", self.process.url);
        let status = self.envoy.client.post(url).json(&body).send().await.unwrap().status();
        assert_eq!(status, StatusCode::OK);
    }

    /// Waits until a tenant's limit is this.
    async fn await_limit(&self, tenant: &str, limit: u64) {
        let limits = json!([{"meter": "api_call", "limit": limit.to_string(), "grace_percent": 0}]);
        self.send(&format!("/v1/tenants/{tenant}"), &json!({"overrides": limits})).await;
        let body = json!({"tenant": tenant, "items": [{"meter": "api_call", "amount": 0}]});
        let url = format!("{}/v1/quota/check", self.process.url);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.envoy.client.post(&url).json(&body).send().await.unwrap();
            let answer: Value = answer.json().await.unwrap();
            if answer["limits"][0]["limit"] == json!(limit.to_string()) {
                return;
            }
            assert!(Instant::now() < deadline, "{answer}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tenants_over_their_limit_get_429_through_envoy_until_it_moves() {
    let (directory, quota) = (tempfile::tempdir().unwrap(), free_address());
    let Some(envoy) = Envoy::before_a_service(quota).await else { return };
    let config = directory.path().join("odometer.toml");
    let envoy_of_ours = "[envoy]\ndomain = 'edge'\ndefault_hits = 1\nhold = '10m'\n";
    std::fs::write(&config, format!("[quota]\ngrpc_listen = '{quota}'\n{envoy_of_ours}")).unwrap();
    let data_dir = directory.path().join("data");
    let args = ["dev", "--config", config.to_str().unwrap(), "--data-dir", data_dir.to_str().unwrap()];
    let site = Site { process: Process::spawn(&args), envoy };
    site.await_limit("acme", CALLS).await;
    let mut ids = Vec::new();
    for call in 0..CALLS {
        let answer = site.envoy.ask("acme").await;
        assert_eq!(answer.status(), StatusCode::OK, "call {call}");
        ids.push(answer.text().await.unwrap());
    }
    site.await_log("acme").await;
    // Half of the calls are recorded, which draws their holds down.
    for id in ids.iter().step_by(2) {
        let record = json!({"tenant": "acme", "source": "service", "id": id, "meter": "api_call", "quantity": 1,
            "reservation": id});
        site.send("/v1/events", &record).await;
    }
    site.await_standing("acme", (CALLS / 2, CALLS / 2)).await;
    let denied = site.envoy.ask("acme").await;
    assert_eq!(denied.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(denied.headers().contains_key("retry-after"));
    let body: Value = serde_json::from_str(&denied.text().await.unwrap()).unwrap();
    assert_eq!(body["detail"], "Plan limit reached. Upgrade to continue.");
    assert_eq!(site.envoy.ask("other").await.status(), StatusCode::OK, "another tenant is not stopped");

    site.await_limit("acme", CALLS + 2).await;
    assert_eq!(site.envoy.ask("acme").await.status(), StatusCode::OK, "a larger limit");
    // Usage that nobody asked for takes what is left.
    let record = json!({"tenant": "acme", "source": "batch", "id": "1", "meter": "api_call", "quantity": 1});
    site.send("/v1/events", &record).await;
    site.await_standing("acme", (CALLS / 2 + 1, CALLS / 2 + 1)).await;
    assert_eq!(site.envoy.ask("acme").await.status(), StatusCode::TOO_MANY_REQUESTS);
    site.process.stop();
}
