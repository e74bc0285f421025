//! Quota over HTTP: what every answer of a node means to a run.

use std::time::Duration;

use axum::Router;
use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use odometer_ingest::emitter::quota::{AskError, Question, QuotaClient};
use odometer_ingest::emitter::{HttpQuota, HttpTransport};
use odometer_schemas::quota::{Answer, Decision, Durability, Release};
use tokio::net::TcpListener;

const ANSWER: &str = r#"{"decision":"deny","limits":[],"violated":["free/agents/tenant"],
    "as_of":"2026-11-21T00:00:00Z","lag_ms":0,"degraded":false}"#;

/// Answers with the status and the kind of problem that the reservation's id names.
async fn release(Path(id): Path<String>) -> impl IntoResponse {
    let (status, kind) = id.split_once('/').unwrap_or((&id, ""));
    let status = StatusCode::from_bytes(status.as_bytes()).expect("a status");
    let body = match kind {
        "answer" => ANSWER.to_owned(),
        kind => format!(r#"{{"type":"/problems/{kind}","title":"No","detail":"the test says no"}}"#),
    };
    (status, [(header::RETRY_AFTER, "3")], body)
}

async fn start() -> HttpQuota {
    let app = Router::new()
        .route("/v1/log", get(|| async { r#"{"partitions":1}"# }))
        .route("/v1/quota/reservations/{id}/release", post(release));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    tokio::spawn(async { axum::serve(listener, app).await });
    HttpTransport::connect(&url).await.expect("it answers").quota()
}

async fn ask(quota: &HttpQuota, id: &str) -> Result<Answer, AskError> {
    let (tenant, op_id, durability) = ("acme".into(), "1".into(), Durability::Strict);
    quota.ask(Question::Release(Release { tenant, id: id.into(), op_id, durability })).await
}

#[tokio::test]
async fn an_answer_is_told_from_a_reason_and_a_reason_from_an_outage() {
    let quota = start().await;
    for id in ["200/answer", "429/answer"] {
        assert_eq!(ask(&quota, id).await.unwrap().decision, Decision::Deny);
    }
    for id in ["503/quota-unavailable", "502/", "408/", "429/not-ours", "200/nonsense"] {
        let error = ask(&quota, id).await.unwrap_err();
        let AskError::Unavailable { retry_after, .. } = &error else { panic!("{id}: {error:?}") };
        assert_eq!(*retry_after, Some(Duration::from_secs(3)), "{id}");
    }
    for id in ["404/unknown", "409/reservation-ended"] {
        let error = ask(&quota, id).await.unwrap_err();
        assert!(matches!(error, AskError::Gone { .. }) && error.to_string().contains("the test says no"), "{id}");
    }
    for id in ["404/not-found", "409/id-reused", "422/bad-field", "307/"] {
        let error = ask(&quota, id).await.unwrap_err();
        assert!(matches!(error, AskError::Refused { .. }) && !error.is_retryable(), "{id}");
    }
}
