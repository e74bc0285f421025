//! One connection to the server that is opened again whenever it was lost, and the
//! transactions on it. It never repeats a statement that may have changed something:
//! that is the caller's decision.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use futures_util::TryStreamExt;
use sqlx::postgres::{PgArguments, PgConnectOptions, PgConnection, PgRow, Postgres};
use sqlx::{ConnectOptions, Connection};
use tokio::runtime::{Builder, Runtime};

use super::failure::{answer, failed};
use super::schema;
use crate::error::BookError;

/// Longest wait for a connection, and for the first answer on one that was idle. A
/// server that is there answers within milliseconds, even across a continent.
const CONNECT_WAIT: Duration = Duration::from_secs(5);
/// Longest run of one statement of a node that commits. A full chunk takes well under
/// a second, a claim of the four million totals that a partition may have some twenty.
const STATEMENT_WAIT: Duration = Duration::from_secs(120);
/// Longest run of one statement of a reader, who may ask for all totals at once.
const READ_WAIT: Duration = Duration::from_secs(600);
/// Longest wait for another owner's lock. He holds it for one commit or one claim.
const LOCK_WAIT: Duration = Duration::from_secs(10);
/// How long the server lets a transaction wait for its next statement before it takes
/// the locks back: between two statements lies only the making of the next chunk, so
/// that owner's machine is gone.
const IDLE_WAIT: Duration = Duration::from_secs(15);
/// How much longer the server may stay silent than it may work on a statement, so that
/// its own answer comes first; after that the network or its machine is gone.
const SILENCE_WAIT: Duration = Duration::from_secs(10);

const _: () = assert!(STATEMENT_WAIT.as_secs() > LOCK_WAIT.as_secs());

/// A weaker setting of the server is raised: an answered commit must be durable. A
/// stronger one stays.
const SETTINGS: &str = "SELECT
    set_config('statement_timeout', $1, false),
    set_config('lock_timeout', $2, false),
    set_config('idle_in_transaction_session_timeout', $3, false),
    set_config('default_transaction_read_only',
        CASE WHEN $4 THEN 'on' ELSE current_setting('default_transaction_read_only') END, false),
    -- A chunk finds its rows by their keys, however few or many the planner expects.
    set_config('enable_hashjoin', 'off', false),
    set_config('enable_mergejoin', 'off', false),
    -- What a filter leaves out must not shape the plan of one that has it.
    set_config('plan_cache_mode', 'force_custom_plan', false),
    set_config('synchronous_commit',
        CASE WHEN current_setting('synchronous_commit') = 'remote_apply' THEN 'remote_apply' ELSE 'on' END, false)";

/// A statement with its parameters.
pub(super) type Statement<'a> = sqlx::query::Query<'a, Postgres, PgArguments>;

/// What a session may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
}

/// What a transaction sees; the module's head says why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Isolation {
    /// Everything that was committed before each statement.
    Write,
    /// One moment.
    Moment,
}

impl Isolation {
    fn begin(self) -> &'static str {
        match self {
            Self::Write => "BEGIN ISOLATION LEVEL READ COMMITTED",
            Self::Moment => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        }
    }
}

/// A connection, or the way to get one.
#[derive(Debug)]
pub(super) struct Session {
    /// Nothing only while it is dropped.
    runtime: Option<Runtime>,
    server: Server,
    link: Option<Link>,
}

/// An open connection, and how long it may be silent.
#[derive(Debug)]
pub(super) struct Link {
    connection: PgConnection,
    wait: Duration,
}

/// Where and how to connect.
struct Server {
    options: Box<PgConnectOptions>,
    access: Access,
    /// Whether to refuse tables that this build does not know.
    checks_schema: bool,
}

impl Session {
    /// Connects, and checks that the tables are those of this build.
    pub(super) fn open(url: &str, access: Access) -> Result<Self, BookError> {
        Self::connected(Server { options: options(url)?, access, checks_schema: true })
    }

    /// Connects to a database whose tables may be older or not there.
    pub(super) fn unchecked(url: &str) -> Result<Self, BookError> {
        Self::connected(Server { options: options(url)?, access: Access::Write, checks_schema: false })
    }

    fn connected(server: Server) -> Result<Self, BookError> {
        const DOING: &str = "starting its runtime";
        let runtime = Builder::new_current_thread().enable_all().build().map_err(|e| failed(DOING, e.into()))?;
        let link = runtime.block_on(server.connect())?;
        Ok(Self { runtime: Some(runtime), server, link: Some(link) })
    }

    /// Where the book is, without anything secret.
    pub(super) fn place(&self) -> PathBuf {
        self.server.place()
    }

