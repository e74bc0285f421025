//! The raw book's thread: follows the totals cursor through the log, gathers judged
//! rows and writes them. Slow or unreachable, it holds up nobody: the log is its
//! buffer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use odometer_ingest::log::LogReader;
use odometer_schemas::digest::Hasher;
use odometer_sink::raw::{RawBatch, RawBook, RawGatherer};
use odometer_sink::totals::TotalsBook;

use super::progress::{Progress, StageName, with_causes};

/// Log bytes read from one partition at once.
const READ_BYTES_MAX: usize = 1024 * 1024;
/// How long an idle round waits for the totals book to move.
const IDLE_WAIT: Duration = Duration::from_millis(200);
/// Longest pause between two attempts while the book cannot be reached.
const RETRY_MAX: Duration = Duration::from_secs(2);

/// When to write what was gathered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gathering {
    pub(crate) rows_max: usize,
    pub(crate) every: Duration,
}

pub(crate) struct RawWriter {
    pub(crate) log: Box<dyn LogReader>,
    pub(crate) totals: Box<dyn TotalsBook>,
    pub(crate) book: Box<dyn RawBook>,
    pub(crate) hasher: Hasher,
    pub(crate) progress: Arc<Progress>,
    pub(crate) gathering: Gathering,
    /// Set when the totals book will not move any more: write all of it, end.
    pub(crate) draining: Arc<AtomicBool>,
}

impl RawWriter {
    /// Runs until drained or failed.
    pub(crate) fn run(mut self) {
        if let Err(error) = self.follow() {
            self.progress.fail(format!("the raw book cannot follow: {error:#}"));
        }
    }

    fn follow(&mut self) -> anyhow::Result<()> {
        let mut gatherer = self.open()?;
        let mut written = Instant::now();
        let mut seen = 0;
        while self.progress.failure().is_none() {
            let draining = self.draining.load(Ordering::Acquire);
            let fed = self.round(&mut gatherer)?;
            let full = gatherer.is_full() || gatherer.rows() >= self.gathering.rows_max;
            if full || !fed && draining || written.elapsed() >= self.gathering.every {
                if let Some(batch) = gatherer.take()? {
                    self.write(&batch)?;
                }
                written = Instant::now();
            }
            if !fed {
                if draining {
                    return Ok(());
                }
                seen = self.progress.await_commit(seen, IDLE_WAIT.min(self.gathering.every));
            }
        }
        Ok(())
    }

    /// Finds the book's cursors; the open range's rollups are rebuilt from the log.
    fn open(&mut self) -> anyhow::Result<RawGatherer> {
        let mut gatherer = RawGatherer::new(self.hasher);
        let cursors = self.book.cursors()?;
        for partition in 0..self.log.partitions() {
            let cursor = cursors.iter().find(|c| c.partition == partition).map_or(0, |c| c.next_offset);
            let start = odometer_sink::raw::range_start(cursor);
            let log_start = self.log.bounds(partition)?.start_offset;
            ensure!(
                log_start <= start,
                "partition {partition}: the raw book needs the log from offset {start} on, which starts at {log_start}"
            );
            let definitions = self.totals.definitions_at(partition, start)?;
            gatherer.open(partition, cursor, definitions);
            self.progress.of(partition).raw_offset.store(cursor, Ordering::Release);
        }
        Ok(gatherer)
    }

    /// Feeds a stretch of every partition; whether there was anything to feed.
    fn round(&mut self, gatherer: &mut RawGatherer) -> anyhow::Result<bool> {
        let mut any = false;
        for partition in 0..self.log.partitions() {
            let from = gatherer.next_offset(partition).unwrap_or(0);
            let until = self.progress.of(partition).committed_offset.load(Ordering::Acquire);
            if from >= until || gatherer.is_full() {
                continue;
            }
            any = true;
            let mut entries = self.log.read(partition, from, READ_BYTES_MAX)?;
            entries.retain(|entry| entry.offset < until);
            let Some(last) = entries.last().map(|entry| entry.offset) else {
                gatherer.advance(partition, until);
                continue;
            };
            let exceptions = self.totals.exceptions(partition, from..last + 1)?;
            for entry in &entries {
                let found = exceptions.binary_search_by_key(&entry.offset, |row| row.offset);
                gatherer.feed(entry, found.ok().map(|at| &exceptions[at]))?;
            }
        }
        Ok(any)
    }

    /// Repeats until the book has the batch.
    fn write(&mut self, batch: &RawBatch) -> anyhow::Result<()> {
        let started = Instant::now();
        let mut pause = Duration::from_millis(50);
        while let Err(error) = self.book.write(batch) {
            if !error.is_retryable() || self.progress.failure().is_some() {
                return Err(error).context("a batch was refused");
            }
            for cursor in batch.cursors() {
                self.progress.of(cursor.partition).stuck(StageName::Raw, with_causes(&error));
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(RETRY_MAX);
        }
        metrics::histogram!("odometer_book_commit_seconds", "book" => "raw").record(started.elapsed());
        for cursor in batch.cursors() {
            let progress = self.progress.of(cursor.partition);
            progress.raw_offset.store(cursor.next_offset, Ordering::Release);
            progress.moved(StageName::Raw);
        }
        Ok(())
    }
}
