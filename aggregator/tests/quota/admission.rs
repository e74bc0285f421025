//! Many threads at one limit.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use odometer_schemas::quota::{Check, Decision, Limit, Reserve, Scope, Who};

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

/// What is held of a meter in the tenant's, the subject's and the key's own counter.
fn held(site: &Site, meter: &str, who: Who) -> [i64; 3] {
    let check = Check { who, items: vec![item(meter, 0)] };
    let limits = site.quota.check(&check, NOW).unwrap().limits;
    [Scope::Tenant, Scope::Subject, Scope::Key]
        .map(|scope| limits.iter().find(|limit| limit.scope == scope).unwrap().reserved)
}

/// Each meter is full in another scope, all three of them after as many requests: until
/// then what one counter has room for another has not, and has to be taken back.
#[test]
fn three_meters_in_three_scopes_are_all_or_nothing() {
    const ADMITTED: i64 = 2_100;
    const SUBJECTS: [&str; 2] = ["u", "v"];
    const KEYS: [&str; 3] = ["k", "l", "m"];
    let (of_subject, of_key) = (ADMITTED / 2, ADMITTED / 3);
    let roomy = [(Scope::Tenant, ADMITTED + 900), (Scope::Subject, of_subject + 300), (Scope::Key, of_key + 200)];
    let full = [(Scope::Tenant, ADMITTED), (Scope::Subject, of_subject), (Scope::Key, of_key)];
    let meters = ["api_call", "llm.prompt_tokens", "llm.generated_tokens"];
    let limits = meters.iter().zip(full).flat_map(|(meter, full)| {
        let of_scope = move |(scope, roomy)| if scope == full.0 { full } else { (scope, roomy) };
        roomy.map(of_scope).map(|(scope, limit)| Limit {
            scope,
            grace_percent: Some(0),
            ..Limit::usage(meter, Some(limit))
        })
    });
    let site = Site::new(limits.collect());
    let admitted = attempts(400, |number| {
        // Meters in another order each time, subjects and keys in turn.
        let items = (0..3).map(|at| item(meters[(number + at) % 3], 1)).collect();
        let who = who(Some(SUBJECTS[number % 2]), Some(KEYS[number % 3]));
        let request = Reserve { who, ..reserve(&format!("r{number}"), items) };
        decision(&site.quota.reserve(&request, 0, NOW)) != Decision::Deny
    });
    assert_eq!(i64::try_from(admitted), Ok(ADMITTED));
    for meter in meters {
        for (subject, key) in SUBJECTS.iter().flat_map(|subject| KEYS.map(|key| (*subject, key))) {
            let held = held(&site, meter, who(Some(subject), Some(key)));
            assert_eq!(held, [ADMITTED, of_subject, of_key], "{meter} of {subject} and {key}");
        }
    }
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
