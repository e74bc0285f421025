//! The counting thread: reads the log, offers every entry to the core, and hands what
//! changed to the committer. One writer for every partition that the node owns.
//!
//! A partition comes recovered from [`recover`](super::recover) and goes when it is
//! revoked (counted no further, committed, released), lost or fenced (dropped).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use odometer_ingest::log::{LogAppender, LogError, LogReader};
use odometer_schemas::control::Control;
use odometer_schemas::envelope::{Origin, encode_control};
use odometer_sink::totals::OwnedCommit;

use super::announce::Announcer;
use super::assignment::Assignment;
use super::backoff::Backoff;
use super::cells::Cells;
use super::committer::{Batch, Committer, Fenced};
use super::footing::{Change, log_may_recover};
use super::progress::{PartitionProgress, Progress, StageName, Standing, with_causes};
use super::recover::{Owned, Recovery};
use super::takeover::Takeover;
use crate::slices::{Turn, shorten};

mod pacing;

use self::pacing::Pacing;

/// Log bytes read from one partition at once: a millisecond of counting, so that no
/// partition waits long for its turn, and reading keeps nobody else from the processor.
const READ_BYTES_MAX: usize = 256 * 1024;
/// How long an idle round waits for the log. Appends in this process end the wait at
/// once.
const IDLE_WAIT: Duration = Duration::from_millis(20);
/// Rows of one partition that may pile up for the totals book while it cannot be
/// reached; at about 300 bytes each, half a gigabyte once they are handed over. Beyond
/// it counting pauses.
const PENDING_ROWS_MAX: usize = 2_000_000;
/// Exceptions of all partitions that may pile up. A changed total lies in the core
/// whether it changed or not, but an exception needs memory until it is committed.
const PENDING_EXCEPTIONS_MAX: usize = 2_000_000;
/// Rows after which a batch takes no further partition: a transaction then holds its
/// locks for seconds, and the batch some hundred megabytes, whatever all partitions
/// have together.
const BATCH_ROWS_MAX: usize = 500_000;
/// How long a revoked partition may wait for the totals book. Its successor waits as
/// long; afterwards the state is dropped, and the epoch keeps a late commit out.
const RELEASE_MAX: Duration = Duration::from_secs(4);
/// How long a node that stops may wait for the totals book; the log has the rest.
const DRAIN_MAX: Duration = Duration::from_secs(20);
/// Time without an entry after which a partition gets a tick. Log time then trails
/// the clock by little more, which is far below any grace that is measured in it.
const TICK_EVERY: Duration = Duration::from_secs(60);

/// When to hand over what changed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cadence {
    pub(crate) commit_every: Duration,
    pub(crate) snapshot_every: Duration,
}

pub(crate) struct Counter {
    pub(crate) log: Box<dyn LogReader>,
    pub(crate) appender: Arc<dyn LogAppender>,
    pub(crate) announcer: Announcer,
    pub(crate) assignment: Arc<Assignment>,
    pub(crate) recovery: Recovery,
    pub(crate) committer: Committer,
    pub(crate) progress: Arc<Progress>,
    pub(crate) cells: Cells,
    pub(crate) cadence: Cadence,
    /// Set when the node drains.
    pub(crate) draining: Arc<AtomicBool>,
    pub(crate) state: Counting,
}

/// What the counting thread has in hand.
pub(crate) struct Counting {
    owned: BTreeMap<u32, Owned>,
    leaving: Option<Leaving>,
    pacing: Pacing,
    snapshotted: Instant,
    /// Whether the round under way writes ids down.
    snapshots: bool,
    /// Rests while the log cannot be read.
    log_rest: Backoff,
}

/// Revoked partitions on their way out.
struct Leaving {
    partitions: Vec<u32>,
    /// Those whose last commit was not handed over yet. They are counted no further.
    due: Vec<u32>,
    deadline: Instant,
}

impl Default for Counting {
    fn default() -> Self {
        let now = Instant::now();
        Self {
            owned: BTreeMap::new(),
            leaving: None,
            pacing: Pacing::new(now),
            snapshotted: now,
            snapshots: false,
            log_rest: Backoff::new(),
        }
    }
}

