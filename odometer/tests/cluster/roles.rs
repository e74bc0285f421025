//! A role each: what a process does not do, another one does, and answers say where.

use crate::support::{Cluster, Process, answer, await_ready, get, synthetic};

#[test]
fn each_role_has_a_process_of_its_own() {
    let cluster = Cluster::new(3);
    let trace = synthetic(cluster.directory(), 2000);
    let [door, counter, writer] = ["gateway", "aggregator", "raw"].map(|roles| cluster.node_with(roles));
    [&door, &counter, &writer].into_iter().for_each(await_ready);
    trace.replay(&door.url);
    cluster.await_totals(&trace.expected);
    cluster.prove();
    let path = "/v1/tenants/tenant-4/usage";
    let (status, location, _) = get(&format!("{}{path}", door.url));
    assert_eq!((status, location), (307, Some(format!("{}{path}", counter.url))));
    let live = answer(&format!("{}{path}", door.url));
    assert!(live["usage"].as_array().is_some_and(|usage| usage.len() == 3), "{live}");
    // Doors for usage are only where the gateway is; books are read everywhere.
    assert_eq!(get(&format!("{}/v1/log", counter.url)).0, 404);
    for node in [&door, &counter, &writer] {
        let usage = answer(&format!("{}/v1/usage?meter=api_call&from=2023-11&to=2023-12&window=month", node.url));
        assert_eq!(usage["rows"][0]["quantity"], "2000", "{usage}");
    }
    [door, counter, writer].into_iter().for_each(Process::stop);
}
