//! Which envelope stands where: rows in the order in which they came, and an index from a
//! partition's offsets to them. With a row's position as its own key, several partitions mean
//! several places to write to. The index is behind by a few rows, which are looked through: to
//! keep it at every commit would write a page of it for each partition, for envelopes that have
//! room in two pages together.

use odometer_schemas::time::TimeMs;
use rusqlite::{CachedStatement, Connection, OptionalExtension, Transaction, params};

use crate::log::Appended;

/// Rows that may not be in the index: what commits of few envelopes share of its pages, and
/// what is looked through for an envelope at most. That takes some twenty microseconds
/// where envelopes are small, and up to a hundred at 20 KB.
pub(super) const UNPLACED_MAX: usize = 64;

pub(super) const SCHEMA: &str = "
    CREATE TABLE envelopes (
        number INTEGER PRIMARY KEY,
        partition INTEGER NOT NULL,
        offset INTEGER NOT NULL,
        append_time_ms INTEGER NOT NULL,
        bytes BLOB NOT NULL
    );
    CREATE TABLE places (
        partition INTEGER NOT NULL,
        offset INTEGER NOT NULL,
        number INTEGER NOT NULL,
        PRIMARY KEY (partition, offset)
    ) WITHOUT ROWID;
    -- One row: the number up to which envelopes are in places.
    CREATE TABLE placed (number INTEGER NOT NULL);
    INSERT INTO placed VALUES (0);";

/// Where everything goes on.
#[derive(Debug)]
pub(super) struct Ends {
    /// Of the next row. Another writer that goes on behind the newest takes it, and is found
    /// out by that.
    next_number: u64,
    partitions: Vec<Tail>,
}

/// Where a partition goes on.
#[derive(Debug, Default)]
struct Tail {
    next_offset: u64,
    last_append_time: Option<TimeMs>,
}

impl Ends {
    /// The next row's number, and its place in `partition`.
    pub(super) fn take_next(&mut self, partition: u32, now: TimeMs) -> (u64, Appended) {
        let number = self.next_number;
        self.next_number += 1;
        (number, self.partitions[partition as usize].take_next(now))
    }

    /// The next offset of every partition.
    pub(super) fn offsets(&self) -> Vec<u64> {
        self.partitions.iter().map(|tail| tail.next_offset).collect()
    }
}

impl Tail {
    /// The next place in the partition. Its time is `now`, but never before the
    /// newest envelope's: the log's time does not go back when the clock does.
    fn take_next(&mut self, now: TimeMs) -> Appended {
        let append_time = self.last_append_time.map_or(now, |last| last.max(now));
        let offset = self.next_offset;
        *self = Self { next_offset: offset + 1, last_append_time: Some(append_time) };
        Appended { offset, append_time }
    }
}

/// Where everything goes on in a log of so many partitions.
pub(super) fn ends(connection: &Connection, partitions: u32) -> rusqlite::Result<Ends> {
    let last: Option<u64> = connection.query_row("SELECT MAX(number) FROM envelopes", [], |row| row.get(0))?;
    let mut newest = connection.prepare_cached(
        "SELECT offset, append_time_ms FROM envelopes WHERE number = ifnull(
             (SELECT MAX(number) FROM envelopes WHERE number > (SELECT number FROM placed) AND partition = ?1),
             (SELECT number FROM places WHERE partition = ?1 ORDER BY offset DESC LIMIT 1))",
    )?;
    let tail = |partition| {
        let found = newest.query_row([partition], |row| {
            let offset: u64 = row.get(0)?;
            Ok(Tail { next_offset: offset + 1, last_append_time: Some(TimeMs(row.get(1)?)) })
        });
        found.optional().map(Option::unwrap_or_default)
    };
    let partitions = (0..partitions).map(tail).collect::<rusqlite::Result<_>>()?;
    Ok(Ends { next_number: last.unwrap_or(0) + 1, partitions })
}

