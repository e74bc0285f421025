//! The file behind the embedded log: how a connection to it is made, and what is done with
//! the file as a whole. Never touches an envelope's content.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

use super::{layout, places};
use crate::log::LogError;

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

impl Moved {
    /// Where the next page will stand: once all are in the file, they are written over.
    pub(super) fn next_page(self) -> u64 {
        if self.left == 0 { 0 } else { self.pages }
    }
}

impl Store {
    /// Opens the file for writing, and creates it with `partitions` when it is new.
    pub(super) fn open(path: &Path, partitions: u32) -> Result<Self, LogError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(path, flags).map_err(failed("opening its file"))?;
        prepare_for_writing(&connection).map_err(failed("setting up its file"))?;
        if layout::create(&mut connection, partitions).map_err(failed("creating its tables"))? {
            sync_directory(path)?;
        }
        let found = layout::partitions(&connection)?;
        if found != partitions {
            let what = format!("has {found} partitions, but is to be opened with {partitions}");
            return Err(LogError::Mismatch { what });
        }
        layout::bring_up_to_date(&mut connection)?;
        Self::checked(connection)
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
        layout::check_version(&connection)?;
        Ok(Self { log_id: layout::log_id(&connection)?, partitions: layout::partitions(&connection)?, connection })
    }

    /// Removes up to `rows_max` of the oldest envelopes below `below_offset`, never
    /// the newest one: the next offset follows from it.
    pub(super) fn remove(&mut self, partition: u32, below_offset: u64, rows_max: u64) -> rusqlite::Result<u64> {
        let transaction = self.begin()?;
        let Some((start_offset, newest_offset)) = places::offsets(&transaction, partition)? else { return Ok(0) };
        // At most the newest offset, which fits the column it came from.
        let end = below_offset.min(newest_offset).min(start_offset.saturating_add(rows_max));
        if end <= start_offset {
            return Ok(0);
        }
        let removed = places::remove(&transaction, partition, end)?;
        transaction.commit().map(|()| removed)
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

/// Makes the new file's name as durable as its content.
pub(super) fn sync_directory(path: &Path) -> Result<(), LogError> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(|error| LogError::Storage { doing: "flushing its directory", source: Box::new(error) })
}

/// Whether the disk did not take or give something, rather than being full or busy.
pub(super) fn is_of_the_disk(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(rusqlite::ErrorCode::SystemIoFailure)
}

/// A storage error with what was being done.
pub(super) fn failed(doing: &'static str) -> impl Fn(rusqlite::Error) -> LogError {
    move |error| LogError::Storage { doing, source: Box::new(error) }
}
