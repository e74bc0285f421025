//! Runs within quota, under a clock that the test moves.

use std::collections::BTreeSet;
use std::time::Duration;

use odometer_ingest::emitter::quota::contract::{self, Place};
use odometer_ingest::emitter::quota::{AskError, Question, RunQuota, Standing, StartError};
use odometer_ingest::emitter::{AgentRun, AgentRunOptions};
use tokio::time::{Instant, sleep, timeout};

use crate::quota_model::{Fault, ModelPlace};

const HOUR_MS: i64 = 3_600_000;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

async fn start(place: &ModelPlace) -> Result<AgentRun, StartError> {
    start_with(place, place.quota()).await
}

async fn start_with(place: &ModelPlace, quota: RunQuota) -> Result<AgentRun, StartError> {
    AgentRun::start_within(place.emitter(), AgentRunOptions::new("acme", "worker"), quota).await
}

/// How often each kind of question arrived: reserve, extend, commit, release.
fn counts(place: &ModelPlace) -> [usize; 4] {
    let mut counts = [0; 4];
    for question in place.model.asked() {
        counts[match question {
            Question::Reserve(_) => 0,
            Question::Extend(_) => 1,
            Question::Commit(_) => 2,
            Question::Release(_) => 3,
        }] += 1;
    }
    counts
}

fn reservations(place: &ModelPlace) -> BTreeSet<Option<String>> {
    place.model.log.records().into_iter().map(|record| record.reservation).collect()
}

#[tokio::test(start_paused = true)]
async fn the_common_body() {
    contract::slots_are_taken_and_given_back(&ModelPlace::new(0, 0)).await;
    contract::a_limit_that_is_reached_is_told(&ModelPlace::new(0, 0)).await;
    contract::dropped_runs_are_settled(&ModelPlace::new(0, 0)).await;
}

