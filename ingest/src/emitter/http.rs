//! The way to a log behind a gateway: sealed envelopes out by HTTP, its answers back
//! as the log's own. Never looks into an envelope and never retries: the emitter does.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use odometer_schemas::limits::PARTITIONS_MAX;
use odometer_schemas::time::TimeMs;
use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Client, Response, StatusCode, redirect};
use serde::Deserialize;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::quota::HttpQuota;
use crate::log::{AppendError, Appended, LogAppender, PendingAppend};

/// The media type of one sealed envelope.
pub const ENVELOPE_MEDIA_TYPE: &str = "application/vnd.odometer.envelope";

/// How long one request may take. A commit takes milliseconds; a gateway that needs
/// longer than this has lost the request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// How long connecting may take, so that a host that is gone shows soon.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Requests under way at once; more envelopes than that are `Busy`. As many as a
/// gateway would queue for one client.
const REQUESTS_MAX: usize = 64;
/// The longest that a `Retry-After` is obeyed: recovery should be noticed within it.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);
/// Bytes read of an answer. Ours have some hundred.
const ANSWER_BYTES_MAX: usize = 16 * 1024;
/// Characters kept of a reason that the gateway gives.
const REASON_CHARS_MAX: usize = 500;

/// Appends to the log behind a gateway.
#[derive(Clone, Debug)]
pub struct HttpTransport {
    gate: Arc<Gate>,
    partitions: u32,
    runtime: Handle,
}

#[derive(Debug)]
struct Gate {
    client: Client,
    /// `{url}/v1/envelopes`.
    envelopes_url: String,
    /// `{url}/v1/quota/reservations`.
    quota_url: String,
    requests: Semaphore,
    /// Until then, the gateway wants to be left alone.
    not_before: Mutex<Option<Instant>>,
}

/// The gateway could not be asked about its log.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The gateway did not answer.
    #[error("no answer from {url}")]
    Unreachable {
        /// What was asked.
        url: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// The answer is not a gateway's.
    #[error("{url} answered {what}")]
    NotAGateway {
        /// What was asked.
        url: String,
        /// What came back.
        what: String,
    },
}

impl ConnectError {
    /// Whether connecting again may succeed.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }
}

#[derive(Deserialize)]
struct LogAnswer {
    partitions: u32,
}

#[derive(Deserialize)]
struct EnvelopeAnswer {
    offset: u64,
    append_time_ms: i64,
}

#[derive(Deserialize)]
struct Problem {
    title: Option<String>,
    detail: Option<String>,
}

impl HttpTransport {
    /// Asks the gateway at `url`, such as `http://127.0.0.1:8080`, how many partitions
    /// its log has. Requests run on the current tokio runtime.
    ///
    /// # Errors
    /// When there is no gateway at `url`.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn connect(url: &str) -> Result<Self, ConnectError> {
        let base = url.trim_end_matches('/');
        let quota_url = format!("{base}/v1/quota/reservations");
        let url = format!("{base}/v1/log");
        let unreachable = |source| ConnectError::Unreachable { url: url.clone(), source };
        let client = Client::builder()
            .timeout(REQUEST_TIMEOUT)
            .connect_timeout(CONNECT_TIMEOUT)
            // An answer from elsewhere would not be this log's.
            .redirect(redirect::Policy::none())
            .build()
            .map_err(unreachable)?;
        let response = client.get(&url).send().await.map_err(unreachable)?;
        let status = response.status();
        let body = body_of(response).await.map_err(unreachable)?;
        let answer = serde_json::from_slice::<LogAnswer>(&body).ok().filter(|_| status == StatusCode::OK);
        let partitions = answer.map(|answer| answer.partitions).filter(|n| (1..=PARTITIONS_MAX).contains(n));
        let not_a_gateway = || ConnectError::NotAGateway { url: url.clone(), what: reason_of(status, &body) };
        let partitions = partitions.ok_or_else(not_a_gateway)?;
        let gate = Gate {
            client,
            envelopes_url: format!("{base}/v1/envelopes"),
            quota_url,
            requests: Semaphore::new(REQUESTS_MAX),
            not_before: Mutex::new(None),
        };
        Ok(Self { gate: Arc::new(gate), partitions, runtime: Handle::current() })
    }

    /// Quota as the same place decides it, over the same connections.
    #[must_use]
    pub fn quota(&self) -> HttpQuota {
        HttpQuota::over(self.gate.client.clone(), self.gate.quota_url.clone())
    }
}

impl LogAppender for HttpTransport {
    fn partitions(&self) -> u32 {
        self.partitions
    }

