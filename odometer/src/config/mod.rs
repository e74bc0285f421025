//! The configuration: a TOML file, environment variables and flags in, one checked
//! [`Config`] out. Flags win over the environment, that over the file, that over the
//! defaults.

pub(crate) mod alerts;
mod check;
mod check_cluster;
mod check_quota;
pub(crate) mod cluster;
pub(crate) mod command;
pub(crate) mod document;
pub(crate) mod duration;
mod overrides;
pub(crate) mod quota;
mod raw;
#[cfg(test)]
mod tests;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use odometer_schemas::definitions::{DedupeRule, Definitions};
use odometer_schemas::meter::Meter;
use odometer_schemas::quota::Plan;

use self::alerts::AlertsConfig;
use self::cluster::ClusterConfig;
use self::document::Document;
pub(crate) use self::document::DocumentError as ConfigError;
pub(crate) use self::overrides::Overrides;
use self::quota::{EnvoyConfig, QuotaConfig};

/// The effective configuration of one process. Every value has been checked, alone
/// and against the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where the process listens and keeps its data.
    pub(crate) server: ServerConfig,
    /// All meters, built-in ones included, ascending by name.
    pub(crate) meters: Vec<Meter>,
    /// `dedupe.window`: log time over which an id is remembered at least.
    pub(crate) dedupe_window: Duration,
    /// `time.future_max`: how far ahead of log time an event time may lie.
    pub(crate) future_max: Duration,
    /// `hash.seed`: keys every fingerprint and digest. Part of the books: it must
    /// not change once there are any.
    pub(crate) hash_seed: u64,
    /// What one request may bring.
    pub(crate) limits: LimitsConfig,
    /// `books.commit_interval`: time between two commits of the totals book.
    pub(crate) commit_interval: Duration,
    /// How the raw book gathers rows.
    pub(crate) raw: RawBookConfig,
    /// `log.retention`: how long the log keeps envelopes.
    pub(crate) log_retention: Duration,
    /// `snapshots.interval`: time between two snapshots of the remembered ids.
    pub(crate) snapshot_interval: Duration,
    /// All plans, built-in ones included, ascending by name.
    pub(crate) plans: Vec<Plan>,
    /// The surfaces of quota.
    pub(crate) quota: QuotaConfig,
    /// How descriptors of Envoy's rate-limit service are read.
    pub(crate) envoy: EnvoyConfig,
    /// Where alerts go.
    pub(crate) alerts: AlertsConfig,
    /// What only the cluster footing uses.
    pub(crate) cluster: ClusterConfig,
}

/// `[server]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServerConfig {
    /// The address of every HTTP surface.
    pub(crate) listen: SocketAddr,
    /// Holds the log and both books in embedded mode.
    pub(crate) data_dir: PathBuf,
    /// Partitions of the log, fixed when the data directory is first used.
    pub(crate) partitions: u32,
}

/// `[limits]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LimitsConfig {
    /// Bytes of one request body as it arrives.
    pub(crate) body_bytes_max: usize,
    /// Bytes of one request body after inflating.
    pub(crate) inflated_bytes_max: usize,
    /// Records in one request.
    pub(crate) records_max: usize,
}

/// `[raw]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RawBookConfig {
    /// Rows that are gathered at most before they are inserted.
    pub(crate) gather_rows_max: usize,
    /// Time that rows are gathered at most before they are inserted.
    pub(crate) gather_interval: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            server: ServerConfig {
                // Loopback: what listens to the world is somebody's decision.
                listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 7070)),
                // Beside the process, visible, easy to remove after a try.
                data_dir: PathBuf::from("./odometer-data"),
                // Enough writers for the cores of a small machine; each costs little
                // when idle.
                partitions: 4,
            },
            meters: sorted(Meter::built_in()),
            // See the constant: a month's worth of retries and more.
            dedupe_window: ms(DedupeRule::WINDOW_MS_DEFAULT),
            // The tolerance that most clock-checking services grant.
            future_max: ms(Definitions::FUTURE_MS_MAX_DEFAULT),
            hash_seed: Definitions::HASH_SEED_DEFAULT,
            limits: LimitsConfig {
                // A hundred thousand plain records compress far below it, and a
                // request's memory stays small.
                body_bytes_max: 8 << 20,
                // Eight times the body: real usage compresses that well, and a bomb
                // is stopped here.
                inflated_bytes_max: 64 << 20,
                // The answer lists every record, so it grows with them.
                records_max: 100_000,
            },
            // Billing sees usage after a second; a commit costs a few milliseconds.
            commit_interval: Duration::from_secs(1),
            raw: RawBookConfig {
                // Large inserts are what column stores want, and some tens of
                // megabytes of rows fit every machine.
                gather_rows_max: odometer_sink::raw::BATCH_ROWS_MAX,
                // Analysts wait at most this much longer than billing.
                gather_interval: Duration::from_secs(2),
            },
            // The dedupe window, the eighth that its last bucket adds, and half a day
            // for the raw book to lag.
            log_retention: Duration::from_secs(40 * 86_400),
            // A restart then re-reads at most five minutes of log.
            snapshot_interval: Duration::from_secs(300),
            plans: quota::with_built_in(Vec::new()),
            quota: QuotaConfig::default(),
            envoy: EnvoyConfig::default(),
            alerts: AlertsConfig::default(),
            cluster: ClusterConfig::default(),
        }
    }
}

impl Config {
    /// The defaults, with everything kept in `data_dir`.
    #[must_use]
    pub fn in_directory(data_dir: PathBuf) -> Self {
        let defaults = Self::default();
        Self { server: ServerConfig { data_dir, ..defaults.server }, ..defaults }
    }

    /// The configuration of `file` (or none), the environment and flags.
    ///
    /// # Errors
    /// Names the file, variable or flag, the key, and the fix.
    pub(crate) fn load(file: Option<&Path>, overrides: &Overrides) -> Result<Self, ConfigError> {
        Self::load_documented(file, overrides).map(|(config, _)| config)
    }

    /// As [`Config::load`], with the document that tells where each value came from.
    fn load_documented(file: Option<&Path>, overrides: &Overrides) -> Result<(Self, Document), ConfigError> {
        let mut document = file.map_or_else(|| Ok(Document::empty()), Document::read)?;
        overrides::environment(&mut document, |name| std::env::var(name))?;
        overrides.lay_over(&mut document)?;
        let config = check::check(&document)?;
        Ok((config, document))
    }

    /// The definitions that the log must carry for this configuration to hold.
    pub(crate) fn definitions(&self) -> Definitions {
        let ms = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Definitions {
            hash_seed: self.hash_seed,
            dedupe: DedupeRule { window_ms: ms(self.dedupe_window) },
            future_ms_max: ms(self.future_max),
            ..Definitions::with_meters(self.meters.clone())
        }
    }
}

fn sorted(mut meters: Vec<Meter>) -> Vec<Meter> {
    meters.sort_by(|a, b| a.name.cmp(&b.name));
    meters
}

fn ms(ms: i64) -> Duration {
    Duration::from_millis(ms.unsigned_abs())
}
