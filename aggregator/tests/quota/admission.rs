//! Many threads at one limit.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use odometer_schemas::quota::{Decision, Limit, Reserve, Scope};

use crate::support::{NOW, Outcome, Site, decision, item, reserve, who};

const THREADS: usize = 64;

/// Runs `attempt` on all threads, with a number of its own each time; how many said
/// yes.
fn attempts(of_thread: usize, attempt: impl Fn(usize) -> bool + Sync) -> usize {
    let admitted = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (admitted, attempt) = (&admitted, &attempt);
            scope.spawn(move || {
                let count = (0..of_thread).filter(|number| attempt(thread * of_thread + number)).count();
                admitted.fetch_add(count, Relaxed);
            });
        }
    });
    admitted.into_inner()
}

#[test]
fn a_million_attempts_admit_exactly_the_hard_limit() {
    let hard = Limit { grace_percent: Some(0), ..Limit::usage("api_call", Some(500_000)) };
    let site = Site::new(vec![hard]);
    let admitted = attempts(1_000_000 / THREADS, |number| {
        let request = reserve(&format!("r{number}"), vec![item("api_call", 1)]);
        decision(&site.quota.reserve(&request, 0, NOW)) != Decision::Deny
    });
    assert_eq!(admitted, 500_000);
    assert_eq!(site.stands("api_call"), (0, 500_000));
}

#[test]
fn three_meters_in_three_scopes_are_all_or_nothing() {
    let meters = ["api_call", "llm.prompt_tokens", "llm.generated_tokens"];
    let scopes = [(Scope::Tenant, 3_000), (Scope::Subject, 1_700), (Scope::Key, 1_100)];
    let limits = meters.iter().flat_map(|meter| {
        scopes.map(|(scope, limit)| Limit { scope, grace_percent: Some(0), ..Limit::usage(meter, Some(limit)) })
    });
    let site = Site::new(limits.collect());
    let admitted = attempts(400, |number| {
        // Meters in another order each time, subjects and keys in turn.
        let items = (0..3).map(|at| item(meters[(number + at) % 3], 1)).collect();
        let who = who(Some(["u", "v"][number % 2]), Some(["k", "l", "m"][number % 3]));
        let request = Reserve { who, ..reserve(&format!("r{number}"), items) };
        decision(&site.quota.reserve(&request, 0, NOW)) != Decision::Deny
    });
    let held = |meter: &str| site.stands(meter).1;
    assert_eq!(meters.map(held), [i64::try_from(admitted).unwrap(); 3]);
    assert_eq!(admitted, 3_000, "subjects and keys have room for all of the tenant's");
}

#[test]
fn amounts_that_no_word_can_hold_are_denied() {
    let site = Site::new(vec![Limit::usage("api_call", None)]);
    for amount in [u64::MAX, i64::MAX.unsigned_abs(), 1 << 62] {
        let outcome =
            site.quota.reserve(&reserve("large", vec![item("api_call", amount)]), 0, NOW).map(Outcome::into_owned);
        assert_eq!(decision(&outcome), Decision::Deny, "{amount}");
    }
    let twice = vec![item("api_call", u64::MAX), item("api_call", u64::MAX)];
    assert_eq!(decision(&site.quota.reserve(&reserve("large", twice), 0, NOW)), Decision::Deny);
    assert_eq!(site.stands("api_call"), (0, 0));
}
