//! Asks any node about any tenant, uses what it was allowed, and gives it back; keeps
//! the ledger of it. What was answered `degraded`, or not at all, is asked again later.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, RwLock};
use std::time::{Duration, Instant};

use rand::RngExt;
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};

use super::TENANTS;
use super::ledger::Ledger;

/// Tenants that half of the questions are about, so that limits are reached.
const HOT: usize = 300;
/// Longer than the test.
const TTL_MS: u64 = 900_000;
/// Records of one post, and the pause between two.
const BATCH: usize = 100;
const PAUSE: Duration = Duration::from_millis(20);

/// A question whose answer is not certain.
pub(super) enum Pending {
    Reserve { tenant: usize, id: String, amount: i64 },
    Release { tenant: usize, id: String, amount: i64 },
}

#[derive(Default)]
struct Counts {
    decided: AtomicU64,
    admitted: AtomicU64,
    denied: AtomicU64,
    released: AtomicU64,
    degraded: AtomicU64,
    unanswered: AtomicU64,
    used: AtomicU64,
}

pub(super) struct Asker {
    pub(super) ledger: Ledger,
    pub(super) pending: Mutex<Vec<Pending>>,
    urls: RwLock<Vec<String>>,
    client: Client,
    stopped: AtomicBool,
    last_undecided: Mutex<Option<Instant>>,
    /// Records that draw on a reservation, to be sent.
    draws: Mutex<Vec<Value>>,
    counts: Counts,
}

/// What a node said.
enum Said {
    Yes(Value),
    No(Value),
    /// By nobody who knows.
    Degraded,
    Nothing,
}

pub(super) fn tenant_name(tenant: usize) -> String {
    format!("tenant-{tenant}")
}

fn random(below: usize) -> usize {
    rand::rng().random_range(0..below)
}

impl Asker {
    pub(super) fn new(ledger: Ledger, urls: Vec<String>, client: Client) -> Self {
        Self {
            ledger,
            pending: Mutex::default(),
            urls: RwLock::new(urls),
            client,
            stopped: AtomicBool::new(false),
            last_undecided: Mutex::default(),
            draws: Mutex::default(),
            counts: Counts::default(),
        }
    }

    /// The nodes from here on.
    pub(super) fn know(&self, urls: Vec<String>) {
        *self.urls.write().unwrap() = urls;
    }

    pub(super) fn stop(&self) {
        self.stopped.store(true, Relaxed);
    }

    pub(super) fn decided(&self) -> u64 {
        self.counts.decided.load(Relaxed)
    }

    pub(super) fn degraded(&self) -> u64 {
        self.counts.degraded.load(Relaxed)
    }

    /// When a question was last answered degraded, or not at all.
    pub(super) fn last_undecided(&self) -> Option<Instant> {
        *self.last_undecided.lock().unwrap()
    }

    pub(super) fn tale(&self) -> String {
        let Counts { admitted, denied, released, degraded, unanswered, used, .. } = &self.counts;
        format!(
            "{} admitted, {} denied, {} released, {} degraded, {} not answered, {} records",
            admitted.load(Relaxed),
            denied.load(Relaxed),
            released.load(Relaxed),
            degraded.load(Relaxed),
            unanswered.load(Relaxed),
            used.load(Relaxed)
        )
    }

    fn any_url(&self) -> String {
        let urls = self.urls.read().unwrap();
        urls[random(urls.len())].clone()
    }

    async fn say(&self, path: &str, body: &Value) -> Said {
        let sent = self.client.post(format!("{}{path}", self.any_url())).json(body).send().await;
        let said = match sent {
            Ok(answer) if matches!(answer.status(), StatusCode::OK | StatusCode::TOO_MANY_REQUESTS) => {
                let is_yes = answer.status() == StatusCode::OK;
                match answer.json::<Value>().await {
                    Ok(answer) if answer["degraded"] == true => Said::Degraded,
                    Ok(answer) if is_yes => Said::Yes(answer),
                    Ok(answer) => Said::No(answer),
                    Err(_) => Said::Nothing,
                }
            }
            Ok(answer) => {
                // While a partition moves; everything else is wrong.
                if answer.status() != StatusCode::SERVICE_UNAVAILABLE {
                    self.ledger.fault(format!("{path} is answered {}", answer.status()));
                }
                Said::Nothing
            }
            Err(_) => Said::Nothing,
        };
        if matches!(said, Said::Degraded | Said::Nothing) {
            *self.last_undecided.lock().unwrap() = Some(Instant::now());
        }
        match said {
            Said::Yes(_) | Said::No(_) => self.counts.decided.fetch_add(1, Relaxed),
            Said::Degraded => self.counts.degraded.fetch_add(1, Relaxed),
            Said::Nothing => self.counts.unanswered.fetch_add(1, Relaxed),
        };
        said
    }

    /// Asks until told to stop.
    pub(super) async fn ask_on(self: Arc<Self>, number: u64) {
        let mut asked = 0;
        while !self.stopped.load(Relaxed) {
            let tenant = random(if random(2) == 0 { TENANTS } else { HOT });
            match random(8) {
                0..4 => {
                    asked += 1;
                    self.reserve(tenant, format!("r-{number}-{asked}"), 1 + i64::from(rand::random::<u8>() % 3)).await;
                }
                4..7 => {
                    if let Some((id, amount)) = self.ledger.take_free(tenant) {
                        self.release(tenant, id, amount).await;
                    }
                }
                _ => self.check(tenant).await,
            }
        }
    }

