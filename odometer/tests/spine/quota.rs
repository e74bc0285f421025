//! Quota of one node: a run that reserves, records and settles, and what of it a
//! SIGKILL leaves.

use std::path::Path;
use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

use crate::support::{Process, verify};

/// Far longer than usage takes to show.
const PATIENCE: Duration = Duration::from_secs(30);

struct Site {
    process: Process,
    client: reqwest::Client,
    runtime: Runtime,
}

impl Site {
    fn start(data_dir: &Path) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        Self { process: Process::start(data_dir), client: reqwest::Client::new(), runtime }
    }

    fn post(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        let url = format!("{}{path}", self.process.url);
        self.runtime.block_on(async {
            let answer = self.client.post(url).json(body).send().await.unwrap();
            (answer.status(), answer.json().await.unwrap_or_default())
        })
    }

    fn put(&self, path: &str, body: &Value) {
        let url = format!("{}{path}", self.process.url);
        let sent = async { self.client.put(url).json(body).send().await };
        assert_eq!(self.runtime.block_on(sent).unwrap().status(), StatusCode::OK);
    }

    fn reserve(&self, id: &str, minutes: u64) -> (StatusCode, Value) {
        let items = json!([{"meter": "agent_minute", "amount": minutes * 60_000}, {"meter": "agents", "amount": 1}]);
        let body = json!({"id": id, "tenant": "acme", "ttl_ms": 600_000, "items": items, "mode": "strict"});
        self.post("/v1/quota/reservations", &body)
    }

    /// (limit, used, reserved) of a meter in base units.
    fn stands(&self, meter: &str) -> (i64, i64, i64) {
        let body = json!({"tenant": "acme", "items": [{"meter": meter, "amount": 0}]});
        let (status, answer) = self.post("/v1/quota/check", &body);
        assert!(status == StatusCode::OK || status == StatusCode::TOO_MANY_REQUESTS, "{status}: {answer}");
        let number = |name: &str| answer["limits"][0][name].as_str().unwrap().parse().unwrap();
        (number("limit"), number("used"), number("reserved"))
    }

    fn await_standing(&self, meter: &str, expected: (i64, i64, i64)) {
        let deadline = Instant::now() + PATIENCE;
        while self.stands(meter) != expected && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(self.stands(meter), expected, "{meter}");
    }
}

#[test]
fn a_run_is_held_drawn_and_settled_and_outlives_the_process() {
    const MINUTE: i64 = 60_000;
    let data_dir = tempfile::tempdir().unwrap();
    let site = Site::start(data_dir.path());
    assert_eq!(site.reserve("run", 60).0, StatusCode::OK);
    let (status, denied) = site.reserve("second", 1);
    assert_eq!(
        (status, &denied["title"]),
        (StatusCode::TOO_MANY_REQUESTS, &json!("Plan limit reached. Upgrade to continue."))
    );
    assert_eq!(denied["violated"], json!(["free/agents/tenant"]));
    let record = json!({"id": "tick", "source": "worker", "tenant": "acme", "meter": "agent_minute",
        "quantity": 10 * MINUTE, "reservation": "run"});
    assert_eq!(site.post("/v1/events", &record).0, StatusCode::ACCEPTED);
    site.await_standing("agent_minute", (100 * MINUTE, 10 * MINUTE, 50 * MINUTE));
    site.process.kill();

    let site = Site::start(data_dir.path());
    assert_eq!(site.stands("agent_minute"), (100 * MINUTE, 10 * MINUTE, 50 * MINUTE));
    assert_eq!(site.stands("agents"), (1, 0, 1));
    assert_eq!(site.reserve("run", 60).0, StatusCode::OK, "the same request, the same answer");
    assert_eq!(site.reserve("run", 61).0, StatusCode::CONFLICT);
    let total = json!([{"meter": "agent_minute", "amount": 25 * MINUTE}]);
    let commit = json!({"tenant": "acme", "op_id": "end", "items": total, "final": true});
    assert_eq!(site.post("/v1/quota/reservations/run/commit", &commit).0, StatusCode::OK);
    assert_eq!(site.stands("agent_minute"), (100 * MINUTE, 10 * MINUTE, 15 * MINUTE));
    site.put("/v1/tenants/acme", &json!({"plan": "pro"}));
    site.await_standing("agent_minute", (10_000 * MINUTE, 10 * MINUTE, 15 * MINUTE));
    assert_eq!(site.reserve("second", 1).0, StatusCode::OK);
    site.process.stop();

    let site = Site::start(data_dir.path());
    assert_eq!(site.stands("agent_minute"), (10_000 * MINUTE, 10 * MINUTE, 16 * MINUTE));
    site.process.stop();
    let (code, text) = verify(data_dir.path());
    assert_eq!(code, 0, "{text}");
}
