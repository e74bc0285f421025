//! The whole pipeline on fresh books: made-up usage in, durable totals and raw rows
//! out, every step timed. In the end the totals book must hold exactly what
//! was sent, or the run fails.
//!
//! Reading path: [`site`] (where the pipeline runs) → [`load`] and [`http`] (usage in)
//! → [`probe`] (how soon it shows) → [`books`] (when it is in the books).

mod books;
mod cluster;
mod http;
mod load;
mod pace;
mod probe;
pub(crate) mod recovery;
pub(crate) mod scale;
mod site;

use std::path::PathBuf;
use std::time::Instant;

use clap::{Parser, ValueEnum};
use odometer_bench::traffic::{Ids, Spread, TENANTS_DEFAULT, Tally};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

pub(crate) use self::http::micros;
use self::pace::Pace;
use self::probe::{Eye, Probe};
pub(crate) use self::site::Beside;
use self::site::{Plan, Site};
use crate::report::{self, CpuTimes, round};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Footing {
    /// Log and books are SQLite files of one directory.
    #[default]
    Embedded,
    /// One `odometer serve` on Kafka, PostgreSQL and ClickHouse, which `dev/services` runs.
    Cluster,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, ValueEnum)]
enum Via {
    /// The emitter, straight into the log; embedded, the pipeline runs in this process.
    #[default]
    Emitter,
    /// The emitter, over HTTP to the gateway.
    EmitterHttp,
    /// NDJSON posts to the gateway; the bodies are made beforehand.
    Http,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum IdsArg {
    Uuid,
    Emitted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, ValueEnum)]
enum SpreadArg {
    /// All equally often.
    #[default]
    Uniform,
    /// The tenant of rank r as frequently as 1/r.
    Zipf,
}

impl From<SpreadArg> for Spread {
    fn from(arg: SpreadArg) -> Self {
        match arg {
            SpreadArg::Uniform => Self::Uniform,
            SpreadArg::Zipf => Self::Zipf,
        }
    }
}

#[derive(Debug, Parser)]
pub(crate) struct Args {
    /// What the log and the books are.
    #[arg(long, value_enum, default_value_t)]
    footing: Footing,
    /// How usage enters.
    #[arg(long, value_enum, default_value_t)]
    via: Via,
    /// Records to send.
    #[arg(long, default_value_t = 2_000_000)]
    records: u64,
    /// Tenants that the records are spread over.
    #[arg(long, default_value_t = TENANTS_DEFAULT, value_parser = clap::value_parser!(u64).range(1..))]
    tenants: u64,
    /// Which tenants the records are of.
    #[arg(long, value_enum, default_value_t)]
    spread: SpreadArg,
    /// Who makes the ids [default: the emitter, where there is one]
    #[arg(long, value_enum)]
    ids: Option<IdsArg>,
    /// Keep no raw book; embedded, only where the pipeline runs in this process.
    #[arg(long)]
    without_raw: bool,
    /// Send everything before the node starts, and time it from its start; cluster only.
    #[arg(long)]
    prefill: bool,
    /// Records per second to send; without it, as many as are taken.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    rate: Option<u64>,
    /// Tasks or connections that send at once [default: 1 task or 4 connections]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=256))]
    senders: Option<u64>,
    /// Records of one HTTP request.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    batch: u64,
    /// The `odometer` binary [default: beside this one]
    #[arg(long)]
    odometer: Option<PathBuf>,
    /// Where the temporary data directory is made [default: the system's]
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Where probes look; a command of its own sets it.
    #[arg(skip)]
    eye: Eye,
}

impl Args {
    /// How soon quota decides on usage that comes at `rate` records a second: over HTTP
    /// from a node, embedded or on a cluster.
    pub(crate) fn of_decisions((footing, odometer): (Footing, Option<PathBuf>), rate: u64, records: u64) -> Self {
        let is_embedded = footing == Footing::Embedded;
        Self {
            footing,
            via: if is_embedded { Via::EmitterHttp } else { Via::Emitter },
            records,
            tenants: TENANTS_DEFAULT,
            spread: SpreadArg::default(),
            ids: None,
            // `odometer dev` always keeps it.
            without_raw: !is_embedded,
            prefill: false,
            rate: Some(rate),
            senders: None,
            batch: 1,
            odometer,
            dir: None,
            json: false,
            eye: Eye::Decision,
        }
    }

    /// The same with its figures as JSON, or not.
    pub(crate) fn printed(self, json: bool) -> Self {
        Self { json, ..self }
    }

    fn plan(&self) -> Plan {
        Plan {
            footing: self.footing,
            via: self.via,
            with_raw: !self.without_raw,
            starts_later: self.prefill,
            odometer: self.odometer.clone(),
        }
    }
}

