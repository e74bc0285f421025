//! `odometer replay` as a user runs it, against a stand-in for the gateway that
//! answers as each test needs.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde_json::{Value, json};

/// Answers a request by its number, from 0, and its records.
type Respond = dyn Fn(usize, &[Value]) -> Response + Send + Sync;

/// A stand-in for the gateway.
struct Stub {
    url: String,
    requests: Arc<Mutex<Vec<Vec<Value>>>>,
    _runtime: tokio::runtime::Runtime,
}

#[derive(Clone)]
struct StubState {
    requests: Arc<Mutex<Vec<Vec<Value>>>>,
    respond: Arc<Respond>,
}

impl Stub {
    fn start(respond: impl Fn(usize, &[Value]) -> Response + Send + Sync + 'static) -> Self {
        Self::start_on(TcpListener::bind("127.0.0.1:0").unwrap(), respond)
    }

    fn start_on(listener: TcpListener, respond: impl Fn(usize, &[Value]) -> Response + Send + Sync + 'static) -> Self {
        let url = format!("http://{}", listener.local_addr().unwrap());
        listener.set_nonblocking(true).unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let state = StubState { requests: Arc::clone(&requests), respond: Arc::new(respond) };
        let router =
            Router::new().route("/v1/events", post(events)).layer(DefaultBodyLimit::disable()).with_state(state);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            axum::serve(listener, router).await.unwrap();
        });
        Self { url, requests, _runtime: runtime }
    }

    fn records(&self) -> Vec<Value> {
        self.requests.lock().unwrap().concat()
    }
}

async fn events(State(stub): State<StubState>, headers: HeaderMap, body: Bytes) -> Response {
    assert_eq!(headers["content-type"], "application/x-ndjson");
    let text = match headers.get("content-encoding").map(|v| v.to_str().unwrap()) {
        None => body.to_vec(),
        Some("zstd") => zstd::stream::decode_all(&body[..]).unwrap(),
        Some("gzip") => {
            let mut text = Vec::new();
            std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&body[..]), &mut text).unwrap();
            text
        }
        Some(other) => panic!("unknown encoding {other}"),
    };
    let records: Vec<Value> =
        str::from_utf8(&text).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let number = {
        let mut requests = stub.requests.lock().unwrap();
        requests.push(records.clone());
        requests.len() - 1
    };
    (stub.respond)(number, &records)
}

fn stored(records: &[Value]) -> Response {
    let result = |(index, record): (usize, &Value)| json!({"index": index, "id": record["id"], "status": "stored"});
    let results: Vec<Value> = records.iter().enumerate().map(result).collect();
    let body = json!({"stored": records.len(), "refused": 0, "results": results});
    (StatusCode::ACCEPTED, body.to_string()).into_response()
}

/// A trace of rows a second apart, and its map.
struct Trace {
    folder: tempfile::TempDir,
}

