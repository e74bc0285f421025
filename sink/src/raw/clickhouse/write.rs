//! One batch into the engine, which has no transactions: rows and undecodable entries
//! first, then rollups, then the cursors, each only when the engine answers that it
//! holds what came before.
//!
//! So a reader that sees a rollup may rely on its rows, and a cursor speaks for
//! everything below it. Whatever stops half-way is written again: the same rows
//! replace themselves.

use serde::Deserialize;

use super::super::{RawBatch, RawCursor};
use super::block::NativeBlock;
use super::link::Link;
use super::pieces::{self, Tallies, Tally};
use super::{BOOK, read};
use crate::error::BookError;

/// How often a piece is sent when the engine took it and yet does not hold it. Once is
/// a lost part; more is a fault that a pause may end.
const SENDS_MAX: usize = 3;

/// Writes a batch unless the cursors say that it was written. `doubtful`: an earlier
/// attempt may have left some of it, so the engine is asked before anything is sent.
pub(super) fn batch(link: &Link, batch: &RawBatch, doubtful: &mut bool) -> Result<(), BookError> {
    if is_written(&read::cursors(link)?, batch)? {
        *doubtful = false;
        return Ok(());
    }
    let ask_first = std::mem::replace(doubtful, true);
    records(link, batch, ask_first)?;
    rejected(link, batch, ask_first)?;
    rollups(link, batch, ask_first)?;
    link.insert("moving its cursors", "cursors", pieces::cursors(batch.cursors()))?;
    *doubtful = false;
    Ok(())
}

/// Whether every cursor stands behind the batch; all of them must stand on the same
/// side of it.
fn is_written(cursors: &[RawCursor], batch: &RawBatch) -> Result<bool, BookError> {
    let found = |partition: u32| {
        let place = cursors.binary_search_by_key(&partition, |cursor| cursor.partition);
        place.map_or(0, |place| cursors[place].next_offset)
    };
    if batch.cursors().iter().all(|cursor| found(cursor.partition) == cursor.next_offset) {
        return Ok(true);
    }
    let moved = batch.cursors().iter().find(|cursor| found(cursor.partition) != cursor.from_offset);
    match moved {
        None => Ok(false),
        Some(cursor) => {
            let partition = cursor.partition;
            Err(BookError::CursorMoved { partition, expected: cursor.from_offset, found: found(partition) })
        }
    }
}

fn records(link: &Link, batch: &RawBatch, ask_first: bool) -> Result<(), BookError> {
    if batch.is_empty() {
        return Ok(());
    }
    let confirmation = Confirmation {
        what: "rows",
        wanted: pieces::records_tally(batch),
        table: "usage_records",
        position: "partition, offset, idx",
        hash: "row_hash",
        range: format!("{} AND {}", of_append_times(batch), of_offsets("offset", batch)),
    };
    confirmation.send(link, ask_first, || pieces::records(batch))
}

fn rejected(link: &Link, batch: &RawBatch, ask_first: bool) -> Result<(), BookError> {
    if batch.rejected().is_empty() {
        return Ok(());
    }
    let (block, wanted) = pieces::rejected(batch);
    let confirmation = Confirmation {
        what: "undecodable entries",
        wanted,
        table: "rejected_envelopes",
        position: "partition, offset",
        hash: "xxh3(bytes)",
        range: of_offsets("offset", batch),
    };
    confirmation.send(link, ask_first, || vec![block.clone()])
}

fn rollups(link: &Link, batch: &RawBatch, ask_first: bool) -> Result<(), BookError> {
    if batch.rollups.is_empty() {
        return Ok(());
    }
    let (block, wanted) = pieces::rollups(batch);
    let confirmation = Confirmation {
        what: "rollups",
        wanted,
        table: "usage_rollups",
        position: "tenant, meter, window_start, dimensions, partition, range_start, last_offset",
        hash: "records + reinterpretAsUInt64(sum)",
        // A row's version is the last offset that it has seen, which is the batch's.
        range: format!("{} AND {}", of_append_times(batch), of_offsets("last_offset", batch)),
    };
    confirmation.send(link, ask_first, || vec![block.clone()])
}

