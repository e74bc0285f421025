//! Rows of the raw book, read back and checked. A value that does not fit is named by
//! table, key and column; nothing is ever coerced.

use odometer_schemas::log::Position;
use odometer_schemas::meter::Aggregation;
use odometer_schemas::row::RawRow;
use odometer_schemas::time::TimeMs;
use odometer_schemas::verdict::Verdict;
use serde::Deserialize;

use super::super::{
    OwnedRow, RawCursor, RecordFilter, RejectedEnvelope, RejectedFilter, RollupRow, UsageFold, UsageQuery,
};
use super::link::Link;
use crate::error::BookError;

/// A row of `usage_records`. Texts are bytes here: the engine does not check them.
#[derive(Debug, clickhouse::Row, Deserialize)]
pub(super) struct StoredRow<'a> {
    partition: u32,
    offset: u64,
    idx: u16,
    #[serde(borrow)]
    tenant: &'a [u8],
    meter: &'a [u8],
    source: &'a [u8],
    id: &'a [u8],
    id_emitted: bool,
    subject: Option<&'a [u8]>,
    quantity: i64,
    time: i64,
    time_given: bool,
    dimensions: &'a [u8],
    reservation: Option<&'a [u8]>,
    envelope_records: u16,
    verdict: &'a [u8],
    reason: Option<&'a [u8]>,
    append_time: i64,
    pub(super) row_hash: u64,
}

/// A row of `usage_rollups`.
#[derive(Debug, clickhouse::Row, Deserialize)]
pub(super) struct StoredRollup<'a> {
    #[serde(borrow)]
    tenant: &'a [u8],
    meter: &'a [u8],
    window_start: i64,
    dimensions: &'a [u8],
    pub(super) partition: u32,
    range_start: u64,
    pub(super) last_offset: u64,
    aggregation: &'a [u8],
    quantity: i128,
    sum: i128,
    records: u64,
    state: &'a [u8],
}

/// A row of `rejected_envelopes`.
#[derive(Debug, clickhouse::Row, Deserialize)]
pub(super) struct StoredEntry<'a> {
    pub(super) partition: u32,
    pub(super) offset: u64,
    append_time: i64,
    #[serde(borrow)]
    reason: &'a [u8],
    bytes: &'a [u8],
}

/// A row of `cursors`.
#[derive(clickhouse::Row, Deserialize)]
struct StoredCursor {
    partition: u32,
    next_offset: u64,
}

/// Names values that do not read back.
struct Checker<F> {
    table: &'static str,
    key: F,
}

impl<F: Fn() -> String> Checker<F> {
    fn text<'a>(&self, column: &str, bytes: &'a [u8]) -> Result<&'a str, BookError> {
        str::from_utf8(bytes).map_err(|_| self.corrupt(column, "is not UTF-8".to_owned()))
    }

    fn optional<'a>(&self, column: &str, bytes: Option<&'a [u8]>) -> Result<Option<&'a str>, BookError> {
        bytes.map(|bytes| self.text(column, bytes)).transpose()
    }

    fn read<T>(&self, column: &str, text: &str, read: impl Fn(&str) -> Option<T>) -> Result<T, BookError> {
        read(text).ok_or_else(|| self.corrupt(column, format!("holds {text:?}, which does not parse")))
    }

    fn corrupt(&self, column: &str, problem: String) -> BookError {
        BookError::Corrupt { table: self.table, key: (self.key)(), column: column.to_owned(), problem }
    }
}

impl<'a> StoredRow<'a> {
    /// The row, checked.
    pub(super) fn read(&self) -> Result<RawRow<'a>, BookError> {
        let key = || format!("({}, {}, {})", self.partition, self.offset, self.idx);
        let check = Checker { table: "usage_records", key };
        let reason = check.optional("reason", self.reason)?;
        let verdict = check.text("verdict", self.verdict)?;
        Ok(RawRow {
            tenant: check.text("tenant", self.tenant)?,
            meter: check.text("meter", self.meter)?,
            source: check.text("source", self.source)?,
            id: check.text("id", self.id)?,
            id_emitted: self.id_emitted,
            subject: check.optional("subject", self.subject)?,
            quantity: self.quantity,
            time_ms: self.time,
            time_given: self.time_given,
            dimensions: check.text("dimensions", self.dimensions)?,
            reservation: check.optional("reservation", self.reservation)?,
            position: Position { partition: self.partition, offset: self.offset, index: self.idx },
            envelope_records: self.envelope_records,
            verdict: check.read("verdict", verdict, |name| Verdict::from_name(name, reason))?,
            append_time_ms: self.append_time,
        })
    }
}

impl<'a> StoredRollup<'a> {
    /// The row, checked.
    pub(super) fn read(&self) -> Result<RollupRow<'a>, BookError> {
        let lossy = String::from_utf8_lossy;
        let key = || {
            let Self { window_start, partition, range_start, .. } = self;
            format!("({}, {}, {window_start}, {partition}, {range_start})", lossy(self.tenant), lossy(self.meter))
        };
        let check = Checker { table: "usage_rollups", key };
        let aggregation = check.text("aggregation", self.aggregation)?;
        Ok(RollupRow {
            window_start_ms: self.window_start,
            tenant: check.text("tenant", self.tenant)?,
            meter: check.text("meter", self.meter)?,
            dimensions: check.text("dimensions", self.dimensions)?,
            partition: self.partition,
            range_start: self.range_start,
            last_offset: self.last_offset,
            aggregation: check.read("aggregation", aggregation, Aggregation::from_name)?,
            quantity: self.quantity,
            sum: self.sum,
            records: self.records,
            state: self.state,
        })
    }
}

