//! `odometer dev`: the whole pipeline in one process on one data directory.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use odometer_ingest::gateway::{Gateway, GatewayOptions, SharedDefinitions};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::api::{self, Api};
use crate::config::{Config, Overrides};
use crate::demo;
use crate::node::Node;
use crate::node::cells::Cells;
use crate::node::progress::Progress;

/// How long open requests may take to finish once the process was told to stop.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(10);
/// How often a failed thread is looked for.
const FAILURE_POLL: Duration = Duration::from_millis(100);

const EXAMPLES: &str = "\
Examples:
  odometer dev                                  # http://127.0.0.1:7070, data in ./odometer-data
  odometer dev --demo                           # with lively sample traffic and a live summary
  odometer dev --data-dir /var/lib/odometer --listen 127.0.0.1:8080 --config odometer.toml

Then send usage:
  curl -s http://127.0.0.1:7070/v1/events -H 'content-type: application/json' \\
    -d '{\"id\":\"1\",\"tenant\":\"acme\",\"meter\":\"api_call\",\"quantity\":1}'
  curl -s http://127.0.0.1:7070/v1/tenants/acme/usage

The process prints `ready: http://HOST:PORT` once it serves. Ctrl-C or SIGTERM drains it: everything acknowledged is \
counted and written before it ends.";

/// Run everything in one process: gateway, counting, both books, query API.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Where the log and both books are kept [default: ./odometer-data]
    #[arg(long)]
    data_dir: Option<PathBuf>,

    /// Address to serve on; port 0 takes a free one [default: 127.0.0.1:7070]
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,

    /// Configuration file (TOML); see examples/odometer.toml
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Add lively sample traffic of several tenants, and a live summary.
    #[arg(long)]
    demo: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let overrides = Overrides { listen: args.listen.clone(), data_dir: args.data_dir.clone(), partitions: None };
    let config = Config::load(args.config.as_deref(), &overrides)?;
    let recorder = api::metrics::install()?;
    let node = Node::start(&config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let gateway = gateway(&config, &node);
    let api = Api::new(&config, &node, gateway, recorder)?;
    let demo = args.demo.then(|| node.cells.clone());
    let served = runtime.block_on(serve(&config, demo, api, Arc::clone(&node.progress)));
    runtime.shutdown_timeout(SHUTDOWN_GRACE);
    let drained = node.drain()?;
    let counts = drained.counts;
    eprintln!(
        "drained: {} records received; {} accepted, {} duplicate, {} conflict, {} late, {} rejected; log and books are closed",
        counts.received, counts.accepted, counts.duplicate, counts.conflict, counts.late, counts.rejected
    );
    served?;
    Ok(match drained.failure {
        Some(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
        None => ExitCode::SUCCESS,
    })
}

fn gateway(config: &Config, node: &Node) -> Gateway {
    let options = GatewayOptions {
        body_bytes_max: config.limits.body_bytes_max,
        inflated_bytes_max: config.limits.inflated_bytes_max,
        records_max: config.limits.records_max,
        ..GatewayOptions::default()
    };
    Gateway::new(node.appender(), SharedDefinitions::new(config.definitions()), options)
}

async fn serve(config: &Config, demo: Option<Cells>, api: Api, progress: Arc<Progress>) -> anyhow::Result<()> {
    let listen = config.server.listen;
    let listener = TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
    let url = format!("http://{}", listener.local_addr()?);
    let router = api::router(api);
    // Watched before anyone is told to talk to this process: a signal that comes at
    // once drains it like any other.
    let signals = Signals::watch().context("signals cannot be watched")?;
    println!("ready: {url}");
    let demo = demo.map(|cells| tokio::spawn(demo::run(url, Arc::clone(&progress), cells)));
    let (stop, mut stopped) = tokio::sync::watch::channel(false);
    let mut graceful = stopped.clone();
    let server = axum::serve(listener, router).with_graceful_shutdown(async move {
        let _ = graceful.wait_for(|stop| *stop).await;
    });
    let grace = async {
        let _ = stopped.wait_for(|stop| *stop).await;
        tokio::time::sleep(SHUTDOWN_GRACE).await;
    };
    let stopping = async {
        let reason = signals.or_failure(&progress).await;
        if let Some(demo) = demo {
            demo.abort();
            // Its summary is off the terminal then.
            let _ = demo.await;
        }
        eprintln!("stopping: {reason}; finishing open requests");
        let _ = stop.send(true);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        served = server => served.context("the HTTP server failed"),
        () = grace => Ok(()),
        () = stopping => Ok(()),
    }
}

/// The signals that stop the process.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn watch() -> std::io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Waits for one of them or for a failure of the node; why the process stops.
    async fn or_failure(mut self, progress: &Progress) -> String {
        let failed = async {
            while progress.failure().is_none() {
                tokio::time::sleep(FAILURE_POLL).await;
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => "interrupted".into(),
            _ = self.terminate.recv() => "terminated".into(),
            () = failed => progress.failure().unwrap_or("failed").to_owned(),
        }
    }
}