/// In SQL: whether `column` lies in the batch's range of the row's partition. No row has
/// a negative one, so a partition that the batch does not touch has none. What all
/// ranges share comes first: the engine can look that up.
fn of_offsets(column: &str, batch: &RawBatch) -> String {
    let moves = batch.cursors().iter();
    let least = moves.clone().map(|cursor| cursor.from_offset).min().unwrap_or(0);
    let end = moves.clone().map(|cursor| cursor.next_offset).max().unwrap_or(0);
    let starts = read::per_partition(moves.clone().map(|cursor| (cursor.partition, cursor.from_offset)));
    let ends = read::per_partition(moves.map(|cursor| (cursor.partition, cursor.next_offset)));
    format!("{column} >= {least} AND {column} < {end} AND {column} >= {starts} AND {column} < {ends}")
}

/// In SQL: whether the row was appended when the batch's were. Parts are known by their
/// append times, so only those that may hold the batch are read.
fn of_append_times(batch: &RawBatch) -> String {
    let (oldest, newest) = pieces::append_times(batch);
    let (oldest, newest) = (read::time_literal(oldest), read::time_literal(newest));
    format!("append_time >= {oldest} AND append_time <= {newest}")
}

/// What the engine must hold of a piece, and how it is asked.
struct Confirmation {
    what: &'static str,
    wanted: Tallies,
    table: &'static str,
    /// What makes a row another one.
    position: &'static str,
    hash: &'static str,
    /// Which rows may be the piece's; nothing else may be among them.
    range: String,
}

/// One partition of an answer.
#[derive(clickhouse::Row, Deserialize)]
struct Group {
    partition: u32,
    rows: u64,
    hash: u64,
}

const CONFIRMING: &str = "confirming a batch";

impl Confirmation {
    /// Sends the blocks until the engine holds them.
    fn send(&self, link: &Link, ask_first: bool, blocks: impl Fn() -> Vec<NativeBlock>) -> Result<(), BookError> {
        if ask_first && self.holds(link)? {
            return Ok(());
        }
        for _ in 0..SENDS_MAX {
            for block in blocks() {
                link.insert("writing a batch", self.table, block)?;
            }
            if self.holds(link)? {
                return Ok(());
            }
        }
        Err(self.short(link))
    }

    /// Rows and checksums without counting any position twice. Rows that were not sent
    /// twice, nearly always, need no look at their positions: their number and sum
    /// agree at once.
    fn holds(&self, link: &Link) -> Result<bool, BookError> {
        Ok(self.found(link, "")? == self.wanted || self.found(link, "DISTINCT")? == self.wanted)
    }

    fn found(&self, link: &Link, distinct: &str) -> Result<Tallies, BookError> {
        let Self { table, position, hash, range, .. } = self;
        let rows = format!("SELECT {distinct} {position}, {hash} AS hash_of_row FROM {table} WHERE {range}");
        let sql = format!(
            "SELECT partition, count() AS rows, sumWithOverflow(hash_of_row) AS hash FROM ({rows}) GROUP BY partition"
        );
        let mut found = Tallies::new();
        link.each::<Group>(CONFIRMING, link.query(&sql), |group| {
            found.insert(group.partition, Tally { rows: group.rows, hash: group.hash });
            Ok(())
        })?;
        Ok(found)
    }

    fn short(&self, link: &Link) -> BookError {
        let count = |tallies: &Tallies| tallies.values().map(|tally| tally.rows).sum::<u64>();
        let found = self.found(link, "DISTINCT").map_or_else(|e| e.to_string(), |found| count(&found).to_string());
        let problem = format!(
            "the engine took {} {} for {}, and holds {found} there; the batch is sent again",
            count(&self.wanted),
            self.what,
            self.table
        );
        BookError::Storage { book: BOOK, doing: CONFIRMING, retryable: true, source: problem.into() }
    }
}
