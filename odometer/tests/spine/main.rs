//! The whole pipeline as its users run it: the real binary, real files, real
//! signals. Totals are held against sums that are computed here, independently.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod agents;
#[path = "../common/agents.rs"]
mod agents_common;
mod alerts;
#[path = "../common/mod.rs"]
mod common;
#[path = "../common/crossings.rs"]
mod crossings;
#[path = "../common/envoy.rs"]
mod envoy;
mod kill;
mod quota;
mod quota_envoy;
mod support;
mod tamper;
#[path = "../common/tampers.rs"]
mod tampers;
mod traffic;
