//! Agents of a cluster: records and questions through different nodes, a process of
//! agents that is killed, and an owner that is killed while a run goes on.

use odometer_ingest::emitter::quota::contract::{self, Place};

use crate::agents_common::{Nodes, a_killed_process_frees_its_slots, hold_if_asked, runtime, the_common_body};
use crate::support::{Cluster, Process, await_ready, get};

fn two_nodes(cluster: &Cluster) -> [Process; 2] {
    let nodes = [cluster.node(), cluster.node()];
    nodes.iter().for_each(await_ready);
    nodes
}

#[test]
fn runs_within_quota() {
    let cluster = Cluster::new(4);
    let nodes = two_nodes(&cluster);
    runtime().block_on(async { the_common_body(&Nodes::new(&nodes[0].url, &nodes[1].url).await).await });
    runtime().block_on(async { the_common_body(&Nodes::new(&nodes[1].url, &nodes[0].url).await).await });
    nodes.into_iter().for_each(Process::stop);
}

#[test]
fn a_killed_process_of_agents() {
    let cluster = Cluster::new(4);
    let nodes = two_nodes(&cluster);
    runtime()
        .block_on(async { a_killed_process_frees_its_slots(&Nodes::new(&nodes[1].url, &nodes[0].url).await).await });
    nodes.into_iter().for_each(Process::stop);
}

#[test]
fn a_run_outlives_the_node_that_decides() {
    let cluster = Cluster::new(4);
    let mut nodes = Vec::from(two_nodes(&cluster));
    let owns = |node: &Process| get(&format!("{}/v1/tenants/{}/usage", node.url, contract::TENANT)).0 == 200;
    // Somebody asks first, or nobody knows the tenant.
    let first = nodes[0].url.clone();
    runtime().block_on(async { Nodes::new(&first, &first).await.limit(1, 3_600_000).await });
    let owner = nodes.iter().position(owns).expect("a node owns the tenant's partition");
    let killed = nodes.remove(owner);
    let survivor = nodes[0].url.clone();
    runtime().block_on(async {
        let place = Nodes::new(&survivor, &survivor).await;
        let run = contract::start(&place).await.unwrap();
        killed.kill();
        // The successor holds its slot, and goes on extending it.
        contract::await_standing(&place, "agents", (0, 1)).await;
        assert!(contract::start(&place).await.is_err(), "no second slot");
        let (used_ms, _) = place.stands("agent_minute").await;
        let report = run.finish().await.unwrap();
        assert_eq!(report.unsettled, None);
        let taken_ms = i64::try_from(report.duration_ms).unwrap();
        assert!(used_ms <= taken_ms);
        contract::await_standing(&place, "agent_minute", (taken_ms, 0)).await;
        contract::await_standing(&place, "agents", (0, 0)).await;
    });
    nodes.into_iter().for_each(Process::stop);
    cluster.prove();
}

/// Not a test of its own: what the killed process does.
#[test]
fn child() {
    hold_if_asked();
}