impl Counter {
    /// Runs until drained or failed.
    pub(crate) fn run(mut self) {
        shorten();
        while self.progress.failure().is_none() {
            let draining = self.draining.load(Ordering::Acquire);
            if !draining {
                self.follow_assignment();
            }
            self.take_recovered();
            self.take_outcome();
            self.let_go();
            let counted = self.round();
            // Whoever is alone counts what the log holds; others go on where this
            // node stops.
            if draining && (!counted || !self.assignment.is_exclusive()) {
                self.last_commit();
                break;
            }
            self.hand_over();
            if !counted {
                self.log.wait(IDLE_WAIT.min(self.cadence.commit_every));
            }
        }
        // Ends all terms, so that the recovery thread stops where it is.
        self.committer.finish();
        self.assignment.leave();
        self.recovery.finish();
    }

    fn follow_assignment(&mut self) {
        let changes = match self.assignment.poll() {
            Ok(changes) => changes,
            Err(error) => return self.log_failed(&error),
        };
        for change in changes {
            tracing::debug!("counting: {change:?}");
            self.progress.rebalances.fetch_add(1, Ordering::Relaxed);
            match change {
                Change::Assigned(partitions) => {
                    partitions.into_iter().for_each(|partition| self.ask_for(partition));
                    self.progress.joined.store(true, Ordering::Release);
                }
                Change::Revoked(partitions) => self.begin_leaving(partitions),
                Change::Lost(partitions) => partitions.into_iter().for_each(|partition| self.drop_partition(partition)),
            }
        }
    }

    fn ask_for(&mut self, partition: u32) {
        self.progress.of(partition).stand(Standing::Recovering);
        self.recovery.order(self.assignment.begin(partition));
    }

    fn take_recovered(&mut self) {
        while let Some((term, owned)) = self.recovery.take() {
            if self.assignment.holds(term) {
                let progress = self.progress.of(term.partition);
                progress.ends_at_least(owned.authoritative_from);
                progress.committed_offset.store(owned.processor.next_offset(), Ordering::Release);
                publish(progress, &owned);
                self.state.owned.insert(term.partition, owned);
            }
        }
    }

    fn drop_partition(&mut self, partition: u32) {
        self.assignment.end(partition);
        self.cells.withdraw(partition);
        self.state.owned.remove(&partition);
        self.progress.of(partition).leave();
    }

    /// Counts no more of what was revoked; its last commit goes out next.
    fn begin_leaving(&mut self, partitions: Vec<u32>) {
        let due = partitions.clone();
        self.state.leaving = Some(Leaving { partitions, due, deadline: Instant::now() + RELEASE_MAX });
    }

    /// Brings revoked partitions to the book, then lets them go.
    fn let_go(&mut self) {
        let Some(mut leaving) = self.state.leaving.take() else { return };
        let is_late = Instant::now() >= leaving.deadline;
        if is_late {
            tracing::warn!("partitions {:?} go uncommitted: the totals book did not answer", leaving.partitions);
        } else if self.committer.is_busy() {
            self.state.leaving = Some(leaving);
            return;
        }
        let batch = if is_late { Batch::default() } else { self.batch_of(&mut leaving.due, true) };
        if !batch.is_empty() {
            self.committer.send(batch);
            self.state.leaving = Some(leaving);
            return;
        }
        leaving.partitions.iter().for_each(|partition| self.drop_partition(*partition));
        if let Err(error) = self.assignment.release() {
            tracing::warn!("the consumer group was not told of a release: {}", with_causes(&error));
        }
    }

    fn take_outcome(&mut self) {
        let Some(outcome) = self.committer.take() else { return };
        self.state.pacing.committed(Instant::now(), outcome.took);
        self.assignment.hint(&outcome.committed);
        for Fenced { partition, epoch, why } in outcome.fenced {
            if self.assignment.is_exclusive() {
                self.progress.fail(format!("the totals book refused a commit: {why}"));
            } else if self.state.owned.get(&partition).is_some_and(|owned| owned.epoch == epoch)
                && !self.is_leaving(partition)
            {
                tracing::warn!("{why}; its state is dropped");
                self.drop_partition(partition);
                // Asked for again, in case that the other owner is gone: whoever is
                // not assigned it any more never gets as far as a claim.
                self.ask_for(partition);
            }
        }
    }

