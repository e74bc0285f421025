//! Alerts of a cluster: each crossing stands in the topic once, and reaches the webhook
//! under one id, whichever node counted it.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use serde_json::Value;

use crate::crossings::{Receiver, SECRET, await_crossings, plan, use_calls};
use crate::support::{Cluster, Process, await_ready, part};

const PARTITIONS: u32 = 6;
const TENANTS: usize = 20;

#[test]
fn each_crossing_is_told_once_though_nodes_are_killed() {
    let receiver = Receiver::start();
    let more = format!("[alerts]\nwebhook = '{}'\nsecret = '{SECRET}'\n{}", receiver.url, plan());
    let cluster = Cluster::with(PARTITIONS, &more);
    let mut nodes: Vec<Process> = (0..2).map(|_| cluster.node()).collect();
    nodes.iter().for_each(await_ready);
    use_calls(&nodes[0].url, TENANTS, 0..60);
    await_crossings(TENANTS, 50, || in_topic(&cluster));
    use_calls(&nodes[0].url, TENANTS, 60..115);
    nodes.remove(1).kill();
    nodes.push(cluster.node());
    nodes.remove(0).kill();
    // Some are duplicates now.
    use_calls(&nodes[0].url, TENANTS, 40..115);
    await_crossings(TENANTS, 110, || in_topic(&cluster));
    await_crossings(TENANTS, 110, || receiver.events());
    nodes.into_iter().for_each(Process::stop);
    assert_eq!(in_topic(&cluster).len(), 4 * TENANTS);
}

/// Every event in the topic of alerts, to whoever reads what is committed.
fn in_topic(cluster: &Cluster) -> Vec<Value> {
    let topic = format!("{}.alerts", cluster.name());
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", part("ODOMETER_TEST_KAFKA"))
        .set("group.id", &topic)
        .set("isolation.level", "read_committed")
        .create()
        .unwrap();
    let mut places = rdkafka::TopicPartitionList::new();
    let (mut ends, mut events) = (Vec::new(), Vec::new());
    for partition in 0..i32::try_from(PARTITIONS).unwrap() {
        let (start, end) = consumer.fetch_watermarks(&topic, partition, Duration::from_secs(30)).unwrap();
        places.add_partition_offset(&topic, partition, rdkafka::Offset::Offset(start)).unwrap();
        ends.push(end);
    }
    consumer.assign(&places).unwrap();
    // The end of a partition is a transaction's mark, or nothing is there at all.
    let is_done = || {
        let positions = consumer.position().unwrap();
        let positions: Vec<_> =
            positions.elements().iter().map(|place| place.offset().to_raw().unwrap_or(-1)).collect();
        positions.iter().zip(&ends).all(|(position, end)| *end == 0 || *position >= end - 1)
    };
    let mut quiet = 0;
    while quiet < 5 || !is_done() {
        match consumer.poll(Duration::from_millis(100)) {
            Some(message) => {
                let message = message.unwrap();
                let event: Value = serde_json::from_slice(message.payload().unwrap()).unwrap();
                assert_eq!(message.key(), event["subject"].as_str().map(str::as_bytes));
                events.push(event);
                quiet = 0;
            }
            None => quiet += 1,
        }
        assert!(quiet < 300, "the topic of alerts does not end");
    }
    events
}
