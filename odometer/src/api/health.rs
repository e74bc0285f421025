//! Alive, and ready: whether every partition is recovered, the log takes envelopes
//! and no stage stands still.

use std::sync::atomic::Ordering::Acquire;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use odometer_ingest::bridge::BridgeHealth;
use serde::Serialize;

use super::Api;
use super::watch::{LogSeen, Seen};
use crate::node::bridging::ended;
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
    reasons.extend(api.bridge.as_ref().and_then(|bridge| bridge.health()).as_ref().and_then(bridge_reason));
    reasons.extend(watch_reason(&seen, api.watch.is_running(), now));
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Readiness { ready: reasons.is_empty(), reasons }))
}

fn node_reasons(progress: &Progress) -> Vec<String> {
    let mut reasons: Vec<String> = progress.failure().map(str::to_owned).into_iter().collect();
    if !progress.joined.load(Acquire) {
        reasons.push("it is not known yet which partitions this node counts".into());
    } else if !progress.is_authoritative() {
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

/// A bridge that has trouble and nothing under way is one without messages.
fn bridge_reason(health: &BridgeHealth) -> Option<String> {
    let why = || health.last_error.as_deref().unwrap_or("for an unknown reason");
    let is_stuck = health.is_failing && health.batches_under_way > 0;
    ended(health).or_else(|| is_stuck.then(|| format!("the bridge gets nothing through: {}", why())))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::footing::LogHealth;

    const PAUSES: Pauses = Pauses { totals: Duration::from_secs(1), raw: Duration::from_secs(60) };

    fn after(seconds: u64, start: Instant) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn a_stage_that_stands_is_named_once_its_pause_and_ten_seconds_are_over() {
        let start = Instant::now();
        let progress = Progress::new(2);
        let mut seen = Seen::nothing(2);
        for stage in StageName::ALL {
            seen.partitions[1].standing[stage as usize] = Some((0, start));
        }
        for (seconds, expected) in [(9, 0), (10, 1), (11, 2), (69, 2), (70, 3)] {
            let reasons = stage_reasons(&progress, &seen, PAUSES, after(seconds, start));
            assert_eq!(reasons.len(), expected, "{seconds} s: {reasons:?}");
        }
        let reasons = stage_reasons(&progress, &seen, PAUSES, after(10, start));
        assert_eq!(reasons, ["partition 1: counting stalled for 10 s: it has work and does not move"]);
        progress.of(1).next_offset.store(1, std::sync::atomic::Ordering::Release);
        progress.of(1).stuck(StageName::Totals, "the disk is full");
        let reasons = stage_reasons(&progress, &seen, PAUSES, after(11, start));
        assert_eq!(reasons, ["partition 1: the totals book stalled for 11 s: the disk is full"]);
    }

    #[test]
    fn a_log_that_ends_fails_or_stands_is_named() {
        let start = Instant::now();
        let health = LogHealth { is_running: true, ..LogHealth::default() };
        let fine = LogSeen { health: health.clone(), ..LogSeen::default() };
        assert_eq!(log_reasons(&fine, start), None);
        assert_eq!(log_reasons(&LogSeen::default(), start).as_deref(), Some("the log's writer has ended"));
        let is_failing = true;
        let failing = LogHealth { is_failing, last_error: Some("disk full".into()), ..health.clone() };
        let failed = LogSeen { health: failing, failed_at: Some(start), ..LogSeen::default() };
        assert_eq!(log_reasons(&failed, start).as_deref(), Some("the log cannot be written: disk full"));
        assert_eq!(log_reasons(&failed, after(31, start)), None);
        let waiting = LogHealth { queued_envelopes: 3, ..health };
        let stands = LogSeen { health: waiting, standing_since: Some(start), ..LogSeen::default() };
        assert_eq!(log_reasons(&stands, after(9, start)), None);
        let expected = "the log has written nothing for 10 s while 3 envelopes wait";
        assert_eq!(log_reasons(&stands, after(10, start)).as_deref(), Some(expected));
    }

    #[test]
    fn a_bridge_that_has_ended_or_is_stuck_is_named() {
        let fine = BridgeHealth { is_running: true, ..BridgeHealth::default() };
        assert_eq!(bridge_reason(&fine), None);
        let last_error = Some("no leader".to_owned());
        let troubled = BridgeHealth { is_failing: true, last_error, ..fine };
        assert_eq!(bridge_reason(&troubled), None);
        let stuck = BridgeHealth { batches_under_way: 1, ..troubled };
        assert_eq!(bridge_reason(&stuck).as_deref(), Some("the bridge gets nothing through: no leader"));
        let gone = BridgeHealth { is_running: false, ..stuck };
        assert_eq!(bridge_reason(&gone).as_deref(), Some("the bridge has ended: no leader"));
    }

    #[test]
    fn a_watch_that_sees_nothing_is_named() {
        let mut seen = Seen::nothing(1);
        seen.unreadable = Some("no such table".into());
        assert_eq!(watch_reason(&seen, true, seen.taken), None);
        let expected = "the log could not be read for 10 s: no such table";
        assert_eq!(watch_reason(&seen, true, after(10, seen.taken)).as_deref(), Some(expected));
        assert!(watch_reason(&seen, false, seen.taken).is_some());
    }
}
