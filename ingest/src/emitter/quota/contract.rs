//! What runs within quota do, wherever quota is decided: one body for a node that only
//! remembers, a real one, and several.

use std::future::Future;
use std::time::Duration;

use odometer_schemas::quota::Plan;
use tokio::time::{Instant, sleep, timeout};

use super::super::agent_run::METER_DEFAULT;
use super::super::{AgentRun, AgentRunOptions, Emitter};
use super::{Denial, RunQuota, Standing, StartError};

/// The tenant whose runs these are.
pub const TENANT: &str = "acme";
/// How often runs are metered.
const TICK: Duration = Duration::from_millis(50);
/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(120);

/// Where runs are metered, and quota is decided.
pub trait Place: Sync {
    /// Meters.
    fn emitter(&self) -> &Emitter;

    /// Decides.
    fn quota(&self) -> RunQuota;

    /// Limits the tenant to so many runs at a time and so many milliseconds, without
    /// grace; returns once that is in force.
    fn limit(&self, agents: i64, time_ms: i64) -> impl Future<Output = ()> + Send;

    /// What is used and what is held of a meter.
    fn stands(&self, meter: &str) -> impl Future<Output = (i64, i64)> + Send;
}

/// Starts a run of the tenant.
///
/// # Errors
/// As [`AgentRun::start_within`].
pub async fn start(place: &impl Place) -> Result<AgentRun, StartError> {
    let options = AgentRunOptions { tick: TICK, ..AgentRunOptions::new(TENANT, "worker") };
    AgentRun::start_within(place.emitter(), options, place.quota()).await
}

/// Waits until a meter stands so.
///
/// # Panics
/// When it never does.
pub async fn await_standing(place: &impl Place, meter: &str, expected: (i64, i64)) {
    let deadline = Instant::now() + PATIENCE;
    let mut stands = place.stands(meter).await;
    while stands != expected && Instant::now() < deadline {
        sleep(Duration::from_millis(20)).await;
        stands = place.stands(meter).await;
    }
    assert_eq!(stands, expected, "used and held of {meter}");
}

/// Two runs have a slot, a third one has none until one of them finishes; what they are
/// billed is what they took, and nothing is held in the end.
///
/// # Panics
/// When it is not so.
pub async fn slots_are_taken_and_given_back(place: &impl Place) {
    place.limit(2, 3_600_000).await;
    let (used_before_ms, _) = place.stands(METER_DEFAULT).await;
    let first = start(place).await.expect("a slot is free");
    let second = start(place).await.expect("a second slot is free");
    let denial = denied(start(place).await);
    let policy = denial.violated.first().expect("a violated policy").clone();
    assert!(policy.ends_with("/agents/tenant"), "{denial}");
    let limit = denial.limits.iter().find(|limit| limit.policy == policy).expect("its state");
    assert_eq!((limit.hard_limit, limit.reserved), (Some(2), 2), "{denial}");
    assert!(!denial.retry_after.is_zero() && !denial.degraded);

    sleep(TICK * 5).await;
    await_that(place, "time is held ahead", |(_, held_ms)| held_ms > 0).await;
    let first = first.finish().await.expect("all of it is stored");
    let third = start(place).await.expect("the first one's slot is free");
    sleep(TICK * 3).await;
    let (second, third) = (second.fail().await.expect("stored"), third.finish().await.expect("stored"));
    let reports = [first, second, third];
    assert!(reports.iter().all(|report| report.unsettled.is_none()), "{reports:?}");
    let taken_ms: u64 = reports.iter().map(|report| report.duration_ms).sum();
    let taken_ms = i64::try_from(taken_ms).expect("a short test");
    await_standing(place, METER_DEFAULT, (used_before_ms + taken_ms, 0)).await;
    await_standing(place, Plan::AGENTS, (0, 0)).await;
}

/// A limit that is reached while a run goes on is told, with its name; the run is
/// metered on, and what it took beyond is counted.
///
/// # Panics
/// When it is not so.
pub async fn a_limit_that_is_reached_is_told(place: &impl Place) {
    let (used_before_ms, _) = place.stands(METER_DEFAULT).await;
    place.limit(2, used_before_ms + 500).await;
    let run = start(place).await.expect("within the limit");
    let denial = timeout(PATIENCE, run.over_limit()).await.expect("the limit is reached");
    assert!(denial.violated[0].ends_with("/agent_minute/tenant"), "{denial}");
    let standing = run.standing().expect("within quota");
    assert!(matches!(&*standing.borrow(), Standing::OverLimit(_)));
    await_that(place, "the run is metered on", |(used_ms, _)| used_ms > used_before_ms + 500).await;
    assert_eq!(place.stands(Plan::AGENTS).await.1, 1, "the run still has its slot");
    denied(start(place).await);
    let report = run.finish().await.expect("all of it is stored");
    assert_eq!(report.unsettled, None);
    let taken_ms = i64::try_from(report.duration_ms).expect("a short test");
    await_standing(place, METER_DEFAULT, (used_before_ms + taken_ms, 0)).await;
    await_standing(place, Plan::AGENTS, (0, 0)).await;
}

/// A dropped run is settled and its slot free, though nobody waits for it; so is a run
/// whose start nobody waited for.
///
/// # Panics
/// When it is not so.
pub async fn dropped_runs_are_settled(place: &impl Place) {
    place.limit(1, 3_600_000_000).await;
    let run = start(place).await.expect("a slot is free");
    sleep(TICK * 2).await;
    drop(run);
    await_standing(place, Plan::AGENTS, (0, 0)).await;
    // Cancelled at once, and after a while.
    for pause in [Duration::ZERO, Duration::from_millis(1), Duration::from_millis(5)] {
        drop(timeout(pause, start(place)).await);
    }
    let deadline = Instant::now() + PATIENCE;
    let last = loop {
        match start(place).await {
            Ok(run) => break run,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        sleep(TICK).await;
    };
    last.finish().await.expect("stored");
    await_standing(place, Plan::AGENTS, (0, 0)).await;
    let (used_ms, _) = place.stands(METER_DEFAULT).await;
    assert!(used_ms >= 100, "the dropped run is billed: {used_ms}");
}

/// Waits until what is used and held of time is so.
async fn await_that(place: &impl Place, what: &str, is_so: impl Fn((i64, i64)) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so(place.stands(METER_DEFAULT).await) {
        assert!(Instant::now() < deadline, "not in time: {what}");
        sleep(TICK / 2).await;
    }
}

fn denied(started: Result<AgentRun, StartError>) -> Denial {
    match started {
        Err(StartError::Denied(denial)) => denial,
        Err(other) => panic!("not denied: {other}"),
        Ok(_) => panic!("started beyond the limit"),
    }
}