    /// Runs `work` in one transaction. An error costs the connection, and with it goes
    /// whatever the transaction did; after an error of the last step alone the server
    /// may have kept it.
    pub(super) fn transaction<T, E: From<BookError>>(
        &mut self,
        isolation: Isolation,
        doing: &'static str,
        work: impl AsyncFnOnce(&mut Link) -> Result<T, E>,
    ) -> Result<T, E> {
        if isolation == Isolation::Write && self.server.access == Access::Read {
            return Err(BookError::out_of_range("this handle of the totals book was opened for reading only").into());
        }
        let kept = self.link.take();
        let runtime = self.runtime.as_ref().expect("the runtime lives until the drop");
        let (value, link) = runtime.block_on(async {
            let mut link = self.server.begin(kept, isolation, doing).await?;
            let value = work(&mut link).await?;
            link.command(doing, "COMMIT").await?;
            Ok::<_, E>((value, link))
        })?;
        self.link = Some(link);
        Ok(value)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.link = None;
        if let Some(runtime) = self.runtime.take() {
            // Unlike its own drop, this may happen on an asynchronous thread.
            runtime.shutdown_background();
        }
    }
}

impl fmt::Debug for Server {
    /// The options know the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("place", &self.place()).field("access", &self.access).finish_non_exhaustive()
    }
}

impl Server {
    async fn connect(&self) -> Result<Link, BookError> {
        const DOING: &str = "connecting";
        let connection = answer(DOING, CONNECT_WAIT, PgConnection::connect_with(&self.options)).await?;
        let statement_wait = if self.access == Access::Read { READ_WAIT } else { STATEMENT_WAIT };
        let mut link = Link { connection, wait: statement_wait + SILENCE_WAIT };
        let settings = sqlx::query(SETTINGS)
            .bind(milliseconds(statement_wait))
            .bind(milliseconds(LOCK_WAIT))
            .bind(milliseconds(IDLE_WAIT))
            .bind(self.access == Access::Read);
        link.execute(DOING, settings).await?;
        if self.checks_schema {
            let found = schema::version(&mut link).await?;
            schema::must_be_known(found, self.place())?;
        }
        Ok(link)
    }

    /// Begins a transaction on the kept connection, or on a new one when the server
    /// has closed the kept one meanwhile: nothing was asked on it yet.
    async fn begin(&self, kept: Option<Link>, isolation: Isolation, doing: &'static str) -> Result<Link, BookError> {
        if let Some(mut link) = kept {
            let begin = sqlx::raw_sql(isolation.begin()).execute(&mut link.connection);
            if answer(doing, CONNECT_WAIT, begin).await.is_ok() {
                return Ok(link);
            }
        }
        let mut link = self.connect().await?;
        link.command(doing, isolation.begin()).await?;
        Ok(link)
    }

    fn place(&self) -> PathBuf {
        let options = &self.options;
        let database = options.get_database().unwrap_or(options.get_username());
        PathBuf::from(format!("{}:{}/{database}", options.get_host(), options.get_port()))
    }
}

impl Link {
    /// Statements without parameters, sent on their own.
    pub(super) async fn command(&mut self, doing: &'static str, sql: &'static str) -> Result<(), BookError> {
        answer(doing, self.wait, sqlx::raw_sql(sql).execute(&mut self.connection)).await.map(drop)
    }

    /// Runs one statement; answers how many rows it changed.
    pub(super) async fn execute(&mut self, doing: &'static str, query: Statement<'_>) -> Result<usize, BookError> {
        let done = answer(doing, self.wait, query.execute(&mut self.connection)).await?;
        Ok(usize::try_from(done.rows_affected()).unwrap_or(usize::MAX))
    }

    /// Runs one query; `read` takes its rows as they arrive.
    pub(super) async fn rows<T>(
        &mut self,
        doing: &'static str,
        query: Statement<'_>,
        read: impl Fn(&PgRow) -> Result<T, BookError>,
    ) -> Result<Vec<T>, BookError> {
        let mut rows = query.fetch(&mut self.connection);
        let mut out = Vec::new();
        while let Some(row) = answer(doing, self.wait, rows.try_next()).await? {
            out.push(read(&row)?);
        }
        Ok(out)
    }
}

fn options(url: &str) -> Result<Box<PgConnectOptions>, BookError> {
    let wrong = |problem: &str| {
        // The URL itself may hold a password.
        BookError::out_of_range(format!(
            "the URL of the totals book is not `postgres://user@host:port/database`: {problem}"
        ))
    };
    if !(url.starts_with("postgres://") || url.starts_with("postgresql://")) {
        return Err(wrong("it begins with something else"));
    }
    let options = PgConnectOptions::from_str(url).map_err(|error| wrong(&error.to_string()))?;
    // Errors are told once, by whoever handles them.
    let options = options.disable_statement_logging();
    Ok(Box::new(match options.get_application_name() {
        Some(_) => options,
        None => options.application_name("odometer"),
    }))
}

fn milliseconds(wait: Duration) -> String {
    wait.as_millis().to_string()
}
