//! The gateway from request to log, on a log in memory. Every test body takes the
//! log as `Arc<dyn LogAppender>` through [`support`], so any log can stand there.
#![cfg(test)]

mod arbitrary;
mod cloudevents;
mod good;
mod malformed;
mod support;
mod surface;
