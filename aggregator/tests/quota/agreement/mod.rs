//! Random requests, records, readings of the log, changes of plan, time and restarts:
//! every answer is what the plain model says, after every step.

mod model;
mod node;

use std::collections::BTreeMap;

use odometer_schemas::quota::Decision;
use proptest::prelude::*;

use model::{METERS, Model, Refused, User};
use node::Node;

const TENANTS: u8 = 2;
const IDS: u8 = 4;

type Items = Vec<(usize, u64)>;

#[derive(Clone, Debug)]
enum Step {
    Check { tenant: u8, user: User, items: Items },
    Reserve { tenant: u8, id: u8, user: User, items: Items, ttl_s: i64 },
    Extend { tenant: u8, id: u8, add: Items, ttl_s: i64 },
    Commit { tenant: u8, id: u8, items: Items, is_final: bool },
    Release { tenant: u8, id: u8 },
    Record { tenant: u8, subject: Option<u8>, used: (usize, u64), id: Option<u8> },
    Read,
    Wait { s: i64 },
    Plan { tenant: u8, plan: usize },
    Restart,
}

fn item() -> impl Strategy<Value = (usize, u64)> {
    (0..METERS.len(), 0..7_u64)
}

fn items(least: usize, most: usize) -> impl Strategy<Value = Items> {
    prop::collection::vec(item(), least..=most)
}

fn user() -> impl Strategy<Value = User> {
    (prop::option::of(0..2_u8), prop::option::of(0..2_u8))
}

fn step() -> impl Strategy<Value = Step> {
    let (tenant, id) = (0..TENANTS, 0..IDS);
    let place = (tenant.clone(), id.clone());
    prop_oneof![
        1 => (tenant.clone(), user(), items(1, 3)).prop_map(|(tenant, user, items)| Step::Check { tenant, user, items }),
        6 => (place.clone(), user(), items(1, 3), 1..60_i64)
            .prop_map(|((tenant, id), user, items, ttl_s)| Step::Reserve { tenant, id, user, items, ttl_s }),
        3 => (place.clone(), items(0, 1), 1..60_i64)
            .prop_map(|((tenant, id), add, ttl_s)| Step::Extend { tenant, id, add, ttl_s }),
        2 => (place.clone(), items(0, 1), any::<bool>())
            .prop_map(|((tenant, id), items, is_final)| Step::Commit { tenant, id, items, is_final }),
        1 => place.prop_map(|(tenant, id)| Step::Release { tenant, id }),
        5 => (tenant.clone(), prop::option::of(0..2_u8), item(), prop::option::of(id))
            .prop_map(|(tenant, subject, used, id)| Step::Record { tenant, subject, used, id }),
        3 => Just(Step::Read),
        2 => (1..30_i64).prop_map(|s| Step::Wait { s }),
        1 => (tenant, 0..2_usize).prop_map(|(tenant, plan)| Step::Plan { tenant, plan }),
        1 => Just(Step::Restart),
    ]
}

/// The node and the model, asked the same.
struct Both {
    node: Node,
    model: Model,
    /// A number for every different request of an id: its body.
    bodies: BTreeMap<String, u128>,
}

impl Both {
    fn take(&mut self, step: Step) {
        match step {
            Step::Check { tenant, user, items } => self.check(tenant, user, &items),
            Step::Reserve { tenant, id, user, items, ttl_s } => self.reserve((tenant, id), user, &items, ttl_s * 1_000),
            Step::Extend { tenant, id, add, ttl_s } => {
                let said = self.node.extend((tenant, id), &add, ttl_s * 1_000);
                assert_eq!(said, self.model.extend((tenant, id), &add, ttl_s * 1_000));
            }
            Step::Commit { tenant, id, items, is_final } => {
                let said = self.node.commit((tenant, id), &items, is_final);
                assert_eq!(said, self.model.commit((tenant, id), &items, is_final));
            }
            Step::Release { tenant, id } => {
                assert_eq!(self.node.release(tenant, id), self.model.release(tenant, id));
            }
            Step::Record { tenant, subject, used, id } => {
                self.node.record(tenant, subject, used, id);
                self.model.record(tenant, subject, used, id);
            }
            Step::Read => self.read(),
            Step::Wait { s } => self.wait(s * 1_000),
            Step::Plan { tenant, plan } => {
                self.node.plan(tenant, plan);
                self.model.plans.insert(tenant, plan);
            }
            Step::Restart => {
                self.read();
                self.node.restart();
                self.wait(0);
            }
        }
    }

    fn reserve(&mut self, (tenant, id): (u8, u8), user: User, items: &Items, ttl_ms: i64) {
        let next = self.bodies.len() as u128;
        let body = *self.bodies.entry(format!("{user:?} {items:?} {ttl_ms}")).or_insert(next);
        let said = self.node.reserve((tenant, id), (user, body), items, ttl_ms);
        let expected = self.model.reserve((tenant, id), (user, body), items, ttl_ms);
        assert_eq!(said, expected);
        // Said again by whoever got no answer.
        if matches!(said, Ok(decision) if decision != Decision::Deny) {
            assert_eq!(self.node.reserve((tenant, id), (user, body), items, ttl_ms), said);
        }
    }

    fn read(&mut self) {
        self.node.read();
        self.model.read();
    }

    fn wait(&mut self, ms: i64) {
        self.model.wait(ms);
        self.node.wait(self.model.now_ms);
    }

    fn check(&self, tenant: u8, user: User, items: &Items) {
        assert_eq!(self.node.check(tenant, user, items), self.model.check(tenant, user, items));
    }

    /// How everything stands, asked for nothing and for a little.
    fn compare(&self) {
        for tenant in 0..TENANTS {
            for user in [(None, None), (Some(0), Some(0)), (Some(1), Some(1)), (Some(0), None), (None, Some(1))] {
                for amount in [0, 1] {
                    self.check(tenant, user, &vec![(0, amount), (1, amount)]);
                    self.check(tenant, user, &vec![(0, amount)]);
                }
            }
        }
    }
}

/// The node gives up on what the log does not have after two minutes; here it has
/// everything within half a minute.
fn agree(steps: Vec<Step>) {
    let mut both = Both { node: Node::new(), model: Model::default(), bodies: BTreeMap::new() };
    both.model.now_ms = node::NOW.0;
    for step in steps {
        if matches!(step, Step::Wait { .. }) {
            both.read();
        }
        both.take(step);
        both.compare();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_answer_is_what_the_model_says(steps in prop::collection::vec(step(), 1..60)) {
        agree(steps);
    }
}

#[test]
fn the_model_is_not_always_asked_in_vain() {
    let (tenant, id, user) = (0, 0, (Some(0), Some(0)));
    let reserve = |amount| Step::Reserve { tenant, id, user, items: vec![(0, amount)], ttl_s: 10 };
    agree(vec![
        reserve(8),
        reserve(7),
        Step::Read,
        Step::Record { tenant, subject: None, used: (0, 3), id: Some(id) },
        Step::Commit { tenant, id, items: vec![(0, 9)], is_final: true },
        Step::Restart,
        Step::Wait { s: 130 },
        Step::Plan { tenant, plan: 1 },
        Step::Release { tenant, id },
        Step::Extend { tenant, id, add: vec![], ttl_s: 1 },
    ]);
    let mut model = Model::default();
    assert_eq!(model.extend((0, 0), &[], 1), Err(Refused::Unknown));
}
