//! One node: stands on a [`footing`], takes up the partitions that it is given, and
//! runs the threads that count, commit and write.
//!
//! Reading path: [`footing`] (the log, the books, who owns what) → [`recover`] (claim,
//! restore, learn) → [`counter`] (log → core) → [`committer`] (core → totals book) →
//! [`raw`] (log and totals → rows) → [`pen`] (rows → raw book). Wiring only; what is decided is decided in the
//! core.

mod announce;
mod assignment;
pub(crate) mod backoff;
pub(crate) mod bridging;
pub(crate) mod cells;
pub(crate) mod committer;
mod counter;
pub(crate) mod files;
pub(crate) mod footing;
mod lease;
mod pen;
pub(crate) mod progress;
mod raw;
mod recover;
mod retention;
mod snapshots;
mod takeover;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, bail};
use odometer_aggregator::Options;
use odometer_ingest::log::LogAppender;
use odometer_schemas::digest::Hasher;
use odometer_schemas::verdict::VerdictCounts;

use self::announce::{Announcer, Configured};
use self::assignment::Assignment;
use self::cells::Cells;
use self::committer::Committer;
use self::counter::{Cadence, Counter, Counting};
use self::footing::Footing;
use self::footing::cluster::Cluster;
use self::footing::embedded::Embedded;
use self::pen::Pen;
use self::progress::Progress;
use self::raw::{Gathering, RawWriter};
use self::recover::{Recoverer, Recovery};
use crate::alerts::{self, Courier};
use crate::config::Config;

/// How often a node that starts looks whether it has recovered.
const RECOVERED_POLL: Duration = Duration::from_millis(2);

/// A running node.
pub struct Node {
    pub(crate) footing: Box<dyn Footing>,
    pub(crate) cells: Cells,
    pub(crate) progress: Arc<Progress>,
    threads: Threads,
}

/// In the order in which they end. None where this node has no such part.
#[derive(Default)]
struct Threads {
    alerts: Vec<Thread>,
    housekeeping: Option<Thread>,
    counting: Option<Thread>,
    lease: Option<Thread>,
    writing: Option<Thread>,
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

/// What a footing does by itself while the node runs.
pub(crate) trait Housekeeping: Send {
    /// Runs until told to stop.
    fn run(self: Box<Self>, progress: &Progress, stopping: &AtomicBool);
}

/// Which parts of the pipeline a node runs besides answering questions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Duties {
    /// Counts partitions.
    counts: bool,
    /// Writes the raw book.
    writes_raw: bool,
}

