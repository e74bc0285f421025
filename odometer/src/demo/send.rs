//! Requests in, answers counted. A request without an answer is sent again with the
//! same ids, so it counts once; after a few attempts it is given up.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use reqwest::header::CONTENT_TYPE;
use serde::Deserialize;

/// How long one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Attempts for one request. The demo is not worth more patience than seconds.
const ATTEMPTS_MAX: u32 = 5;
/// First pause between two attempts; it doubles.
const PAUSE: Duration = Duration::from_millis(100);

/// One request of the demo.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) form: Form,
    pub(super) body: String,
}

/// How events stand in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Native records, one a line.
    Ndjson,
    /// An array of CloudEvents.
    CloudEvents,
}

impl Form {
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Ndjson => "application/x-ndjson",
            Self::CloudEvents => "application/cloudevents-batch+json",
        }
    }
}

/// What became of the demo's events.
#[derive(Debug, Default)]
pub(super) struct Sent {
    /// Records that the log holds.
    pub(super) stored: AtomicU64,
    /// Events that were refused, as some are meant to be.
    pub(super) refused: AtomicU64,
    /// Requests that had no answer, or an error, until they were given up.
    pub(super) given_up: AtomicU64,
}

/// Sends to one server; cheap to clone.
#[derive(Clone)]
pub(super) struct Sender {
    client: reqwest::Client,
    endpoint: String,
    sent: Arc<Sent>,
}

/// The part of an answer that the demo looks at; all kinds of answers have it, except
/// problems with the request as a whole.
#[derive(Debug, Default, Deserialize)]
struct Answer {
    #[serde(default)]
    records_stored: u64,
    #[serde(default)]
    refused: u64,
}

impl Sender {
    pub(super) fn new(url: &str, sent: Arc<Sent>) -> reqwest::Result<Self> {
        let client = reqwest::Client::builder().no_proxy().timeout(REQUEST_TIMEOUT).build()?;
        Ok(Self { client, endpoint: format!("{url}/v1/events"), sent })
    }

    /// Sends until there is a final answer.
    pub(super) async fn send(&self, request: Request) {
        let mut pause = PAUSE;
        for _ in 0..ATTEMPTS_MAX {
            if let Some(answer) = self.attempt(&request).await {
                self.sent.stored.fetch_add(answer.records_stored, Relaxed);
                self.sent.refused.fetch_add(answer.refused, Relaxed);
                return;
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        self.sent.given_up.fetch_add(1, Relaxed);
    }

    /// The final answer, if this was one: a server that is busy or gone gives none.
    async fn attempt(&self, request: &Request) -> Option<Answer> {
        let post = self.client.post(&self.endpoint).header(CONTENT_TYPE, request.form.content_type());
        let answer = post.body(request.body.clone()).send().await.ok()?;
        if answer.status().is_server_error() {
            return None;
        }
        Some(answer.json().await.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::StatusCode;
    use axum::routing::post;

    async fn serve(answers: Vec<(StatusCode, &'static str)>) -> String {
        let answers = Arc::new(std::sync::Mutex::new(answers.into_iter()));
        let next = move || {
            let answer = answers.lock().unwrap().next();
            async move { answer.unwrap_or((StatusCode::IM_A_TEAPOT, "")) }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = axum::Router::new().route("/v1/events", post(next));
        tokio::spawn(async move { axum::serve(listener, router).await });
        url
    }

    #[tokio::test]
    async fn a_busy_server_is_asked_again_and_any_other_answer_is_final() {
        let url = serve(vec![
            (StatusCode::SERVICE_UNAVAILABLE, "{}"),
            (StatusCode::ACCEPTED, r#"{"records_stored":5,"refused":2}"#),
            (StatusCode::UNPROCESSABLE_ENTITY, "no JSON at all"),
            (StatusCode::BAD_REQUEST, r#"{"records_stored":0,"refused":1,"type":"/problems/all-refused"}"#),
        ])
        .await;
        let sent = Arc::new(Sent::default());
        let sender = Sender::new(&url, Arc::clone(&sent)).unwrap();
        for _ in 0..3 {
            sender.send(Request { form: Form::Ndjson, body: "{}".into() }).await;
        }
        let seen = [&sent.stored, &sent.refused, &sent.given_up].map(|counter| counter.load(Relaxed));
        assert_eq!(seen, [5, 3, 0]);
    }
}
