//! The one thread that writes: commands in, commits and answers out. A failed commit
//! is answered to everyone in it and ends nothing; it never panics on what the
//! storage does.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender};

use odometer_schemas::log::LogEntry;
use rusqlite::params;
use tokio::sync::oneshot;

use super::flusher::{Committed, Flusher};
use super::keeper::Keeper;
use super::places::{self, Ends, UNPLACED_MAX};
use super::store::{PAGE_BYTES, Store, failed, is_of_the_disk};
use super::{EmbeddedOptions, Shared, locked};
use crate::log::{AppendError, Appended, LogError};

/// Envelopes that one step of retention removes: a few milliseconds of work, so that
/// appends between two steps do not wait longer.
const REMOVE_ROWS_MAX: u64 = 256;

/// About how many pages of the index change for a partition: seldom more than the last, and one
/// that leads to it.
const PAGES_OF_A_PLACE: usize = 2;

/// What the writer is asked to do.
#[derive(Debug)]
pub(super) enum Command {
    Append(Append),
    Retain(Retain),
    Close,
}

/// An envelope and who waits for it.
#[derive(Debug)]
pub(super) struct Append {
    pub(super) partition: u32,
    pub(super) envelope: Vec<u8>,
    /// Whether the answer waits until the envelope is durable, not only committed.
    pub(super) is_durable: bool,
    pub(super) answer: oneshot::Sender<Result<Appended, AppendError>>,
}

/// A removal, done step by step.
#[derive(Debug)]
pub(super) struct Retain {
    pub(super) partition: u32,
    pub(super) below_offset: u64,
    pub(super) removed: u64,
    pub(super) answer: SyncSender<Result<u64, LogError>>,
}

/// The writer's state.
pub(super) struct Writer {
    flusher: Flusher,
    keeper: Keeper,
    store: Store,
    options: EmbeddedOptions,
    queue: Receiver<Command>,
    shared: Arc<Shared>,
    /// Where everything goes on; none when the file must be asked again.
    ends: Option<Ends>,
    /// Rows that the index may be without.
    unplaced: usize,
    /// Each waits for its caller, so there are as many as there are callers.
    retains: VecDeque<Retain>,
    is_closing: bool,
}

