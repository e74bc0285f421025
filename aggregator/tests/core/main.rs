//! The core as a whole: against a naive model, and under any cut and crash.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod anchors;
mod determinism;
mod oracle;
mod support;
