//! The configuration file as its TOML says it, before any value is checked.

use odometer_schemas::meter::Meter;
use serde::Deserialize;

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
    pub(super) snapshot: RawSnapshot,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawServer {
    pub(super) listen: Option<String>,
    pub(super) data_dir: Option<String>,
    pub(super) partitions: Option<i64>,
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
pub(super) struct RawSnapshot {
    pub(super) interval: Option<String>,
}
