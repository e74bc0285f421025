//! Limits that usage crosses: each part once in a period, wherever commits are cut and
//! whoever counts.

use odometer_schemas::control::Control;
use odometer_schemas::quota::{Limit, Plan, PlanOrigin, Scope, TenantTerms};
use proptest::prelude::{any, prop, proptest};

use crate::support::{Site, book};

const MINUTES: &str = "agent_minute";

fn of(percents: &[(u16, i64)]) -> Vec<(String, u16, i64)> {
    percents.iter().map(|(percent, used)| ("tenant".to_owned(), *percent, *used)).collect()
}

#[test]
fn each_part_is_told_once() {
    let mut site = Site::new(vec![Limit::usage(MINUTES, Some(100)), Limit::concurrency(Plan::AGENTS, Some(1))]);
    for (id, quantity) in [("a", 49), ("b", 1), ("b", 1), ("c", 45), ("d", -60), ("e", 60), ("f", 500), ("g", 1)] {
        site.use_minutes(id, quantity, None);
    }
    assert_eq!(site.alerts(), of(&[(50, 50), (80, 95), (100, 595), (110, 595)]));
    let rows: Vec<_> = site.commits.iter().flat_map(|commit| &commit.alerts).collect();
    assert!(rows.windows(2).all(|pair| pair[0].sequence < pair[1].sequence));
    assert!(rows.iter().all(|row| row.policy == "free/agent_minute/tenant" && row.limit == 100));
    assert_eq!(rows[2].offset(), rows[3].offset());
}

#[test]
fn a_new_owner_tells_nothing_again() {
    let mut old = Site::new(vec![Limit::usage(MINUTES, Some(100))]);
    old.use_minutes("a", 85, None);
    let mut new = Site::restored(&book(&old));
    new.use_minutes("b", 10, None);
    assert_eq!(new.alerts(), []);
    new.use_minutes("c", 10, None);
    assert_eq!(new.alerts(), of(&[(100, 105)]));
}

#[test]
fn another_limit_is_looked_at_with_the_next_record() {
    let mut site = Site::new(vec![Limit::usage(MINUTES, Some(1_000))]);
    site.use_minutes("a", 60, None);
    let overrides = vec![Limit::usage(MINUTES, Some(100))];
    site.log(&Control::Terms { tenant: "acme".into(), terms: TenantTerms { plan: None, overrides } });
    assert_eq!(site.alerts(), []);
    site.use_minutes("b", 1, None);
    assert_eq!(site.alerts(), of(&[(50, 61)]));
    site.log(&Control::Terms { tenant: "acme".into(), terms: TenantTerms::default() });
    let limits = vec![Limit::usage(MINUTES, Some(70))];
    let plan = Plan { name: "free".into(), limits, is_default: true };
    site.log(&Control::Plan { plan, origin: PlanOrigin::Api });
    site.use_minutes("c", 1, None);
    assert_eq!(site.alerts(), of(&[(50, 61), (80, 62)]), "half was told before");
}

#[test]
fn subjects_cross_their_own_limits() {
    let each = |limit| Limit { scope: Scope::Subject, ..Limit::usage(MINUTES, Some(limit)) };
    let mut site = Site::new(vec![each(10), Limit::usage(MINUTES, Some(40))]);
    site.use_as(Some("ann"), 6);
    site.use_as(Some("bob"), 4);
    site.use_as(None, 6);
    let ann = ("subjectann".to_owned(), 50, 6);
    assert_eq!(site.alerts(), [ann]);
    let mut site = Site::restored(&book(&site));
    site.use_as(Some("ann"), 2);
    site.use_as(Some("bob"), 1);
    let expected = [("subjectann".to_owned(), 80, 8), ("subjectbob".to_owned(), 50, 5)];
    assert_eq!(site.alerts(), expected);
    site.use_as(None, 1);
    assert_eq!(site.alerts()[2..], of(&[(50, 20)]));
}

proptest! {
    /// Cut by restarts anywhere, the log brings the same alerts.
    #[test]
    fn restarts_change_nothing(steps in prop::collection::vec((-3_i64..20, any::<bool>(), 0_u8..3), 1..60)) {
        let each = Limit { scope: Scope::Subject, ..Limit::usage(MINUTES, Some(50)) };
        let limits = vec![each, Limit::usage(MINUTES, Some(200))];
        let (mut whole, mut cut) = (Site::new(limits.clone()), Site::new(limits));
        let mut rows = Vec::new();
        let mut state = book(&cut);
        for (quantity, restart, who) in steps {
            let subject = ["ann", "bob"].get(usize::from(who)).copied();
            whole.use_as(subject, quantity);
            cut.use_as(subject, quantity);
            if restart {
                rows.append(&mut cut.alerts());
                state = cut.book_over(state);
                cut = Site::restored(&state);
            }
        }
        rows.append(&mut cut.alerts());
        assert_eq!(whole.alerts(), rows);
    }
}
