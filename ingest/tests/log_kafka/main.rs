//! The log on a real Kafka: the contract of every log, and what is its own.

mod checks;
mod contract;
mod group;
mod reading;
mod support;
