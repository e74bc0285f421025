//! The outages, one after the other.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::runtime::Runtime;

use crate::load::{Http, Ledger, Load, Log, TENANTS};
use crate::parts::Parts;
use crate::support::{Cluster, Process, await_ready, get};

/// How long something may take that ends by itself.
const PATIENCE: Duration = Duration::from_secs(120);
/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Records that have to be acknowledged before a part is killed and after it is back.
const WARM: u64 = 2000;

/// One part that goes away, and what is to be seen of it.
struct Outage {
    part: &'static str,
    length: Duration,
    /// In the reasons of `/readyz`.
    trouble: &'static str,
    /// What goes on meanwhile.
    goes_on: &'static [Follower],
}

/// Something that follows what is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Follower {
    /// The counters in memory.
    Live,
    /// The totals book.
    Totals,
}

/// Whether outages take as long as they are survived for sure.
fn is_full() -> bool {
    std::env::var("ODOMETER_OUTAGE").is_ok_and(|length| length == "full")
}

fn outages() -> [Outage; 3] {
    let length = |full: u64| Duration::from_secs(if is_full() { full } else { 10 });
    let outage = |part, full, trouble, goes_on| Outage { part, length: length(full), trouble, goes_on };
    [
        outage("clickhouse", 120, "the raw book stalled", &[Follower::Live, Follower::Totals]),
        outage("postgres", 30, "the totals book stalled", &[Follower::Live]),
        outage("kafka", 30, "the log ", &[]),
    ]
}

/// A node under load.
struct Site {
    // Dropped in this order: whatever fails, the parts go last.
    node: Process,
    ledger: Arc<Ledger>,
    http: Arc<Http>,
    log: Arc<Log>,
    runtime: Runtime,
    cluster: Cluster,
    parts: Parts,
}

impl Site {
    fn new() -> Self {
        let parts = Parts::up();
        // By itself the gateway is as patient with the log as a whole outage is long.
        let patience = if is_full() { "" } else { "'message.timeout.ms' = '5000'" };
        let cluster =
            parts.cluster(&format!("interval = '1s'\n[server]\npartitions = 4\n[kafka.properties]\n{patience}\n"));
        let node = cluster.node();
        await_ready(&node);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let http = Arc::new(Http::new(vec![node.url.clone()]));
        let log = Arc::new(runtime.block_on(async { Log::open(cluster.config()) }));
        Self { node, ledger: Arc::default(), http, log, runtime, cluster, parts }
    }

    /// Records that a follower has counted; `None` while it does not say.
    fn counted(&self, follower: Follower) -> Option<u64> {
        match follower {
            Follower::Live => self.runtime.block_on(self.live()),
            Follower::Totals => Some(self.cluster.totals().values().map(|(_, records)| records).sum()),
        }
    }

    async fn live(&self) -> Option<u64> {
        let mut records = 0;
        for tenant in 0..TENANTS {
            let url = format!("{}/v1/tenants/tenant-{tenant}/usage", self.node.url);
            let answer = self.http.client.get(url).send().await.unwrap();
            if answer.status() != 200 {
                return None;
            }
            let usage: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
            records +=
                usage["usage"].as_array().unwrap().iter().map(|usage| usage["records"].as_u64().unwrap()).sum::<u64>();
        }
        Some(records)
    }

    /// Waits until a follower has everything that is acknowledged by now.
    fn catch_up(&self, follower: Follower) {
        let acknowledged = self.ledger.records();
        let started = Instant::now();
        loop {
            let counted = self.counted(follower);
            if counted.is_some_and(|counted| counted >= acknowledged) {
                return;
            }
            assert!(started.elapsed() < PATIENCE, "{follower:?} has {counted:?} of {acknowledged} records");
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Waits until so many more records are acknowledged.
    fn await_acknowledged(&self, more: u64) {
        let (wanted, started) = (self.ledger.records() + more, Instant::now());
        while self.ledger.records() < wanted {
            assert!(started.elapsed() < PATIENCE, "nothing is acknowledged any more");
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Why the node is not ready.
    fn trouble(&self) -> Option<String> {
        let (status, _, text) = get(&format!("{}/readyz", self.node.url));
        (status != 200).then_some(text)
    }

    fn survive(&self, outage: &Outage) {
        let mut load = self.runtime.block_on(async { Load::start(&self.http, &self.log, &self.ledger) });
        self.await_acknowledged(WARM);
        self.parts.kill(outage.part);
        let gone = Instant::now();
        let acknowledged = self.ledger.records();
        self.bear(outage, &mut load);
        let meanwhile = self.ledger.records() - acknowledged;
        assert!(meanwhile > 0 || outage.goes_on.is_empty(), "{}: there was no load", outage.part);
        note(outage.part, "acknowledged meanwhile", &meanwhile);
        note(outage.part, "started again after", &gone.elapsed());
        let back = Instant::now();
        self.parts.start(outage.part);
        note(outage.part, "answers after", &back.elapsed());
        await_ready(&self.node);
        note(outage.part, "ready again after", &back.elapsed());
        self.catch_up(Follower::Live);
        note(outage.part, "live counters after", &back.elapsed());
        self.catch_up(Follower::Totals);
        note(outage.part, "totals after", &back.elapsed());
        self.await_acknowledged(WARM);
        self.runtime.block_on(load.settle());
        self.cluster.await_totals(&self.ledger.totals());
        assert_eq!(self.cluster.totals(), self.ledger.totals(), "after {}", outage.part);
        self.cluster.prove();
        note(outage.part, "proven after", &back.elapsed());
        assert_eq!(self.trouble(), None, "after {}", outage.part);
        note(outage.part, "acknowledged in all", &self.ledger.records());
    }

    /// Looks on until the outage was as long as it shall be, and was noticed.
    fn bear(&self, outage: &Outage, load: &mut Load) {
        let (gone, put_off) = (Instant::now(), self.ledger.put_off.load(Ordering::Relaxed));
        let mut longest = vec![Duration::ZERO; outage.goes_on.len()];
        let (mut is_named, mut is_put_off) = (false, outage.part != "kafka");
        while gone.elapsed() < outage.length || !is_named || !is_put_off {
            load.check();
            for (follower, longest) in outage.goes_on.iter().zip(&mut longest) {
                let asked = Instant::now();
                self.catch_up(*follower);
                *longest = asked.elapsed().max(*longest);
            }
            let trouble = self.trouble();
            if !is_named && trouble.as_ref().is_some_and(|why| why.contains(outage.trouble)) {
                note(outage.part, "named after", &gone.elapsed());
                is_named = true;
            }
            if !is_put_off && self.ledger.put_off.load(Ordering::Relaxed) > put_off {
                note(outage.part, "503 after", &gone.elapsed());
                is_put_off = true;
            }
            assert!(gone.elapsed() < outage.length + PATIENCE, "{} is away, and health says {trouble:?}", outage.part);
            std::thread::sleep(LOOK_EVERY);
        }
        for (follower, longest) in outage.goes_on.iter().zip(&longest) {
            note(outage.part, &format!("longest wait for {follower:?}"), longest);
        }
    }
}

/// What was seen, for people.
fn note(part: &str, what: &str, value: &dyn std::fmt::Debug) {
    println!("{part}: {what}: {value:.1?}");
}

#[test]
fn any_part_may_go_away_under_load() {
    let site = Site::new();
    for outage in outages() {
        site.survive(&outage);
    }
    let Site { node, .. } = site;
    // Ends well only if nothing has failed since its start.
    node.stop();
}
