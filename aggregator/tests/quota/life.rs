//! The life of a reservation, decided here and read back from the log.

use odometer_schemas::quota::{Decision, Extend, Limit, Plan, QuotaError, Release, Reserve};
use odometer_schemas::time::TimeMs;

use crate::support::{MINUTE_MS, NOW, Site, book, decision, final_commit, item, reserve};

const MINUTES: &str = "agent_minute";

fn site() -> Site {
    Site::new(vec![Limit::usage(MINUTES, Some(100)), Limit::concurrency(Plan::AGENTS, Some(2))])
}

fn later(ms: i64) -> TimeMs {
    NOW.plus_ms(ms)
}

#[test]
fn it_is_held_drawn_and_settled_without_counting_twice() {
    let mut site = site();
    let request = reserve("run", vec![item(MINUTES, 60), item(Plan::AGENTS, 1)]);
    let outcome = site.quota.reserve(&request, 7, NOW).unwrap().into_owned();
    assert_eq!((outcome.decision, outcome.expires_at), (Decision::Allow, Some(later(MINUTE_MS))));
    assert_eq!(site.stands(MINUTES), (0, 60));
    site.book(outcome);
    assert_eq!(site.stands(MINUTES), (0, 60), "what the log says was held already");
    site.use_minutes("a", 25, Some("run"));
    assert_eq!(site.stands(MINUTES), (25, 35));
    site.use_minutes("b", 10, None);
    assert_eq!(site.stands(MINUTES), (35, 35));
    site.use_minutes("a", 25, Some("run"));
    assert_eq!(site.stands(MINUTES), (35, 35), "a duplicate draws nothing");
    let outcome = site.quota.commit(&final_commit("run", vec![item(MINUTES, 45)]), 1, NOW).unwrap().into_owned();
    site.book(outcome);
    assert_eq!(site.stands(MINUTES), (35, 20), "held until its records are there");
    assert_eq!(site.stands(Plan::AGENTS), (0, 0));
    site.use_minutes("c", 20, Some("run"));
    assert_eq!(site.stands(MINUTES), (55, 0));
}

#[test]
fn records_that_overtake_their_reservation_draw_it_all_the_same() {
    let mut site = site();
    let outcome = site.quota.reserve(&reserve("run", vec![item(MINUTES, 60)]), 7, NOW).unwrap().into_owned();
    site.use_minutes("a", 25, Some("run"));
    site.use_minutes("b", 5, Some("run"));
    assert_eq!(site.stands(MINUTES), (30, 60), "the log does not know it yet");
    let before = book(&site);
    let mut other = Site::restored(&before);
    for site in [&mut site, &mut other] {
        site.book(outcome.clone());
        assert_eq!(site.stands(MINUTES), (30, 30));
        site.use_minutes("c", 10, Some("run"));
        assert_eq!(site.stands(MINUTES), (40, 20));
    }
    assert_eq!(Site::restored(&other.book_over(before)).stands(MINUTES), (40, 20));
}

#[test]
fn more_than_was_reserved_is_spent_all_the_same() {
    let mut site = site();
    let outcome = site.quota.reserve(&reserve("run", vec![item(MINUTES, 100)]), 7, NOW).unwrap().into_owned();
    site.book(outcome);
    let outcome = site.quota.commit(&final_commit("run", vec![item(MINUTES, 130)]), 1, NOW).unwrap().into_owned();
    assert_eq!(outcome.decision, Decision::Grace);
    site.book(outcome);
    assert_eq!(site.stands(MINUTES), (0, 130));
    site.use_minutes("a", 130, Some("run"));
    assert_eq!(site.stands(MINUTES), (130, 0));
    assert_eq!(site.check(MINUTES, 1).decision, Decision::Deny);
}

#[test]
fn grace_is_said_and_beyond_it_nothing_changes() {
    let site = site();
    assert_eq!(decision(&site.quota.reserve(&reserve("a", vec![item(MINUTES, 100)]), 0, NOW)), Decision::Allow);
    assert_eq!(decision(&site.quota.reserve(&reserve("b", vec![item(MINUTES, 10)]), 0, NOW)), Decision::Grace);
    let denied = site.quota.reserve(&reserve("c", vec![item(MINUTES, 1)]), 0, NOW).unwrap().into_owned();
    assert_eq!((denied.decision, denied.violated), (Decision::Deny, vec!["free/agent_minute/tenant".to_owned()]));
    assert_eq!((denied.operation, site.stands(MINUTES)), (None, (0, 110)));
    let both = reserve("d", vec![item(Plan::AGENTS, 1), item(MINUTES, 1)]);
    assert_eq!(decision(&site.quota.reserve(&both, 0, NOW)), Decision::Deny);
    assert_eq!(site.stands(Plan::AGENTS), (0, 0), "all or nothing");
}

