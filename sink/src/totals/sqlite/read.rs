//! Rows of the totals book, read back and checked.

use std::ops::Range;

use odometer_schemas::commit::{ExceptionsRow, PartitionState, SourceMark, TotalRow};
use odometer_schemas::definitions::Definitions;
use odometer_schemas::digest::Digest;
use odometer_schemas::meter::Aggregation;
use odometer_schemas::verdict::VerdictCounts;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, Params, params};

use super::super::rules::{Standing, without_partition};
use super::super::values::{definitions_of_bytes, words_of_bytes};
use super::super::{AlertFilter, AlertsOf, Installation, PartitionCursor, TotalsFilter};
use super::FILE;
use crate::error::BookError;
use crate::sqlite::Columns;

/// One table's rows as checked values.
pub(super) struct Query {
    pub(super) table: &'static str,
    pub(super) key_columns: usize,
    pub(super) sql: &'static str,
}

impl Query {
    pub(super) fn rows<T>(
        &self,
        connection: &Connection,
        params: impl Params,
        read: impl Fn(&Columns<'_>) -> Result<T, BookError>,
    ) -> Result<Vec<T>, BookError> {
        let fail = FILE.failed("reading");
        let mut statement = connection.prepare_cached(self.sql).map_err(&fail)?;
        let mut rows = statement.query(params).map_err(&fail)?;
        let mut out = Vec::new();
        while let Some(row) = rows.next().map_err(&fail)? {
            out.push(read(&Columns { table: self.table, key_columns: self.key_columns, row })?);
        }
        Ok(out)
    }
}

pub(super) fn installation(connection: &Connection) -> Result<Option<Installation>, BookError> {
    let query =
        Query { table: "installation", key_columns: 0, sql: "SELECT log_id, partitions, hash_seed FROM installation" };
    let mut rows = query.rows(connection, [], |row| {
        Ok(Installation {
            log_id: row.text(0)?.to_owned(),
            partitions: row.fitting(1)?,
            hash_seed: row.read(2, |text| u64::from_str_radix(text, 16).ok())?,
        })
    })?;
    Ok(rows.pop())
}

pub(super) fn cursors(connection: &Connection) -> Result<Vec<PartitionCursor>, BookError> {
    let query = Query {
        table: "partitions",
        key_columns: 1,
        sql: "SELECT partition, epoch, owner, next_offset, log_time, received, accepted, duplicate, conflict, late,
                  rejected
              FROM partitions ORDER BY partition",
    };
    query.rows(connection, [], |row| {
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
}

/// Where the partition's row stands, unless it was never claimed.
pub(super) fn standing(connection: &Connection, partition: u32) -> Result<Option<Standing>, BookError> {
    let query = Query {
        table: "partitions",
        key_columns: 1,
        sql: "SELECT partition, epoch, next_offset FROM partitions WHERE partition = ?",
    };
    let mut rows = query
        .rows(connection, [partition], |row| Ok(Standing { epoch: row.fitting(1)?, next_offset: row.fitting(2)? }))?;
    Ok(rows.pop())
}

const TOTAL_COLUMNS_TABLE: &str = "period_totals";

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
        state: row.blob(9)?.to_vec(),
    })
}

/// One statement for every filter: parts that are not given are no condition.
pub(super) fn totals(connection: &Connection, filter: &TotalsFilter) -> Result<Vec<TotalRow>, BookError> {
    let query = Query {
        table: TOTAL_COLUMNS_TABLE,
        key_columns: 3,
        sql: "SELECT tenant, meter, period_start, period_end, quantity, records, digest, aggregation, sum, state
              FROM period_totals
              WHERE tenant >= ?1 AND tenant <= ?2 AND (?3 IS NULL OR meter = ?3)
                AND period_start >= ?4 AND period_start < ?5 AND period_end > ?6
              ORDER BY tenant, meter, period_start",
    };
    let (starts, end_above) = filter.period.map_or((i64::MIN..i64::MAX, i64::MIN), |period| {
        let (starts, end_above) = period.bounds();
        (starts.start.0..starts.end.0, end_above)
    });
    // Bounds let a tenant's totals be found by the key; a blob sorts after every text.
    let (from, to) = match &filter.tenant {
        Some(tenant) => (tenant.as_str(), ValueRef::Text(tenant.as_bytes())),
        None => ("", ValueRef::Blob(&[])),
    };
    let values = params![from, ToSqlOutput::Borrowed(to), filter.meter, starts.start, starts.end, end_above];
    query.rows(connection, values, total)
}

