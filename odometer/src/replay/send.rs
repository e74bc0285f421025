//! Batches in, acknowledgements counted: several requests in flight over kept-alive
//! connections. A batch without an answer is sent again with the same ids, so it
//! counts once.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex as StdMutex};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use tokio::sync::{Mutex, mpsc};

use super::answer::{self, Answer, Reasons};
use super::batch::{Batch, Compression};
use super::log::LogDoor;
use super::stop::{Stop, StopReason};

/// How long one request may take before it counts as unanswered.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// First pause before a batch is sent again; doubles up to the last.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
/// Last pause: a server that restarts is found within two seconds.
const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// Longest answer that is read. A thousand results take some 100 KiB.
const ANSWER_BYTES_MAX: usize = 8 << 20;
/// Longest latency that the histogram tells apart, in microseconds: an hour.
const LATENCY_US_MAX: u64 = 3_600_000_000;
/// Significant digits of the histogram.
const LATENCY_DIGITS: u8 = 3;

/// Where batches go.
#[derive(Clone)]
pub(super) enum Door {
    /// `http://HOST:PORT/v1/events`, with how bodies are compressed.
    Gateway(String, Compression),
    /// Straight into the log.
    Log(Arc<LogDoor>),
}

/// Where and how batches are sent.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) door: Door,
    /// How long a batch is tried again.
    pub(super) retry_for: Duration,
    /// Requests at a time.
    pub(super) in_flight: usize,
}

/// What a progress display reads while senders run.
#[derive(Debug, Default)]
pub(super) struct Live {
    pub(super) acknowledged: AtomicU64,
    pub(super) refused: AtomicU64,
    /// Why batches wait, while they do.
    pub(super) waiting: StdMutex<Option<String>>,
}

/// What senders have to tell.
#[derive(Debug)]
pub(super) struct Tally {
    /// Records that were sent, each counted once.
    pub(super) sent: u64,
    /// Records that the server has durably.
    pub(super) acknowledged: u64,
    /// Records that the server does not take.
    pub(super) refused: u64,
    /// Requests that had to be sent again.
    pub(super) retries: u64,
    /// Microseconds from when a record was meant to be sent to its acknowledgement.
    pub(super) latency_us: Histogram<u64>,
    pub(super) reasons: Reasons,
    /// When the last answer came.
    pub(super) last_answer: Option<Instant>,
}

impl Tally {
    fn new() -> Self {
        let latency_us = Histogram::new_with_bounds(1, LATENCY_US_MAX, LATENCY_DIGITS)
            .expect("constant bounds of the histogram are valid");
        Self {
            sent: 0,
            acknowledged: 0,
            refused: 0,
            retries: 0,
            latency_us,
            reasons: Reasons::default(),
            last_answer: None,
        }
    }

    fn merge(&mut self, other: Self) {
        self.sent += other.sent;
        self.acknowledged += other.acknowledged;
        self.refused += other.refused;
        self.retries += other.retries;
        self.latency_us.add(&other.latency_us).expect("both histograms have the same constant bounds");
        self.reasons.merge(other.reasons);
        self.last_answer = self.last_answer.max(other.last_answer);
    }
}

/// Sends what comes out of `batches` until it is closed, or sending fails for good.
///
/// # Errors
/// When the client cannot be built, or a sender ended unexpectedly.
pub(super) async fn send_all(
    target: Target,
    batches: mpsc::Receiver<Batch>,
    stop: Stop,
    live: Arc<Live>,
) -> anyhow::Result<Tally> {
    let client = reqwest::Client::builder()
        .no_proxy()
        .tcp_nodelay(true)
        .pool_max_idle_per_host(target.in_flight)
        .timeout(REQUEST_TIMEOUT)
        .build()?;
    let in_flight = target.in_flight;
    let sender = Arc::new(Sender { client, target, stop, live });
    let batches = Arc::new(Mutex::new(batches));
    let tasks: Vec<_> = (0..in_flight).map(|_| tokio::spawn(Arc::clone(&sender).run(Arc::clone(&batches)))).collect();
    drop(batches);
    let mut total = Tally::new();
    for task in tasks {
        total.merge(task.await?);
    }
    Ok(total)
}

