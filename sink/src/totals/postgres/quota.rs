//! Quota state into an open transaction, and back.

use odometer_schemas::commit::PartitionCommit;
use odometer_schemas::quota::{QuotaRow, QuotaRowKind};

use super::super::CommitError;
use super::super::rules::{GIVEN, in_order, quota_key};
use super::apply::{chunks, column, partitions};
use super::columns::Table;
use super::read::rows;
use super::session::{Link, Statement};
use crate::error::BookError;

const QUOTA_STATE: Table = Table { name: "quota_state", key_columns: 4 };

const PUT: &str = "INSERT INTO quota_state (partition, kind, tenant, name, state)
    SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::bytea[])
    ON CONFLICT (partition, kind, tenant, name) DO UPDATE SET state = excluded.state";
const DROP: &str = "DELETE FROM quota_state AS q
    USING unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[]) AS n (partition, kind, tenant, name)
    WHERE q.partition = n.partition AND q.kind = n.kind AND q.tenant = n.tenant AND q.name = n.name";

/// Absolute values replace what was there; empty ones remove it.
pub(super) async fn write(link: &mut Link, fresh: &[&PartitionCommit]) -> Result<(), CommitError> {
    let all = in_order(fresh, |commit| &commit.quota, quota_key)?;
    let (gone, kept): (Vec<_>, Vec<_>) = all.into_iter().partition(|(_, row)| row.state.is_empty());
    for chunk in chunks(&kept, |(_, row)| row.state.len()) {
        let query = keyed(PUT, chunk).bind(column(chunk, |row| row.state.as_slice()));
        link.execute("writing quota state", query).await?;
    }
    for chunk in chunks(&gone, |_| 0) {
        link.execute("removing quota state", keyed(DROP, chunk)).await?;
    }
    Ok(())
}

fn keyed<'a>(sql: &'static str, chunk: &[(&PartitionCommit, &'a QuotaRow)]) -> Statement<'a> {
    sqlx::query(sql)
        .bind(partitions(chunk))
        .bind(column(chunk, |row| i64::from(row.kind.code())))
        .bind(column(chunk, |row| row.tenant.as_str()))
        .bind(column(chunk, |row| row.name.as_str()))
}

/// All quota state of one partition.
pub(super) async fn read(link: &mut Link, partition: u32) -> Result<Vec<QuotaRow>, BookError> {
    let query = sqlx::query(
        "SELECT partition, kind, tenant, name, state FROM quota_state WHERE partition = $1
         ORDER BY kind, tenant, name",
    );
    rows_of(link, query.bind(i64::from(partition))).await
}

/// Plans and terms, by partition and tenant.
pub(super) async fn given(link: &mut Link, wanted: &[(u32, String)]) -> Result<Vec<QuotaRow>, BookError> {
    let (partitions, tenants): (Vec<_>, Vec<_>) =
        wanted.iter().map(|(partition, tenant)| (i64::from(*partition), tenant.as_str())).unzip();
    let query = sqlx::query(
        "SELECT q.partition, q.kind, q.tenant, q.name, q.state
         FROM unnest($1::bigint[], $2::text[]) AS w (partition, tenant) CROSS JOIN unnest($3::bigint[]) AS k (kind)
         JOIN quota_state AS q ON (q.partition, q.kind, q.tenant) = (w.partition, k.kind, w.tenant)",
    );
    let kinds = GIVEN.map(|kind| i64::from(kind.code())).to_vec();
    rows_of(link, query.bind(partitions).bind(tenants).bind(kinds)).await
}

async fn rows_of(link: &mut Link, query: Statement<'_>) -> Result<Vec<QuotaRow>, BookError> {
    rows(link, QUOTA_STATE, query, |row| {
        let kind = row.fitting::<u8>(1)?;
        Ok(QuotaRow {
            kind: QuotaRowKind::from_code(kind)
                .ok_or_else(|| row.corrupt(1, format!("holds the unknown kind {kind}")))?,
            tenant: row.text(2)?.to_owned(),
            name: row.text(3)?.to_owned(),
            state: row.bytes(4)?.to_vec(),
        })
    })
    .await
}
