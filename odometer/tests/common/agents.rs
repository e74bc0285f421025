//! Runs within quota against real nodes: where their records go, who decides, and a
//! process that holds runs until it is killed.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use odometer_ingest::emitter::quota::QuotaClient;
use odometer_ingest::emitter::quota::contract::{self, Place};
use odometer_ingest::emitter::{
    AgentRun, AgentRunOptions, Emitter, EmitterOptions, HttpQuota, HttpTransport, RunQuota,
};
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

/// Longer than a cluster takes to give a tenant an owner.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long what a killed process held is held.
const TTL: Duration = Duration::from_secs(3);
/// Names the node to the child.
const URL_VARIABLE: &str = "ODOMETER_AGENTS_TEST_URL";

pub(crate) fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// Records go to one node, questions to another or the same.
pub(crate) struct Nodes {
    emitter: Emitter,
    quota: HttpQuota,
    http: reqwest::Client,
    decides: String,
}

impl Nodes {
    pub(crate) async fn new(records: &str, decides: &str) -> Self {
        let transport = HttpTransport::connect(records).await.unwrap();
        let emitter = Emitter::start(Arc::new(transport), EmitterOptions::default()).unwrap();
        let quota = HttpTransport::connect(decides).await.unwrap().quota();
        Self { emitter, quota, http: reqwest::Client::new(), decides: decides.to_owned() }
    }

    /// What the owner says of a meter; none while it cannot be asked.
    async fn state(&self, meter: &str) -> Option<Value> {
        let body = json!({"tenant": contract::TENANT, "items": [{"meter": meter, "amount": 0}]});
        let url = format!("{}/v1/quota/check", self.decides);
        let answer: Value = self.http.post(url).json(&body).send().await.ok()?.json().await.ok()?;
        (answer["degraded"] == false).then(|| answer["limits"][0].clone())
    }

    async fn known_state(&self, meter: &str) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(state) = self.state(meter).await {
                return state;
            }
            assert!(Instant::now() < deadline, "nobody decides");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn number(state: &Value, name: &str) -> i64 {
    state[name].as_str().unwrap().parse().unwrap()
}

impl Place for Nodes {
    fn emitter(&self) -> &Emitter {
        &self.emitter
    }

    fn quota(&self) -> RunQuota {
        RunQuota::new(Arc::new(self.quota.clone()) as Arc<dyn QuotaClient>)
    }

    async fn limit(&self, agents: i64, time_ms: i64) {
        let limits = json!([
            {"meter": "agents", "kind": "concurrency", "limit": agents},
            {"meter": "agent_minute", "limit": time_ms, "grace_percent": 0},
        ]);
        let url = format!("{}/v1/plans/free", self.decides);
        let put = self.http.put(url).json(&json!({"limits": limits})).send().await.unwrap();
        assert!(put.status().is_success(), "{put:?}");
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (slots, time) = (self.known_state("agents").await, self.known_state("agent_minute").await);
            if (slots["limit"].as_str(), time["limit"].as_str())
                == (Some(&*agents.to_string()), Some(&*time_ms.to_string()))
            {
                return;
            }
            assert!(Instant::now() < deadline, "the plan is not in force: {slots} {time}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn stands(&self, meter: &str) -> (i64, i64) {
        let state = self.known_state(meter).await;
        (number(&state, "used"), number(&state, "reserved"))
    }
}

/// All that runs within quota do, wherever it is decided.
pub(crate) async fn the_common_body(place: &Nodes) {
    contract::slots_are_taken_and_given_back(place).await;
    contract::a_limit_that_is_reached_is_told(place).await;
    contract::dropped_runs_are_settled(place).await;
}

/// What the child does until it is killed: two runs.
pub(crate) fn hold_if_asked() {
    let Ok(url) = std::env::var(URL_VARIABLE) else { return };
    runtime().block_on(async {
        let place = Nodes::new(&url, &url).await;
        let start = || {
            let quota = RunQuota { ttl: Some(TTL), ..place.quota() };
            let tick = Duration::from_millis(100);
            let options = AgentRunOptions { tick, ..AgentRunOptions::new(contract::TENANT, "child") };
            AgentRun::start_within(place.emitter(), options, quota)
        };
        let _runs = (start().await.unwrap(), start().await.unwrap());
        println!("\nholding");
        std::future::pending::<()>().await;
    });
}

/// Starts this test's binary as a process that holds two runs of a node.
fn holding(url: &str) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "agents::child", "--nocapture"])
        .env(URL_VARIABLE, url)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "holding"), "the child ended before it held anything");
    child
}

/// What a killed process held is free once its time is over; what it recorded counts.
pub(crate) async fn a_killed_process_frees_its_slots(place: &Nodes) {
    place.limit(2, 3_600_000).await;
    let mut child = holding(&place.decides);
    // Held beyond its time, because it is extended.
    let until = Instant::now() + TTL + Duration::from_secs(1);
    while Instant::now() < until {
        assert_eq!(place.stands("agents").await, (0, 2));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(contract::start(place).await.is_err());
    child.kill().unwrap();
    child.wait().unwrap();
    contract::await_standing(place, "agents", (0, 0)).await;
    let (used_ms, held_ms) = place.stands("agent_minute").await;
    assert!(used_ms >= 4_000 && held_ms == 0, "{used_ms} ms used by two runs, {held_ms} held");
    let runs = (contract::start(place).await.unwrap(), contract::start(place).await.unwrap());
    let (first, second) = (runs.0.finish().await.unwrap(), runs.1.finish().await.unwrap());
    let taken_ms = i64::try_from(first.duration_ms + second.duration_ms).unwrap();
    contract::await_standing(place, "agent_minute", (used_ms + taken_ms, 0)).await;
}
