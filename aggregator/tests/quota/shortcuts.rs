//! The shortest way to a decision says what the longest would: whatever changes, from
//! the moment on at which it was taken.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use odometer_schemas::control::Control;
use odometer_schemas::quota::{
    Check, Decision, Item, Limit, Plan, PlanOrigin, Reserve, Scope, TenantTerms, WhenDegraded, Who,
};
use odometer_schemas::time::TimeMs;

use crate::support::{MINUTE_MS, NOW, Site, item, reserve, who};

const MINUTES: &str = "agent_minute";
/// 2026-02-01T00:00:00Z.
const NEXT_PERIOD: TimeMs = TimeMs(1_769_904_000_000);

fn usage(limit: i64) -> Limit {
    Limit { grace_percent: Some(0), ..Limit::usage(MINUTES, Some(limit)) }
}

fn terms(overrides: Vec<Limit>) -> Control<'static> {
    Control::Terms { tenant: "acme".into(), terms: TenantTerms { plan: None, overrides } }
}

/// A site that was asked, so that the shortcut is there.
fn asked(limit: i64) -> Site {
    let site = Site::new(vec![usage(limit)]);
    site.check(MINUTES, 1);
    assert_eq!(may(&site, NOW), Some(Decision::Allow));
    assert_eq!(may(&site, NOW), Some(Decision::Allow));
    site
}

fn may(site: &Site, now: TimeMs) -> Option<Decision> {
    site.quota.may_use("acme", MINUTES, 1, now)
}

#[test]
fn nobody_who_never_asked_has_one() {
    let site = asked(10);
    assert_eq!(site.quota.may_use("acme ", MINUTES, 1, NOW), None);
    assert_eq!(site.quota.may_use("acme", "agent_minut", 1, NOW), None);
    assert_eq!(site.quota.may_use("acmea", "gent_minute", 1, NOW), None);
}

#[test]
fn new_terms_and_plans_hold_at_once() {
    let mut site = asked(10);
    site.log(&terms(vec![usage(0)]));
    assert_eq!(may(&site, NOW), Some(Decision::Deny));
    site.log(&terms(vec![]));
    assert_eq!(may(&site, NOW), Some(Decision::Allow));
    let plan = |limit| Plan { name: "free".into(), limits: vec![limit], is_default: true };
    site.log(&Control::Plan { plan: plan(usage(0)), origin: PlanOrigin::Config });
    assert_eq!(may(&site, NOW), Some(Decision::Deny));
    let graceful = Limit { grace_percent: Some(100), ..usage(1) };
    site.log(&Control::Plan { plan: plan(graceful), origin: PlanOrigin::Config });
    assert_eq!(may(&site, NOW), Some(Decision::Allow));
    site.use_minutes("a", 1, None);
    assert_eq!(may(&site, NOW), Some(Decision::Grace));
    site.use_minutes("b", 1, None);
    assert_eq!(may(&site, NOW), Some(Decision::Deny));
    let unlimited = Limit { limit: None, ..usage(0) };
    site.log(&Control::Plan { plan: plan(unlimited), origin: PlanOrigin::Config });
    assert_eq!(may(&site, NOW), Some(Decision::Allow));
}

#[test]
fn a_period_that_is_over_decides_nothing() {
    let site = asked(10);
    assert!(site.quota.reserve(&reserve("all", vec![item(MINUTES, 10)]), 0, NOW).is_ok());
    let last = NEXT_PERIOD.plus_ms(-1);
    for _ in 0..2 {
        assert_eq!(may(&site, last), Some(Decision::Deny));
        assert_eq!(may(&site, NEXT_PERIOD), Some(Decision::Allow));
        assert_eq!(may(&site, NOW), Some(Decision::Deny));
    }
}

#[test]
fn limits_below_the_tenant_are_not_passed_by() {
    let mut site = asked(10);
    let of_subject = Limit { scope: Scope::Subject, ..usage(1) };
    site.log(&terms(vec![of_subject]));
    assert_eq!(may(&site, NOW), None);
    let check = |amount| Check { who: who(Some("bob"), None), items: vec![item(MINUTES, amount)] };
    assert_eq!(site.quota.check(&check(1), NOW).unwrap().decision, Decision::Allow);
    assert_eq!(site.quota.check(&check(2), NOW).unwrap().decision, Decision::Deny);
}

#[test]
fn slots_have_them_too() {
    let slots = Limit { grace_percent: Some(0), ..Limit::concurrency(Plan::AGENTS, Some(1)) };
    let site = Site::new(vec![slots]);
    let may = |now| site.quota.may_use("acme", Plan::AGENTS, 1, now);
    site.check(Plan::AGENTS, 1);
    assert_eq!((may(NOW), may(NOW)), (Some(Decision::Allow), Some(Decision::Allow)));
    assert!(site.quota.reserve(&reserve("run", vec![item(Plan::AGENTS, 1)]), 0, NOW).is_ok());
    assert_eq!(may(NOW), Some(Decision::Deny));
    assert_eq!(may(NEXT_PERIOD), Some(Decision::Deny), "what runs knows no period");
    site.quota.expire(NOW.plus_ms(MINUTE_MS + 1_000), 10);
    assert_eq!(may(NOW), Some(Decision::Allow));
}

