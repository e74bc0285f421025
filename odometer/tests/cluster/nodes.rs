//! Nodes that die, come and go under load: whatever was acknowledged is counted, and
//! counted once.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::support::{Cluster, ODOMETER, Process, Totals, Trace, await_ready};
use crate::traffic::traces;

/// Copies of each tenant, so that every partition has some.
const COPIES: u32 = 12;

/// Replays in the background, slowly enough that nodes change under it.
fn load(trace: &Trace, url: &str) -> Child {
    let (file, map) = (trace.file.to_str().unwrap(), trace.map.to_str().unwrap());
    let copies = COPIES.to_string();
    let args = ["replay", file, "--map", map, "--url", url, "--tenants", &copies, "--json"];
    Command::new(ODOMETER).args(args).stdout(Stdio::null()).spawn().unwrap()
}

fn copied(traces: &[Trace]) -> Totals {
    let copy = |number: u32| {
        traces
            .iter()
            .flat_map(|trace| &trace.expected)
            .map(move |((tenant, meter), total)| ((format!("{tenant}#{number}"), meter.clone()), *total))
    };
    (1..=COPIES).flat_map(copy).collect()
}

fn pause() {
    std::thread::sleep(Duration::from_millis(700));
}

#[test]
fn one_killed_one_added_one_restarted_under_load() {
    let cluster = Cluster::new(12);
    let traces = traces(cluster.directory());
    // The doors stay open: what is behind them changes.
    let door = cluster.node_with("gateway");
    let mut nodes: Vec<Process> = (0..3).map(|_| cluster.node()).collect();
    nodes.iter().for_each(await_ready);
    let mut loads: Vec<Child> = traces.iter().map(|trace| load(trace, &door.url)).collect();
    pause();
    nodes.remove(1).kill();
    pause();
    nodes.push(cluster.node());
    pause();
    nodes.remove(0).stop();
    nodes.push(cluster.node());
    for load in &mut loads {
        assert!(load.wait().unwrap().success(), "a replay was not acknowledged");
    }
    nodes.iter().for_each(await_ready);
    cluster.await_totals(&copied(&traces));
    cluster.prove();
    nodes.into_iter().for_each(Process::stop);
    door.stop();
}

#[test]
fn nodes_killed_over_and_over_lose_and_double_nothing() {
    let cluster = Cluster::new(6);
    let traces = traces(cluster.directory());
    let door = cluster.node_with("gateway");
    let mut loads: Vec<Child> = traces.iter().map(|trace| load(trace, &door.url)).collect();
    let mut nodes: Vec<Process> = (0..2).map(|_| cluster.node()).collect();
    for _ in 0..5 {
        pause();
        nodes.remove(0).kill();
        nodes.push(cluster.node());
    }
    for load in &mut loads {
        assert!(load.wait().unwrap().success(), "a replay was not acknowledged");
    }
    nodes.iter().for_each(await_ready);
    cluster.await_totals(&copied(&traces));
    cluster.prove();
    nodes.into_iter().for_each(Process::stop);
    door.stop();
}
