//! The whole raw book, as it stood at one moment, for the proof.
//!
//! The engine answers each query from one moment, but no two queries. What makes the
//! answers fit together: everything below a cursor stays as it is, but for the rollups
//! of the range that is still open there. Those are read at once and kept; wherever a
//! batch under way has brought them further than the cursors, its rows are there too,
//! so the cursors that are shown say so. What was written later is not shown.

use std::collections::BTreeMap;
use std::ops::Range;

use odometer_schemas::meter::Aggregation;
use serde::Deserialize;

use super::super::{RawCursor, RawVisitor, RollupRow, range_start, show};
use super::link::Link;
use super::read::{self, StoredEntry, StoredRollup, StoredRow};
use crate::error::BookError;

const SCANNING: &str = "scanning";
/// Rows that are sorted and sent at once, roughly: some hundred megabytes for the
/// engine.
const PIECE_ROWS: u64 = 500_000;
/// Offsets by which rows are counted to cut such pieces: at most 131,072 rows.
const BLOCK_OFFSETS: u64 = 256;
/// Undecodable entries read at once: at most some hundred megabytes.
const ENTRIES_PER_PAGE: usize = 256;

/// Shows everything to `visitor`.
pub(super) fn all(link: &Link, visitor: &mut dyn RawVisitor) -> Result<(), BookError> {
    let written = read::cursors(link)?;
    let mut ends: BTreeMap<u32, u64> = written.iter().map(|cursor| (cursor.partition, cursor.next_offset)).collect();
    let open = open_rollups(link, &written, &mut ends)?;
    let cursor =
        |(partition, next_offset): (&u32, &u64)| RawCursor { partition: *partition, next_offset: *next_offset };
    if visitor.cursors(&ends.iter().map(cursor).collect::<Vec<_>>()).is_break() {
        return Ok(());
    }
    for (partition, offsets) in pieces(link, &ends)? {
        rows(link, partition, &offsets, visitor)?;
    }
    entries(link, &ends, visitor)?;
    complete_rollups(link, &written, visitor)?;
    open.into_iter().try_for_each(|kept| match kept {
        Ok(kept) => show(Ok(kept.row()), |scanned| visitor.rollup(scanned)),
        Err(error) => show(Err(error), |scanned| visitor.rollup(scanned)),
    })
}

/// A rollup row that owns its parts.
struct KeptRollup {
    window_start_ms: i64,
    texts: [String; 3],
    partition: u32,
    offsets: Range<u64>,
    aggregation: Aggregation,
    quantity: i128,
    sum: i128,
    records: u64,
    state: Vec<u8>,
}

impl From<&RollupRow<'_>> for KeptRollup {
    fn from(row: &RollupRow<'_>) -> Self {
        Self {
            window_start_ms: row.window_start_ms,
            texts: [row.tenant, row.meter, row.dimensions].map(str::to_owned),
            partition: row.partition,
            offsets: row.range_start..row.last_offset,
            aggregation: row.aggregation,
            quantity: row.quantity,
            sum: row.sum,
            records: row.records,
            state: row.state.to_owned(),
        }
    }
}

impl KeptRollup {
    fn row(&self) -> RollupRow<'_> {
        let [tenant, meter, dimensions] = self.texts.each_ref().map(String::as_str);
        RollupRow {
            window_start_ms: self.window_start_ms,
            tenant,
            meter,
            dimensions,
            partition: self.partition,
            range_start: self.offsets.start,
            last_offset: self.offsets.end,
            aggregation: self.aggregation,
            quantity: self.quantity,
            sum: self.sum,
            records: self.records,
            state: &self.state,
        }
    }
}