impl Writer {
    pub(super) fn new(
        (store, keeper, flusher): (Store, Keeper, Flusher),
        options: EmbeddedOptions,
        queue: Receiver<Command>,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            flusher,
            keeper,
            store,
            options,
            queue,
            shared,
            ends: None,
            // What the writer before this one left may be as much.
            unplaced: UNPLACED_MAX,
            retains: VecDeque::new(),
            is_closing: false,
        }
    }

    /// Works until it is closed, then empties the queue and tidies the file; or until what
    /// was written cannot be made durable.
    pub(super) fn run(mut self) -> Result<(), LogError> {
        let ended = self.work();
        if ended.is_err() {
            self.store.leave_as_is();
        }
        ended
    }

    fn work(&mut self) -> Result<(), LogError> {
        let mut batch = Vec::new();
        loop {
            self.gather(&mut batch);
            if self.is_closing && batch.is_empty() && self.retains.is_empty() {
                return self.close();
            }
            self.append(&mut batch);
            self.check_flusher()?;
            self.move_rest()?;
            self.retain_step();
        }
    }

    fn close(&mut self) -> Result<(), LogError> {
        self.flusher.end();
        self.check_flusher()?;
        self.keeper.end();
        self.store.fold().map_err(failed("folding its write-ahead log into the file"))?;
        // Another writer may follow.
        self.shared.flushed.iter().for_each(|flushed| flushed.store(u64::MAX, Ordering::Release));
        Ok(())
    }

    /// Lets the write-ahead log begin anew, once little of it is left to move. Pages that the
    /// disk did not take must not be taken for moved: then the writer ends, and the next one
    /// moves all again.
    fn move_rest(&mut self) -> Result<(), LogError> {
        if self.keeper.has_failed() {
            return Err(LogError::Storage { doing: "moving its pages", source: "see the log's warnings".into() });
        }
        if !self.keeper.leaves_the_rest() {
            return Ok(());
        }
        let moved = self.store.move_pages();
        self.keeper.goes_on();
        moved.map(drop).or_else(|error| {
            tracing::warn!("pages of the embedded log were not moved: {error}");
            if is_of_the_disk(&error) { Err(failed("moving its pages")(error)) } else { Ok(()) }
        })
    }

    /// Moves what waits into `batch`, up to a commit's size. Blocks for the first
    /// command when there is nothing else to do.
    fn gather(&mut self, batch: &mut Vec<Append>) {
        let mut bytes = 0;
        let mut may_block = self.retains.is_empty() && !self.is_closing;
        while batch.len() < self.options.batch_envelopes_max && bytes < self.options.batch_bytes_max {
            let next = if may_block { self.queue.recv().ok() } else { self.queue.try_recv().ok() };
            let blocked = std::mem::replace(&mut may_block, false);
            match next {
                Some(Command::Append(append)) => {
                    bytes += append.envelope.len();
                    batch.push(append);
                }
                Some(Command::Retain(retain)) => self.retains.push_back(retain),
                Some(Command::Close) => self.is_closing = true,
                // Nobody is left who could send anything.
                None if blocked => self.is_closing = true,
                None => break,
            }
        }
    }

    /// Commits `batch`, and answers everyone in it who does not wait for the flush.
    fn append(&mut self, batch: &mut Vec<Append>) {
        if batch.is_empty() {
            return;
        }
        if let Some(why) = self.flusher.failure() {
            self.shared.queued_envelopes.fetch_sub(batch.len(), Ordering::Relaxed);
            return refuse(batch, &why);
        }
        match self.commit(batch) {
            Ok(appended) => {
                self.note_success();
                let is_behind = self.flusher.is_behind();
                let all = batch.drain(..).zip(appended).map(|one| committed(one, is_behind));
                self.flusher.take(all.collect());
            }
            Err(error) => {
                self.ends = None;
                self.shared.recent.clear();
                let reason = error.to_string();
                self.shared.failed(&reason);
                self.shared.queued_envelopes.fetch_sub(batch.len(), Ordering::Relaxed);
                refuse(batch, &reason);
            }
        }
    }

    fn commit(&mut self, batch: &[Append]) -> rusqlite::Result<Vec<Appended>> {
        let (now, partitions) = ((self.options.clock)(), self.options.partitions);
        let unplaced = self.unplaced + batch.len();
        let transaction = self.store.begin()?;
        let mut ends = match self.ends.take() {
            Some(ends) => ends,
            None => places::ends(&transaction, partitions)?,
        };
        let mut appended = Vec::with_capacity(batch.len());
        {
            let mut insert = transaction.prepare_cached(
                "INSERT INTO envelopes (number, partition, offset, append_time_ms, bytes) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?;
            for Append { partition, envelope, .. } in batch {
                let (number, entry) = ends.take_next(*partition, now);
                insert.execute(params![number, partition, entry.offset, entry.append_time.0, envelope])?;
                appended.push(entry);
            }
        }
        let is_placed = unplaced >= UNPLACED_MAX;
        if is_placed {
            places::place(&transaction)?;
        }
        transaction.commit()?;
        let place_pages = if is_placed { PAGES_OF_A_PLACE * unplaced.min(partitions as usize) } else { 0 };
        self.keeper.wrote(pages_of(batch) + place_pages);
        self.unplaced = if is_placed { 0 } else { unplaced };
        self.ends = Some(ends);
        Ok(appended)
    }

    /// Keeps what happened for whoever asks after the log's health.
    fn note_success(&self) {
        let mut health = locked(&self.shared.health);
        if std::mem::replace(&mut health.is_failing, false) {
            tracing::info!("the embedded log can be written again");
        }
    }

    /// Ends the writer once nothing can be flushed any more: what waits is told that the log
    /// is closed.
    fn check_flusher(&self) -> Result<(), LogError> {
        let failed = |why: String| LogError::Storage { doing: "flushing", source: why.into() };
        self.flusher.failure().map_or(Ok(()), |why| Err(failed(why)))
    }

    /// One step of the oldest removal; answers it when it is done.
    fn retain_step(&mut self) {
        let Some(mut retain) = self.retains.pop_front() else { return };
        // What is not flushed is nobody's past.
        let flushed = self.shared.flushed[retain.partition as usize].load(Ordering::Acquire);
        retain.below_offset = retain.below_offset.min(flushed);
        self.shared.recent.remove(retain.partition, retain.below_offset);
        let outcome = match self.store.remove(retain.partition, retain.below_offset, REMOVE_ROWS_MAX) {
            Ok(REMOVE_ROWS_MAX) => {
                // At most one a row: rows that lie side by side share them.
                self.keeper.wrote(REMOVE_ROWS_MAX as usize);
                retain.removed += REMOVE_ROWS_MAX;
                self.retains.push_front(retain);
                return;
            }
            Ok(removed) => Ok(retain.removed + removed),
            Err(error) => Err(failed("removing old envelopes")(error)),
        };
        // Whoever stopped waiting does not want to know.
        let _ = retain.answer.send(outcome);
    }
}

/// What was written of `append`, told to who needs no flush, unless flushes are behind.
fn committed((append, appended): (Append, Appended), is_behind: bool) -> Committed {
    let Append { partition, envelope, is_durable, answer } = append;
    let Appended { offset, append_time } = appended;
    let entry = LogEntry { partition, offset, append_time, bytes: envelope.into() };
    if is_durable || is_behind {
        return Committed { entry, answer: Some(answer) };
    }
    // Whoever stopped waiting does not want to know.
    let _ = answer.send(Ok(appended));
    Committed { entry, answer: None }
}

fn refuse(batch: &mut Vec<Append>, why: &str) {
    for append in batch.drain(..) {
        let _ = append.answer.send(Err(AppendError::Unavailable(why.to_owned())));
    }
}

/// About how many pages a commit changes: those of the envelopes, and two that lead to them.
fn pages_of(batch: &[Append]) -> usize {
    let bytes: usize = batch.iter().map(|append| append.envelope.len()).sum();
    bytes / PAGE_BYTES as usize + 3
}

impl Drop for Writer {
    /// Also where it ends in a panic, within a batch.
    fn drop(&mut self) {
        self.shared.recent.close();
    }
}
