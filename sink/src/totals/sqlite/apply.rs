//! One partition's commit into an open transaction.

use odometer_schemas::commit::{PartitionCommit, TotalRow};
use odometer_schemas::control::Control;
use odometer_schemas::digest::Digest;
use odometer_schemas::envelope::{Origin, encode_control};
use rusqlite::{Connection, OptionalExtension, params};

use super::super::{CommitError, OwnedCommit};
use super::FILE;
use crate::error::BookError;
use crate::sqlite::{Insert, insert_all};

/// Absolute values replace what was there. A total that another partition holds is
/// left alone, which the count of changed rows betrays.
const TOTALS: Insert = Insert {
    head: "INSERT INTO period_totals (tenant, meter, period_start, period_end, quantity, records, digest,
        aggregation, sum, partition, state) VALUES",
    columns: 11,
    tail: "ON CONFLICT (tenant, meter, period_start) DO UPDATE SET period_end = excluded.period_end,
        quantity = excluded.quantity, records = excluded.records, digest = excluded.digest,
        aggregation = excluded.aggregation, sum = excluded.sum, state = excluded.state
        WHERE partition = excluded.partition",
};
const MARKS: Insert = Insert {
    head: "INSERT OR REPLACE INTO source_marks (partition, source, epoch, low_water, above) VALUES",
    columns: 5,
    tail: "",
};
const EXCEPTIONS: Insert =
    Insert { head: "INSERT OR REPLACE INTO exceptions (partition, \"offset\", verdicts) VALUES", columns: 3, tail: "" };
const DEFINITIONS: Insert = Insert {
    head: "INSERT OR REPLACE INTO definitions (partition, \"offset\", definitions) VALUES",
    columns: 3,
    tail: "",
};

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
    let changed = insert_all(connection, &TOTALS, rows.iter(), |statement, first, row| {
        statement.raw_bind_parameter(first, row.tenant.as_str())?;
        statement.raw_bind_parameter(first + 1, row.meter.as_str())?;
        statement.raw_bind_parameter(first + 2, row.period_start_ms)?;
        statement.raw_bind_parameter(first + 3, row.period_end_ms)?;
        statement.raw_bind_parameter(first + 4, row.quantity.to_string())?;
        statement.raw_bind_parameter(first + 5, row.records)?;
        statement.raw_bind_parameter(first + 6, Digest(row.digest).to_string())?;
        statement.raw_bind_parameter(first + 7, row.aggregation.name())?;
        statement.raw_bind_parameter(first + 8, row.sum.to_string())?;
        statement.raw_bind_parameter(first + 9, commit.partition)?;
        statement.raw_bind_parameter(first + 10, row.state.as_slice())
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
    insert_all(connection, &MARKS, commit.marks.iter(), |statement, first, mark| {
        let above: Vec<u8> = mark.above.iter().flat_map(|word| word.to_le_bytes()).collect();
        statement.raw_bind_parameter(first, commit.partition)?;
        statement.raw_bind_parameter(first + 1, format!("{:032x}", mark.source))?;
        statement.raw_bind_parameter(first + 2, mark.epoch)?;
        statement.raw_bind_parameter(first + 3, mark.low_water.to_string())?;
        statement.raw_bind_parameter(first + 4, above)
    })
    .map_err(FILE.failed("writing emitter watermarks"))?;
    insert_all(connection, &EXCEPTIONS, commit.exceptions.iter(), |statement, first, row| {
        statement.raw_bind_parameter(first, commit.partition)?;
        statement.raw_bind_parameter(first + 1, row.offset)?;
        statement.raw_bind_parameter(first + 2, row.verdicts.as_slice())
    })
    .map_err(FILE.failed("writing exceptions"))?;
    insert_all(connection, &DEFINITIONS, commit.definitions.iter(), |statement, first, row| {
        // The envelope's own frame carries version and checksum.
        let envelope = encode_control(&Control::Definitions(row.definitions.clone()), Origin::default());
        statement.raw_bind_parameter(first, commit.partition)?;
        statement.raw_bind_parameter(first + 1, row.offset)?;
        statement.raw_bind_parameter(first + 2, envelope)
    })
    .map_err(FILE.failed("writing definitions"))?;
    Ok(())
}
