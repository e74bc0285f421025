//! Quota as a whole: under many threads, along a reservation's life, and over a change
//! of owner.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod admission;
mod agreement;
mod alerts;
mod life;
mod read_back;
mod shortcuts;
mod support;
mod takeover;
