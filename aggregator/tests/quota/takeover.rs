//! A new owner decides on the same counters; an owner that was followed decides in
//! vain.

use odometer_schemas::control::Control;
use odometer_schemas::quota::{Decision, Extend, Limit, Plan, PlanOrigin, QuotaRowKind, REMEMBERED_MS, TenantTerms};

use crate::support::{MINUTE_MS, NOW, Site, book, decision, final_commit, item, reserve};

const MINUTES: &str = "agent_minute";

fn hard(limit: i64) -> Vec<Limit> {
    vec![Limit { grace_percent: Some(0), ..Limit::usage(MINUTES, Some(limit)) }]
}

#[test]
fn a_new_owner_holds_what_the_old_one_did() {
    let mut old = Site::new(hard(1_000));
    for run in 0..1_000 {
        let outcome =
            old.quota.reserve(&reserve(&format!("run-{run}"), vec![item(MINUTES, 1)]), 0, NOW).unwrap().into_owned();
        assert_eq!(outcome.decision, Decision::Allow);
        old.book(outcome);
    }
    old.use_minutes("a", 1, Some("run-0"));
    let outcome = old.quota.commit(&final_commit("run-1", vec![]), 9, NOW).unwrap().into_owned();
    old.book(outcome);
    let new = Site::restored(&book(&old));
    assert_eq!((old.stands(MINUTES), new.stands(MINUTES)), ((1, 998), (1, 998)));
    assert_eq!(decision(&new.quota.reserve(&reserve("one", vec![item(MINUTES, 1)]), 0, NOW)), Decision::Allow);
    assert_eq!(decision(&new.quota.reserve(&reserve("more", vec![item(MINUTES, 1)]), 0, NOW)), Decision::Deny);
    let again = new.quota.reserve(&reserve("run-5", vec![item(MINUTES, 1)]), 0, NOW).unwrap().into_owned();
    assert_eq!((again.decision, again.operation), (Decision::Allow, None), "the same answer as before");
    while new.quota.expire(NOW.plus_ms(MINUTE_MS + 1_000), 100) {}
    assert_eq!(new.stands(MINUTES), (1, 0));
}

#[test]
fn each_is_remembered_for_a_day_by_whoever_owns_it() {
    let mut site = Site::new(hard(1_000));
    for run in 0..40 {
        let outcome =
            site.quota.reserve(&reserve(&format!("run-{run}"), vec![item(MINUTES, 1)]), 0, NOW).unwrap().into_owned();
        site.book(outcome);
    }
    let (tenant, id) = ("acme".to_owned(), "run-17".to_owned());
    let extend = Extend { tenant, id, ttl_ms: 60 * MINUTE_MS, ..Extend::default() };
    let outcome = site.quota.extend(&extend, 1 << 32, NOW).unwrap().into_owned();
    site.book(outcome);
    site.tick_at(NOW.plus_ms(REMEMBERED_MS + 10 * MINUTE_MS));
    for owner in [&site, &Site::restored(&book(&site))] {
        assert_eq!(owner.quota.reservations(), 1);
        let again = owner.quota.reserve(&reserve("run-17", vec![item(MINUTES, 1)]), 0, NOW).unwrap().into_owned();
        assert_eq!((again.decision, again.operation), (Decision::Allow, None), "the same answer as before");
    }
    site.tick_at(NOW.plus_ms(REMEMBERED_MS + 70 * MINUTE_MS));
    assert_eq!(site.quota.reservations(), 0);
    assert!(book(&site).quota.iter().all(|row| row.kind != QuotaRowKind::Reservations));
}

#[test]
fn an_owner_that_was_followed_decides_in_vain() {
    let mut site = Site::new(hard(10));
    site.log(&Control::Owner { epoch: 2 });
    let outcome = site.quota.reserve(&reserve("late", vec![item(MINUTES, 10)]), 0, NOW).unwrap().into_owned();
    site.book(outcome);
    assert!(!site.quota.is_booked("acme", "late"));
    assert_eq!(Site::restored(&book(&site)).stands(MINUTES), (0, 0));
}

#[test]
fn a_plan_changes_the_limit_and_never_the_usage() {
    let mut site = Site::new(hard(10));
    site.use_minutes("a", 8, None);
    assert_eq!(site.check(MINUTES, 3).decision, Decision::Deny);
    let pro = Plan { name: "pro".into(), limits: hard(100), is_default: false };
    site.log(&Control::Plan { plan: pro, origin: PlanOrigin::Api });
    let terms = TenantTerms { plan: Some("pro".into()), overrides: vec![] };
    site.log(&Control::Terms { tenant: "acme".into(), terms });
    let outcome = site.check(MINUTES, 3);
    assert_eq!((outcome.decision, outcome.limits[0].used, outcome.limits[0].limit), (Decision::Allow, 8, Some(100)));
    let terms = TenantTerms { plan: Some("pro".into()), overrides: hard(9) };
    site.log(&Control::Terms { tenant: "acme".into(), terms });
    assert_eq!(site.check(MINUTES, 3).violated, ["override/agent_minute/tenant"]);
    assert_eq!(Site::restored(&book(&site)).check(MINUTES, 3).violated, ["override/agent_minute/tenant"]);
}