    fn is_leaving(&self, partition: u32) -> bool {
        self.state.leaving.as_ref().is_some_and(|leaving| leaving.partitions.contains(&partition))
    }

    /// Counts a stretch of every partition; whether there was anything to count.
    fn round(&mut self) -> bool {
        if self.state.log_rest.is_resting() {
            return false;
        }
        let exceptions_full = self.pending_exceptions() > PENDING_EXCEPTIONS_MAX;
        let (mut any, mut turn) = (false, Turn::begin());
        let partitions: Vec<u32> = self.staying().collect();
        for partition in partitions {
            let rows = self.state.owned.get(&partition).map_or(0, |owned| owned.processor.pending_rows());
            if exceptions_full || rows > PENDING_ROWS_MAX {
                let why = "paused: too much is waiting for the totals book";
                self.progress.of(partition).stuck(StageName::Count, why);
                continue;
            }
            match self.count(partition, &mut turn) {
                Ok(counted) => any |= counted,
                Err(error) => {
                    self.log_failed(&error);
                    return any;
                }
            }
            self.keep_up(partition);
        }
        self.state.log_rest.reset();
        any
    }

    fn count(&mut self, partition: u32, turn: &mut Turn) -> Result<bool, LogError> {
        let Some(owned) = self.state.owned.get_mut(&partition) else { return Ok(false) };
        let progress = self.progress.of(partition);
        let before = owned.processor.next_offset();
        let entries = self.log.read(partition, before, READ_BYTES_MAX)?;
        let handled = entries.iter().try_for_each(|entry| {
            turn.give_way();
            owned.handle(entry)
        });
        match handled {
            Ok(()) => progress.moved(StageName::Count),
            Err(refusal) => progress.stuck(StageName::Count, refusal.to_string()),
        }
        let counted = owned.processor.next_offset() > before;
        if counted {
            owned.moved = Instant::now();
        }
        progress.ends_at_least(entries.last().map_or(before, |last| last.offset + 1));
        publish(progress, owned);
        Ok(counted)
    }

    /// Makes a partition that has caught up authoritative, and moves an idle one's
    /// log time.
    fn keep_up(&mut self, partition: u32) {
        let Some(owned) = self.state.owned.get_mut(&partition) else { return };
        let progress = self.progress.of(partition);
        if progress.standing() == Standing::Authoritative {
            if owned.moved.elapsed() >= TICK_EVERY {
                owned.moved = Instant::now();
                // One that does not arrive is followed by the next.
                drop(self.appender.append(partition, encode_control(&Control::Tick, Origin::default())));
            }
            return;
        }
        if owned.processor.next_offset() < owned.authoritative_from {
            return;
        }
        match took_over(owned, partition, &mut self.announcer, self.appender.as_ref()) {
            Ok(true) => {
                progress.epoch.store(owned.epoch, Ordering::Release);
                self.cells.show(partition, owned.live.clone());
                progress.stand(Standing::Authoritative);
            }
            Ok(false) => {}
            Err(error) => self.progress.fail(format!("{error:#}")),
        }
    }

    fn log_failed(&mut self, error: &LogError) {
        let why = format!("the log cannot be read: {}", with_causes(error));
        if !log_may_recover(error) {
            return self.progress.fail(why);
        }
        for partition in self.state.owned.keys() {
            self.progress.of(*partition).stuck(StageName::Count, why.clone());
        }
        self.state.log_rest.rest();
    }

    /// Begins a round of commits when it is time, or goes on with the one under way.
    fn hand_over(&mut self) {
        if self.committer.is_busy() {
            return;
        }
        let now = Instant::now();
        if self.state.pacing.may_begin(now, self.cadence.commit_every, self.is_pressed()) {
            self.state.snapshots = self.state.snapshotted.elapsed() >= self.cadence.snapshot_every;
            if self.state.snapshots {
                self.state.snapshotted = now;
            }
            let partitions: Vec<u32> = self.staying().collect();
            self.state.pacing.begin(now, partitions.into_iter());
        }
        let mut due = std::mem::take(self.state.pacing.due());
        due.retain(|partition| !self.is_leaving(*partition));
        let batch = self.batch_of(&mut due, self.state.snapshots);
        *self.state.pacing.due() = due;
        if !batch.is_empty() {
            self.committer.send(batch);
        }
    }

