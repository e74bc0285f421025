//! One node on the embedded footing: opens the log and the books, takes every
//! partition up where it was left, and runs the threads that count, commit and write.
//!
//! Reading path: [`recover`] (claim, restore, learn) → [`counter`] (log → core) →
//! [`committer`] (core → totals book) → [`raw`] (log and totals → raw book). Wiring
//! only; what is decided is decided in the core.

pub(crate) mod committer;
mod counter;
pub(crate) mod files;
pub(crate) mod progress;
mod raw;
mod recover;
mod retention;
mod snapshots;

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use anyhow::{Context, bail};
use odometer_aggregator::{LiveCells, Options};
use odometer_ingest::log::LogAppender;
use odometer_ingest::log::embedded::{EmbeddedLog, EmbeddedOptions};
use odometer_schemas::control::Control;
use odometer_schemas::definitions::Definitions;
use odometer_schemas::digest::Hasher;
use odometer_schemas::envelope::{Origin, encode_control};
use odometer_schemas::verdict::VerdictCounts;
use odometer_sink::raw::{RawBook, SqliteRaw};
use odometer_sink::totals::{Installation, SqliteTotals, TotalsBook};

use self::committer::Committer;
use self::counter::{Cadence, Counter};
use self::files::Files;
use self::progress::Progress;
use self::raw::{Gathering, RawWriter};
use self::recover::Owned;
use self::retention::Retention;
use crate::config::Config;

/// A running node.
pub struct Node {
    pub(crate) files: Files,
    pub(crate) log: EmbeddedLog,
    pub(crate) cells: LiveCells,
    pub(crate) progress: Arc<Progress>,
    counting: Thread,
    /// None without a raw book.
    writing: Option<Thread>,
    retaining: Thread,
    /// Held while the node lives, so that no second process writes the same files.
    _lock: File,
}

/// A thread and the flag that tells it to finish.
struct Thread {
    draining: Arc<AtomicBool>,
    handle: JoinHandle<()>,
}

impl Thread {
    fn drain(self) {
        self.draining.store(true, Ordering::Release);
        let _ = self.handle.join();
    }
}

/// What a node had done when it stopped.
pub struct Drained {
    /// Records by verdict since the log's beginning.
    pub counts: VerdictCounts,
    /// What stopped the node, unless it was told to stop.
    pub failure: Option<String>,
}

impl Node {
    /// Opens the data directory and starts counting. Returns once every partition is
    /// recovered and the configured definitions are in the log.
    ///
    /// # Errors
    /// When the data directory cannot be used, or its contents do not fit together or
    /// to the configuration.
    pub fn start(config: &Config) -> anyhow::Result<Self> {
        Self::open(config, true)
    }

    /// Starts a node that keeps no raw book, for measuring what raw rows cost: nothing
    /// that it counts can be proven.
    ///
    /// # Errors
    /// As [`Node::start`].
    pub fn start_without_raw_book(config: &Config) -> anyhow::Result<Self> {
        Self::open(config, false)
    }

    fn open(config: &Config, with_raw_book: bool) -> anyhow::Result<Self> {
        let files = Files::new(&config.server.data_dir);
        let lock = files.lock()?;
        let options = EmbeddedOptions { partitions: config.server.partitions, ..EmbeddedOptions::default() };
        let log = EmbeddedLog::open(&files.log(), options)?;
        let mut totals = SqliteTotals::open(&files.totals())?;
        totals.identity(&Installation {
            log_id: log.log_id().to_owned(),
            partitions: config.server.partitions,
            hash_seed: config.hash_seed,
        })?;
        let raw = with_raw_book.then(|| SqliteRaw::open(&files.raw())).transpose()?;
        let progress = Arc::new(Progress::new(config.server.partitions));
        let cells = LiveCells::default();
        let owned = recover_all(config, &files, &mut totals, &log, &cells)?;
        announce(&log, &owned, &config.definitions())?;
        for (partition, owned) in &owned {
            progress.of(*partition).committed_offset.store(owned.processor.next_offset(), Ordering::Release);
        }
        let parts = Parts { config, files: &files, log: &log, progress: &progress };
        let counting = parts.start_counting(totals, owned)?;
        let writing = raw.map(|raw| parts.start_writing(raw)).transpose()?;
        let retaining = parts.start_retaining()?;
        progress.recovered.store(true, Ordering::Release);
        Ok(Self { files, log, cells, progress, counting, writing, retaining, _lock: lock })
    }

    /// Where usage enters.
    #[must_use]
    pub fn appender(&self) -> Arc<dyn LogAppender> {
        self.log.appender()
    }

    /// The live counters.
    #[must_use]
    pub fn cells(&self) -> &LiveCells {
        &self.cells
    }

