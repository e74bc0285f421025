//! Alive, and ready: whether every partition is recovered, the log takes envelopes
//! and no stage stands still.

use std::sync::atomic::Ordering::Acquire;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;

use super::Api;
use super::watch::{LogSeen, Seen};
use crate::node::progress::{Progress, StageName};

/// Work that has not moved for so long is a stall. Well below the thirty seconds
/// within which a stall must show, well above any commit.
const STALL: Duration = Duration::from_secs(10);
/// How long a failed commit of the log counts against a node that nobody sends to any
/// more: afterwards it must be ready to be tried again.
const LOG_FAILURE: Duration = Duration::from_secs(30);

/// Pauses that a stage makes on purpose, on top of which [`STALL`] counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pauses {
    pub(crate) totals: Duration,
    pub(crate) raw: Duration,
}

#[derive(Debug, Serialize)]
pub(crate) struct Readiness {
    ready: bool,
    reasons: Vec<String>,
}

/// The process runs.
pub(crate) async fn alive() -> &'static str {
    "ok\n"
}

/// 200 when ready, 503 with the reasons when not.
pub(crate) async fn ready(State(api): State<Api>) -> (StatusCode, Json<Readiness>) {
    let now = Instant::now();
    let seen = api.watch.seen();
    let mut reasons = node_reasons(&api.progress);
    reasons.extend(log_reasons(&seen.log, now));
    reasons.extend(stage_reasons(&api.progress, &seen, api.pauses, now));
    reasons.extend(watch_reason(&seen, api.watch.is_running(), now));
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Readiness { ready: reasons.is_empty(), reasons }))
}

fn node_reasons(progress: &Progress) -> Vec<String> {
    let mut reasons: Vec<String> = progress.failure().map(str::to_owned).into_iter().collect();
    if !progress.recovered.load(Acquire) {
        reasons.push("partitions are being recovered".into());
    }
    reasons
}

fn log_reasons(log: &LogSeen, now: Instant) -> Option<String> {
    let health = &log.health;
    if !health.is_running {
        return Some("the log's writer has ended".into());
    }
    let elapsed = |since: Option<Instant>| since.map(|since| now.saturating_duration_since(since));
    if health.is_failing && elapsed(log.failed_at).is_some_and(|elapsed| elapsed < LOG_FAILURE) {
        let error = health.last_error.as_deref().unwrap_or("for an unknown reason");
        return Some(format!("the log cannot be written: {error}"));
    }
    let stalled = elapsed(log.standing_since).filter(|elapsed| *elapsed >= STALL)?;
    let (waiting, seconds) = (health.queued_envelopes, stalled.as_secs());
    Some(format!("the log has written nothing for {seconds} s while {waiting} envelopes wait"))
}

/// A stage is stuck when it says so, or when it has work and does not move.
fn stage_reasons(progress: &Progress, seen: &Seen, pauses: Pauses, now: Instant) -> Vec<String> {
    let mut reasons = Vec::new();
    for (partition, (state, seen)) in progress.partitions.iter().zip(&seen.partitions).enumerate() {
        for stage in StageName::ALL {
            let (said, why) = state.stuck_for(stage).unwrap_or_default();
            let standing = seen.standing[stage as usize].filter(|(offset, _)| state.offset_of(stage) == *offset);
            let standing = standing.map_or(Duration::ZERO, |(_, since)| now.saturating_duration_since(since));
            let pause = match stage {
                StageName::Count => Duration::ZERO,
                StageName::Totals => pauses.totals,
                StageName::Raw => pauses.raw,
            };
            if said >= STALL || standing >= STALL + pause {
                let why = if why.is_empty() { "it has work and does not move".to_owned() } else { why };
                let (name, seconds) = (stage.name(), said.max(standing).as_secs());
                reasons.push(format!("partition {partition}: {name} stalled for {seconds} s: {why}"));
            }
        }
    }
    reasons
}

fn watch_reason(seen: &Seen, is_running: bool, now: Instant) -> Option<String> {
    if !is_running {
        return Some("the thread that looks for stalls has ended; this is a bug".into());
    }
    let age = now.saturating_duration_since(seen.taken);
    (age >= STALL).then(|| {
        let why = seen.unreadable.as_deref().unwrap_or("it does not answer");
        format!("the log could not be read for {} s: {why}", age.as_secs())
    })
}
