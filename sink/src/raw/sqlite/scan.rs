//! The whole raw book, as it stood at one moment, for the proof.

use rusqlite::{Connection, Row};

use super::super::{RawVisitor, show};
use super::FILE;
use super::read::{self, REJECTED_COLUMNS, ROLLUP_COLUMNS, ROW_COLUMNS};
use crate::error::BookError;

/// Shows everything to `visitor`. `connection` must be inside a transaction.
pub(super) fn all(connection: &Connection, visitor: &mut dyn RawVisitor) -> Result<(), BookError> {
    if visitor.cursors(&read::cursors(connection)?).is_break() {
        return Ok(());
    }
    let sql = format!("SELECT {ROW_COLUMNS} FROM usage_records ORDER BY partition, \"offset\", idx");
    each(connection, &sql, |row| {
        let read = read::row(&read::row_columns(row));
        let stored = read.as_ref().map_or(0, |(_, stored)| *stored);
        show(read.map(|(row, _)| row), |scanned| visitor.row(scanned, stored))
    })?;
    let sql = format!("SELECT {REJECTED_COLUMNS} FROM rejected_envelopes ORDER BY partition, \"offset\"");
    each(connection, &sql, |row| {
        show(read::envelope(&read::rejected_columns(row)), |scanned| visitor.rejected(scanned))
    })?;
    let sql = format!("SELECT {ROLLUP_COLUMNS} FROM usage_rollups");
    each(connection, &sql, |row| show(read::rollup(&read::rollup_columns(row)), |scanned| visitor.rollup(scanned)))
}

fn each(
    connection: &Connection,
    sql: &str,
    mut visit: impl FnMut(&Row<'_>) -> Result<(), BookError>,
) -> Result<(), BookError> {
    let fail = FILE.failed("scanning");
    let mut statement = connection.prepare(sql).map_err(&fail)?;
    let mut rows = statement.query([]).map_err(&fail)?;
    while let Some(row) = rows.next().map_err(&fail)? {
        visit(row)?;
    }
    Ok(())
}
