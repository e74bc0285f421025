//! Checks over gRPC, by the batch: streams of pre-made batches to a node of its own,
//! several batches on their way on each; how many checks are answered a second, and how
//! long a batch waits for its answer. Anything but `ALLOW` fails the run.

use std::collections::VecDeque;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use clap::Parser;
use hdrhistogram::Histogram;
use odometer_bench::random::Random;
use serde_json::{Value, json};
use tokio::sync::mpsc::{Sender, channel};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::client::Grpc;
use tonic::transport::Endpoint;

use super::METER;
use super::stream_wire::{ALLOW, Answer, PATH, Ready, batch};
use crate::e2e::{Beside, micros};
use crate::report::{self, CpuTimes, percentiles_ms, round};

/// Different batches that are sent in turn: with 32 checks each, every tenant is asked
/// about a few times in each turn.
const BATCHES: u64 = 1 << 10;
/// What is new or cold is over after it.
const WARM_UP: Duration = Duration::from_secs(2);
/// Bytes on their way of one stream: as many as the node takes.
const WINDOW_BYTES: u32 = 1 << 20;

#[derive(Parser)]
pub(crate) struct Args {
    /// Checks of one batch.
    #[arg(long, value_delimiter = ',', default_value = "32,512", value_parser = clap::value_parser!(u64).range(1..=512))]
    batch: Vec<u64>,
    /// Connections, each with one stream.
    #[arg(long, value_delimiter = ',', default_value = "1,8", value_parser = clap::value_parser!(u64).range(1..=256))]
    connections: Vec<u64>,
    /// Checks that are on their way on each connection; two batches at least.
    #[arg(long, default_value_t = 2048, value_parser = clap::value_parser!(u64).range(1..=65_536))]
    in_flight: u64,
    /// Threads of the generator.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=64))]
    threads: u64,
    /// Tenants that are asked about, at random.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    tenants: u64,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,
    /// The gRPC address of a node that runs, `http://HOST:PORT` [default: starts one]
    #[arg(long)]
    url: Option<String>,
    /// The `odometer` binary [default: beside this one]
    #[arg(long)]
    odometer: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// No tenant comes near the limit.
const CONFIG: &str = r#"
[quota]
grpc_listen = "127.0.0.1:0"
[[plan]]
name = "free"
[[plan.limit]]
meter = "api_call"
limit = 1000000000000
"#;

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let Some(url) = &args.url else {
        let directory = tempfile::tempdir()?;
        let binary = args.odometer.clone().map_or_else(beside, Ok)?;
        let config = directory.path().join("odometer.toml");
        fs::write(&config, CONFIG)?;
        let mut command = Command::new(binary);
        command.args(["dev", "--listen", "127.0.0.1:0", "--config"]).arg(config);
        command.arg("--data-dir").arg(directory.path().join("data"));
        let node = Beside::start(command, directory.path())?;
        let url = node.grpc().context("the node answers no gRPC")?;
        measure(args, url, Some(node.pid()))?;
        return node.stop();
    };
    measure(args, url, None)
}

fn beside() -> anyhow::Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name("odometer"))
}

fn measure(args: &Args, url: &str, server: Option<u32>) -> anyhow::Result<()> {
    let threads = usize::try_from(args.threads)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
    let mut rows = Vec::new();
    for size in &args.batch {
        let batches = batches(args, *size);
        for connections in &args.connections {
            let in_flight = (args.in_flight / size).max(2);
            let load = Load { url: url.to_owned(), batches: Arc::clone(&batches), in_flight, size: *size };
            let row = runtime.block_on(load.measure(*connections, Duration::from_secs(args.seconds), server))?;
            rows.push((format!("batch_{size}_connections_{connections}"), row));
        }
    }
    let mut figures = vec![
        ("tenants", json!(args.tenants)),
        ("checks_in_flight", json!(args.in_flight)),
        ("generator_threads", json!(args.threads)),
    ];
    figures.extend(rows.iter().map(|(name, row)| (name.as_str(), row.clone())));
    report::print(args.json, &figures);
    Ok(())
}

/// A tag is the index.
fn batches(args: &Args, size: u64) -> Arc<[Bytes]> {
    let mut random = Random::new(42);
    let mut tenant = || format!("tenant-{:06}", random.below(args.tenants));
    (0..BATCHES).map(|tag| batch(tag, (0..size).map(|_| tenant()), METER)).collect()
}

