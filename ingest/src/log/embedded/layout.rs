//! The layout of the embedded log's file and what the file says about itself.

use odometer_schemas::limits::PARTITIONS_MAX;
use rusqlite::{Connection, TransactionBehavior, params};

use super::places;
use super::store::failed;
use crate::log::LogError;

/// The layout that this build writes, and the only one that it reads.
const SCHEMA_VERSION: u32 = 2;
/// The one that a writer brings up to date.
const BEFORE: &str = "1";

/// What the file says about itself.
const META: &str = "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;";

/// Creates the tables unless they are there; returns whether it did.
pub(super) fn create(connection: &mut Connection, partitions: u32) -> rusqlite::Result<bool> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if transaction.table_exists(None, "meta")? {
        return Ok(false);
    }
    transaction.execute_batch(META)?;
    transaction.execute_batch(places::SCHEMA)?;
    let log_id = format!("{:032x}", rand::random::<u128>());
    let rows =
        [("schema_version", SCHEMA_VERSION.to_string()), ("partitions", partitions.to_string()), ("log_id", log_id)];
    for (name, value) in rows {
        transaction.execute("INSERT INTO meta (name, value) VALUES (?1, ?2)", params![name, value])?;
    }
    transaction.commit()?;
    Ok(true)
}

/// Lays out anew what an older build wrote, at once or not at all. That takes twice as much
/// room again as the log: the one half in the write-ahead log meanwhile, the other in the
/// file, where it is used again.
pub(super) fn bring_up_to_date(connection: &mut Connection) -> Result<(), LogError> {
    if meta(connection, "schema_version")? != BEFORE {
        return Ok(());
    }
    tracing::info!("copying the embedded log into this build's layout; needs room for two more of it");
    lay_out_anew(connection).map_err(failed("copying it into this build's layout, with room for two more of it"))
}

fn lay_out_anew(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    places::from_version_1(&transaction)?;
    transaction
        .execute("UPDATE meta SET value = ?1 WHERE name = 'schema_version'", params![SCHEMA_VERSION.to_string()])?;
    transaction.commit()
}

/// Refuses another build's layout.
pub(super) fn check_version(connection: &Connection) -> Result<(), LogError> {
    let found = meta(connection, "schema_version")?;
    if found == SCHEMA_VERSION.to_string() {
        return Ok(());
    }
    let fix = if found == BEFORE { "start odometer on it to bring it up to date" } else { "use the newer build" };
    Err(LogError::Mismatch { what: format!("has schema version {found}, this build knows {SCHEMA_VERSION}; {fix}") })
}

/// How many partitions the log has.
pub(super) fn partitions(connection: &Connection) -> Result<u32, LogError> {
    let partitions = meta(connection, "partitions")?;
    match partitions.parse() {
        Ok(count) if (1..=PARTITIONS_MAX).contains(&count) => Ok(count),
        _ => Err(LogError::Mismatch { what: format!("claims to have {partitions:?} partitions") }),
    }
}

/// The log's identity.
pub(super) fn log_id(connection: &Connection) -> Result<String, LogError> {
    meta(connection, "log_id")
}

fn meta(connection: &Connection, name: &str) -> Result<String, LogError> {
    let value = connection.query_row("SELECT value FROM meta WHERE name = ?1", [name], |row| row.get(0));
    value.map_err(failed("reading what it says about itself"))
}
