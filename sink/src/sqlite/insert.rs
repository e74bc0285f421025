//! Many rows through one prepared statement. Several rows per statement were measured
//! to gain nothing: binding and the b-tree are the cost, and such statements keep a
//! journal of their own.

use rusqlite::{Connection, Statement};

/// Runs `sql` once per item; `bind` puts an item into its parameters. Answers how many
/// rows changed.
pub(crate) fn insert_all<T>(
    connection: &Connection,
    sql: &str,
    items: impl Iterator<Item = T>,
    mut bind: impl FnMut(&mut Statement<'_>, T) -> rusqlite::Result<()>,
) -> rusqlite::Result<usize> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut changed = 0;
    for item in items {
        bind(&mut statement, item)?;
        changed += statement.raw_execute()?;
    }
    Ok(changed)
}
