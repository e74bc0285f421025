//! Environment variables and flags, laid over the file's values.

use std::env::VarError;
use std::path::PathBuf;

use toml::{Table, Value};

use super::document::{Document, DocumentError};

/// What a key holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A TOML string.
    Text,
    /// A TOML integer.
    Integer,
    /// `true` or `false`.
    Flag,
    /// A table of texts; in the environment `name=value;name=value`.
    Pairs,
}

/// Every key that is one value, with its kind: the order of the printed
/// configuration. Each can be set by an environment variable.
pub(super) const KEYS: [(&str, Kind); 45] = [
    ("server.listen", Kind::Text),
    ("server.data_dir", Kind::Text),
    ("server.partitions", Kind::Integer),
    ("server.public_url", Kind::Text),
    ("server.roles", Kind::Text),
    ("dedupe.window", Kind::Text),
    ("time.future_max", Kind::Text),
    ("hash.seed", Kind::Text),
    ("limits.body_bytes_max", Kind::Integer),
    ("limits.inflated_bytes_max", Kind::Integer),
    ("limits.records_max", Kind::Integer),
    ("books.commit_interval", Kind::Text),
    ("raw.gather_rows_max", Kind::Integer),
    ("raw.gather_interval", Kind::Text),
    ("log.retention", Kind::Text),
    ("snapshots.interval", Kind::Text),
    ("snapshots.dir", Kind::Text),
    ("quota.default_plan", Kind::Text),
    ("quota.grpc_listen", Kind::Text),
    ("envoy.domain", Kind::Text),
    ("envoy.tenant", Kind::Text),
    ("envoy.subject", Kind::Text),
    ("envoy.key", Kind::Text),
    ("envoy.meter", Kind::Text),
    ("envoy.default_meter", Kind::Text),
    ("envoy.default_hits", Kind::Integer),
    ("envoy.hold", Kind::Text),
    ("alerts.webhook", Kind::Text),
    ("alerts.secret", Kind::Text),
    ("alerts.topic", Kind::Text),
    ("kafka.brokers", Kind::Text),
    ("kafka.topic", Kind::Text),
    ("kafka.group", Kind::Text),
    ("kafka.replication", Kind::Integer),
    ("kafka.properties", Kind::Pairs),
    ("bridge.ingress_topic", Kind::Text),
    ("bridge.dead_letter_topic", Kind::Text),
    ("bridge.group", Kind::Text),
    ("postgres.url", Kind::Text),
    ("clickhouse.url", Kind::Text),
    ("clickhouse.database", Kind::Text),
    ("clickhouse.user", Kind::Text),
    ("clickhouse.password", Kind::Text),
    ("clickhouse.ttl_days", Kind::Integer),
    ("clickhouse.replicated", Kind::Flag),
];

/// Flags that win over everything else. `None` leaves a key alone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Overrides {
    /// `--listen`.
    pub(crate) listen: Option<String>,
    /// `--data-dir`.
    pub(crate) data_dir: Option<PathBuf>,
    /// `--partitions`.
    pub(crate) partitions: Option<u32>,
    /// `--roles`.
    pub(crate) roles: Option<String>,
}

/// The environment variable of a key: `server.listen` is `ODOMETER_LISTEN`,
/// `dedupe.window` is `ODOMETER_DEDUPE_WINDOW`.
pub(super) fn variable_of(key: &str) -> String {
    let key = key.strip_prefix("server.").unwrap_or(key);
    format!("ODOMETER_{}", key.replace('.', "_").to_uppercase())
}

/// Lays the environment over the file. An empty variable counts as not set, as
/// container tools write it.
pub(super) fn environment(
    document: &mut Document,
    lookup: impl Fn(&str) -> Result<String, VarError>,
) -> Result<(), DocumentError> {
    for (key, kind) in KEYS {
        let name = variable_of(key);
        let origin = format!("environment variable {name}");
        let wrong = |problem: &str| {
            Err(DocumentError { origin: origin.clone(), line: None, key: key.into(), problem: problem.into() })
        };
        let text = match lookup(&name) {
            Ok(text) if !text.is_empty() => text,
            Ok(_) | Err(VarError::NotPresent) => continue,
            Err(VarError::NotUnicode(_)) => return wrong("must be valid UTF-8"),
        };
        let value = match kind {
            Kind::Text => Value::String(text),
            Kind::Integer => match text.replace('_', "").parse() {
                Ok(number) => Value::Integer(number),
                Err(_) => return wrong(&format!("must be a whole number, not `{text}`")),
            },
            Kind::Flag => match text.parse() {
                Ok(flag) => Value::Boolean(flag),
                Err(_) => return wrong(&format!("must be `true` or `false`, not `{text}`")),
            },
            Kind::Pairs => match pairs(&text) {
                Some(table) => Value::Table(table),
                None => return wrong("must be pairs such as `linger.ms=5;client.rack=a`"),
            },
        };
        document.overlay(key, value, origin);
    }
    Ok(())
}

/// Reads `name=value;name=value`.
fn pairs(text: &str) -> Option<Table> {
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=')?;
        Some((name.trim().to_owned(), Value::String(value.trim().to_owned())))
    };
    text.split(';').filter(|part| !part.trim().is_empty()).map(pair).collect()
}

impl Overrides {
    /// Lays the flags over everything else.
    pub(super) fn lay_over(&self, document: &mut Document) -> Result<(), DocumentError> {
        if let Some(listen) = &self.listen {
            document.overlay("server.listen", Value::String(listen.clone()), "flag --listen".into());
        }
        if let Some(roles) = &self.roles {
            document.overlay("server.roles", Value::String(roles.clone()), "flag --roles".into());
        }
        if let Some(data_dir) = &self.data_dir {
            let origin = "flag --data-dir";
            let Some(text) = data_dir.to_str() else {
                let problem = "must be valid UTF-8".into();
                return Err(DocumentError {
                    origin: origin.into(),
                    line: None,
                    key: "server.data_dir".into(),
                    problem,
                });
            };
            document.overlay("server.data_dir", Value::String(text.into()), origin.into());
        }
        if let Some(partitions) = self.partitions {
            document.overlay("server.partitions", Value::Integer(partitions.into()), "flag --partitions".into());
        }
        Ok(())
    }
}
