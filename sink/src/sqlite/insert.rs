//! Many rows per statement: SQLite's cost per statement is a good part of its cost
//! per row.

use rusqlite::{Connection, Statement};

/// Rows per statement. The gain is flat beyond, and 20 columns stay far below
/// SQLite's 32,766 parameters.
const ROWS_PER_STATEMENT: usize = 64;

/// An insert of any number of rows.
pub(crate) struct Insert {
    /// `INSERT INTO t (a, b) VALUES`.
    pub(crate) head: &'static str,
    /// Columns of one row.
    pub(crate) columns: usize,
    /// What follows the values: `ON CONFLICT …`.
    pub(crate) tail: &'static str,
}

impl Insert {
    fn sql(&self, rows: usize) -> String {
        let row = format!("({}),", vec!["?"; self.columns].join(","));
        let values = row.repeat(rows);
        format!("{} {} {}", self.head, values.trim_end_matches(','), self.tail)
    }
}

/// Inserts every item; `bind` puts one into a statement's parameters, the first of
/// which has the number that it is given. Answers how many rows changed.
pub(crate) fn insert_all<T>(
    connection: &Connection,
    insert: &Insert,
    items: impl ExactSizeIterator<Item = T>,
    mut bind: impl FnMut(&mut Statement<'_>, usize, T) -> rusqlite::Result<()>,
) -> rusqlite::Result<usize> {
    let mut items = items;
    let mut changed = 0;
    while items.len() > 0 {
        let rows = items.len().min(ROWS_PER_STATEMENT);
        // A full statement is prepared once; what is left over at the end is not
        // worth a place in the cache.
        let sql = insert.sql(rows);
        if rows < ROWS_PER_STATEMENT {
            return Ok(changed + run(&mut connection.prepare(&sql)?, insert.columns, &mut items, rows, &mut bind)?);
        }
        let mut statement = connection.prepare_cached(&sql)?;
        while items.len() >= ROWS_PER_STATEMENT {
            changed += run(&mut statement, insert.columns, &mut items, rows, &mut bind)?;
        }
    }
    Ok(changed)
}

fn run<T>(
    statement: &mut Statement<'_>,
    columns: usize,
    items: &mut impl Iterator<Item = T>,
    rows: usize,
    bind: &mut impl FnMut(&mut Statement<'_>, usize, T) -> rusqlite::Result<()>,
) -> rusqlite::Result<usize> {
    for (row, item) in items.by_ref().take(rows).enumerate() {
        bind(statement, row * columns + 1, item)?;
    }
    statement.raw_execute()
}
