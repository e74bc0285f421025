//! Paced records through both doors, and a ledger of what was acknowledged. A record
//! is in the ledger once its door has said that it is stored; one without an answer is
//! sent again with the same id until there is one.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use odometer_ingest::emitter::{EmitError, Emitter, EmitterOptions};
use odometer_ingest::log::kafka::{KafkaLog, KafkaOptions};
use odometer_schemas::quantity::Quantity;
use odometer_schemas::record::Record;
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::support::Totals;

pub(crate) const TENANTS: u64 = 24;
/// Time between two batches of one door.
const PACE: Duration = Duration::from_millis(50);
/// Records of one batch: with the pace, a thousand a second through both doors.
const BATCH: u64 = 25;
/// Requests of one door under way at once; while the log is away they wait.
const UNDER_WAY_MAX: usize = 64;
/// Time until what failed is tried again.
const RETRY: Duration = Duration::from_millis(200);

/// What was acknowledged, and what was said instead.
#[derive(Default)]
pub(crate) struct Ledger {
    totals: Mutex<Totals>,
    records: AtomicU64,
    /// Requests that were told to come later, as `Retry-After` says.
    pub(crate) put_off: AtomicU64,
    /// Batches given out so far.
    batches: AtomicU64,
}

impl Ledger {
    pub(crate) fn records(&self) -> u64 {
        self.records.load(Ordering::Acquire)
    }

    pub(crate) fn totals(&self) -> Totals {
        self.totals.lock().unwrap().clone()
    }

    fn enter(&self, record: &Record) {
        let mut totals = self.totals.lock().unwrap();
        let total = totals.entry((record.tenant.clone(), record.meter.clone())).or_default();
        *total = (total.0 + i128::from(record.quantity.0), total.1 + 1);
        self.records.fetch_add(1, Ordering::Release);
    }
}

/// One door for records.
pub(crate) trait Door: Send + Sync + 'static {
    /// The records' source.
    fn source(&self) -> &'static str;
    /// Sends a batch and enters into the ledger what was acknowledged, until that is
    /// all of it.
    fn deliver(self: Arc<Self>, batch: Vec<Record>, ledger: Arc<Ledger>) -> impl Future<Output = ()> + Send;
}

/// Everything that sends.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    doors: JoinSet<()>,
}

impl Load {
    /// Starts to send through both doors.
    pub(crate) fn start(http: &Arc<Http>, log: &Arc<Log>, ledger: &Arc<Ledger>) -> Self {
        let (stop, mut doors) = (Arc::new(AtomicBool::new(false)), JoinSet::new());
        doors.spawn(send(Arc::clone(http), Arc::clone(ledger), Arc::clone(&stop)));
        doors.spawn(send(Arc::clone(log), Arc::clone(ledger), Arc::clone(&stop)));
        Self { stop, doors }
    }

    /// Whatever ended on its own has failed.
    pub(crate) fn check(&mut self) {
        if let Some(ended) = self.doors.try_join_next() {
            panic!("a sender has ended: {ended:?}");
        }
    }

    /// Sends no more; returns once everything is acknowledged.
    pub(crate) async fn settle(self) {
        self.stop.store(true, Ordering::Release);
        self.doors.join_all().await;
    }
}

async fn send<D: Door>(door: Arc<D>, ledger: Arc<Ledger>, stop: Arc<AtomicBool>) {
    let (places, mut under_way) = (Arc::new(Semaphore::new(UNDER_WAY_MAX)), JoinSet::new());
    let mut pace = tokio::time::interval(PACE);
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !stop.load(Ordering::Acquire) {
        pace.tick().await;
        let place = Arc::clone(&places).acquire_owned().await.unwrap();
        let records = batch(door.source(), ledger.batches.fetch_add(1, Ordering::Relaxed));
        let delivery = Arc::clone(&door).deliver(records, Arc::clone(&ledger));
        under_way.spawn(async move {
            delivery.await;
            drop(place);
        });
        while let Some(ended) = under_way.try_join_next() {
            ended.unwrap();
        }
    }
    under_way.join_all().await;
}

fn batch(source: &str, number: u64) -> Vec<Record> {
    let record = |number: u64| Record {
        tenant: format!("tenant-{}", number % TENANTS),
        source: source.into(),
        id: Some(format!("{number}")),
        meter: if number.is_multiple_of(5) { "llm.prompt_tokens" } else { "api_call" }.into(),
        quantity: Quantity(if number.is_multiple_of(5) { i64::try_from(number * 7919 % 5000).unwrap() } else { 1 }),
        time: None,
        subject: None,
        dimensions: Vec::new(),
        reservation: None,
    };
    (number * BATCH..(number + 1) * BATCH).map(record).collect()
}

