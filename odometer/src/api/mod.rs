//! What a node answers over HTTP besides taking usage: totals, usage, live counters,
//! raw records, health and metrics. Reads the books and the node's progress; changes
//! nothing.

mod books;
mod health;
pub(crate) mod metrics;
mod problem;
pub(crate) mod totals;

use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;
use odometer_aggregator::LiveCells;
use odometer_ingest::gateway::Gateway;

use self::books::Books;
use crate::config::Config;
use crate::node::Node;
use crate::node::progress::Progress;

/// Everything that the answers are made from.
#[derive(Clone)]
pub(crate) struct Api {
    books: Arc<Books>,
    progress: Arc<Progress>,
    #[expect(dead_code, reason = "live usage comes with the query API")]
    cells: LiveCells,
    #[expect(dead_code, reason = "metrics of the gateway come with the query API")]
    gateway: Gateway,
    recorder: PrometheusHandle,
}

impl Api {
    pub(crate) fn new(_config: &Config, node: &Node, gateway: Gateway, recorder: PrometheusHandle) -> Self {
        Self {
            books: Arc::new(Books::new(node.files.clone())),
            progress: Arc::clone(&node.progress),
            cells: node.cells.clone(),
            gateway,
            recorder,
        }
    }
}

pub(crate) fn router(api: Api) -> Router {
    Router::new()
        .route("/v1/totals", get(totals::list))
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(metrics::render))
        .with_state(api)
}
