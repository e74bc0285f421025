//! Quota of one node: a run that reserves, records and settles, and what of it a
//! SIGKILL leaves.

use std::path::Path;
use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

use crate::support::{Process, verify};

/// Far longer than usage takes to show.
const PATIENCE: Duration = Duration::from_secs(30);
/// Agents at once, which is the whole of the plan.
const AGENTS: usize = 1_000;
/// Longer than it takes to start again.
const TTL: Duration = Duration::from_secs(12);
/// Between two attempts that must be denied: other tests want the processor, too.
const PAUSE: Duration = Duration::from_millis(2);
/// Requests on their way at once.
const AT_ONCE: usize = 64;

/// A request for one agent's slot.
fn slot(id: &str) -> Value {
    let ttl_ms = u64::try_from(TTL.as_millis()).unwrap();
    let items = json!([{"meter": "agents", "amount": 1}]);
    json!({"id": id, "tenant": "acme", "ttl_ms": ttl_ms, "items": items, "mode": "strict"})
}

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

    fn reserve_slot(&self, id: &str) -> (StatusCode, Value) {
        self.post("/v1/quota/reservations", &slot(id))
    }

    fn reserve(&self, id: &str, minutes: u64) -> (StatusCode, Value) {
        let items = json!([{"meter": "agent_minute", "amount": minutes * 60_000}, {"meter": "agents", "amount": 1}]);
        let body = json!({"id": id, "tenant": "acme", "ttl_ms": 600_000, "items": items, "mode": "strict"});
        self.post("/v1/quota/reservations", &body)
    }

    /// Reserves one slot each for as many agents and fifty more; how many were allowed.
    fn fill_slots(&self, run: &str) -> usize {
        let ask = |number: usize| {
            let url = format!("{}/v1/quota/reservations", self.process.url);
            let sent = self.client.post(url).json(&slot(&format!("{run}-{number}"))).send();
            async { usize::from(sent.await.unwrap().status() == StatusCode::OK) }
        };
        self.runtime.block_on(async {
            let (mut asked, mut allowed) = (JoinSet::new(), 0);
            for number in 0..AGENTS + 50 {
                asked.spawn(ask(number));
                if asked.len() >= AT_ONCE {
                    allowed += asked.join_next().await.unwrap().unwrap();
                }
            }
            asked.join_all().await.into_iter().fold(allowed, |sum, one| sum + one)
        })
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

/// Agents that were killed with their node keep their slots until their time is over, and
/// not one more is let in meanwhile.
#[test]
fn slots_that_fill_the_limit_are_held_over_a_kill_and_free_after_their_time() {
    let data_dir = tempfile::tempdir().unwrap();
    let site = Site::start(data_dir.path());
    let limit = json!({"meter": "agents", "kind": "concurrency", "limit": AGENTS, "when_degraded": "closed"});
    site.put("/v1/plans/free", &json!({"limits": [limit]}));
    let slots = i64::try_from(AGENTS).unwrap();
    site.await_standing("agents", (slots, 0, 0));
    let began = Instant::now();
    assert_eq!(site.fill_slots("before"), AGENTS, "exactly the limit");
    let (filling, filled) = (began.elapsed(), Instant::now());
    site.process.kill();

    let site = Site::start(data_dir.path());
    let mut attempts = 0;
    while began.elapsed() < TTL - Duration::from_millis(500) {
        let (status, answer) = site.reserve_slot(&format!("meanwhile-{attempts}"));
        assert_eq!(status, StatusCode::TOO_MANY_REQUESTS, "beyond the limit: {answer}");
        attempts += 1;
        std::thread::sleep(PAUSE);
    }
    assert!(attempts > 0, "it starts within the life of a slot");
    site.await_standing("agents", (slots, 0, 0));
    println!(
        "full after {filling:?}; {attempts} attempts denied; all free {:?} after the last was given, of {TTL:?}",
        filled.elapsed()
    );
    assert_eq!(site.fill_slots("after"), AGENTS, "all of them, and no more");
    site.process.stop();
    let (code, text) = verify(data_dir.path());
    assert_eq!(code, 0, "{text}");
}
