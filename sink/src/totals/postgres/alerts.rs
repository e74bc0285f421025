//! Alerts into an open transaction, and back; and how far each channel has told of them.

use odometer_schemas::commit::PartitionCommit;
use odometer_schemas::quota::AlertRow;

use super::super::rules::{in_order, scope_of};
use super::super::{AlertFilter, AlertsOf, CommitError, Told};
use super::apply::{chunks, column, partitions, stored};
use super::columns::Table;
use super::read::rows;
use super::session::Link;
use crate::error::BookError;

const QUOTA_ALERTS: Table = Table { name: "quota_alerts", key_columns: 2 };
const TOLD: Table = Table { name: "quota_alerts_told", key_columns: 1 };

const ADD: &str = "INSERT INTO quota_alerts (partition, sequence, at, tenant, meter, scope, name, period_start,
        period_end, percent, policy, limit_units, used)
    SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::text[],
        $8::bigint[], $9::bigint[], $10::bigint[], $11::text[], $12::bigint[], $13::bigint[])";

pub(super) async fn write(link: &mut Link, fresh: &[&PartitionCommit]) -> Result<(), CommitError> {
    let all = in_order(fresh, |commit| &commit.alerts, |partition, row| (partition, row.sequence))?;
    for chunk in chunks(&all, |_| 0) {
        let sequences = chunk.iter().map(|(_, row)| stored(row.sequence)).collect::<Result<Vec<_>, _>>()?;
        let query = sqlx::query(ADD)
            .bind(partitions(chunk))
            .bind(sequences)
            .bind(column(chunk, |row| row.at_ms))
            .bind(column(chunk, |row| row.tenant.as_str()))
            .bind(column(chunk, |row| row.meter.as_str()))
            .bind(column(chunk, |row| row.scope.name()))
            .bind(column(chunk, |row| row.name.as_str()))
            .bind(column(chunk, |row| row.period_start_ms))
            .bind(column(chunk, |row| row.period_end_ms))
            .bind(column(chunk, |row| i64::from(row.percent)))
            .bind(column(chunk, |row| row.policy.as_str()))
            .bind(column(chunk, |row| row.limit))
            .bind(column(chunk, |row| row.used));
        link.execute("writing alerts", query).await?;
    }
    Ok(())
}

macro_rules! alerts_where {
    ($whose:literal) => {
        concat!(
            "SELECT partition, sequence, at, tenant, meter, scope, name, period_start, period_end, percent, policy,
                    limit_units, used
             FROM quota_alerts WHERE ",
            $whose,
            " = $1 AND sequence > $2 ORDER BY sequence LIMIT $3"
        )
    };
}

/// By sequence.
pub(super) async fn read(link: &mut Link, filter: &AlertFilter) -> Result<Vec<(u32, AlertRow)>, BookError> {
    let query = match &filter.of {
        AlertsOf::Partition(partition) => sqlx::query(alerts_where!("partition")).bind(i64::from(*partition)),
        AlertsOf::Tenant(tenant) => sqlx::query(alerts_where!("tenant")).bind(tenant),
    };
    // Negative: before the first.
    let after = filter.after.map_or(Ok(-1), stored)?;
    let query = query.bind(after).bind(filter.most.map(i64::from));
    rows(link, QUOTA_ALERTS, query, |row| {
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
    })
    .await
}

pub(super) async fn told(link: &mut Link, channel: &str) -> Result<Vec<Told>, BookError> {
    let query = sqlx::query("SELECT partition, sequence FROM quota_alerts_told WHERE channel = $1 ORDER BY partition")
        .bind(channel);
    rows(link, TOLD, query, |row| Ok(Told { partition: row.fitting(0)?, sequence: row.fitting(1)? })).await
}

pub(super) async fn tell(link: &mut Link, channel: &str, told: Told) -> Result<(), BookError> {
    let query = sqlx::query(
        "INSERT INTO quota_alerts_told AS t (partition, channel, sequence) VALUES ($1, $2, $3)
         ON CONFLICT (partition, channel) DO UPDATE SET sequence = greatest(t.sequence, excluded.sequence)",
    )
    .bind(i64::from(told.partition))
    .bind(channel)
    .bind(stored(told.sequence)?);
    link.execute("recording what was told", query).await.map(drop)
}
