//! One batch into an open transaction.

use rusqlite::{Connection, OptionalExtension, Statement, params};

use odometer_schemas::row::RawRow;

use super::super::{CursorMove, RawBatch, RollupRow};
use super::{FILE, blocks};
use crate::error::BookError;
use crate::sqlite::insert_all;

/// A row is a pure function of the log, so what stands at its place already can only
/// be the same, or not belong there.
const RECORDS: &str =
    "INSERT OR REPLACE INTO usage_records (tenant, meter, source, id, id_emitted, subject, quantity, time,
        time_given, dimensions, reservation, partition, \"offset\", idx, envelope_records, verdict, reason,
        append_time, row_hash) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
const REJECTED: &str = "INSERT OR REPLACE INTO rejected_envelopes (partition, \"offset\", append_time, reason, bytes) VALUES (?, ?, ?, ?, ?)";
const ROLLUPS: &str = "INSERT INTO usage_rollups (window_start, tenant, meter, dimensions, partition, range_start,
        last_offset, aggregation, quantity, sum, records, state) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
        ON CONFLICT DO UPDATE SET last_offset = excluded.last_offset, aggregation = excluded.aggregation,
        quantity = excluded.quantity, sum = excluded.sum, records = excluded.records, state = excluded.state
        WHERE excluded.last_offset >= last_offset";

/// Writes a batch; `false` when it was written before.
pub(super) fn batch(connection: &Connection, batch: &RawBatch) -> Result<bool, BookError> {
    if is_written(connection, batch.cursors())? {
        return Ok(false);
    }
    for cursor in batch.cursors() {
        move_cursor(connection, cursor)?;
    }
    insert_all(connection, RECORDS, batch.rows(), bind_row).map_err(FILE.failed("writing rows"))?;
    blocks::note(connection, batch)?;
    insert_all(connection, REJECTED, batch.rejected().iter(), |statement, envelope| {
        statement.raw_bind_parameter(1, envelope.partition)?;
        statement.raw_bind_parameter(2, envelope.offset)?;
        statement.raw_bind_parameter(3, envelope.append_time.0)?;
        statement.raw_bind_parameter(4, envelope.verdict.reason().unwrap_or_default())?;
        statement.raw_bind_parameter(5, envelope.bytes.as_slice())
    })
    .map_err(FILE.failed("writing undecodable entries"))?;
    // They come in key order, where neighbouring rows share pages.
    insert_all(connection, ROLLUPS, batch.rollups(), bind_rollup).map_err(FILE.failed("writing rollups"))?;
    Ok(true)
}

/// Whether every cursor stands behind the batch already.
fn is_written(connection: &Connection, cursors: &[CursorMove]) -> Result<bool, BookError> {
    for cursor in cursors {
        if cursor_of(connection, cursor.partition)? != cursor.next_offset {
            return Ok(false);
        }
    }
    Ok(true)
}

fn move_cursor(connection: &Connection, cursor: &CursorMove) -> Result<(), BookError> {
    let CursorMove { partition, from_offset, next_offset } = *cursor;
    let found = cursor_of(connection, partition)?;
    if found != from_offset {
        return Err(BookError::CursorMoved { partition, expected: from_offset, found });
    }
    connection
        .prepare_cached("INSERT OR REPLACE INTO cursors (partition, next_offset) VALUES (?, ?)")
        .and_then(|mut statement| statement.execute(params![partition, next_offset]))
        .map_err(FILE.failed("moving a cursor"))?;
    Ok(())
}

fn cursor_of(connection: &Connection, partition: u32) -> Result<u64, BookError> {
    let found = connection
        .prepare_cached("SELECT next_offset FROM cursors WHERE partition = ?")
        .and_then(|mut statement| statement.query_row([partition], |row| row.get(0)).optional())
        .map_err(FILE.failed("reading a cursor"))?;
    Ok(found.unwrap_or(0))
}

fn bind_row(statement: &mut Statement<'_>, (row, row_hash): (RawRow<'_>, u64)) -> rusqlite::Result<()> {
    statement.raw_bind_parameter(1, row.tenant)?;
    statement.raw_bind_parameter(2, row.meter)?;
    statement.raw_bind_parameter(3, row.source)?;
    statement.raw_bind_parameter(4, row.id)?;
    statement.raw_bind_parameter(5, row.id_emitted)?;
    statement.raw_bind_parameter(6, row.subject)?;
    statement.raw_bind_parameter(7, row.quantity)?;
    statement.raw_bind_parameter(8, row.time_ms)?;
    statement.raw_bind_parameter(9, row.time_given)?;
    statement.raw_bind_parameter(10, row.dimensions)?;
    statement.raw_bind_parameter(11, row.reservation)?;
    statement.raw_bind_parameter(12, row.position.partition)?;
    statement.raw_bind_parameter(13, row.position.offset)?;
    statement.raw_bind_parameter(14, row.position.index)?;
    statement.raw_bind_parameter(15, row.envelope_records)?;
    statement.raw_bind_parameter(16, row.verdict.name())?;
    statement.raw_bind_parameter(17, row.verdict.reason())?;
    statement.raw_bind_parameter(18, row.append_time_ms)?;
    statement.raw_bind_parameter(19, row_hash.cast_signed())
}

fn bind_rollup(statement: &mut Statement<'_>, row: RollupRow<'_>) -> rusqlite::Result<()> {
    statement.raw_bind_parameter(1, row.window_start_ms)?;
    statement.raw_bind_parameter(2, row.tenant)?;
    statement.raw_bind_parameter(3, row.meter)?;
    statement.raw_bind_parameter(4, row.dimensions)?;
    statement.raw_bind_parameter(5, row.partition)?;
    statement.raw_bind_parameter(6, row.range_start)?;
    statement.raw_bind_parameter(7, row.last_offset)?;
    statement.raw_bind_parameter(8, row.aggregation.name())?;
    statement.raw_bind_parameter(9, row.quantity.to_string())?;
    statement.raw_bind_parameter(10, row.sum.to_string())?;
    statement.raw_bind_parameter(11, row.records)?;
    statement.raw_bind_parameter(12, row.state)
}
