//! Stage 2: the pure core. Log entries go in, decisions come out.
//!
//! A [`Processor`] owns one partition: it judges every record once, counts the
//! accepted ones and hands over what changed. It is a pure function of the log: no
//! I/O, no clock, no randomness, no async, no logging. Time comes in with the
//! entries.
//!
//! Reading path: [`processor`] (the life of a partition) → `judge` (one envelope)
//! → `dedupe` (is this id new?) and `totals` (what does it add to?); [`quota`] decides
//! on the same counters, from any thread, and is told the time by whoever asks.

pub mod cells;
pub mod dedupe;
mod judge;
mod prefetch;
pub mod processor;
pub mod quota;
mod rules;
mod snapshot;
mod totals;

pub use cells::{Cell, LiveCells, LiveUsage};
pub use processor::{LiveState, Options, Processor, Refusal};
pub use quota::LiveQuota;
pub use snapshot::{Snapshot, SnapshotError};