impl Trace {
    fn of(rows: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut text = "at,who,n\r\n".to_owned();
        for row in 0..rows {
            text.push_str(&format!("{row},tenant-{},{row}\r\n", row % 3));
        }
        std::fs::write(folder.path().join("trace.csv"), text).unwrap();
        let map = "source = 'test'\nformat = 'csv'\n[time]\nfield = 'at'\nunit = 's'\n\
                   origin = '2026-01-01T00:00:00Z'\n[tenant]\nfield = 'who'\n\
                   [[record]]\nmeter = 'm'\nquantity = { field = 'n' }\n";
        std::fs::write(folder.path().join("map.toml"), map).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, url: &str, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_odometer"));
        command.arg("replay").arg(self.path("trace.csv")).arg("--map").arg(self.path("map.toml"));
        command.args(["--url", url, "--json"]).args(more);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn replay(&self, url: &str, more: &[&str]) -> (i32, Value) {
        report(&self.command(url, more).output().unwrap())
    }
}

fn report(output: &Output) -> (i32, Value) {
    let code = output.status.code().unwrap();
    let report = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    (code, report)
}

/// An address where nothing listens.
fn unused_address() -> std::net::SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[test]
fn everything_stored_is_reported_and_exits_0() {
    let stub = Stub::start(|_, records| stored(records));
    let (code, report) = Trace::of(2500).replay(&stub.url, &["--tenants", "2"]);
    assert_eq!(code, 0, "{report}");
    for key in ["records_sent", "records_acknowledged"] {
        assert_eq!(report[key], 5000, "{key}");
    }
    assert_eq!((&report["records_refused"], &report["rows"]), (&json!(0), &json!(2500)));
    for key in ["elapsed_s", "records_per_s"] {
        assert!(report[key].as_f64().unwrap() > 0.0, "{key}");
    }
    for key in ["p50", "p99", "p999"] {
        assert!(report["ack_ms"][key].as_f64().unwrap() > 0.0, "{key}");
    }
    let records = stub.records();
    let sum: u64 = records.iter().map(|record| record["quantity"].as_u64().unwrap()).sum();
    assert_eq!((records.len(), sum), (5000, 2 * 2499 * 2500 / 2));
    assert!(records.iter().any(|record| record["tenant"] == "tenant-0#2"));
}

#[test]
fn the_same_file_and_map_send_the_same_records_every_time() {
    let stub = Stub::start(|_, records| stored(records));
    let trace = Trace::of(1500);
    let run = |more: &[&str]| {
        assert_eq!(trace.replay(&stub.url, more).0, 0);
        let mut records: Vec<String> = stub.records().iter().map(ToString::to_string).collect();
        stub.requests.lock().unwrap().clear();
        records.sort();
        records
    };
    let first = run(&[]);
    assert_eq!(first.len(), 1500);
    assert_eq!(run(&["--compress", "gzip", "--in-flight", "1"]), first);
    assert_eq!(run(&["--compress", "zstd", "--speed", "1000000"]), first);
}

#[test]
fn what_is_not_answered_is_sent_again_with_the_same_ids() {
    let stub = Stub::start(|number, records| match number {
        0 => (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "0")], "{\"title\":\"log busy\"}").into_response(),
        1 => (StatusCode::INTERNAL_SERVER_ERROR, "").into_response(),
        _ => stored(records),
    });
    let (code, report) = Trace::of(10).replay(&stub.url, &[]);
    assert_eq!((code, &report["records_sent"], &report["requests_retried"]), (0, &json!(10), &json!(2)), "{report}");
    let requests = stub.requests.lock().unwrap();
    assert_eq!(requests.len(), 3);
    assert!(requests.iter().all(|request| *request == requests[0]));
}

#[test]
fn a_server_that_comes_back_is_found_again() {
    let address = unused_address();
    let trace = Trace::of(10);
    let child = trace.command(&format!("http://{address}"), &[]).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let stub = Stub::start_on(TcpListener::bind(address).unwrap(), |_, records| stored(records));
    let (code, report) = report(&child.wait_with_output().unwrap());
    assert_eq!((code, &report["records_acknowledged"]), (0, &json!(10)), "{report}");
    assert_eq!(stub.records().len(), 10);
}

#[test]
fn a_server_that_stays_away_is_given_up() {
    let url = format!("http://{}", unused_address());
    let (code, report) = Trace::of(10).replay(&url, &["--retry-for", "200ms"]);
    assert_eq!((code, &report["records_acknowledged"], &report["records_unanswered"]), (1, &json!(0), &json!(10)));
    assert!(report["stopped"].as_str().unwrap().starts_with("gave up after 0.2 s of trying again: "), "{report}");
    assert_eq!(report["ack_ms"]["p50"], Value::Null);
}

#[test]
fn refusals_are_counted_with_their_reasons_and_exit_1() {
    let stub = Stub::start(|_, records| {
        let result = |(index, record): (usize, &Value)| match index % 5 {
            0 => json!({"index": index, "id": record["id"], "status": "refused", "reason": "unknown_meter",
                        "field": "meter"}),
            _ => json!({"index": index, "id": record["id"], "status": "stored"}),
        };
        let results: Vec<Value> = records.iter().enumerate().map(result).collect();
        let body = json!({"stored": 8, "refused": 2, "results": results});
        (StatusCode::ACCEPTED, body.to_string()).into_response()
    });
    let (code, report) = Trace::of(10).replay(&stub.url, &[]);
    assert_eq!((code, &report["records_refused"], &report["records_acknowledged"]), (1, &json!(2), &json!(8)));
    assert_eq!(report["refusals"], json!([{"reason": "meter: unknown_meter", "records": 2, "example_id": "1"}]));
}

