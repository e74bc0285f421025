//! Raw values in, the checked configuration out: each key's bounds, then the
//! relations between keys, each with its fix.

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use odometer_schemas::definitions::DedupeRule;
use odometer_schemas::limits::PARTITIONS_MAX;
use odometer_schemas::meter::Meter;

use super::cluster::ClusterConfig;
use super::document::{Document, DocumentError};
use super::duration::{DURATION_SYNTAX, display_duration, parse_duration};
use super::quota::with_default;
use super::raw::{RawConfig, RawLimits, RawServer, Seed};
use super::{Config, LimitsConfig, RawBookConfig, ServerConfig};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// Below an hour, retries of a client with a long back-off would be counted twice;
/// above 400 days the ids of a yearly plan no longer fit a machine's memory.
const DEDUPE_WINDOW: RangeInclusive<Duration> = HOUR..=Duration::from_secs(400 * 86_400);
/// A day covers every clock set to the wrong zone; more than that is a wrong date.
const FUTURE_MAX: RangeInclusive<Duration> = Duration::ZERO..=DAY;
/// Faster commits only cost; slower ones make billing and recovery wait.
const COMMIT_INTERVAL: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(60);
/// As for commits; a column store may want larger parts.
const GATHER_INTERVAL: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(300);
/// The lower bound is the smallest dedupe window, the upper one ten years.
const RETENTION: RangeInclusive<Duration> = HOUR..=Duration::from_secs(3650 * 86_400);
/// A snapshot a second would write all day; one a day makes restarts slow, not wrong.
const SNAPSHOT_INTERVAL: RangeInclusive<Duration> = SECOND..=DAY;
/// A single record with all its dimensions must fit; a gibibyte is held in memory.
const BODY_BYTES: RangeInclusive<usize> = 16 * 1024..=1 << 30;
/// The answer lists every record of a request.
const REQUEST_RECORDS: RangeInclusive<usize> = 1..=1_000_000;
/// Rows are held in memory, a few hundred bytes each; a batch that has as many is taken
/// whatever is configured.
const GATHER_ROWS: RangeInclusive<usize> = 1_000..=odometer_sink::raw::BATCH_ROWS_MAX;

/// Reads the values of one document, each with its default.
pub(super) struct Reader<'a> {
    document: &'a Document,
}

/// Checks a document.
pub(super) fn check(document: &Document) -> Result<Config, DocumentError> {
    let mut raw: RawConfig = document.get()?;
    let default = Config::default();
    let reader = Reader { document };
    let kafka = reader.kafka(raw.kafka, default.cluster.kafka)?;
    let meters = reader.meters(raw.meter)?;
    let plans = reader.plans(raw.plan, &meters)?;
    let quota = reader.quota(raw.quota, default.quota, &plans)?;
    let alerts = reader.alerts(raw.alerts, &kafka)?;
    let config = Config {
        alerts,
        cluster: ClusterConfig {
            public_url: reader.public_url(raw.server.public_url.take())?,
            roles: reader.roles(raw.server.roles.take(), default.cluster.roles)?,
            bridge: reader.bridge(raw.bridge, default.cluster.bridge, &kafka)?,
            kafka,
            postgres_url: reader.text("postgres.url", raw.postgres.url, default.cluster.postgres_url)?,
            clickhouse: reader.clickhouse(raw.clickhouse, default.cluster.clickhouse)?,
            snapshots_dir: raw.snapshots.dir.map_or(default.cluster.snapshots_dir, PathBuf::from),
        },
        server: reader.server(raw.server, default.server)?,
        plans: with_default(plans, &quota.default_plan),
        quota,
        envoy: reader.envoy(raw.envoy, default.envoy, &meters)?,
        meters,
        dedupe_window: reader.duration("dedupe.window", raw.dedupe.window, default.dedupe_window, &DEDUPE_WINDOW)?,
        future_max: reader.duration("time.future_max", raw.time.future_max, default.future_max, &FUTURE_MAX)?,
        hash_seed: reader.seed(raw.hash.seed.as_ref(), default.hash_seed)?,
        limits: reader.limits(&raw.limits, &default.limits)?,
        commit_interval: reader.duration(
            "books.commit_interval",
            raw.books.commit_interval,
            default.commit_interval,
            &COMMIT_INTERVAL,
        )?,
        raw: RawBookConfig {
            gather_rows_max: reader.count(
                "raw.gather_rows_max",
                raw.raw.gather_rows_max,
                default.raw.gather_rows_max,
                &GATHER_ROWS,
            )?,
            gather_interval: reader.duration(
                "raw.gather_interval",
                raw.raw.gather_interval,
                default.raw.gather_interval,
                &GATHER_INTERVAL,
            )?,
        },
        log_retention: reader.duration("log.retention", raw.log.retention, default.log_retention, &RETENTION)?,
        snapshot_interval: reader.duration(
            "snapshots.interval",
            raw.snapshots.interval,
            default.snapshot_interval,
            &SNAPSHOT_INTERVAL,
        )?,
    };
    match validate(&config) {
        Ok(()) => Ok(config),
        Err((key, problem)) => Err(document.wrong(key, &problem)),
    }
}

