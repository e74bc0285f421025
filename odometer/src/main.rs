//! Stub: declares the modules until the binary's wiring replaces it.
mod config;
mod replay;

use std::process::ExitCode;

use clap::Parser;

/// Streaming usage metering.
#[derive(Debug, Parser)]
#[command(name = "odometer", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Replay(replay::Args),
    CheckConfig(config::command::Args),
}

fn main() -> ExitCode {
    let result = match &Cli::parse().command {
        Command::Replay(args) => replay::run(args),
        Command::CheckConfig(args) => config::command::run(args),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
