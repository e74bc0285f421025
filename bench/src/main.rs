//! `odometer-bench`: measures the core and the whole, and prints what it found.

use clap::{Parser, Subcommand};

mod core;
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
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Core(args) => core::run(&args),
    }
}
