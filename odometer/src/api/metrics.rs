//! `GET /metrics` in Prometheus' text format. What others count in atomics is read at
//! the moment of the scrape; only times are recorded as they happen.

use std::cell::RefCell;
use std::time::Duration;

use anyhow::Context;
use axum::extract::State;
use axum::http::{Method, StatusCode, header};
use axum::response::IntoResponse;
use metrics::{Histogram, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use odometer_ingest::bridge::BridgeHealth;
use odometer_ingest::gateway::GatewayCounters;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::Api;
use super::watch::Seen;
use crate::node::progress::{PartitionProgress, StageName, Standing};
use crate::quota::tallies;

/// The media type of the text format that the recorder writes.
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
/// Seconds. A commit of a small book takes about a millisecond, one that waits for a
/// slow disk or a large batch some seconds.
const COMMIT_BUCKETS_S: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];
/// Seconds. From an answer out of memory to a request that waits for the log.
const REQUEST_BUCKETS_S: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];

/// Seconds. From a partition without history to one that learns its ids from the log.
const RECOVERY_BUCKETS_S: [f64; 10] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];

/// Installs the process-wide recorder.
pub(crate) fn install() -> anyhow::Result<PrometheusHandle> {
    let buckets = |builder: PrometheusBuilder, name: &str, values: &[f64]| {
        builder.set_buckets_for_metric(Matcher::Full(name.into()), values).context("metrics need buckets")
    };
    let builder = buckets(PrometheusBuilder::new(), "odometer_book_commit_seconds", &COMMIT_BUCKETS_S)?;
    let builder = buckets(builder, "odometer_http_request_seconds", &REQUEST_BUCKETS_S)?;
    let builder = buckets(builder, "odometer_recovery_seconds", &RECOVERY_BUCKETS_S)?;
    let recorder = builder.install_recorder().context("metrics cannot be recorded")?;
    describe();
    Ok(recorder)
}

/// Counts one answered request.
pub(super) fn request(route: &str, method: &Method, status: StatusCode, took: Duration) {
    // Methods are whatever a client sends; names are few.
    let method = match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        _ => "other",
    };
    let labels = [("route", route.to_owned()), ("method", method.to_owned()), ("status", status.as_str().to_owned())];
    histogram!("odometer_http_request_seconds", &labels).record(took);
}

