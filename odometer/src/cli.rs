//! The command line: arguments in, an exit code out.

use std::process::ExitCode;

use clap::Parser;

use crate::{commands, config, replay};

const EXAMPLES: &str = "\
Examples:
  odometer dev --demo                                        # everything in one process, with sample traffic
  odometer replay trace.csv --map examples/maps/azure-code.toml
  odometer totals --period 2023-11
  odometer verify                                            # proves that both books agree
  odometer migrate --config examples/cluster.toml            # the same on Kafka, PostgreSQL and ClickHouse:
  odometer serve --config examples/cluster.toml              # one node of any number";

/// Streaming usage metering: counts every record exactly once, and proves it.
#[derive(Debug, Parser)]
#[command(name = "odometer", version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Dev(commands::dev::Args),
    Serve(commands::serve::Args),
    Migrate(commands::migrate::Args),
    Replay(replay::Args),
    Totals(commands::totals::Args),
    Verify(commands::verify::Args),
    Rejects(commands::rejects::Args),
    CheckConfig(config::command::Args),
}

/// Runs the command that the process was started with.
#[must_use]
pub fn run() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_env("ODOMETER_LOG").unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    crate::slices::look_into_sqlite();
    let result = match &Cli::parse().command {
        Command::Dev(args) => commands::dev::run(args),
        Command::Serve(args) => commands::serve::run(args),
        Command::Migrate(args) => commands::migrate::run(args),
        Command::Replay(args) => replay::run(args),
        Command::Totals(args) => commands::totals::run(args),
        Command::Verify(args) => commands::verify::run(args),
        Command::Rejects(args) => commands::rejects::run(args),
        Command::CheckConfig(args) => config::command::run(args),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
