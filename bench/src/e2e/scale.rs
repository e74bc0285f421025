//! What more tenants cost on a cluster. One node counts two stretches of usage: the
//! first touches every (tenant, meter) once, which opens all totals; the second, over
//! all tenants again, is the steady state. Each is timed from its first record until
//! the totals book has its last, with the load beside; compare CPU times. In the end the
//! totals book must hold exactly what was sent.

use std::path::PathBuf;
use std::time::Instant;

use clap::Parser;
use odometer_bench::traffic::{Ids, METERS, Spread, Tally};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::books::Books;
use super::load::{self, Load};
use super::pace::Pace;
use super::site::{OnCluster, Plan};
use super::{Footing, SpreadArg, Via};
use crate::report::{self, CpuTimes, processes_cpu_s, round};

#[derive(Debug, Parser)]
pub(crate) struct Args {
    /// Tenants; each has a total of every meter.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    tenants: u64,
    /// Records of the steady state.
    #[arg(long, default_value_t = 30_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    records: u64,
    /// Records per second of the steady state; without it, as many as are taken.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    rate: Option<u64>,
    /// Which tenants the records of the steady state are of.
    #[arg(long, value_enum, default_value_t)]
    spread: SpreadArg,
    /// The `odometer` binary [default: beside this one]
    #[arg(long)]
    odometer: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// A node, what it was sent so far, and how to send more.
struct Run {
    runtime: Runtime,
    site: OnCluster,
    books: Books,
    tally: Tally,
    tenants: u64,
}

/// One stretch of usage.
struct Stretch {
    records: u64,
    elapsed_s: f64,
    node: CpuTimes,
    postgres_s: f64,
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
    let site = OnCluster::start(&plan, directory.path())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().thread_name("sender").enable_all().build()?;
    let books = site.books();
    let mut run = Run { runtime, site, books, tally: Tally::new(), tenants: args.tenants };
    let opened = run.stretch(args.tenants * METERS.len() as u64, Spread::InTurn, None)?;
    let steady = run.stretch(args.records, args.spread.into(), args.rate)?;
    let differences = run.books.differences(&run.tally)?;
    run.site.stop()?;

    let mut figures = vec![
        ("tenants", json!(args.tenants)),
        ("totals_opened", json!(opened.records)),
        ("opening_us_per_total", opened.node_us()),
        ("opening_postgres_us_per_total", opened.postgres_us()),
        ("opened_per_s", opened.per_s()),
        ("records", json!(steady.records)),
        ("node_us_per_record", steady.node_us()),
        ("postgres_us_per_record", steady.postgres_us()),
        ("records_per_s", steady.per_s()),
        ("elapsed_s", json!(round(steady.elapsed_s, 2))),
        ("cpu_s_by_thread", json!(steady.node.by_thread())),
    ];
    figures.push(("is_exact", json!(differences.is_empty())));
    report::print(args.json, &figures);
    anyhow::ensure!(differences.is_empty(), "the totals are not what was sent: {}", differences.join("; "));
    Ok(())
}

impl Run {
    /// Sends `records` and waits until the totals book has decided on them.
    fn stretch(&mut self, records: u64, spread: Spread, rate: Option<u64>) -> anyhow::Result<Stretch> {
        let postgres = self.site.postgres_pids()?;
        let (node_before, postgres_before) = (CpuTimes::now(self.site.pid()), processes_cpu_s(&postgres));
        let started = Instant::now();
        let load = Load { records, tenants: self.tenants, ids: Ids::Emitted, spread, senders: 1 };
        let emitted = load.emit(self.site.access(), Pace::new(started, rate, 1));
        load::merge(&mut self.tally, self.runtime.block_on(emitted)?.tally);
        self.books.await_totals(self.tally.values().map(|sum| sum.records).sum())?;
        Ok(Stretch {
            records,
            elapsed_s: started.elapsed().as_secs_f64(),
            node: CpuTimes::now(self.site.pid()).since(&node_before),
            postgres_s: processes_cpu_s(&postgres) - postgres_before,
        })
    }
}

impl Stretch {
    fn node_us(&self) -> Value {
        self.us_each(self.node.server_s())
    }

    fn postgres_us(&self) -> Value {
        self.us_each(self.postgres_s)
    }

    fn us_each(&self, seconds: f64) -> Value {
        json!(round(seconds * 1e6 / self.records as f64, 3))
    }

    fn per_s(&self) -> Value {
        json!((self.records as f64 / self.elapsed_s).round() as u64)
    }
}