    fn append(&self, partition: u32, envelope: Vec<u8>) -> PendingAppend {
        if self.gate.is_held_back() {
            return PendingAppend::ready(Err(AppendError::Busy));
        }
        let (answer, pending) = PendingAppend::channel();
        let gate = Arc::clone(&self.gate);
        // Ends with its request, at the latest when that times out; its outcome is
        // the answer, and a lost answer is one, too.
        self.runtime.spawn(async move {
            let outcome = match gate.requests.try_acquire() {
                Ok(_permit) => gate.post(partition, envelope).await,
                Err(_) => Err(AppendError::Busy),
            };
            // Whoever stopped waiting does not want to know.
            let _ = answer.send(outcome);
        });
        pending
    }
}

impl Gate {
    async fn post(&self, partition: u32, envelope: Vec<u8>) -> Result<Appended, AppendError> {
        let bytes = envelope.len();
        let url = format!("{}?partition={partition}", self.envelopes_url);
        let request = self.client.post(url).header(CONTENT_TYPE, ENVELOPE_MEDIA_TYPE).body(envelope);
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) => return Err(AppendError::Unavailable(describe(&error))),
        };
        let status = response.status();
        self.hold_back(&response);
        let body = body_of(response).await.map_err(|error| AppendError::Unavailable(describe(&error)))?;
        outcome_of(status, &body, bytes)
    }

    /// Notes for how long the gateway wants to be left alone.
    fn hold_back(&self, response: &Response) {
        if let Some(pause) = retry_after_of(response) {
            let pause = pause.min(RETRY_AFTER_MAX);
            *self.not_before.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + pause);
        }
    }

    fn is_held_back(&self) -> bool {
        let not_before = *self.not_before.lock().unwrap_or_else(PoisonError::into_inner);
        not_before.is_some_and(|at| Instant::now() < at)
    }
}

/// For how long an answer asks to be left alone.
pub(super) fn retry_after_of(response: &Response) -> Option<Duration> {
    // The other form, a date, is not ours.
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// What an answer to an envelope of `bytes` means.
fn outcome_of(status: StatusCode, body: &[u8], bytes: usize) -> Result<Appended, AppendError> {
    match status {
        StatusCode::OK => match serde_json::from_slice::<EnvelopeAnswer>(body) {
            Ok(answer) => Ok(Appended { offset: answer.offset, append_time: TimeMs(answer.append_time_ms) }),
            // It may be stored, so the same bytes may be sent again.
            Err(error) => Err(AppendError::Unavailable(format!("an answer that does not parse: {error}"))),
        },
        StatusCode::PAYLOAD_TOO_LARGE => Err(AppendError::TooLarge { bytes }),
        StatusCode::TOO_MANY_REQUESTS => Err(AppendError::Busy),
        StatusCode::REQUEST_TIMEOUT => Err(AppendError::Unavailable(reason_of(status, body))),
        _ if status.is_server_error() => Err(AppendError::Unavailable(reason_of(status, body))),
        _ => Err(AppendError::Refused(reason_of(status, body))),
    }
}

/// The status and what a problem+json body adds to it.
pub(super) fn reason_of(status: StatusCode, body: &[u8]) -> String {
    let problem = serde_json::from_slice::<Problem>(body).ok();
    match problem.and_then(|problem| problem.detail.or(problem.title)) {
        Some(detail) => format!("{status}: {}", detail.chars().take(REASON_CHARS_MAX).collect::<String>()),
        None => status.to_string(),
    }
}

/// The answer's body, as far as it is of a sensible size.
pub(super) async fn body_of(mut response: Response) -> Result<Vec<u8>, reqwest::Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        body.extend_from_slice(&chunk[..chunk.len().min(ANSWER_BYTES_MAX - body.len())]);
        if body.len() == ANSWER_BYTES_MAX {
            break;
        }
    }
    Ok(body)
}

/// An error with everything that caused it, on one line.
pub(super) fn describe(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_is_an_answer_or_a_reason() {
        let outcome =
            |status: u16, body: &str| outcome_of(StatusCode::from_u16(status).expect("a status"), body.as_bytes(), 7);
        let stored = outcome(200, r#"{"offset":9,"append_time_ms":5}"#);
        assert_eq!(stored, Ok(Appended { offset: 9, append_time: TimeMs(5) }));
        assert_eq!(outcome(413, ""), Err(AppendError::TooLarge { bytes: 7 }));
        assert_eq!(outcome(429, ""), Err(AppendError::Busy));
        let problem = r#"{"title":"Wrong partition","detail":"partition 9 of 4"}"#;
        assert_eq!(outcome(400, problem), Err(AppendError::Refused("400 Bad Request: partition 9 of 4".into())));
        for (status, is_retryable) in [(200, true), (202, false), (302, false), (404, false), (408, true), (415, false)]
        {
            assert_eq!(outcome(status, "{}").map_err(|e| e.is_retryable()), Err(is_retryable), "{status}");
        }
        for status in [500, 502, 503, 504] {
            let error = outcome(status, r#"{"title":"The log is down"}"#).expect_err("an error");
            assert!(error.is_retryable() && error.to_string().contains("The log is down"), "{error}");
        }
    }
}
