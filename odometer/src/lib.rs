//! Streaming usage metering: the one binary as a library, so that benchmarks run the
//! very node that users run. It wires the stages together and holds no business rule.
//!
//! Reading path: [`run`] and `commands` (what a user can ask for) → [`Node`] (the
//! pipeline in one process) → `api` (what it answers over HTTP).

mod alerts;
mod api;
mod cli;
mod commands;
mod config;
mod demo;
mod desk;
mod node;
mod quota;
mod replay;
mod slices;

pub use cli::run;
pub use config::Config;
pub use node::cells::Cells;
pub use node::{Drained, Node};
