//! `odometer replay`: real traffic out of a trace file, into a gateway or straight into
//! a cluster's log.
//!
//! Reading path: [`map`] (what a row means) → [`rows`] (file to rows) → [`convert`]
//! (row to facts) → [`encode`] (facts to lines) → [`feed`] (lines to batches, when
//! they are due) → [`send`] (batches to acknowledgements) → [`report`]. The same file
//! and map make the same ids every time, so a second run counts nothing.

mod amount;
mod answer;
mod batch;
mod convert;
mod encode;
mod feed;
mod log;
mod map;
mod order;
mod pace;
mod progress;
mod report;
mod rows;
mod send;
mod stop;
#[cfg(test)]
mod tests;
mod time;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::sync::mpsc;

use self::batch::Compression;
use self::feed::{Fed, Plan, Prepared};
use self::log::LogDoor;
use self::map::Map;
use self::pace::Speed;
use self::report::Report;
use self::rows::Trace;
use self::send::{Door, Live, Target};
use self::stop::{Stop, StopReason};
use crate::config::duration::{DURATION_SYNTAX, parse_duration};

/// Exit code after Ctrl-C, as shells expect it: 128 + SIGINT.
const EXIT_INTERRUPTED: u8 = 130;
/// Batches that wait between reading and sending. One is ready whenever a request
/// ends; more would only add to the latency that is measured.
const BATCHES_WAITING_MAX: usize = 2;

const EXAMPLES: &str = "\
Examples:
  odometer replay AzureLLMInferenceTrace_code.csv --map examples/maps/azure-code.toml
  odometer replay requests.csv.zst --map examples/maps/servegen.toml --tenants 10 --json
  odometer replay trace.jsonl.gz --map my-map.toml --speed 60      # an hour in a minute
  odometer replay trace.csv --map my-map.toml --repeat 6 --url http://10.0.0.5:7070
  odometer replay trace.csv --map my-map.toml --config examples/cluster.toml  # through the emitter, to Kafka
  odometer replay trace.csv --map my-map.toml --kafka 127.0.0.1:9092          # the same with other brokers

Ids come from row numbers: `17` is the 17th row, `17.r2` the same row in the third pass. The same file and map \
send the same ids every time, so replaying again counts nothing.

Expected totals: every quantity counts tenants × repeat times. Pass k (from 0) moves all event times by k × span, \
where span is the map's `time.span`, else the time from the first to the last event plus one millisecond, rounded \
up to a whole minute. The server stores an event time in its future but rejects it by verdict, so let long repetitions \
begin far enough back.

Exit codes: 0 every record was acknowledged as stored; 1 some were refused or not answered, or the file has a bad \
row; 2 wrong usage; 130 interrupted (the report is printed all the same).";

/// Replay a trace file of real traffic into a gateway or a cluster's log.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The trace: CSV or JSON lines, plain, .gz or .zst.
    file: PathBuf,

    /// The TOML map that says which fields become which records.
    #[arg(long)]
    map: PathBuf,

    /// Where the gateway listens.
    #[arg(long, env = "ODOMETER_URL", default_value = "http://127.0.0.1:7070", value_parser = base_url)]
    url: String,

    /// Send straight to the log of the cluster that this file describes.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Send straight to the log at these Kafka brokers; topic and meters are those of --config, or the defaults.
    #[arg(long, value_name = "HOST:PORT,…")]
    kafka: Option<String>,

    /// `max`, or how many times faster than the trace's own time: 1, 60, 0.5.
    #[arg(long, default_value = "max", value_name = "max|FACTOR")]
    speed: Speed,

    /// Send every row for N copies of its tenant: tenant#1 … tenant#N.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    tenants: u32,

    /// Replay the file N times, each pass later by the trace's span and with ids of its own.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    repeat: u32,

    /// What to do with a row that cannot be converted.
    #[arg(long, value_enum, default_value = "stop")]
    on_error: OnError,

    /// Requests in flight at a time.
    #[arg(long, default_value_t = 8, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    in_flight: u16,

    /// Compress request bodies.
    #[arg(long, value_enum, default_value = "none")]
    compress: Compression,

    /// How long to keep trying while the server does not answer, or answers 503.
    #[arg(long, default_value = "60s", value_name = "DURATION", value_parser = duration)]
    retry_for: Duration,

    /// Print the report as JSON.
    #[arg(long)]
    json: bool,

    /// Show no progress bar.
    #[arg(long, short)]
    quiet: bool,
}

