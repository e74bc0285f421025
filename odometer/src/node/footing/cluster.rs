//! The cluster footing: Kafka is the log and spreads partitions over nodes,
//! PostgreSQL holds the totals book and ClickHouse the raw book. Each must have been
//! prepared by `odometer migrate`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use odometer_ingest::log::kafka::{AppenderHealth, GroupEvent, GroupOptions, KafkaLog, KafkaOptions, Membership};
use odometer_ingest::log::{LogAppender, LogError, LogReader};
use odometer_sink::BookError;
use odometer_sink::raw::{ClickHouseOptions, ClickHouseRaw, RawBook};
use odometer_sink::totals::{Installation, PgTotals, TotalsBook};

use super::books::Servers;
use super::{BookPlace, Change, Footing, LogHealth, Ownership, log_may_recover};
use crate::config::Config;
use crate::config::cluster::{ClusterConfig, RAW_GROUP, without_password};
use crate::node::Housekeeping;
use crate::node::backoff::Backoff;

/// How long a node that starts waits for each part: as long as a broker may take to
/// come up on a busy machine.
const PART_WAIT: Duration = Duration::from_secs(60);
/// Time between two messages while it waits.
const MESSAGE_EVERY: Duration = Duration::from_secs(5);
/// How long a member without partitions waits until it takes that for the group's
/// answer: a group with more members than partitions leaves some without.
const ASSIGNMENT_WAIT: Duration = Duration::from_secs(10);

pub(crate) struct Cluster {
    log: KafkaLog,
    installation: Installation,
    books: Servers,
    snapshots_dir: PathBuf,
    kafka: KafkaOptions,
    group: String,
    owner: String,
}

impl Cluster {
    /// Waits for the parts and opens the log. `owner` is this node's public URL.
    pub(crate) fn open(config: &Config, owner: String) -> anyhow::Result<Self> {
        let cluster = &config.cluster;
        let options = kafka_options(cluster);
        let log = await_part("Kafka", &cluster.kafka.brokers, log_may_recover, || KafkaLog::open(&options))?;
        let (found, wanted) = (log.partitions(), config.server.partitions);
        if found != wanted {
            bail!(
                "topic {} has {found} partitions, `server.partitions` says {wanted}; a topic keeps its partitions, so \
                 set `partitions = {found}`",
                cluster.kafka.topic
            );
        }
        let books = servers(cluster);
        let postgres = without_password(&books.postgres);
        await_part("PostgreSQL", &postgres, BookError::is_retryable, || PgTotals::connect(&books.postgres))?;
        let clickhouse = &books.clickhouse;
        await_part("ClickHouse", &clickhouse.url, BookError::is_retryable, || ClickHouseRaw::connect(clickhouse))?;
        Ok(Self {
            installation: Installation {
                log_id: log.log_id().to_owned(),
                partitions: found,
                hash_seed: config.hash_seed,
            },
            // Snapshots of another log would be other ids.
            snapshots_dir: cluster.snapshots_dir.join(log.log_id()),
            log,
            books,
            kafka: options,
            group: cluster.kafka.group.clone(),
            owner,
        })
    }

    fn join(&self, group: String) -> Result<Box<dyn Ownership>, LogError> {
        let membership = self.log.join(&GroupOptions::new(group))?;
        Ok(Box::new(Group { membership, joined: Instant::now(), has_answer: false }))
    }
}

/// How Kafka is reached.
pub(crate) fn kafka_options(cluster: &ClusterConfig) -> KafkaOptions {
    KafkaOptions {
        brokers: cluster.kafka.brokers.clone(),
        topic: cluster.kafka.topic.clone(),
        client_id: "odometer".into(),
        properties: cluster.kafka.properties.clone(),
    }
}

/// Where the books are.
pub(crate) fn servers(cluster: &ClusterConfig) -> Servers {
    let found = &cluster.clickhouse;
    Servers {
        postgres: cluster.postgres_url.clone(),
        clickhouse: ClickHouseOptions {
            url: found.url.clone(),
            database: found.database.clone(),
            user: found.user.clone(),
            password: found.password.clone(),
        },
    }
}

