//! The HTTP surface: bodies in, answers out. Bounds what is under way; every rule
//! about content is elsewhere.

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, FailedToBufferBody};
use axum::extract::{DefaultBodyLimit, FromRequest, Query, Request, State};
use axum::http::header::{ACCEPT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use odometer_schemas::limits::ENVELOPE_BYTES_MAX;
use serde::Deserialize;

use super::Gateway;
use super::counters::add;
use super::form::{Door, MediaType};
use super::options::RETRY_AFTER_S;
use super::problem::{Problem, ProblemKind};
use super::remote::ENVELOPE_CONTENT_TYPE;
use super::sheet::Answer;

/// The routes of a gateway.
pub fn router(gateway: Gateway) -> Router {
    let body_bytes_max = gateway.options().body_bytes_max;
    let native = |State(gateway): State<Gateway>, request: Request| events(gateway, Door::Native, request);
    let open_meter = |State(gateway): State<Gateway>, request: Request| events(gateway, Door::OpenMeter, request);
    let event_routes = Router::new()
        .route("/v1/events", post(native))
        .route("/api/v1/events", post(open_meter))
        .layer(DefaultBodyLimit::max(body_bytes_max));
    let envelope_route =
        Router::new().route("/v1/envelopes", post(envelope)).layer(DefaultBodyLimit::max(ENVELOPE_BYTES_MAX));
    Router::new().route("/v1/log", get(log)).merge(event_routes).merge(envelope_route).with_state(gateway)
}

async fn events(gateway: Gateway, door: Door, request: Request) -> Response {
    let answer = async {
        let _place = gateway.enter()?;
        let headers = request.headers().clone();
        let body = receive(&gateway, request).await?;
        gateway.take(door, headers, body).await
    };
    match answer.await {
        Ok(answer) => answer.into_response(),
        Err(problem) => refuse(&gateway, &problem),
    }
}

#[derive(Deserialize)]
struct EnvelopeQuery {
    partition: u32,
}

async fn envelope(State(gateway): State<Gateway>, request: Request) -> Response {
    let appended = async {
        let _place = gateway.enter()?;
        let Query(EnvelopeQuery { partition }) = Query::try_from_uri(request.uri()).map_err(|e| {
            Problem::new(ProblemKind::BadParameter, e.body_text(), "give ?partition=N").field("partition")
        })?;
        let media = request.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).and_then(MediaType::parse);
        if media.is_none_or(|media| media.essence != ENVELOPE_CONTENT_TYPE) {
            let fix = "send application/vnd.odometer.envelope";
            let detail = "the content type is not that of a sealed envelope";
            return Err(Problem::new(ProblemKind::UnsupportedMediaType, detail, fix).field("content-type"));
        }
        let body = receive(&gateway, request).await?;
        gateway.take_envelope(partition, body).await
    };
    match appended.await {
        Ok(appended) => {
            let body = format!("{{\"offset\":{},\"append_time_ms\":{}}}", appended.offset, appended.append_time.0);
            json(StatusCode::OK, body.into_bytes())
        }
        Err(problem) => refuse(&gateway, &problem),
    }
}

async fn log(State(gateway): State<Gateway>) -> Response {
    json(StatusCode::OK, format!("{{\"partitions\":{}}}", gateway.partitions()).into_bytes())
}

/// The whole body, as it arrived.
async fn receive(gateway: &Gateway, request: Request) -> Result<Bytes, Problem> {
    let received = tokio::time::timeout(gateway.options().body_timeout, Bytes::from_request(request, &())).await;
    let body = match received {
        Ok(Ok(body)) => body,
        Ok(Err(BytesRejection::FailedToBufferBody(FailedToBufferBody::LengthLimitError(_)))) => {
            let detail = "the body is larger than is read here";
            return Err(Problem::new(ProblemKind::BodyTooLarge, detail, "send less in one request, or compress it"));
        }
        Ok(Err(_)) => {
            return Err(Problem::new(ProblemKind::BodyBroken, "the body ended early", "send the request again"));
        }
        Err(_) => {
            return Err(Problem::new(ProblemKind::BodyTimeout, "the body took too long", "send the request again"));
        }
    };
    add(&gateway.counters().body_bytes, body.len());
    Ok(body)
}

fn refuse(gateway: &Gateway, problem: &Problem) -> Response {
    let counters = gateway.counters();
    let is_ours = problem.kind.status().is_server_error();
    add(if is_ours { &counters.requests_unavailable } else { &counters.requests_refused }, 1);
    let mut response = json(problem.kind.status(), problem.to_json());
    if problem.kind == ProblemKind::UnsupportedEncoding {
        // RFC 9110, section 12.5.3: what would have been read.
        response.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip, zstd, identity"));
    }
    response
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        json(self.status, self.body)
    }
}

/// A JSON answer; a problem, when the status is no success.
fn json(status: StatusCode, body: Vec<u8>) -> Response {
    let content_type = if status.is_success() { "application/json" } else { "application/problem+json" };
    let mut response = (status, [(CONTENT_TYPE, content_type)], body).into_response();
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_S));
    }
    response
}
