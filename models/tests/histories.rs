//! Histories of real threads, recorded and searched for an order that explains them.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod common;

use odometer_models::faults::Tree;
use odometer_models::noisy;
use odometer_models::search::{Event, is_linearizable};

fn check(model: fn()) {
    model();
}

#[test]
fn every_history_can_be_explained() {
    for (name, model) in noisy::quota::models::ALL {
        println!("{name}");
        check(*model);
    }
}

#[test]
fn every_planted_fault_is_found() {
    common::finds_every_fault(Tree::Noisy, check);
}

/// A register: what was written and what was read.
#[derive(Clone, Copy, Debug)]
enum Register {
    Write(u8),
    Read(u8),
}

fn explained(events: &[(Register, u64, u64)]) -> bool {
    let event = |&(operation, began, ended): &_| Event { operation, began, ended };
    let events: Vec<_> = events.iter().map(event).collect();
    is_linearizable(&events, 0, |value, operation| match operation {
        Register::Write(new) => Some(*new),
        Register::Read(seen) => (seen == value).then_some(*value),
    })
}

#[test]
fn the_search_knows_right_from_wrong() {
    use Register::{Read, Write};
    assert!(explained(&[(Write(1), 0, 9), (Read(0), 1, 2), (Read(1), 3, 4)]));
    assert!(!explained(&[(Write(1), 0, 9), (Read(1), 1, 2), (Read(0), 3, 4)]), "it was seen already");
    assert!(!explained(&[(Write(1), 0, 1), (Read(0), 2, 3)]), "it had ended");
    assert!(explained(&[(Write(1), 0, 3), (Write(2), 0, 3), (Read(1), 4, 5)]));
}