    async fn reserve(&self, tenant: usize, id: String, amount: i64) {
        let items = json!([{"meter": "api_call", "amount": amount}]);
        let body = json!({"id": id, "tenant": tenant_name(tenant), "ttl_ms": TTL_MS, "items": items, "mode": "strict"});
        self.ledger.asks(tenant, &id, amount);
        match self.say("/v1/quota/reservations", &body).await {
            Said::Yes(_) => {
                self.counts.admitted.fetch_add(1, Relaxed);
                self.ledger.admitted(tenant, &id);
                self.keep_or_use(tenant, id, amount);
            }
            Said::No(_) => {
                self.counts.denied.fetch_add(1, Relaxed);
                self.ledger.denied(tenant, &id);
            }
            Said::Degraded | Said::Nothing => self.later(Pending::Reserve { tenant, id, amount }),
        }
    }

    /// A few are used and stay; the others may be given back.
    fn keep_or_use(&self, tenant: usize, id: String, amount: i64) {
        if random(8) > 0 {
            return self.ledger.of(tenant).free.push((id, amount));
        }
        let used = 1 + random(usize::try_from(amount).unwrap());
        let mut record = self.record(tenant, "api_call", used);
        record["reservation"] = json!(id);
        self.draws.lock().unwrap().push(record);
    }

    async fn release(&self, tenant: usize, id: String, amount: i64) {
        let body = json!({"tenant": tenant_name(tenant), "op_id": "release", "mode": "strict"});
        match self.say(&format!("/v1/quota/reservations/{id}/release"), &body).await {
            Said::Yes(_) => {
                self.counts.released.fetch_add(1, Relaxed);
                self.ledger.released(tenant, amount);
            }
            Said::No(answer) => self.ledger.fault(format!("tenant {tenant}: a release is denied: {answer}")),
            Said::Degraded => self.ledger.fault(format!("tenant {tenant}: a release is answered without its owner")),
            Said::Nothing => self.later(Pending::Release { tenant, id, amount }),
        }
    }

    async fn check(&self, tenant: usize) {
        let limit = self.ledger.of(tenant).limit;
        if let Said::Yes(answer) | Said::No(answer) = self.look(tenant, 1).await {
            let held = held_of(&answer, 0);
            let is_right = (answer["decision"] == "deny") == (held + 1 > limit);
            if held > limit || !is_right {
                self.ledger.fault(format!("tenant {tenant}, limit {limit}: {answer}"));
            }
        }
    }

    async fn look(&self, tenant: usize, calls: i64) -> Said {
        let items = json!([{"meter": "api_call", "amount": calls}, {"meter": "llm.prompt_tokens", "amount": 0}]);
        self.say("/v1/quota/check", &json!({"tenant": tenant_name(tenant), "items": items})).await
    }

    fn later(&self, pending: Pending) {
        self.pending.lock().unwrap().push(pending);
    }

    pub(super) async fn ask_again(&self, pending: Pending) {
        match pending {
            Pending::Reserve { tenant, id, amount } => self.reserve(tenant, id, amount).await,
            Pending::Release { tenant, id, amount } => self.release(tenant, id, amount).await,
        }
    }

    /// What a node says of a tenant, where it is not what the ledger says.
    pub(super) async fn difference(&self, tenant: usize) -> Option<String> {
        let Said::Yes(answer) = self.look(tenant, 0).await else { return Some("is not answered".to_owned()) };
        let found = (held_of(&answer, 0), held_of(&answer, 1));
        let entry = self.ledger.of(tenant);
        let wanted = (entry.held, entry.tokens);
        (found != wanted).then(|| format!("{found:?} instead of {wanted:?}: {answer}"))
    }

    fn record(&self, tenant: usize, meter: &str, quantity: usize) -> Value {
        let id = format!("{:032x}", rand::random::<u128>());
        json!({"tenant": tenant_name(tenant), "source": "load", "id": id, "meter": meter, "quantity": quantity})
    }

    /// Sends usage until told to stop, every record until it is acknowledged.
    pub(super) async fn use_on(self: Arc<Self>) {
        loop {
            // What is drawn until then is sent with the last.
            let is_last = self.stopped.load(Relaxed);
            let mut records = std::mem::take(&mut *self.draws.lock().unwrap());
            let tenants: Vec<usize> = (records.len()..BATCH).map(|_| random(TENANTS)).collect();
            records.extend(tenants.iter().map(|tenant| self.record(*tenant, "llm.prompt_tokens", 1 + tenant % 7)));
            let body = records.iter().map(|record| format!("{record}\n")).collect::<String>();
            while !self.is_stored(&body, records.len()).await {
                tokio::time::sleep(PAUSE).await;
            }
            for tenant in tenants {
                self.ledger.of(tenant).tokens += i64::try_from(1 + tenant % 7).unwrap();
            }
            self.counts.used.fetch_add(records.len() as u64, Relaxed);
            if is_last && self.draws.lock().unwrap().is_empty() {
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn is_stored(&self, body: &str, records: usize) -> bool {
        let request = self.client.post(format!("{}/v1/events", self.any_url()));
        let sent = request.header("content-type", "application/x-ndjson").body(body.to_owned()).send().await;
        let Ok(answer) = sent else { return false };
        let status = answer.status();
        let answer: Value = answer.json().await.unwrap_or_default();
        if status != StatusCode::ACCEPTED && status != StatusCode::SERVICE_UNAVAILABLE {
            self.ledger.fault(format!("usage is answered {status}: {answer}"));
        }
        status == StatusCode::ACCEPTED && answer["stored"] == records
    }
}

/// Used and reserved of the limit at a place.
fn held_of(answer: &Value, at: usize) -> i64 {
    let amount = |name: &str| answer["limits"][at][name].as_str().unwrap().parse::<i64>().unwrap();
    amount("used") + amount("reserved")
}
