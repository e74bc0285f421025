//! The emitter over HTTP: a small gateway that says what the real one says.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use odometer_ingest::emitter::http::{ConnectError, ENVELOPE_MEDIA_TYPE};
use odometer_ingest::emitter::{EmitError, Emitter, EmitterOptions, HttpTransport};
use odometer_ingest::log::LogAppender;
use tokio::net::TcpListener;

use crate::logs::{MemoryLog, counted, record};

struct Gateway {
    log: Arc<MemoryLog>,
    requests: AtomicUsize,
    /// What it answers to the first requests instead of taking them.
    first: Vec<StatusCode>,
}

async fn envelopes(
    State(gateway): State<Arc<Gateway>>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    assert_eq!(headers[header::CONTENT_TYPE], ENVELOPE_MEDIA_TYPE);
    let number = gateway.requests.fetch_add(1, Ordering::SeqCst);
    if let Some(status) = gateway.first.get(number) {
        let problem = r#"{"type":"about:blank","title":"Not now","detail":"the test says no"}"#;
        return (*status, [(header::RETRY_AFTER, "0")], problem).into_response();
    }
    let partition = query["partition"].parse().expect("a number");
    let stored = gateway.log.append(partition, body.to_vec()).wait().await.expect("the log takes it");
    format!(r#"{{"offset":{},"append_time_ms":{},"more":"is ignored"}}"#, stored.offset, stored.append_time.0)
        .into_response()
}

/// Starts a gateway; its address and what is behind it.
async fn serve(first: Vec<StatusCode>) -> (String, Arc<Gateway>) {
    let gateway = Arc::new(Gateway { log: MemoryLog::new(3), requests: AtomicUsize::new(0), first });
    let app = Router::new()
        .route("/v1/log", get(|| async { r#"{"partitions":3}"# }))
        .route("/v1/envelopes", post(envelopes))
        .with_state(Arc::clone(&gateway));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}/", listener.local_addr().expect("bound"));
    tokio::spawn(async { axum::serve(listener, app).await });
    (url, gateway)
}

async fn emitter(url: &str) -> Emitter {
    let transport = HttpTransport::connect(url).await.expect("a gateway answers");
    Emitter::start(Arc::new(transport), EmitterOptions::default()).expect("the options work")
}

#[tokio::test]
async fn envelopes_reach_a_gateway_that_is_unwell_at_first() {
    let first = [503, 500, 429, 408, 502].map(|status| StatusCode::from_u16(status).expect("a status"));
    let (url, gateway) = serve(first.to_vec()).await;
    let emitter = emitter(&url).await;
    let acks = emitter.emit_all((0..2000).map(record).collect()).await;
    emitter.flush().await.unwrap();
    assert!(emitter.retries() >= 5);
    let counted = counted(&gateway.log.entries());
    assert_eq!(counted.len(), 2000);
    for (n, ack) in (0..).zip(acks) {
        assert_eq!(counted[&ack.unwrap().outcome().unwrap().unwrap().position], record(n));
    }
}

#[tokio::test]
async fn a_refusal_is_passed_on_and_not_retried() {
    let (url, gateway) = serve(vec![StatusCode::BAD_REQUEST]).await;
    let emitter = emitter(&url).await;
    let error = emitter.emit(record(1)).await.unwrap().wait().await.unwrap_err();
    let EmitError::Unacknowledged { reason, may_be_stored: false } = error else { panic!("{error:?}") };
    assert!(reason.contains("400 Bad Request: the test says no"), "{reason}");
    emitter.emit(record(2)).await.unwrap().wait().await.unwrap();
    assert_eq!((gateway.requests.load(Ordering::SeqCst), emitter.retries()), (2, 0));
}

#[tokio::test]
async fn what_is_no_gateway_is_told_from_one_that_is_away() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let app = Router::new().route("/v1/log", get(|| async { r#"{"partitions":0}"# }));
    let server = tokio::spawn(async { axum::serve(listener, app).await });
    let error = HttpTransport::connect(&url).await.unwrap_err();
    assert!(matches!(error, ConnectError::NotAGateway { .. }) && !error.is_retryable(), "{error}");
    let error = HttpTransport::connect(&format!("{url}/elsewhere")).await.unwrap_err();
    assert!(error.to_string().contains("404"), "{error}");
    server.abort();
    let _ = server.await;
    let error = HttpTransport::connect(&url).await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
}