/// What is sent, and where.
#[derive(Clone)]
struct Load {
    url: String,
    batches: Arc<[Bytes]>,
    /// Batches.
    in_flight: u64,
    size: u64,
}

/// When it is measured.
#[derive(Clone, Copy)]
struct Span {
    from: Instant,
    until: Instant,
}

/// What one connection saw of it.
struct Seen {
    batches: u64,
    latency_us: Histogram<u64>,
}

impl Load {
    async fn measure(self, connections: u64, seconds: Duration, server: Option<u32>) -> anyhow::Result<Value> {
        let from = Instant::now() + WARM_UP;
        let span = Span { from, until: from + seconds };
        let mut tasks = JoinSet::new();
        for number in 0..connections {
            let first = BATCHES / connections * number;
            tasks.spawn(self.clone().connection(first, span));
        }
        tokio::time::sleep_until(from.into()).await;
        let before = CpuTimes::now(server);
        tokio::time::sleep_until(span.until.into()).await;
        let cpu = CpuTimes::now(server).since(&before);
        let (mut answered, mut latency_us) = (0, Histogram::<u64>::new(3)?);
        while let Some(task) = tasks.join_next().await {
            let seen = task??;
            answered += seen.batches;
            latency_us.add(seen.latency_us)?;
        }
        let checks = answered * self.size;
        ensure!(checks > 0, "nothing was answered");
        let per_check = |seconds: f64| json!(round(seconds * 1e9 / checks as f64, 1));
        let mut row = json!({
            "checks_per_s": (checks as f64 / seconds.as_secs_f64()).round(),
            "batch_ms": percentiles_ms(&latency_us),
            "errors": 0,
        });
        if server.is_some() {
            row["server_cpu_ns_per_check"] = per_check(cpu.server_s());
            row["generator_cpu_ns_per_check"] = per_check(cpu.total_s() - cpu.server_s());
        }
        Ok(row)
    }

    async fn connection(self, first: u64, span: Span) -> anyhow::Result<Seen> {
        let endpoint = Endpoint::from_shared(self.url.clone())?
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES);
        let (sender, batches) = channel(usize::try_from(self.in_flight)?);
        let mut grpc = Grpc::new(endpoint.connect().await?);
        grpc.ready().await?;
        let request = tonic::Request::new(ReceiverStream::new(batches));
        let answers = grpc.streaming(request, PATH, Ready).await?.into_inner();
        self.exchange((sender, answers), first, span).await
    }

    /// For each answer another batch, until the time is over; then what is on its way.
    async fn exchange(
        self,
        (sender, mut answers): (Sender<Bytes>, Streaming<Answer>),
        first: u64,
        span: Span,
    ) -> anyhow::Result<Seen> {
        let mut sender = Some(sender);
        let mut seen = Seen { batches: 0, latency_us: Histogram::new(3)? };
        let mut on_their_way = VecDeque::new();
        let mut tags = (first..BATCHES).chain(0..first).cycle();
        loop {
            while let Some(open) = sender.as_ref().filter(|_| (on_their_way.len() as u64) < self.in_flight) {
                let tag = tags.next().unwrap_or_default();
                open.send(self.batches[tag as usize].clone()).await.context("the stream was closed")?;
                on_their_way.push_back((tag, Instant::now()));
            }
            let Some((tag, sent)) = on_their_way.pop_front() else { return Ok(seen) };
            let answer = answers.message().await?.context("the stream ended before the last answer")?;
            self.expect(&answer, tag)?;
            let now = Instant::now();
            if (span.from..span.until).contains(&now) {
                seen.batches += 1;
                seen.latency_us.record(micros(now - sent))?;
            }
            if now >= span.until {
                sender = None;
            }
        }
    }

    fn expect(&self, answer: &Answer, tag: u64) -> anyhow::Result<()> {
        if let Some(error) = answer.errors.first() {
            anyhow::bail!("{} checks of a batch have errors: {}", answer.errors.len(), error.message);
        }
        let allowed = answer.decisions.iter().filter(|decision| **decision == ALLOW).count() as u64;
        ensure!(answer.tag == tag, "the answer to batch {} came for batch {tag}", answer.tag);
        ensure!(allowed == self.size, "{allowed} of {} checks were allowed", self.size);
        Ok(())
    }
}