/// The rollups of every range that is not complete below the cursors, and how far they
/// reach. They fit in memory: the writer held all of them at once.
fn open_rollups(
    link: &Link,
    written: &[RawCursor],
    ends: &mut BTreeMap<u32, u64>,
) -> Result<Vec<Result<KeptRollup, BookError>>, BookError> {
    let complete = complete_ranges(written);
    let query = link.query(&format!("SELECT ?fields FROM usage_rollups FINAL WHERE range_start >= {complete}"));
    let mut open = Vec::new();
    link.each::<StoredRollup<'static>>(SCANNING, query, |row| {
        let end = ends.entry(row.partition).or_default();
        *end = (*end).max(row.last_offset.saturating_add(1));
        open.push(row.read().map(|row| KeptRollup::from(&row)));
        Ok(())
    })?;
    Ok(open)
}

fn complete_rollups(link: &Link, written: &[RawCursor], visitor: &mut dyn RawVisitor) -> Result<(), BookError> {
    let complete = complete_ranges(written);
    let query = link.query(&format!("SELECT ?fields FROM usage_rollups FINAL WHERE range_start < {complete}"));
    link.each::<StoredRollup<'static>>(SCANNING, query, |row| show(row.read(), |scanned| visitor.rollup(scanned)))
}

/// In SQL: the start of each partition's first range that is not complete.
fn complete_ranges(written: &[RawCursor]) -> String {
    read::per_partition(written.iter().map(|cursor| (cursor.partition, range_start(cursor.next_offset))))
}

/// How many rows stand in a block of offsets.
#[derive(clickhouse::Row, Deserialize)]
struct Count {
    partition: u32,
    block: u64,
    rows: u64,
}

/// Every partition's offsets, cut into pieces of about as many rows.
fn pieces(link: &Link, ends: &BTreeMap<u32, u64>) -> Result<Vec<(u32, Range<u64>)>, BookError> {
    let below = read::per_partition(ends.iter().map(|(partition, end)| (*partition, *end)));
    let query = link.query(&format!(
        "SELECT partition, intDiv(offset, {BLOCK_OFFSETS}) AS block, count() AS rows FROM usage_records
         WHERE offset < {below} GROUP BY partition, block ORDER BY partition, block"
    ));
    let mut pieces: Vec<(u32, Range<u64>)> = Vec::new();
    let mut open_rows = 0;
    link.each::<Count>(SCANNING, query, |count| {
        let end = (count.block.saturating_add(1) * BLOCK_OFFSETS).min(ends.get(&count.partition).copied().unwrap_or(0));
        match pieces.last_mut() {
            Some((partition, offsets)) if *partition == count.partition && open_rows + count.rows <= PIECE_ROWS => {
                offsets.end = end;
                open_rows += count.rows;
            }
            _ => {
                pieces.push((count.partition, count.block * BLOCK_OFFSETS..end));
                open_rows = count.rows;
            }
        }
        Ok(())
    })?;
    Ok(pieces)
}

fn rows(link: &Link, partition: u32, offsets: &Range<u64>, visitor: &mut dyn RawVisitor) -> Result<(), BookError> {
    let Range { start, end } = offsets;
    let query = link.query(&format!(
        "SELECT ?fields FROM usage_records
         WHERE partition = {partition} AND offset >= {start} AND offset < {end} ORDER BY offset, idx, row_hash"
    ));
    link.each::<StoredRow<'static>>(SCANNING, query, |row| {
        show(row.read(), |scanned| visitor.row(scanned, row.row_hash))
    })
}

fn entries(link: &Link, ends: &BTreeMap<u32, u64>, visitor: &mut dyn RawVisitor) -> Result<(), BookError> {
    let below = read::per_partition(ends.iter().map(|(partition, end)| (*partition, *end)));
    let mut after = String::new();
    loop {
        let query = link.query(&format!(
            "SELECT ?fields FROM rejected_envelopes FINAL WHERE offset < {below}{after}
             ORDER BY partition, offset LIMIT {ENTRIES_PER_PAGE}"
        ));
        let mut seen = 0;
        link.each::<StoredEntry<'static>>(SCANNING, query, |entry| {
            seen += 1;
            after = format!(" AND (partition, offset) > ({}, {})", entry.partition, entry.offset);
            show(entry.read(), |scanned| visitor.rejected(scanned))
        })?;
        if seen < ENTRIES_PER_PAGE {
            return Ok(());
        }
    }
}
