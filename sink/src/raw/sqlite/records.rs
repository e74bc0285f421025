//! Finds a tenant's raw records block by block of offsets, so that a page of the
//! answer reads little more than the blocks that it comes from.

use odometer_schemas::log::Position;
use rusqlite::{Connection, named_params};

use super::super::{OwnedRow, RecordFilter};
use super::FILE;
use super::blocks::{self, Block};
use super::read::{self, ROW_COLUMNS};
use crate::error::BookError;

/// The records that `filter` asks for, by position.
pub(super) fn find(connection: &Connection, filter: &RecordFilter) -> Result<Vec<OwnedRow>, BookError> {
    let mut found = Vec::new();
    if filter.limit > 0 {
        blocks::matching(connection, filter, |block| {
            in_block(connection, filter, block, &mut found)?;
            Ok(found.len() < filter.limit)
        })?;
    }
    Ok(found)
}

fn in_block(
    connection: &Connection,
    filter: &RecordFilter,
    block: Block,
    found: &mut Vec<OwnedRow>,
) -> Result<(), BookError> {
    let fail = FILE.failed("looking for records");
    let mut statement = connection
        .prepare_cached(&format!(
            "SELECT {ROW_COLUMNS} FROM usage_records
             WHERE partition = :partition AND \"offset\" >= :first AND \"offset\" < :end AND tenant = :tenant
               AND (:id IS NULL OR id = :id) AND (:source IS NULL OR source = :source)
               AND (:meter IS NULL OR meter = :meter) AND (:verdict IS NULL OR verdict = :verdict)
               AND (:from IS NULL OR time >= :from) AND (:to IS NULL OR time < :to)
               AND (partition, \"offset\", idx) > (:after_partition, :after_offset, :after_idx)
             ORDER BY partition, \"offset\", idx LIMIT :limit"
        ))
        .map_err(&fail)?;
    let (first, end) = block.offsets();
    let after = filter.after.map_or((-1, -1, -1), |Position { partition, offset, index }| {
        (i64::from(partition), offset.cast_signed(), i64::from(index))
    });
    let mut rows = statement
        .query(named_params! {
            ":partition": block.partition, ":first": first, ":end": end, ":tenant": filter.tenant, ":id": filter.id,
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
