//! Quota on several nodes: every node answers, the owner decides, and a successor holds
//! what its predecessor did.

use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

use crate::support::{Cluster, PATIENCE, Process, await_ready, get, patiently};

/// Agents at once, which is the whole of the plan.
const AGENTS: usize = 1_000;
/// Longer than a takeover, shorter than a test's patience.
const TTL_MS: u64 = 25_000;

/// Asks nodes over HTTP, as callers do.
pub(crate) struct Caller {
    pub(crate) client: reqwest::Client,
    pub(crate) runtime: Runtime,
    /// Of reservations.
    ttl_ms: u64,
}

impl Caller {
    pub(crate) fn new() -> Self {
        let no_redirects = reqwest::redirect::Policy::none();
        let client = reqwest::Client::builder().redirect(no_redirects).timeout(Duration::from_secs(20));
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        Self { client: client.build().unwrap(), runtime, ttl_ms: TTL_MS }
    }

    /// A good answer's JSON.
    fn get(&self, url: &str) -> Value {
        let sent = async { self.client.get(url).send().await.unwrap().json::<Value>().await };
        self.runtime.block_on(sent).unwrap()
    }

    fn check(&self, node: &Process, tenant: &str, agents: u64) -> (StatusCode, Value) {
        let body = json!({"tenant": tenant, "items": [{"meter": "agents", "amount": agents}]});
        self.runtime.block_on(async {
            let answer = self.client.post(format!("{}/v1/quota/check", node.url)).json(&body).send().await.unwrap();
            (answer.status(), answer.json().await.unwrap_or_default())
        })
    }

    fn put(&self, url: &str, body: &Value) {
        let sent = async { self.client.put(url).json(body).send().await };
        let status = self.runtime.block_on(sent).unwrap().status();
        assert!(status.is_success(), "{url}: {status}");
    }

    fn reserve(&self, node: &Process, id: &str) -> (StatusCode, Value) {
        self.runtime.block_on(self.ask_for(&self.client, &node.url, id, "strict"))
    }

    /// Reserves one slot.
    fn ask_for(
        &self,
        client: &reqwest::Client,
        url: &str,
        id: &str,
        mode: &str,
    ) -> impl Future<Output = (StatusCode, Value)> + use<> {
        let items = json!([{"meter": "agents", "amount": 1}]);
        let body = json!({"id": id, "tenant": "acme", "ttl_ms": self.ttl_ms, "items": items, "mode": mode});
        let request = client.post(format!("{url}/v1/quota/reservations")).json(&body);
        async {
            let answer = request.send().await.unwrap();
            (answer.status(), answer.json().await.unwrap_or_default())
        }
    }

    /// Reserves one slot each through the nodes in turn; how many were allowed.
    fn reserve_all(&self, nodes: &[Process], ids: usize) -> usize {
        self.runtime.block_on(async {
            let mut asked = JoinSet::new();
            let mut allowed = 0;
            for number in 0..ids {
                let url = &nodes[number % nodes.len()].url;
                asked.spawn(self.ask_for(&self.client, url, &format!("agent-{number}"), "strict"));
                if asked.len() >= 32 {
                    allowed += is_allowed(&asked.join_next().await.unwrap().unwrap());
                }
            }
            while let Some(answer) = asked.join_next().await {
                allowed += is_allowed(&answer.unwrap());
            }
            allowed
        })
    }

    /// The limit that a check of `tenant` at `node` stands on.
    pub(crate) fn limit_of(&self, node: &Process, tenant: &str, meter: &str) -> Value {
        let body = json!({"tenant": tenant, "items": [{"meter": meter, "amount": 1}]});
        let asked = async {
            let asked = self.client.post(format!("{}/v1/quota/check", node.url)).json(&body).send().await;
            asked.unwrap().json::<Value>().await.unwrap()
        };
        self.runtime.block_on(asked)["limits"][0]["limit"].clone()
    }

    /// The node that `node` names as a tenant's owner, and its epoch.
    fn named_owner(&self, node: &Process, tenant: &str) -> (String, u64) {
        let answer = self.get(&format!("{}/v1/owners?tenant={tenant}", node.url));
        let owner = &answer["owners"][0];
        (owner["url"].as_str().unwrap().to_owned(), owner["epoch"].as_u64().unwrap())
    }

    /// Limits the default plan to [`AGENTS`], none while nobody knows how many there are.
    fn limit_agents(&self, nodes: &[Process]) {
        let limit = json!({"meter": "agents", "kind": "concurrency", "limit": AGENTS, "when_degraded": "closed"});
        self.put(&format!("{}/v1/plans/free", nodes[0].url), &json!({"limits": [limit]}));
        nodes.iter().for_each(|node| self.await_limit(node));
    }