impl StoredEntry<'_> {
    /// The entry, checked.
    pub(super) fn read(&self) -> Result<RejectedEnvelope, BookError> {
        let check = Checker { table: "rejected_envelopes", key: || format!("({}, {})", self.partition, self.offset) };
        let reason = check.text("reason", self.reason)?;
        Ok(RejectedEnvelope {
            partition: self.partition,
            offset: self.offset,
            append_time: TimeMs(self.append_time),
            verdict: check.read("reason", reason, |reason| Verdict::from_name("rejected", Some(reason)))?,
            bytes: self.bytes.to_vec(),
        })
    }
}

/// A time in SQL, exact whatever it is: functions that take times stop somewhere.
pub(super) fn time_literal(ms: i64) -> String {
    format!("reinterpret(toInt64({ms}), 'DateTime64(3, \\'UTC\\')')")
}

/// In SQL: a number for the row's partition, zero where there is none.
pub(super) fn per_partition(numbers: impl Iterator<Item = (u32, u64)>) -> String {
    let (partitions, values): (Vec<String>, Vec<String>) =
        numbers.map(|(partition, number)| (format!("toUInt32({partition})"), format!("toUInt64({number})"))).unzip();
    if partitions.is_empty() {
        return "toUInt64(0)".to_owned();
    }
    format!("transform(partition, [{}], [{}], toUInt64(0))", partitions.join(", "), values.join(", "))
}

pub(super) fn cursors(link: &Link) -> Result<Vec<RawCursor>, BookError> {
    let mut cursors = Vec::new();
    let query = link.query(
        "SELECT partition, max(cursors.next_offset) AS next_offset FROM cursors GROUP BY partition ORDER BY partition",
    );
    link.each::<StoredCursor>("reading its cursors", query, |row| {
        cursors.push(RawCursor { partition: row.partition, next_offset: row.next_offset });
        Ok(())
    })?;
    Ok(cursors)
}

/// The records that `filter` asks for, by position. What the engine still has twice is
/// answered once.
pub(super) fn records(link: &Link, filter: &RecordFilter) -> Result<Vec<OwnedRow>, BookError> {
    let mut sql = "SELECT ?fields FROM usage_records WHERE tenant = ?".to_owned();
    let texts =
        [("id", &filter.id), ("source", &filter.source), ("meter", &filter.meter), ("verdict", &filter.verdict)];
    let texts: Vec<(&str, &String)> =
        texts.into_iter().filter_map(|(name, text)| Some((name, text.as_ref()?))).collect();
    texts.iter().for_each(|(name, _)| sql.push_str(&format!(" AND {name} = ?")));
    if let Some(from) = filter.from {
        sql.push_str(&format!(" AND time >= {}", time_literal(from.0)));
    }
    if let Some(to) = filter.to {
        sql.push_str(&format!(" AND time < {}", time_literal(to.0)));
    }
    if let Some(Position { partition, offset, index }) = filter.after {
        // The first part is what the engine can look up.
        sql.push_str(&format!(
            " AND (partition > {partition} OR partition = {partition} AND offset >= {offset})
             AND (partition, offset, idx) > ({partition}, {offset}, {index})"
        ));
    }
    sql.push_str(&format!(
        " ORDER BY partition, offset, idx LIMIT 1 BY partition, offset, idx, row_hash LIMIT {}",
        filter.limit
    ));
    let query = link.query(&sql).bind(filter.tenant.as_str());
    let query = texts.into_iter().fold(query, |query, (_, text)| query.bind(text.as_str()));
    let mut found = Vec::new();
    link.each::<StoredRow<'static>>("looking for records", query, |row| {
        found.push(OwnedRow::from(&row.read()?));
        Ok(())
    })?;
    Ok(found)
}

/// Feeds the rollup rows that a query asks for.
pub(super) fn rollups_of(link: &Link, query: &UsageQuery, fold: &mut UsageFold<'_>) -> Result<(), BookError> {
    let starts = query.window_starts();
    let (from, to) = (time_literal(starts.start.0), time_literal(starts.end.0));
    let tenant = if query.tenant.is_some() { " AND tenant = ?" } else { "" };
    let sql = format!(
        "SELECT ?fields FROM usage_rollups FINAL
         WHERE meter = ? AND window_start >= {from} AND window_start < {to}{tenant}"
    );
    let bound = link.query(&sql).bind(query.meter.as_str());
    let bound = query.tenant.iter().fold(bound, |bound, tenant| bound.bind(tenant.as_str()));
    link.each::<StoredRollup<'static>>("reading rollups", bound, |row| fold.add(&row.read()?))
}

pub(super) fn rejected(link: &Link, filter: &RejectedFilter) -> Result<Vec<RejectedEnvelope>, BookError> {
    let mut sql = "SELECT ?fields FROM rejected_envelopes FINAL WHERE true".to_owned();
    if let Some(partition) = filter.partition {
        sql.push_str(&format!(" AND partition = {partition}"));
    }
    if let Some((partition, offset)) = filter.after {
        sql.push_str(&format!(" AND (partition, offset) > ({partition}, {offset})"));
    }
    sql.push_str(&format!(" ORDER BY partition, offset LIMIT {}", filter.limit));
    let mut found = Vec::new();
    link.each::<StoredEntry<'static>>("reading undecodable entries", link.query(&sql), |entry| {
        found.push(entry.read()?);
        Ok(())
    })?;
    Ok(found)
}
