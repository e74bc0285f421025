//! Lives of reservations in interleavings at random, the same ones in every run.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod common;

use odometer_models::faults::Tree;
use odometer_models::life;
use shuttle::scheduler::RandomScheduler;
use shuttle::{Config, FailurePersistence, Runner};

/// Interleavings of each model. Every planted fault shows within a few hundred with most
/// seeds, and within twice ten thousand with each that was tried.
const INTERLEAVINGS: usize = 20_000;
const SEED: u64 = 0x5eed;

fn check(model: fn()) {
    let mut config = Config::new();
    config.silence_warnings = true;
    config.failure_persistence = FailurePersistence::None;
    Runner::new(RandomScheduler::new_from_seed(SEED, INTERLEAVINGS), config).run(model);
}

#[test]
fn every_life_ends_right() {
    for (name, model) in life::quota::models::ALL {
        println!("{name}");
        check(*model);
    }
}

#[test]
fn every_planted_fault_is_found() {
    common::finds_every_fault(Tree::Life, check);
}