/// More than the first table has places for, and each is answered by its own counter.
#[test]
fn many_tenants_are_kept_apart() {
    const TENANTS: u64 = 10_000;
    let site = Site::new(vec![usage(TENANTS as i64)]);
    let who = |number| Who { tenant: format!("tenant-{number}"), ..Who::default() };
    for number in 0..TENANTS {
        let items = vec![Item { meter: MINUTES.into(), amount: number }];
        let request = Reserve { id: "r".into(), who: who(number), ttl_ms: MINUTE_MS, items, ..Reserve::default() };
        assert!(site.quota.reserve(&request, 0, NOW).is_ok());
    }
    for _ in 0..3 {
        for number in 0..TENANTS {
            let left = (TENANTS - number) as i64;
            let may = |amount| site.quota.may_use(&who(number).tenant, MINUTES, amount, NOW);
            assert_eq!((may(left), may(left + 1)), (Some(Decision::Allow), Some(Decision::Deny)), "tenant {number}");
        }
        while site.quota.expire(NOW, 1) {}
    }
}

/// Several at once say what each says, also those that were never asked before, and
/// those that nobody knows.
#[test]
fn several_are_told_what_each_is_told() {
    const TENANTS: u64 = 1_000;
    let site = Site::new(vec![usage(10)]);
    let names: Vec<String> = (0..TENANTS).map(|number| format!("tenant-{number}")).collect();
    for name in names.iter().step_by(3) {
        let check = Check { who: Who { tenant: name.clone(), ..Who::default() }, items: vec![item("api_call", 0)] };
        assert!(site.quota.check(&check, NOW).is_ok());
    }
    let asks: Vec<_> = names.iter().zip(0..).map(|(name, number)| (name.as_str(), MINUTES, 9 + number % 4)).collect();
    let told = |(number, _): (i64, _)| match number {
        number if number % 3 != 0 => None,
        number if number % 4 < 2 => Some(Decision::Allow),
        _ => Some(Decision::Deny),
    };
    let expected: Vec<_> = (0..).zip(&asks).map(told).collect();
    for _ in 0..2 {
        assert_eq!(site.quota.may_use_each(&asks, NOW), expected);
    }
    let each: Vec<_> = asks.iter().map(|(name, meter, amount)| site.quota.may_use(name, meter, *amount, NOW)).collect();
    assert_eq!(each, expected);
    assert_eq!(site.quota.may_use_each(&[], NOW), []);
}

/// One thread changes terms and looks, while others ask and the tables are tended.
#[test]
fn whoever_changes_terms_sees_them() {
    let mut site = asked(10);
    let (quota, over) = (site.quota.clone(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for number in 0..3 {
            let (quota, over) = (&quota, &over);
            scope.spawn(move || {
                while !over.load(SeqCst) {
                    assert!(quota.may_use("acme", MINUTES, 1, NOW).is_some());
                    let each = quota.may_use_each(&[("acme", MINUTES, 1); 20], NOW);
                    assert!(each.iter().all(Option::is_some));
                    if number == 0 {
                        quota.expire(NOW, 1);
                    }
                }
            });
        }
        for round in 0..2_000 {
            let (limit, says) = if round % 2 == 0 { (0, Decision::Deny) } else { (10, Decision::Allow) };
            if round % 3 == 0 {
                site.log(&terms(vec![usage(limit)]));
            } else {
                site.log(&terms(vec![]));
                let plan = Plan { name: "free".into(), limits: vec![usage(limit)], is_default: true };
                site.log(&Control::Plan { plan, origin: PlanOrigin::Config });
            }
            assert_eq!(may(&site, NOW), Some(says), "round {round}");
        }
        over.store(true, SeqCst);
    });
}

/// What stands in for counters that nobody knows goes by its own, tenth limits.
#[test]
fn a_stand_in_takes_new_plans_at_once() {
    let definitions = odometer_schemas::definitions::Definitions::built_in();
    let stand_in = odometer_aggregator::LiveQuota::stand_in(&definitions);
    let plan = |when_degraded| Plan {
        name: "free".into(),
        limits: vec![Limit { when_degraded, ..usage(100) }],
        is_default: true,
    };
    stand_in.stand_in_for(&[plan(WhenDegraded::OpenWithCap)]);
    let check = Check { who: who(None, None), items: vec![item(MINUTES, 10)] };
    assert_eq!(stand_in.check(&check, NOW).unwrap().decision, Decision::Allow);
    assert_eq!(stand_in.may_use("acme", MINUTES, 11, NOW), Some(Decision::Deny));
    stand_in.stand_in_for(&[plan(WhenDegraded::Closed)]);
    assert_eq!(stand_in.may_use("acme", MINUTES, 1, NOW), Some(Decision::Deny));
}
