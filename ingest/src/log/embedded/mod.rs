//! The embedded log: whole envelopes as rows of one SQLite file.
//!
//! Envelopes enter through a bounded queue to one owned writer thread, which commits
//! whatever waits there as one transaction. A second thread flushes that, answers, and
//! shows it to readers; a third moves pages from the write-ahead log into the file
//! meanwhile. Readers have their own connections, in this process or beside it. An
//! acknowledged envelope survives SIGKILL of anything, and power loss as far as the
//! disk honours a flush. Nothing here looks into an envelope.

mod ahead;
mod flusher;
mod keeper;
mod layout;
mod places;
mod reader;
mod recent;
mod store;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use odometer_schemas::limits::{ENVELOPE_BYTES_MAX, PARTITIONS_MAX};
use odometer_schemas::time::TimeMs;

pub use reader::EmbeddedReader;

use super::{AppendError, LogAppender, LogError, PendingAppend};
use flusher::Flusher;
use keeper::Keeper;
use recent::Recent;
use store::{Store, failed};
use writer::{Append, Command, Retain, Writer};

/// Partitions of a new log. Each is bounded by one core, and small machines have few.
pub const PARTITIONS_DEFAULT: u32 = 4;
/// Envelopes that may wait for the writer: some ten milliseconds of its work, and at
/// most 64 MiB at the largest envelope.
pub const QUEUE_ENVELOPES_DEFAULT: usize = 1024;
/// Envelopes of one commit: more would not make the flush any cheaper per record.
pub const BATCH_ENVELOPES_MAX_DEFAULT: usize = 256;
/// Bytes after which a commit takes no further envelope, so that a full queue delays
/// the first answer by some twenty milliseconds only.
pub const BATCH_BYTES_MAX_DEFAULT: usize = 4 * 1024 * 1024;

/// How an embedded log is opened.
#[derive(Clone, Debug)]
pub struct EmbeddedOptions {
    /// Partitions of the log; cannot be changed once the log exists.
    pub partitions: u32,
    /// Envelopes that may wait for the writer before appends are `Busy`.
    pub queue_envelopes: usize,
    /// Most envelopes of one commit.
    pub batch_envelopes_max: usize,
    /// Bytes after which a commit takes no further envelope.
    pub batch_bytes_max: usize,
    /// The wall clock that append times come from.
    pub clock: fn() -> TimeMs,
    /// Called by the thread that works beside the writer before it begins: nobody waits
    /// for it, so it may let others go first.
    pub in_background: fn(),
}

impl Default for EmbeddedOptions {
    fn default() -> Self {
        Self {
            partitions: PARTITIONS_DEFAULT,
            queue_envelopes: QUEUE_ENVELOPES_DEFAULT,
            batch_envelopes_max: BATCH_ENVELOPES_MAX_DEFAULT,
            batch_bytes_max: BATCH_BYTES_MAX_DEFAULT,
            clock: || TimeMs::floor(Timestamp::now()),
            in_background: || {},
        }
    }
}

impl EmbeddedOptions {
    fn validate(&self) -> Result<(), LogError> {
        if !(1..=PARTITIONS_MAX).contains(&self.partitions) {
            let what = format!("cannot have {} partitions; 1 to {PARTITIONS_MAX} are allowed", self.partitions);
            return Err(LogError::Mismatch { what });
        }
        let positive = [
            ("queue_envelopes", self.queue_envelopes),
            ("batch_envelopes_max", self.batch_envelopes_max),
            ("batch_bytes_max", self.batch_bytes_max),
        ];
        match positive.into_iter().find(|(_, value)| *value == 0) {
            Some((option, _)) => Err(LogError::Mismatch { what: format!("needs {option} of at least 1") }),
            None => Ok(()),
        }
    }
}

/// How the log's writer is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EmbeddedHealth {
    /// Whether the writer thread is there; false after close.
    pub is_running: bool,
    /// Whether the newest commit or a flush failed, so that appends are being refused.
    pub is_failing: bool,
    /// The last failure, kept after recovery.
    pub last_error: Option<String>,
    /// Failed commits since the log was opened.
    pub failures: u64,
    /// Commits since the log was opened that are flushed.
    pub commits: u64,
    /// Envelopes that wait for the writer or for their flush now.
    pub queued_envelopes: usize,
}

/// The embedded log, opened for writing. Dropping it closes it.
#[derive(Debug)]
pub struct EmbeddedLog {
    path: PathBuf,
    log_id: String,
    door: Arc<Door>,
    shared: Arc<Shared>,
    writer: Option<JoinHandle<Result<(), LogError>>>,
    health: HealthWatch,
}

/// Tells how a log's writer is doing, for whoever does not own the log.
#[derive(Clone, Debug)]
pub struct HealthWatch {
    shared: Arc<Shared>,
    /// Held by the writer thread for as long as it runs.
    is_running: Weak<()>,
}

/// Where appends enter.
#[derive(Debug)]
struct Door {
    partitions: u32,
    is_closed: AtomicBool,
    commands: SyncSender<Command>,
    shared: Arc<Shared>,
}

