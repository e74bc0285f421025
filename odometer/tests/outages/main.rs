//! Kafka, PostgreSQL and ClickHouse are killed under load and started again, one after
//! the other, under one node that never restarts: what was acknowledged is counted,
//! and counted once. Everything here is this test's own, the three parts included.
//!
//! Each outage lasts at least ten seconds, and until health has named it.
//! `ODOMETER_OUTAGE=full` makes it two minutes for ClickHouse and 30 s for the others:
//!
//! ```sh
//! ODOMETER_OUTAGE=full cargo test -p odometer --test outages -- --nocapture
//! ```

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

#[expect(dead_code, reason = "other tests need more of it")]
#[path = "../common/mod.rs"]
mod common;
#[expect(dead_code, reason = "other tests need more of it")]
mod load;
mod parts;
#[expect(dead_code, reason = "other tests need more of it")]
#[path = "../cluster/support.rs"]
mod support;
mod survive;
