//! Every malformed request gets its documented answer, and disturbs nothing else.

mod bodies;
mod envelopes;
mod events;
mod fields;
pub(crate) mod table;

use std::collections::BTreeSet;

use odometer_ingest::gateway::GatewayOptions;
use odometer_schemas::definitions::Definitions;
use odometer_schemas::meter::{Aggregation, Meter};

use crate::stored::StoredLog;
use crate::support::{Bench, Call, MemoryLog, Reply, TestLog};

/// A malformed request and what is documented of it.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) call: Call,
    pub(crate) expected: Expected,
}

/// What a malformed request is answered with.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Expected {
    /// 400; the first event's reason begins with this word and names this field.
    Refused(&'static str, Option<&'static str>),
    /// This status and problem `type`, and the field that it names.
    Problem(u16, &'static str, Option<&'static str>),
}

/// Limits that a test can reach.
pub(crate) fn small_limits() -> GatewayOptions {
    GatewayOptions {
        body_bytes_max: 256 * 1024,
        inflated_bytes_max: 512 * 1024,
        records_max: 100,
        ..GatewayOptions::default()
    }
}

/// The built-in meters, one with two digits after the point, and one that counts
/// distinct texts.
pub(crate) fn definitions() -> Definitions {
    let mut meters = Meter::built_in();
    let base = meters[2].clone();
    meters.push(Meter { name: "cost".into(), scale: 2, event_type: None, ..base.clone() });
    meters.push(Meter {
        name: "users".into(),
        aggregation: Aggregation::UniqueCount,
        event_type: Some("login".into()),
        value: Some("$.user".into()),
        ..base
    });
    Definitions::with_meters(meters)
}

#[test]
fn every_malformed_request_has_its_answer_and_disturbs_nothing() {
    check_all(&MemoryLog::shared());
}

#[test]
fn every_malformed_request_before_the_embedded_log() {
    check_all(&StoredLog::embedded());
}

#[test]
fn every_malformed_request_before_kafka() {
    check_all(&StoredLog::kafka());
}

/// Runs the table on any log.
fn check_all(log: &impl TestLog) {
    let bench = Bench::new(log.appender(), definitions(), small_limits());
    let cases = table::all(bench.gateway.partitions());
    let names: BTreeSet<_> = cases.iter().map(|case| &case.name).collect();
    assert_eq!(names.len(), cases.len(), "two cases share a name");
    assert!(cases.len() >= 70, "only {} cases", cases.len());
    println!("{} malformed requests", cases.len());
    let id = |number: usize| format!("good-{number}");
    for (number, case) in cases.iter().enumerate() {
        check(case, &bench.call(&case.call));
        let body = format!(r#"{{"id":"{}","tenant":"acme","meter":"api_call","quantity":1}}"#, id(number));
        let reply = bench.call(&Call::new("application/json", body));
        assert_eq!(reply.status.as_u16(), 202, "after {}: {:?}", case.name, reply.body);
    }
    // The good ones alone, in their order: all are of one tenant.
    let found: Vec<_> = log.records().into_iter().filter_map(|record| record.id).collect();
    let expected: Vec<_> = (0..cases.len()).map(id).collect();
    assert_eq!(found, expected);
}

fn check(case: &Case, reply: &Reply) {
    let name = &case.name;
    let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
    assert_eq!(reply.headers["content-type"], "application/problem+json", "{name}: {:?}", reply.body);
    let (status, kind, field, named) = match case.expected {
        Expected::Refused(word, field) => {
            let result = reply.result(0);
            let reason = text(&result["reason"]).unwrap_or_else(|| panic!("{name}: {:?}", reply.body));
            assert!(reason.starts_with(&format!("{word}: ")), "{name}: {reason}");
            assert!(reason.len() < 1000, "{name}: a reason of {} bytes", reason.len());
            assert_eq!(result["status"], "refused", "{name}");
            (400, "all-refused", field, text(&result["field"]))
        }
        Expected::Problem(status, kind, field) => (status, kind, field, text(&reply.body["field"])),
    };
    assert_eq!(reply.status.as_u16(), status, "{name}: {:?}", reply.body);
    assert_eq!(reply.body["type"], format!("/problems/{kind}"), "{name}: {:?}", reply.body);
    assert_eq!(reply.body["status"], status, "{name}");
    assert_eq!(named.as_deref(), field, "{name}: {:?}", reply.body);
    assert!(!text(&reply.body["detail"]).unwrap_or_default().is_empty(), "{name}");
    assert!(!text(&reply.body["fix"]).unwrap_or_default().is_empty(), "{name}");
}

#[test]
fn ids_that_differ_only_where_parts_are_joined_are_two() {
    let log = MemoryLog::shared();
    let bench = Bench::new(log.appender(), definitions(), small_limits());
    let lines = [("ab", "s", "c"), ("a", "s", "bc"), ("a", "sb", "c"), ("a", "s/b", "c"), ("a", "s", "b/c")]
        .map(|(t, s, id)| format!(r#"{{"id":"{id}","source":"{s}","tenant":"{t}","meter":"api_call","quantity":1}}"#));
    let reply = bench.call(&Call::new("application/x-ndjson", lines.join("\n")));
    assert_eq!((reply.status.as_u16(), &reply.body["stored"]), (202, &5.into()));
    let keys: BTreeSet<_> = log.records().into_iter().map(|r| (r.tenant, r.source, r.id)).collect();
    assert_eq!(keys.len(), 5);
}

#[test]
fn what_stands_at_a_limit_is_stored() {
    let log = MemoryLog::shared();
    let bench = Bench::new(log.appender(), definitions(), small_limits());
    let dimensions: Vec<String> = (0..16).map(|i| format!(r#""{i:0>64}":"{}""#, "v".repeat(256))).collect();
    let (id, tenant, source, subject) = ("i".repeat(256), "t".repeat(128), "s".repeat(256), "u".repeat(256));
    let body = format!(
        r#"{{"id":"{id}","tenant":"{tenant}","source":"{source}","subject":"{subject}","meter":"cost",
            "quantity":92233720368547758.07,"time":"2199-12-31T23:59:59.999Z","dimensions":{{{}}}}}"#,
        dimensions.join(",")
    );
    let reply = bench.call(&Call::new("application/json; charset=UTF-8", body));
    assert_eq!(reply.status.as_u16(), 202, "{:?}", reply.body);
    let records = log.records();
    assert_eq!((records[0].quantity.0, records[0].dimensions.len()), (i64::MAX, 16));
}