/// What the writer tells everyone else.
#[derive(Debug)]
struct Shared {
    recent: Recent,
    /// Where each partition's envelopes end that are durable: readers go no further.
    flushed: Vec<AtomicU64>,
    queued_envelopes: AtomicUsize,
    health: Mutex<EmbeddedHealth>,
    /// Flushes so far; readers wait for it to move.
    generation: Mutex<u64>,
    committed: Condvar,
}

impl EmbeddedLog {
    /// Opens the log at `path`, creating it when it is not there. Its directory must
    /// exist. One process at a time may write to a log; the caller sees to that.
    ///
    /// # Errors
    /// [`LogError::Mismatch`] when the log was created with another partition count
    /// or by a newer build, [`LogError::Storage`] when the file cannot be used.
    pub fn open(path: &Path, options: EmbeddedOptions) -> Result<Self, LogError> {
        options.validate()?;
        let store = Store::open(path, options.partitions)?;
        let keeper = Keeper::start(path, &options)?;
        let (log_id, partitions) = (store.log_id.clone(), options.partitions);
        let (commands, queue) = sync_channel(options.queue_envelopes);
        let shared = Arc::new(Shared::new(partitions));
        let running = Arc::new(());
        let health = HealthWatch { shared: Arc::clone(&shared), is_running: Arc::downgrade(&running) };
        let ends = places::ends(&store.connection, partitions).map_err(failed("reading where it ends"))?.offsets();
        // What a process left that ended badly may be in the system's memory alone, even
        // where a flush says otherwise, if one has failed before: this writes it once more.
        store.fold().map_err(failed("folding its write-ahead log into the file"))?;
        // Where SQLite has it: `path` may be a link.
        let file = store.connection.path().map_or_else(|| path.to_owned(), PathBuf::from);
        let flusher = Flusher::start(&file, &ends, &shared)?;
        let writer = spawn(Writer::new((store, keeper, flusher), options, queue, Arc::clone(&shared)), running)?;
        let door = Door { partitions, is_closed: AtomicBool::new(false), commands, shared: Arc::clone(&shared) };
        Ok(Self { path: path.to_owned(), log_id, door: Arc::new(door), shared, writer: Some(writer), health })
    }

    /// The writing half; answers `Closed` once the log is closed.
    #[must_use]
    pub fn appender(&self) -> Arc<dyn LogAppender> {
        Arc::clone(&self.door) as Arc<dyn LogAppender>
    }

    /// A new reading half that is woken by this log's commits.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn reader(&self) -> Result<EmbeddedReader, LogError> {
        EmbeddedReader::beside_writer(&self.path, Arc::clone(&self.shared))
    }

    /// The random identity that the log got when it was created, 32 hexadecimal
    /// digits. Another id means another log, whose offsets mean other envelopes.
    #[must_use]
    pub fn log_id(&self) -> &str {
        &self.log_id
    }

    /// How many partitions the log has.
    #[must_use]
    pub fn partitions(&self) -> u32 {
        self.door.partitions
    }

    /// How the writer is doing.
    #[must_use]
    pub fn health(&self) -> EmbeddedHealth {
        self.health.now()
    }

    /// The same for whoever does not own the log.
    #[must_use]
    pub fn health_watch(&self) -> HealthWatch {
        self.health.clone()
    }

    /// [`LogRetainer::retain`] by the log's owner.
    ///
    /// # Errors
    /// As [`LogRetainer::retain`].
    ///
    /// # Panics
    /// As [`LogRetainer::retain`].
    pub fn retain(&self, partition: u32, below_offset: u64) -> Result<u64, LogError> {
        self.retainer().retain(partition, below_offset)
    }

    /// The part of the log that removes old envelopes, for a thread of its own.
    #[must_use]
    pub fn retainer(&self) -> LogRetainer {
        LogRetainer(Arc::clone(&self.door))
    }

    /// Stops taking envelopes, writes and answers those that wait, folds the
    /// write-ahead log into the file and ends the writer thread. Blocks until then.
    ///
    /// # Errors
    /// When the file could not be tidied or the writer had failed. What was
    /// acknowledged is durable all the same.
    pub fn close(mut self) -> Result<(), LogError> {
        self.shut()
    }

    fn shut(&mut self) -> Result<(), LogError> {
        let Some(writer) = self.writer.take() else { return Ok(()) };
        self.door.is_closed.store(true, Ordering::SeqCst);
        // A writer that is already gone shows when it is joined.
        let _ = self.door.commands.send(Command::Close);
        let outcome = writer.join().unwrap_or_else(|_| Err(closed("writing; the writer thread panicked")));
        // Wakes readers, so that whoever waits for the end sees it now.
        self.shared.announce();
        outcome
    }
}

impl Drop for EmbeddedLog {
    fn drop(&mut self) {
        if let Err(error) = self.shut() {
            tracing::error!(%error, source = ?std::error::Error::source(&error), "the embedded log did not close cleanly");
        }
    }
}

