//! `odometer check-config`: the effective configuration, with where each value comes
//! from.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use odometer_schemas::meter::Meter;
use odometer_schemas::quota::Plan;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::cluster::{ClusterConfig, without_password};
use super::document::Document;
use super::duration::display_duration;
use super::overrides::KEYS;
use super::{Config, Overrides};

const EXAMPLES: &str = "\
Examples:
  odometer check-config examples/odometer.toml
  ODOMETER_DEDUPE_WINDOW=45d odometer check-config odometer.toml
  odometer check-config odometer.toml --json | jq .server

Every key can also be set by an environment variable: ODOMETER_LISTEN, ODOMETER_DATA_DIR and so on for the \
[server] section, ODOMETER_SECTION_KEY for the others. Passwords are shown as ***. The environment wins over the file.

Exit codes: 0 the configuration is good; 1 it is not.";

/// What stands for a password.
const HIDDEN: &str = "***";

/// Check a configuration file and print what would be in effect.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The file; without one, the defaults and the environment are checked.
    file: Option<PathBuf>,

    /// Print the configuration as JSON.
    #[arg(long)]
    json: bool,
}

/// Checks and prints.
///
/// # Errors
/// The first thing that is wrong with the configuration.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let (config, document) = Config::load_documented(args.file.as_deref(), &Overrides::default())?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&to_json(&config))?);
    } else {
        print!("{}", to_toml(&config, &document)?);
    }
    Ok(ExitCode::SUCCESS)
}

/// The value of a key of [`KEYS`].
pub(super) fn value_of(config: &Config, key: &str) -> Value {
    let duration = |duration| json!(display_duration(duration));
    match key {
        "server.listen" => json!(config.server.listen.to_string()),
        "server.data_dir" => json!(config.server.data_dir.display().to_string()),
        "server.partitions" => json!(config.server.partitions),
        "dedupe.window" => duration(config.dedupe_window),
        "time.future_max" => duration(config.future_max),
        "hash.seed" => json!(format!("{:#018x}", config.hash_seed)),
        "limits.body_bytes_max" => json!(config.limits.body_bytes_max),
        "limits.inflated_bytes_max" => json!(config.limits.inflated_bytes_max),
        "limits.records_max" => json!(config.limits.records_max),
        "books.commit_interval" => duration(config.commit_interval),
        "raw.gather_rows_max" => json!(config.raw.gather_rows_max),
        "raw.gather_interval" => duration(config.raw.gather_interval),
        "log.retention" => duration(config.log_retention),
        "snapshots.interval" => duration(config.snapshot_interval),
        _ => match quota_value_of(config, key) {
            Value::Null => cluster_value_of(&config.cluster, key),
            value => value,
        },
    }
}

/// The same of quota's surfaces.
fn quota_value_of(Config { quota, envoy, alerts, .. }: &Config, key: &str) -> Value {
    match key {
        "quota.default_plan" => json!(quota.default_plan),
        "quota.grpc_listen" => json!(quota.grpc_listen.map_or_else(String::new, |listen| listen.to_string())),
        "envoy.domain" => json!(envoy.domain),
        "envoy.tenant" => json!(envoy.tenant),
        "envoy.subject" => json!(envoy.subject),
        "envoy.key" => json!(envoy.key),
        "envoy.meter" => json!(envoy.meter),
        "envoy.default_meter" => json!(envoy.default_meter),
        "envoy.default_hits" => json!(envoy.default_hits),
        "envoy.hold" => json!(display_duration(envoy.hold)),
        // Some receivers have their secret in the path.
        "alerts.webhook" => json!(alerts.webhook.as_ref().map_or("", |_| HIDDEN)),
        "alerts.secret" => json!(alerts.secret.as_ref().map_or("", |_| HIDDEN)),
        "alerts.topic" => json!(alerts.topic),
        _ => Value::Null,
    }
}

/// The same of the cluster footing; passwords are not shown.
fn cluster_value_of(cluster: &ClusterConfig, key: &str) -> Value {
    let ClusterConfig { kafka, bridge, clickhouse, .. } = cluster;
    let is_secret = |name: &str| name.contains("password") || name.contains("secret");
    let property =
        |(name, value): &(String, String)| (name.clone(), json!(if is_secret(name) { HIDDEN } else { value.as_str() }));
    match key {
        "server.public_url" => json!(cluster.public_url),
        "server.roles" => json!(cluster.roles.to_string()),
        "snapshots.dir" => json!(cluster.snapshots_dir.display().to_string()),
        "kafka.brokers" => json!(kafka.brokers),
        "kafka.topic" => json!(kafka.topic),
        "kafka.group" => json!(kafka.group),
        "kafka.replication" => json!(kafka.replication),
        "kafka.properties" => Value::Object(kafka.properties.iter().map(property).collect()),
        "bridge.ingress_topic" => json!(bridge.ingress_topic),
        "bridge.dead_letter_topic" => json!(bridge.dead_letter_topic),
        "bridge.group" => json!(bridge.group),
        "postgres.url" => json!(without_password(&cluster.postgres_url)),
        "clickhouse.url" => json!(clickhouse.url),
        "clickhouse.database" => json!(clickhouse.database),
        "clickhouse.user" => json!(clickhouse.user),
        "clickhouse.password" if clickhouse.password.is_empty() => json!(""),
        "clickhouse.password" => json!(HIDDEN),
        "clickhouse.ttl_days" => json!(clickhouse.ttl_days),
        "clickhouse.replicated" => json!(clickhouse.replicated),
        _ => Value::Null,
    }
}

/// The value as TOML writes it.
fn toml_of(value: &Value) -> String {
    match value {
        Value::Object(pairs) => {
            let pairs: Vec<_> = pairs.iter().map(|(name, value)| format!("{} = {value}", json!(name))).collect();
            format!("{{ {} }}", pairs.join(", "))
        }
        // JSON's strings and numbers of these values and TOML's are the same.
        other => other.to_string(),
    }
}

/// The configuration as a file that would give it again, with the origin of every
/// value.
pub(super) fn to_toml(config: &Config, document: &Document) -> Result<String, toml::ser::Error> {
    let mut text = String::new();
    let mut open = "";
    for (key, _) in KEYS {
        let (section, name) = key.split_once('.').unwrap_or(("", key));
        // Writing to memory cannot fail.
        if section != open {
            let _ = writeln!(text, "{}[{section}]", if open.is_empty() { "" } else { "\n" });
            open = section;
        }
        let line = format!("{name} = {}", toml_of(&value_of(config, key)));
        let _ = writeln!(text, "{line:<44} # {}", document.origin_of(key));
    }
    text.push('\n');
    text.push_str(&toml::to_string(&Lists { meter: &config.meters, plan: &config.plans })?);
    Ok(text)
}

#[derive(Serialize)]
struct Lists<'a> {
    meter: &'a [Meter],
    plan: &'a [Plan],
}

fn to_json(config: &Config) -> Value {
    let mut root = Map::new();
    for (key, _) in KEYS {
        let (section, name) = key.split_once('.').unwrap_or(("", key));
        let section = root.entry(section).or_insert_with(|| json!({}));
        if let Some(section) = section.as_object_mut() {
            section.insert(name.into(), value_of(config, key));
        }
    }
    root.insert("meter".into(), json!(config.meters));
    root.insert("plan".into(), json!(config.plans));
    Value::Object(root)
}
