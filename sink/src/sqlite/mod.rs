//! What both SQLite books share: opening a file with its pragmas and its schema,
//! and reading columns so that a value that does not fit is named.

mod columns;
mod insert;

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::error::BookError;

pub(crate) use columns::Columns;
pub(crate) use insert::insert_all;

/// How long a statement waits for another connection's lock. The only other writer
/// is a checkpoint of a reader that closes, which takes far less.
const BUSY_WAIT: Duration = Duration::from_secs(10);
/// Prepared statements kept per connection: more than either book has.
const STATEMENTS_MAX: usize = 64;

/// One kind of book file.
pub(crate) struct BookFile {
    /// The book's name in errors.
    pub(crate) book: &'static str,
    /// `migrations[n]` brings the schema from version `n` to `n + 1`.
    pub(crate) migrations: &'static [&'static str],
    /// Pragmas of the writing connection beyond durability.
    pub(crate) pragmas: &'static str,
}

impl BookFile {
    /// Opens the book for writing, makes it if it is not there, and brings its
    /// schema up to date.
    pub(crate) fn open(&self, path: &Path) -> Result<Connection, BookError> {
        let fail = |doing| self.failed(doing);
        let mut connection = Connection::open(path).map_err(fail("opening it"))?;
        self.prepare(&connection)?;
        let found = self.version(&connection)?;
        if found > self.known() {
            return Err(self.wrong_version(path, found));
        }
        // Page size must come before the first table, WAL after it.
        connection.execute_batch(self.pragmas).map_err(fail("setting it up"))?;
        connection
            .execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;")
            .map_err(fail("setting it up"))?;
        self.migrate(&mut connection)?;
        Ok(connection)
    }

    /// Opens the book for reading, beside a running process or on a stopped one. It
    /// is never made or changed.
    pub(crate) fn open_read_only(&self, path: &Path) -> Result<Connection, BookError> {
        if !path.is_file() {
            return Err(BookError::Missing { book: self.book, path: path.to_owned() });
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).map_err(self.failed("opening it"))?;
        self.prepare(&connection)?;
        match self.version(&connection)? {
            found if found == self.known() => Ok(connection),
            found => Err(self.wrong_version(path, found)),
        }
    }

    /// Turns the storage's error into the book's.
    pub(crate) fn failed(&self, doing: &'static str) -> impl Fn(rusqlite::Error) -> BookError + use<> {
        let book = self.book;
        move |source| BookError::Storage { book, doing, retryable: is_retryable(&source), source: Box::new(source) }
    }

    fn prepare(&self, connection: &Connection) -> Result<(), BookError> {
        connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
        keep_plans(connection).map_err(self.failed("setting it up"))?;
        connection.busy_timeout(BUSY_WAIT).map_err(self.failed("setting it up"))
    }

    fn known(&self) -> u32 {
        u32::try_from(self.migrations.len()).unwrap_or(u32::MAX)
    }

    fn version(&self, connection: &Connection) -> Result<u32, BookError> {
        connection
            .query_row("PRAGMA user_version", [], |row| row.get(0))
            .map_err(self.failed("reading its schema version"))
    }

    fn migrate(&self, connection: &mut Connection) -> Result<(), BookError> {
        let fail = self.failed("bringing its schema up to date");
        let transaction =
            connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).map_err(&fail)?;
        let found = self.version(&transaction)?;
        for migration in self.migrations.iter().skip(found as usize) {
            transaction.execute_batch(migration).map_err(&fail)?;
        }
        if found < self.known() {
            transaction.pragma_update(None, "user_version", self.known()).map_err(&fail)?;
        }
        transaction.commit().map_err(&fail)
    }

    fn wrong_version(&self, path: &Path, found: u32) -> BookError {
        let known = self.known();
        let fix = if found > known { "use the newer build" } else { "start odometer on it to bring it up to date" };
        BookError::SchemaVersion { book: self.book, path: PathBuf::from(path), found, known, fix }
    }
}

/// Whether the cause may pass: a lock, a full disk, an I/O error. Damage does not.
fn is_retryable(error: &rusqlite::Error) -> bool {
    let passing = [
        ErrorCode::DatabaseBusy,
        ErrorCode::DatabaseLocked,
        ErrorCode::DiskFull,
        ErrorCode::SystemIoFailure,
        ErrorCode::OutOfMemory,
        ErrorCode::CannotOpen,
    ];
    error.sqlite_error_code().is_some_and(|code| passing.contains(&code))
}

/// Keeps a prepared statement's plan when its parameters change: otherwise SQLite
/// prepares a cached statement anew at nearly every use.
fn keep_plans(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map(drop)
}