/// The oldest and the newest offset of `partition`; none when it is empty.
pub(super) fn offsets(connection: &Connection, partition: u32) -> rusqlite::Result<Option<(u64, u64)>> {
    // In one statement, so that nobody writes meanwhile; what is in no index is the newest.
    let mut ends = connection.prepare_cached(
        "SELECT ifnull((SELECT MIN(offset) FROM places WHERE partition = ?1), oldest),
                ifnull(newest, (SELECT MAX(offset) FROM places WHERE partition = ?1))
         FROM (SELECT MIN(offset) AS oldest, MAX(offset) AS newest FROM envelopes
               WHERE number > (SELECT number FROM placed) AND partition = ?1)",
    )?;
    let (oldest, newest) =
        ends.query_row([partition], |row| Ok((row.get::<_, Option<u64>>(0)?, row.get::<_, Option<u64>>(1)?)))?;
    Ok(oldest.zip(newest))
}

/// How the envelopes of a partition are read, in the order of their offsets: those of the
/// first statement and then those of the second, within one transaction. Both take the
/// partition, the first offset and the one behind the last; columns are the offset, the time of
/// its append and the bytes.
pub(super) fn selects(connection: &Connection) -> rusqlite::Result<[CachedStatement<'_>; 2]> {
    let placed = connection.prepare_cached(
        "SELECT places.offset, append_time_ms, bytes FROM places JOIN envelopes USING (number)
         WHERE places.partition = ?1 AND places.offset >= ?2 AND places.offset < ?3 ORDER BY places.offset",
    )?;
    let unplaced = connection.prepare_cached(
        "SELECT offset, append_time_ms, bytes FROM envelopes
         WHERE number > (SELECT number FROM placed) AND partition = ?1 AND offset >= ?2 AND offset < ?3
         ORDER BY number",
    )?;
    Ok([placed, unplaced])
}

/// Brings the index up to date.
pub(super) fn place(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    let mut insert = transaction.prepare_cached(
        "INSERT INTO places SELECT partition, offset, number FROM envelopes
         WHERE number > (SELECT number FROM placed) ORDER BY partition, offset",
    )?;
    insert.execute([])?;
    let mut note =
        transaction.prepare_cached("UPDATE placed SET number = (SELECT ifnull(MAX(number), 0) FROM envelopes)")?;
    note.execute([]).map(drop)
}

/// Lays out anew what an older build wrote, which kept the index at every commit.
pub(super) fn from_version_1(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction.execute_batch("ALTER TABLE envelopes RENAME TO envelopes_before")?;
    transaction.execute_batch(SCHEMA)?;
    transaction.execute_batch(
        "INSERT INTO envelopes SELECT rowid, partition, offset, append_time_ms, bytes FROM envelopes_before
         ORDER BY rowid;
         DROP TABLE envelopes_before",
    )?;
    place(transaction)
}

/// Removes the envelopes of `partition` below `end`, which are not all that it has; how many
/// there were.
pub(super) fn remove(transaction: &Transaction<'_>, partition: u32, end: u64) -> rusqlite::Result<u64> {
    place(transaction)?;
    let range = params![partition, end];
    let mut envelopes = transaction.prepare_cached(
        "DELETE FROM envelopes WHERE number IN (SELECT number FROM places WHERE partition = ?1 AND offset < ?2)",
    )?;
    envelopes.execute(range)?;
    let mut places = transaction.prepare_cached("DELETE FROM places WHERE partition = ?1 AND offset < ?2")?;
    Ok(places.execute(range)? as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn append_time_never_goes_back() {
        let mut tail = Tail::default();
        let times = [5, 9, 3, 9, 10].map(|now| tail.take_next(TimeMs(now)).append_time.0);
        assert_eq!(times, [5, 9, 9, 9, 10]);
        assert_eq!(tail.next_offset, 5);
    }
}
