//! What the books hold, read beside the node that writes them, as billing and analysts
//! do.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use odometer_bench::traffic::{Sum, Tally};
use odometer_sink::raw::{RawBook, SqliteRaw};
use odometer_sink::totals::{PartitionCursor, SqliteTotals, TotalsBook, TotalsFilter};

/// Pause between two looks.
const POLL: Duration = Duration::from_millis(5);
/// A book that has not moved for so long is stuck.
const PATIENCE: Duration = Duration::from_secs(60);
/// Differences that are named.
const DIFFERENCES_MAX: usize = 5;

/// The books of one data directory.
pub(crate) struct Books {
    directory: PathBuf,
}

impl Books {
    pub(crate) fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    fn totals(&self) -> anyhow::Result<SqliteTotals> {
        Ok(SqliteTotals::open_read_only(&self.directory.join("totals.sqlite"))?)
    }

    /// Waits until the totals book has decided on `records` records.
    pub(crate) fn await_totals(&self, records: u64) -> anyhow::Result<()> {
        let mut book = self.totals()?;
        let decided = || Ok(book.cursors()?.iter().map(|cursor| cursor.counts.received).sum());
        wait_until("the totals book", records, decided)
    }

    /// Waits until the raw book is where the totals book is; the time since `started`.
    pub(crate) fn await_raw(&self, started: Instant) -> anyhow::Result<f64> {
        let mut totals = self.totals()?;
        let goal = totals.cursors()?.iter().map(|cursor| cursor.next_offset).sum();
        let mut book = SqliteRaw::open_read_only(&self.directory.join("raw.sqlite"))?;
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
            let total = found.entry((row.tenant, row.meter)).or_default();
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
fn wait_until(book: &str, goal: u64, mut done: impl FnMut() -> anyhow::Result<u64>) -> anyhow::Result<()> {
    let (mut last, mut moved) = (0, Instant::now());
    loop {
        let now = done()?;
        if now >= goal {
            return Ok(());
        }
        if now > last {
            (last, moved) = (now, Instant::now());
        }
        anyhow::ensure!(moved.elapsed() < PATIENCE, "{book} stands at {now} of {goal}");
        std::thread::sleep(POLL);
    }
}
