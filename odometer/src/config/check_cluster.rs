//! The values of the cluster footing, each checked alone.

use std::ops::RangeInclusive;

use super::alerts::AlertsConfig;
use super::check::Reader;
use super::cluster::{BridgeConfig, ClickHouseConfig, ClusterConfig, KafkaConfig, RAW_GROUP, Roles};
use super::document::DocumentError;
use super::raw::{Property, RawBridge, RawClickHouse, RawKafka};

/// More copies than brokers cannot be; nobody runs more than some.
const REPLICATION: RangeInclusive<usize> = 1..=9;
/// A century is for ever.
const TTL_DAYS: RangeInclusive<usize> = 0..=36_500;

/// The relations between topics and between groups: nothing may read what it writes.
pub(super) fn validate(cluster: &ClusterConfig, alerts: &AlertsConfig) -> Result<(), (&'static str, String)> {
    let ClusterConfig { kafka, bridge, .. } = cluster;
    let topics = [
        ("kafka.topic", &kafka.topic),
        ("bridge.ingress_topic", &bridge.ingress_topic),
        ("bridge.dead_letter_topic", &bridge.dead_letter_topic),
        ("alerts.topic", &alerts.topic),
    ];
    for (index, (key, topic)) in topics.iter().enumerate() {
        if let Some((other, _)) = topics[..index].iter().find(|(_, earlier)| earlier == topic) {
            return Err((key, format!("must differ from `{other}`, which is `{topic}` too")));
        }
    }
    if bridge.group == kafka.group || bridge.group == format!("{}{RAW_GROUP}", kafka.group) {
        let problem = format!("must differ from the groups `{0}` and `{0}{RAW_GROUP}` of the nodes", kafka.group);
        return Err(("bridge.group", problem));
    }
    Ok(())
}

impl Reader<'_> {
    pub(super) fn kafka(&self, raw: RawKafka, default: KafkaConfig) -> Result<KafkaConfig, DocumentError> {
        let property = |(name, value): (String, Property)| match value {
            Property::Text(text) => (name, text),
            Property::Number(number) => (name, number.to_string()),
            Property::Flag(flag) => (name, flag.to_string()),
        };
        Ok(KafkaConfig {
            brokers: self.text("kafka.brokers", raw.brokers, default.brokers)?,
            topic: self.text("kafka.topic", raw.topic, default.topic)?,
            group: self.text("kafka.group", raw.group, default.group)?,
            replication: self.small("kafka.replication", raw.replication, default.replication, &REPLICATION)?,
            properties: raw.properties.into_iter().map(property).collect(),
        })
    }

    pub(super) fn bridge(
        &self,
        raw: RawBridge,
        default: BridgeConfig,
        kafka: &KafkaConfig,
    ) -> Result<BridgeConfig, DocumentError> {
        let dead_letters = self.text("bridge.dead_letter_topic", raw.dead_letter_topic, default.dead_letter_topic)?;
        Ok(BridgeConfig {
            ingress_topic: self.text("bridge.ingress_topic", raw.ingress_topic, default.ingress_topic)?,
            dead_letter_topic: dead_letters,
            group: self.text("bridge.group", raw.group, BridgeConfig::group_beside(&kafka.group))?,
        })
    }

    pub(super) fn clickhouse(
        &self,
        raw: RawClickHouse,
        default: ClickHouseConfig,
    ) -> Result<ClickHouseConfig, DocumentError> {
        Ok(ClickHouseConfig {
            url: self.text("clickhouse.url", raw.url, default.url)?,
            database: self.text("clickhouse.database", raw.database, default.database)?,
            user: self.text("clickhouse.user", raw.user, default.user)?,
            password: raw.password.unwrap_or(default.password),
            ttl_days: self.small("clickhouse.ttl_days", raw.ttl_days, default.ttl_days, &TTL_DAYS)?,
            replicated: raw.replicated.unwrap_or(default.replicated),
        })
    }

    /// Empty, or a URL that a path can be put behind.
    pub(super) fn public_url(&self, raw: Option<String>) -> Result<String, DocumentError> {
        let url = raw.unwrap_or_default();
        let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
        let is_base = rest.is_some_and(|host| !host.is_empty() && !host.contains(['/', '?', '#', ' ']));
        if url.is_empty() || is_base {
            return Ok(url);
        }
        self.wrong("server.public_url", "must be empty or a URL without a path such as `http://node-1:7070`")
    }

    pub(super) fn roles(&self, raw: Option<String>, default: Roles) -> Result<Roles, DocumentError> {
        match raw.map(|text| Roles::parse(&text)) {
            None => Ok(default),
            Some(Some(roles)) => Ok(roles),
            Some(None) => self.wrong(
                "server.roles",
                "must be some of `gateway`, `bridge`, `aggregator` and `raw`, separated by commas",
            ),
        }
    }

    /// A text that says something.
    pub(super) fn text(&self, key: &str, raw: Option<String>, default: String) -> Result<String, DocumentError> {
        match raw {
            Some(text) if text.trim().is_empty() => self.wrong(key, "must not be empty"),
            Some(text) => Ok(text),
            None => Ok(default),
        }
    }

    fn small(
        &self,
        key: &str,
        raw: Option<i64>,
        default: u32,
        bounds: &RangeInclusive<usize>,
    ) -> Result<u32, DocumentError> {
        let number = self.count(key, raw, default as usize, bounds)?;
        Ok(u32::try_from(number).unwrap_or(default))
    }
}
