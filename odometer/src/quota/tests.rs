//! What the routes answer, asked of a service that keeps everything in memory.

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request};
use odometer_schemas::quota::QuotaError;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::http::router;
use super::service::QuotaService;
use super::stub::Stub;
use super::{Quota, body::BODY_BYTES_MAX};
use crate::config::Config;

pub(super) fn quota_of(service: Arc<dyn QuotaService>) -> Quota {
    Quota::new(&Config::default(), service)
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

struct Rig(Quota);

impl Rig {
    fn new() -> Self {
        Self(quota_of(Stub::shared()))
    }

    async fn ask(&self, method: &str, path: &str, body: impl Into<Body>) -> Answer {
        let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
        let response = router(self.0.clone()).oneshot(request.body(body.into()).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = to_bytes(body, usize::MAX).await.unwrap();
        Answer { status: parts.status.as_u16(), headers: parts.headers, text: String::from_utf8(bytes.into()).unwrap() }
    }

    async fn post(&self, path: &str, body: Value) -> Answer {
        self.ask("POST", path, body.to_string()).await
    }

    async fn check(&self, meter: &str, amount: Value) -> Answer {
        self.post("/v1/quota/check", json!({"tenant": "acme", "items": [{"meter": meter, "amount": amount}]})).await
    }
}

fn reservation(id: &str, amount: u64) -> Value {
    let items = json!([{"meter": "agent_minute", "amount": amount}, {"meter": "agents", "amount": 1}]);
    json!({"id": id, "tenant": "acme", "ttl_ms": 30_000, "items": items, "mode": "fast"})
}

#[tokio::test]
async fn a_check_tells_how_every_limit_stands() {
    let answer = Rig::new().check("agent_minute", json!(60_000)).await;
    let expected = json!({
        "decision": "allow",
        "limits": [{
            "policy": "free/agent_minute/tenant",
            "scope": "tenant",
            "meter": "agent_minute",
            "unit": "ms",
            "limit": "6000000",
            "hard_limit": "6600000",
            "used": "0",
            "reserved": "0",
            "remaining": "6000000",
            "resets_at": "2026-12-01T00:00:00Z",
        }],
        "violated": [],
        "as_of": "2026-11-21T11:59:59.993Z",
        "lag_ms": 7,
        "degraded": false,
    });
    assert_eq!((answer.status, answer.json()), (200, expected));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("ratelimit-policy"), Some("\"free/agent_minute/tenant\";q=6000000;w=2592000"));
    assert_eq!(answer.header("ratelimit"), Some("\"free/agent_minute/tenant\";r=6000000;t=820800"));
    assert_eq!(answer.header("retry-after"), None);
}

#[tokio::test]
async fn over_the_limit_is_grace_and_over_the_hard_limit_429() {
    let rig = Rig::new();
    let grace = rig.check("agent_minute", json!("6600000")).await;
    assert_eq!((grace.status, &grace.json()["decision"]), (200, &json!("grace")));
    for amount in [json!(6_600_001), json!("99999999999999999999"), json!(1e30)] {
        let denied = rig.check("agent_minute", amount).await;
        assert_eq!((denied.status, denied.header("content-type")), (429, Some("application/problem+json")));
        let problem = denied.json();
        assert!(problem["type"].as_str().unwrap().ends_with("#quota-exceeded"), "{problem}");
        assert_eq!(problem["detail"], "Plan limit reached. Upgrade to continue.");
        assert_eq!((&problem["status"], &problem["decision"]), (&json!(429), &json!("deny")));
        assert_eq!(problem["violated-policies"], json!(["free/agent_minute/tenant"]));
        assert_eq!(problem["limits"][0]["hard_limit"], "6600000");
        assert_eq!(denied.header("retry-after"), Some("820800"));
        assert!(denied.header("ratelimit").is_some());
    }
    let slot = rig.check("agents", json!(2)).await;
    assert_eq!((slot.status, slot.header("retry-after")), (429, Some("1")));
    assert_eq!(slot.header("ratelimit-policy"), Some("\"free/agents/tenant\";q=1"));
}

#[tokio::test]
async fn a_reservation_lives_from_its_making_to_its_end() {
    let rig = Rig::new();
    let made = rig.post("/v1/quota/reservations", reservation("run 1", 60_000)).await;
    assert_eq!((made.status, &made.json()["reservation_id"]), (200, &json!("run 1")));
    assert_eq!(made.json()["expires_at"], "2026-11-21T12:00:30Z");
    let again = rig.post("/v1/quota/reservations", reservation("run 1", 60_000)).await;
    assert_eq!((again.status, again.text), (200, made.text));
    let other = rig.post("/v1/quota/reservations", reservation("run 1", 60_001)).await;
    assert_eq!((other.status, &other.json()["type"]), (409, &json!("/problems/id-reused")));
    let denied = rig.post("/v1/quota/reservations", reservation("run 2", 1)).await;
    assert_eq!((denied.status, &denied.json()["violated"]), (429, &json!(["free/agents/tenant"])));
    let path = |what: &str| format!("/v1/quota/reservations/run%201/{what}");
    let extend = json!({"tenant": "acme", "op_id": "1", "ttl_ms": 30_000, "add": [{"meter": "agents", "amount": 0}]});
    assert_eq!(rig.post(&path("extend"), extend).await.status, 200);
    let commit = json!({"tenant": "acme", "op_id": "2", "final": true});
    assert_eq!(rig.post(&path("commit"), commit.clone()).await.status, 200);
    let ended = rig.post(&path("release"), json!({"tenant": "acme", "op_id": "3"})).await;
    assert_eq!((ended.status, &ended.json()["type"]), (409, &json!("/problems/reservation-ended")));
    let unknown = rig.post("/v1/quota/reservations/nope/commit", commit).await;
    assert_eq!((unknown.status, &unknown.json()["field"]), (404, &json!("id")));
}

#[tokio::test]
async fn an_id_is_made_where_none_is_given_and_slow_services_answer_too() {
    let rig = Rig(quota_of(Arc::new(Stub::slow())));
    let mut body = reservation("", 1);
    body.as_object_mut().unwrap().remove("id");
    let made = rig.post("/v1/quota/reservations", body).await;
    assert_eq!(made.status, 200, "{}", made.text);
    assert_eq!(made.json()["reservation_id"].as_str().unwrap().len(), 32);
}

#[tokio::test]
async fn what_cannot_be_understood_is_named() {
    let rig = Rig::new();
    let item = json!([{"meter": "api_call", "amount": 1}]);
    let many: Vec<_> = (0..17).map(|n| json!({"meter": format!("m{n}"), "amount": 1})).collect();
    for (body, field) in [
        (json!({"tenant": "a", "items": item, "subjct": "x"}), "subjct"),
        (json!({"items": item}), "tenant"),
        (json!({"tenant": "", "items": item}), "tenant"),
        (json!({"tenant": "x".repeat(129), "items": item}), "tenant"),
        (json!({"tenant": "a\u{0}b", "items": item}), "tenant"),
        (json!({"tenant": "a", "subject": "", "items": item}), "subject"),
        (json!({"tenant": "a", "subject": "s\u{85}", "items": item}), "subject"),
        (json!({"tenant": "a", "items": []}), "items"),
        (json!({"tenant": "a", "items": many}), "items"),
        (json!({"tenant": "a", "items": [{"meter": "m", "amount": 1}, {"meter": "m", "amount": 1}]}), "items"),
        (json!({"tenant": "a", "items": [{"meter": "m", "amount": true}]}), "amount"),
        (json!({"tenant": "a", "items": [{"meter": "m", "amount": -1}]}), "amount"),
        (json!({"tenant": "a", "items": [{"meter": "api_call", "amount": 0.5}]}), "amount"),
        (json!({"tenant": "a", "items": [{"meter": "m", "amont": 1}]}), "items[0].amont"),
        (json!({"tenant": 1, "items": item}), "tenant"),
        (json!([]), "body"),
    ] {
        let answer = rig.post("/v1/quota/check", body.clone()).await;
        let problem = answer.json();
        assert_eq!((answer.status, &problem["field"]), (422, &json!(field)), "{body}: {problem}");
        assert!(problem["fix"].as_str().is_some_and(|fix| !fix.is_empty()));
    }
    for (ttl_ms, status) in [(0, 422), (1, 200), (86_400_000, 200), (86_400_001, 422)] {
        let mut body = reservation(&ttl_ms.to_string(), 0);
        body["ttl_ms"] = json!(ttl_ms);
        body["items"] = json!([{"meter": "api_call", "amount": 0}]);
        assert_eq!(rig.post("/v1/quota/reservations", body).await.status, status, "{ttl_ms}");
    }
    assert_eq!(rig.ask("POST", "/v1/quota/check", "{").await.status, 422);
    assert_eq!(rig.ask("POST", "/v1/quota/check", " ".repeat(BODY_BYTES_MAX + 1)).await.status, 413);
    let request = Request::post("/v1/quota/check").header("content-type", "text/plain").body(Body::empty()).unwrap();
    assert_eq!(router(rig.0.clone()).oneshot(request).await.unwrap().status().as_u16(), 415);
}

#[tokio::test]
async fn our_own_trouble_is_503() {
    let trouble = QuotaError::Unavailable { why: "the tenant's owner is changing".into() };
    let rig = Rig(quota_of(Arc::new(Stub::troubled(trouble))));
    let answer = rig.check("api_call", json!(1)).await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    assert_eq!(answer.json()["detail"], "the tenant's owner is changing");
}

#[tokio::test]
async fn plans_are_put_and_read_and_put_again() {
    let rig = Rig::new();
    let limits = json!([
        {"meter": "agents", "kind": "concurrency", "limit": 7},
        {"meter": "agent_minute", "scope": "subject", "limit": "200min", "grace_percent": 0},
        {"meter": "api_call", "limit": null, "when_degraded": "closed"},
    ]);
    let put = rig.ask("PUT", "/v1/plans/team", json!({"limits": limits}).to_string()).await;
    assert_eq!(put.status, 200, "{}", put.text);
    let read = rig.ask("GET", "/v1/plans/team", Body::empty()).await;
    assert_eq!((read.status, &read.text), (200, &put.text));
    assert_eq!(read.json()["limits"][1]["limit"], 12_000_000);
    assert_eq!(rig.ask("PUT", "/v1/plans/team", read.text.clone()).await.text, read.text);
    let all = rig.ask("GET", "/v1/plans", Body::empty()).await.json();
    let names: Vec<_> = all.as_array().unwrap().iter().map(|plan| plan["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["enterprise", "free", "pro", "starter", "team"]);
    assert_eq!(rig.ask("GET", "/v1/plans/nope", Body::empty()).await.status, 404);
    for (path, body, field) in [
        ("/v1/plans/team", json!({"limits": [{"meter": "nope", "limit": 1}]}), "limits[0]"),
        ("/v1/plans/team", json!({"limits": [{"meter": "api_call", "limit": -1}]}), "limits"),
        ("/v1/plans/a%20b", json!({"limits": []}), "limits"),
        ("/v1/plans/team", json!({"name": "other", "limits": []}), "name"),
        ("/v1/plans/team", json!({}), "limits"),
    ] {
        let answer = rig.ask("PUT", path, body.to_string()).await;
        assert_eq!((answer.status, &answer.json()["field"]), (422, &json!(field)), "{body}");
    }
}

#[tokio::test]
async fn tenants_have_a_plan_an_anchor_and_overrides() {
    let rig = Rig(quota_of(Stub::shared()));
    let unknown = rig.ask("GET", "/v1/tenants/acme", Body::empty()).await;
    assert_eq!(
        unknown.json(),
        json!({"tenant": "acme", "plan": "free", "assigned": false, "anchor": null, "overrides": []})
    );
    let terms =
        json!({"plan": "pro", "anchor": "2026-11-05T00:00:00Z", "overrides": [{"meter": "api_call", "limit": 5}]});
    let put = rig.ask("PUT", "/v1/tenants/acme", terms.to_string()).await;
    assert_eq!(put.status, 200, "{}", put.text);
    let read = rig.ask("GET", "/v1/tenants/acme", Body::empty()).await.json();
    assert_eq!((&read["plan"], &read["overrides"][0]["limit"]), (&json!("pro"), &json!(5)));
    let (first, second) = (json!("2026-11-05T00:00:00Z"), json!("2026-11-06T00:00:00Z"));
    for (body, put, holds) in [
        (json!({"plan": "starter"}), None, &first),
        (json!({"anchor": null}), Some(&Value::Null), &Value::Null),
        (json!({"anchor": second}), Some(&second), &second),
    ] {
        let answer = rig.ask("PUT", "/v1/tenants/acme", body.to_string()).await.json();
        assert_eq!(answer.get("anchor"), put, "{body}: absence leaves it, null takes it away");
        assert_eq!(&rig.ask("GET", "/v1/tenants/acme", Body::empty()).await.json()["anchor"], holds, "{body}");
    }
    for (body, field) in [
        (json!({"plan": "nope"}), "plan"),
        (json!({"anchor": "yesterday"}), "anchor"),
        (json!({"overrides": [{"meter": "nope"}]}), "overrides[0]"),
        (json!({"limits": []}), "limits"),
    ] {
        let answer = rig.ask("PUT", "/v1/tenants/acme", body.to_string()).await;
        assert_eq!((answer.status, &answer.json()["field"]), (422, &json!(field)), "{body}: {}", answer.text);
    }
}