struct Sender {
    client: reqwest::Client,
    target: Target,
    stop: Stop,
    live: Arc<Live>,
}

impl Sender {
    async fn run(self: Arc<Self>, batches: Arc<Mutex<mpsc::Receiver<Batch>>>) -> Tally {
        let mut tally = Tally::new();
        loop {
            let batch = batches.lock().await.recv().await;
            let Some(batch) = batch else { return tally };
            tally.sent += u64::from(batch.records);
            match self.deliver(&batch, &mut tally).await {
                Some(Answer::Judged { stored, refused, refusals }) => {
                    self.count(&batch, stored, refused, &mut tally);
                    tally.reasons.add(refusals);
                }
                Some(Answer::Never(problem) | Answer::Later { problem, .. }) => {
                    self.stop.request(StopReason::Failed(problem));
                    return tally;
                }
                // Interrupted while the server was away.
                None => return tally,
            }
        }
    }

    /// Sends a batch until it has an answer, or its time is up.
    async fn deliver(&self, batch: &Batch, tally: &mut Tally) -> Option<Answer> {
        let mut backoff = BACKOFF_MIN;
        let mut give_up = None;
        loop {
            let answer = self.post(batch).await;
            let Answer::Later { retry_after, problem } = answer else {
                if give_up.is_some() {
                    self.waiting(None);
                }
                return Some(answer);
            };
            let now = Instant::now();
            let give_up = *give_up.get_or_insert(now + self.target.retry_for);
            let left = give_up.saturating_duration_since(now);
            if left.is_zero() {
                let tried = self.target.retry_for.as_secs_f64();
                return Some(Answer::Never(format!("gave up after {tried} s of trying again: {problem}")));
            }
            tally.retries += 1;
            self.waiting(Some(format!("{problem}; trying again for {} s", left.as_secs())));
            let pause = retry_after.unwrap_or_default().max(backoff).min(left);
            backoff = (backoff * 2).min(BACKOFF_MAX);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.stop.requested() => return None,
            }
        }
    }

    async fn post(&self, batch: &Batch) -> Answer {
        let (endpoint, compression) = match &self.target.door {
            Door::Log(log) => return log.send(&batch.body).await,
            Door::Gateway(endpoint, compression) => (endpoint, *compression),
        };
        let mut request =
            self.client.post(endpoint).header(CONTENT_TYPE, "application/x-ndjson").body(batch.body.clone());
        request = match compression {
            Compression::None => request,
            Compression::Gzip => request.header(CONTENT_ENCODING, "gzip"),
            Compression::Zstd => request.header(CONTENT_ENCODING, "zstd"),
        };
        match self.exchange(request, batch.records).await {
            Ok(answer) => answer,
            Err(error) if error.is_builder() => Answer::Never(chain(&error)),
            Err(error) => Answer::Later { retry_after: None, problem: chain(&error) },
        }
    }

    async fn exchange(&self, request: reqwest::RequestBuilder, records: u32) -> reqwest::Result<Answer> {
        let mut response = request.send().await?;
        let status = response.status().as_u16();
        let retry_after = response.headers().get(RETRY_AFTER).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            if body.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Ok(Answer::Never(format!("the server's answer is longer than {ANSWER_BYTES_MAX} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(answer::read(status, retry_after.as_deref(), &body, records))
    }

    fn count(&self, batch: &Batch, stored: u64, refused: u64, tally: &mut Tally) {
        let now = Instant::now();
        tally.acknowledged += stored;
        tally.refused += refused;
        tally.last_answer = Some(now);
        self.live.acknowledged.fetch_add(stored, Ordering::Relaxed);
        self.live.refused.fetch_add(refused, Ordering::Relaxed);
        for (due, records) in &batch.due {
            let latency = now.saturating_duration_since(*due).as_micros();
            let latency_us = u64::try_from(latency).unwrap_or(u64::MAX).max(1);
            tally.latency_us.saturating_record_n(latency_us, u64::from(*records));
        }
    }

    fn waiting(&self, problem: Option<String>) {
        // A poisoned lock holds a text at worst half a display old.
        *self.live.waiting.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = problem;
    }
}

/// An error with its causes: the client's own message does not name them.
fn chain(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}