pub(super) fn partition_state(connection: &Connection, partition: u32) -> Result<PartitionState, BookError> {
    let query = Query {
        table: TOTAL_COLUMNS_TABLE,
        key_columns: 3,
        sql: "SELECT tenant, meter, period_start, period_end, quantity, records, digest, aggregation, sum, state
              FROM period_totals WHERE partition = ? ORDER BY tenant, meter, period_start",
    };
    let totals = query.rows(connection, [partition], total)?;
    let cursor = cursors(connection)?.into_iter().find(|cursor| cursor.partition == partition);
    let cursor = cursor.ok_or_else(|| BookError::out_of_range(format!("partition {partition} has no row")))?;
    Ok(PartitionState {
        epoch: cursor.epoch,
        next_offset: cursor.next_offset,
        log_time_ms: cursor.log_time_ms,
        counts: cursor.counts,
        totals,
        marks: marks(connection, partition)?,
        rules: rules(connection, partition)?,
        quota: super::quota::read(connection, partition)?,
        alerts: without_partition(super::alerts::read(connection, &AlertFilter::all(AlertsOf::Partition(partition)))?),
    })
}

fn rules(connection: &Connection, partition: u32) -> Result<Option<Vec<u8>>, BookError> {
    let query = Query {
        table: "partitions",
        key_columns: 1,
        sql: "SELECT partition, rules FROM partitions WHERE partition = ? AND rules IS NOT NULL",
    };
    Ok(query.rows(connection, [partition], |row| row.blob(1).map(<[u8]>::to_vec))?.pop())
}

fn marks(connection: &Connection, partition: u32) -> Result<Vec<SourceMark>, BookError> {
    let query = Query {
        table: "source_marks",
        key_columns: 2,
        sql: "SELECT partition, source, epoch, low_water, above FROM source_marks WHERE partition = ? ORDER BY source",
    };
    query.rows(connection, [partition], |row| {
        Ok(SourceMark {
            source: row.read(1, |text| u128::from_str_radix(text, 16).ok())?,
            epoch: row.fitting(2)?,
            low_water: row.parsed(3)?,
            above: words_of_bytes(row.blob(4)?).map_err(|problem| row.corrupt(4, problem))?,
        })
    })
}

pub(super) fn exceptions(
    connection: &Connection,
    partition: u32,
    offsets: &Range<u64>,
) -> Result<Vec<ExceptionsRow>, BookError> {
    let query = Query {
        table: "exceptions",
        key_columns: 2,
        sql: "SELECT partition, \"offset\", verdicts FROM exceptions
              WHERE partition = ? AND \"offset\" >= ? AND \"offset\" < ? ORDER BY \"offset\"",
    };
    query.rows(connection, params![partition, clamped(offsets.start), clamped(offsets.end)], |row| {
        Ok(ExceptionsRow { offset: row.fitting(1)?, verdicts: row.blob(2)?.to_vec() })
    })
}

pub(super) fn definitions_at(
    connection: &Connection,
    partition: u32,
    offset: u64,
) -> Result<Option<Definitions>, BookError> {
    let query = Query {
        table: "definitions",
        key_columns: 2,
        sql: "SELECT partition, \"offset\", definitions FROM definitions
              WHERE partition = ? AND \"offset\" < ? ORDER BY \"offset\" DESC LIMIT 1",
    };
    let mut rows = query.rows(connection, params![partition, clamped(offset)], |row| {
        definitions_of_bytes(row.blob(2)?).map_err(|problem| row.corrupt(2, problem))
    })?;
    Ok(rows.pop())
}

/// No stored offset is beyond signed 64 bits, so the bound may stop there.
fn clamped(offset: u64) -> i64 {
    i64::try_from(offset).unwrap_or(i64::MAX)
}
