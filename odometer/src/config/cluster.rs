//! The parts of the cluster footing: Kafka, PostgreSQL, ClickHouse, and which roles
//! this process takes.

use std::fmt;
use std::path::PathBuf;

/// What the raw writers' group is called, behind the group's name.
pub(crate) const RAW_GROUP: &str = "-raw";

/// `[kafka]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KafkaConfig {
    /// `host:port` of some brokers, separated by commas.
    pub(crate) brokers: String,
    /// The topic that is the usage log.
    pub(crate) topic: String,
    /// The consumer group that spreads partitions over nodes; the raw book's writers
    /// share `<group>-raw`.
    pub(crate) group: String,
    /// Copies of every envelope in a topic that `odometer migrate` creates.
    pub(crate) replication: u32,
    /// Further librdkafka properties.
    pub(crate) properties: Vec<(String, String)>,
}

/// `[bridge]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BridgeConfig {
    /// The topic that foreign producers fill.
    pub(crate) ingress_topic: String,
    /// The topic of what was refused.
    pub(crate) dead_letter_topic: String,
    /// The consumer group of all bridges; unless given, `<kafka.group>-bridge`.
    pub(crate) group: String,
}

impl BridgeConfig {
    /// What the bridges' group is called beside the nodes' group.
    pub(crate) fn group_beside(group: &str) -> String {
        format!("{group}-bridge")
    }
}

/// `[clickhouse]`.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct ClickHouseConfig {
    /// The HTTP interface.
    pub(crate) url: String,
    /// The database of the raw book.
    pub(crate) database: String,
    /// Who asks.
    pub(crate) user: String,
    /// The user's password; may be empty.
    pub(crate) password: String,
    /// Days that raw rows are kept; 0 keeps them for ever.
    pub(crate) ttl_days: u32,
    /// Whether tables are made replicated.
    pub(crate) replicated: bool,
}

impl fmt::Debug for ClickHouseConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { url, database, user, .. } = self;
        f.debug_struct("ClickHouseConfig").field("url", url).field("database", database).field("user", user).finish()
    }
}

/// What `odometer serve` needs besides what `odometer dev` has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClusterConfig {
    /// The usage log.
    pub(crate) kafka: KafkaConfig,
    /// What the bridge stands between.
    pub(crate) bridge: BridgeConfig,
    /// `postgres.url`: the totals book.
    pub(crate) postgres_url: String,
    /// The raw book.
    pub(crate) clickhouse: ClickHouseConfig,
    /// `snapshots.dir`: may be shared between nodes.
    pub(crate) snapshots_dir: PathBuf,
    /// `server.public_url`: where other nodes send questions that only this one can
    /// answer; empty for the address it listens on.
    pub(crate) public_url: String,
    /// `server.roles`.
    pub(crate) roles: Roles,
}

impl Default for ClusterConfig {
    fn default() -> Self {
        Self {
            kafka: KafkaConfig {
                // Where each of the three listens by itself.
                brokers: "127.0.0.1:9092".into(),
                topic: "odometer.usage".into(),
                group: "odometer".into(),
                // What a single broker can do; three is what survives its loss.
                replication: 1,
                properties: Vec::new(),
            },
            bridge: BridgeConfig {
                ingress_topic: "odometer.ingress".into(),
                dead_letter_topic: "odometer.dead-letters".into(),
                group: BridgeConfig::group_beside("odometer"),
            },
            postgres_url: "postgres://odometer@127.0.0.1:5432/odometer".into(),
            clickhouse: ClickHouseConfig {
                url: "http://127.0.0.1:8123".into(),
                database: "odometer".into(),
                user: "default".into(),
                password: String::new(),
                ttl_days: 0,
                replicated: false,
            },
            snapshots_dir: PathBuf::from("./odometer-snapshots"),
            public_url: String::new(),
            roles: Roles::default(),
        }
    }
}

/// What a process does besides answering questions from the books.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Roles {
    /// Takes usage over HTTP.
    pub(crate) gateway: bool,
    /// Republishes what foreign producers put into the ingress topic.
    pub(crate) bridge: bool,
    /// Counts partitions.
    pub(crate) aggregator: bool,
    /// Writes the raw book.
    pub(crate) raw: bool,
}

impl Default for Roles {
    /// All of them. Idle, a bridge costs one consumer without messages.
    fn default() -> Self {
        Self { gateway: true, bridge: true, aggregator: true, raw: true }
    }
}

impl Roles {
    /// Reads `gateway,aggregator,raw`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut roles = Self { gateway: false, bridge: false, aggregator: false, raw: false };
        for name in text.split(',') {
            match name.trim() {
                "gateway" => roles.gateway = true,
                "bridge" => roles.bridge = true,
                "aggregator" => roles.aggregator = true,
                "raw" => roles.raw = true,
                _ => return None,
            }
        }
        Some(roles)
    }
}

impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all =
            [(self.gateway, "gateway"), (self.bridge, "bridge"), (self.aggregator, "aggregator"), (self.raw, "raw")];
        let names: Vec<_> = all.into_iter().filter_map(|(has, name)| has.then_some(name)).collect();
        f.write_str(&names.join(","))
    }
}

/// A URL without its password, for people to read.
pub(crate) fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (authority, tail) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    match authority.rsplit_once('@').map(|(user, host)| (user.split_once(':'), host)) {
        Some((Some((user, _)), host)) => format!("{scheme}://{user}:***@{host}{tail}"),
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_read_as_they_are_written() {
        let roles = Roles::parse("raw, gateway").unwrap();
        assert_eq!((roles.gateway, roles.bridge, roles.aggregator, roles.raw), (true, false, false, true));
        assert_eq!(roles.to_string(), "gateway,raw");
        assert_eq!(Roles::parse("gateways"), None);
        assert_eq!(Roles::parse(""), None);
    }

    #[test]
    fn a_password_is_never_shown() {
        assert_eq!(without_password("postgres://a:b@c:1/d"), "postgres://a:***@c:1/d");
        assert_eq!(without_password("postgres://a@c:1/d?x=1@2"), "postgres://a@c:1/d?x=1@2");
        assert_eq!(without_password("postgres://c/d"), "postgres://c/d");
    }
}
