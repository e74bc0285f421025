//! Alerts into an open transaction, and back; and how far each channel has told of them.

use odometer_schemas::commit::PartitionCommit;
use odometer_schemas::quota::AlertRow;
use rusqlite::{Connection, params};

use super::super::rules::{in_order, scope_of};
use super::super::{AlertFilter, AlertsOf, CommitError, Told};
use super::FILE;
use super::read::Query;
use crate::error::BookError;
use crate::sqlite::{Columns, insert_all};

const ADD: &str = "INSERT INTO quota_alerts (partition, sequence, at, tenant, meter, scope, name, period_start,
    period_end, percent, policy, limit_units, used) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";

pub(super) fn write(connection: &Connection, commit: &PartitionCommit) -> Result<(), CommitError> {
    let rows = in_order(&[commit], |commit| &commit.alerts, |_, row| row.sequence)?;
    insert_all(connection, ADD, rows.iter(), |statement, (_, row)| {
        statement.raw_bind_parameter(1, commit.partition)?;
        statement.raw_bind_parameter(2, row.sequence)?;
        statement.raw_bind_parameter(3, row.at_ms)?;
        statement.raw_bind_parameter(4, row.tenant.as_str())?;
        statement.raw_bind_parameter(5, row.meter.as_str())?;
        statement.raw_bind_parameter(6, row.scope.name())?;
        statement.raw_bind_parameter(7, row.name.as_str())?;
        statement.raw_bind_parameter(8, row.period_start_ms)?;
        statement.raw_bind_parameter(9, row.period_end_ms)?;
        statement.raw_bind_parameter(10, row.percent)?;
        statement.raw_bind_parameter(11, row.policy.as_str())?;
        statement.raw_bind_parameter(12, row.limit)?;
        statement.raw_bind_parameter(13, row.used)
    })
    .map_err(FILE.failed("writing alerts"))?;
    Ok(())
}

macro_rules! alerts_where {
    ($whose:literal) => {
        concat!(
            "SELECT partition, sequence, at, tenant, meter, scope, name, period_start, period_end, percent, policy,
                    limit_units, used
             FROM quota_alerts WHERE ",
            $whose,
            " = ?1 AND sequence > ?2 ORDER BY sequence LIMIT ?3"
        )
    };
}

/// By sequence.
pub(super) fn read(connection: &Connection, filter: &AlertFilter) -> Result<Vec<(u32, AlertRow)>, BookError> {
    // Negative: before the first, and no bound.
    let after = filter.after.map_or(Ok(-1), i64::try_from).unwrap_or(i64::MAX);
    let most = filter.most.map_or(-1, i64::from);
    let query = |sql| Query { table: "quota_alerts", key_columns: 2, sql };
    match &filter.of {
        AlertsOf::Partition(partition) => {
            query(alerts_where!("partition")).rows(connection, params![partition, after, most], alert)
        }
        AlertsOf::Tenant(tenant) => {
            query(alerts_where!("tenant")).rows(connection, params![tenant, after, most], alert)
        }
    }
}

fn alert(row: &Columns<'_>) -> Result<(u32, AlertRow), BookError> {
    let alert = AlertRow {
        sequence: row.fitting(1)?,
        at_ms: row.integer(2)?,
        tenant: row.text(3)?.to_owned(),
        meter: row.text(4)?.to_owned(),
        scope: row.read(5, scope_of)?,
        name: row.text(6)?.to_owned(),
        period_start_ms: row.integer(7)?,
        period_end_ms: row.integer(8)?,
        percent: row.fitting(9)?,
        policy: row.text(10)?.to_owned(),
        limit: row.integer(11)?,
        used: row.integer(12)?,
    };
    Ok((row.fitting(0)?, alert))
}

pub(super) fn told(connection: &Connection, channel: &str) -> Result<Vec<Told>, BookError> {
    let query = Query {
        table: "quota_alerts_told",
        key_columns: 1,
        sql: "SELECT partition, sequence FROM quota_alerts_told WHERE channel = ? ORDER BY partition",
    };
    query.rows(connection, [channel], |row| Ok(Told { partition: row.fitting(0)?, sequence: row.fitting(1)? }))
}

pub(super) fn tell(connection: &Connection, channel: &str, told: Told) -> Result<(), BookError> {
    let sql = "INSERT INTO quota_alerts_told (partition, channel, sequence) VALUES (?, ?, ?)
               ON CONFLICT (partition, channel) DO UPDATE SET sequence = max(sequence, excluded.sequence)";
    let done = connection.execute(sql, params![told.partition, channel, told.sequence]);
    done.map(drop).map_err(FILE.failed("recording what was told"))
}
