//! Producers in other languages, as far as their programs are installed here; all of
//! them are run by `dev/producers`, which fetches what they need.

use std::process::Command;

use serde_json::json;

use crate::bridge::{metric, rejects};
use crate::support::{Cluster, Process, Totals, part, patiently};

/// Events of each content mode.
const COUNT: u64 = 4;

#[test]
fn kcat_feeds_the_ingress_topic() {
    if Command::new("kcat").arg("-V").output().is_err() {
        println!("skipped: no kcat on the path; apt-get install kcat");
        return;
    }
    let cluster = Cluster::new(2);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/ingress/kcat.sh");
    let (brokers, count) = (part("ODOMETER_TEST_KAFKA"), COUNT.to_string());
    let output = Command::new(script).args([&brokers, cluster.ingress_topic(), &count]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // Structured, binary and batch mode: each event has its number and a hundred, and ten.
    let prompt: u64 = (0..COUNT).map(|number| 100 + number).sum();
    let total = |meter: &str, quantity: u64| (("acme".into(), meter.into()), (i128::from(3 * quantity), 3 * COUNT));
    let wanted = Totals::from([total("llm.prompt_tokens", prompt), total("llm.generated_tokens", 10 * COUNT)]);
    let node: Process = cluster.node();
    cluster.await_totals(&wanted);
    assert_eq!(cluster.totals(), wanted);
    let is_through = || {
        metric(&node, "odometer_bridge_messages_total") == 2 * COUNT + 1
            && metric(&node, "odometer_bridge_lag_messages") == 0
    };
    patiently("the bridge is through", is_through);
    cluster.prove();
    node.stop();
    assert_eq!(rejects(&cluster, &["list"]), json!([]));
}
