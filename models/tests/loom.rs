//! Every interleaving of two or three threads at the admission word, and every value
//! that its memory orderings let a load see.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod common;

use odometer_models::faults::Tree;
use odometer_models::words;

fn check(model: fn()) {
    loom::model(model);
}

#[test]
fn the_word_keeps_its_promises() {
    for (name, model) in words::quota::models::ALL {
        println!("{name}");
        check(*model);
    }
}

#[test]
fn every_planted_fault_is_found() {
    common::finds_every_fault(Tree::Words, check);
}
