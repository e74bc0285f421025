//! `GET /metrics` in Prometheus' text format.

use anyhow::Context;
use axum::extract::State;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

use super::Api;

/// Installs the process-wide recorder.
pub(crate) fn install() -> anyhow::Result<PrometheusHandle> {
    PrometheusBuilder::new().install_recorder().context("metrics cannot be recorded")
}

/// Renders everything recorded.
pub(crate) async fn render(State(api): State<Api>) -> String {
    api.recorder.render()
}
