//! `odometer migrate`: prepares Kafka, PostgreSQL and ClickHouse.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use odometer_ingest::bridge::{Bridge, BridgeError};
use odometer_ingest::log::LogReader;
use odometer_ingest::log::kafka::{KafkaLog, KafkaOptions, NumberedTopic, TopicOptions};
use odometer_schemas::control::Control;
use odometer_schemas::envelope::{Origin, encode_control};
use odometer_sink::BookError;
use odometer_sink::raw::{ClickHouseRaw, TableOptions};
use odometer_sink::totals::PgTotals;

use crate::config::cluster::without_password;
use crate::config::{Config, Overrides};
use crate::node::bridging::bridge_options;
use crate::node::footing::cluster::{await_part, kafka_options, servers};
use crate::node::footing::log_may_recover;

const EXAMPLES: &str = "\
Examples:
  odometer migrate --config examples/cluster.toml

What it does, and says: creates the topic of the usage log with `server.partitions` partitions, append times and the \
retention of `log.retention`, unless it is there; puts the configured meters first into partitions that are empty; creates the bridge's ingress and dead-letter topics and that of alerts likewise; makes or upgrades the tables of the totals book and of the raw book. \
It may run any number of times, also while nodes run. It never changes a topic that is there: it names what does not \
fit.

Create the PostgreSQL database first; the ClickHouse database is created here.";

/// Prepare Kafka, PostgreSQL and ClickHouse for `odometer serve`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Configuration file (TOML); see examples/cluster.toml
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let config = Config::load(Some(&args.config), &Overrides::default())?;
    let (cluster, servers) = (&config.cluster, servers(&config.cluster));
    topic(&config)?;
    bridge_topics(&config)?;
    alerts_topic(&config)?;
    let place = without_password(&servers.postgres);
    await_part("PostgreSQL", &place, BookError::is_retryable, || PgTotals::migrate(&servers.postgres))?;
    println!("PostgreSQL {place}: the totals book's tables are up to date");
    let tables = TableOptions {
        ttl_days: Some(cluster.clickhouse.ttl_days).filter(|days| *days > 0),
        replicated: cluster.clickhouse.replicated,
    };
    let clickhouse = &servers.clickhouse;
    let migrate = || ClickHouseRaw::migrate(clickhouse, &tables);
    await_part("ClickHouse", &clickhouse.url, BookError::is_retryable, migrate)?;
    println!("ClickHouse {}: the raw book's tables in {} are up to date", clickhouse.url, clickhouse.database);
    Ok(ExitCode::SUCCESS)
}

fn topic(config: &Config) -> anyhow::Result<()> {
    let cluster = &config.cluster;
    let (brokers, name) = (&cluster.kafka.brokers, &cluster.kafka.topic);
    let (options, partitions) = (kafka_options(cluster), config.server.partitions);
    let topic =
        TopicOptions { partitions, replication: cluster.kafka.replication, retention: Some(config.log_retention) };
    let created = await_part("Kafka", brokers, log_may_recover, || KafkaLog::create_topic(&options, &topic))?;
    // Also tells what does not fit.
    let log = KafkaLog::open(&options).with_context(|| format!("topic {name}"))?;
    if created {
        let copies = cluster.kafka.replication;
        println!("Kafka {brokers}: created topic {name} with {partitions} partitions, {copies} copies");
    } else {
        println!("Kafka {brokers}: topic {name} is there with {} partitions", log.partitions());
    }
    let begun = begin(config, &log)?;
    if begun > 0 {
        println!("Kafka {brokers}: put the configured meters at the beginning of {begun} empty partitions");
    }
    log.close().context("the log did not close cleanly")
}

/// The bridge's topics keep messages as long as the log does.
fn bridge_topics(config: &Config) -> anyhow::Result<()> {
    let (cluster, options) = (&config.cluster, bridge_options(&config.cluster));
    let brokers = &cluster.kafka.brokers;
    let topic = TopicOptions {
        partitions: config.server.partitions,
        replication: cluster.kafka.replication,
        retention: Some(config.log_retention),
    };
    let create = || Bridge::create_topics(&options, &topic);
    let created = await_part("Kafka", brokers, BridgeError::is_retryable, create)?;
    for name in [&cluster.bridge.ingress_topic, &cluster.bridge.dead_letter_topic] {
        let found = if created.contains(name) { "created topic" } else { "there is topic" };
        println!("Kafka {brokers}: {found} {name} of the bridge");
    }
    Ok(())
}

/// The partition of an alert is that of the log.
fn alerts_topic(config: &Config) -> anyhow::Result<()> {
    let (kafka, name) = (&config.cluster.kafka, &config.alerts.topic);
    let options = KafkaOptions { topic: name.clone(), ..kafka_options(&config.cluster) };
    let topic = TopicOptions {
        partitions: config.server.partitions,
        replication: kafka.replication,
        retention: Some(config.log_retention),
    };
    let create = || NumberedTopic::create(&options, &topic);
    let created = await_part("Kafka", &kafka.brokers, log_may_recover, create)?;
    let found = if created { "created topic" } else { "there is topic" };
    println!("Kafka {}: {found} {name} of alerts", kafka.brokers);
    Ok(())
}

/// Puts the definitions first into every empty partition: usage may come before the
/// first node that counts, and would be rejected without them. How many were empty.
fn begin(config: &Config, log: &KafkaLog) -> anyhow::Result<usize> {
    let envelope = encode_control(&Control::Definitions(config.definitions()), Origin::default());
    let (appender, mut reader) = (log.appender(), log.reader()?);
    let mut pending = Vec::new();
    for partition in 0..log.partitions() {
        if reader.bounds(partition)?.end_offset == 0 {
            pending.push(appender.append(partition, envelope.clone()));
        }
    }
    let begun = pending.len();
    for append in pending {
        append.wait_blocking().context("definitions cannot be appended to the log")?;
    }
    Ok(begun)
}