/// Gateways, by turns.
pub(crate) struct Http {
    pub(crate) client: reqwest::Client,
    urls: RwLock<Vec<String>>,
    requests: AtomicUsize,
}

impl Http {
    pub(crate) fn new(urls: Vec<String>) -> Self {
        Self { client: reqwest::Client::new(), urls: RwLock::new(urls), requests: AtomicUsize::new(0) }
    }

    /// From now on another gateway stands in the place of that one.
    pub(crate) fn replace(&self, place: usize, url: &str) {
        url.clone_into(&mut self.urls.write().unwrap()[place]);
    }

    /// Where to go next, and whether there is another place to go to.
    fn next_url(&self) -> (String, bool) {
        let urls = self.urls.read().unwrap();
        (urls[self.requests.fetch_add(1, Ordering::Relaxed) % urls.len()].clone(), urls.len() > 1)
    }

    /// Whether the whole batch was acknowledged.
    async fn post(&self, body: String, records: usize, ledger: &Ledger) -> bool {
        let (url, has_others) = self.next_url();
        let request = self.client.post(format!("{url}/v1/events")).body(body);
        let answer = match request.header("content-type", "application/x-ndjson").send().await {
            Ok(answer) => answer,
            // It is being restarted; what it has stored comes again with the same ids.
            Err(_) if has_others => return false,
            Err(error) => panic!("{url} does not answer: {error}"),
        };
        let (status, retry_after) = (answer.status().as_u16(), answer.headers().get("retry-after").cloned());
        let text = answer.text().await.unwrap();
        if status == 503 {
            assert!(retry_after.is_some(), "503 without Retry-After: {text}");
            ledger.put_off.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        assert_eq!(status, 202, "{text}");
        let answer: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(answer["stored"].as_u64(), Some(records as u64), "{text}");
        true
    }
}

impl Door for Http {
    fn source(&self) -> &'static str {
        "http"
    }

    async fn deliver(self: Arc<Self>, batch: Vec<Record>, ledger: Arc<Ledger>) {
        let mut body = String::new();
        for Record { source, id, tenant, meter, quantity, .. } in &batch {
            let (id, quantity) = (id.as_ref().unwrap(), quantity.0);
            writeln!(
                body,
                r#"{{"source":"{source}","id":"{id}","tenant":"{tenant}","meter":"{meter}","quantity":{quantity}}}"#
            )
            .unwrap();
        }
        while !self.post(body.clone(), batch.len(), &ledger).await {
            tokio::time::sleep(RETRY).await;
        }
        batch.iter().for_each(|record| ledger.enter(record));
    }
}

/// The emitter, straight to Kafka. Every second record gets its id from the emitter.
pub(crate) struct Log {
    emitter: Emitter,
    // Closed when dropped, after the emitter.
    _log: KafkaLog,
}

impl Log {
    /// Call inside of a runtime.
    pub(crate) fn open(config: &str) -> Self {
        let config: toml::Table = std::fs::read_to_string(config).unwrap().parse().unwrap();
        let text = |name: &str| config["kafka"][name].as_str().unwrap().to_owned();
        let (brokers, topic) = (text("brokers"), text("topic"));
        let log =
            KafkaLog::open(&KafkaOptions { brokers, topic, client_id: "load".into(), properties: Vec::new() }).unwrap();
        let emitter = Emitter::start(log.appender(), EmitterOptions::default()).unwrap();
        Self { emitter, _log: log }
    }
}

impl Door for Log {
    fn source(&self) -> &'static str {
        "log"
    }

    async fn deliver(self: Arc<Self>, batch: Vec<Record>, ledger: Arc<Ledger>) {
        let mut unacknowledged = batch;
        for record in unacknowledged.iter_mut().step_by(2) {
            record.id = None;
        }
        while !unacknowledged.is_empty() {
            let pending = self.emitter.emit_all(unacknowledged.clone()).await;
            let mut left = Vec::new();
            for (record, pending) in unacknowledged.into_iter().zip(pending) {
                match pending.unwrap().wait().await {
                    Ok(_) => ledger.enter(&record),
                    Err(error) => left.push(again(record, &error)),
                }
            }
            unacknowledged = left;
        }
    }
}

/// The record, if it may be sent again.
fn again(record: Record, error: &EmitError) -> Record {
    assert!(record.id.is_some() || error.is_retryable(), "nobody knows what became of {record:?}: {error}");
    record
}
