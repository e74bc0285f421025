//! What every test of the gateway needs: a log in memory or a real one, a way to send
//! a request without a socket, and the records that the log then holds.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Method, Request, StatusCode};
use odometer_ingest::gateway::{Gateway, GatewayOptions, SharedDefinitions, router};
use odometer_ingest::log::{AppendError, Appended, LogAppender, PendingAppend};
use odometer_schemas::definitions::Definitions;
use odometer_schemas::envelope::{Decoded, decode};
use odometer_schemas::log::LogEntry;
use odometer_schemas::record::Record;
use odometer_schemas::time::TimeMs;
use serde_json::Value;
use tower::ServiceExt as _;

/// A log that a test can look into.
pub(crate) trait TestLog {
    /// The half that a gateway writes to.
    fn appender(&self) -> Arc<dyn LogAppender>;

    /// All that it holds, in order per partition; what came since the last call last.
    fn records(&self) -> Vec<Record>;
}

impl TestLog for Arc<MemoryLog> {
    fn appender(&self) -> Arc<dyn LogAppender> {
        self.clone()
    }

    fn records(&self) -> Vec<Record> {
        records_of(&self.entries())
    }
}

/// How the log in memory answers the next appends, in order; `None` stores.
pub(crate) type Script = Vec<Option<AppendError>>;

/// A log in memory.
#[derive(Default)]
pub(crate) struct MemoryLog {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    entries: Vec<LogEntry>,
    script: Script,
    /// Answers that are never given.
    held: Vec<Box<dyn std::any::Any + Send>>,
    is_silent: bool,
}

impl MemoryLog {
    pub(crate) const PARTITIONS: u32 = 4;

    pub(crate) fn shared() -> Arc<Self> {
        Arc::default()
    }

    /// Answers the next appends with `script`, first element first.
    pub(crate) fn follow(&self, mut script: Script) {
        script.reverse();
        self.state.lock().unwrap().script = script;
    }

    /// Stores from now on, but never says so.
    pub(crate) fn fall_silent(&self) {
        self.state.lock().unwrap().is_silent = true;
    }

    pub(crate) fn entries(&self) -> Vec<LogEntry> {
        self.state.lock().unwrap().entries.clone()
    }
}

impl LogAppender for MemoryLog {
    fn partitions(&self) -> u32 {
        Self::PARTITIONS
    }

    fn append(&self, partition: u32, envelope: Vec<u8>) -> PendingAppend {
        let mut state = self.state.lock().unwrap();
        if let Some(Some(error)) = state.script.pop() {
            return PendingAppend::ready(Err(error));
        }
        let offset = state.entries.iter().filter(|e| e.partition == partition).count() as u64;
        let append_time = TimeMs(1_700_000_000_000);
        state.entries.push(LogEntry { partition, offset, append_time, bytes: envelope.into() });
        if state.is_silent {
            let (sender, pending) = PendingAppend::channel();
            state.held.push(Box::new(sender));
            return pending;
        }
        PendingAppend::ready(Ok(Appended { offset, append_time }))
    }
}

/// The records of log entries, in order.
pub(crate) fn records_of(entries: &[LogEntry]) -> Vec<Record> {
    let mut records = Vec::new();
    for entry in entries {
        match decode(&entry.bytes).unwrap() {
            Decoded::Usage(usage) => records.extend((0..usage.len()).map(|i| usage.to_owned_record(i))),
            Decoded::Control(control) => panic!("a control record: {control:?}"),
        }
    }
    records
}

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) body: Vec<u8>,
}

impl Call {
    /// A request to `/v1/events`.
    pub(crate) fn new(content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        Self { method: Method::POST, path: "/v1/events".into(), headers: Vec::new(), body: body.into() }
            .header("content-type", content_type)
    }

    pub(crate) fn to(self, path: &str) -> Self {
        Self { path: path.into(), ..self }
    }

    pub(crate) fn header(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }
}

/// One answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Reply {
    pub(crate) fn result(&self, index: usize) -> &Value {
        &self.body["results"][index]
    }
}

/// A gateway, its routes and a runtime to call them on.
pub(crate) struct Bench {
    pub(crate) gateway: Gateway,
    router: Router,
    runtime: tokio::runtime::Runtime,
}

impl Bench {
    pub(crate) fn new(log: Arc<dyn LogAppender>, definitions: Definitions, options: GatewayOptions) -> Self {
        definitions.validate().unwrap();
        let gateway = Gateway::new(log, SharedDefinitions::new(definitions), options);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        Self { router: router(gateway.clone()), gateway, runtime }
    }

    pub(crate) fn call(&self, call: &Call) -> Reply {
        self.runtime.block_on(self.send(call))
    }

    /// Several requests at once.
    pub(crate) fn call_all(&self, calls: &[Call]) -> Vec<Reply> {
        self.runtime.block_on(async {
            let mut replies = Vec::new();
            let mut tasks = tokio::task::JoinSet::new();
            for (index, call) in calls.iter().enumerate() {
                let response = self.router.clone().oneshot(request(call));
                tasks.spawn(async move { (index, reply(response.await.unwrap()).await) });
            }
            while let Some(done) = tasks.join_next().await {
                replies.push(done.unwrap());
            }
            replies.sort_by_key(|(index, _)| *index);
            replies.into_iter().map(|(_, reply)| reply).collect()
        })
    }

    async fn send(&self, call: &Call) -> Reply {
        reply(self.router.clone().oneshot(request(call)).await.unwrap()).await
    }
}

fn request(call: &Call) -> Request<Body> {
    let mut request = Request::builder().method(&call.method).uri(&call.path);
    for (name, value) in &call.headers {
        request = request.header(name, value.as_slice());
    }
    request.body(Body::from(call.body.clone())).unwrap()
}

async fn reply(response: axum::response::Response) -> Reply {
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    Reply { status: parts.status, headers: parts.headers, body }
}
