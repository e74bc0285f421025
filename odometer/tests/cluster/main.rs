//! `odometer serve` as its users run it: real Kafka, PostgreSQL and ClickHouse, the
//! real binary, real signals. Every test has a topic, a database and nodes of its own.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod agents;
#[path = "../common/agents.rs"]
mod agents_common;
mod alerts;
mod analysts;
mod bridge;
#[path = "../common/mod.rs"]
mod common;
#[path = "../common/crossings.rs"]
mod crossings;
mod gaps;
#[path = "../outages/load.rs"]
mod load;
mod nodes;
mod odd;
mod parity;
mod producers;
mod quota;
mod quota_nodes;
mod roles;
mod rolling;
mod support;
mod tamper;
#[path = "../common/tampers.rs"]
mod tampers;
mod traffic;