#[test]
fn a_request_refused_as_a_whole_counts_as_refused() {
    for (status, body) in [
        (StatusCode::BAD_REQUEST, json!({"title": "all refused", "stored": 0, "refused": 10, "results": []})),
        (StatusCode::PAYLOAD_TOO_LARGE, json!({"title": "too large", "detail": "the body has too many bytes"})),
    ] {
        let stub = Stub::start(move |_, _| (status, body.to_string()).into_response());
        let (code, report) = Trace::of(10).replay(&stub.url, &[]);
        assert_eq!((code, &report["records_refused"]), (1, &json!(10)), "{report}");
        assert_eq!(stub.requests.lock().unwrap().len(), 1, "what is refused is not sent again");
    }
}

#[test]
fn an_answer_that_makes_no_sense_ends_the_replay() {
    let answers = [
        (StatusCode::NOT_FOUND, "", "is there an odometer at --url?"),
        (StatusCode::OK, "hello", "has no `stored` and `refused`"),
        (StatusCode::ACCEPTED, "{\"stored\":9,\"refused\":0}", "counts 9 stored and 0 refused records of 10 sent"),
    ];
    for (status, body, expected) in answers {
        let stub = Stub::start(move |_, _| (status, body).into_response());
        let (code, report) = Trace::of(10).replay(&stub.url, &[]);
        assert_eq!((code, &report["records_unanswered"]), (1, &json!(10)), "{report}");
        assert!(report["stopped"].as_str().unwrap().contains(expected), "{report}");
    }
}

#[test]
fn ctrl_c_waits_for_what_is_in_flight_reports_and_exits_130() {
    let stub = Stub::start(|_, records| stored(records));
    // The second row is due after a second of trace time: hours away at this speed.
    let trace = Trace::of(2);
    let child = trace.command(&stub.url, &["--speed", "0.0001"]).spawn().unwrap();
    while stub.requests.lock().unwrap().is_empty() {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let (code, report) = report(&child.wait_with_output().unwrap());
    assert_eq!((code, &report["records_acknowledged"], &report["stopped"]), (130, &json!(1), &json!("interrupted")));
}

#[test]
fn a_bad_row_exits_1_unless_it_may_be_skipped() {
    let stub = Stub::start(|_, records| stored(records));
    let trace = Trace::of(3);
    let file = trace.path("trace.csv");
    let text = std::fs::read_to_string(&file).unwrap() + "3,x,lots\r\n";
    std::fs::write(&file, text).unwrap();
    let (code, report) = trace.replay(&stub.url, &[]);
    assert_eq!((code, &report["records_acknowledged"]), (1, &json!(3)));
    let stopped = report["stopped"].as_str().unwrap();
    assert!(stopped.contains("row 4 (line 5): field `n` is no quantity: `lots` not a decimal number"), "{stopped}");
    let (code, report) = trace.replay(&stub.url, &["--on-error", "skip"]);
    assert_eq!((code, &report["rows_skipped"], &report["records_acknowledged"]), (0, &json!(1), &json!(3)));
}

#[test]
fn wrong_usage_exits_2_and_a_wrong_map_1() {
    let trace = Trace::of(1);
    for more in [["--speed", "0"], ["--tenants", "0"], ["--repeat", "x"], ["--url", "https://x"], ["--retry-for", "5"]]
    {
        let mut command = Command::new(env!("CARGO_BIN_EXE_odometer"));
        let output = command.args(["replay", "f", "--map", "m"]).args(more).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{more:?}");
    }
    std::fs::write(trace.path("map.toml"), "source = 's'\nformat = 'csv'\n").unwrap();
    let output = trace.command("http://127.0.0.1:1", &[]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("map.toml") && error.contains("missing field `tenant`"), "{error}");
}
