//! What the gateway does with good requests, with a log that does not take them,
//! and with too many at once.

use std::sync::Arc;
use std::time::Duration;

use crate::support::{Bench, Call, MemoryLog, records_of};
use axum::http::StatusCode;
use odometer_ingest::gateway::GatewayOptions;
use odometer_ingest::log::{AppendError, LogAppender};
use odometer_schemas::definitions::Definitions;
use odometer_schemas::partition::partition_of;
use odometer_schemas::quantity::Quantity;
use odometer_schemas::time::TimeMs;
use serde_json::json;

const JSON: &str = "application/json";
const NDJSON: &str = "application/x-ndjson";

fn bench(log: &Arc<MemoryLog>) -> Bench {
    Bench::new(log.clone() as Arc<dyn LogAppender>, Definitions::built_in(), GatewayOptions::default())
}

fn line(id: &str, tenant: &str) -> String {
    format!(r#"{{"id":"{id}","tenant":"{tenant}","meter":"api_call","quantity":1}}"#)
}

#[test]
fn a_native_record_is_stored_as_it_came() {
    let log = MemoryLog::shared();
    let body = r#"{"id":"e\u0031","tenant":"acme","source":"w","meter":"llm.prompt_tokens","quantity":"12.0",
        "time":"2026-01-31T12:00:00.1239Z","subject":"u","dimensions":{"z":true,"model":"m","n":1.50,"none":null},
        "reservation":"r"}"#;
    let reply = bench(&log).call(&Call::new(JSON, body));
    assert_eq!(reply.status, StatusCode::ACCEPTED);
    let expected =
        json!({"stored":1,"refused":0,"records_stored":1,"results":[{"index":0,"id":"e1","status":"stored"}]});
    assert_eq!(reply.body, expected);
    let records = records_of(&log.entries());
    let record = &records[0];
    assert_eq!((record.id.as_deref(), record.source.as_str(), record.quantity), (Some("e1"), "w", Quantity(12)));
    assert_eq!(record.time, Some(TimeMs::parse_rfc3339("2026-01-31T12:00:00.123Z").unwrap()));
    assert_eq!((record.subject.as_deref(), record.reservation.as_deref()), (Some("u"), Some("r")));
    let dimensions = [("model", "m"), ("n", "1.50"), ("z", "true")];
    assert_eq!(record.dimensions, dimensions.map(|(n, v)| (n.to_owned(), v.to_owned())));
}

#[test]
fn a_line_is_refused_on_its_own() {
    let log = MemoryLog::shared();
    let bench = bench(&log);
    let body = [
        line("a", "t"),
        String::new(),
        "{broken".into(),
        line("b", "t").replace("api_call", "api_cal"),
        line("c", "u"),
    ];
    let reply = bench.call(&Call::new(NDJSON, body.join("\r\n")));
    assert_eq!(reply.status, StatusCode::ACCEPTED);
    assert_eq!((&reply.body["stored"], &reply.body["refused"]), (&json!(2), &json!(2)));
    assert_eq!(reply.result(1)["id"], json!(null));
    assert!(reply.result(1)["reason"].as_str().unwrap().starts_with("malformed: "));
    assert_eq!(reply.result(2)["id"], "b");
    assert!(reply.result(2)["reason"].as_str().unwrap().contains("did you mean `api_call`?"));
    assert_eq!(reply.result(3)["status"], "stored");
    assert_eq!(records_of(&log.entries()).len(), 2);
    let refused: Vec<_> = bench.gateway.counters().events_refused().filter(|(_, n)| *n > 0).collect();
    assert_eq!(refused.len(), 2);
}

#[test]
fn a_large_body_is_cut_into_envelopes_of_its_partitions() {
    let log = MemoryLog::shared();
    let lines: Vec<String> = (0..5000).map(|i| line(&format!("id-{i}"), &format!("tenant-{}", i % 50))).collect();
    let reply = bench(&log).call(&Call::new(NDJSON, lines.join("\n")));
    assert_eq!(reply.status, StatusCode::ACCEPTED);
    assert_eq!(reply.body["records_stored"], 5000);
    assert_eq!(reply.body["results"].as_array().unwrap().len(), 5000);
    for entry in log.entries() {
        for record in records_of(std::slice::from_ref(&entry)) {
            assert_eq!(partition_of(&record.tenant, MemoryLog::PARTITIONS), entry.partition);
        }
    }
    let mut ids: Vec<_> = records_of(&log.entries()).into_iter().map(|r| r.id.unwrap()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 5000);
}

