//! The log's topic: created as the log needs it, and checked whenever it is opened.
//! Never changes a topic that is there; errors name the command that does.

use std::time::{Duration, Instant};

use odometer_schemas::limits::{ENVELOPE_BYTES_MAX, PARTITIONS_MAX};
use rdkafka::admin::{AdminClient, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::client::{KafkaOptions, admin_options, block_on, failed, failed_with, mismatch};
use super::describe::{TopicDescription, describe};
use crate::log::LogError;

/// What a record batch adds to an envelope, generously: Kafka's own overhead is below
/// 100 bytes for a batch of one record.
const BATCH_OVERHEAD_BYTES: usize = 1024;
/// The smallest `max.message.bytes` that lets every envelope through.
pub(super) const MESSAGE_BYTES_MIN: usize = ENVELOPE_BYTES_MAX + BATCH_OVERHEAD_BYTES;
/// How long a new topic may take until every partition has a leader; brokers need
/// a second or so.
const LEADERS_TIMEOUT: Duration = Duration::from_secs(30);
/// How often that is looked at.
const LEADERS_POLL: Duration = Duration::from_millis(50);
/// With this many replicas a topic can demand two for every write and still lose one.
const REPLICATION_SAFE: u32 = 3;

/// How the log's topic is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicOptions {
    /// Partitions; cannot be changed once there is data.
    pub partitions: u32,
    /// Copies of every envelope. From three on, writes need two of them, and an
    /// acknowledged envelope survives the power loss of a broker.
    pub replication: u32,
    /// How long envelopes are kept: at least the dedupe window and the longest lag of
    /// the raw book. `None` keeps them for ever.
    pub retention: Option<Duration>,
}

/// What the log's topic needs besides what [`TopicOptions`] say.
pub(super) const LOG_CONFIG: [(&str, &str); 1] = [("message.timestamp.type", "LogAppendTime")];

/// Creates a topic that keeps everything for its retention; `false` when it was there
/// already, with as many partitions.
pub(crate) fn create(options: &KafkaOptions, topic: &TopicOptions, config: &[(&str, &str)]) -> Result<bool, LogError> {
    let TopicOptions { partitions, replication, .. } = *topic;
    if !(1..=PARTITIONS_MAX).contains(&partitions) {
        return Err(mismatch(format!("cannot have {partitions} partitions; 1 to {PARTITIONS_MAX} are allowed")));
    }
    let name = &options.topic;
    let admin = options.admin()?;
    let created = send_create(&admin, name, topic, config)?;
    let found = await_leaders(&admin, options)?;
    if found.partitions != partitions {
        let found = found.partitions;
        return Err(mismatch(format!("has {found} partitions in topic {name}, but {partitions} were asked for")));
    }
    if created {
        tracing::info!(topic = name, partitions, replication, "created a topic");
    }
    Ok(created)
}

/// Creates a topic unless there is one of that name, however many partitions it has;
/// `false` when it was there.
pub(crate) fn create_unless_there(
    options: &KafkaOptions,
    topic: &TopicOptions,
    config: &[(&str, &str)],
) -> Result<bool, LogError> {
    let found = describe(options.admin()?.inner(), options)?;
    if found.is_some() { Ok(false) } else { create(options, topic, config) }
}

fn send_create(
    admin: &AdminClient<DefaultClientContext>,
    name: &str,
    topic: &TopicOptions,
    config: &[(&str, &str)],
) -> Result<bool, LogError> {
    const DOING: &str = "creating the topic";
    let retention = topic.retention.map_or_else(|| "-1".to_owned(), |keep| keep.as_millis().to_string());
    let min_insync = if topic.replication >= REPLICATION_SAFE { "2" } else { "1" };
    let (Ok(partitions), Ok(replication)) = (i32::try_from(topic.partitions), i32::try_from(topic.replication)) else {
        return Err(mismatch(format!("cannot have {} replicas", topic.replication)));
    };
    let new = NewTopic::new(name, partitions, TopicReplication::Fixed(replication))
        .set("cleanup.policy", "delete")
        .set("retention.ms", &retention)
        .set("retention.bytes", "-1")
        .set("min.insync.replicas", min_insync)
        .set("unclean.leader.election.enable", "false");
    let new = config.iter().fold(new, |new, (key, value)| new.set(key, value));
    let results = block_on(admin.create_topics([&new], &admin_options())).map_err(failed(DOING))?;
    match results.into_iter().next() {
        Some(Ok(_)) => Ok(true),
        Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok(false),
        Some(Err((_, code))) => Err(failed(DOING)(KafkaError::AdminOp(code))),
        None => Err(failed_with(DOING, "the brokers gave no result")),
    }
}

