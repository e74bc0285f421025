//! Usage through the gateway: NDJSON bodies in, one after another on each of several
//! kept-alive connections, done when every one is answered `stored`.

use std::time::Duration;

use anyhow::{Context, ensure};
use hdrhistogram::Histogram;
use odometer_bench::traffic::{Tally, write_ndjson};
use reqwest::{Client, StatusCode};
use serde::Deserialize;
use serde_json::json;
use tokio::task::JoinSet;

use super::Sent;
use super::load::{Load, merge};
use super::pace::Pace;
use super::site::Access;
use crate::report::{now, percentiles_ms};

/// How often a request is sent again while the log's queue is full.
const ATTEMPTS_MAX: u32 = 100;
/// Pause before that: the queue empties within milliseconds.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// All requests, ready to be sent.
pub(crate) struct Bodies {
    shares: Vec<Vec<Body>>,
    tally: Tally,
}

#[derive(Debug)]
struct Body {
    bytes: bytes::Bytes,
    records: u64,
}

/// The part of an answer that matters here.
#[derive(Deserialize)]
struct Answer {
    stored: u64,
}

impl Bodies {
    /// Makes `load` into requests of `batch` records.
    pub(crate) fn make(load: &Load, batch: u64) -> Self {
        let (mut shares, mut tally) = (Vec::new(), Tally::new());
        for sender in 0..load.senders {
            let (mut traffic, records) = load.share(sender);
            let mut share = Vec::new();
            let mut made = 0;
            while made < records {
                let count = batch.min(records - made);
                let mut bytes = Vec::new();
                let now = now();
                (0..count).for_each(|_| write_ndjson(&traffic.record(now), &mut bytes));
                share.push(Body { bytes: bytes.into(), records: count });
                made += count;
            }
            merge(&mut tally, traffic.tally());
            shares.push(share);
        }
        Self { shares, tally }
    }

    /// Posts everything and waits for all answers.
    pub(crate) async fn post(self, access: Access, pace: Pace) -> anyhow::Result<Sent> {
        let url = format!("{}/v1/events", access.url().context("there is no gateway in this process")?);
        let mut senders = JoinSet::new();
        for share in self.shares {
            senders.spawn(post_all(url.clone(), share, pace));
        }
        let (mut latency_us, mut retries, mut sent_bytes) = (Histogram::<u64>::new(3)?, 0, 0);
        while let Some(sender) = senders.join_next().await {
            let posted = sender??;
            latency_us.add(posted.latency_us)?;
            retries += posted.retries;
            sent_bytes += posted.bytes;
        }
        let figures = vec![
            ("request_ms", percentiles_ms(&latency_us)),
            ("requests_retried", json!(retries)),
            ("body_bytes", json!(sent_bytes)),
        ];
        Ok(Sent { tally: self.tally, figures })
    }
}

struct Posted {
    /// From when a request was due to its answer.
    latency_us: Histogram<u64>,
    retries: u64,
    bytes: usize,
}

async fn post_all(url: String, share: Vec<Body>, pace: Pace) -> anyhow::Result<Posted> {
    let client = Client::builder().build()?;
    let mut posted = Posted { latency_us: Histogram::new(3)?, retries: 0, bytes: 0 };
    let mut sent = 0;
    for body in share {
        let due = pace.due(sent);
        pace.wait(sent).await;
        posted.bytes += body.bytes.len();
        posted.retries += post(&client, &url, &body).await?;
        posted.latency_us.record(micros(due.elapsed()))?;
        sent += body.records;
    }
    Ok(posted)
}

/// Posts one body until it is stored; how often it was sent again.
async fn post(client: &Client, url: &str, body: &Body) -> anyhow::Result<u64> {
    for attempt in 0..ATTEMPTS_MAX {
        let request = client.post(url).header("content-type", "application/x-ndjson").body(body.bytes.clone());
        let response = request.send().await?;
        let status = response.status();
        let answer = response.bytes().await?;
        if status == StatusCode::SERVICE_UNAVAILABLE {
            tokio::time::sleep(RETRY_PAUSE).await;
            continue;
        }
        ensure!(status == StatusCode::ACCEPTED, "the gateway answered {status}: {}", String::from_utf8_lossy(&answer));
        let answer: Answer = serde_json::from_slice(&answer)?;
        ensure!(answer.stored == body.records, "{} of {} records were stored", answer.stored, body.records);
        return Ok(attempt.into());
    }
    anyhow::bail!("the log's queue stayed full")
}

/// Whole microseconds.
pub(crate) fn micros(elapsed: Duration) -> u64 {
    u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX)
}
