//! Traffic in by every way, exact books out; and again, which must change nothing.

use crate::support::{
    Cluster, Process, Totals, Trace, await_ready, azure, json, quantities, real_data, servegen, synthetic,
};

/// Real traces where they are, else made ones.
pub(crate) fn traces(directory: &std::path::Path) -> Vec<Trace> {
    match real_data() {
        Some(data) => azure(&data),
        None => vec![synthetic(directory, 20_000)],
    }
}

pub(crate) fn expected(traces: &[Trace]) -> Totals {
    traces.iter().flat_map(|trace| trace.expected.clone()).collect()
}

/// Straight into Kafka, through the emitter.
fn emit(trace: &Trace, cluster: &Cluster) {
    let (file, map) = (trace.file.to_str().unwrap(), trace.map.to_str().unwrap());
    let report = json(&["replay", file, "--map", map, "--config", cluster.config(), "--json"]);
    assert_eq!(report["records_acknowledged"].as_u64(), Some(trace.records), "{report}");
}

/// The same input on the embedded footing, with digests.
fn embedded(traces: &[Trace]) -> serde_json::Value {
    let data_dir = tempfile::tempdir().unwrap();
    let place = ["--data-dir", data_dir.path().to_str().unwrap()];
    let process = Process::spawn(&["dev", place[0], place[1]]);
    traces.iter().for_each(|trace| trace.replay(&process.url));
    process.stop();
    json(&["totals", "--json", place[0], place[1]])
}

#[test]
fn http_and_emitter_are_counted_once_and_as_on_the_embedded_footing() {
    let cluster = Cluster::new(4);
    let traces = traces(cluster.directory());
    let node = cluster.node();
    await_ready(&node);
    traces.iter().for_each(|trace| trace.replay(&node.url));
    cluster.await_totals(&expected(&traces));
    // The same ids by another way: duplicates, all of them.
    traces.iter().for_each(|trace| emit(trace, &cluster));
    node.stop();
    let node = cluster.node();
    await_ready(&node);
    traces.iter().for_each(|trace| trace.replay(&node.url));
    node.stop();
    // A raw book that was not finished is so by whoever comes next.
    let node = cluster.node();
    cluster.prove();
    assert_eq!(json(&["totals", "--json", "--config", cluster.config()]), embedded(&traces));
    node.stop();
}

#[test]
fn servegen_straight_to_the_log_is_counted_exactly_once() {
    let Some(data) = real_data() else { return };
    let (cluster, trace) = (Cluster::new(8), servegen(&data));
    let nodes = [cluster.node(), cluster.node()];
    nodes.iter().for_each(await_ready);
    emit(&trace, &cluster);
    cluster.await_totals(&trace.expected);
    cluster.prove();
    nodes.into_iter().for_each(Process::stop);
    let found = cluster.totals();
    assert_eq!(quantities(&found).values().sum::<i128>(), 3_824_907_861);
}