impl HealthWatch {
    /// How the writer is doing now.
    #[must_use]
    pub fn now(&self) -> EmbeddedHealth {
        let mut health = locked(&self.shared.health).clone();
        health.is_running = self.is_running.strong_count() > 0;
        // What waited when the writer ended is refused.
        let queued = self.shared.queued_envelopes.load(Ordering::Relaxed);
        health.queued_envelopes = if health.is_running { queued } else { 0 };
        health
    }
}

/// Starts the writer thread, which holds `running` until it ends, however it ends.
fn spawn(writer: Writer, running: Arc<()>) -> Result<JoinHandle<Result<(), LogError>>, LogError> {
    std::thread::Builder::new()
        .name("log-writer".into())
        .spawn(move || {
            let _running = running;
            writer.run()
        })
        .map_err(|error| LogError::Storage { doing: "starting the writer thread", source: Box::new(error) })
}

impl LogAppender for Door {
    fn partitions(&self) -> u32 {
        self.partitions
    }

    fn append(&self, partition: u32, envelope: Vec<u8>) -> PendingAppend {
        self.take(partition, envelope, true)
    }

    fn append_unflushed(&self, partition: u32, envelope: Vec<u8>) -> PendingAppend {
        self.take(partition, envelope, false)
    }
}

impl Door {
    fn take(&self, partition: u32, envelope: Vec<u8>, is_durable: bool) -> PendingAppend {
        if partition >= self.partitions {
            let reason = format!("the log has {} partitions, and none numbered {partition}", self.partitions);
            return PendingAppend::ready(Err(AppendError::Refused(reason)));
        }
        if envelope.len() > ENVELOPE_BYTES_MAX {
            return PendingAppend::ready(Err(AppendError::TooLarge { bytes: envelope.len() }));
        }
        if self.is_closed.load(Ordering::SeqCst) {
            return PendingAppend::ready(Err(AppendError::Closed));
        }
        let (answer, pending) = PendingAppend::channel();
        // Counted before it is sent: the writer may take it at once.
        self.shared.queued_envelopes.fetch_add(1, Ordering::Relaxed);
        let refusal = match self.commands.try_send(Command::Append(Append { partition, envelope, is_durable, answer }))
        {
            Ok(()) => return pending,
            Err(TrySendError::Full(_)) => AppendError::Busy,
            Err(TrySendError::Disconnected(_)) => AppendError::Closed,
        };
        self.shared.queued_envelopes.fetch_sub(1, Ordering::Relaxed);
        PendingAppend::ready(Err(refusal))
    }
}

impl Shared {
    fn new(partitions: u32) -> Self {
        Self {
            recent: Recent::new(partitions),
            flushed: (0..partitions).map(|_| AtomicU64::new(0)).collect(),
            queued_envelopes: AtomicUsize::new(0),
            health: Mutex::default(),
            generation: Mutex::new(0),
            committed: Condvar::new(),
        }
    }

    /// Keeps a failure for whoever asks after the log's health.
    fn failed(&self, reason: &str) {
        let mut health = locked(&self.health);
        if !std::mem::replace(&mut health.is_failing, true) {
            tracing::error!(reason, "the embedded log cannot be written");
        }
        health.failures += 1;
        health.last_error = Some(reason.to_owned());
    }

    /// Tells readers that there may be something new.
    fn announce(&self) {
        *locked(&self.generation) += 1;
        self.committed.notify_all();
    }

    /// Waits until the generation is no longer `seen`, or for `timeout`; returns the
    /// generation then.
    fn wait_beyond(&self, seen: u64, timeout: Duration) -> u64 {
        let deadline = Instant::now().checked_add(timeout);
        let mut generation = locked(&self.generation);
        while *generation == seen {
            let left = deadline.map_or(timeout, |at| at.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                break;
            }
            generation = match self.committed.wait_timeout(generation, left) {
                Ok((generation, _)) => generation,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
        *generation
    }
}

/// A lock whose data stays whole whatever its last holder did.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn closed(doing: &'static str) -> LogError {
    LogError::Storage { doing, source: Box::new(AppendError::Closed) }
}

/// Removes old envelopes. Outlives the log without harm: then it answers that the log
/// is closed.
#[derive(Clone, Debug)]
pub struct LogRetainer(Arc<Door>);

impl LogRetainer {
    /// Removes the envelopes of `partition` below `below_offset`, but never the
    /// newest one, and returns how many were removed. Appends go on meanwhile. The
    /// file does not shrink; its space is used again. Blocks until it is done.
    ///
    /// # Errors
    /// When the log is closed or its storage fails; part of the envelopes may have
    /// been removed by then.
    ///
    /// # Panics
    /// When the log has no such partition.
    pub fn retain(&self, partition: u32, below_offset: u64) -> Result<u64, LogError> {
        assert!(partition < self.0.partitions, "partition {partition} of a log with {} partitions", self.0.partitions);
        let doing = "removing old envelopes";
        let (answer, done) = sync_channel(1);
        let retain = Retain { partition, below_offset, removed: 0, answer };
        self.0.commands.send(Command::Retain(retain)).map_err(|_| closed(doing))?;
        done.recv().unwrap_or_else(|_| Err(closed(doing)))
    }
}