/// How many partitions a topic has.
pub(crate) fn partitions_of(options: &KafkaOptions) -> Result<u32, LogError> {
    Ok(found(options, &options.admin()?)?.partitions)
}

fn found(options: &KafkaOptions, admin: &AdminClient<DefaultClientContext>) -> Result<TopicDescription, LogError> {
    describe(admin.inner(), options)?.ok_or_else(|| {
        let KafkaOptions { topic, brokers, .. } = options;
        mismatch(format!("has no topic {topic} at {brokers}; create it with `odometer migrate`"))
    })
}

/// Waits until all of a new topic's partitions can be written.
fn await_leaders(
    admin: &AdminClient<DefaultClientContext>,
    options: &KafkaOptions,
) -> Result<TopicDescription, LogError> {
    let started = Instant::now();
    loop {
        let reason = match describe(admin.inner(), options)? {
            Some(found) if found.leaderless == 0 => return Ok(found),
            Some(found) => format!("{} of {} partitions have no leader", found.leaderless, found.partitions),
            None => "the topic is not there".to_owned(),
        };
        if started.elapsed() > LEADERS_TIMEOUT {
            return Err(failed_with("waiting for the topic's partitions", reason));
        }
        std::thread::sleep(LEADERS_POLL);
    }
}

/// The topic's description, once it is seen to be fit for a log.
pub(super) fn check(options: &KafkaOptions) -> Result<TopicDescription, LogError> {
    let admin = options.admin()?;
    let name = &options.topic;
    let found = found(options, &admin)?;
    if found.partitions > PARTITIONS_MAX {
        return Err(mismatch(format!(
            "has {} partitions in topic {name}; at most {PARTITIONS_MAX} are allowed",
            found.partitions
        )));
    }
    let resource = ResourceSpecifier::Topic(name);
    let configs = block_on(admin.describe_configs([&resource], &admin_options()))
        .map_err(failed("reading the topic's configuration"))?;
    match configs.into_iter().next() {
        Some(Ok(config)) => check_config(options, &config)?,
        Some(Err(code)) => return Err(failed("reading the topic's configuration")(KafkaError::AdminOp(code))),
        None => return Err(failed_with("reading the topic's configuration", "the brokers gave no result")),
    }
    Ok(found)
}

/// Refuses configurations that would break a promise, with the command that mends it.
fn check_config(options: &KafkaOptions, config: &ConfigResource) -> Result<(), LogError> {
    let value = |key: &str| config.get(key).and_then(|entry| entry.value.as_deref()).unwrap_or_default();
    let is_large_enough = |bytes: &str| bytes.parse::<usize>().is_ok_and(|bytes| bytes >= MESSAGE_BYTES_MIN);
    let message_bytes_min = MESSAGE_BYTES_MIN.to_string();
    let rules: [(&str, bool, &str, &str); 3] = [
        (
            "message.timestamp.type",
            value("message.timestamp.type") == "LogAppendTime",
            "LogAppendTime",
            "log time must come from the brokers",
        ),
        (
            "max.message.bytes",
            is_large_enough(value("max.message.bytes")),
            &message_bytes_min,
            "every envelope must fit",
        ),
        ("cleanup.policy", value("cleanup.policy") == "delete", "delete", "compaction would remove usage"),
    ];
    for (key, holds, wanted, why) in rules {
        if !holds {
            let (found, topic, brokers) = (value(key), &options.topic, &options.brokers);
            return Err(mismatch(format!(
                "needs {key}={wanted} on topic {topic}, which has {found:?}: {why}; set it with `kafka-configs.sh \
                 --bootstrap-server {brokers} --alter --entity-type topics --entity-name {topic} --add-config \
                 {key}={wanted}`"
            )));
        }
    }
    Ok(())
}
