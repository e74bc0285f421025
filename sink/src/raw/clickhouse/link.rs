//! The way to the engine: statements and blocks in, rows or an error that says whether
//! trying again helps out. Every call waits for its answer, up to a limit.

use std::future::Future;
use std::time::Duration;

use clickhouse::error::Error;
use clickhouse::query::Query;
use clickhouse::{Client, Row, RowRead};
use tokio::runtime::{Builder, Runtime};

use super::block::NativeBlock;
use super::{BOOK, ClickHouseOptions, http};
use crate::error::BookError;

/// Longest wait for one statement or insert: far beyond what the largest batch takes,
/// so that only an engine that hangs reaches it.
const WRITE_WAIT: Duration = Duration::from_secs(120);
/// Longest wait for the next row of an answer.
const READ_WAIT: Duration = Duration::from_secs(300);

/// Exceptions that the same call meets again: something must be changed first. All
/// others may pass: too many parts, memory, a replica, a merge, the network.
const LASTING: [u32; 26] =
    [10, 16, 20, 36, 42, 43, 44, 46, 47, 48, 50, 53, 62, 73, 80, 115, 164, 192, 193, 194, 195, 291, 452, 497, 516, 620];
/// Exceptions that say that there is no such table, database or view parameter.
const NOT_THERE: [u32; 2] = [60, 81];

/// A connection to one database, and the runtime that drives it.
#[derive(Debug)]
pub(super) struct Link {
    client: Client,
    /// Only `None` while it is dropped.
    runtime: Option<Runtime>,
    place: String,
}

impl Link {
    /// Prepares a connection; nothing is sent yet.
    pub(super) fn new(options: &ClickHouseOptions, database: &str) -> Result<Self, BookError> {
        let ClickHouseOptions { url, user, password, .. } = options;
        // A part per insert, in the order sent, there when the answer comes. What was
        // sent again must not be taken for a repetition of something that got lost.
        let client = http::client(url)
            .map_err(starting)?
            .with_user(user)
            .with_password(password)
            .with_database(database)
            .with_setting("async_insert", "0")
            .with_setting("insert_deduplicate", "0")
            .with_setting("max_insert_threads", "1")
            .with_setting("optimize_on_insert", "0");
        let runtime = Builder::new_current_thread().enable_all().build().map_err(starting)?;
        Ok(Self { client, runtime: Some(runtime), place: format!("{}/{database}", url.trim_end_matches('/')) })
    }

    /// Which database of which server, for errors.
    pub(super) fn place(&self) -> &str {
        &self.place
    }

    /// A query whose `?` are to be bound.
    pub(super) fn query(&self, template: &str) -> Query {
        self.client.query(template)
    }

    /// Runs a statement that answers nothing, as it is.
    pub(super) fn execute(&self, doing: &'static str, sql: &str) -> Result<(), BookError> {
        self.wait(doing, self.client.query_raw(sql).execute())
    }

    /// Shows every row of the answer to `visit`. The first error of either ends it.
    pub(super) fn each<T: Row + RowRead>(
        &self,
        doing: &'static str,
        query: Query,
        mut visit: impl FnMut(T::Value<'_>) -> Result<(), BookError>,
    ) -> Result<(), BookError> {
        self.run(doing, async {
            let mut rows = query.fetch::<T>()?;
            loop {
                // Waits for one row, not for all: a long answer is no fault.
                match tokio::time::timeout(READ_WAIT, rows.next()).await.unwrap_or(Err(Error::TimedOut))? {
                    None => return Ok(Ok(())),
                    Some(row) => match visit(row) {
                        Ok(()) => {}
                        failed => return Ok(failed),
                    },
                }
            }
        })?
    }

    /// Sends one block into `table` and waits until the engine has it.
    pub(super) fn insert(&self, doing: &'static str, table: &str, block: NativeBlock) -> Result<(), BookError> {
        let sql = format!("INSERT INTO {table} ({}) FORMAT Native", block.columns);
        self.wait(doing, async {
            let mut insert = self.client.insert_formatted_with(sql);
            insert.send(block.bytes).await?;
            insert.end().await
        })
    }

    fn wait(&self, doing: &'static str, work: impl Future<Output = Result<(), Error>>) -> Result<(), BookError> {
        self.run(doing, async { tokio::time::timeout(WRITE_WAIT, work).await.unwrap_or(Err(Error::TimedOut)) })
    }

    fn run<T>(&self, doing: &'static str, work: impl Future<Output = Result<T, Error>>) -> Result<T, BookError> {
        let runtime = self.runtime.as_ref().expect("the runtime is there until the link is dropped");
        runtime.block_on(work).map_err(|source| self.failed(doing, source))
    }

    fn failed(&self, doing: &'static str, source: Error) -> BookError {
        let code = exception_code(&source);
        if code.is_some_and(|code| NOT_THERE.contains(&code)) {
            return BookError::NotMigrated { book: BOOK, place: self.place.clone() };
        }
        let retryable = match &source {
            Error::Network(_) | Error::TimedOut | Error::NotEnoughData | Error::Other(_) => true,
            Error::BadResponse(_) => code.is_none_or(|code| !LASTING.contains(&code)),
            _ => false,
        };
        BookError::Storage { book: BOOK, doing, retryable, source: source.into() }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // An ordinary drop waits, which is not allowed everywhere.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn starting(source: std::io::Error) -> BookError {
    BookError::Storage { book: BOOK, doing: "starting its connection", retryable: false, source: source.into() }
}

/// The number that the engine gives its exceptions.
fn exception_code(error: &Error) -> Option<u32> {
    let Error::BadResponse(text) = error else { return None };
    let (_, rest) = text.split_once("Code: ")?;
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(scheme: &str) -> Link {
        let options = ClickHouseOptions {
            url: format!("{scheme}://127.0.0.1:9/"),
            database: "books".to_owned(),
            user: "default".to_owned(),
            password: String::new(),
        };
        Link::new(&options, "books").unwrap()
    }

    #[test]
    fn an_error_says_whether_trying_again_helps() {
        let link = link("http");
        let of_code = |code| Error::BadResponse(format!("Code: {code}. DB::Exception: text. (NAME) (version 26.9)"));
        for passing in [252, 241, 159, 202, 210, 242, 285, 319, 999, 1000] {
            assert!(link.failed("writing", of_code(passing)).is_retryable(), "{passing}");
        }
        for lasting in LASTING.into_iter().chain(NOT_THERE) {
            assert!(!link.failed("writing", of_code(lasting)).is_retryable(), "{lasting}");
        }
        assert!(link.failed("writing", Error::TimedOut).is_retryable());
        assert!(link.failed("writing", Error::BadResponse("502 Bad Gateway".to_owned())).is_retryable());
        assert!(!link.failed("reading", Error::SchemaMismatch("other columns".to_owned())).is_retryable());
        let missing = link.failed("reading", of_code(60)).to_string();
        assert_eq!(missing, "there is no raw book at http://127.0.0.1:9/books; run `odometer migrate` first");
    }

    #[test]
    fn an_engine_that_is_not_there_may_come_back() {
        for scheme in ["http", "https"] {
            let error = link(scheme).execute("asking", "SELECT 1").unwrap_err();
            assert!(error.is_retryable(), "{error}");
            let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            assert!(cause.contains("network error"), "{cause}");
        }
    }
}
