//! The vocabulary that every stage of Odometer shares.
//!
//! Pure types and pure functions: ids and limits, quantities, time and periods,
//! meters, records, control records, the envelope codec, verdicts, digests, and
//! the edge types that flow from the aggregator to the books. Nothing here does
//! I/O, reads a clock or logs.
//!
//! Reading path: [`record`] (one usage fact) → [`envelope`] (how facts travel) →
//! [`verdict`] (what is decided about each) → [`commit`] (what the totals book
//! keeps) → [`row`] (what the raw book keeps).

pub mod accumulator;
pub mod commit;
pub mod control;
pub mod definitions;
pub mod digest;
pub mod envelope;
pub mod limits;
pub mod log;
pub mod meter;
pub mod partition;
pub mod period;
pub mod quantity;
pub mod quota;
pub mod record;
pub mod row;
pub mod sketch;
pub mod time;
pub mod verdict;
