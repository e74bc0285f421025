//! Takes partitions up where the totals book left them, on a thread of its own:
//! claim, restore, and learn the ids again that no snapshot holds. Meanwhile the
//! counting thread goes on with what it has.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use odometer_aggregator::{LiveState, Options, Processor, Refusal};
use odometer_ingest::log::{LogError, LogReader};
use odometer_schemas::commit::PartitionState;
use odometer_schemas::definitions::Definitions;
use odometer_schemas::limits::PARTITIONS_MAX;
use odometer_schemas::log::LogEntry;
use odometer_schemas::time::TimeMs;
use odometer_sink::BookError;
use odometer_sink::totals::{Claim, TotalsBook};

use super::assignment::{Assignment, Term};
use super::backoff::Backoff;
use super::footing::log_may_recover;
use super::progress::{Progress, StageName, with_causes};
use super::snapshots;
use super::takeover::Takeover;

/// Log bytes read at once while learning.
const READ_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Offsets whose exceptions are fetched at once.
const EXCEPTIONS_OFFSETS: u64 = 16 * 1024;

/// Time between two questions whether a group has settled; that takes it some
/// hundred milliseconds.
const UNPROVEN_PAUSE: Duration = Duration::from_millis(50);

/// A partition that this node owns.
pub(crate) struct Owned {
    pub(crate) processor: Processor,
    pub(crate) epoch: u64,
    /// The offset that the newest snapshot file reaches.
    pub(crate) snapshot_offset: u64,
    /// Its live counters and decisions, shown once they are authoritative.
    pub(crate) live: LiveState,
    /// Answers are authoritative once counted up to here.
    pub(crate) authoritative_from: u64,
    /// The definitions in force, and when they came into the log, if that was seen.
    pub(crate) in_force: InForce,
    /// What the log is told before this node answers; none until it has caught up.
    pub(crate) takeover: Option<Takeover>,
    /// When its log last moved, as far as this node knows.
    pub(crate) moved: Instant,
}

/// What holds in a partition.
pub(crate) struct InForce {
    pub(crate) definitions: Option<Definitions>,
    /// Append time; unknown when they were there before this node counted.
    pub(crate) since: Option<TimeMs>,
}

impl Owned {
    /// Counts one entry.
    pub(crate) fn handle(&mut self, entry: &LogEntry) -> Result<(), Refusal> {
        self.processor.handle(entry)?;
        if self.processor.definitions() != self.in_force.definitions.as_ref() {
            let definitions = self.processor.definitions().cloned();
            self.in_force = InForce { definitions, since: Some(entry.append_time) };
        }
        Ok(())
    }
}

/// Why a partition was not recovered.
#[derive(Debug, thiserror::Error)]
enum RecoverError {
    #[error("partition {partition} cannot be claimed")]
    Claim {
        partition: u32,
        #[source]
        source: BookError,
    },
    #[error(transparent)]
    Book(#[from] BookError),
    #[error("the log cannot be read")]
    Log(#[from] LogError),
    #[error("{0}")]
    Restore(String),
    #[error(
        "partition {partition}: the totals book is at offset {next_offset}, the log holds {start_offset}..{end_offset}; \
         log and book do not belong together or the log was cut"
    )]
    Cut { partition: u32, next_offset: u64, start_offset: u64, end_offset: u64 },
    #[error("the log gave nothing at offset {offset}, which was counted before")]
    Missing { offset: u64 },
    /// The partition's term has ended; nobody waits for it.
    #[error("the partition is not assigned any more")]
    Ended,
    /// Whoever gives out partitions does not know this node now.
    #[error("the assignment is not confirmed yet")]
    Unproven,
}

impl RecoverError {
    fn is_retryable(&self) -> bool {
        match self {
            Self::Claim { source, .. } | Self::Book(source) => {
                source.is_retryable() || matches!(source, BookError::EpochMoved { .. })
            }
            Self::Log(error) => log_may_recover(error),
            Self::Missing { .. } => true,
            Self::Restore(_) | Self::Cut { .. } | Self::Ended | Self::Unproven => false,
        }
    }
}

/// The counting thread's end of the recovery thread.
pub(crate) struct Recovery {
    orders: SyncSender<Term>,
    recovered: Receiver<(Term, Owned)>,
    thread: JoinHandle<()>,
}

/// What recovering takes.
pub(crate) struct Recoverer {
    /// For every partition the same, but for its number.
    pub(crate) options: Options,
    pub(crate) book: Box<dyn TotalsBook>,
    pub(crate) log: Box<dyn LogReader>,
    pub(crate) snapshots_dir: PathBuf,
    pub(crate) owner: String,
    pub(crate) assignment: Arc<Assignment>,
    pub(crate) progress: Arc<Progress>,
}

impl Recovery {
    pub(crate) fn start(recoverer: Recoverer) -> std::io::Result<Self> {
        // A partition is ordered once a term, and terms that ended are passed over.
        let (orders, inbox) = sync_channel(2 * PARTITIONS_MAX as usize);
        let (outbox, recovered) = channel();
        let progress = Arc::clone(&recoverer.progress);
        let thread = super::spawn_caught("recovery", &progress, move || recoverer.run(&inbox, &outbox))?;
        Ok(Self { orders, recovered, thread })
    }

