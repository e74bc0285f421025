//! The version of the book's tables, and the scripts that bring them from one to the
//! next. Each runs once, whole or not at all.

use std::path::PathBuf;

use sqlx::postgres::PgConnection;

use super::session::{Isolation, Session, within_wait};
use crate::error::BookError;

/// `MIGRATIONS[n]` brings the tables from version `n` to `n + 1`.
const MIGRATIONS: [&str; 1] = [include_str!("../../../../schemas/migrations/postgres/totals_1.sql")];
#[expect(clippy::cast_possible_truncation, reason = "a handful of scripts")]
const KNOWN: u32 = MIGRATIONS.len() as u32;

const DOING: &str = "bringing its schema up to date";

/// The advisory lock of all who migrate: "odometer" in ASCII.
const TAKE_TURNS: &str = "SELECT pg_advisory_xact_lock(x'6f646f6d65746572'::bigint)";
const VERSION_TABLE: &str = "CREATE TABLE IF NOT EXISTS totals_schema (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    version  bigint  NOT NULL
)";
const HAS_VERSION: &str = "SELECT to_regclass('totals_schema') IS NOT NULL";
const VERSION: &str = "SELECT coalesce(max(version), 0) FROM totals_schema";
const RECORD_VERSION: &str = "INSERT INTO totals_schema (version) VALUES ($1)
    ON CONFLICT (only_row) DO UPDATE SET version = excluded.version";

/// The version of the tables that are there; zero when there are none.
pub(super) async fn version(connection: &mut PgConnection) -> Result<u32, BookError> {
    const DOING: &str = "reading its schema version";
    let has = sqlx::query_scalar::<_, bool>(HAS_VERSION).fetch_one(&mut *connection);
    if !within_wait(DOING, has).await? {
        return Ok(0);
    }
    let version = within_wait(DOING, sqlx::query_scalar::<_, i64>(VERSION).fetch_one(connection)).await?;
    u32::try_from(version).map_err(|_| BookError::Corrupt {
        table: "totals_schema",
        key: "()".to_owned(),
        column: "version".to_owned(),
        problem: format!("holds {version}, which is out of range"),
    })
}

/// Refuses tables of any other version.
pub(super) fn must_be_known(found: u32, path: PathBuf) -> Result<(), BookError> {
    let fix = match found {
        KNOWN => return Ok(()),
        0..KNOWN => "run `odometer migrate` first",
        _ => "use the newer build",
    };
    Err(BookError::SchemaVersion { book: "totals book", path, found, known: KNOWN, fix })
}

/// Brings the tables up to date.
pub(super) fn migrate(session: &mut Session) -> Result<(), BookError> {
    let place = session.place();
    session.transaction(Isolation::Write, DOING, async |connection| {
        must_hold_every_text(connection).await?;
        within_wait(DOING, sqlx::query(TAKE_TURNS).execute(&mut *connection)).await?;
        within_wait(DOING, sqlx::raw_sql(VERSION_TABLE).execute(&mut *connection)).await?;
        let found = version(connection).await?;
        if found > KNOWN {
            return must_be_known(found, place);
        }
        for script in MIGRATIONS.iter().skip(found as usize) {
            within_wait(DOING, sqlx::raw_sql(*script).execute(&mut *connection)).await?;
        }
        within_wait(DOING, sqlx::query(RECORD_VERSION).bind(i64::from(KNOWN)).execute(connection)).await?;
        Ok(())
    })
}

async fn must_hold_every_text(connection: &mut PgConnection) -> Result<(), BookError> {
    let query = sqlx::query_scalar::<_, String>("SELECT current_setting('server_encoding')").fetch_one(connection);
    match within_wait(DOING, query).await?.as_str() {
        "UTF8" => Ok(()),
        other => Err(BookError::out_of_range(format!(
            "the database of the totals book has the encoding {other}; make it with ENCODING 'UTF8'"
        ))),
    }
}
