//! Rows of the raw book, read back and checked.

use odometer_schemas::log::Position;
use odometer_schemas::meter::Aggregation;
use odometer_schemas::row::RawRow;
use odometer_schemas::time::TimeMs;
use odometer_schemas::verdict::Verdict;
use rusqlite::{Connection, OptionalExtension, params};

use super::super::{RawCursor, RejectedEnvelope, RejectedFilter, RollupRow, UsageFold, UsageQuery};
use super::FILE;
use crate::error::BookError;
use crate::sqlite::Columns;

/// The columns of [`row`], in its order; the key comes first.
pub(super) const ROW_COLUMNS: &str = "partition, \"offset\", idx, tenant, meter, source, id, id_emitted, subject,
    quantity, time, time_given, dimensions, reservation, envelope_records, verdict, reason, append_time, row_hash";

/// A result row of [`ROW_COLUMNS`].
pub(super) fn row_columns<'a>(row: &'a rusqlite::Row<'a>) -> Columns<'a> {
    Columns { table: "usage_records", key_columns: 3, row }
}

/// Reads a row of [`ROW_COLUMNS`] and the checksum stored with it.
pub(super) fn row<'a>(columns: &Columns<'a>) -> Result<(RawRow<'a>, u64), BookError> {
    let reason = columns.optional_text(16)?;
    let verdict = columns.read(15, |name| Verdict::from_name(name, reason))?;
    let row = RawRow {
        position: Position { partition: columns.fitting(0)?, offset: columns.fitting(1)?, index: columns.fitting(2)? },
        tenant: columns.text(3)?,
        meter: columns.text(4)?,
        source: columns.text(5)?,
        id: columns.text(6)?,
        id_emitted: flag(columns, 7)?,
        subject: columns.optional_text(8)?,
        quantity: columns.integer(9)?,
        time_ms: columns.integer(10)?,
        time_given: flag(columns, 11)?,
        dimensions: columns.text(12)?,
        reservation: columns.optional_text(13)?,
        envelope_records: columns.fitting(14)?,
        verdict,
        append_time_ms: columns.integer(17)?,
    };
    Ok((row, columns.integer(18)?.cast_unsigned()))
}

fn flag(columns: &Columns<'_>, index: usize) -> Result<bool, BookError> {
    match columns.integer(index)? {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(columns.corrupt(index, format!("holds {other}, not 0 or 1"))),
    }
}

/// The columns of [`rollup`], in its order; the key comes first.
pub(super) const ROLLUP_COLUMNS: &str = "tenant, meter, window_start, dimensions, partition, range_start,
    last_offset, aggregation, quantity, sum, records, state";

/// A result row of [`ROLLUP_COLUMNS`].
pub(super) fn rollup_columns<'a>(row: &'a rusqlite::Row<'a>) -> Columns<'a> {
    Columns { table: "usage_rollups", key_columns: 6, row }
}

/// Reads a row of [`ROLLUP_COLUMNS`].
pub(super) fn rollup<'a>(columns: &Columns<'a>) -> Result<RollupRow<'a>, BookError> {
    Ok(RollupRow {
        tenant: columns.text(0)?,
        meter: columns.text(1)?,
        window_start_ms: columns.integer(2)?,
        dimensions: columns.text(3)?,
        partition: columns.fitting(4)?,
        range_start: columns.fitting(5)?,
        last_offset: columns.fitting(6)?,
        aggregation: columns.read(7, Aggregation::from_name)?,
        quantity: columns.parsed(8)?,
        sum: columns.parsed(9)?,
        records: columns.fitting(10)?,
        state: columns.blob(11)?,
    })
}

/// The columns of [`envelope`], in its order; the key comes first.
pub(super) const REJECTED_COLUMNS: &str = "partition, \"offset\", append_time, reason, bytes";

/// A result row of [`REJECTED_COLUMNS`].
pub(super) fn rejected_columns<'a>(row: &'a rusqlite::Row<'a>) -> Columns<'a> {
    Columns { table: "rejected_envelopes", key_columns: 2, row }
}