    /// Counts, commits and writes everything that the log holds, then stops. Call once
    /// nothing more will be appended.
    ///
    /// # Errors
    /// When the log could not be tidied up; what it acknowledged is durable all the
    /// same.
    pub fn drain(self) -> anyhow::Result<Drained> {
        self.retaining.drain();
        self.counting.drain();
        if let Some(writing) = self.writing {
            writing.drain();
        }
        self.log.close().context("the log did not close cleanly")?;
        Ok(Drained { counts: self.progress.counts(), failure: self.progress.failure().map(str::to_owned) })
    }
}

fn recover_all(
    config: &Config,
    files: &Files,
    totals: &mut SqliteTotals,
    log: &EmbeddedLog,
    cells: &LiveCells,
) -> anyhow::Result<Vec<(u32, Owned)>> {
    let placement_seed = rand::random();
    let mut reader = log.reader()?;
    let recover = |partition| {
        let options = Options {
            partition,
            partitions: config.server.partitions,
            hash_seed: config.hash_seed,
            ids_max: Options::IDS_MAX_DEFAULT,
            totals_max: Options::TOTALS_MAX_DEFAULT,
            placement_seed,
        };
        let mut owned = recover::recover(options, totals, &mut reader, &files.snapshots(), cells)?;
        recover::catch_up(&mut owned, partition, totals, &mut reader)?;
        Ok((partition, owned))
    };
    (0..config.server.partitions).map(recover).collect()
}

/// Appends the configured definitions to every partition where others are in force.
fn announce(log: &EmbeddedLog, owned: &[(u32, Owned)], wanted: &Definitions) -> anyhow::Result<()> {
    let appender = log.appender();
    let mut pending = Vec::new();
    for (partition, owned) in owned {
        if let Some(meter) = owned.processor.redefined(wanted) {
            bail!(
                "meter `{meter}` has records in this data directory; its unit, base_unit, scale and aggregation must \
                 stay as they were. Give the new meaning a new name"
            );
        }
        if owned.processor.definitions() != Some(wanted) {
            let envelope = encode_control(&Control::Definitions(wanted.clone()), Origin::default());
            pending.push(appender.append(*partition, envelope));
        }
    }
    for append in pending {
        append.wait_blocking().context("definitions cannot be appended to the log")?;
    }
    Ok(())
}

/// What the threads are made from.
#[derive(Clone, Copy)]
struct Parts<'a> {
    config: &'a Config,
    files: &'a Files,
    log: &'a EmbeddedLog,
    progress: &'a Arc<Progress>,
}

impl Parts<'_> {
    fn start_counting(&self, totals: SqliteTotals, owned: Vec<(u32, Owned)>) -> anyhow::Result<Thread> {
        let Self { config, files, log, progress } = *self;
        let draining = Arc::new(AtomicBool::new(false));
        let counter = Counter {
            log: Box::new(log.reader()?),
            owned,
            committer: Committer::start(Box::new(totals), Arc::clone(progress), files.snapshots())?,
            progress: Arc::clone(progress),
            cadence: Cadence { commit_every: config.commit_interval, snapshot_every: config.snapshot_interval },
            draining: Arc::clone(&draining),
        };
        spawn("counter", progress, draining, || counter.run())
    }

    fn start_writing(&self, raw: SqliteRaw) -> anyhow::Result<Thread> {
        let Self { config, files, log, progress } = *self;
        let draining = Arc::new(AtomicBool::new(false));
        let book: Box<dyn RawBook> = Box::new(raw);
        let totals: Box<dyn TotalsBook> = Box::new(SqliteTotals::open_read_only(&files.totals())?);
        let writer = RawWriter {
            log: Box::new(log.reader()?),
            totals,
            book,
            hasher: Hasher::new(config.hash_seed),
            progress: Arc::clone(progress),
            gathering: Gathering { rows_max: config.raw.gather_rows_max, every: config.raw.gather_interval },
            draining: Arc::clone(&draining),
        };
        spawn("raw", progress, draining, || writer.run())
    }

    fn start_retaining(&self) -> anyhow::Result<Thread> {
        let Self { config, log, progress, .. } = *self;
        let draining = Arc::new(AtomicBool::new(false));
        let retention = Retention {
            log: log.retainer(),
            reader: Box::new(log.reader()?),
            keep: config.log_retention,
            progress: Arc::clone(progress),
            stopping: Arc::clone(&draining),
        };
        spawn("retention", progress, draining, || retention.run())
    }
}

/// Starts an owned thread whose panic fails the node, visibly.
fn spawn(
    name: &'static str,
    progress: &Arc<Progress>,
    draining: Arc<AtomicBool>,
    body: impl FnOnce() + Send + 'static,
) -> anyhow::Result<Thread> {
    let progress = Arc::clone(progress);
    let handle = std::thread::Builder::new().name(name.into()).spawn(move || {
        // The state that a panic leaves behind is never looked at again: the node
        // stops, and recovery starts from the books.
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)).is_err() {
            progress.fail(format!("the {name} thread panicked; this is a bug"));
        }
    })?;
    Ok(Thread { draining, handle })
}
