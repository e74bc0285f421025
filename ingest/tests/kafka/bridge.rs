//! The bridge between an ingress topic and the log: every content mode in, records
//! and dead letters out.

use std::collections::BTreeSet;

use odometer_ingest::bridge::Bridge;
use odometer_ingest::bridge::rejects::{Origin, Place, Rejects};
use odometer_ingest::gateway::SharedDefinitions;
use odometer_schemas::definitions::Definitions;
use odometer_schemas::meter::Meter;

use crate::support::{Ingress, Message, eventually};

fn ids(ingress: &Ingress) -> Vec<String> {
    ingress.records().into_iter().map(|record| record.id.expect("callers give ids")).collect()
}

fn cloud_event(id: &str, tenant: &str) -> String {
    format!(
        r#"{{"specversion":"1.0","id":"{id}","source":"/gw","type":"odometer.api_call","subject":"{tenant}","data":{{}}}}"#
    )
}

fn native(id: &str, tenant: &str) -> String {
    format!(r#"{{"id":"{id}","tenant":"{tenant}","meter":"api_call","quantity":2}}"#)
}

/// Every way to write the same usage that is read, one id each.
fn good_messages() -> Vec<Message> {
    vec![
        Message::new(cloud_event("structured", "t1"))
            .header("content-type", "application/cloudevents+json; charset=UTF-8")
            .key("any"),
        Message::new(format!("[{},{}]", cloud_event("batch-1", "t2"), cloud_event("batch-2", "t3")))
            .header("content-type", "application/cloudevents-batch+json"),
        Message::new("{}")
            .header("content-type", "application/json")
            .header("ce_specversion", "1.0")
            .header("ce_id", "binary 100% é")
            .header("ce_source", "/gw")
            .header("ce_type", "odometer.api_call")
            .header("ce_subject", "t4"),
        Message::new(native("native", "t1")),
        Message::new(cloud_event("undeclared", "t5")).header("traceparent", "00-0-0-00"),
        Message::new(format!("[{},{}]", native("array-1", "t1"), native("array-2", "t6"))),
        Message::new(format!("{}\n{}\n", native("line-1", "t1"), native("line-2", "t7")))
            .header("content-type", "application/x-ndjson"),
    ]
}

#[test]
fn every_content_mode_is_bridged_once() {
    let ingress = Ingress::new(3);
    ingress.produce_all(&good_messages());
    let bridge = ingress.bridge();
    eventually("everything is bridged", || bridge.health().messages == 7);
    bridge.drain().expect("it drains");
    let expected = [
        "structured",
        "batch-1",
        "batch-2",
        "binary 100% é",
        "native",
        "undeclared",
        "array-1",
        "array-2",
        "line-1",
        "line-2",
    ];
    let mut found = ids(&ingress);
    found.sort();
    let mut expected = expected.map(str::to_owned);
    expected.sort();
    assert_eq!(found, expected);
    assert_eq!(ingress.rejects(), []);
    // The group's offsets stand behind everything: the next bridge reads nothing again.
    let bridge = ingress.bridge();
    ingress.produce_all(&[Message::new(native("later", "t1"))]);
    eventually("the next message is bridged", || bridge.health().messages == 1);
    bridge.drain().expect("it drains");
    assert_eq!(ids(&ingress).len(), expected.len() + 1);
}

#[test]
fn what_is_refused_goes_whole_to_the_dead_letters() {
    let ingress = Ingress::new(1);
    let half = format!(r#"[{},{{"id":"no-tenant","meter":"api_call","quantity":1}}]"#, native("good-half", "t1"));
    let messages = [
        Message::new("not json").key("k\u{e9}y").header("trace", "1"),
        Message::new(half.clone()),
        Message::tombstone(),
        Message::new("<xml/>").header("content-type", "application/cloudevents+xml"),
        Message::new(native("good", "t1")),
    ];
    ingress.produce_all(&messages);
    let bridge = ingress.bridge();
    eventually("everything is bridged", || bridge.health().messages == 5);
    let health = bridge.health();
    assert_eq!((health.dead_letters, health.events_refused, health.records), (4, 4, 2));
    bridge.drain().expect("it drains");
    assert_eq!(ids(&ingress), ["good-half", "good"]);
    let found = ingress.rejects();
    let reasons: Vec<&str> = found.iter().map(|r| r.reason.split(':').next().expect("a word")).collect();
    assert_eq!(reasons, ["unreadable_body", "missing", "unreadable_body", "unsupported_media_type"]);
    assert_eq!(found[0].key.as_deref(), Some("k\u{e9}y".as_bytes()));
    assert_eq!(found[0].headers, [(b"trace".to_vec(), Some(b"1".to_vec()))]);
    assert_eq!(found[1].body.as_deref(), Some(half.as_bytes()));
    assert_eq!((found[1].refused[0].index, found[1].refused[0].id.as_deref()), (1, Some("no-tenant")));
    let origin = Origin { topic: ingress.options.kafka.topic.clone(), place: Place { partition: 0, offset: 1 } };
    assert_eq!(found[1].origin, Some(origin));
    assert_eq!(found[2].body, None);
}

#[test]
fn a_dead_letter_can_be_shown_and_sent_again() {
    let ingress = Ingress::new(2);
    // The meter is not defined at first.
    let mut meters = Meter::built_in();
    meters.retain(|meter| meter.name != "api_call");
    let definitions = SharedDefinitions::new(Definitions::with_meters(meters));
    let bridge = ingress.bridge_with(&definitions, ingress.log.appender());
    ingress.produce_all(&[Message::new(native("once", "t1")).key("k").header("content-type", "application/json")]);
    eventually("it is refused", || bridge.health().dead_letters == 1);
    assert_eq!(ids(&ingress), [""; 0]);
    let reader = Rejects::open(&ingress.options.dead_letters()).expect("the dead letters open");
    let listed = ingress.rejects();
    let shown = reader.show(listed[0].place).expect("readable").expect("it is there");
    assert_eq!(shown, listed[0]);
    assert!(shown.reason.starts_with("unknown_meter:"), "{}", shown.reason);
    for nowhere in [Place { partition: 0, offset: 99 }, Place { partition: 99, offset: 0 }] {
        assert_eq!(reader.show(nowhere).expect("readable"), None);
    }
    definitions.store(Definitions::built_in());
    assert_eq!(reader.replay(&[shown]).expect("it is sent again"), 1);
    eventually("it is bridged", || bridge.health().records == 1);
    assert_eq!(ids(&ingress), ["once"]);
    bridge.drain().expect("it drains");
}

#[test]
fn a_message_with_many_refused_events_names_some_and_counts_all() {
    let ingress = Ingress::new(1);
    let events: Vec<String> = (0..500).map(|n| format!(r#"{{"id":"bad-{n}"}}"#)).collect();
    ingress.produce_all(&[Message::new(format!("[{}]", events.join(",")))]);
    let bridge = ingress.bridge();
    eventually("it is refused", || bridge.health().dead_letters == 1);
    bridge.drain().expect("it drains");
    let found = ingress.rejects();
    assert_eq!((found[0].refused_count, found[0].refused.len()), (500, 20));
}

#[test]
fn two_bridges_share_an_ingress_topic() {
    const COUNT: usize = 3_000;
    let ingress = Ingress::new(4);
    let one = ingress.bridge();
    let produced = |from: usize, to: usize| -> Vec<Message> {
        (from..to).map(|n| Message::new(native(&format!("id-{n}"), &format!("tenant-{}", n % 17)))).collect()
    };
    ingress.produce_all(&produced(0, COUNT / 3));
    let two = ingress.bridge();
    ingress.produce_all(&produced(COUNT / 3, 2 * COUNT / 3));
    eventually("the second has a share", || two.health().messages > 0 || one.health().messages >= 2 * COUNT as u64 / 3);
    one.drain().expect("it drains");
    ingress.produce_all(&produced(2 * COUNT / 3, COUNT));
    let everything: BTreeSet<String> = (0..COUNT).map(|n| format!("id-{n}")).collect();
    eventually("everything is bridged", || ids(&ingress).into_iter().collect::<BTreeSet<_>>() == everything);
    two.drain().expect("it drains");
    // Both drained what they gave back, so nothing was read twice.
    assert_eq!(ids(&ingress).len(), COUNT);
}

#[test]
fn topics_that_are_missing_or_the_same_are_named() {
    let ingress = Ingress::new(1);
    let mut options = ingress.options.clone();
    options.dead_letter_topic = options.kafka.topic.clone();
    let definitions = SharedDefinitions::new(Definitions::built_in());
    let refused = Bridge::start(options.clone(), definitions.clone(), ingress.log.appender()).expect_err("the same");
    assert!(refused.to_string().contains("dead_letter_topic"), "{refused}");
    options.dead_letter_topic = "test-nowhere".to_owned();
    let refused = Bridge::start(options, definitions, ingress.log.appender()).expect_err("it is not there");
    assert!(refused.to_string().contains("test-nowhere"), "{refused}");
}