#[tokio::test(start_paused = true)]
async fn the_common_body_whatever_is_lost() {
    for percent in [10, 30, 60] {
        let place = || {
            let place = ModelPlace::new(0, 0);
            place.model.set_fault(Fault::Lossy(percent));
            place
        };
        contract::slots_are_taken_and_given_back(&place()).await;
        contract::a_limit_that_is_reached_is_told(&place()).await;
        contract::dropped_runs_are_settled(&place()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_held_stays_two_ticks_ahead_of_what_was_used() {
    let place = ModelPlace::new(1, HOUR_MS);
    let run = start(&place).await.unwrap();
    assert_eq!(place.model.standing(), ((0, 20_000), 1));
    for tick in 1..=5 {
        sleep(ms(10_000)).await;
        sleep(ms(if tick == 1 { 100 } else { 0 })).await;
        let ((used, held), slots) = place.model.standing();
        assert_eq!((used, slots), (tick * 10_000, 1));
        assert!((20_000..20_100).contains(&held), "{held}");
    }
    let report = run.finish().await.unwrap();
    assert_eq!(report.duration_ms, 50_100);
    assert_eq!(place.model.standing(), ((50_100, 0), 0));
    assert_eq!(counts(&place), [1, 5, 1, 0]);
    assert_eq!(reservations(&place).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_estimate_is_held_from_the_start_and_only_prolonged() {
    let place = ModelPlace::new(1, HOUR_MS);
    let quota = RunQuota { estimate: Some(ms(600_000)), slot: None, ..place.quota() };
    let run = start_with(&place, quota).await.unwrap();
    sleep(ms(65_000)).await;
    assert_eq!(place.model.standing(), ((60_000, 540_000), 0));
    let extended = place.model.asked().iter().all(|question| match question {
        Question::Extend(extend) => extend.add.is_empty(),
        _ => true,
    });
    assert!(extended);
    assert_eq!(run.fail().await.unwrap().unsettled, None);
    assert_eq!(place.model.standing(), ((65_000, 0), 0));
}

#[tokio::test(start_paused = true)]
async fn a_short_outage_is_told_and_made_good() {
    let place = ModelPlace::new(1, HOUR_MS);
    let run = start(&place).await.unwrap();
    let standing = run.standing().unwrap();
    sleep(ms(15_000)).await;
    place.model.set_fault(Fault::Away);
    sleep(ms(30_000)).await;
    assert!(matches!(&*standing.borrow(), Standing::Unanswered(AskError::Unavailable { .. })));
    assert_eq!(place.model.standing().0.0, 40_000, "metered all the same");
    place.model.set_fault(Fault::None);
    sleep(ms(10_000)).await;
    assert!(matches!(&*standing.borrow(), Standing::Held(_)));
    let ((used, held), slots) = place.model.standing();
    assert_eq!((used, slots), (50_000, 1));
    assert!((20_000..=30_000).contains(&held), "{held}");
    assert_eq!(run.finish().await.unwrap().unsettled, None);
    assert_eq!(place.model.standing(), ((55_000, 0), 0));
    assert_eq!(reservations(&place).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_outage_that_outlives_the_reservation_is_followed_by_another_one() {
    let place = ModelPlace::new(1, HOUR_MS);
    let run = start(&place).await.unwrap();
    place.model.set_fault(Fault::Silent);
    sleep(ms(100_100)).await;
    assert_eq!(place.model.standing(), ((100_000, 0), 0), "expired");
    place.model.set_fault(Fault::None);
    sleep(ms(20_000)).await;
    let ((used, held), slots) = place.model.standing();
    assert_eq!((used, slots), (120_000, 1));
    assert!(held >= 20_000, "{held}");
    let report = run.finish().await.unwrap();
    assert_eq!((report.duration_ms, report.unsettled), (120_100, None));
    assert_eq!(place.model.standing(), ((120_100, 0), 0));
    assert_eq!(counts(&place)[0], 2);
}

#[tokio::test(start_paused = true)]
async fn a_run_beyond_its_period_moves_into_the_next_one() {
    let place = ModelPlace::new(1, HOUR_MS);
    place.model.end_period_after(25_000);
    let run = start(&place).await.unwrap();
    sleep(ms(28_000)).await;
    place.model.end_period_after(HOUR_MS);
    sleep(ms(14_000)).await;
    let ((used, held), slots) = place.model.standing();
    assert_eq!((used, slots), (40_000, 1));
    assert!(held >= 20_000, "{held}");
    run.finish().await.unwrap();
    assert_eq!(place.model.standing(), ((42_000, 0), 0));
    assert_eq!(counts(&place)[0], 2);
    let ids: BTreeSet<_> = reservations(&place).into_iter().flatten().collect();
    assert_eq!(ids.len(), 2, "each period its own");
}

#[tokio::test(start_paused = true)]
async fn nobody_to_ask_is_told_after_the_run_s_patience() {
    for fault in [Fault::Away, Fault::Silent] {
        let place = ModelPlace::new(1, HOUR_MS);
        place.model.set_fault(fault);
        let (asked_at, quota) = (Instant::now(), RunQuota { patience: ms(7_000), ..place.quota() });
        let error = start_with(&place, quota).await.unwrap_err();
        assert!(matches!(error, StartError::Unanswered(AskError::Unavailable { .. })), "{error}");
        assert!((ms(5_000)..=ms(7_001)).contains(&asked_at.elapsed()), "{:?}", asked_at.elapsed());
        assert!(place.model.log.records().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_reservation_whose_answer_was_lost_is_given_back() {
    let place = ModelPlace::new(1, HOUR_MS);
    place.model.set_fault(Fault::Deaf);
    let quota = RunQuota { patience: ms(2_000), ..place.quota() };
    start_with(&place, quota.clone()).await.unwrap_err();
    assert_eq!(place.model.standing(), ((0, 20_000), 1), "nobody knows");
    place.model.set_fault(Fault::None);
    sleep(ms(3_000)).await;
    assert_eq!(place.model.standing(), ((0, 0), 0));

    // Cancelled while its answer is under way.
    timeout(ms(1), start_with(&place, quota)).await.unwrap_err();
    sleep(ms(1_000)).await;
    assert_eq!(place.model.standing(), ((0, 0), 0));
    assert_eq!(counts(&place)[3], 2);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_cannot_be_settled_says_so_and_is_billed_the_same() {
    let place = ModelPlace::new(1, HOUR_MS);
    let run = start(&place).await.unwrap();
    sleep(ms(12_345)).await;
    place.model.set_fault(Fault::Away);
    let report = run.finish().await.unwrap();
    assert_eq!(report.duration_ms, 12_345);
    assert!(report.unsettled.is_some_and(|error| error.is_retryable()));
    assert_eq!(place.model.standing().0.0, 12_345);
    sleep(ms(120_000)).await;
    assert_eq!(place.model.standing(), ((12_345, 0), 0), "its life ends it");
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_is_seen_late_is_settled_at_its_moment() {
    let place = ModelPlace::new(1, HOUR_MS);
    let run = start(&place).await.unwrap();
    let failed_at = (Instant::now() + ms(3_000)).into_std();
    sleep(ms(25_000)).await;
    let report = run.fail_at(failed_at).await.unwrap();
    assert_eq!(report.duration_ms, 3_000);
    assert_eq!(place.model.standing(), ((3_000, 0), 0));
}

#[tokio::test(start_paused = true)]
async fn a_run_that_could_not_be_metered_asks_nothing() {
    let place = ModelPlace::new(1, HOUR_MS);
    let options = AgentRunOptions::new("", "worker");
    let error = AgentRun::start_within(place.emitter(), options, place.quota()).await.unwrap_err();
    assert!(matches!(error, StartError::Refused(_)), "{error}");
    assert_eq!(counts(&place), [0; 4]);
}
