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