/// What a node had done when it stopped.
pub struct Drained {
    /// Records by verdict since the log's beginning, of the partitions that it
    /// counted.
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
        Self::start_embedded(config, true)
    }

    /// Starts a node that keeps no raw book, for measuring what raw rows cost: nothing
    /// that it counts can be proven.
    ///
    /// # Errors
    /// As [`Node::start`].
    pub fn start_without_raw_book(config: &Config) -> anyhow::Result<Self> {
        Self::start_embedded(config, false)
    }

    /// Joins the nodes of a cluster, as the one that answers at `public_url`. Returns
    /// once its parts answer; partitions come while it runs.
    ///
    /// # Errors
    /// When a part does not answer for a minute, or does not fit to the others or to
    /// the configuration.
    pub(crate) fn serve(config: &Config, public_url: &str) -> anyhow::Result<Self> {
        let roles = config.cluster.roles;
        let footing = Box::new(Cluster::open(config, public_url.to_owned())?);
        Self::open(config, footing, Duties { counts: roles.aggregator, writes_raw: roles.raw })
    }

    fn start_embedded(config: &Config, writes_raw: bool) -> anyhow::Result<Self> {
        let footing = Box::new(Embedded::open(config)?);
        Self::open(config, footing, Duties { counts: true, writes_raw })?.recovered()
    }

    /// Starts the threads of a node on `footing`; partitions are recovered while it
    /// runs.
    fn open(config: &Config, footing: Box<dyn Footing>, duties: Duties) -> anyhow::Result<Self> {
        let partitions = footing.installation().partitions;
        let (progress, cells) = (Arc::new(Progress::new(partitions)), Cells::new(partitions));
        let parts = Parts { config, footing: footing.as_ref(), progress: &progress, cells: &cells };
        let mut threads = Threads::default();
        let started = parts.start(duties, &mut threads);
        let node = Self { footing, cells, progress, threads };
        match started {
            Ok(()) => Ok(node),
            Err(error) => {
                node.progress.fail(format!("{error:#}"));
                // The error tells more than the failure that it made.
                let _ = node.drain();
                Err(error)
            }
        }
    }

    /// Waits until everything that this node counts is authoritative.
    fn recovered(self) -> anyhow::Result<Self> {
        while !self.progress.is_authoritative() {
            if let Some(failure) = self.progress.failure().map(str::to_owned) {
                self.drain()?;
                bail!(failure);
            }
            std::thread::sleep(RECOVERED_POLL);
        }
        Ok(self)
    }

    /// Where usage enters.
    #[must_use]
    pub fn appender(&self) -> Arc<dyn LogAppender> {
        self.footing.appender()
    }

    /// The live counters.
    #[must_use]
    pub fn cells(&self) -> &Cells {
        &self.cells
    }

    /// Counts, commits and writes what it can, gives its partitions up, then stops;
    /// alone on its log, everything that the log holds. Call once nothing more will be
    /// appended here.
    ///
    /// # Errors
    /// When the log could not be tidied up; what it acknowledged is durable all the
    /// same.
    pub fn drain(self) -> anyhow::Result<Drained> {
        let Threads { alerts, housekeeping, counting, lease, writing } = self.threads;
        for thread in alerts.into_iter().chain([housekeeping, counting, lease, writing].into_iter().flatten()) {
            thread.drain();
        }
        self.footing.close().context("the log did not close cleanly")?;
        Ok(Drained { counts: self.progress.counts(), failure: self.progress.failure().map(str::to_owned) })
    }
}

/// What the threads are made from.
#[derive(Clone, Copy)]
struct Parts<'a> {
    config: &'a Config,
    footing: &'a dyn Footing,
    progress: &'a Arc<Progress>,
    cells: &'a Cells,
}