/// What was sent, and what it adds up to.
struct Sent {
    tally: Tally,
    /// Figures that only this way of sending has.
    figures: Vec<(&'static str, Value)>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let ids = ids(args)?;
    let directory = match &args.dir {
        Some(parent) => tempfile::tempdir_in(parent)?,
        None => tempfile::tempdir()?,
    };
    let mut site = Site::start(&args.plan(), directory.path())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().thread_name("sender").enable_all().build()?;
    let load = load::Load {
        records: args.records,
        tenants: args.tenants,
        ids,
        spread: args.spread.into(),
        senders: senders(args),
    };
    let bodies = (args.via == Via::Http).then(|| http::Bodies::make(&load, args.batch));
    let books = site.books(directory.path());
    let probe = if args.prefill { None } else { Some(Probe::start(site.access(), args.eye)?) };

    let mut cpu_before = CpuTimes::now(site.pid());
    let mut started = Instant::now();
    let pace = Pace::new(started, args.rate, load.senders);
    let mut sent = send(&runtime, &site, load, bodies, pace)?;
    let acknowledged_s = started.elapsed().as_secs_f64();
    let seen = probe.map(Probe::finish).transpose()?;
    if let Some(seen) = &seen {
        seen.add_to(&mut sent.tally);
    }
    if args.prefill {
        site.serve()?;
        (cpu_before, started) = (CpuTimes::now(site.pid()), Instant::now());
    }
    let steady = books.await_totals(sent.tally.values().map(|sum| sum.records).sum())?;
    let totals_s = started.elapsed().as_secs_f64();
    let raw_s = if args.without_raw { None } else { Some(books.await_raw(started)?) };
    let cpu = CpuTimes::now(site.pid()).since(&cpu_before);

    let differences = books.differences(&sent.tally)?;
    site.stop()?;
    let per_s = |elapsed_s: f64| json!((args.records as f64 / elapsed_s).round() as u64);
    let mut figures = vec![
        ("records_sent", json!(args.records)),
        ("records_per_s", per_s(raw_s.unwrap_or(totals_s))),
        ("acknowledged_per_s", per_s(acknowledged_s)),
        ("totals_per_s", per_s(totals_s)),
        ("totals_steady_per_s", json!(steady.per_s.round())),
        ("raw_per_s", raw_s.map_or(Value::Null, per_s)),
        ("elapsed_s", json!(round(raw_s.unwrap_or(totals_s), 2))),
        ("cpu_s", json!(round(cpu.total_s(), 2))),
        ("cpu_s_by_thread", json!(cpu.by_thread())),
        ("records_per_cpu_s", per_s(cpu.total_s())),
    ];
    figures.append(&mut sent.figures);
    figures.extend(seen.iter().flat_map(probe::Seen::figures));
    figures.extend([("tenants", json!(args.tenants)), ("is_exact", json!(differences.is_empty()))]);
    report::print(args.json, &figures);
    anyhow::ensure!(differences.is_empty(), "the totals are not what was sent: {}", differences.join("; "));
    Ok(())
}

fn send(
    runtime: &Runtime,
    site: &Site,
    load: load::Load,
    bodies: Option<http::Bodies>,
    pace: Pace,
) -> anyhow::Result<Sent> {
    let access = site.access();
    runtime.block_on(async {
        match bodies {
            Some(bodies) => bodies.post(access, pace).await,
            None => load.emit(access, pace).await,
        }
    })
}

fn ids(args: &Args) -> anyhow::Result<Ids> {
    let is_embedded = args.footing == Footing::Embedded;
    anyhow::ensure!(
        args.via == Via::Emitter || !args.without_raw || !is_embedded,
        "`odometer dev` always keeps a raw book; --without-raw goes with --via emitter"
    );
    anyhow::ensure!(
        !args.prefill || !is_embedded && args.via == Via::Emitter,
        "--prefill goes with --footing cluster --via emitter"
    );
    match (args.via, args.ids) {
        (Via::Http, Some(IdsArg::Emitted)) => anyhow::bail!("posted records need ids; --ids emitted needs an emitter"),
        (Via::Http, _) | (_, Some(IdsArg::Uuid)) => Ok(Ids::Uuid),
        _ => Ok(Ids::Emitted),
    }
}

fn senders(args: &Args) -> u64 {
    args.senders.unwrap_or(if args.via == Via::Http { 4 } else { 1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_run_is_exact() {
        for arguments in [&["e2e", "--ids", "uuid"][..], &["e2e", "--without-raw", "--senders", "3"]] {
            let sizes = ["--records", "3001", "--tenants", "20", "--json"];
            let args = Args::try_parse_from(arguments.iter().chain(&sizes)).unwrap();
            run(&args).unwrap();
        }
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        for arguments in [["e2e", "--via", "http", "--without-raw"].as_slice(), &["e2e", "--via=http", "--ids=emitted"]]
        {
            assert!(ids(&Args::try_parse_from(arguments).unwrap()).is_err());
        }
    }
}
