//! One connection to the server that is opened again whenever it was lost, and the
//! transactions on it. It never repeats a statement that may have changed something:
//! that is the caller's decision.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Connection};
use tokio::runtime::{Builder, Runtime};

use super::failure::{answer, failed};
use super::schema;
use crate::error::BookError;

/// Longest wait for a connection, and for the first answer on one that was idle. A
/// server that is there answers within milliseconds, even across a continent.
const CONNECT_WAIT: Duration = Duration::from_secs(5);
/// Longest run of one statement of a node that commits. A full chunk takes well under
/// a second, a claim of a million totals a few.
const STATEMENT_WAIT: Duration = Duration::from_secs(30);
/// Longest run of one statement of a reader, who may ask for all totals at once.
const READ_WAIT: Duration = Duration::from_secs(600);
/// Longest wait for another owner's lock. He holds it for one commit or one claim.
const LOCK_WAIT: Duration = Duration::from_secs(10);
/// How long the server lets a transaction wait for its next statement before it takes
/// the locks back: between two statements lies only the making of the next chunk, so
/// that owner's machine is gone.
const IDLE_WAIT: Duration = Duration::from_secs(15);
/// Longest silence of the server while it works on a statement or sends its rows.
/// Longer than it may work on one, so that its own answer comes first.
const ANSWER_WAIT: Duration = Duration::from_secs(40);

const _: () = assert!(ANSWER_WAIT.as_secs() > STATEMENT_WAIT.as_secs());
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
    connection: Option<PgConnection>,
}

/// Where and how to connect.
#[derive(Debug)]
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
        let connection = runtime.block_on(server.connect())?;
        Ok(Self { runtime: Some(runtime), server, connection: Some(connection) })
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
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, E>,
    ) -> Result<T, E> {
        if isolation == Isolation::Write && self.server.access == Access::Read {
            return Err(BookError::out_of_range("this handle of the totals book was opened for reading only").into());
        }
        let kept = self.connection.take();
        let runtime = self.runtime.as_ref().expect("the runtime lives until the drop");
        let (value, connection) = runtime.block_on(async {
            let mut connection = self.server.begin(kept, isolation, doing).await?;
            let value = work(&mut connection).await?;
            command(&mut connection, "COMMIT", doing, ANSWER_WAIT).await?;
            Ok::<_, E>((value, connection))
        })?;
        self.connection = Some(connection);
        Ok(value)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.connection = None;
        if let Some(runtime) = self.runtime.take() {
            // Unlike its own drop, this may happen on an asynchronous thread.
            runtime.shutdown_background();
        }
    }
}

impl Server {
    async fn connect(&self) -> Result<PgConnection, BookError> {
        const DOING: &str = "connecting";
        let mut connection = answer(DOING, CONNECT_WAIT, PgConnection::connect_with(&self.options)).await?;
        let statement_wait = if self.access == Access::Read { READ_WAIT } else { STATEMENT_WAIT };
        let settings = sqlx::query(SETTINGS)
            .bind(milliseconds(statement_wait))
            .bind(milliseconds(LOCK_WAIT))
            .bind(milliseconds(IDLE_WAIT))
            .bind(self.access == Access::Read)
            .execute(&mut connection);
        answer(DOING, CONNECT_WAIT, settings).await?;
        if self.checks_schema {
            let found = schema::version(&mut connection).await?;
            schema::must_be_known(found, self.place())?;
        }
        Ok(connection)
    }

    /// Begins a transaction on the kept connection, or on a new one when the server
    /// has closed the kept one meanwhile: nothing was asked on it yet.
    async fn begin(
        &self,
        kept: Option<PgConnection>,
        isolation: Isolation,
        doing: &'static str,
    ) -> Result<PgConnection, BookError> {
        if let Some(mut connection) = kept
            && command(&mut connection, isolation.begin(), doing, CONNECT_WAIT).await.is_ok()
        {
            return Ok(connection);
        }
        let mut connection = self.connect().await?;
        command(&mut connection, isolation.begin(), doing, CONNECT_WAIT).await?;
        Ok(connection)
    }

    fn place(&self) -> PathBuf {
        let options = &self.options;
        let database = options.get_database().unwrap_or(options.get_username());
        PathBuf::from(format!("{}:{}/{database}", options.get_host(), options.get_port()))
    }
}

/// One statement without parameters, sent on its own and answered before the next.
pub(super) async fn command(
    connection: &mut PgConnection,
    sql: &'static str,
    doing: &'static str,
    wait: Duration,
) -> Result<(), BookError> {
    answer(doing, wait, sqlx::raw_sql(sql).execute(connection)).await.map(drop)
}

/// One answer of a statement under way.
pub(super) async fn within_wait<T>(
    doing: &'static str,
    call: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, BookError> {
    answer(doing, ANSWER_WAIT, call).await
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
