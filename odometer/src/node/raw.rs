//! The raw book's thread: follows the totals cursors through the log, gathers judged
//! rows of the partitions that it owns, and hands them to the [`pen`](super::pen), which
//! writes one batch while the next is gathered. Slow or unreachable, it holds up nobody:
//! the log is its buffer.
//!
//! What it needs to know stands in the books, so whenever its partitions change or a
//! book fails, it starts again from their cursors.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use odometer_ingest::log::{LogError, LogReader};
use odometer_schemas::digest::Hasher;
use odometer_sink::BookError;
use odometer_sink::raw::{GatherError, RawBatch, RawBook, RawGatherer};
use odometer_sink::totals::TotalsBook;

use super::backoff::Backoff;
use super::footing::{Change, Ownership, log_may_recover};
use super::pen::{Pen, Stroke};
use super::progress::{Progress, StageName, with_causes};
use crate::slices::{Turn, stand_back};

/// Log bytes read from one partition at once: reading keeps nobody else from the
/// processor for long.
const READ_BYTES_MAX: usize = 256 * 1024;
/// How long an idle round waits for the totals book to move. Commits of this process
/// end the wait at once, those of others are seen after it.
const IDLE_WAIT: Duration = Duration::from_millis(200);
/// How long a node that is not alone may write on when it stops; the next owner goes
/// on from the book's cursors.
const DRAIN_MAX: Duration = Duration::from_secs(10);

/// When to write what was gathered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gathering {
    pub(crate) rows_max: usize,
    pub(crate) every: Duration,
}

pub(crate) struct RawWriter {
    pub(crate) log: Box<dyn LogReader>,
    pub(crate) totals: Box<dyn TotalsBook>,
    /// Asked for cursors only.
    pub(crate) book: Box<dyn RawBook>,
    pub(crate) pen: Pen,
    pub(crate) ownership: Box<dyn Ownership>,
    pub(crate) hasher: Hasher,
    pub(crate) progress: Arc<Progress>,
    pub(crate) gathering: Gathering,
    /// Set when the node drains: write what the totals book has, end.
    pub(crate) draining: Arc<AtomicBool>,
    /// What it writes.
    pub(crate) partitions: BTreeSet<u32>,
    /// Where the next round begins: a batch that is full must not leave the same
    /// partitions behind each time, and rows of one batch should be of one time.
    pub(crate) turn: u32,
    /// Changes that were heard of and not taken up yet.
    pub(crate) news: Vec<Change>,
}

