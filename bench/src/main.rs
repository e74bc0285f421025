//! `odometer-bench`: measures the core and the whole, and prints what it found.

use clap::{Parser, Subcommand};

mod core;
mod e2e;
mod keep;
mod quota;
mod report;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(name = "odometer-bench", version, about = "Benchmarks of Odometer's stages and of the whole")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Decode, judge and count on one core: one processor, distinct 128-bit ids.
    Core(core::Args),
    /// The whole pipeline: records sent, acknowledged, in the totals, in the raw book.
    E2e(e2e::Args),
    /// What tenants cost on a cluster: opening every total, then counting in them.
    Scale(e2e::scale::Args),
    /// From a node's start until it answers for all partitions, from a snapshot.
    Recovery(e2e::recovery::Args),
    /// Quota in this process, beside other libraries.
    Quota(quota::Args),
    /// Keeps the medians of several runs as a dated result; see bench/run.
    Keep(keep::Args),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Core(args) => core::run(&args),
        Command::E2e(args) => e2e::run(&args),
        Command::Scale(args) => e2e::scale::run(&args),
        Command::Recovery(args) => e2e::recovery::run(&args),
        Command::Quota(args) => quota::run(&args),
        Command::Keep(args) => keep::run(&args),
    }
}
