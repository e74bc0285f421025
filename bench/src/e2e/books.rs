//! What the books hold, read beside the node that writes them, as billing and analysts
//! do.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use odometer_bench::traffic::{Sum, Tally};
use odometer_sink::raw::{ClickHouseOptions, ClickHouseRaw, RawBook, SqliteRaw};
use odometer_sink::totals::{PartitionCursor, PgTotals, SqliteTotals, TotalsBook, TotalsFilter};

/// Pause between two looks.
const POLL: Duration = Duration::from_millis(5);
/// A book that has not moved for so long is stuck.
const PATIENCE: Duration = Duration::from_secs(60);
/// Differences that are named.
const DIFFERENCES_MAX: usize = 5;

/// Where the books are.
pub(crate) enum Books {
    /// In one data directory.
    Embedded(PathBuf),
    /// On servers.
    Cluster { postgres: String, clickhouse: ClickHouseOptions },
}

/// How a book moved.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Steady {
    /// Per second between the first move that was seen and the end: without the time
    /// until a consumer group has given out its partitions.
    pub(crate) per_s: f64,
}

impl Books {
    pub(crate) fn in_directory(directory: &Path) -> Self {
        Self::Embedded(directory.to_owned())
    }

    fn totals(&self) -> anyhow::Result<Box<dyn TotalsBook>> {
        Ok(match self {
            Self::Embedded(directory) => Box::new(SqliteTotals::open_read_only(&directory.join("totals.sqlite"))?),
            Self::Cluster { postgres, .. } => Box::new(PgTotals::connect_read_only(postgres)?),
        })
    }

    fn raw(&self) -> anyhow::Result<Box<dyn RawBook>> {
        Ok(match self {
            Self::Embedded(directory) => Box::new(SqliteRaw::open_read_only(&directory.join("raw.sqlite"))?),
            Self::Cluster { clickhouse, .. } => Box::new(ClickHouseRaw::connect(clickhouse)?),
        })
    }

    /// Waits until the totals book has decided on `records` records.
    pub(crate) fn await_totals(&self, records: u64) -> anyhow::Result<Steady> {
        let mut book = self.totals()?;
        let decided = || Ok(book.cursors()?.iter().map(|cursor| cursor.counts.received).sum());
        wait_until("the totals book", records, decided)
    }

    /// Waits until the raw book is where the totals book is; the time since `started`.
    pub(crate) fn await_raw(&self, started: Instant) -> anyhow::Result<f64> {
        let mut totals = self.totals()?;
        let goal = totals.cursors()?.iter().map(|cursor| cursor.next_offset).sum();
        let mut book = self.raw()?;
        let written = || Ok(book.cursors()?.iter().map(|cursor| cursor.next_offset).sum());
        wait_until("the raw book", goal, written)?;
        Ok(started.elapsed().as_secs_f64())
    }

    /// Where the totals book differs from what was sent.
    pub(crate) fn differences(&self, sent: &Tally) -> anyhow::Result<Vec<String>> {
        let mut book = self.totals()?;
        let mut found = Tally::new();
        for row in book.totals(&TotalsFilter::default())? {
            // The sender's month may have ended meanwhile: periods are added up.
            let total = found.entry((row.tenant.to_string(), row.meter.to_string())).or_default();
            total.quantity += row.quantity;
            total.records += row.records;
        }
        let mut differences = compare(sent, &found);
        differences.extend(book.cursors()?.iter().filter_map(not_accepted));
        differences.truncate(DIFFERENCES_MAX);
        Ok(differences)
    }
}

fn compare(sent: &Tally, found: &Tally) -> Vec<String> {
    let keys: BTreeSet<&(String, String)> = sent.keys().chain(found.keys()).collect();
    let mut differences = Vec::new();
    for key in keys {
        let [sent, found]: [Sum; 2] = [sent, found].map(|tally| tally.get(key).copied().unwrap_or_default());
        if sent != found {
            differences.push(format!("{} {}: sent {sent:?}, found {found:?}", key.0, key.1));
        }
    }
    differences
}

fn not_accepted(cursor: &PartitionCursor) -> Option<String> {
    let counts = &cursor.counts;
    (counts.accepted != counts.received).then(|| format!("partition {}: {counts:?}", cursor.partition))
}

/// Looks until `done` reaches `goal`; gives up when it stands still.
fn wait_until(book: &str, goal: u64, mut done: impl FnMut() -> anyhow::Result<u64>) -> anyhow::Result<Steady> {
    let (mut last, mut moved) = (0, Instant::now());
    let mut first = None;
    loop {
        let now = done()?;
        if now > last {
            (last, moved) = (now, Instant::now());
            first = first.or(Some((now, moved)));
        }
        if now >= goal {
            let (from, began) = first.unwrap_or((now, moved));
            return Ok(Steady { per_s: (now - from) as f64 / moved.duration_since(began).as_secs_f64() });
        }
        anyhow::ensure!(moved.elapsed() < PATIENCE, "{book} stands at {now} of {goal}");
        std::thread::sleep(POLL);
    }
}