/// Counts one question of quota that was answered without the router.
pub(crate) fn quota_request(route: &'static str, status: u16, took: Duration) {
    thread_local! {
        // Looking a series up by its labels costs more than a decision. There are two
        // routes, each with a few statuses.
        static SERIES: RefCell<Vec<(&'static str, u16, Histogram)>> = const { RefCell::new(Vec::new()) };
    }
    SERIES.with_borrow_mut(|series| {
        let known = series.iter().position(|(r, s, _)| (*r, *s) == (route, status));
        let at = known.unwrap_or_else(|| {
            let labels = [("route", route.to_owned()), ("method", "POST".into()), ("status", status.to_string())];
            series.push((route, status, histogram!("odometer_http_request_seconds", &labels)));
            series.len() - 1
        });
        series[at].2.record(took);
    });
}

/// Renders everything recorded.
pub(crate) async fn render(State(api): State<Api>) -> impl IntoResponse {
    let seen = api.watch.seen();
    for (partition, progress) in (0_u32..).zip(&api.progress.partitions) {
        of_partition(partition, progress, &seen);
    }
    counter!("odometer_rebalances_total").absolute(api.progress.rebalances.load(Relaxed));
    of_log(&seen);
    of_gateway(api.gateway.counters());
    tallies::show(api.quota.as_ref());
    of_bridge(&api.bridge.as_ref().and_then(|bridge| bridge.health()).unwrap_or_default());
    gauge!("odometer_live_tenants").set(number(api.cells.tenants() as u64));
    gauge!("odometer_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], api.recorder.render())
}

fn of_partition(partition: u32, progress: &PartitionProgress, seen: &Seen) {
    let label = partition.to_string();
    let set = |name: &'static str, value: f64| gauge!(name, "partition" => label.clone()).set(value);
    let counts = progress.counts();
    counter!("odometer_records_received_total", "partition" => label.clone()).absolute(counts.received);
    for (verdict, count) in counts.by_name() {
        counter!("odometer_records_total", "partition" => label.clone(), "verdict" => verdict).absolute(count);
    }
    let is_counted = progress.standing() != Standing::Elsewhere;
    let is_written = progress.writes_raw.load(Relaxed);
    set("odometer_partition_counted", flag(is_counted));
    set("odometer_partition_authoritative", flag(progress.standing() == Standing::Authoritative));
    set("odometer_partition_raw_written", flag(is_written));
    let counted = progress.offset_of(StageName::Count);
    let end_offset = progress.end_offset.load(Relaxed).max(seen.partitions[partition as usize].end_offset).max(counted);
    set("odometer_log_end_offset", number(end_offset));
    for (stage, name, label) in STAGES {
        // What another node does has no lag here, so that a sum over nodes is right.
        let is_own = if stage == StageName::Raw { is_written } else { is_counted };
        let offset = if is_own { progress.offset_of(stage) } else { end_offset };
        set(name, number(offset));
        let labels = [("partition", partition.to_string()), ("stage", label.to_owned())];
        gauge!("odometer_lag_envelopes", &labels).set(number(end_offset.saturating_sub(offset)));
        gauge!("odometer_lag_seconds", &labels).set(seconds(seen.lag_ms(partition, stage, offset)));
        let fresh = seen.fresh_through(partition, stage, offset);
        gauge!("odometer_fresh_through_timestamp_seconds", &labels).set(seconds(fresh.0));
    }
    let log_time_ms = progress.log_time_ms.load(Relaxed);
    let since_ms = progress.ids_since_ms.load(Relaxed);
    let remembered_ms = if since_ms == 0 { 0 } else { (log_time_ms - since_ms).max(0) };
    set("odometer_log_time_timestamp_seconds", seconds(log_time_ms));
    set("odometer_dedupe_ids", number(progress.ids.load(Relaxed)));
    set("odometer_dedupe_window_seconds", seconds(remembered_ms));
}

/// Each stage, the metric of its offset, and its label.
const STAGES: [(StageName, &str, &str); 3] = [
    (StageName::Count, "odometer_log_next_offset", "count"),
    (StageName::Totals, "odometer_log_committed_offset", "totals"),
    (StageName::Raw, "odometer_log_raw_offset", "raw"),
];

fn flag(is: bool) -> f64 {
    f64::from(u8::from(is))
}

fn of_log(seen: &Seen) {
    let health = &seen.log.health;
    gauge!("odometer_log_queue_envelopes").set(number(health.queued_envelopes as u64));
    gauge!("odometer_log_writable").set(flag(health.is_running && !health.is_failing));
    counter!("odometer_log_commits_total").absolute(health.commits);
    counter!("odometer_log_commit_failures_total").absolute(health.failures);
}

fn of_gateway(counters: &GatewayCounters) {
    let absolute = |name: &'static str, value: &AtomicU64| counter!(name).absolute(value.load(Relaxed));
    absolute("odometer_gateway_requests_total", &counters.requests);
    absolute("odometer_gateway_requests_refused_total", &counters.requests_refused);
    absolute("odometer_gateway_requests_unavailable_total", &counters.requests_unavailable);
    absolute("odometer_gateway_body_bytes_total", &counters.body_bytes);
    absolute("odometer_gateway_plain_bytes_total", &counters.plain_bytes);
    absolute("odometer_gateway_events_stored_total", &counters.events_stored);
    absolute("odometer_gateway_records_stored_total", &counters.records_stored);
    absolute("odometer_gateway_remote_envelopes_stored_total", &counters.remote_envelopes_stored);
    absolute("odometer_gateway_appends_total", &counters.appends);
    absolute("odometer_gateway_append_microseconds_total", &counters.append_us);
    for (code, count) in counters.events_refused() {
        counter!("odometer_gateway_events_refused_total", "reason" => code.name()).absolute(count);
    }
}

/// All zero where this process has no bridge, so that the names are always there.
fn of_bridge(health: &BridgeHealth) {
    counter!("odometer_bridge_messages_total").absolute(health.messages);
    counter!("odometer_bridge_events_total").absolute(health.events);
    counter!("odometer_bridge_records_stored_total").absolute(health.records);
    counter!("odometer_bridge_events_refused_total").absolute(health.events_refused);
    counter!("odometer_bridge_dead_letters_total").absolute(health.dead_letters);
    counter!("odometer_bridge_messages_removed_total").absolute(health.messages_removed);
    gauge!("odometer_bridge_running").set(flag(health.is_running));
    gauge!("odometer_bridge_failing").set(flag(health.is_failing));
    gauge!("odometer_bridge_lag_messages").set(number(health.lag));
    gauge!("odometer_bridge_batches_under_way").set(number(health.batches_under_way as u64));
}

/// Offsets and counts as the format has them; exact up to 2^53.
#[expect(clippy::cast_precision_loss, reason = "the text format has no integers")]
fn number(value: u64) -> f64 {
    value as f64
}

#[expect(clippy::cast_precision_loss, reason = "the text format has no integers")]
fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

fn describe() {
    for (name, what) in COUNTERS.into_iter().chain(tallies::COUNTERS) {
        describe_counter!(name, what);
    }
    for (name, what) in GAUGES.into_iter().chain(tallies::GAUGES) {
        describe_gauge!(name, what);
    }
    describe_histogram!("odometer_book_commit_seconds", "Time to bring one batch into a book, retries included");
    describe_histogram!("odometer_recovery_seconds", "Time to claim and restore one partition");
    describe_histogram!("odometer_http_request_seconds", "Time to answer one request, by route");
}

const COUNTERS: [(&str, &str); 22] = [
    ("odometer_rebalances_total", "Changes of the partitions that this node counts"),
    ("odometer_records_received_total", "Records that the log delivered; the sum of all verdicts"),
    ("odometer_records_total", "Records by verdict"),
    ("odometer_log_commits_total", "Commits of the log"),
    ("odometer_log_commit_failures_total", "Commits of the log that failed"),
    ("odometer_gateway_requests_total", "Requests for events and envelopes that began"),
    ("odometer_gateway_requests_refused_total", "Requests refused as a whole for a fault of the client"),
    ("odometer_gateway_requests_unavailable_total", "Requests answered 503, because of too many or of the log"),
    ("odometer_gateway_body_bytes_total", "Bytes of bodies as they arrived"),
    ("odometer_gateway_plain_bytes_total", "Bytes of bodies after inflating"),
    ("odometer_gateway_events_stored_total", "Events that the log holds"),
    ("odometer_gateway_events_refused_total", "Events refused, by reason"),
    ("odometer_gateway_records_stored_total", "Records that the log holds"),
    ("odometer_gateway_remote_envelopes_stored_total", "Envelopes of remote emitters that the log holds"),
    ("odometer_gateway_appends_total", "Waits of requests for the log"),
    ("odometer_gateway_append_microseconds_total", "Time that requests waited for the log"),
    ("odometer_bridge_messages_total", "Messages of the ingress topic of which everything is stored"),
    ("odometer_bridge_events_total", "Events in them"),
    ("odometer_bridge_records_stored_total", "Records that they put into the log"),
    ("odometer_bridge_events_refused_total", "Events that the bridge refused"),
    ("odometer_bridge_dead_letters_total", "Messages that went to the dead letters"),
    ("odometer_bridge_messages_removed_total", "Messages that retention removed before they were read"),
];

const GAUGES: [(&str, &str); 21] = [
    ("odometer_partition_counted", "1 when this node counts the partition"),
    ("odometer_partition_authoritative", "1 when live answers of the partition are authoritative here"),
    ("odometer_partition_raw_written", "1 when this node writes the partition's raw rows"),
    ("odometer_log_end_offset", "The offset that the next envelope will get"),
    ("odometer_log_next_offset", "Counted up to this offset"),
    ("odometer_log_committed_offset", "In the totals book up to this offset"),
    ("odometer_log_raw_offset", "In the raw book up to this offset"),
    ("odometer_log_time_timestamp_seconds", "Append time of the newest counted envelope"),
    ("odometer_log_queue_envelopes", "Envelopes that wait for the log's writer"),
    ("odometer_log_writable", "1 when the log's newest commit succeeded"),
    ("odometer_lag_envelopes", "Envelopes that a stage has not done yet"),
    ("odometer_lag_seconds", "Age of the oldest envelope that a stage has not done yet"),
    ("odometer_fresh_through_timestamp_seconds", "Everything acknowledged before this time has passed the stage"),
    ("odometer_dedupe_ids", "Ids in the dedupe window"),
    ("odometer_dedupe_window_seconds", "Log time over which all ids are remembered"),
    ("odometer_live_tenants", "Tenants with live counters"),
    ("odometer_bridge_running", "1 where a bridge is at work"),
    ("odometer_bridge_failing", "1 when something stood in the bridge's way since a batch last got through"),
    ("odometer_bridge_lag_messages", "Messages of the ingress topic that this bridge has not got through yet"),
    ("odometer_bridge_batches_under_way", "Batches of messages that are not wholly stored yet"),
    ("odometer_build_info", "1, with the version as a label"),
];

/// All names, in order.
#[cfg(test)]
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    let histograms = ["odometer_book_commit_seconds", "odometer_http_request_seconds", "odometer_recovery_seconds"];
    let of_quota = tallies::COUNTERS.iter().chain(&tallies::GAUGES);
    let described = COUNTERS.iter().chain(&GAUGES).chain(of_quota).map(|(name, _)| *name);
    described.chain(histograms).collect::<std::collections::BTreeSet<_>>().into_iter()
}
