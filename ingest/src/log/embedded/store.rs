//! The file behind the embedded log: its layout, how a connection to it is made, and
//! what it says about itself. Never touches an envelope's content.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use odometer_schemas::limits::PARTITIONS_MAX;
use odometer_schemas::time::TimeMs;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Transaction, TransactionBehavior, params};

use crate::log::LogError;

/// The layout that this build writes, and the only one it reads.
const SCHEMA_VERSION: u32 = 1;
/// Page size in bytes. Of 4 to 64 KiB it wrote envelopes of 20 KB fastest.
pub(super) const PAGE_BYTES: u32 = 8192;
/// Size of the write-ahead log, in bytes, at which the writer itself moves its pages into
/// the file, after each commit, in case that nobody does beside it.
const CHECKPOINT_BYTES: u32 = 128 * 1024 * 1024;
/// What the write-ahead log is cut back to after readers have held it open, in bytes:
/// more than it has otherwise, because to grow costs more than to write once more.
const WAL_BYTES_KEPT: u32 = 96 * 1024 * 1024;
/// Page cache of a connection in KiB: holds the largest commit, so that it is written
/// once.
const CACHE_KIB: u32 = 16 * 1024;
/// How long a lock of another process is waited for. Nobody else writes; only
/// recovery after a crash may lock the file for a moment.
const LOCK_WAIT: Duration = Duration::from_millis(250);

/// Rows stand in the order in which they came, found by an index on their position.
/// With the position as the table's own key, several partitions mean several places
/// to write to, and a commit took half as long again.
const SCHEMA: &str = "
    CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE envelopes (
        partition INTEGER NOT NULL,
        offset INTEGER NOT NULL,
        append_time_ms INTEGER NOT NULL,
        bytes BLOB NOT NULL,
        PRIMARY KEY (partition, offset)
    );";

/// A connection to the log's file.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) connection: Connection,
    pub(super) log_id: String,
    pub(super) partitions: u32,
}

/// What the write-ahead log has after some of it was moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moved {
    /// Pages since it began anew.
    pub(super) pages: u64,
    /// Those that are not in the file yet.
    pub(super) left: u64,
}

/// Where a partition goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) struct Tail {
    pub(super) next_offset: u64,
    pub(super) last_append_time: Option<TimeMs>,
}

impl Store {
    /// Opens the file for writing, and creates it with `partitions` when it is new.
    pub(super) fn open(path: &Path, partitions: u32) -> Result<Self, LogError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(path, flags).map_err(failed("opening its file"))?;
        prepare_for_writing(&connection).map_err(failed("setting up its file"))?;
        if create(&mut connection, partitions).map_err(failed("creating its tables"))? {
            sync_directory(path)?;
        }
        let store = Self::checked(connection)?;
        if store.partitions != partitions {
            let what = format!("has {} partitions, but is to be opened with {partitions}", store.partitions);
            return Err(LogError::Mismatch { what });
        }
        Ok(store)
    }

    /// Opens an existing file for reading.
    pub(super) fn open_read_only(path: &Path) -> Result<Self, LogError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).map_err(failed("opening its file"))?;
        connection.busy_timeout(LOCK_WAIT).map_err(failed("opening its file"))?;
        Self::checked(connection)
    }

    fn checked(connection: Connection) -> Result<Self, LogError> {
        // A plan that may depend on parameters is prepared anew at nearly every use of
        // the cached statement; these statements have one good plan each.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map_err(failed("opening its file"))?;
        let schema_version = meta(&connection, "schema_version")?;
        if schema_version != SCHEMA_VERSION.to_string() {
            let what = format!("has schema version {schema_version}; this build knows {SCHEMA_VERSION}");
            return Err(LogError::Mismatch { what });
        }
        let partitions = meta(&connection, "partitions")?;
        let partitions = match partitions.parse() {
            Ok(count) if (1..=PARTITIONS_MAX).contains(&count) => count,
            _ => return Err(LogError::Mismatch { what: format!("claims to have {partitions:?} partitions") }),
        };
        Ok(Self { log_id: meta(&connection, "log_id")?, connection, partitions })
    }

    /// Where every partition goes on.
    pub(super) fn tails(&self) -> rusqlite::Result<Vec<Tail>> {
        let sql = "SELECT offset, append_time_ms FROM envelopes WHERE partition = ?1 ORDER BY offset DESC LIMIT 1";
        let mut newest = self.connection.prepare_cached(sql)?;
        let mut tail = |partition| {
            let found = newest.query_row([partition], |row| {
                let offset: u64 = row.get(0)?;
                Ok(Tail { next_offset: offset + 1, last_append_time: Some(TimeMs(row.get(1)?)) })
            });
            found.optional().map(Option::unwrap_or_default)
        };
        (0..self.partitions).map(&mut tail).collect()
    }

    /// Removes up to `rows_max` of the oldest envelopes below `below_offset`, never
    /// the newest one: the next offset follows from it.
    pub(super) fn remove(&self, partition: u32, below_offset: u64, rows_max: u64) -> rusqlite::Result<u64> {
        let Some((start_offset, newest_offset)) = offsets(&self.connection, partition)? else { return Ok(0) };
        let end = below_offset.min(newest_offset).min(start_offset.saturating_add(rows_max));
        let mut delete =
            self.connection.prepare_cached("DELETE FROM envelopes WHERE partition = ?1 AND offset < ?2")?;
        // The end is at most the newest offset, which fits the column it came from.
        Ok(delete.execute(params![partition, end])? as u64)
    }

    /// Moves what pages of the write-ahead log can be moved now, without waiting for
    /// anybody; nothing while another connection does.
    pub(super) fn move_pages(&self) -> rusqlite::Result<Option<Moved>> {
        let mut moving = self.connection.prepare_cached("PRAGMA wal_checkpoint(PASSIVE)")?;
        moving.query_row([], |row| {
            // Both are -1 where another connection moves.
            let (pages, moved): (i64, i64) = (row.get(1)?, row.get(2)?);
            let moved = |pages: u64| Moved { pages, left: pages.saturating_sub(moved.unsigned_abs()) };
            Ok(u64::try_from(pages).ok().map(moved))
        })
    }

    /// Moves the write-ahead log into the file and empties it.
    pub(super) fn fold(&self) -> rusqlite::Result<()> {
        // A reader in the midst of a query makes it answer "busy"; the pages then
        // move when the file is opened the next time.
        self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
    }

    /// Leaves the write-ahead log as it is when this is closed: the next process moves it.
    pub(super) fn leave_as_is(&self) {
        let asked = self.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
        if let Err(error) = asked {
            tracing::warn!("pages of the embedded log may move when it is closed: {error}");
        }
    }

    /// A write transaction, with whatever an earlier failure left open rolled back.
    pub(super) fn begin(&mut self) -> rusqlite::Result<Transaction<'_>> {
        if !self.connection.is_autocommit() {
            self.connection.execute_batch("ROLLBACK")?;
        }
        self.connection.transaction_with_behavior(TransactionBehavior::Immediate)
    }
}

