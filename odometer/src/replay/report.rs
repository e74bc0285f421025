//! What a replay did, as a table and as JSON.

use std::fmt::{self, Write};
use std::time::Duration;

use serde::Serialize;

use super::feed::Fed;
use super::send::Tally;
use super::stop::StopReason;

/// The summary of one run. The first six keys are a contract with scripts.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// Records sent, each counted once however often its batch was.
    pub(super) records_sent: u64,
    /// Records that the server has durably.
    pub(super) records_acknowledged: u64,
    /// Records that the server does not take.
    pub(super) records_refused: u64,
    /// Seconds from the first row to the last answer.
    elapsed_s: f64,
    /// Acknowledged records per second.
    records_per_s: f64,
    /// Acknowledgement latency in milliseconds, from when a record was meant to be
    /// sent; null when nothing was acknowledged.
    ack_ms: Latency,
    /// Records sent that have no answer.
    pub(super) records_unanswered: u64,
    /// Requests that were sent again.
    requests_retried: u64,
    /// Rows read.
    rows: u64,
    /// Bad rows left out.
    rows_skipped: u64,
    /// The first of them.
    skipped: Vec<String>,
    /// Why records were refused.
    refusals: Vec<ReportedRefusal>,
    /// Why the run ended before the file did.
    pub(super) stopped: Option<String>,
    /// Whether that was the user's wish.
    pub(super) interrupted: bool,
}

/// Percentiles in milliseconds.
#[derive(Debug, Serialize)]
struct Latency {
    p50: Option<f64>,
    p99: Option<f64>,
    p999: Option<f64>,
}

/// One reason and how often it came.
#[derive(Debug, Serialize)]
struct ReportedRefusal {
    reason: String,
    records: u64,
    example_id: String,
}

impl Report {
    /// Puts together what reading and sending have to tell.
    pub(super) fn new(fed: Fed, tally: Tally, elapsed: Duration, stop: Option<StopReason>) -> Self {
        let percentile = |quantile: f64| {
            let us = tally.latency_us.value_at_quantile(quantile);
            #[expect(clippy::cast_precision_loss, reason = "a histogram's value has three digits")]
            let ms = us as f64 / 1000.0;
            (!tally.latency_us.is_empty()).then_some(ms)
        };
        let ack_ms = Latency { p50: percentile(0.5), p99: percentile(0.99), p999: percentile(0.999) };
        let interrupted = fed.error.is_none() && stop == Some(StopReason::Interrupted);
        let stopped = match (fed.error, stop) {
            (Some(error), _) => Some(format!("{:#}", anyhow::Error::from(error))),
            (None, Some(StopReason::Failed(problem))) => Some(problem),
            (None, Some(StopReason::Interrupted)) => Some("interrupted".into()),
            (None, None) => never_present(&fed.fields_never_present),
        };
        let refusals = tally.reasons.into_sorted().into_iter();
        Self {
            records_sent: tally.sent,
            records_acknowledged: tally.acknowledged,
            records_refused: tally.refused,
            elapsed_s: rounded(elapsed.as_secs_f64(), 1000.0),
            records_per_s: per_second(tally.acknowledged, elapsed),
            ack_ms,
            records_unanswered: tally.sent - tally.acknowledged - tally.refused,
            requests_retried: tally.retries,
            rows: fed.rows,
            rows_skipped: fed.skipped,
            skipped: fed.skipped_named,
            refusals: refusals
                .map(|(reason, records, example_id)| ReportedRefusal { reason, records, example_id })
                .collect(),
            stopped,
            interrupted,
        }
    }

    /// Whether every row of the file was read and every record of it stored.
    pub(super) fn is_complete(&self) -> bool {
        self.stopped.is_none() && self.records_refused == 0 && self.records_unanswered == 0
    }
}

/// A field that no row has is a misspelt map, and would lose usage in silence.
fn never_present(fields: &[String]) -> Option<String> {
    let names = fields.iter().map(|field| format!("`{field}`")).collect::<Vec<_>>().join(", ");
    (!fields.is_empty()).then(|| format!("no row of the file has the map's field {names}; correct the map"))
}

fn rounded(value: f64, steps: f64) -> f64 {
    (value * steps).round() / steps
}

fn per_second(records: u64, elapsed: Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a rate is shown in whole records")]
    let rate = records as f64 / elapsed.as_secs_f64().max(1e-6);
    rounded(rate, 1.0)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |value: Option<f64>| value.map_or_else(|| "–".into(), |ms| format!("{ms:.1} ms"));
        let latency =
            format!("p50 {}  p99 {}  p99.9 {}", ms(self.ack_ms.p50), ms(self.ack_ms.p99), ms(self.ack_ms.p999));
        let lines = [
            ("rows read", grouped(self.rows)),
            ("records sent", grouped(self.records_sent)),
            ("  acknowledged", grouped(self.records_acknowledged)),
            ("  refused", grouped(self.records_refused)),
            ("elapsed", format!("{:.3} s", self.elapsed_s)),
            ("records/s", format!("{:.0}", self.records_per_s)),
            ("acknowledgement", latency),
        ];
        for (name, value) in lines {
            writeln!(f, "{name:<16} {value}")?;
        }
        for (name, count) in [
            ("  unanswered", self.records_unanswered),
            ("requests retried", self.requests_retried),
            ("rows skipped", self.rows_skipped),
        ] {
            if count > 0 {
                writeln!(f, "{name:<16} {}", grouped(count))?;
            }
        }
        for refusal in &self.refusals {
            let example = match refusal.example_id.as_str() {
                "" => String::new(),
                id => format!(", such as id {id}"),
            };
            writeln!(f, "refused          {} records: {}{example}", grouped(refusal.records), refusal.reason)?;
        }
        for row in &self.skipped {
            writeln!(f, "skipped          {row}")?;
        }
        match &self.stopped {
            Some(reason) => writeln!(f, "stopped          {reason}"),
            None => Ok(()),
        }
    }
}

/// `1234567` as `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            let _ = text.write_char(',');
        }
        text.push(digit);
    }
    text
}
