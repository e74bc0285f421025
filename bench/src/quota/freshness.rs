//! From the acknowledgement of usage until `POST /v1/quota/check` has it, while other
//! usage arrives at a steady rate: the run of `e2e`, whose probes ask for decisions.

use std::path::PathBuf;

use clap::Parser;

use crate::e2e::{self, Footing};

#[derive(Parser)]
pub(crate) struct Args {
    /// What the log and the books are.
    #[arg(long, value_enum, default_value_t)]
    footing: Footing,
    /// Records per second.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    rate: u64,
    /// For so long.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// The `odometer` binary [default: beside this one]
    #[arg(long)]
    odometer: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let node = (args.footing, args.odometer.clone());
    e2e::run(&e2e::Args::of_decisions(node, args.rate, args.rate * args.seconds).printed(args.json))
}