    /// Asks for a partition.
    pub(crate) fn order(&self, term: Term) {
        // A thread that is gone has failed, and said so.
        let _ = self.orders.send(term);
    }

    /// A partition that is ready to be counted.
    pub(crate) fn take(&self) -> Option<(Term, Owned)> {
        self.recovered.try_recv().ok()
    }

    /// Ends the thread; call once all terms have ended.
    pub(crate) fn finish(self) {
        drop(self.orders);
        let _ = self.thread.join();
    }
}

impl Recoverer {
    fn run(mut self, orders: &Receiver<Term>, recovered: &Sender<(Term, Owned)>) {
        while let Ok(term) = orders.recv() {
            let mut backoff = Backoff::new();
            while self.progress.failure().is_none() && self.assignment.holds(term) {
                match self.recover(term) {
                    Ok(owned) => {
                        if recovered.send((term, owned)).is_err() {
                            return;
                        }
                        break;
                    }
                    // The group is on its way to its next generation.
                    Err(RecoverError::Unproven) => std::thread::sleep(UNPROVEN_PAUSE),
                    Err(error) if error.is_retryable() => {
                        let reason = format!("recovering: {}", with_causes(&error));
                        tracing::debug!("partition {}: {reason}", term.partition);
                        self.progress.of(term.partition).stuck(StageName::Count, reason);
                        backoff.sleep();
                    }
                    Err(RecoverError::Ended) => break,
                    Err(error) => self.progress.fail(with_causes(&error)),
                }
            }
        }
    }

    fn recover(&mut self, term: Term) -> Result<Owned, RecoverError> {
        let started = Instant::now();
        let partition = term.partition;
        let state = self.claim(term)?;
        let bounds = self.log.bounds(partition)?;
        let (start_offset, end_offset, next_offset) = (bounds.start_offset, bounds.end_offset, state.next_offset);
        if !(start_offset..=end_offset).contains(&next_offset) {
            return Err(RecoverError::Cut { partition, next_offset, start_offset, end_offset });
        }
        let snapshot = snapshots::read(&self.snapshots_dir, partition);
        let snapshot_offset = snapshot.as_ref().map_or(0, |s| s.next_offset);
        let (options, live) = (Options { partition, ..self.options }, LiveState::default());
        let mut processor = Processor::restore(options, &state, snapshot, live.clone())
            .map_err(|error| RecoverError::Restore(error.to_string()))?;
        self.learn(term, &mut processor, start_offset)?;
        let seconds = started.elapsed().as_secs_f64();
        metrics::histogram!("odometer_recovery_seconds").record(seconds);
        tracing::debug!("partition {partition}: claimed with epoch {} at {next_offset}, {seconds:.3} s", state.epoch);
        let in_force = InForce { definitions: processor.definitions().cloned(), since: None };
        Ok(Owned {
            processor,
            in_force,
            epoch: state.epoch,
            snapshot_offset,
            live,
            authoritative_from: end_offset,
            takeover: None,
            moved: Instant::now(),
        })
    }

    /// Claims from the epoch that the book was at before this node was found to be
    /// still assigned: a successor's claim would have moved it.
    fn claim(&mut self, term: Term) -> Result<PartitionState, RecoverError> {
        let partition = term.partition;
        let failed = |source| RecoverError::Claim { partition, source };
        let cursor = self.book.cursors().map_err(failed)?.into_iter().find(|cursor| cursor.partition == partition);
        let from_epoch = cursor.map_or(0, |cursor| cursor.epoch);
        if !self.assignment.prove(term)? {
            return Err(if self.assignment.holds(term) { RecoverError::Unproven } else { RecoverError::Ended });
        }
        let claim = Claim { partition, from_epoch, owner: self.owner.clone() };
        self.book.claim(&claim).map_err(failed)
    }

    fn learn(&mut self, term: Term, processor: &mut Processor, start_offset: u64) -> Result<(), RecoverError> {
        let (partition, until) = (term.partition, processor.next_offset());
        let mut from = processor.learn_from().max(start_offset);
        while from < until {
            let to = until.min(from + EXCEPTIONS_OFFSETS);
            let exceptions = self.book.exceptions(partition, from..to)?;
            while from < to {
                if !self.assignment.holds(term) {
                    return Err(RecoverError::Ended);
                }
                let entries = self.log.read(partition, from, READ_BYTES_MAX)?;
                // The cursor stands behind an entry that was counted, so this one is
                // only not there yet; to go on without it would forget ids.
                let Some(last) = entries.last().map(|entry| entry.offset) else {
                    return Err(RecoverError::Missing { offset: from });
                };
                for entry in entries.iter().filter(|entry| entry.offset < to) {
                    let found = exceptions.binary_search_by_key(&entry.offset, |row| row.offset);
                    processor.learn(entry, found.ok().map(|at| exceptions[at].verdicts.as_slice()));
                }
                from = (last + 1).min(to);
            }
        }
        Ok(())
    }
}
