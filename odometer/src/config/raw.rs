//! The configuration file as its TOML says it, before any value is checked.

use std::collections::BTreeMap;

use odometer_schemas::meter::Meter;
use serde::Deserialize;

use crate::quota::terms::WrittenLimit;

/// The whole file: every key may be absent.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawConfig {
    pub(super) server: RawServer,
    pub(super) meter: Vec<Meter>,
    pub(super) dedupe: RawDedupe,
    pub(super) time: RawTime,
    pub(super) hash: RawHash,
    pub(super) limits: RawLimits,
    pub(super) books: RawBooks,
    pub(super) raw: RawRaw,
    pub(super) log: RawLog,
    pub(super) snapshots: RawSnapshots,
    pub(super) kafka: RawKafka,
    pub(super) bridge: RawBridge,
    pub(super) postgres: RawPostgres,
    pub(super) clickhouse: RawClickHouse,
    pub(super) quota: RawQuota,
    pub(super) envoy: RawEnvoy,
    pub(super) alerts: RawAlerts,
    pub(super) plan: Vec<RawPlan>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawServer {
    pub(super) listen: Option<String>,
    pub(super) data_dir: Option<String>,
    pub(super) partitions: Option<i64>,
    pub(super) public_url: Option<String>,
    pub(super) roles: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawDedupe {
    pub(super) window: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawTime {
    pub(super) future_max: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawHash {
    pub(super) seed: Option<Seed>,
}

/// A 64-bit number: TOML's integers are signed, so the upper half comes as text.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "must be a whole number, or one as text such as \"0x6f646f6d65746572\"")]
pub(super) enum Seed {
    Number(i64),
    Text(String),
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawLimits {
    pub(super) body_bytes_max: Option<i64>,
    pub(super) inflated_bytes_max: Option<i64>,
    pub(super) records_max: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawBooks {
    pub(super) commit_interval: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawRaw {
    pub(super) gather_rows_max: Option<i64>,
    pub(super) gather_interval: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawLog {
    pub(super) retention: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawSnapshots {
    pub(super) interval: Option<String>,
    pub(super) dir: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawKafka {
    pub(super) brokers: Option<String>,
    pub(super) topic: Option<String>,
    pub(super) group: Option<String>,
    pub(super) replication: Option<i64>,
    pub(super) properties: BTreeMap<String, Property>,
}

/// librdkafka takes texts; numbers and flags may be written as such.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "must be a text, a number or a flag; quote names with dots: \"linger.ms\" = 5")]
pub(super) enum Property {
    Text(String),
    Number(i64),
    Flag(bool),
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawBridge {
    pub(super) ingress_topic: Option<String>,
    pub(super) dead_letter_topic: Option<String>,
    pub(super) group: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawPostgres {
    pub(super) url: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawClickHouse {
    pub(super) url: Option<String>,
    pub(super) database: Option<String>,
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
    pub(super) ttl_days: Option<i64>,
    pub(super) replicated: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawQuota {
    pub(super) default_plan: Option<String>,
    pub(super) grpc_listen: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawAlerts {
    pub(super) webhook: Option<String>,
    pub(super) secret: Option<String>,
    pub(super) topic: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawEnvoy {
    pub(super) domain: Option<String>,
    pub(super) tenant: Option<String>,
    pub(super) subject: Option<String>,
    pub(super) key: Option<String>,
    pub(super) meter: Option<String>,
    pub(super) default_meter: Option<String>,
    pub(super) default_hits: Option<i64>,
    pub(super) hold: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPlan {
    pub(super) name: String,
    #[serde(default)]
    pub(super) limit: Vec<WrittenLimit>,
}
