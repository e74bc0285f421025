//! What `odometer dev` and `odometer serve` share: a node behind an HTTP server, from
//! the first request to the last commit.

use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures_util::future::{Either, ready};
use metrics_exporter_prometheus::PrometheusHandle;
use odometer_ingest::gateway::{Gateway, GatewayOptions, SharedDefinitions};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::api::{self, Api};
use crate::config::Config;
use crate::demo;
use crate::desk::{self, Desk};
use crate::node::Node;
use crate::node::bridging::Bridging;
use crate::node::cells::Cells;
use crate::node::progress::Progress;
use crate::quota::Quota;
use crate::quota::grpc::Grpc;
use crate::quota::lean;
use crate::quota::service::QuotaService;

/// How long open requests may take to finish once the process was told to stop.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(10);
/// How often a failed thread is looked for.
const FAILURE_POLL: Duration = Duration::from_millis(100);

/// An address that this process has, before it answers there.
pub(super) struct Server {
    listener: TcpListener,
    /// `http://HOST:PORT`.
    pub(super) url: String,
    recorder: PrometheusHandle,
}

/// What is served besides the books and the node itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Surfaces {
    /// The doors for usage.
    pub(super) gateway: bool,
    /// The ingress topic.
    pub(super) bridge: bool,
    /// Lively sample traffic.
    pub(super) demo: bool,
}

impl Server {
    pub(super) fn bind(listen: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(listen).with_context(|| format!("cannot listen on {listen}"))?;
        listener.set_nonblocking(true)?;
        let url = format!("http://{}", listener.local_addr()?);
        Ok(Self { listener, url, recorder: api::metrics::install()? })
    }

    /// Serves until the process is told to stop or the node fails; then drains it.
    pub(super) fn run(self, config: &Config, node: Node, surfaces: Surfaces) -> anyhow::Result<ExitCode> {
        let served = self.serve(config, &node, surfaces);
        let drained = node.drain()?;
        let counts = drained.counts;
        eprintln!(
            "drained: {} records received; {} accepted, {} duplicate, {} conflict, {} late, {} rejected; log and books \
             are closed",
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

    fn serve(self, config: &Config, node: &Node, surfaces: Surfaces) -> anyhow::Result<()> {
        let definitions = SharedDefinitions::new(config.definitions());
        let start = || Bridging::start(&config.cluster, &definitions, &node.appender()).map(Arc::new);
        let bridge = surfaces.bridge.then(start).transpose()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let gateway = gateway(config, node, definitions);
        let api = Api::new(config, node, gateway, self.recorder)?.with_bridge(bridge.clone());
        let desk = {
            let _within = runtime.enter();
            Arc::new(Desk::open(node, api.books(), (&config.definitions(), config.plans.clone()))?)
        };
        let quota = Quota::new(config, Arc::clone(&desk) as Arc<dyn QuotaService>);
        let grpc = Grpc::bind(config, &quota)?;
        let api = api.with_quota(Some(quota.clone()));
        let router = api::router(api, surfaces.gateway).merge(desk::router(Arc::clone(&desk)));
        let demo = surfaces.demo.then(|| node.cells.clone());
        let watched = Watched { progress: Arc::clone(&node.progress), bridge: bridge.clone() };
        let served = runtime.block_on(serve((self.listener, self.url), router, (quota, grpc), demo, watched));
        match Arc::into_inner(desk) {
            Some(desk) => runtime.block_on(desk.close()),
            None => tracing::warn!("some questions of quota were not answered before the end"),
        }
        runtime.shutdown_timeout(SHUTDOWN_GRACE);
        // Before the log is closed, which takes what the bridge has read.
        let drained = bridge.map_or(Ok(()), |bridge| bridge.drain());
        served.and(drained)
    }
}

fn gateway(config: &Config, node: &Node, definitions: SharedDefinitions) -> Gateway {
    let options = GatewayOptions {
        body_bytes_max: config.limits.body_bytes_max,
        inflated_bytes_max: config.limits.inflated_bytes_max,
        records_max: config.limits.records_max,
        ..GatewayOptions::default()
    };
    Gateway::new(node.appender(), definitions, options)
}

async fn serve(
    (listener, url): (TcpListener, String),
    router: axum::Router,
    (quota, grpc): (Quota, Option<Grpc>),
    demo: Option<Cells>,
    watched: Watched,
) -> anyhow::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    // Watched before anyone is told to talk to this process: a signal that comes at
    // once drains it like any other.
    let signals = Signals::watch().context("signals cannot be watched")?;
    if let Some(grpc) = &grpc {
        println!("grpc: http://{}", grpc.address()?);
    }
    println!("ready: {url}");
    let demo = demo.map(|cells| tokio::spawn(demo::run(url, Arc::clone(&watched.progress), cells)));
    let (stop, mut stopped) = watch::channel(false);
    let graceful = |mut stopped: watch::Receiver<bool>| async move {
        let _ = stopped.wait_for(|stop| *stop).await;
    };
    let http = lean::serve(listener, router, Some(quota), graceful(stopped.clone()));
    let grpc = grpc.map(|grpc| grpc.serve(graceful(stopped.clone())));
    let servers = async {
        let http = async { http.await.context("the HTTP server failed") };
        let grpc = async { grpc.map_or_else(|| Either::Left(ready(Ok(()))), Either::Right).await };
        tokio::try_join!(http, grpc).map(drop)
    };
    let grace = async {
        let _ = stopped.wait_for(|stop| *stop).await;
        tokio::time::sleep(SHUTDOWN_GRACE).await;
    };
    let stopping = async {
        let reason = signals.or_failure(&watched).await;
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
        served = servers => served,
        () = grace => Ok(()),
        () = stopping => Ok(()),
    }
}

/// What ends the process when it fails.
struct Watched {
    progress: Arc<Progress>,
    bridge: Option<Arc<Bridging>>,
}

impl Watched {
    fn failure(&self) -> Option<&str> {
        if let Some(bridge) = &self.bridge {
            bridge.check(&self.progress);
        }
        self.progress.failure()
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
    async fn or_failure(mut self, watched: &Watched) -> String {
        let failed = async {
            while watched.failure().is_none() {
                tokio::time::sleep(FAILURE_POLL).await;
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => "interrupted".into(),
            _ = self.terminate.recv() => "terminated".into(),
            () = failed => watched.failure().unwrap_or("failed").to_owned(),
        }
    }
}
