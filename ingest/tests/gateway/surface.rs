//! The routes themselves: remote envelopes, the log's size, headers of answers,
//! methods, and definitions that change under way.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{Method, Request};
use odometer_ingest::gateway::{Gateway, GatewayOptions, SharedDefinitions, router};
use odometer_ingest::log::AppendError;
use odometer_schemas::definitions::Definitions;
use odometer_schemas::envelope::{EnvelopeBuilder, Origin};
use odometer_schemas::meter::Meter;
use odometer_schemas::partition::partition_of;
use odometer_schemas::quantity::Quantity;
use odometer_schemas::record::Record;
use serde_json::json;
use tower::ServiceExt as _;

use crate::support::{Bench, Call, MemoryLog, TestLog as _};

const ENVELOPE: &str = "application/vnd.odometer.envelope";
const RECORD: &str = r#"{"id":"1","tenant":"t","meter":"api_call","quantity":1}"#;

fn bench(log: &std::sync::Arc<MemoryLog>) -> Bench {
    Bench::new(log.appender(), Definitions::built_in(), GatewayOptions::default())
}

/// An emitter's envelope of two records, one without an id of its own.
fn emitted() -> (u32, Vec<u8>) {
    let record = |id: Option<&str>| Record {
        tenant: "acme".into(),
        source: "worker".into(),
        id: id.map(Into::into),
        meter: "agent_minute".into(),
        quantity: Quantity(10_000),
        time: None,
        subject: None,
        dimensions: Vec::new(),
        reservation: None,
    };
    let mut builder = EnvelopeBuilder::new();
    builder.push_all(&[record(None), record(Some("own"))]).unwrap();
    let bytes = builder.seal(Origin { source: 7, epoch: 1, first_sequence: 40 });
    (partition_of("acme", MemoryLog::PARTITIONS), bytes)
}

#[test]
fn an_emitters_envelope_is_appended_as_it_is() {
    let log = MemoryLog::shared();
    let (partition, bytes) = emitted();
    let call = Call::new(ENVELOPE, bytes.clone()).to(&format!("/v1/envelopes?partition={partition}"));
    let reply = bench(&log).call(&call);
    assert_eq!(
        (reply.status.as_u16(), reply.body),
        (200, json!({"offset": 0, "append_time_ms": 1_700_000_000_000_i64}))
    );
    assert_eq!(reply.headers["content-type"], "application/json");
    let entries = log.entries();
    assert_eq!((entries.len(), entries[0].partition, &*entries[0].bytes), (1, partition, &*bytes));
}

#[test]
fn a_log_that_does_not_take_an_envelope_is_a_503() {
    let (partition, bytes) = emitted();
    let call = Call::new(ENVELOPE, bytes).to(&format!("/v1/envelopes?partition={partition}"));
    for (error, word) in
        [(AppendError::Busy, "not stored"), (AppendError::Unavailable("disk".into()), "may have been stored")]
    {
        let log = MemoryLog::shared();
        log.follow(vec![Some(error)]);
        let reply = bench(&log).call(&call);
        assert_eq!((reply.status.as_u16(), &reply.body["type"]), (503, &json!("/problems/log-unavailable")));
        assert_eq!(reply.headers["retry-after"], "1");
        assert!(reply.body["detail"].as_str().unwrap().contains(word), "{:?}", reply.body);
    }
}

#[test]
fn the_log_tells_its_partitions() {
    let log = MemoryLog::shared();
    let reply = bench(&log).call(&Call { method: Method::GET, ..Call::new("text/plain", "").to("/v1/log") });
    assert_eq!((reply.status.as_u16(), reply.body), (200, json!({"partitions": 4})));
}

#[test]
fn answers_carry_the_headers_that_clients_need() {
    let log = MemoryLog::shared();
    let bench = bench(&log);
    let stored = bench.call(&Call::new("application/json", RECORD));
    assert_eq!((stored.status.as_u16(), &stored.headers["content-type"]), (202, &"application/json".parse().unwrap()));
    let encoding = bench.call(&Call::new("application/json", RECORD).header("content-encoding", "br"));
    assert_eq!(
        (encoding.status.as_u16(), &encoding.headers["accept-encoding"]),
        (415, &"gzip, zstd, identity".parse().unwrap())
    );
    for (method, path) in [(Method::GET, "/v1/events"), (Method::PUT, "/api/v1/events"), (Method::POST, "/v1/log")] {
        let call = Call { method: method.clone(), ..Call::new("application/json", RECORD).to(path) };
        assert_eq!(bench.call(&call).status.as_u16(), 405, "{method} {path}");
    }
}

#[test]
fn a_compressed_body_is_the_same_body() {
    let lines: Vec<String> = (0..1000).map(|i| RECORD.replace("\"1\"", &format!("\"{i}\""))).collect();
    let plain = lines.join("\n");
    let halves = plain.split_at(plain.len() / 2);
    let frames = [halves.0, halves.1].map(|half| zstd::encode_all(half.as_bytes(), 3).unwrap()).concat();
    for (encoding, body) in [("zstd", frames), ("identity", plain.into_bytes())] {
        let log = MemoryLog::shared();
        let reply = bench(&log).call(&Call::new("application/ndjson", body).header("content-encoding", encoding));
        assert_eq!((reply.status.as_u16(), &reply.body["stored"]), (202, &json!(1000)), "{encoding}");
        assert_eq!(log.records().len(), 1000);
    }
}

#[test]
fn new_definitions_hold_from_the_next_request_on() {
    let log = MemoryLog::shared();
    let definitions = SharedDefinitions::new(Definitions::with_meters(Vec::new()));
    let routes = router(Gateway::new(log.appender(), definitions.clone(), GatewayOptions::default()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let status = || {
        let request = Request::post("/v1/events").header("content-type", "application/json");
        let response = routes.clone().oneshot(request.body(Body::from(RECORD)).unwrap());
        runtime.block_on(response).unwrap().status().as_u16()
    };
    assert_eq!(status(), 400);
    definitions.store(Definitions::with_meters(Meter::built_in()));
    assert_eq!(status(), 202);
}

/// A body of which nothing ever arrives.
struct Stalled;

impl http_body::Body for Stalled {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        std::task::Poll::Pending
    }
}

#[test]
fn a_body_that_never_comes_gives_its_place_back() {
    let log = MemoryLog::shared();
    let options = GatewayOptions {
        body_timeout: Duration::from_millis(10),
        requests_in_flight_max: 1,
        ..GatewayOptions::default()
    };
    let definitions = SharedDefinitions::new(Definitions::built_in());
    let routes = router(Gateway::new(log.appender(), definitions, options));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let status = |body: Body| {
        let request = Request::post("/v1/events").header("content-type", "application/json").body(body).unwrap();
        runtime.block_on(routes.clone().oneshot(request)).unwrap().status().as_u16()
    };
    assert_eq!(status(Body::new(Stalled)), 408);
    assert_eq!(status(Body::from(RECORD)), 202);
}
