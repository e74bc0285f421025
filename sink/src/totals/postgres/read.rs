//! Rows of the totals book, read back and checked, as they arrive.

use std::ops::Range;

use odometer_schemas::commit::{ExceptionsRow, PartitionState, SourceMark, TotalRow};
use odometer_schemas::definitions::Definitions;
use odometer_schemas::digest::Digest;
use odometer_schemas::meter::Aggregation;
use odometer_schemas::verdict::VerdictCounts;

use super::super::rules::{Standing, without_partition};
use super::super::values::{definitions_of_bytes, words_of_bytes};
use super::super::{AlertFilter, AlertsOf, Installation, PartitionCursor, TotalsFilter};
use super::columns::{Columns, Table};
use super::session::{Link, Statement};
use super::{alerts, quota};
use crate::error::BookError;

const INSTALLATION: Table = Table { name: "installation", key_columns: 0 };
const PARTITIONS: Table = Table { name: "partitions", key_columns: 1 };
const PERIOD_TOTALS: Table = Table { name: "period_totals", key_columns: 3 };
const SOURCE_MARKS: Table = Table { name: "source_marks", key_columns: 2 };
const EXCEPTIONS: Table = Table { name: "exceptions", key_columns: 2 };
const DEFINITIONS: Table = Table { name: "definitions", key_columns: 2 };