#[test]
fn an_empty_array_is_stored_at_once() {
    let log = MemoryLog::shared();
    for content_type in [JSON, "application/cloudevents-batch+json"] {
        let reply = bench(&log).call(&Call::new(content_type, " [] "));
        assert_eq!(reply.status, StatusCode::ACCEPTED);
        assert_eq!(reply.body, json!({"stored":0,"refused":0,"records_stored":0,"results":[]}));
    }
    assert!(log.entries().is_empty());
}

#[test]
fn a_log_that_does_not_take_it_is_a_503_that_names_each_event() {
    let cases = [
        (AppendError::Busy, "log_unavailable: "),
        (AppendError::Unavailable("disk".into()), "unknown: "),
        (AppendError::Closed, "unknown: "),
    ];
    for (error, reason) in cases {
        let log = MemoryLog::shared();
        log.follow(vec![None, Some(error)]);
        // Two tenants of different partitions: one envelope each, the second fails.
        let (a, b) = two_partitions();
        let reply = bench(&log).call(&Call::new(NDJSON, [line("1", &a), line("2", &b), "{".into()].join("\n")));
        if reason.starts_with("log_unavailable") {
            // The first envelope got through, so the second was tried again.
            assert_eq!(reply.status, StatusCode::ACCEPTED);
            continue;
        }
        assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(reply.headers["retry-after"], "1");
        assert_eq!(reply.headers["content-type"], "application/problem+json");
        assert_eq!(reply.body["type"], "/problems/log-unavailable");
        assert_eq!((&reply.body["stored"], &reply.body["refused"]), (&json!(1), &json!(2)));
        assert!(reply.result(1)["reason"].as_str().unwrap().starts_with(reason), "{:?}", reply.body);
        assert!(reply.result(2)["reason"].as_str().unwrap().starts_with("malformed: "));
    }
}

#[test]
fn a_full_queue_is_a_503_at_once() {
    let log = MemoryLog::shared();
    log.follow(vec![Some(AppendError::Busy)]);
    let bench = bench(&log);
    let reply = bench.call(&Call::new(JSON, line("1", "t")));
    assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(reply.result(0)["reason"].as_str().unwrap().starts_with("log_unavailable: "));
    assert!(log.entries().is_empty());
    assert_eq!(bench.call(&Call::new(JSON, line("1", "t"))).status, StatusCode::ACCEPTED);
}

#[test]
fn a_silent_log_is_unknown_after_the_timeout_and_too_many_requests_are_turned_away() {
    let log = MemoryLog::shared();
    log.fall_silent();
    let options = GatewayOptions {
        append_timeout: Duration::from_millis(20),
        requests_in_flight_max: 1,
        ..GatewayOptions::default()
    };
    let bench = Bench::new(log.clone(), Definitions::built_in(), options);
    let calls = [Call::new(JSON, line("1", "t")), Call::new(JSON, line("2", "t"))];
    let replies = bench.call_all(&calls);
    assert!(replies.iter().all(|reply| reply.status == StatusCode::SERVICE_UNAVAILABLE));
    assert!(replies.iter().all(|reply| reply.headers["retry-after"] == "1"));
    assert!(replies[0].result(0)["reason"].as_str().unwrap().starts_with("unknown: "));
    assert_eq!(replies[1].body["type"], "/problems/overloaded");
    assert_eq!(log.entries().len(), 1);
}

/// Two tenants of different partitions.
fn two_partitions() -> (String, String) {
    let partition = |i: u32| partition_of(&format!("t{i}"), MemoryLog::PARTITIONS);
    let other = (1..).find(|i| partition(*i) != partition(0)).unwrap();
    ("t0".into(), format!("t{other}"))
}
