//! Makes the database and its tables, or brings them up to date. It may run as often as
//! one likes, and never removes a row but by the lifetime that it was given.

use serde::Deserialize;

use super::link::Link;
use super::{BOOK, ClickHouseOptions};
use crate::error::BookError;

/// `MIGRATIONS[n]` brings the schema from version `n` to `n + 1`.
const MIGRATIONS: [&str; 3] = [
    include_str!("../../../../schemas/migrations/clickhouse/raw_1.sql"),
    include_str!("../../../../schemas/migrations/clickhouse/raw_2.sql"),
    include_str!("../../../../schemas/migrations/clickhouse/raw_3.sql"),
];
const ENGINE: &str = "ENGINE = ReplacingMergeTree";
/// Where a table's replicas find each other: the same on every replica, and another
/// one per shard and table. `{shard}` and `{replica}` are the server's macros.
const REPLICATED_ENGINE: &str = "ENGINE = ReplicatedReplacingMergeTree";
const REPLICATED_PATH: &str = "'/clickhouse/tables/{shard}/{database}/{table}', '{replica}'";
const DOING: &str = "bringing its schema up to date";

/// How the tables are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableOptions {
    /// Days after which the engine may drop raw rows and undecodable entries, counted
    /// from their append time; for ever without it. They go part by part, when all of
    /// a part is old enough. Rollups stay.
    pub ttl_days: Option<u32>,
    /// Whether every table is replicated. Run it on each replica.
    pub replicated: bool,
}

#[derive(clickhouse::Row, Deserialize)]
struct Version {
    version: u32,
}

#[derive(clickhouse::Row, Deserialize)]
struct Engine {
    engine_full: String,
}

pub(super) fn migrate(options: &ClickHouseOptions, tables: &TableOptions) -> Result<(), BookError> {
    let server = Link::new(options, "default")?;
    let quoted = options.database.replace('\\', "\\\\").replace('`', "\\`");
    server.execute(DOING, &format!("CREATE DATABASE IF NOT EXISTS `{quoted}`"))?;
    let link = Link::new(options, &options.database)?;
    let found = match version(&link) {
        Err(BookError::NotMigrated { .. }) => 0,
        other => other?,
    };
    if found > known() {
        return Err(wrong_version(&link, found));
    }
    for (number, migration) in (1_u32..).zip(MIGRATIONS).skip(found as usize) {
        for statement in statements(migration, tables.replicated) {
            link.execute(DOING, &statement)?;
        }
        link.execute(DOING, &format!("INSERT INTO schema_versions VALUES ({number})"))?;
    }
    for table in ["usage_records", "rejected_envelopes"] {
        lifetime(&link, table, tables.ttl_days)?;
    }
    Ok(())
}

/// Whether the schema is the one that this build works with.
pub(super) fn check_version(link: &Link) -> Result<(), BookError> {
    let found = version(link)?;
    if found == known() { Ok(()) } else { Err(wrong_version(link, found)) }
}

fn known() -> u32 {
    u32::try_from(MIGRATIONS.len()).unwrap_or(u32::MAX)
}

fn wrong_version(link: &Link, found: u32) -> BookError {
    let fix = if found > known() { "use the newer build" } else { "run `odometer migrate`" };
    BookError::SchemaVersion { book: BOOK, path: link.place().into(), found, known: known(), fix }
}

fn version(link: &Link) -> Result<u32, BookError> {
    let mut found = 0;
    let query = link.query("SELECT max(version) AS version FROM schema_versions");
    link.each::<Version>("reading its schema version", query, |row| {
        found = row.version;
        Ok(())
    })?;
    Ok(found)
}

/// The statements of a migration, for one server or for replicas.
fn statements(migration: &str, replicated: bool) -> Vec<String> {
    let engine = |statement: &str| {
        if !replicated {
            return statement.to_owned();
        }
        statement
            .replace(&format!("{ENGINE}("), &format!("{REPLICATED_ENGINE}({REPLICATED_PATH}, "))
            .replace(&format!("{ENGINE}\n"), &format!("{REPLICATED_ENGINE}({REPLICATED_PATH})\n"))
    };
    migration.split(";\n").filter(|statement| !statement.trim().is_empty()).map(engine).collect()
}

/// Sets or removes a table's lifetime; one that stands already is left alone, since the
/// engine would rewrite parts for it.
fn lifetime(link: &Link, table: &str, days: Option<u32>) -> Result<(), BookError> {
    let wanted = days.map(|days| format!("TTL toDateTime(append_time) + toIntervalDay({days})"));
    let mut found = String::new();
    let query =
        link.query("SELECT engine_full FROM system.tables WHERE database = currentDatabase() AND name = ?").bind(table);
    link.each::<Engine>(DOING, query, |row| {
        found = row.engine_full;
        Ok(())
    })?;
    match wanted {
        Some(wanted) if !found.contains(&format!(" {wanted} ")) => {
            link.execute(DOING, &format!("ALTER TABLE {table} MODIFY {wanted}"))
        }
        None if found.contains(" TTL ") => link.execute(DOING, &format!("ALTER TABLE {table} REMOVE TTL")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicated_tables_name_where_they_meet() {
        let made = statements(MIGRATIONS[0], true);
        let tables: Vec<&String> = made.iter().filter(|s| s.contains("CREATE TABLE")).collect();
        assert_eq!(tables.len(), 5);
        for table in tables {
            assert!(table.contains(&format!("{REPLICATED_ENGINE}({REPLICATED_PATH}")), "{table}");
            assert!(!table.contains(ENGINE), "{table}");
        }
        assert!(made.iter().any(|s| s.contains("'{replica}', last_offset)")));
        assert!(!statements(MIGRATIONS[0], false).iter().any(|s| s.contains("Replicated")));
    }
}