pub(super) async fn rows<T>(
    link: &mut Link,
    table: Table,
    query: Statement<'_>,
    read: impl Fn(&Columns<'_>) -> Result<T, BookError>,
) -> Result<Vec<T>, BookError> {
    link.rows("reading", query, |row| read(&Columns { table, row })).await
}

pub(super) async fn installation(link: &mut Link) -> Result<Option<Installation>, BookError> {
    let query = sqlx::query("SELECT log_id, partitions, hash_seed FROM installation");
    let mut found = rows(link, INSTALLATION, query, |row| {
        Ok(Installation {
            log_id: row.text(0)?.to_owned(),
            partitions: row.fitting(1)?,
            hash_seed: row.read(2, |text| u64::from_str_radix(text, 16).ok())?,
        })
    })
    .await?;
    Ok(found.pop())
}

/// Where the partitions stand that were ever claimed. Their rows stay locked, and
/// thereby as they are, until the transaction ends.
pub(super) async fn locked_standings(link: &mut Link, partitions: Vec<i64>) -> Result<Vec<(u32, Standing)>, BookError> {
    let query = sqlx::query(
        "SELECT partition, epoch, next_offset FROM partitions WHERE partition = ANY ($1)
         ORDER BY partition FOR UPDATE",
    )
    .bind(partitions);
    rows(link, PARTITIONS, query, |row| {
        Ok((row.fitting(0)?, Standing { epoch: row.fitting(1)?, next_offset: row.fitting(2)? }))
    })
    .await
}

pub(super) async fn cursors(link: &mut Link) -> Result<Vec<PartitionCursor>, BookError> {
    let query = sqlx::query(
        "SELECT partition, epoch, owner, next_offset, log_time, received, accepted, duplicate, conflict, late, rejected
         FROM partitions ORDER BY partition",
    );
    rows(link, PARTITIONS, query, |row| {
        Ok(PartitionCursor {
            partition: row.fitting(0)?,
            epoch: row.fitting(1)?,
            owner: row.text(2)?.to_owned(),
            next_offset: row.fitting(3)?,
            log_time_ms: row.integer(4)?,
            counts: VerdictCounts {
                received: row.fitting(5)?,
                accepted: row.fitting(6)?,
                duplicate: row.fitting(7)?,
                conflict: row.fitting(8)?,
                late: row.fitting(9)?,
                rejected: row.fitting(10)?,
            },
        })
    })
    .await
}

fn total(row: &Columns<'_>) -> Result<TotalRow, BookError> {
    Ok(TotalRow {
        tenant: row.text(0)?.into(),
        meter: row.text(1)?.into(),
        period_start_ms: row.integer(2)?,
        period_end_ms: row.integer(3)?,
        quantity: row.parsed(4)?,
        records: row.fitting(5)?,
        digest: row.read(6, Digest::parse)?.0,
        aggregation: row.read(7, Aggregation::from_name)?,
        sum: row.parsed(8)?,
        state: row.bytes(9)?.to_vec(),
    })
}

/// One statement for every filter: the server plans it for the parts that are given.
const TOTALS: &str = "SELECT tenant, meter, period_start, period_end, quantity::text AS quantity, records, digest,
        aggregation, sum::text AS sum, state
    FROM period_totals
    WHERE ($1::text IS NULL OR tenant = $1) AND ($2::text IS NULL OR meter = $2)
        AND period_start >= $3 AND period_start < $4 AND period_end > $5 AND ($6::bigint IS NULL OR partition = $6)
    ORDER BY tenant, meter, period_start";

/// The totals asked for, of all partitions or of one.
pub(super) async fn totals(
    link: &mut Link,
    filter: &TotalsFilter,
    partition: Option<u32>,
) -> Result<Vec<TotalRow>, BookError> {
    let (starts, end_above) = filter.period.map_or((i64::MIN..i64::MAX, i64::MIN), |period| {
        let (starts, end_above) = period.bounds();
        (starts.start.0..starts.end.0, end_above)
    });
    let query = sqlx::query(TOTALS)
        .bind(&filter.tenant)
        .bind(&filter.meter)
        .bind(starts.start)
        .bind(starts.end)
        .bind(end_above)
        .bind(partition.map(i64::from));
    rows(link, PERIOD_TOTALS, query, total).await
}

/// Everything of one partition; call it while the partition's row is locked.
pub(super) async fn partition_state(link: &mut Link, partition: u32) -> Result<PartitionState, BookError> {
    let cursor = cursors(link).await?.into_iter().find(|cursor| cursor.partition == partition);
    let cursor = cursor.ok_or_else(|| BookError::out_of_range(format!("partition {partition} has no row")))?;
    Ok(PartitionState {
        epoch: cursor.epoch,
        next_offset: cursor.next_offset,
        log_time_ms: cursor.log_time_ms,
        counts: cursor.counts,
        totals: totals(link, &TotalsFilter::default(), Some(partition)).await?,
        marks: marks(link, partition).await?,
        rules: rules(link, partition).await?,
        quota: quota::read(link, partition).await?,
        alerts: without_partition(alerts::read(link, &AlertFilter::all(AlertsOf::Partition(partition))).await?),
    })
}

async fn rules(link: &mut Link, partition: u32) -> Result<Option<Vec<u8>>, BookError> {
    let query = sqlx::query("SELECT partition, rules FROM partitions WHERE partition = $1 AND rules IS NOT NULL")
        .bind(i64::from(partition));
    Ok(rows(link, PARTITIONS, query, |row| row.bytes(1).map(<[u8]>::to_vec)).await?.pop())
}

async fn marks(link: &mut Link, partition: u32) -> Result<Vec<SourceMark>, BookError> {
    let query = sqlx::query(
        "SELECT partition, source, epoch, low_water::text AS low_water, above FROM source_marks
         WHERE partition = $1 ORDER BY source",
    )
    .bind(i64::from(partition));
    rows(link, SOURCE_MARKS, query, |row| {
        Ok(SourceMark {
            source: row.read(1, |text| u128::from_str_radix(text, 16).ok())?,
            epoch: row.fitting(2)?,
            low_water: row.parsed(3)?,
            above: words_of_bytes(row.bytes(4)?).map_err(|problem| row.corrupt(4, problem))?,
        })
    })
    .await
}

pub(super) async fn exceptions(
    link: &mut Link,
    partition: u32,
    offsets: &Range<u64>,
) -> Result<Vec<ExceptionsRow>, BookError> {
    let query = sqlx::query(
        "SELECT partition, \"offset\", verdicts FROM exceptions
         WHERE partition = $1 AND \"offset\" >= $2 AND \"offset\" < $3 ORDER BY \"offset\"",
    )
    .bind(i64::from(partition))
    .bind(clamped(offsets.start))
    .bind(clamped(offsets.end));
    rows(link, EXCEPTIONS, query, |row| Ok(ExceptionsRow { offset: row.fitting(1)?, verdicts: row.bytes(2)?.to_vec() }))
        .await
}

pub(super) async fn definitions_at(
    link: &mut Link,
    partition: u32,
    offset: u64,
) -> Result<Option<Definitions>, BookError> {
    let query = sqlx::query(
        "SELECT partition, \"offset\", definitions FROM definitions
         WHERE partition = $1 AND \"offset\" < $2 ORDER BY \"offset\" DESC LIMIT 1",
    )
    .bind(i64::from(partition))
    .bind(clamped(offset));
    let mut found = rows(link, DEFINITIONS, query, |row| {
        definitions_of_bytes(row.bytes(2)?).map_err(|problem| row.corrupt(2, problem))
    })
    .await?;
    Ok(found.pop())
}

/// No stored offset is beyond signed 64 bits, so the bound may stop there.
fn clamped(offset: u64) -> i64 {
    i64::try_from(offset).unwrap_or(i64::MAX)
}
