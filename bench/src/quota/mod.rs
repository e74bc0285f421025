//! Quota: in this process, beside other libraries in the same harness, how exactly many
//! threads are admitted at a limit, what one check costs, and what it costs while holds
//! end; on a node, how soon it decides on what was used, and how many checks it answers
//! over gRPC.

use clap::{Parser, Subcommand};
use odometer_aggregator::{LiveQuota, LiveState, Options, Processor};
use odometer_schemas::commit::PartitionState;
use odometer_schemas::control::Control;
use odometer_schemas::definitions::Definitions;
use odometer_schemas::envelope::{Origin, encode_control};
use odometer_schemas::log::LogEntry;
use odometer_schemas::quota::{Limit, Plan, PlanOrigin};
use odometer_schemas::time::TimeMs;

mod admission;
mod check;
mod expiry;
mod freshness;
mod stream;
mod stream_wire;

/// 2026-01-15T00:00:00Z: any time will do, as long as every run has the same.
const NOW: TimeMs = TimeMs(1_768_435_200_000);
/// A meter of the built-in definitions.
const METER: &str = "api_call";
/// Nothing that is measured lasts an hour.
const WINDOW_S: u64 = 3_600;

#[derive(Parser)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Many threads at one hard limit: how many are let in, here and elsewhere.
    Admission(admission::Args),
    /// Nanoseconds per check, with one counter and with many.
    Check(check::Args),
    /// What checks cost while a million reservations end.
    Expiry(expiry::Args),
    /// From the acknowledgement of usage until a node decides on it, under load.
    Freshness(freshness::Args),
    /// Checks per second over gRPC streams, by the batch.
    Stream(stream::Args),
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    match &args.command {
        Command::Admission(args) => admission::run(args),
        Command::Check(args) => check::run(args),
        Command::Expiry(args) => expiry::run(args),
        Command::Freshness(args) => freshness::run(args),
        Command::Stream(args) => stream::run(args),
    }
}

/// The quota of a partition whose default plan allows `limit` calls a month, and the
/// processor that it belongs to.
fn site(limit: i64) -> anyhow::Result<(Processor, LiveQuota)> {
    let options = Options {
        partition: 0,
        partitions: 1,
        hash_seed: Definitions::HASH_SEED_DEFAULT,
        ids_max: 1_000_000,
        totals_max: Options::TOTALS_MAX_DEFAULT,
        placement_seed: 0x5eed,
    };
    let live = LiveState::default();
    let quota = live.quota.clone();
    let mut processor = Processor::restore(options, &PartitionState::default(), None, live)?;
    let limits = vec![Limit { grace_percent: Some(0), ..Limit::usage(METER, Some(limit)) }];
    let plan = Plan { name: "free".into(), limits, is_default: true };
    let controls = [Control::Definitions(Definitions::built_in()), Control::Plan { plan, origin: PlanOrigin::Config }];
    for (offset, control) in (0..).zip(&controls) {
        let bytes = encode_control(control, Origin::default());
        processor.handle(&LogEntry { partition: 0, offset, append_time: NOW, bytes: bytes.into() })?;
    }
    Ok((processor, quota))
}
