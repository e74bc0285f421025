//! What the routes answer, asked of a whole node in a temporary directory.

mod azure;
mod exposition;
mod live;
mod operation;
mod owners;
mod records;
mod schema;
mod usage;

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use metrics_exporter_prometheus::PrometheusHandle;
use odometer_ingest::gateway::{Gateway, GatewayOptions, SharedDefinitions};
use odometer_ingest::log::LogReader;
use odometer_schemas::meter::{Aggregation, Dimension, Meter};
use serde_json::Value;
use tempfile::TempDir;
use tower::ServiceExt;

use super::{Api, metrics, router};
use crate::config::Config;
use crate::node::Node;
use crate::quota::Quota;
use crate::quota::stub::Stub;

/// A node that commits at once, and its routes.
pub(super) struct Rig {
    pub(super) node: Option<Node>,
    router: Router,
    _directory: TempDir,
}

/// One answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) text: String,
}

impl Answer {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {}", self.text))
    }
}

/// The recorder belongs to the whole test process.
fn recorder() -> PrometheusHandle {
    static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();
    RECORDER.get_or_init(|| metrics::install().unwrap()).clone()
}

fn meter(name: &str, aggregation: Aggregation, dimensions: &[&str]) -> Meter {
    let dimensions = dimensions.iter().map(|name| Dimension { name: (*name).into(), path: None }).collect();
    Meter { name: name.into(), aggregation, dimensions, event_type: None, ..Meter::built_in().remove(0) }
}

impl Rig {
    pub(super) fn start() -> Self {
        let (directory, recorder) = (TempDir::new().unwrap(), recorder());
        let mut config = Config::default();
        config.server.data_dir = directory.path().to_owned();
        config.commit_interval = Duration::from_millis(10);
        config.raw.gather_interval = Duration::from_millis(20);
        config.meters.push(meter("peak", Aggregation::Max, &["region", "model"]));
        config.meters.push(meter("users", Aggregation::UniqueCount, &[]));
        config.meters.sort_by(|a, b| a.name.cmp(&b.name));
        // A node starts outside of any runtime.
        let node = tokio::task::block_in_place(|| Node::start(&config)).unwrap();
        let definitions = SharedDefinitions::new(config.definitions());
        let gateway = Gateway::new(node.appender(), definitions, GatewayOptions::default());
        let quota = Quota::new(&config, Stub::shared());
        let api = Api::new(&config, &node, gateway, recorder).unwrap().with_quota(Some(quota));
        Self { node: Some(node), router: router(api, true), _directory: directory }
    }

    pub(super) fn node(&self) -> &Node {
        self.node.as_ref().unwrap()
    }

    pub(super) async fn ask(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = to_bytes(body, usize::MAX).await.unwrap();
        Answer { status: parts.status, headers: parts.headers, text: String::from_utf8(bytes.into()).unwrap() }
    }

    pub(super) async fn get(&self, uri: &str) -> Answer {
        self.ask(Request::get(uri).body(Body::empty()).unwrap()).await
    }

    /// The JSON of a good answer.
    pub(super) async fn good(&self, uri: &str) -> Value {
        let answer = self.get(uri).await;
        assert_eq!(answer.status, StatusCode::OK, "{uri}: {}", answer.text);
        answer.json()
    }

    /// The JSON of a problem.
    pub(super) async fn problem(&self, uri: &str, status: u16) -> Value {
        let answer = self.get(uri).await;
        assert_eq!(answer.status.as_u16(), status, "{uri}: {}", answer.text);
        assert_eq!(answer.headers["content-type"], "application/problem+json", "{uri}");
        let problem = answer.json();
        assert_eq!(problem["status"], status, "{uri}");
        for member in ["type", "title", "detail", "fix"] {
            assert!(problem[member].as_str().is_some_and(|text| !text.is_empty()), "{uri}: {problem}");
        }
        problem
    }

    /// Sends native records, one a line.
    pub(super) async fn send(&self, lines: String) -> Value {
        let request = Request::post("/v1/events").header("content-type", "application/x-ndjson");
        let answer = self.ask(request.body(lines.into()).unwrap()).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text);
        answer.json()
    }

    /// Puts bytes into the log that no gateway lets in.
    pub(super) async fn append(&self, partition: u32, bytes: Vec<u8>) -> u64 {
        self.node().appender().append(partition, bytes).wait().await.unwrap().offset
    }

    /// Waits until both books have everything that the log holds.
    pub(super) async fn settle(&self) {
        let mut reader = self.node().footing.reader().unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        let behind = |reader: &mut dyn LogReader| {
            let raw = |p: u32| self.node().progress.of(p).raw_offset.load(std::sync::atomic::Ordering::Acquire);
            (0..reader.partitions()).any(|p| raw(p) < reader.bounds(p).unwrap().end_offset)
        };
        while behind(reader.as_mut()) {
            assert!(Instant::now() < deadline, "the raw book does not follow: {:?}", self.node().progress);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if let Some(node) = self.node.take() {
            node.drain().unwrap();
        }
    }
}

/// One native record as a line; `fields` overwrite the usual ones.
pub(super) fn line(id: u64, tenant: &str, fields: &Value) -> String {
    let mut record = serde_json::json!({
        "id": id.to_string(), "tenant": tenant, "meter": "api_call", "quantity": 1, "time": "2023-11-16T18:17:03.979Z",
    });
    for (name, value) in fields.as_object().unwrap() {
        record[name] = value.clone();
    }
    format!("{record}\n")
}
