//! What one run needs of Kafka, PostgreSQL and ClickHouse: a topic and two databases of
//! a random name, and the configuration that names them. `dev/services` starts the
//! parts, and its `env` prints where they are. The topic and the ClickHouse database
//! stay behind, for a look at them; `dev/services down --purge` removes both.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use odometer_ingest::log::kafka::{KafkaLog, KafkaOptions};
use odometer_sink::raw::ClickHouseOptions;
use odometer_sink::testing::postgres::PgDatabase;

/// A partition is counted by one thread per node; four show what spreading costs.
const PARTITIONS: u32 = 4;

/// A prepared cluster without a node.
pub(crate) struct Cluster {
    pub(crate) config: PathBuf,
    pub(crate) roles: &'static str,
    pub(crate) clickhouse: ClickHouseOptions,
    kafka: KafkaOptions,
    /// Dropped with the run.
    postgres: PgDatabase,
}

impl Cluster {
    /// Makes names, writes the configuration into `directory` and lets `odometer`
    /// migrate.
    pub(crate) fn prepare(odometer: &Path, directory: &Path, with_raw: bool) -> anyhow::Result<Self> {
        let name = format!("bench_{:016x}", random()?);
        let postgres = PgDatabase::empty();
        let kafka = KafkaOptions {
            brokers: place("ODOMETER_TEST_KAFKA")?,
            topic: name.clone(),
            client_id: "odometer-bench".into(),
            properties: Vec::new(),
        };
        let clickhouse = ClickHouseOptions {
            url: place("ODOMETER_TEST_CLICKHOUSE")?,
            database: name.clone(),
            user: "default".into(),
            password: String::new(),
        };
        let config = directory.join("cluster.toml");
        let text = format!(
            "[server]\npartitions = {PARTITIONS}\n[kafka]\nbrokers = {:?}\ntopic = {name:?}\ngroup = {name:?}\n\
             [postgres]\nurl = {:?}\n[clickhouse]\nurl = {:?}\ndatabase = {name:?}\n[snapshots]\ndir = {:?}\n",
            kafka.brokers,
            postgres.url(),
            clickhouse.url,
            directory.join("snapshots"),
        );
        fs::write(&config, text)?;
        let migrated = Command::new(odometer).args(["migrate", "--config"]).arg(&config).output()?;
        ensure!(migrated.status.success(), "migrate failed: {}", String::from_utf8_lossy(&migrated.stderr));
        let roles = if with_raw { "gateway,aggregator,raw" } else { "gateway,aggregator" };
        Ok(Self { config, roles, clickhouse, kafka, postgres })
    }

    /// A way straight into the log.
    pub(crate) fn log(&self) -> anyhow::Result<KafkaLog> {
        Ok(KafkaLog::open(&self.kafka)?)
    }

    /// The processes that PostgreSQL runs for whoever is connected. Those that work for
    /// all databases, such as the one that writes the log ahead, are not among them.
    pub(crate) fn postgres_pids(&self) -> anyhow::Result<Vec<u32>> {
        let pids = self.postgres.text(
            "SELECT coalesce(string_agg(pid::text, ' '), '') FROM pg_stat_activity
             WHERE datname = current_database() AND pid <> pg_backend_pid()",
        );
        pids.split_whitespace().map(|pid| pid.parse().context("PostgreSQL names a process by a number")).collect()
    }

    pub(crate) fn postgres_url(&self) -> &str {
        self.postgres.url()
    }
}

fn place(variable: &str) -> anyhow::Result<String> {
    std::env::var(variable)
        .with_context(|| format!("{variable} is not set: run `dev/services up`, then `eval \"$(dev/services env)\"`"))
}

/// So that runs do not meet.
fn random() -> anyhow::Result<u64> {
    let mut bytes = [0; 8];
    std::io::Read::read_exact(&mut fs::File::open("/dev/urandom")?, &mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}
