//! Model checking of quota. The sources are the aggregator's own, copied by the build
//! script: the word and decisions over several under loom, the same on real threads
//! whose histories are recorded and searched, all of quota under shuttle. Copies with a
//! planted fault show that each checker finds what it is there for.
//!
//! Reading path: [`faults`] → `models/words` → `models/histories` → `models/life`.

#![expect(
    dead_code,
    unreachable_pub,
    unused_imports,
    unused_mut,
    unused_variables,
    reason = "the copies hold what no model calls, the faulty ones what no fault leaves a use for"
)]

pub mod faults;
mod map;
pub mod search;
mod sync;

/// Models, by name.
pub type Models = &'static [(&'static str, fn())];

include!(concat!(env!("OUT_DIR"), "/variants.rs"));