impl Parts<'_> {
    fn start(&self, duties: Duties, threads: &mut Threads) -> anyhow::Result<()> {
        self.footing.totals()?.identity(&self.footing.installation())?;
        if duties.writes_raw {
            threads.writing = Some(self.start_writing()?);
        }
        if duties.counts {
            let assignment = Arc::new(Assignment::new(self.footing.counting()?));
            threads.counting = Some(self.start_counting(&assignment)?);
            threads.lease = self.start_lease(assignment)?;
            threads.alerts = self.start_alerts()?;
        } else {
            self.progress.joined.store(true, Ordering::Release);
        }
        threads.housekeeping = self.start_housekeeping()?;
        Ok(())
    }

    /// Whoever is alone needs none.
    fn start_lease(&self, assignment: Arc<Assignment>) -> anyhow::Result<Option<Thread>> {
        if assignment.is_exclusive() {
            return Ok(None);
        }
        let (stopping, progress) = (Arc::new(AtomicBool::new(false)), Arc::clone(self.progress));
        let stop = Arc::clone(&stopping);
        spawn("lease", self.progress, stopping, move || lease::keep(&assignment, &progress, &stop)).map(Some)
    }

    fn start_counting(&self, assignment: &Arc<Assignment>) -> anyhow::Result<Thread> {
        let Self { config, footing, progress, cells } = *self;
        let draining = Arc::new(AtomicBool::new(false));
        let configured = Configured { definitions: config.definitions(), plans: config.plans.clone() };
        let announcer = Announcer::new(configured, assignment.is_exclusive(), footing.totals()?.as_mut())?;
        let recovery = Recovery::start(self.recoverer(assignment)?)?;
        let committer = Committer::start(footing.totals()?, progress, footing.snapshots_dir())?;
        let counter = Counter {
            log: footing.reader()?,
            appender: footing.appender(),
            announcer,
            assignment: Arc::clone(assignment),
            recovery,
            committer,
            progress: Arc::clone(progress),
            cells: cells.clone(),
            cadence: Cadence { commit_every: config.commit_interval, snapshot_every: config.snapshot_interval },
            draining: Arc::clone(&draining),
            state: Counting::default(),
        };
        spawn("counter", progress, draining, || counter.run())
    }

    fn recoverer(&self, assignment: &Arc<Assignment>) -> anyhow::Result<Recoverer> {
        let installation = self.footing.installation();
        let options = Options {
            partition: 0,
            partitions: installation.partitions,
            hash_seed: installation.hash_seed,
            ids_max: Options::IDS_MAX_DEFAULT,
            totals_max: Options::TOTALS_MAX_DEFAULT,
            placement_seed: rand::random(),
        };
        Ok(Recoverer {
            options,
            book: self.footing.totals()?,
            log: self.footing.reader()?,
            snapshots_dir: self.footing.snapshots_dir(),
            owner: self.footing.owner(),
            assignment: Arc::clone(assignment),
            progress: Arc::clone(self.progress),
        })
    }

    fn start_writing(&self) -> anyhow::Result<Thread> {
        let Self { config, footing, progress, .. } = *self;
        let draining = Arc::new(AtomicBool::new(false));
        let writer = RawWriter {
            log: footing.reader()?,
            totals: footing.books().totals()?,
            pen: Pen::start(footing.raw()?, progress)?,
            book: footing.books().raw()?,
            ownership: footing.writing()?,
            hasher: Hasher::new(config.hash_seed),
            progress: Arc::clone(progress),
            gathering: Gathering { rows_max: config.raw.gather_rows_max, every: config.raw.gather_interval },
            draining: Arc::clone(&draining),
            partitions: BTreeSet::new(),
            turn: 0,
            news: Vec::new(),
        };
        spawn("raw", progress, draining, || writer.run())
    }

    fn start_alerts(&self) -> anyhow::Result<Vec<Thread>> {
        let Self { config, footing, progress, .. } = *self;
        let log_id = footing.installation().log_id;
        let start = |channel| {
            let stopping = Arc::new(AtomicBool::new(false));
            let courier = Courier::new(channel, footing.totals()?, progress, &log_id);
            let stop = Arc::clone(&stopping);
            spawn(courier.name(), progress, stopping, move || courier.run(&stop))
        };
        alerts::channels(&config.alerts, footing.kafka(), &log_id)?.into_iter().map(start).collect()
    }

    fn start_housekeeping(&self) -> anyhow::Result<Option<Thread>> {
        let Some(housekeeping) = self.footing.housekeeping()? else { return Ok(None) };
        let (stopping, progress) = (Arc::new(AtomicBool::new(false)), Arc::clone(self.progress));
        let stop = Arc::clone(&stopping);
        spawn("housekeeping", self.progress, stopping, move || housekeeping.run(&progress, &stop)).map(Some)
    }
}

/// Starts an owned thread whose panic fails the node, visibly.
fn spawn(
    name: &'static str,
    progress: &Arc<Progress>,
    draining: Arc<AtomicBool>,
    body: impl FnOnce() + Send + 'static,
) -> anyhow::Result<Thread> {
    let handle = spawn_caught(name, progress, body)?;
    Ok(Thread { draining, handle })
}

fn spawn_caught(
    name: &'static str,
    progress: &Arc<Progress>,
    body: impl FnOnce() + Send + 'static,
) -> std::io::Result<JoinHandle<()>> {
    let progress = Arc::clone(progress);
    std::thread::Builder::new().name(name.into()).spawn(move || {
        // The state that a panic leaves behind is never looked at again: the node
        // stops, and recovery starts from the books.
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)).is_err() {
            progress.fail(format!("the {name} thread panicked; this is a bug"));
        }
    })
}
