//! The log, the bridge and the dead letters on a real Kafka.

mod bridge;
mod bridge_faults;
mod checks;
mod contract;
mod group;
mod kill;
mod numbered;
mod reading;
mod support;