/// The relations between values, each of which is fine alone.
fn validate(config: &Config) -> Result<(), (&'static str, String)> {
    // An id is forgotten with its whole bucket, and recovery re-reads them all.
    let buckets = u32::try_from(DedupeRule::BUCKETS).unwrap_or(u32::MAX);
    let remembered = config.dedupe_window + config.dedupe_window / buckets;
    if config.log_retention <= remembered {
        return Err((
            "log.retention",
            format!(
                "is {}, but must be longer than {}: the dedupe window of {} and the eighth that its last bucket adds \
                 are re-read from the log after a crash",
                display_duration(config.log_retention),
                display_duration(remembered),
                display_duration(config.dedupe_window),
            ),
        ));
    }
    if config.limits.inflated_bytes_max < config.limits.body_bytes_max {
        return Err((
            "limits.inflated_bytes_max",
            format!("must be at least `limits.body_bytes_max`, which is {}", config.limits.body_bytes_max),
        ));
    }
    super::check_cluster::validate(&config.cluster, &config.alerts)?;
    // Each definition has been checked; what is left concerns their number.
    config.definitions().validate().map_err(|error| ("meter", format!("is wrong: {error}")))
}

impl Reader<'_> {
    pub(super) fn wrong<T>(&self, key: &str, problem: &str) -> Result<T, DocumentError> {
        Err(self.document.wrong(key, problem))
    }

    fn server(&self, raw: RawServer, default: ServerConfig) -> Result<ServerConfig, DocumentError> {
        let listen = match raw.listen {
            None => default.listen,
            Some(text) => match socket_address(&text) {
                Some(address) => address,
                None => return self.wrong("server.listen", "must be HOST:PORT such as `127.0.0.1:7070`"),
            },
        };
        let data_dir = match raw.data_dir {
            Some(text) if text.is_empty() => return self.wrong("server.data_dir", "must name a directory"),
            Some(text) => PathBuf::from(text),
            None => default.data_dir,
        };
        let partitions = match raw.partitions.map(u32::try_from) {
            None => default.partitions,
            Some(Ok(partitions @ 1..=PARTITIONS_MAX)) => partitions,
            Some(_) => return self.wrong("server.partitions", &format!("must be 1 to {PARTITIONS_MAX}")),
        };
        Ok(ServerConfig { listen, data_dir, partitions })
    }

    /// Built-in meters, replaced by name, and the others.
    fn meters(&self, own: Vec<Meter>) -> Result<Vec<Meter>, DocumentError> {
        for (index, meter) in own.iter().enumerate() {
            if let Err(error) = meter.validate() {
                let key = format!("meter[{index}].{}", error.field);
                return self.wrong(&key, &format!("of `{}` {}", error.meter, error.problem));
            }
            if own.iter().take(index).any(|earlier| earlier.name == meter.name) {
                let problem = format!("`{}` is defined twice; remove one definition", meter.name);
                return self.wrong(&format!("meter[{index}].name"), &problem);
            }
        }
        let is_redefined = |meter: &Meter| own.iter().any(|own| own.name == meter.name);
        let mut meters = Meter::built_in();
        meters.retain(|meter| !is_redefined(meter));
        meters.extend(own);
        Ok(super::sorted(meters))
    }

    fn seed(&self, raw: Option<&Seed>, default: u64) -> Result<u64, DocumentError> {
        let parsed = match raw {
            None => return Ok(default),
            Some(Seed::Number(number)) => u64::try_from(*number).ok(),
            Some(Seed::Text(text)) => {
                let text = text.replace('_', "");
                match text.strip_prefix("0x") {
                    Some(digits) => u64::from_str_radix(digits, 16).ok(),
                    None => text.parse().ok(),
                }
            }
        };
        match parsed {
            Some(seed) => Ok(seed),
            None => {
                self.wrong("hash.seed", "must be 0 to 2^64-1, as a number or as text such as \"0x6f646f6d65746572\"")
            }
        }
    }

    fn limits(&self, raw: &RawLimits, default: &LimitsConfig) -> Result<LimitsConfig, DocumentError> {
        Ok(LimitsConfig {
            body_bytes_max: self.count(
                "limits.body_bytes_max",
                raw.body_bytes_max,
                default.body_bytes_max,
                &BODY_BYTES,
            )?,
            inflated_bytes_max: self.count(
                "limits.inflated_bytes_max",
                raw.inflated_bytes_max,
                default.inflated_bytes_max,
                &BODY_BYTES,
            )?,
            records_max: self.count("limits.records_max", raw.records_max, default.records_max, &REQUEST_RECORDS)?,
        })
    }

    pub(super) fn count(
        &self,
        key: &str,
        raw: Option<i64>,
        default: usize,
        bounds: &RangeInclusive<usize>,
    ) -> Result<usize, DocumentError> {
        let Some(number) = raw else { return Ok(default) };
        match usize::try_from(number) {
            Ok(number) if bounds.contains(&number) => Ok(number),
            _ => self.wrong(key, &format!("must be {} to {}, not {number}", bounds.start(), bounds.end())),
        }
    }

    pub(super) fn duration(
        &self,
        key: &str,
        raw: Option<String>,
        default: Duration,
        bounds: &RangeInclusive<Duration>,
    ) -> Result<Duration, DocumentError> {
        let Some(text) = raw else { return Ok(default) };
        match parse_duration(&text) {
            None => self.wrong(key, &format!("{DURATION_SYNTAX}, not `{text}`")),
            Some(duration) if bounds.contains(&duration) => Ok(duration),
            Some(_) => {
                let (least, most) = (display_duration(*bounds.start()), display_duration(*bounds.end()));
                self.wrong(key, &format!("must be {least} to {most}, not `{text}`"))
            }
        }
    }
}

/// `HOST:PORT` with an IP address, or `localhost`.
pub(super) fn socket_address(text: &str) -> Option<SocketAddr> {
    match text.strip_prefix("localhost:") {
        Some(port) => Some(SocketAddr::from((Ipv4Addr::LOCALHOST, port.parse().ok()?))),
        None => text.parse().ok(),
    }
}
