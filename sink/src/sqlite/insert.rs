//! Many rows through one prepared statement. Several rows per statement were measured
//! to gain nothing: binding and the b-tree are the cost, and such statements keep a
//! journal of their own.

use std::time::{Duration, Instant};

use rusqlite::{Connection, Statement};

/// How long rows are written in a row: then whoever waits for the processor is let in,
/// such as those who answer. A commit of thousands of rows would keep it for tens of
/// milliseconds.
const TURN: Duration = Duration::from_micros(50);

/// Runs `sql` once per item; `bind` puts an item into its parameters. Answers how many
/// rows changed.
pub(crate) fn insert_all<T>(
    connection: &Connection,
    sql: &str,
    items: impl Iterator<Item = T>,
    mut bind: impl FnMut(&mut Statement<'_>, T) -> rusqlite::Result<()>,
) -> rusqlite::Result<usize> {
    let mut statement = connection.prepare_cached(sql)?;
    let (mut changed, mut turn) = (0, Instant::now());
    for item in items {
        bind(&mut statement, item)?;
        changed += statement.raw_execute()?;
        if turn.elapsed() >= TURN {
            std::thread::yield_now();
            turn = Instant::now();
        }
    }
    Ok(changed)
}
