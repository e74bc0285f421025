//! Finds a tenant's raw records block by block of offsets, as the index is cut, so
//! that a page of the answer never reads more than the blocks it comes from.

use odometer_schemas::log::Position;
use rusqlite::{Connection, OptionalExtension, named_params, params};

use super::super::{OwnedRow, RecordFilter};
use super::FILE;
use super::read::{self, ROW_COLUMNS};
use crate::error::BookError;

/// The records that `filter` asks for, by position.
pub(super) fn find(connection: &Connection, filter: &RecordFilter) -> Result<Vec<OwnedRow>, BookError> {
    let mut found = Vec::new();
    let mut after = filter.after.map(|after| (i64::from(after.partition), after.offset.cast_signed() >> 9));
    // The block that holds `after` may have more behind it.
    let mut block = match after.take() {
        Some(block) => Some(block),
        None => next_block(connection, (-1, 0))?,
    };
    while let Some(current) = block {
        if found.len() >= filter.limit {
            break;
        }
        in_block(connection, filter, current, &mut found)?;
        block = next_block(connection, current)?;
    }
    Ok(found)
}

/// The first block after `(partition, block)` that has rows.
fn next_block(connection: &Connection, block: (i64, i64)) -> Result<Option<(i64, i64)>, BookError> {
    connection
        .prepare_cached(
            "SELECT partition, \"offset\" >> 9 FROM usage_records
             WHERE (partition, \"offset\") >= (?, ?) ORDER BY partition, \"offset\" LIMIT 1",
        )
        .and_then(|mut statement| {
            statement.query_row(params![block.0, (block.1 + 1) << 9], |row| Ok((row.get(0)?, row.get(1)?))).optional()
        })
        .map_err(FILE.failed("looking for records"))
}

fn in_block(
    connection: &Connection,
    filter: &RecordFilter,
    block: (i64, i64),
    found: &mut Vec<OwnedRow>,
) -> Result<(), BookError> {
    let fail = FILE.failed("looking for records");
    let id = if filter.id.is_some() { "id = :id" } else { ":id IS NULL" };
    let mut statement = connection
        .prepare_cached(&format!(
            "SELECT {ROW_COLUMNS} FROM usage_records
             WHERE partition = :partition AND \"offset\" >> 9 = :block AND tenant = :tenant AND {id}
               AND (:source IS NULL OR source = :source) AND (:meter IS NULL OR meter = :meter)
               AND (:from IS NULL OR time >= :from) AND (:to IS NULL OR time < :to)
               AND (:verdict IS NULL OR verdict = :verdict)
               AND (partition, \"offset\", idx) > (:after_partition, :after_offset, :after_idx)
             ORDER BY \"offset\", idx LIMIT :limit"
        ))
        .map_err(&fail)?;
    let after = filter.after.map_or((-1, -1, -1), |Position { partition, offset, index }| {
        (i64::from(partition), offset.cast_signed(), i64::from(index))
    });
    let mut rows = statement
        .query(named_params! {
            ":partition": block.0, ":block": block.1, ":tenant": filter.tenant, ":id": filter.id,
            ":source": filter.source, ":meter": filter.meter, ":from": filter.from.map(|time| time.0),
            ":to": filter.to.map(|time| time.0), ":verdict": filter.verdict, ":after_partition": after.0,
            ":after_offset": after.1, ":after_idx": after.2, ":limit": filter.limit - found.len(),
        })
        .map_err(&fail)?;
    while let Some(row) = rows.next().map_err(&fail)? {
        found.push(OwnedRow::from(&read::row(&read::row_columns(row))?.0));
    }
    Ok(())
}