    /// Whether some partition would have to pause soon.
    fn is_pressed(&self) -> bool {
        let half_full = |owned: &Owned| owned.processor.pending_rows() > PENDING_ROWS_MAX / 2;
        self.pending_exceptions() > PENDING_EXCEPTIONS_MAX / 2 || self.state.owned.values().any(half_full)
    }

    fn pending_exceptions(&self) -> usize {
        self.state.owned.values().map(|owned| owned.processor.pending_exceptions()).sum()
    }

    fn staying(&self) -> impl Iterator<Item = u32> + '_ {
        self.state.owned.keys().copied().filter(|partition| !self.is_leaving(*partition))
    }

    /// What the next of `due` changed, as many of them as fit; they are taken from its
    /// end. Empty only when none of them has anything.
    fn batch_of(&mut self, due: &mut Vec<u32>, snapshot: bool) -> Batch {
        let (mut batch, mut rows, mut turn) = (Batch::default(), 0, Turn::begin());
        while rows < BATCH_ROWS_MAX
            && let Some(partition) = due.pop()
        {
            if let Some(owned) = self.state.owned.get_mut(&partition) {
                rows += owned.processor.pending_rows();
                turn.give_way();
                gather(&mut batch, partition, (owned, &mut turn), snapshot);
            }
        }
        batch
    }

    /// Commits what was counted, before the node stops.
    fn last_commit(&mut self) {
        let deadline = Instant::now() + DRAIN_MAX;
        // Those that leave first: their successor waits.
        let mut due: Vec<u32> = self.staying().collect();
        due.extend(self.state.leaving.take().into_iter().flat_map(|leaving| leaving.due));
        loop {
            self.await_outcome(deadline);
            let batch = self.batch_of(&mut due, true);
            if batch.is_empty() || self.committer.is_busy() {
                break;
            }
            self.committer.send(batch);
        }
    }

    fn await_outcome(&mut self, deadline: Instant) {
        while self.committer.is_busy() && self.progress.failure().is_none() && Instant::now() < deadline {
            self.take_outcome();
            if self.committer.is_busy() {
                std::thread::sleep(IDLE_WAIT);
            }
        }
    }
}

/// Whether the log says that this node owns the partition, and holds what it stands
/// for. Whatever an earlier owner still decides then stands behind that, and is void.
fn took_over(
    owned: &mut Owned,
    partition: u32,
    announcer: &mut Announcer,
    log: &dyn LogAppender,
) -> anyhow::Result<bool> {
    let mut takeover = match owned.takeover.take() {
        Some(takeover) => takeover,
        None => Takeover::new(announcer.envelopes(partition, owned)?),
    };
    let is_told = takeover.go_on(partition, log)?;
    owned.takeover = Some(takeover);
    // A newer one says that this node was followed.
    Ok(is_told && owned.processor.quota_epoch() == owned.epoch)
}

/// Adds what a partition changed to a batch.
fn gather(batch: &mut Batch, partition: u32, (owned, turn): (&mut Owned, &mut Turn), snapshot: bool) {
    let commit = owned.processor.poll_commit_in_pieces(|| turn.give_way());
    batch.commits.extend(commit.map(|commit| OwnedCommit { epoch: owned.epoch, commit }));
    // The committer writes it once the book has all that it covers.
    if snapshot && owned.snapshot_offset < owned.processor.next_offset() {
        owned.snapshot_offset = owned.processor.next_offset();
        batch.snapshots.push((partition, owned.processor.snapshot()));
    }
}

fn publish(progress: &PartitionProgress, owned: &Owned) {
    let processor = &owned.processor;
    let (ids, since) = processor.dedupe_window();
    progress.log_time_ms.store(processor.log_time().0, Ordering::Relaxed);
    progress.ids.store(ids as u64, Ordering::Relaxed);
    progress.ids_since_ms.store(since.map_or(0, |t| t.0), Ordering::Relaxed);
    progress.set_counts(processor.counts());
    progress.counted_to(processor.next_offset());
}
