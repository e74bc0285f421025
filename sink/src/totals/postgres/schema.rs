//! The version of the book's tables, and the scripts that bring them from one to the
//! next. Each runs once, whole or not at all.

use std::path::PathBuf;

use sqlx::postgres::Postgres;
use sqlx::{Decode, Row, Type};

use super::failure::failed;

use super::session::{Isolation, Link, Session};
use crate::error::BookError;

/// `MIGRATIONS[n]` brings the tables from version `n` to `n + 1`.
const MIGRATIONS: [&str; 3] = [
    include_str!("../../../../schemas/migrations/postgres/totals_1.sql"),
    include_str!("../../../../schemas/migrations/postgres/totals_2.sql"),
    include_str!("../../../../schemas/migrations/postgres/totals_3.sql"),
];
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
pub(super) async fn version(link: &mut Link) -> Result<u32, BookError> {
    const DOING: &str = "reading its schema version";
    if !one::<bool>(link, DOING, HAS_VERSION).await? {
        return Ok(0);
    }
    let version = one::<i64>(link, DOING, VERSION).await?;
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
    session.transaction(Isolation::Write, DOING, async |link| {
        must_hold_every_text(link).await?;
        link.command(DOING, TAKE_TURNS).await?;
        link.command(DOING, VERSION_TABLE).await?;
        let found = version(link).await?;
        if found > KNOWN {
            return must_be_known(found, place);
        }
        for script in MIGRATIONS.iter().skip(found as usize) {
            link.command(DOING, script).await?;
        }
        link.execute(DOING, sqlx::query(RECORD_VERSION).bind(i64::from(KNOWN))).await.map(drop)
    })
}

async fn must_hold_every_text(link: &mut Link) -> Result<(), BookError> {
    match one::<String>(link, DOING, "SELECT current_setting('server_encoding')").await?.as_str() {
        "UTF8" => Ok(()),
        other => Err(BookError::out_of_range(format!(
            "the database of the totals book has the encoding {other}; make it with ENCODING 'UTF8'"
        ))),
    }
}

/// The one value that a query gives.
pub(super) async fn one<T>(link: &mut Link, doing: &'static str, sql: &'static str) -> Result<T, BookError>
where
    T: for<'r> Decode<'r, Postgres> + Type<Postgres>,
{
    let values = link.rows(doing, sqlx::query(sql), |row| row.try_get(0).map_err(|e| failed(doing, e))).await?;
    values.into_iter().next().ok_or_else(|| failed(doing, sqlx::Error::RowNotFound))
}