    /// Waits until what `node` answers stands on the plan.
    fn await_limit(&self, node: &Process) {
        let deadline = Instant::now() + PATIENCE;
        while self.limit_of(node, "acme", "agents") != json!(AGENTS.to_string()) {
            assert!(Instant::now() < deadline, "the plan is not in force");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The node that shows a tenant's counters itself.
    pub(crate) fn owner(&self, nodes: &[Process], tenant: &str) -> Option<usize> {
        let shows = |node: &Process| {
            let asked = async { self.client.get(format!("{}/v1/tenants/{tenant}/usage", node.url)).send().await };
            self.runtime.block_on(asked).is_ok_and(|answer| answer.status() == StatusCode::OK)
        };
        nodes.iter().position(shows)
    }
}

fn is_allowed((status, answer): &(StatusCode, Value)) -> usize {
    usize::from(*status == StatusCode::OK && answer["degraded"] == false)
}

#[test]
fn a_killed_owner_s_reservations_are_held_by_its_successor() {
    let cluster = Cluster::new(6);
    let mut nodes: Vec<Process> = (0..3).map(|_| cluster.node()).collect();
    nodes.iter().for_each(await_ready);
    let caller = Caller::new();
    caller.limit_agents(&nodes);
    let filled = Instant::now();
    assert_eq!(caller.reserve_all(&nodes, AGENTS + 50), AGENTS, "exactly the limit, whichever node is asked");
    let (status, answer) = caller.reserve(&nodes[1], "one-more");
    assert_eq!((status, &answer["violated"][0]), (StatusCode::TOO_MANY_REQUESTS, &json!("free/agents/tenant")));

    let owner = caller.owner(&nodes, "acme").expect("some node owns the tenant's partition");
    let (url, epoch) = caller.named_owner(&nodes[0], "acme");
    assert_eq!(url, nodes[owner].url);
    nodes.remove(owner).kill();
    let killed = Instant::now();
    let (mut attempts, mut decided_after) = (0, None);
    while filled.elapsed() < Duration::from_millis(TTL_MS - 3_000) {
        let (status, answer) = caller.reserve(&nodes[attempts % 2], &format!("after-{attempts}"));
        attempts += 1;
        assert_ne!(status, StatusCode::OK, "admitted beyond the limit: {answer}");
        let is_decided = status == StatusCode::TOO_MANY_REQUESTS && answer["degraded"] == false;
        if is_decided && decided_after.is_none() {
            decided_after = Some(killed.elapsed());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let decided_after = decided_after.expect("the successor decides while the reservations are held");
    let successor = caller.owner(&nodes, "acme").expect("some node owns it now");
    let (url, its_epoch) = caller.named_owner(&nodes[0], "acme");
    assert!(url == nodes[successor].url && its_epoch > epoch, "{url} in epoch {its_epoch} after {epoch}");
    println!("{attempts} attempts after the kill, none admitted; the successor decided after {decided_after:?}");
    // Held until their time is over, and free then.
    let deadline = Instant::now() + PATIENCE;
    while is_allowed(&caller.reserve(&nodes[0], "at-last")) == 0 {
        assert!(Instant::now() < deadline, "expired reservations are still held");
        std::thread::sleep(Duration::from_millis(100));
    }
    println!("free {:?} after the first was reserved, of a life of {TTL_MS} ms", filled.elapsed());
    nodes.into_iter().for_each(Process::stop);
}

#[test]
fn an_owner_that_slept_while_it_was_followed_admits_nothing_when_it_wakes() {
    const FREE: usize = 10;
    const QUESTIONS: usize = 40;
    let cluster = Cluster::new(6);
    let nodes: Vec<Process> = (0..2).map(|_| cluster.node()).collect();
    nodes.iter().for_each(await_ready);
    // Whoever sleeps within a transaction keeps its rows from its successor for a while.
    let caller = Caller { ttl_ms: 2 * PATIENCE.as_millis() as u64, ..Caller::new() };
    caller.limit_agents(&nodes);
    assert_eq!(caller.reserve_all(&nodes, AGENTS - FREE), AGENTS - FREE);
    let owner = caller.owner(&nodes, "acme").expect("some node owns the tenant's partition");
    let (asleep, awake) = (&nodes[owner], &nodes[1 - owner]);
    asleep.signal("STOP");
    patiently("there is a successor", || caller.named_owner(awake, "acme").0 == awake.url);
    let mut taken = 0;
    patiently("it gives the last away", || {
        taken += is_allowed(&caller.reserve(awake, &format!("last-{taken}")));
        taken == FREE
    });
    assert_eq!(caller.reserve(awake, "one-more").0, StatusCode::TOO_MANY_REQUESTS);
    // Taken by the system, and read by the node once it wakes, before it can hear of anything.
    let client = reqwest::Client::new();
    let questions: Vec<_> = (0..QUESTIONS)
        .map(|number| {
            let mode = ["strict", "fast"][number % 2];
            caller.runtime.spawn(caller.ask_for(&client, &asleep.url, &format!("late-{number}"), mode))
        })
        .collect();
    std::thread::sleep(Duration::from_millis(300));
    asleep.signal("CONT");
    for question in questions {
        let (status, answer) = caller.runtime.block_on(question).unwrap();
        assert_ne!(status, StatusCode::OK, "as far as the one that slept knew, {FREE} were free: {answer}");
    }
    patiently("the one that slept asks its successor", || {
        let (status, answer) = caller.reserve(asleep, "another");
        assert_ne!(status, StatusCode::OK, "{answer}");
        status == StatusCode::TOO_MANY_REQUESTS && answer["degraded"] == false
    });
    nodes.into_iter().for_each(Process::stop);
}

/// Tenants of node 0 that were given nothing yet, by what they are about to be given.
fn tenants_of_first(caller: &Caller, nodes: &[Process]) -> [String; 3] {
    ["enterprise", "closed", "nothing"].map(|kind| {
        let named = (0..).map(|number| format!("{kind}-{number}"));
        named.into_iter().find(|tenant| caller.owner(nodes, tenant) == Some(0)).unwrap()
    })
}

#[test]
fn tenants_have_their_own_terms_while_their_owner_is_dead() {
    let cluster = Cluster::new(6);
    let mut nodes: Vec<Process> = (0..2).map(|_| cluster.node()).collect();
    nodes.iter().for_each(await_ready);
    let caller = Caller::new();
    let [large, closed, nothing] = tenants_of_first(&caller, &nodes);
    let url = |node: &Process, tenant: &str| format!("{}/v1/tenants/{tenant}", node.url);
    // Through the other node, which has them from the owner at once.
    caller.put(&url(&nodes[1], &large), &json!({"plan": "enterprise", "anchor": "2026-11-05T00:00:00Z"}));
    let limit = json!({"meter": "agents", "kind": "concurrency", "limit": 50, "when_degraded": "closed"});
    caller.put(&url(&nodes[1], &closed), &json!({"plan": "enterprise", "overrides": [limit]}));
    patiently("terms are in force", || {
        let known = nodes.iter().map(|node| caller.get(&url(node, &large)));
        known.into_iter().all(|known| known["plan"] == "enterprise" && known["anchor"] == "2026-11-05T00:00:00Z")
    });
    assert_eq!(caller.check(&nodes[1], &closed, 50).0, StatusCode::OK);
    let stored = || cluster.postgres().text("SELECT count(*)::text FROM quota_state WHERE kind = 2");
    patiently("terms are in the book", || stored() == "2");

    nodes.remove(0).kill();
    let mut seen = [0; 3];
    patiently("all were answered without their owner, and then by another", || {
        // More than the default plan allows, then within a tenth of the own limit.
        let answers = [(&large, 1_000), (&closed, 1), (&nothing, 2)];
        let answers = answers.map(|(tenant, agents)| caller.check(&nodes[0], tenant, agents));
        assert_eq!(caller.get(&url(&nodes[0], &large))["plan"], "enterprise");
        let wanted = [StatusCode::OK, StatusCode::TOO_MANY_REQUESTS, StatusCode::TOO_MANY_REQUESTS];
        let degraded = answers.each_ref().map(|(_, answer)| answer["degraded"] == true);
        for (((status, answer), wanted), at) in answers.iter().zip(wanted).zip(0..) {
            if degraded[at] {
                seen[at] += 1;
                assert_eq!(*status, wanted, "{answer}");
            }
        }
        seen.iter().all(|seen| *seen > 0) && !degraded.contains(&true)
    });
    println!("degraded answers: {seen:?}");
    let (_, _, metrics) = get(&format!("{}/metrics", nodes[0].url));
    for [decision, degraded] in [["allow", "true"], ["deny", "true"], ["allow", "false"]] {
        let labels = format!("decision=\"{decision}\",degraded=\"{degraded}\",door=\"http\"");
        let none = format!("odometer_quota_decisions_total{{{labels}}} 0\n");
        assert!(metrics.contains(&labels) && !metrics.contains(&none), "{metrics}");
    }
    for name in ["forwards_total", "forwards_failed_total"] {
        assert!(!metrics.contains(&format!("\nodometer_quota_{name} 0\n")), "{metrics}");
    }
    assert_eq!(caller.check(&nodes[0], &closed, 50).0, StatusCode::OK, "its owner knows what it uses");
    nodes.into_iter().for_each(Process::stop);
}
