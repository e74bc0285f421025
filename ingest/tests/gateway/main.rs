//! The gateway from request to log: in memory for what a log may answer, on the
//! embedded one and on Kafka for what it then holds. The same requests go through the
//! ingress topic where Kafka can express them.
#![cfg(test)]

mod arbitrary;
mod cloudevents;
mod good;
mod ingress;
#[expect(dead_code, reason = "other tests need more of it")]
#[path = "../kafka/support.rs"]
mod kafka;
mod malformed;
mod stored;
mod support;
mod surface;