#[test]
fn the_same_request_gets_the_same_answer_and_another_is_told_so() {
    let mut site = site();
    let request = reserve("run", vec![item(MINUTES, 60)]);
    let first = site.quota.reserve(&request, 7, NOW).unwrap().into_owned();
    let again = site.quota.reserve(&request, 7, later(1)).unwrap().into_owned();
    assert_eq!((again.decision, again.expires_at), (first.decision, first.expires_at));
    assert_eq!(again.operation.as_ref().unwrap().action, first.operation.as_ref().unwrap().action);
    let other = site.quota.reserve(&request, 8, NOW);
    assert_eq!(other, Err(QuotaError::Reused { id: "run".into() }));
    site.book(first);
    site.book(again);
    assert_eq!(site.quota.reserve(&request, 7, later(2)).unwrap().operation, None);
    assert_eq!(site.stands(MINUTES), (0, 60));
}

#[test]
fn an_extension_may_end_it_sooner() {
    for is_read in [false, true] {
        let mut site = site();
        let outcome = site.quota.reserve(&reserve("run", vec![item(MINUTES, 60)]), 7, NOW).unwrap().into_owned();
        site.book(outcome);
        let extend = Extend { tenant: "acme".into(), id: "run".into(), ttl_ms: 1_000, ..Extend::default() };
        let outcome = site.quota.extend(&extend, 1 << 32, NOW).unwrap().into_owned();
        if is_read {
            site.book(outcome);
        }
        assert!(!site.quota.expire(later(999), 10));
        assert_eq!(site.stands(MINUTES), (0, 60));
        assert!(!site.quota.expire(later(2_000), 10));
        assert_eq!(site.stands(MINUTES), (0, 0), "{is_read}");
    }
}

#[test]
fn an_expired_one_is_freed_and_a_late_commit_counts_and_is_flagged() {
    let mut site = site();
    let outcome = site.quota.reserve(&reserve("run", vec![item(MINUTES, 60)]), 7, NOW).unwrap().into_owned();
    site.book(outcome);
    assert!(!site.quota.expire(later(MINUTE_MS - 1), 10));
    assert_eq!(site.stands(MINUTES), (0, 60));
    assert!(!site.quota.expire(later(MINUTE_MS + 1_000), 10));
    assert_eq!(site.stands(MINUTES), (0, 0));
    let extend = Extend { tenant: "acme".into(), id: "run".into(), ttl_ms: 1, ..Extend::default() };
    assert_eq!(site.quota.extend(&extend, 2 << 32, NOW), Err(QuotaError::Ended { id: "run".into() }));
    let late =
        site.quota.commit(&final_commit("run", vec![item(MINUTES, 50)]), 1, later(2 * MINUTE_MS)).unwrap().into_owned();
    assert!(late.late);
    site.book(late);
    assert_eq!(site.stands(MINUTES), (0, 50));
    site.use_minutes("a", 50, Some("run"));
    assert_eq!(site.stands(MINUTES), (50, 0));
}

#[test]
fn it_can_be_extended_and_released() {
    let mut site = site();
    let outcome = site.quota.reserve(&reserve("run", vec![item(MINUTES, 60)]), 7, NOW).unwrap().into_owned();
    site.book(outcome);
    let extend = |add, op| Extend {
        tenant: "acme".into(),
        id: "run".into(),
        op_id: format!("{op}"),
        ttl_ms: 2 * MINUTE_MS,
        add: vec![item(MINUTES, add)],
        ..Extend::default()
    };
    assert_eq!(decision(&site.quota.extend(&extend(60, 1), 1 << 32, NOW)), Decision::Deny);
    let outcome = site.quota.extend(&extend(30, 2), 2 << 32, NOW).unwrap().into_owned();
    site.book(outcome);
    assert_eq!(site.stands(MINUTES), (0, 90));
    site.quota.expire(later(MINUTE_MS + 1_000), 10);
    assert_eq!(site.stands(MINUTES), (0, 90), "it was extended");
    let release = Release { tenant: "acme".into(), id: "run".into(), op_id: "end".into(), ..Release::default() };
    let outcome = site.quota.release(&release, 3 << 32, NOW).unwrap().into_owned();
    site.book(outcome);
    assert_eq!(site.stands(MINUTES), (0, 0));
    let unknown = Release { id: "other".into(), ..release };
    assert_eq!(site.quota.release(&unknown, 4 << 32, NOW), Err(QuotaError::Unknown { id: "other".into() }));
}

#[test]
fn one_that_the_log_never_had_is_forgotten() {
    let site = site();
    let request = reserve("run", vec![item(MINUTES, 60)]);
    site.quota.reserve(&request, 7, NOW).unwrap();
    for minutes in 2..8 {
        site.quota.expire(later(minutes * MINUTE_MS), 10);
    }
    assert_eq!(site.stands(MINUTES), (0, 0));
    assert_eq!(decision(&site.quota.reserve(&request, 8, NOW)), Decision::Allow);
}

#[test]
fn what_nothing_can_limit_is_named() {
    let site = site();
    let error = site.quota.reserve(&reserve("a", vec![item("agent_minit", 1)]), 0, NOW).unwrap_err();
    assert!(error.to_string().starts_with("items.meter `agent_minit` is neither a defined meter"), "{error}");
    let request = Reserve { ttl_ms: 1, ..reserve("b", vec![item("api_call", 5)]) };
    let counted = site.quota.reserve(&request, 0, NOW).unwrap().into_owned();
    assert_eq!((counted.limits[0].limit, counted.limits[0].reserved), (None, 5), "counted, never stopped");
}
