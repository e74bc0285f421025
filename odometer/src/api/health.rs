//! Alive, and ready: whether every partition is recovered and none is stalled.

use std::sync::atomic::Ordering::Acquire;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::Api;
use crate::node::progress::{Progress, StageName};

/// A stage that has had work for so long without moving is a stall. Well below the
/// thirty seconds within which a stall must show.
const STALL: Duration = Duration::from_secs(10);

/// The process runs.
pub(crate) async fn alive() -> &'static str {
    "ok\n"
}

/// 200 when ready, 503 with the reasons when not.
pub(crate) async fn ready(State(api): State<Api>) -> (StatusCode, Json<Value>) {
    let reasons = reasons(&api.progress);
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({ "ready": reasons.is_empty(), "reasons": reasons })))
}

fn reasons(progress: &Progress) -> Vec<String> {
    let mut reasons: Vec<String> = progress.failure().map(str::to_owned).into_iter().collect();
    if !progress.recovered.load(Acquire) {
        reasons.push("partitions are being recovered".into());
    }
    for (partition, state) in progress.partitions.iter().enumerate() {
        for stage in StageName::ALL {
            if let Some((elapsed, reason)) = state.stuck_for(stage).filter(|(elapsed, _)| *elapsed >= STALL) {
                let seconds = elapsed.as_secs();
                reasons.push(format!("partition {partition}: {} stalled for {seconds} s: {reason}", stage.name()));
            }
        }
    }
    reasons
}
