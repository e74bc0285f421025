//! Any bytes under any content type get a documented answer, and never a panic.

use odometer_ingest::gateway::Gateway;
use proptest::prelude::*;

use crate::malformed::{definitions, small_limits};
use crate::support::{Bench, Call, MemoryLog, TestLog as _};

const CONTENT_TYPES: [&str; 8] = [
    "application/json",
    "application/x-ndjson",
    "application/cloudevents+json",
    "application/cloudevents-batch+json",
    "application/json; charset=utf-8",
    "application/vnd.odometer.envelope",
    "image/png",
    "text/plain",
];
const PATHS: [&str; 3] = ["/v1/events", "/api/v1/events", "/v1/envelopes?partition=0"];
const ENCODINGS: [Option<&str>; 4] = [None, Some("gzip"), Some("zstd"), Some("identity")];
const DOCUMENTED: [u16; 6] = [200, 202, 400, 413, 415, 422];

/// A body that says much, so that damage to it reaches far.
const BODY: &str = r#"[{"id":"a","tenant":"t","meter":"cost","quantity":1.25,"time":"2026-01-31T12:00:00Z","dimensions":{"d":"v"}},
 {"specversion":"1.0","id":"b","source":"/s","type":"odometer.llm","subject":"t","data":{"prompt_tokens":"12","model":"m"}},
 {"specversion":"1.0","id":"c","source":"/s","type":"login","tenant":"t","data_base64":"eyJ1c2VyIjoieCJ9"}]"#;

fn call() -> impl Strategy<Value = Call> {
    let bytes = prop::collection::vec(any::<u8>(), 0..200);
    let damaged = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4).prop_map(|hits| {
        let mut bytes = BODY.as_bytes().to_vec();
        for (at, value) in hits {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        bytes
    });
    let cut = any::<prop::sample::Index>().prop_map(|at| BODY.as_bytes()[..at.index(BODY.len())].to_vec());
    let json = "[\\[\\]{}\":,0-9a-e\\\\. \n-]{0,60}".prop_map(String::into_bytes);
    let header =
        prop::option::of(("ce-(id|type|time|tenant|subject|specversion|x)", prop::collection::vec(32_u8..=255, 0..20)));
    let body = prop_oneof![bytes, damaged, cut, json];
    let heads = (prop::sample::select(&CONTENT_TYPES), prop::sample::select(&PATHS), prop::sample::select(&ENCODINGS));
    (heads, header, body).prop_map(|((content_type, path, encoding), header, body)| {
        let mut call = Call::new(content_type, body).to(path);
        if let Some(encoding) = encoding {
            call = call.header("content-encoding", encoding);
        }
        if let Some((name, value)) = header {
            let value: Vec<u8> = value.into_iter().filter(|b| *b != 127).collect();
            call = call.header(&name, value);
        }
        call
    })
}

#[test]
fn the_undamaged_body_is_stored() {
    let log = MemoryLog::shared();
    let bench = Bench::new(log.appender(), definitions(), small_limits());
    assert_eq!(bench.call(&Call::new("application/json", BODY)).body["stored"], 3);
    assert_eq!(log.records().len(), 3);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_request_has_a_documented_answer(calls in prop::collection::vec(call(), 1..4)) {
        let log = MemoryLog::shared();
        let bench = Bench::new(log.appender(), definitions(), small_limits());
        let mut stored = 0;
        for call in &calls {
            let reply = bench.call(call);
            prop_assert!(DOCUMENTED.contains(&reply.status.as_u16()), "{call:?}: {reply:?}");
            stored += reply.body["records_stored"].as_u64().unwrap_or(0);
        }
        // What was said to be stored is what the log holds.
        prop_assert_eq!(stored, log.records().len() as u64);
        prop_assert_eq!(stored, records_counted(&bench.gateway));
    }
}

fn records_counted(gateway: &Gateway) -> u64 {
    gateway.counters().records_stored.load(std::sync::atomic::Ordering::Relaxed)
}