/// Tries until a part answers, or its time is up.
pub(crate) fn await_part<T, E: std::error::Error + Send + Sync + 'static>(
    name: &str,
    place: &str,
    is_retryable: impl Fn(&E) -> bool,
    mut open: impl FnMut() -> Result<T, E>,
) -> anyhow::Result<T> {
    let started = Instant::now();
    let mut backoff = Backoff::new();
    let mut said: Option<Instant> = None;
    loop {
        let error = match open() {
            Ok(part) => return Ok(part),
            Err(error) => error,
        };
        if !is_retryable(&error) {
            return Err(error).with_context(|| format!("{name} at {place}"));
        }
        if started.elapsed() >= PART_WAIT {
            return Err(error)
                .with_context(|| format!("{name} at {place} did not answer for {} s", PART_WAIT.as_secs()));
        }
        if said.is_none_or(|at| at.elapsed() >= MESSAGE_EVERY) {
            said = Some(Instant::now());
            eprintln!("waiting for {name} at {place}: {}", crate::node::progress::with_causes(&error));
        }
        backoff.sleep();
    }
}

impl Footing for Cluster {
    fn installation(&self) -> Installation {
        self.installation.clone()
    }

    fn appender(&self) -> Arc<dyn LogAppender> {
        self.log.appender()
    }

    fn reader(&self) -> Result<Box<dyn LogReader>, LogError> {
        Ok(Box::new(self.log.reader()?))
    }

    fn log_health(&self) -> Box<dyn Fn() -> LogHealth + Send> {
        let watch = self.log.health_watch();
        Box::new(move || watch.health().into())
    }

    fn totals(&self) -> Result<Box<dyn TotalsBook>, BookError> {
        Ok(Box::new(PgTotals::connect(&self.books.postgres)?))
    }

    fn raw(&self) -> Result<Box<dyn RawBook>, BookError> {
        Ok(Box::new(ClickHouseRaw::connect(&self.books.clickhouse)?))
    }

    fn books(&self) -> BookPlace {
        BookPlace::Servers(self.books.clone())
    }

    fn counting(&self) -> Result<Box<dyn Ownership>, LogError> {
        self.join(self.group.clone())
    }

    fn writing(&self) -> Result<Box<dyn Ownership>, LogError> {
        self.join(format!("{}{RAW_GROUP}", self.group))
    }

    fn snapshots_dir(&self) -> PathBuf {
        self.snapshots_dir.clone()
    }

    fn owner(&self) -> String {
        self.owner.clone()
    }

    fn kafka(&self) -> Option<&KafkaOptions> {
        Some(&self.kafka)
    }

    fn housekeeping(&self) -> anyhow::Result<Option<Box<dyn Housekeeping>>> {
        // Kafka removes old envelopes by itself.
        Ok(None)
    }

    fn close(self: Box<Self>) -> Result<(), LogError> {
        self.log.close()
    }
}

impl From<AppenderHealth> for LogHealth {
    fn from(health: AppenderHealth) -> Self {
        let AppenderHealth { is_running, is_failing, last_error, failures, stored, queued_envelopes, .. } = health;
        Self { is_running, is_failing, last_error, failures, commits: stored, queued_envelopes }
    }
}

/// One member of a consumer group.
struct Group {
    membership: Membership,
    joined: Instant,
    /// Whether anything was heard of the group.
    has_answer: bool,
}

impl Ownership for Group {
    fn poll(&mut self, timeout: Duration) -> Result<Vec<Change>, LogError> {
        let events = self.membership.poll(timeout)?;
        let mut changes: Vec<_> = events.into_iter().map(Change::from).collect();
        if !self.has_answer && changes.is_empty() && self.joined.elapsed() >= ASSIGNMENT_WAIT {
            changes.push(Change::Assigned(Vec::new()));
        }
        self.has_answer |= !changes.is_empty();
        Ok(changes)
    }

    fn prove(&mut self) -> Result<bool, LogError> {
        self.membership.prove()
    }

    fn release(&mut self) -> Result<(), LogError> {
        self.membership.release()
    }

    fn hint(&mut self, partition: u32, next_offset: u64) {
        self.membership.hint(partition, next_offset);
    }

    fn is_exclusive(&self) -> bool {
        false
    }

    fn leave(self: Box<Self>) {
        self.membership.leave();
    }
}

impl From<GroupEvent> for Change {
    fn from(event: GroupEvent) -> Self {
        match event {
            GroupEvent::Assigned(partitions) => Self::Assigned(partitions),
            GroupEvent::Revoked(partitions) => Self::Revoked(partitions),
            GroupEvent::Lost(partitions) => Self::Lost(partitions),
        }
    }
}
