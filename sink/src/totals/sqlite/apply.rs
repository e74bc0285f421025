//! One partition's commit into an open transaction.

use odometer_schemas::commit::PartitionCommit;
use odometer_schemas::digest::Digest;
use rusqlite::{Connection, params};

use super::super::rules::{in_order, invalid, is_to_apply, total_key};
use super::super::values::{bytes_of_definitions, bytes_of_words};
use super::super::{CommitError, OwnedCommit};
use super::{FILE, alerts, quota, read};
use crate::error::BookError;
use crate::sqlite::insert_all;

/// Absolute values replace what was there. A total that another partition holds is
/// left alone, which the count of changed rows betrays.
const TOTALS: &str = "INSERT INTO period_totals (tenant, meter, period_start, period_end, quantity, records, digest,
        aggregation, sum, partition, state) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
        ON CONFLICT (tenant, meter, period_start) DO UPDATE SET period_end = excluded.period_end,
        quantity = excluded.quantity, records = excluded.records, digest = excluded.digest,
        aggregation = excluded.aggregation, sum = excluded.sum, state = excluded.state
        WHERE partition = excluded.partition";
const MARKS: &str =
    "INSERT OR REPLACE INTO source_marks (partition, source, epoch, low_water, above) VALUES (?, ?, ?, ?, ?)";
const EXCEPTIONS: &str = "INSERT OR REPLACE INTO exceptions (partition, \"offset\", verdicts) VALUES (?, ?, ?)";
const DEFINITIONS: &str = "INSERT OR REPLACE INTO definitions (partition, \"offset\", definitions) VALUES (?, ?, ?)";

/// Applies one commit, or finds that it was applied before. The transaction holds the
/// write lock, so what the row says stays true.
pub(super) fn commit(connection: &Connection, owned: &OwnedCommit) -> Result<(), CommitError> {
    if !is_to_apply(owned, read::standing(connection, owned.commit.partition)?)? {
        return Ok(());
    }
    move_on(connection, &owned.commit)?;
    totals(connection, &owned.commit)?;
    rest(connection, &owned.commit)
}

fn move_on(connection: &Connection, commit: &PartitionCommit) -> Result<(), BookError> {
    let fail = FILE.failed("moving a partition on");
    let counts = &commit.counts;
    let mut statement = connection
        .prepare_cached(
            "UPDATE partitions SET next_offset = ?2, log_time = ?3, received = ?4, accepted = ?5, duplicate = ?6,
                 conflict = ?7, late = ?8, rejected = ?9, rules = coalesce(?10, rules) WHERE partition = ?1",
        )
        .map_err(&fail)?;
    statement
        .execute(params![
            commit.partition,
            commit.next_offset,
            commit.log_time_ms,
            counts.received,
            counts.accepted,
            counts.duplicate,
            counts.conflict,
            counts.late,
            counts.rejected,
            commit.rules,
        ])
        .map_err(&fail)?;
    Ok(())
}

fn totals(connection: &Connection, commit: &PartitionCommit) -> Result<(), CommitError> {
    let rows = in_order(&[commit], |commit| &commit.totals, |_, row| total_key(row))?;
    let changed = insert_all(connection, TOTALS, rows.iter(), |statement, (_, row)| {
        statement.raw_bind_parameter(1, &*row.tenant)?;
        statement.raw_bind_parameter(2, &*row.meter)?;
        statement.raw_bind_parameter(3, row.period_start_ms)?;
        statement.raw_bind_parameter(4, row.period_end_ms)?;
        statement.raw_bind_parameter(5, row.quantity.to_string())?;
        statement.raw_bind_parameter(6, row.records)?;
        statement.raw_bind_parameter(7, Digest(row.digest).to_string())?;
        statement.raw_bind_parameter(8, row.aggregation.name())?;
        statement.raw_bind_parameter(9, row.sum.to_string())?;
        statement.raw_bind_parameter(10, commit.partition)?;
        statement.raw_bind_parameter(11, row.state.as_slice())
    })
    .map_err(FILE.failed("writing totals"))?;
    if changed == rows.len() {
        return Ok(());
    }
    Err(invalid(commit, format!("{} of its {} totals belong to another partition", rows.len() - changed, rows.len())))
}

fn rest(connection: &Connection, commit: &PartitionCommit) -> Result<(), CommitError> {
    let marks = in_order(&[commit], |commit| &commit.marks, |_, mark| mark.source)?;
    insert_all(connection, MARKS, marks.iter(), |statement, (_, mark)| {
        statement.raw_bind_parameter(1, commit.partition)?;
        statement.raw_bind_parameter(2, format!("{:032x}", mark.source))?;
        statement.raw_bind_parameter(3, mark.epoch)?;
        statement.raw_bind_parameter(4, mark.low_water.to_string())?;
        statement.raw_bind_parameter(5, bytes_of_words(&mark.above))
    })
    .map_err(FILE.failed("writing emitter watermarks"))?;
    let exceptions = in_order(&[commit], |commit| &commit.exceptions, |_, row| row.offset)?;
    insert_all(connection, EXCEPTIONS, exceptions.iter(), |statement, (_, row)| {
        statement.raw_bind_parameter(1, commit.partition)?;
        statement.raw_bind_parameter(2, row.offset)?;
        statement.raw_bind_parameter(3, row.verdicts.as_slice())
    })
    .map_err(FILE.failed("writing exceptions"))?;
    let definitions = in_order(&[commit], |commit| &commit.definitions, |_, row| row.offset)?;
    insert_all(connection, DEFINITIONS, definitions.iter(), |statement, (_, row)| {
        statement.raw_bind_parameter(1, commit.partition)?;
        statement.raw_bind_parameter(2, row.offset)?;
        statement.raw_bind_parameter(3, bytes_of_definitions(&row.definitions))
    })
    .map_err(FILE.failed("writing definitions"))?;
    quota::write(connection, commit)?;
    alerts::write(connection, commit)
}
