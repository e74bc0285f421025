//! `odometer totals`: period totals from a running process or from a data directory.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use odometer_schemas::period::parse_month;
use odometer_sink::totals::{PeriodFilter, TotalsFilter};

use crate::api::totals::TotalAnswer;
use crate::config::{Config, Overrides};
use crate::node::files::Files;
use crate::node::footing::BookPlace;
use crate::node::footing::cluster::servers;

const EXAMPLES: &str = "\
Examples:
  odometer totals                                   # of the process at http://127.0.0.1:7070
  odometer totals --tenant acme --period 2023-11
  odometer totals --data-dir ./odometer-data --json # straight from the totals book, running or stopped
  odometer totals --config examples/cluster.toml    # straight from PostgreSQL

Quantities are in each meter's base unit.";

/// Print the total of every tenant, meter and period.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// A running process.
    #[arg(long, env = "ODOMETER_URL", default_value = "http://127.0.0.1:7070")]
    url: String,

    /// Read a data directory instead of asking a process.
    #[arg(long, value_name = "DIR", conflicts_with = "config")]
    data_dir: Option<PathBuf>,

    /// Read the totals book of the cluster that this file describes.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Only this tenant.
    #[arg(long)]
    tenant: Option<String>,

    /// Only periods that start in this month, YYYY-MM.
    #[arg(long, value_name = "YYYY-MM", value_parser = month)]
    period: Option<String>,

    /// Print a JSON array.
    #[arg(long)]
    json: bool,
}

/// Checks a month's form.
pub(super) fn month(text: &str) -> Result<String, String> {
    parse_month(text).map(|_| text.to_owned()).ok_or_else(|| "must be a month such as 2023-11".into())
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let totals = match place(args.data_dir.as_deref(), args.config.as_deref())? {
        Some(place) => read(args, &place)?,
        None => ask(args)?,
    };
    if args.json {
        println!("{}", serde_json::to_string_pretty(&totals)?);
    } else {
        print_table(&totals);
    }
    Ok(ExitCode::SUCCESS)
}

/// Where the books are that a command was told to read.
pub(super) fn place(data_dir: Option<&Path>, config: Option<&Path>) -> anyhow::Result<Option<BookPlace>> {
    match (data_dir, config) {
        (_, Some(file)) => {
            let config = Config::load(Some(file), &Overrides::default())?;
            Ok(Some(BookPlace::Servers(servers(&config.cluster))))
        }
        (Some(directory), None) => Ok(Some(BookPlace::Files(Files::new(directory)))),
        (None, None) => Ok(None),
    }
}

fn read(args: &Args, place: &BookPlace) -> anyhow::Result<Vec<TotalAnswer>> {
    let mut book = place.totals()?;
    let period = args.period.as_deref().and_then(parse_month).map(PeriodFilter::StartsIn);
    let filter = TotalsFilter { tenant: args.tenant.clone(), meter: None, period };
    Ok(book.totals(&filter)?.iter().map(TotalAnswer::from).collect())
}

fn ask(args: &Args) -> anyhow::Result<Vec<TotalAnswer>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let url = format!("{}/v1/totals", args.url.trim_end_matches('/'));
        let query = [("tenant", &args.tenant), ("period", &args.period)];
        let query: Vec<_> = query.iter().filter_map(|(name, value)| value.as_ref().map(|v| (name, v))).collect();
        let answer = reqwest::Client::new().get(&url).query(&query).send().await.with_context(|| {
            format!("no answer from {url}; is `odometer dev` running? --data-dir reads the files of a stopped one")
        })?;
        let status = answer.status();
        if !status.is_success() {
            bail!("{url} answered {status}: {}", answer.text().await.unwrap_or_default());
        }
        answer.json().await.with_context(|| format!("{url} did not answer with totals"))
    })
}

fn print_table(totals: &[TotalAnswer]) {
    if totals.is_empty() {
        println!("no totals");
        return;
    }
    let mut rows = vec![["TENANT", "METER", "PERIOD START", "PERIOD END", "QUANTITY", "RECORDS"].map(str::to_owned)];
    rows.extend(totals.iter().map(|t| {
        [&t.tenant, &t.meter, &t.period_start, &t.period_end, &t.quantity, &t.records.to_string()].map(Clone::clone)
    }));
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let [tenant, meter, start, end, quantity, records] = [0, 1, 2, 3, 4, 5].map(width);
    for [t, m, s, e, q, r] in &rows {
        println!("{t:tenant$}  {m:meter$}  {s:start$}  {e:end$}  {q:>quantity$}  {r:>records$}");
    }
}