/// Reads a row of [`REJECTED_COLUMNS`].
pub(super) fn envelope(columns: &Columns<'_>) -> Result<RejectedEnvelope, BookError> {
    Ok(RejectedEnvelope {
        partition: columns.fitting(0)?,
        offset: columns.fitting(1)?,
        append_time: TimeMs(columns.integer(2)?),
        verdict: columns.read(3, |reason| Verdict::from_name("rejected", Some(reason)))?,
        bytes: columns.blob(4)?.to_vec(),
    })
}

pub(super) fn cursors(connection: &Connection) -> Result<Vec<RawCursor>, BookError> {
    let fail = FILE.failed("reading its cursors");
    let mut statement =
        connection.prepare_cached("SELECT partition, next_offset FROM cursors ORDER BY partition").map_err(&fail)?;
    let mut rows = statement.query([]).map_err(&fail)?;
    let mut cursors = Vec::new();
    while let Some(row) = rows.next().map_err(&fail)? {
        let columns = Columns { table: "cursors", key_columns: 1, row };
        cursors.push(RawCursor { partition: columns.fitting(0)?, next_offset: columns.fitting(1)? });
    }
    Ok(cursors)
}

pub(super) fn rejected(connection: &Connection, filter: &RejectedFilter) -> Result<Vec<RejectedEnvelope>, BookError> {
    let fail = FILE.failed("reading undecodable entries");
    let mut statement = connection
        .prepare_cached(&format!(
            "SELECT {REJECTED_COLUMNS} FROM rejected_envelopes
             WHERE (partition, \"offset\") > (?1, ?2) AND (?3 IS NULL OR partition = ?3)
             ORDER BY partition, \"offset\" LIMIT ?4"
        ))
        .map_err(&fail)?;
    let (partition, offset) = filter.after.map_or((-1, -1), |(p, o)| (i64::from(p), o.cast_signed()));
    let mut rows = statement.query(params![partition, offset, filter.partition, filter.limit]).map_err(&fail)?;
    let mut envelopes = Vec::new();
    while let Some(row) = rows.next().map_err(&fail)? {
        envelopes.push(envelope(&rejected_columns(row))?);
    }
    Ok(envelopes)
}

/// Feeds the rollup rows that a query asks for. Without a tenant it goes from tenant
/// to tenant, so that the key finds every one's windows.
pub(super) fn rollups_of(
    connection: &Connection,
    query: &UsageQuery,
    fold: &mut UsageFold<'_>,
) -> Result<(), BookError> {
    let fail = FILE.failed("reading rollups");
    let starts = query.window_starts();
    let mut statement = connection
        .prepare_cached(&format!(
            "SELECT {ROLLUP_COLUMNS} FROM usage_rollups
             WHERE tenant = ? AND meter = ? AND window_start >= ? AND window_start < ?"
        ))
        .map_err(&fail)?;
    let mut tenant = match &query.tenant {
        Some(tenant) => Some(tenant.clone()),
        None => tenant_after(connection, "")?,
    };
    while let Some(name) = tenant {
        let mut rows = statement.query(params![name, query.meter, starts.start.0, starts.end.0]).map_err(&fail)?;
        while let Some(row) = rows.next().map_err(&fail)? {
            fold.add(&rollup(&rollup_columns(row))?)?;
        }
        tenant = if query.tenant.is_none() { tenant_after(connection, &name)? } else { None };
    }
    Ok(())
}

fn tenant_after(connection: &Connection, tenant: &str) -> Result<Option<String>, BookError> {
    connection
        .prepare_cached("SELECT tenant FROM usage_rollups WHERE tenant > ? ORDER BY tenant LIMIT 1")
        .and_then(|mut statement| statement.query_row([tenant], |row| row.get(0)).optional())
        .map_err(FILE.failed("reading rollups"))
}
