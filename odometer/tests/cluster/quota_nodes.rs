//! Ten thousand tenants on three nodes. One is killed and another added while all are
//! asked at random: what an owner says agrees with the test's own ledger, and what
//! nobody owns is answered `degraded`, for a while.

mod asker;
mod ledger;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinSet;

use self::asker::{Asker, tenant_name};
use self::ledger::Ledger;
use crate::quota::Caller;
use crate::support::{Cluster, PATIENCE, Process, await_ready};

pub(crate) const TENANTS: usize = 10_000;
/// Of every tenant that has no limit of its own.
const LIMIT: i64 = 5;
/// Every so manyth tenant has one.
const OWN_EVERY: usize = 20;
const OWN_LIMIT: i64 = 3;
/// Connections that ask at once.
const ASKERS: u64 = 12;
/// Of the load before the kill, and after the hand-over.
const CALM: Duration = Duration::from_secs(4);
/// Long enough after the last question without a decision that it is the last.
const QUIET: Duration = Duration::from_secs(3);

fn limit_of(tenant: usize) -> i64 {
    if tenant.is_multiple_of(OWN_EVERY) { OWN_LIMIT } else { LIMIT }
}

/// Gives tenants their own limits, and waits until they are in force.
fn give_limits(caller: &Caller, nodes: &[Process]) {
    let limit = json!({"meter": "api_call", "limit": OWN_LIMIT.to_string(), "grace_percent": 0});
    let put = |tenant: usize| {
        let url = format!("{}/v1/tenants/{}", nodes[tenant / OWN_EVERY % nodes.len()].url, tenant_name(tenant));
        let request = caller.client.put(url).json(&json!({"overrides": [limit]})).send();
        async move { request.await.unwrap().status().is_success() }
    };
    caller.runtime.block_on(async {
        let mut asked = JoinSet::new();
        for tenant in (0..TENANTS).step_by(OWN_EVERY) {
            asked.spawn(put(tenant));
            if asked.len() >= 16 {
                assert!(asked.join_next().await.unwrap().unwrap());
            }
        }
        while let Some(is_put) = asked.join_next().await {
            assert!(is_put.unwrap());
        }
    });
    let last = (TENANTS - 1) / OWN_EVERY * OWN_EVERY;
    let deadline = Instant::now() + PATIENCE;
    for tenant in [0, last / 2 / OWN_EVERY * OWN_EVERY, last] {
        while caller.limit_of(&nodes[0], &tenant_name(tenant), "api_call") != json!(OWN_LIMIT.to_string()) {
            assert!(Instant::now() < deadline, "the limit of tenant {tenant} is not in force");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Waits until a question was not decided for the last time, as it seems.
fn await_hand_over(asker: &Asker, since: Instant) {
    loop {
        std::thread::sleep(Duration::from_millis(100));
        let last = asker.last_undecided().unwrap_or(since).max(since);
        if last.elapsed() >= QUIET {
            return;
        }
        assert!(since.elapsed() < PATIENCE, "answers are degraded for ever");
    }
}

/// Asks again what was left open, until an owner has said what is so.
async fn resolve(asker: &Arc<Asker>) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut open = std::mem::take(&mut *asker.pending.lock().unwrap());
        if open.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "{} requests are never decided", open.len());
        let mut asked = JoinSet::new();
        while let Some(pending) = open.pop() {
            let asker = Arc::clone(asker);
            asked.spawn(async move { asker.ask_again(pending).await });
            if asked.len() >= 16 {
                asked.join_next().await.unwrap().unwrap();
            }
        }
        while let Some(done) = asked.join_next().await {
            done.unwrap();
        }
    }
}

/// Every tenant must show what its ledger says, once everything is counted.
async fn compare(asker: &Arc<Asker>) {
    let deadline = Instant::now() + PATIENCE;
    let mut left: Vec<usize> = (0..TENANTS).collect();
    let mut differences = BTreeMap::new();
    while !left.is_empty() {
        let some: Vec<_> = differences.iter().take(5).collect();
        assert!(Instant::now() < deadline, "{} tenants differ, such as: {some:#?}", left.len());
        differences.clear();
        let mut asked = JoinSet::new();
        let mut looked = Vec::new();
        for tenant in std::mem::take(&mut left) {
            let asker = Arc::clone(asker);
            asked.spawn(async move { (tenant, asker.difference(tenant).await) });
            if asked.len() >= 16 {
                looked.push(asked.join_next().await.unwrap().unwrap());
            }
        }
        while let Some(one) = asked.join_next().await {
            looked.push(one.unwrap());
        }
        for (tenant, difference) in looked {
            if let Some(difference) = difference {
                left.push(tenant);
                differences.insert(tenant, difference);
            }
        }
        if !left.is_empty() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

#[test]
fn a_node_killed_and_one_added_change_no_decision() {
    let limit = format!("meter = 'api_call'\nlimit = '{LIMIT}'\ngrace_percent = 0\n");
    let cluster = Cluster::with(12, &format!("[[plan]]\nname = 'free'\n[[plan.limit]]\n{limit}"));
    let mut nodes: Vec<Process> = (0..3).map(|_| cluster.node()).collect();
    nodes.iter().for_each(await_ready);
    let caller = Caller::new();
    give_limits(&caller, &nodes);
    let urls = |nodes: &[Process]| nodes.iter().map(|node| node.url.clone()).collect();
    let asker = Arc::new(Asker::new(Ledger::new((0..TENANTS).map(limit_of)), urls(&nodes), caller.client.clone()));
    let mut askers = JoinSet::new();
    for number in 0..ASKERS {
        askers.spawn_on(Arc::clone(&asker).ask_on(number), caller.runtime.handle());
    }
    askers.spawn_on(Arc::clone(&asker).use_on(), caller.runtime.handle());
    std::thread::sleep(CALM);

    // Nobody is told that it is gone; it is asked as before for a moment.
    nodes.remove(1).kill();
    let killed = Instant::now();
    let before = asker.decided();
    asker.know(urls(&nodes));
    nodes.push(cluster.node());
    asker.know(urls(&nodes));
    await_ready(&nodes[2]);
    await_hand_over(&asker, killed);
    let undecided = asker.last_undecided().filter(|last| *last > killed);
    println!(
        "all is decided from {:?} after the kill on, {} answers degraded; the session time-out is 6 s",
        undecided.map_or(Duration::ZERO, |last| last - killed),
        asker.degraded(),
    );
    std::thread::sleep(CALM);
    asker.stop();
    caller.runtime.block_on(async {
        while let Some(ended) = askers.join_next().await {
            ended.unwrap();
        }
    });
    let after = asker.decided() - before;
    println!("{before} decisions before the kill, {after} after it; {}", asker.tale());
    assert!(before > 0 && after > 0, "owners decide before and after");
    assert!(asker.degraded() > 0, "what nobody owns is answered, and says so");
    let is_of_new = |tenant| caller.owner(&nodes[2..], &tenant_name(tenant)).is_some();
    assert!((0..TENANTS).any(is_of_new), "the node that was added decides for some");
    caller.runtime.block_on(async {
        resolve(&asker).await;
        compare(&asker).await;
    });
    asker.ledger.judge();
    nodes.into_iter().for_each(Process::stop);
}
