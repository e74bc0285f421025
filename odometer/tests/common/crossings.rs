//! Usage that crosses limits, and what is told of it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

/// Bytes 0 to 23.
pub(crate) const SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX";
/// The limit on every tenant's calls.
pub(crate) const LIMIT: u64 = 100;
/// Far longer than an alert takes.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a webhook got, by event id: the bodies.
type Received = Arc<Mutex<BTreeMap<String, Vec<Value>>>>;

/// A webhook that refuses every event once.
pub(crate) struct Receiver {
    pub(crate) url: String,
    received: Received,
    _runtime: Runtime,
}

impl Receiver {
    pub(crate) fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let received = Received::default();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}/alerts", listener.local_addr().unwrap());
        let router = Router::new().route("/alerts", post(receive)).with_state(Arc::clone(&received));
        runtime.spawn(async move { axum::serve(listener, router).await });
        Self { url, received, _runtime: runtime }
    }

    /// Every event so far, one each; the same id was always the same event.
    pub(crate) fn events(&self) -> Vec<Value> {
        let received = self.received.lock().unwrap();
        let one = |bodies: &Vec<Value>| {
            assert!(bodies.iter().all(|body| *body == bodies[0]), "{bodies:?}");
            bodies[0].clone()
        };
        // Those that were refused only are not told yet.
        received.values().filter(|bodies| bodies.len() > 1).map(one).collect()
    }
}

async fn receive(State(received): State<Received>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let text = |name: &str| headers[name].to_str().unwrap().to_owned();
    assert!(text("webhook-signature").starts_with("v1,") && text("webhook-timestamp").parse::<i64>().is_ok());
    let event: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(event["id"], text("webhook-id"));
    let mut received = received.lock().unwrap();
    let bodies = received.entry(text("webhook-id")).or_default();
    bodies.push(event);
    if bodies.len() == 1 { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }
}

/// The configuration of a default plan with [`LIMIT`] calls.
pub(crate) fn plan() -> String {
    format!("[[plan]]\nname = 'free'\n[[plan.limit]]\nmeter = 'api_call'\nlimit = {LIMIT}\n")
}

/// Uses `calls` more calls of every tenant, as records of their own ids. One of each at a
/// time, so that a crossing is seen where it is.
pub(crate) fn use_calls(url: &str, tenants: usize, calls: std::ops::Range<u64>) {
    let record = |tenant: usize, call: u64| {
        json!({"id": format!("{tenant}-{call}"), "source": "test", "tenant": format!("tenant-{tenant}"),
            "meter": "api_call", "quantity": 1})
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (client, url) = (reqwest::Client::new(), format!("{url}/v1/events"));
    for call in calls {
        let records: Vec<_> = (0..tenants).map(|tenant| record(tenant, call)).collect();
        let sent = runtime.block_on(client.post(&url).json(&records).send()).unwrap();
        assert_eq!(sent.status(), StatusCode::ACCEPTED);
    }
}

/// Waits until `events` are what all crossings of `tenants` bring up to `percent`, and no
/// more: one each.
pub(crate) fn await_crossings(tenants: usize, percent: u64, events: impl Fn() -> Vec<Value>) {
    let mut expected = Vec::new();
    for tenant in 0..tenants {
        expected
            .extend([50, 80, 100, 110].into_iter().filter(|p| *p <= percent).map(|p| (format!("tenant-{tenant}"), p)));
    }
    expected.sort();
    let crossings = || {
        let crossing = |event: &Value| {
            let data = &event["data"];
            assert_eq!((&data["limit"], &data["used"]), (&json!(LIMIT), &data["percent"]), "{event}");
            (data["tenant"].as_str().unwrap().to_owned(), data["percent"].as_u64().unwrap())
        };
        let mut crossings: Vec<_> = events().iter().map(crossing).collect();
        crossings.sort();
        crossings
    };
    let deadline = Instant::now() + PATIENCE;
    while crossings().len() < expected.len() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(crossings(), expected);
}
