//! Whether this node may still decide: it may for a while after whoever gives out
//! partitions was found to know it. A node that is cut off stops deciding before its
//! successor can begin.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use odometer_ingest::log::kafka::SESSION_TIMEOUT_DEFAULT;

use super::assignment::Assignment;
use super::progress::Progress;

/// Time between two questions.
const RENEW_EVERY: Duration = Duration::from_millis(500);
/// How long an answer holds. The coordinator gives a member up a session time-out after
/// it last heard from it, and has heard from it when it answers; the rest is for clocks
/// that do not run alike.
const HOLDS: Duration = SESSION_TIMEOUT_DEFAULT.saturating_sub(Duration::from_secs(1));

/// Renews the lease until told to stop.
pub(crate) fn keep(assignment: &Assignment, progress: &Arc<Progress>, stopping: &AtomicBool) {
    progress.lease_until(Instant::now());
    while !stopping.load(Ordering::Acquire) && progress.failure().is_none() {
        // Taken before: the answer was true then.
        let asked = Instant::now();
        if assignment.prove_all().unwrap_or(false) {
            progress.lease_until(asked + HOLDS);
        }
        std::thread::sleep(RENEW_EVERY);
    }
}
