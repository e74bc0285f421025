//! One partition's commit into an open transaction.

use odometer_schemas::commit::{PartitionCommit, TotalRow};
use odometer_schemas::control::Control;
use odometer_schemas::digest::Digest;
use odometer_schemas::envelope::{Origin, encode_control};
use rusqlite::{Connection, OptionalExtension, params};

use super::super::{CommitError, OwnedCommit};
use super::FILE;
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

/// Applies one commit, or finds that it was applied before.
pub(super) fn commit(connection: &Connection, owned: &OwnedCommit) -> Result<(), CommitError> {
    if !swap(connection, owned)? {
        return was_applied(connection, owned);
    }
    totals(connection, &owned.commit)?;
    rest(connection, &owned.commit)?;
    Ok(())
}

/// Moves the partition's row on; `false` when it is not where the commit starts.
fn swap(connection: &Connection, owned: &OwnedCommit) -> Result<bool, CommitError> {
    let fail = FILE.failed("moving a partition on");
    let OwnedCommit { epoch, commit } = owned;
    let counts = &commit.counts;
    let mut statement = connection
        .prepare_cached(
            "UPDATE partitions SET next_offset = ?4, log_time = ?5, received = ?6, accepted = ?7, duplicate = ?8,
                 conflict = ?9, late = ?10, rejected = ?11, rules = coalesce(?12, rules)
             WHERE partition = ?1 AND epoch = ?2 AND next_offset = ?3",
        )
        .map_err(&fail)?;
    let changed = statement
        .execute(params![
            commit.partition,
            epoch,
            commit.from_offset,
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
    Ok(changed == 1)
}

fn was_applied(connection: &Connection, owned: &OwnedCommit) -> Result<(), CommitError> {
    let found: Option<(u64, u64)> = connection
        .query_row("SELECT epoch, next_offset FROM partitions WHERE partition = ?", [owned.commit.partition], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .optional()
        .map_err(FILE.failed("reading a partition's row"))?;
    let (found_epoch, found_offset) = found.unwrap_or((0, 0));
    if found.is_some() && found_epoch == owned.epoch && found_offset == owned.commit.next_offset {
        return Ok(());
    }
    Err(CommitError::Fenced {
        partition: owned.commit.partition,
        epoch: owned.epoch,
        from_offset: owned.commit.from_offset,
        found_epoch,
        found_offset,
    })
}

fn totals(connection: &Connection, commit: &PartitionCommit) -> Result<(), CommitError> {
    // In key order neighbouring rows share pages.
    let mut rows: Vec<&TotalRow> = commit.totals.iter().collect();
    rows.sort_unstable_by(|a, b| key(a).cmp(&key(b)));
    let changed = insert_all(connection, TOTALS, rows.iter(), |statement, row| {
        statement.raw_bind_parameter(1, row.tenant.as_str())?;
        statement.raw_bind_parameter(2, row.meter.as_str())?;
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
    Err(CommitError::Invalid {
        partition: commit.partition,
        next_offset: commit.next_offset,
        problem: format!("{} of its {} totals belong to another partition", rows.len() - changed, rows.len()),
    })
}

fn key(row: &TotalRow) -> (&str, &str, i64) {
    (&row.tenant, &row.meter, row.period_start_ms)
}

fn rest(connection: &Connection, commit: &PartitionCommit) -> Result<(), BookError> {
    insert_all(connection, MARKS, commit.marks.iter(), |statement, mark| {
        let above: Vec<u8> = mark.above.iter().flat_map(|word| word.to_le_bytes()).collect();
        statement.raw_bind_parameter(1, commit.partition)?;
        statement.raw_bind_parameter(2, format!("{:032x}", mark.source))?;
        statement.raw_bind_parameter(3, mark.epoch)?;
        statement.raw_bind_parameter(4, mark.low_water.to_string())?;
        statement.raw_bind_parameter(5, above)
    })
    .map_err(FILE.failed("writing emitter watermarks"))?;
    insert_all(connection, EXCEPTIONS, commit.exceptions.iter(), |statement, row| {
        statement.raw_bind_parameter(1, commit.partition)?;
        statement.raw_bind_parameter(2, row.offset)?;
        statement.raw_bind_parameter(3, row.verdicts.as_slice())
    })
    .map_err(FILE.failed("writing exceptions"))?;
    insert_all(connection, DEFINITIONS, commit.definitions.iter(), |statement, row| {
        // The envelope's own frame carries version and checksum.
        let envelope = encode_control(&Control::Definitions(row.definitions.clone()), Origin::default());
        statement.raw_bind_parameter(1, commit.partition)?;
        statement.raw_bind_parameter(2, row.offset)?;
        statement.raw_bind_parameter(3, envelope)
    })
    .map_err(FILE.failed("writing definitions"))?;
    Ok(())
}
