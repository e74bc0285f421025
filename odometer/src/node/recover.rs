//! Takes every partition up where the totals book left it: claim, restore, and learn
//! the ids again that no snapshot holds.

use std::path::Path;

use anyhow::{Context, ensure};
use odometer_aggregator::{LiveCells, Options, Processor};
use odometer_ingest::log::LogReader;
use odometer_schemas::commit::PartitionState;
use odometer_sink::BookError;
use odometer_sink::totals::{Claim, OwnedCommit, TotalsBook};

use super::snapshots;

/// Log bytes read at once while learning.
const READ_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Offsets whose exceptions are fetched at once.
const EXCEPTIONS_OFFSETS: u64 = 16 * 1024;

/// A partition that this node owns.
pub(crate) struct Owned {
    pub(crate) processor: Processor,
    pub(crate) epoch: u64,
    /// The offset that the newest snapshot file reaches.
    pub(crate) snapshot_offset: u64,
}

/// Claims and recovers one partition.
pub(crate) fn recover(
    options: Options,
    book: &mut dyn TotalsBook,
    log: &mut dyn LogReader,
    snapshots_dir: &Path,
    cells: &LiveCells,
) -> anyhow::Result<Owned> {
    let partition = options.partition;
    let state = claim(book, partition).with_context(|| format!("partition {partition} cannot be claimed"))?;
    let bounds = log.bounds(partition)?;
    ensure!(
        (bounds.start_offset..=bounds.end_offset).contains(&state.next_offset),
        "partition {partition}: the totals book is at offset {}, the log holds {}..{}; log and book do not belong together or the log was cut",
        state.next_offset,
        bounds.start_offset,
        bounds.end_offset
    );
    let snapshot = snapshots::read(snapshots_dir, partition);
    let (epoch, snapshot_offset) = (state.epoch, snapshot.as_ref().map_or(0, |s| s.next_offset));
    let mut processor = Processor::restore(options, &state, snapshot, cells.clone())?;
    learn(&mut processor, partition, book, log, bounds.start_offset)?;
    Ok(Owned { processor, epoch, snapshot_offset })
}

/// Claims from the epoch that the book is at.
fn claim(book: &mut dyn TotalsBook, partition: u32) -> Result<PartitionState, BookError> {
    let cursor = book.cursors()?.into_iter().find(|cursor| cursor.partition == partition);
    let from_epoch = cursor.map_or(0, |cursor| cursor.epoch);
    book.claim(&Claim { partition, from_epoch, owner: String::new() })
}

fn learn(
    processor: &mut Processor,
    partition: u32,
    book: &mut dyn TotalsBook,
    log: &mut dyn LogReader,
    start_offset: u64,
) -> anyhow::Result<()> {
    let until = processor.next_offset();
    let mut from = processor.learn_from().max(start_offset);
    while from < until {
        let to = until.min(from + EXCEPTIONS_OFFSETS);
        let exceptions = book.exceptions(partition, from..to)?;
        while from < to {
            let entries = log.read(partition, from, READ_BYTES_MAX)?;
            let Some(last) = entries.last().map(|entry| entry.offset) else { break };
            for entry in entries.iter().filter(|entry| entry.offset < to) {
                let found = exceptions.binary_search_by_key(&entry.offset, |row| row.offset);
                processor.learn(entry, found.ok().map(|at| exceptions[at].verdicts.as_slice()));
            }
            from = (last + 1).min(to);
        }
        // The log may end in a gap below the cursor.
        from = from.max(to);
    }
    Ok(())
}

/// Counts what the log holds beyond the totals book, so that the node starts with
/// authoritative answers.
pub(crate) fn catch_up(
    owned: &mut Owned,
    partition: u32,
    book: &mut dyn TotalsBook,
    log: &mut dyn LogReader,
) -> anyhow::Result<()> {
    loop {
        let entries = log.read(partition, owned.processor.next_offset(), READ_BYTES_MAX)?;
        if entries.is_empty() {
            return Ok(());
        }
        for entry in &entries {
            owned.processor.handle(entry)?;
        }
        if let Some(commit) = owned.processor.poll_commit() {
            book.commit(&[OwnedCommit { epoch: owned.epoch, commit }])?;
        }
    }
}
