//! What the log says of reservations that this node did not decide on, or decided on a
//! while ago.

use odometer_schemas::control::Control;
use odometer_schemas::quota::{Action, Decision, Extend, HeldItem, Limit, QuotaError, QuotaOperation};
use odometer_schemas::time::TimeMs;

use crate::support::{MINUTE_MS, NOW, Outcome, Site, item, reserve};

const MINUTES: &str = "agent_minute";
/// January 2026.
const PERIOD_MS: (i64, i64) = (1_767_225_600_000, 1_769_904_000_000);

fn later(ms: i64) -> TimeMs {
    NOW.plus_ms(ms)
}

fn operate(site: &mut Site, action: Action<'_>) {
    let operation = QuotaOperation { tenant: "acme".into(), id: "run".into(), at_ms: NOW.0, action };
    site.log(&Control::Quota { epoch: 1, operations: vec![operation] });
}

#[test]
fn an_extension_that_is_read_late_is_held_all_the_same() {
    let mut site = Site::new(vec![Limit::usage(MINUTES, Some(100))]);
    let items = vec![HeldItem { meter: MINUTES.into(), amount: 60, period_ms: Some(PERIOD_MS) }];
    let (subject, key, decision) = (None, None, Decision::Allow);
    let expires_ms = later(MINUTE_MS).0;
    operate(&mut site, Action::Reserve { subject, key, items, expires_ms, body: 0, decision });
    assert_eq!(site.stands(MINUTES), (0, 60));
    site.quota.expire(later(MINUTE_MS + 1_000), 10);
    assert_eq!(site.stands(MINUTES), (0, 0), "as far as this node has read");
    let expires_ms = later(3 * MINUTE_MS).0;
    operate(&mut site, Action::Extend { op: 1 << 32, expires_ms, add: vec![] });
    assert_eq!(site.stands(MINUTES), (0, 60), "its owner extended it in time");
    site.quota.expire(later(2 * MINUTE_MS), 10);
    assert_eq!(site.stands(MINUTES), (0, 60));
    site.quota.expire(later(3 * MINUTE_MS + 1_000), 10);
    assert_eq!(site.stands(MINUTES), (0, 0));
}

#[test]
fn what_was_decided_here_does_not_revive_what_is_over() {
    let mut site = Site::new(vec![Limit::usage(MINUTES, Some(100))]);
    let outcome = site.quota.reserve(&reserve("run", vec![item(MINUTES, 60)]), 0, NOW).unwrap().into_owned();
    site.book(outcome);
    let extend = Extend { tenant: "acme".into(), id: "run".into(), ttl_ms: 2 * MINUTE_MS, ..Extend::default() };
    let outcome = site.quota.extend(&extend, 1 << 32, NOW).unwrap().into_owned();
    site.quota.expire(later(MINUTE_MS + 1_000), 10);
    site.quota.expire(later(2 * MINUTE_MS + 1_000), 10);
    assert_eq!(site.stands(MINUTES), (0, 0));
    site.book(outcome);
    assert_eq!(site.stands(MINUTES), (0, 0));
}

/// More operations than are recognised: none drives out of memory what the log still
/// brings.
#[test]
fn no_more_are_on_their_way_than_are_recognised() {
    let mut site = Site::new(vec![Limit::usage(MINUTES, Some(100))]);
    let outcome = site.quota.reserve(&reserve("run", vec![item(MINUTES, 1)]), 0, NOW).unwrap().into_owned();
    site.book(outcome);
    let extend = |site: &Site, op: u64, now| {
        let add = vec![item(MINUTES, 1)];
        let (tenant, id) = ("acme".into(), "run".into());
        let extend = Extend { tenant, id, op_id: format!("{op}"), ttl_ms: 10 * MINUTE_MS, add, ..Extend::default() };
        site.quota.extend(&extend, (op + 1) << 32, now).map(Outcome::into_owned)
    };
    let on_the_way: Vec<_> = (0..16).map(|op| extend(&site, op, NOW).unwrap()).collect();
    assert_eq!(site.stands(MINUTES), (0, 17));
    let full = extend(&site, 16, NOW);
    assert!(matches!(full, Err(QuotaError::Unavailable { .. })), "{full:?}");
    assert!(extend(&site, 3, NOW).is_ok(), "one that is known is no other");
    for outcome in on_the_way {
        site.book(outcome);
        assert!(site.stands(MINUTES).1 <= 17, "held once");
    }
    assert_eq!(site.stands(MINUTES), (0, 17));
    for op in 16..32 {
        extend(&site, op, NOW).unwrap();
    }
    assert!(extend(&site, 32, later(2 * MINUTE_MS)).is_err());
    assert!(extend(&site, 32, later(2 * MINUTE_MS + 1)).is_ok(), "nothing arrives so late");
    assert_eq!(site.stands(MINUTES), (0, 34));
}

#[test]
fn what_is_repeated_after_its_period_is_told_as_it_was_made() {
    let site = Site::new(vec![Limit::usage(MINUTES, Some(100))]);
    let request = reserve("run", vec![item(MINUTES, 60)]);
    let made = site.quota.reserve(&request, 7, NOW).unwrap();
    let next_period = later(40 * 24 * 60 * MINUTE_MS);
    let again = site.quota.reserve(&request, 7, next_period).unwrap();
    let action = |outcome: Outcome<'_>| outcome.into_owned().operation.map(|operation| operation.action);
    assert_eq!(action(again), action(made));
}
