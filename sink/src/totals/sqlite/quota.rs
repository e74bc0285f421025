//! Quota state into an open transaction, and back.

use odometer_schemas::commit::PartitionCommit;
use odometer_schemas::quota::{QuotaRow, QuotaRowKind};
use rusqlite::{Connection, Params, params};

use super::super::CommitError;
use super::super::rules::{GIVEN, in_order, quota_key};
use super::FILE;
use super::read::Query;
use crate::error::BookError;
use crate::sqlite::insert_all;

const PUT: &str = "INSERT OR REPLACE INTO quota_state (partition, kind, tenant, name, state) VALUES (?, ?, ?, ?, ?)";
const DROP: &str = "DELETE FROM quota_state WHERE partition = ? AND kind = ? AND tenant = ? AND name = ?";

/// Absolute values replace what was there; empty ones remove it.
pub(super) fn write(connection: &Connection, commit: &PartitionCommit) -> Result<(), CommitError> {
    let rows = in_order(&[commit], |commit| &commit.quota, quota_key)?;
    let (gone, kept): (Vec<_>, Vec<_>) = rows.into_iter().partition(|(_, row)| row.state.is_empty());
    insert_all(connection, PUT, kept.iter(), |statement, (_, row)| {
        statement.raw_bind_parameter(1, commit.partition)?;
        statement.raw_bind_parameter(2, row.kind.code())?;
        statement.raw_bind_parameter(3, row.tenant.as_str())?;
        statement.raw_bind_parameter(4, row.name.as_str())?;
        statement.raw_bind_parameter(5, row.state.as_slice())
    })
    .map_err(FILE.failed("writing quota state"))?;
    insert_all(connection, DROP, gone.iter(), |statement, (_, row)| {
        statement.raw_bind_parameter(1, commit.partition)?;
        statement.raw_bind_parameter(2, row.kind.code())?;
        statement.raw_bind_parameter(3, row.tenant.as_str())?;
        statement.raw_bind_parameter(4, row.name.as_str())
    })
    .map_err(FILE.failed("removing quota state"))?;
    Ok(())
}

/// All quota state of one partition.
pub(super) fn read(connection: &Connection, partition: u32) -> Result<Vec<QuotaRow>, BookError> {
    let sql = "SELECT partition, kind, tenant, name, state FROM quota_state WHERE partition = ?
               ORDER BY kind, tenant, name";
    rows(connection, sql, params![partition])
}

/// Plans and terms, by partition and tenant.
pub(super) fn given(connection: &Connection, wanted: &[(u32, String)]) -> Result<Vec<QuotaRow>, BookError> {
    let sql = "SELECT partition, kind, tenant, name, state FROM quota_state
               WHERE partition = ? AND kind IN (?, ?) AND tenant = ?";
    let mut found = Vec::new();
    for (partition, tenant) in wanted {
        let kinds = GIVEN.map(QuotaRowKind::code);
        found.append(&mut rows(connection, sql, params![partition, kinds[0], kinds[1], tenant])?);
    }
    Ok(found)
}

fn rows(connection: &Connection, sql: &'static str, of: impl Params) -> Result<Vec<QuotaRow>, BookError> {
    Query { table: "quota_state", key_columns: 4, sql }.rows(connection, of, |row| {
        let kind = row.fitting::<u8>(1)?;
        Ok(QuotaRow {
            kind: QuotaRowKind::from_code(kind)
                .ok_or_else(|| row.corrupt(1, format!("holds the unknown kind {kind}")))?,
            tenant: row.text(2)?.to_owned(),
            name: row.text(3)?.to_owned(),
            state: row.blob(4)?.to_vec(),
        })
    })
}
