//! What a node answers over HTTP: the gateway's doors for usage, and questions about
//! totals, usage, live counters, raw records, health and metrics. Questions read the
//! books and the node's progress; they change nothing.
//!
//! Reading path: [`parameters`] (what is asked) → [`usage`], [`live`], [`records`],
//! [`totals`] (what is answered) → [`problem`] (what cannot be); [`watch`] tells how
//! fresh every answer is.

mod alerts;
pub(crate) mod books;
pub(crate) mod guard;
mod health;
mod index;
mod live;
pub(crate) mod metrics;
mod owners;
pub(crate) mod parameters;
pub(crate) mod problem;
mod records;
#[cfg(test)]
mod tests;
pub(crate) mod totals;
mod usage;
mod watch;

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn;
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;
use odometer_ingest::gateway::{self, Gateway};
use odometer_schemas::meter::Meter;

use self::books::Books;
use self::health::Pauses;
use self::watch::{Watch, Watched};
use crate::config::Config;
use crate::node::Node;
use crate::node::bridging::Bridging;
use crate::node::cells::Cells;
use crate::node::progress::Progress;
use crate::quota::Quota;
use crate::quota::http as quota_http;

/// Everything that the answers are made from.
#[derive(Clone)]
pub(crate) struct Api {
    books: Arc<Books>,
    progress: Arc<Progress>,
    watch: Arc<Watch>,
    pauses: Pauses,
    cells: Cells,
    meters: Arc<[Meter]>,
    gateway: Gateway,
    /// Where this process is asked, as other nodes know it; empty when there are none.
    own_url: Arc<str>,
    recorder: PrometheusHandle,
    bridge: Option<Arc<Bridging>>,
    quota: Option<Quota>,
}

impl Api {
    /// Starts looking at the node.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub(crate) fn new(
        config: &Config,
        node: &Node,
        gateway: Gateway,
        recorder: PrometheusHandle,
    ) -> anyhow::Result<Self> {
        let watched = Watched {
            progress: Arc::clone(&node.progress),
            reader: node.footing.reader()?,
            log: node.footing.log_health(),
            recorder: recorder.clone(),
        };
        Ok(Self {
            books: Arc::new(Books::new(node.footing.books())),
            progress: Arc::clone(&node.progress),
            watch: Arc::new(Watch::start(watched)?),
            pauses: Pauses { totals: config.commit_interval, raw: config.raw.gather_interval },
            cells: node.cells.clone(),
            meters: config.meters.clone().into(),
            gateway,
            own_url: node.footing.owner().into(),
            recorder,
            bridge: None,
            quota: None,
        })
    }

    /// Where the books are asked.
    pub(crate) fn books(&self) -> Arc<Books> {
        Arc::clone(&self.books)
    }

    /// Tells about the bridge too, where this process has one.
    pub(crate) fn with_bridge(self, bridge: Option<Arc<Bridging>>) -> Self {
        Self { bridge, ..self }
    }

    /// Answers questions of quota too, where this process can.
    pub(crate) fn with_quota(self, quota: Option<Quota>) -> Self {
        Self { quota, ..self }
    }
}

/// Everything that is served: method, path, and what it does.
const ROUTES: [(&str, &str, &str); 16] = [
    ("GET", "/", "this page"),
    ("GET", "/openapi.json", "describes every route (OpenAPI 3.1)"),
    ("POST", "/v1/events", "takes usage: native JSON, NDJSON or CloudEvents; gzip and zstd"),
    ("POST", "/api/v1/events", "takes CloudEvents whose subject is the tenant"),
    ("POST", "/v1/envelopes", "takes a sealed envelope of a remote emitter"),
    ("GET", "/v1/log", "how many partitions the log has"),
    ("GET", "/v1/usage", "usage per minute, hour, day or month"),
    ("GET", "/v1/tenants/{tenant}/usage", "a tenant's live counters"),
    ("GET", "/v1/totals", "period totals, as billing sees them"),
    ("GET", "/v1/records", "a tenant's raw records with their verdicts"),
    ("GET", "/v1/rejected", "log entries that could not be decoded"),
    ("GET", "/v1/alerts", "limits that a tenant's usage crossed"),
    ("GET", "/v1/owners", "which node decides about which partition"),
    ("GET", "/healthz", "whether the process runs"),
    ("GET", "/readyz", "whether it is ready, and why not"),
    ("GET", "/metrics", "metrics for Prometheus"),
];

/// All routes; those that take usage only where this process is a gateway.
pub(crate) fn router(api: Api, with_gateway: bool) -> Router {
    let gateway = if with_gateway { gateway::router(api.gateway.clone()) } else { Router::new() };
    let quota = api.quota.clone().map_or_else(Router::new, quota_http::router);
    Router::new()
        .route("/", get(index::page))
        .route("/openapi.json", get(index::openapi))
        .route("/v1/usage", get(usage::list))
        .route("/v1/tenants/{tenant}/usage", get(live::list))
        .route("/v1/totals", get(totals::list))
        .route("/v1/records", get(records::list))
        .route("/v1/rejected", get(records::rejected))
        .route("/v1/alerts", get(alerts::list))
        .route("/v1/owners", get(owners::list))
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(metrics::render))
        .with_state(api)
        .merge(gateway)
        .merge(quota)
        .method_not_allowed_fallback(guard::method_not_allowed)
        .fallback(guard::not_found)
        .layer(from_fn(guard::guard))
}