/// Why following had to stop.
#[derive(Debug, thiserror::Error)]
enum RawError {
    #[error("the log cannot be read")]
    Log(#[from] LogError),
    #[error(transparent)]
    Book(#[from] BookError),
    #[error(transparent)]
    Gather(#[from] GatherError),
    #[error("partition {partition}: the raw book needs the log from offset {start} on, which starts at {log_start}")]
    Cut { partition: u32, start: u64, log_start: u64 },
}

/// Why a session with the books ended.
enum End {
    /// Everything is written, and the node drains.
    Drained,
    /// The partitions are others now.
    Changed,
}

impl RawWriter {
    /// Runs until drained or failed.
    pub(crate) fn run(mut self) {
        stand_back();
        let mut backoff = Backoff::new();
        while self.progress.failure().is_none() {
            match self.session(&mut backoff) {
                Ok(End::Drained) => break,
                Ok(End::Changed) => {}
                Err(error) if self.may_recover(&error) => {
                    for partition in &self.partitions {
                        self.progress.of(*partition).stuck(StageName::Raw, with_causes(&error));
                    }
                    if self.draining.load(Ordering::Acquire) && !self.ownership.is_exclusive() {
                        break;
                    }
                    backoff.sleep();
                }
                Err(error) => self.progress.fail(format!("the raw book cannot follow: {}", with_causes(&error))),
            }
        }
        self.ownership.leave();
        self.pen.finish();
    }

    fn may_recover(&self, error: &RawError) -> bool {
        match error {
            RawError::Log(error) => log_may_recover(error),
            // Another node was the owner, or still thought so.
            RawError::Book(BookError::CursorMoved { .. }) => !self.ownership.is_exclusive(),
            RawError::Book(error) => error.is_retryable(),
            RawError::Gather(_) | RawError::Cut { .. } => false,
        }
    }

    /// Follows from the books' cursors on, as long as the partitions stay the same.
    fn session(&mut self, backoff: &mut Backoff) -> Result<End, RawError> {
        // Nobody moves the cursors while they are read.
        drop(self.pen.wait());
        if self.follow_ownership(None)? {
            return Ok(End::Changed);
        }
        let mut gatherer = self.open()?;
        let mut upstream = self.committed()?;
        let (mut written, mut seen) = (Instant::now(), 0);
        let mut drain_until = None;
        while self.progress.failure().is_none() {
            let draining = self.draining.load(Ordering::Acquire);
            if draining && drain_until.is_none() {
                drain_until = Some(Instant::now() + DRAIN_MAX);
                upstream = self.committed()?;
            }
            if let Some(stroke) = self.pen.poll() {
                self.finish_stroke(stroke)?;
                backoff.reset();
            }
            let fed = self.round(&mut gatherer, &upstream)?;
            let full = gatherer.is_full() || gatherer.rows() >= self.gathering.rows_max;
            if full || !fed && draining || written.elapsed() >= self.gathering.every {
                self.write(gatherer.take()?)?;
                written = Instant::now();
            }
            let is_late = drain_until.is_some_and(|until| Instant::now() >= until);
            if draining && (!fed || is_late && !self.ownership.is_exclusive()) {
                self.settle()?;
                return Ok(End::Drained);
            }
            if !draining && self.follow_ownership(Some(&mut gatherer))? {
                return Ok(End::Changed);
            }
            if !fed {
                let idle = IDLE_WAIT.min(self.gathering.every);
                if self.pen.is_writing() {
                    // What it has done is told at once.
                    self.pen.wait_for(idle).map_or(Ok(()), |stroke| self.finish_stroke(stroke))?;
                } else {
                    seen = self.progress.await_commit(seen, idle);
                }
                upstream = self.committed()?;
            }
        }
        Ok(End::Drained)
    }

    /// Takes up what changed; whether anything did. Rows of partitions that go are
    /// written first.
    fn follow_ownership(&mut self, gatherer: Option<&mut RawGatherer>) -> Result<bool, RawError> {
        self.news.extend(self.ownership.poll(Duration::ZERO)?);
        let changes = std::mem::take(&mut self.news);
        if changes.is_empty() {
            return Ok(false);
        }
        if let Some(gatherer) = gatherer
            && changes.iter().all(|change| !matches!(change, Change::Lost(_)))
        {
            // What is not written is gathered again by whoever owns it next.
            let taken = gatherer.take().map_err(RawError::from);
            let written = taken.and_then(|batch| self.write(batch)).and_then(|()| self.settle());
            if let Err(error) = written {
                tracing::debug!("rows of partitions that go were not written: {}", with_causes(&error));
            }
        }
        for change in changes {
            tracing::debug!("raw: {change:?}");
            match change {
                Change::Assigned(partitions) => self.partitions.extend(partitions),
                Change::Revoked(partitions) => {
                    self.forget(&partitions);
                    self.ownership.release()?;
                }
                Change::Lost(partitions) => self.forget(&partitions),
            }
        }
        Ok(true)
    }

    fn forget(&mut self, partitions: &[u32]) {
        for partition in partitions {
            self.partitions.remove(partition);
            let progress = self.progress.of(*partition);
            progress.writes_raw.store(false, Ordering::Release);
            progress.raw_offset.store(0, Ordering::Release);
            progress.moved(StageName::Raw);
        }
    }

    /// Finds the book's cursors; the open range's rollups are rebuilt from the log.
    fn open(&mut self) -> Result<RawGatherer, RawError> {
        let mut gatherer = RawGatherer::new(self.hasher);
        let cursors = self.book.cursors()?;
        for partition in self.partitions.iter().copied() {
            let cursor = cursors.iter().find(|c| c.partition == partition).map_or(0, |c| c.next_offset);
            let start = odometer_sink::raw::range_start(cursor);
            let log_start = self.log.bounds(partition)?.start_offset;
            if log_start > start {
                return Err(RawError::Cut { partition, start, log_start });
            }
            let definitions = self.totals.definitions_at(partition, start)?;
            gatherer.open(partition, cursor, definitions);
            let progress = self.progress.of(partition);
            progress.raw_offset.store(cursor, Ordering::Release);
            progress.writes_raw.store(true, Ordering::Release);
            progress.moved(StageName::Raw);
        }
        Ok(gatherer)
    }

    /// How far the totals book is, by partition.
    fn committed(&mut self) -> Result<BTreeMap<u32, u64>, RawError> {
        let cursors = self.totals.cursors()?;
        for cursor in cursors.iter().filter(|cursor| self.partitions.contains(&cursor.partition)) {
            self.progress.of(cursor.partition).committed_offset.fetch_max(cursor.next_offset, Ordering::AcqRel);
        }
        Ok(cursors.into_iter().map(|cursor| (cursor.partition, cursor.next_offset)).collect())
    }

    /// Feeds a stretch of every partition; whether there was anything to feed.
    fn round(&mut self, gatherer: &mut RawGatherer, upstream: &BTreeMap<u32, u64>) -> Result<bool, RawError> {
        let mut any = false;
        let in_turn = self.partitions.range(self.turn..).chain(self.partitions.range(..self.turn));
        for partition in in_turn.copied().collect::<Vec<u32>>() {
            if gatherer.is_full() {
                self.turn = partition;
                break;
            }
            let until = upstream.get(&partition).copied().unwrap_or(0);
            let from = gatherer.next_offset(partition).unwrap_or(until);
            if from >= until {
                continue;
            }
            let mut entries = self.log.read(partition, from, READ_BYTES_MAX)?;
            if entries.is_empty() {
                // The totals book stands behind an entry that was counted, so this one
                // is only not there yet.
                continue;
            }
            any = true;
            entries.retain(|entry| entry.offset < until);
            let Some(last) = entries.last().map(|entry| entry.offset) else {
                gatherer.advance(partition, until);
                continue;
            };
            let exceptions = self.totals.exceptions(partition, from..last + 1)?;
            let mut turn = Turn::begin();
            for entry in &entries {
                turn.give_way();
                let found = exceptions.binary_search_by_key(&entry.offset, |row| row.offset);
                gatherer.feed(entry, found.ok().map(|at| &exceptions[at]))?;
            }
        }
        Ok(any)
    }

    /// Hands a batch to the pen, once the one before is in the book.
    fn write(&mut self, batch: Option<RawBatch>) -> Result<(), RawError> {
        let Some(batch) = batch else { return Ok(()) };
        self.settle()?;
        self.pen.write(batch);
        Ok(())
    }

    /// Waits until the book has everything that the pen was given.
    fn settle(&mut self) -> Result<(), RawError> {
        match self.pen.wait() {
            Some(stroke) => self.finish_stroke(stroke),
            None => Ok(()),
        }
    }

    /// Repeats what failed until the book has the batch, or the partitions change: then
    /// it is gathered again by whoever owns them.
    fn finish_stroke(&mut self, mut stroke: Stroke) -> Result<(), RawError> {
        let mut backoff = Backoff::new();
        while let Err(error) = stroke.outcome {
            self.news.extend(self.ownership.poll(Duration::ZERO)?);
            let leaves = self.draining.load(Ordering::Acquire) && !self.ownership.is_exclusive();
            if !error.is_retryable() || !self.news.is_empty() || leaves || self.progress.failure().is_some() {
                return Err(error.into());
            }
            for cursor in stroke.batch.cursors() {
                self.progress.of(cursor.partition).stuck(StageName::Raw, with_causes(&error));
            }
            backoff.sleep();
            self.pen.write(stroke.batch);
            let Some(next) = self.pen.wait() else { return Ok(()) };
            stroke = next;
        }
        metrics::histogram!("odometer_book_commit_seconds", "book" => "raw").record(stroke.elapsed);
        for cursor in stroke.batch.cursors() {
            let progress = self.progress.of(cursor.partition);
            progress.raw_offset.store(cursor.next_offset, Ordering::Release);
            progress.moved(StageName::Raw);
        }
        Ok(())
    }
}