/// The oldest and the newest offset of `partition`; none when it is empty.
pub(super) fn offsets(connection: &Connection, partition: u32) -> rusqlite::Result<Option<(u64, u64)>> {
    // Each half is one search of the index; MIN and MAX in one SELECT would scan it.
    let mut ends = connection.prepare_cached(
        "SELECT (SELECT MIN(offset) FROM envelopes WHERE partition = ?1),
                (SELECT MAX(offset) FROM envelopes WHERE partition = ?1)",
    )?;
    let (oldest, newest) =
        ends.query_row([partition], |row| Ok((row.get::<_, Option<u64>>(0)?, row.get::<_, Option<u64>>(1)?)))?;
    Ok(oldest.zip(newest))
}

fn prepare_for_writing(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(LOCK_WAIT)?;
    // The page size only holds when it comes before everything else.
    connection.pragma_update(None, "page_size", PAGE_BYTES)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // FULL would flush the write-ahead log at every commit; the flusher does that.
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    // Where a plain flush does not reach the disk (macOS), this one does.
    connection.pragma_update(None, "fullfsync", true)?;
    connection.pragma_update(None, "checkpoint_fullfsync", true)?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_BYTES / PAGE_BYTES)?;
    connection.pragma_update(None, "journal_size_limit", WAL_BYTES_KEPT)?;
    connection.pragma_update(None, "cache_size", -i64::from(CACHE_KIB))
}

/// Creates the tables unless they are there; returns whether it did.
fn create(connection: &mut Connection, partitions: u32) -> rusqlite::Result<bool> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if transaction.table_exists(None, "meta")? {
        return Ok(false);
    }
    transaction.execute_batch(SCHEMA)?;
    let log_id = format!("{:032x}", rand::random::<u128>());
    let rows =
        [("schema_version", SCHEMA_VERSION.to_string()), ("partitions", partitions.to_string()), ("log_id", log_id)];
    for (name, value) in rows {
        transaction.execute("INSERT INTO meta (name, value) VALUES (?1, ?2)", params![name, value])?;
    }
    transaction.commit()?;
    Ok(true)
}

/// Makes the new file's name as durable as its content.
pub(super) fn sync_directory(path: &Path) -> Result<(), LogError> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(|error| LogError::Storage { doing: "flushing its directory", source: Box::new(error) })
}

fn meta(connection: &Connection, name: &str) -> Result<String, LogError> {
    let value = connection.query_row("SELECT value FROM meta WHERE name = ?1", [name], |row| row.get(0));
    value.map_err(failed("reading what it says about itself"))
}

/// Whether the disk did not take or give something, rather than being full or busy.
pub(super) fn is_of_the_disk(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(rusqlite::ErrorCode::SystemIoFailure)
}

/// A storage error with what was being done.
pub(super) fn failed(doing: &'static str) -> impl Fn(rusqlite::Error) -> LogError {
    move |error| LogError::Storage { doing, source: Box::new(error) }
}
