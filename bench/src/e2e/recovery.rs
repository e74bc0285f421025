//! How long a node takes from its start until it answers for all its partitions, when
//! the node before it ended in good order: snapshots of all ids are at hand, totals come
//! from the book. In the end the totals book must hold exactly what was sent.

use std::path::PathBuf;
use std::time::Instant;

use clap::Parser;
use odometer_bench::traffic::{Ids, Spread};
use serde_json::json;

use super::load::Load;
use super::pace::Pace;
use super::site::{OnCluster, Plan};
use super::{Footing, Via};
use crate::report::{self, CpuTimes, round};

#[derive(Debug, Parser)]
pub(crate) struct Args {
    /// Records, each of which is remembered by its own key.
    #[arg(long, default_value_t = 10_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    ids: u64,
    /// Tenants; each has a total of every meter.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    tenants: u64,
    /// The `odometer` binary [default: beside this one]
    #[arg(long)]
    odometer: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let plan = Plan {
        footing: Footing::Cluster,
        via: Via::Emitter,
        with_raw: false,
        starts_later: false,
        odometer: args.odometer.clone(),
    };
    let mut site = OnCluster::start(&plan, directory.path())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().thread_name("sender").enable_all().build()?;
    let load = Load { records: args.ids, tenants: args.tenants, ids: Ids::Uuid, spread: Spread::Uniform, senders: 1 };
    let sent = runtime.block_on(load.emit(site.access(), Pace::new(Instant::now(), None, 1)))?;
    let books = site.books();
    books.await_totals(args.ids)?;
    site.stop_node()?;

    let started = Instant::now();
    site.serve()?;
    let listening_s = started.elapsed().as_secs_f64();
    site.await_ready()?;
    let authoritative_s = started.elapsed().as_secs_f64();
    let cpu = CpuTimes::now(site.pid());
    let differences = books.differences(&sent.tally)?;
    site.stop()?;
    let figures = [
        ("ids", json!(args.ids)),
        ("tenants", json!(args.tenants)),
        ("totals", json!(sent.tally.len())),
        ("listening_s", json!(round(listening_s, 2))),
        ("authoritative_s", json!(round(authoritative_s, 2))),
        ("node_cpu_s", json!(round(cpu.server_s(), 2))),
        ("is_exact", json!(differences.is_empty())),
    ];
    report::print(args.json, &figures);
    anyhow::ensure!(differences.is_empty(), "the totals are not what was sent: {}", differences.join("; "));
    Ok(())
}
