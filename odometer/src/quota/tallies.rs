//! Counts of what was decided: outcomes go in as they happen, into atomics that nobody
//! looks up by name; metrics come out when they are asked for.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use metrics::{counter, gauge};
use odometer_schemas::quota::{Answer, Decision, QuotaError};
use thread_local::ThreadLocal;

use super::Quota;

/// Where a question came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Surface {
    Http = 0,
    Grpc = 1,
    Envoy = 2,
}

impl Surface {
    const ALL: [(Self, &'static str); 3] = [(Self::Http, "http"), (Self::Grpc, "grpc"), (Self::Envoy, "envoy")];
}

/// What became of a question, besides whether the counters were known.
const OUTCOMES: [&str; 5] = ["allow", "grace", "deny", "refused", "unavailable"];

fn outcome_of_decision(decision: Decision) -> usize {
    match decision {
        Decision::Allow => 0,
        Decision::Grace => 1,
        Decision::Deny => 2,
    }
}

fn outcome_of(decided: &Result<Answer, QuotaError>) -> usize {
    match decided {
        Ok(answer) => outcome_of_decision(answer.decision),
        Err(QuotaError::Unavailable { .. }) => 4,
        // Whoever asked can put it right.
        Err(_) => 3,
    }
}

/// Counts of one surface, by one thread.
#[derive(Debug, Default)]
#[repr(align(128))]
struct OfSurface {
    /// By outcome, with the counters and without.
    decided: [[AtomicU64; 2]; OUTCOMES.len()],
    nanoseconds: AtomicU64,
}

/// Counts since the process began. Each thread has its own: threads that answer beside
/// each other would take one count from each other with every answer.
#[derive(Debug, Default)]
pub(crate) struct Tallies(ThreadLocal<[OfSurface; Surface::ALL.len()]>);

impl Tallies {
    /// Of this thread.
    fn own(&self, surface: Surface) -> &OfSurface {
        &self.0.get_or_default()[surface as usize]
    }

    /// Of all threads together; how often each outcome was decided, with the counters and
    /// without, and the time that all took.
    fn sum(&self, surface: Surface) -> ([[u64; 2]; OUTCOMES.len()], Duration) {
        let (mut decided, mut nanoseconds) = ([[0; 2]; OUTCOMES.len()], 0);
        for of in self.0.iter().map(|own| &own[surface as usize]) {
            for (sum, count) in decided.as_flattened_mut().iter_mut().zip(of.decided.as_flattened()) {
                *sum += count.load(Relaxed);
            }
            nanoseconds += of.nanoseconds.load(Relaxed);
        }
        (decided, Duration::from_nanos(nanoseconds))
    }

    pub(super) fn count(&self, surface: Surface, decided: &Result<Answer, QuotaError>, took: Duration) {
        let of = self.own(surface);
        let is_degraded = decided.as_ref().is_ok_and(|answer| answer.degraded);
        of.decided[outcome_of(decided)][usize::from(is_degraded)].fetch_add(1, Relaxed);
        of.nanoseconds.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    /// Counts what of a batch was decided, all with the counters.
    pub(super) fn count_all(&self, surface: Surface, decided: &[Option<Decision>], took: Duration) {
        let mut counts = [0; OUTCOMES.len()];
        decided.iter().flatten().for_each(|decision| counts[outcome_of_decision(*decision)] += 1);
        let of = self.own(surface);
        for (outcome, count) in counts.into_iter().enumerate().filter(|(_, count)| *count > 0) {
            of.decided[outcome][0].fetch_add(count, Relaxed);
        }
        of.nanoseconds.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }
}

/// What a node does besides answering at its own surfaces, at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Work {
    /// Questions sent to their owner.
    pub(crate) forwarded: u64,
    /// Those of them that no answer came to.
    pub(crate) forwards_failed: u64,
    /// Questions of other nodes that were decided here.
    pub(crate) decided_for_nodes: u64,
    /// Reservations whose time was over before they ended.
    pub(crate) expired: u64,
    /// Reservations that are held, or remembered for a day.
    pub(crate) reservations: u64,
    /// Decisions that wait for the log.
    pub(crate) queued: u64,
}

/// Every counter and what it is.
pub(crate) const COUNTERS: [(&str, &str); 6] = [
    ("odometer_quota_decisions_total", "Questions of quota by what became of them, and where they came in"),
    ("odometer_quota_decision_microseconds_total", "Time that they took, by where they came in"),
    ("odometer_quota_forwards_total", "Questions of quota that were sent to their owner"),
    ("odometer_quota_forwards_failed_total", "Those of them that the owner did not answer"),
    ("odometer_quota_decided_for_nodes_total", "Questions of quota that other nodes sent and that were decided here"),
    ("odometer_quota_expiries_total", "Reservations whose time was over before they were committed or released"),
];

/// Every gauge and what it is.
pub(crate) const GAUGES: [(&str, &str); 2] = [
    ("odometer_quota_reservations", "Reservations that this node holds, or remembers for a day"),
    ("odometer_quota_queue_operations", "Decisions that wait for the log"),
];

/// Shows everything. All zero where this process decides nothing, so that the names are
/// always there.
pub(crate) fn show(quota: Option<&Quota>) {
    let nothing = Tallies::default();
    let tallies = quota.map_or(&nothing, |quota| &quota.tallies);
    for (surface, door) in Surface::ALL {
        let (decided, took) = tallies.sum(surface);
        for (decision, counts) in OUTCOMES.iter().zip(decided) {
            for (degraded, count) in ["false", "true"].iter().zip(counts) {
                let labels = [("decision", *decision), ("degraded", *degraded), ("door", door)];
                counter!("odometer_quota_decisions_total", &labels).absolute(count);
            }
        }
        let microseconds = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        counter!("odometer_quota_decision_microseconds_total", "door" => door).absolute(microseconds);
    }
    let work = quota.map_or_else(Work::default, |quota| quota.service.work());
    counter!("odometer_quota_forwards_total").absolute(work.forwarded);
    counter!("odometer_quota_forwards_failed_total").absolute(work.forwards_failed);
    counter!("odometer_quota_decided_for_nodes_total").absolute(work.decided_for_nodes);
    counter!("odometer_quota_expiries_total").absolute(work.expired);
    gauge!("odometer_quota_reservations").set(number(work.reservations));
    gauge!("odometer_quota_queue_operations").set(number(work.queued));
}

/// Exact up to 2^53.
#[expect(clippy::cast_precision_loss, reason = "the text format has no integers")]
fn number(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use odometer_schemas::time::TimeMs;

    use super::*;

    #[test]
    fn outcomes_are_told_apart() {
        let tallies = Tallies::default();
        let answer = |decision, degraded| {
            let (as_of, limits, violated) = (TimeMs(0), vec![], vec![]);
            let (reservation_id, expires_at) = (None, None);
            Ok(Answer {
                decision,
                reservation_id,
                expires_at,
                limits,
                violated,
                as_of,
                lag_ms: 0,
                degraded,
                late: false,
            })
        };
        let took = Duration::from_micros(3);
        tallies.count(Surface::Grpc, &answer(Decision::Deny, true), took);
        tallies.count(Surface::Grpc, &Err(QuotaError::Unavailable { why: String::new() }), took);
        tallies.count(Surface::Grpc, &Err(QuotaError::Unknown { id: String::new() }), took);
        assert_eq!(tallies.sum(Surface::Grpc), ([[0, 0], [0, 0], [0, 1], [1, 0], [1, 0]], 3 * took));
        assert_eq!(tallies.sum(Surface::Http).1, Duration::ZERO);
        let batch = [Some(Decision::Allow), None, Some(Decision::Deny), Some(Decision::Allow)];
        let count = || tallies.count_all(Surface::Http, &batch, took);
        count();
        // Others' counts are counted, while they live and afterwards.
        std::thread::scope(|scope| _ = scope.spawn(count));
        assert_eq!(tallies.sum(Surface::Http), ([[4, 0], [0, 0], [2, 0], [0, 0], [0, 0]], 2 * took));
    }
}
