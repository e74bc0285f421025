//! A cluster of a test's own, on the parts that `dev/services` runs.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use odometer_ingest::log::kafka::{KafkaLog, KafkaOptions};
use odometer_sink::testing::postgres::PgDatabase;
use serde_json::Value;
use tempfile::TempDir;

pub(crate) use crate::common::*;

/// How long something may take that ends by itself.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
/// Time between two looks at it.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// A topic and two databases, prepared by `odometer migrate`.
pub(crate) struct Cluster {
    /// Of the topic and the databases.
    name: String,
    config: PathBuf,
    directory: TempDir,
    ingress_topic: String,
    /// Its own database, dropped with the test; none where the configuration named one.
    postgres: Option<PgDatabase>,
}

pub(crate) fn part(name: &str) -> String {
    let missing = |_| panic!("{name} is not set: run `eval \"$(dev/services env)\"` after `dev/services up`");
    std::env::var(name).unwrap_or_else(missing)
}

impl Cluster {
    pub(crate) fn new(partitions: u32) -> Self {
        Self::with(partitions, "")
    }

    /// The same with more in its configuration.
    pub(crate) fn with(partitions: u32, more: &str) -> Self {
        let (brokers, clickhouse) = (part("ODOMETER_TEST_KAFKA"), part("ODOMETER_TEST_CLICKHOUSE"));
        let (postgres, directory) = (PgDatabase::empty(), TempDir::new().unwrap());
        let name = format!("odometer_test_{:016x}", rand::random::<u64>());
        let snapshots = directory.path().join("snapshots");
        let text = format!(
            "[server]\npartitions = {partitions}\n\
             [kafka]\nbrokers = '{brokers}'\ntopic = '{name}'\ngroup = '{name}'\n\
             [bridge]\ningress_topic = '{name}.ingress'\ndead_letter_topic = '{name}.dead'\n\
             [postgres]\nurl = '{}'\n\
             [clickhouse]\nurl = '{clickhouse}'\ndatabase = '{name}'\n\
             [snapshots]\ndir = '{}'\ninterval = '1s'\n{more}",
            postgres.url(),
            snapshots.display()
        );
        Self::prepared(name, &text, directory, Some(postgres))
    }

    /// The cluster that a configuration describes.
    pub(crate) fn prepared(name: String, text: &str, directory: TempDir, postgres: Option<PgDatabase>) -> Self {
        let config = directory.path().join("cluster.toml");
        std::fs::write(&config, text).unwrap();
        let ingress_topic = format!("{name}.ingress");
        let cluster = Self { name, config, directory, ingress_topic, postgres };
        for _ in 0..2 {
            let output = run(&["migrate", "--config", cluster.config()]);
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        cluster
    }

    pub(crate) fn directory(&self) -> &std::path::Path {
        self.directory.path()
    }

    /// The topic's and the databases'.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The log that all nodes share.
    pub(crate) fn log(&self) -> KafkaLog {
        let options = KafkaOptions {
            brokers: part("ODOMETER_TEST_KAFKA"),
            topic: self.name.clone(),
            client_id: "odometer-test".to_owned(),
            properties: Vec::new(),
        };
        KafkaLog::open(&options).unwrap()
    }

    pub(crate) fn ingress_topic(&self) -> &str {
        &self.ingress_topic
    }

    /// The database of the totals book.
    pub(crate) fn postgres(&self) -> &PgDatabase {
        self.postgres.as_ref().unwrap()
    }

    pub(crate) fn config(&self) -> &str {
        self.config.to_str().unwrap()
    }

    /// Starts a node with the usual roles; it may still be recovering.
    pub(crate) fn node(&self) -> Process {
        Process::spawn(&["serve", "--config", self.config()])
    }

    /// Starts a node with these roles.
    pub(crate) fn node_with(&self, roles: &str) -> Process {
        Process::spawn(&["serve", "--config", self.config(), "--roles", roles])
    }

    /// What ClickHouse answers to `sql`, asked by hand.
    pub(crate) fn clickhouse(&self, sql: &str) -> String {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let url = part("ODOMETER_TEST_CLICKHOUSE");
            let client = reqwest::Client::new();
            let request = client.post(url).query(&[("database", &self.name)]).body(sql.to_owned());
            let answer = request.send().await.unwrap();
            let (status, text) = (answer.status(), answer.text().await.unwrap());
            assert!(status.is_success(), "{sql}: {text}");
            text
        })
    }

    pub(crate) fn totals(&self) -> Totals {
        totals_at(["--config", self.config()])
    }

    /// Waits until the totals book has these quantities.
    pub(crate) fn await_totals(&self, expected: &Totals) {
        let reached = || quantities(&self.totals()) == quantities(expected);
        let deadline = Instant::now() + PATIENCE;
        while !reached() && Instant::now() < deadline {
            std::thread::sleep(LOOK_EVERY);
        }
        let found = self.totals();
        let (found, expected) = (quantities(&found), quantities(expected));
        let differences: Vec<_> = expected.iter().filter(|(key, wanted)| found.get(*key) != Some(wanted)).collect();
        assert!(
            differences.is_empty() && found.len() == expected.len(),
            "{} differ: {differences:?}",
            differences.len()
        );
    }

    /// The books agree.
    pub(crate) fn prove(&self) {
        let (code, report) = verify_at(["--config", self.config()]);
        assert_eq!(code, 0, "{report}");
    }
}

/// Looks until it is so.
pub(crate) fn patiently(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Status, headers' Location and body of a GET, redirects not followed.
pub(crate) fn get(url: &str) -> (u16, Option<String>, String) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        let answer = client.get(url).send().await.unwrap();
        let location = answer.headers().get("location").map(|value| value.to_str().unwrap().to_owned());
        (answer.status().as_u16(), location, answer.text().await.unwrap())
    })
}

/// Waits until a node says that it is ready.
pub(crate) fn await_ready(node: &Process) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (status, _, text) = get(&format!("{}/readyz", node.url));
        if status == 200 {
            return;
        }
        assert!(Instant::now() < deadline, "{} is not ready: {text}", node.url);
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The JSON of a good answer, wherever a redirect leads.
pub(crate) fn answer(url: &str) -> Value {
    let (mut status, mut location, mut text) = get(url);
    if let Some(owner) = location.take() {
        (status, _, text) = get(&owner);
    }
    assert_eq!(status, 200, "{url}: {text}");
    serde_json::from_str(&text).unwrap()
}
