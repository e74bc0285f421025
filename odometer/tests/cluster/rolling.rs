//! A rolling restart: one node after the other is told to stop, waited for and started
//! again, while usage comes in through all of them and straight into the log.

use std::sync::Arc;
use std::time::Duration;

use odometer_schemas::partition::partition_of;
use odometer_sink::totals::PgTotals;

use crate::gaps::Gaps;
use crate::load::{Http, Ledger, Load, Log, TENANTS};
use crate::support::{Cluster, Process, await_ready, patiently};

/// Few enough that the load's tenants are in all of them.
const PARTITIONS: u32 = 6;
/// Records that must be acknowledged between two restarts.
const BETWEEN: u64 = 700;

fn watch(cluster: &Cluster) -> Gaps {
    Gaps::watch(cluster.log(), PgTotals::connect(cluster.postgres().url()).unwrap())
}

fn await_more(ledger: &Ledger) {
    let wanted = ledger.records() + BETWEEN;
    patiently("usage is acknowledged", || ledger.records() >= wanted);
}

fn print(when: &str, gaps: &[Duration]) {
    let each: Vec<String> = gaps.iter().map(|gap| format!("{:.2}", gap.as_secs_f64())).collect();
    println!("longest gap of each partition {when}, in seconds: {}", each.join(" "));
}

#[test]
fn three_nodes_restarted_in_turn_under_load() {
    for partition in 0..PARTITIONS {
        assert!((0..TENANTS).any(|tenant| partition_of(&format!("tenant-{tenant}"), PARTITIONS) == partition));
    }
    let cluster = Cluster::new(PARTITIONS);
    let mut nodes: Vec<Process> = (0..3).map(|_| cluster.node()).collect();
    nodes.iter().for_each(await_ready);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (ledger, http) = (Arc::default(), Arc::new(Http::new(nodes.iter().map(|node| node.url.clone()).collect())));
    let log = Arc::new(runtime.block_on(async { Log::open(cluster.config()) }));
    let mut load = runtime.block_on(async { Load::start(&http, &log, &ledger) });
    await_more(&ledger);
    let gaps = watch(&cluster);
    await_more(&ledger);
    print("before", &gaps.longest());
    let gaps = watch(&cluster);
    for place in 0..nodes.len() {
        nodes.remove(place).stop();
        let node = cluster.node();
        await_ready(&node);
        http.replace(place, &node.url);
        nodes.insert(place, node);
        await_more(&ledger);
        load.check();
    }
    print("during the restarts", &gaps.longest());
    runtime.block_on(load.settle());
    cluster.await_totals(&ledger.totals());
    cluster.prove();
    // The ledger has each record once, however often it was sent.
    let records = |totals: &crate::support::Totals| totals.values().map(|(_, records)| records).sum::<u64>();
    assert_eq!(records(&cluster.totals()), records(&ledger.totals()));
    nodes.into_iter().for_each(Process::stop);
}