/// What to do with a bad row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum OnError {
    /// Send the rows before it, then stop with exit code 1.
    Stop,
    /// Leave it out, and report how many were.
    Skip,
}

fn base_url(text: &str) -> Result<String, String> {
    let url = reqwest::Url::parse(text).map_err(|error| format!("{error}; write http://HOST:PORT"))?;
    match url.scheme() {
        "http" if url.has_host() => Ok(text.trim_end_matches('/').to_owned()),
        _ => Err("must be http://HOST:PORT; put a proxy in front of a gateway that speaks TLS".into()),
    }
}

fn duration(text: &str) -> Result<Duration, &'static str> {
    parse_duration(text).ok_or(DURATION_SYNTAX)
}

/// Replays as `args` say and prints the report on standard output.
///
/// # Errors
/// When the replay cannot start: the map is wrong, the file is missing, its header
/// does not have what the map uses. Everything later is in the report.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let map = Map::load(&args.map)?;
    let file = || args.file.display().to_string();
    let trace = Trace::find(&args.file).with_context(file)?;
    let plan = Plan {
        map,
        trace,
        tenants: args.tenants,
        repeat: args.repeat,
        speed: args.speed,
        skip_bad_rows: args.on_error == OnError::Skip,
        compression: args.compress,
    };
    let prepared = Arc::new(Prepared::new(plan).with_context(file)?);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let report = runtime.block_on(replay(args, prepared))?;
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print!("{report}");
    }
    Ok(match &report {
        report if report.interrupted => ExitCode::from(EXIT_INTERRUPTED),
        report if report.is_complete() => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

async fn replay(args: &Args, prepared: Arc<Prepared>) -> anyhow::Result<Report> {
    let stop = Stop::new();
    let live = Arc::new(Live::default());
    let (batches, receiver) = mpsc::channel(BATCHES_WAITING_MAX);
    let log = match (&args.config, &args.kafka) {
        (None, None) => None,
        (config, kafka) => {
            // Asking brokers blocks, and an emitter needs this runtime.
            let open = || LogDoor::open(config.as_deref(), kafka.as_deref());
            Some(Arc::new(tokio::task::block_in_place(open)?))
        }
    };
    let target = Target {
        door: match &log {
            Some(log) => Door::Log(Arc::clone(log)),
            None => Door::Gateway(format!("{}/v1/events", args.url), args.compress),
        },
        retry_for: args.retry_for,
        in_flight: usize::from(args.in_flight),
    };
    let start = Instant::now();
    let reader = {
        let (prepared, stop) = (Arc::clone(&prepared), stop.clone());
        tokio::task::spawn_blocking(move || feed::feed(&prepared, batches, &stop))
    };
    let interrupts = tokio::spawn(listen_for_interrupts(stop.clone()));
    let shown = (!args.json && !args.quiet).then(|| tokio::spawn(progress::show(prepared, Arc::clone(&live))));
    let tally = send::send_all(target, receiver, stop.clone(), live).await;
    let fed: Fed = reader.await.context("the reading thread failed")?;
    for helper in [Some(interrupts), shown].into_iter().flatten() {
        helper.abort();
        // It ends by the abort, or has ended already.
        let _ = helper.await;
    }
    if let Some(log) = log.and_then(Arc::into_inner) {
        log.close().await?;
    }
    let tally = tally?;
    let elapsed = tally.last_answer.unwrap_or(start).saturating_duration_since(start);
    Ok(Report::new(fed, tally, elapsed, stop.reason()))
}

/// The first Ctrl-C ends the replay in order, the second at once.
async fn listen_for_interrupts(stop: Stop) {
    if tokio::signal::ctrl_c().await.is_err() {
        return;
    }
    stop.request(StopReason::Interrupted);
    if tokio::signal::ctrl_c().await.is_ok() {
        std::process::exit(EXIT_INTERRUPTED.into());
    }
}
