//! Claims and commits into an open transaction: lock the partitions' rows, decide,
//! then write many rows per statement.

use odometer_schemas::commit::{PartitionCommit, TotalRow};
use odometer_schemas::digest::Digest;
use sqlx::Row;

use super::super::rules::{claimed_epoch, in_order, invalid, is_to_apply, same_installation, total_key};
use super::super::values::{bytes_of_definitions, bytes_of_words};
use super::super::{Claim, CommitError, Installation, OwnedCommit};
use super::failure::failed;
use super::session::{Link, Statement};
use super::{alerts, quota, read};
use crate::error::BookError;

/// Most rows of one statement. Beyond some thousands a statement gains nothing, and
/// its memory and its run grow.
const CHUNK_ROWS_MAX: usize = 4096;
/// Most bytes of states, verdicts and the like in one statement; a single row may
/// exceed it. The server takes up to 1 GiB.
const CHUNK_BYTES_MAX: usize = 8 * 1024 * 1024;

pub(super) async fn identity(link: &mut Link, expected: &Installation) -> Result<(), BookError> {
    let insert = sqlx::query(
        "INSERT INTO installation (log_id, partitions, hash_seed) VALUES ($1, $2, $3) ON CONFLICT (only_row) DO NOTHING",
    )
    .bind(&expected.log_id)
    .bind(i64::from(expected.partitions))
    .bind(format!("{:016x}", expected.hash_seed));
    link.execute("recording what it belongs to", insert).await?;
    let recorded = read::installation(link).await?.ok_or(BookError::NoInstallation)?;
    same_installation(&recorded, expected)
}

/// Raises the epoch; the partition's row stays locked.
pub(super) async fn claim(link: &mut Link, claim: &Claim) -> Result<(), BookError> {
    const DOING: &str = "claiming a partition";
    let installation = read::installation(link).await?.ok_or(BookError::NoInstallation)?;
    let epoch = claimed_epoch(&installation, claim)?;
    let partition = i64::from(claim.partition);
    // A partition without a row is at epoch zero.
    let first = sqlx::query(
        "INSERT INTO partitions VALUES ($1, 0, '', 0, 0, 0, 0, 0, 0, 0, 0, NULL) ON CONFLICT (partition) DO NOTHING",
    )
    .bind(partition);
    link.execute(DOING, first).await?;
    let found = read::locked_standings(link, vec![partition]).await?;
    let found = found.first().map_or(0, |(_, standing)| standing.epoch);
    if found != claim.from_epoch {
        return Err(BookError::EpochMoved { partition: claim.partition, wanted: claim.from_epoch, found });
    }
    let raise = sqlx::query("UPDATE partitions SET epoch = $2, owner = $3 WHERE partition = $1 AND epoch = $4")
        .bind(partition)
        .bind(stored(epoch)?)
        .bind(&claim.owner)
        .bind(stored(found)?);
    must_change(1, link.execute(DOING, raise).await?)
}

/// Applies commits in ascending order of partitions; those that were applied before
/// are left alone.
pub(super) async fn commits(link: &mut Link, commits: &[&OwnedCommit]) -> Result<(), CommitError> {
    let partitions = commits.iter().map(|owned| i64::from(owned.commit.partition)).collect();
    let found = read::locked_standings(link, partitions).await?;
    let mut fresh = Vec::new();
    for owned in commits {
        let standing = found.iter().find(|(partition, _)| *partition == owned.commit.partition);
        if is_to_apply(owned, standing.map(|(_, standing)| *standing))? {
            fresh.push(*owned);
        }
    }
    if fresh.is_empty() {
        return Ok(());
    }
    move_on(link, &fresh).await?;
    let fresh: Vec<&PartitionCommit> = fresh.iter().map(|owned| &owned.commit).collect();
    totals(link, &fresh).await?;
    marks(link, &fresh).await?;
    exceptions(link, &fresh).await?;
    definitions(link, &fresh).await?;
    quota::write(link, &fresh).await?;
    alerts::write(link, &fresh).await
}

/// Compares and swaps the partitions' rows.
async fn move_on(link: &mut Link, fresh: &[&OwnedCommit]) -> Result<(), BookError> {
    let integers = |value: fn(&OwnedCommit) -> u64| {
        fresh.iter().map(|owned| stored(value(owned))).collect::<Result<Vec<i64>, _>>()
    };
    let rules: Vec<Option<&[u8]>> = fresh.iter().map(|owned| owned.commit.rules.as_deref()).collect();
    let query = sqlx::query(
        "UPDATE partitions AS p
         SET next_offset = n.next_offset, log_time = n.log_time, received = n.received, accepted = n.accepted,
             duplicate = n.duplicate, conflict = n.conflict, late = n.late, rejected = n.rejected,
             rules = coalesce(n.rules, p.rules)
         FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[],
                 $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[], $12::bytea[])
             AS n (partition, epoch, from_offset, next_offset, log_time, received, accepted, duplicate, conflict, late,
                 rejected, rules)
         WHERE p.partition = n.partition AND p.epoch = n.epoch AND p.next_offset = n.from_offset",
    )
    .bind(integers(|owned| owned.commit.partition.into())?)
    .bind(integers(|owned| owned.epoch)?)
    .bind(integers(|owned| owned.commit.from_offset)?)
    .bind(integers(|owned| owned.commit.next_offset)?)
    .bind(fresh.iter().map(|owned| owned.commit.log_time_ms).collect::<Vec<i64>>())
    .bind(integers(|owned| owned.commit.counts.received)?)
    .bind(integers(|owned| owned.commit.counts.accepted)?)
    .bind(integers(|owned| owned.commit.counts.duplicate)?)
    .bind(integers(|owned| owned.commit.counts.conflict)?)
    .bind(integers(|owned| owned.commit.counts.late)?)
    .bind(integers(|owned| owned.commit.counts.rejected)?)
    .bind(rules);
    must_change(fresh.len(), link.execute("moving partitions on", query).await?)
}

/// Absolute values replace what was there. Mostly the rows are there already, and an
/// update costs the server a third less than the same row through `ON CONFLICT`, which
/// locks it first. Where most are new, as when a month begins, looking for them in vain
/// costs more; a chunk is like the one before. A total that another partition holds is
/// left alone by all statements, which their counts betray.
async fn totals(link: &mut Link, fresh: &[&PartitionCommit]) -> Result<(), CommitError> {
    const DOING: &str = "writing totals";
    let rows = in_order(fresh, |commit| &commit.totals, |_, row| total_key(row))?;
    let mut mostly_new = false;
    for chunk in chunks(&rows, |(_, row)| row.state.len()) {
        let (updated, inserted) = if mostly_new {
            upserted(link, chunk).await?
        } else {
            let updated = link.execute(DOING, with_totals(UPDATE_TOTALS, chunk)?).await?;
            let is_complete = updated == chunk.len();
            (updated, if is_complete { 0 } else { link.execute(DOING, with_totals(INSERT_TOTALS, chunk)?).await? })
        };
        if updated + inserted != chunk.len() {
            return Err(foreign(link, chunk).await?);
        }
        mostly_new = inserted > updated;
    }
    Ok(())
}

/// Writes totals that are mostly new; how many of them were updated and inserted.
async fn upserted(link: &mut Link, chunk: &[(&PartitionCommit, &TotalRow)]) -> Result<(usize, usize), BookError> {
    const DOING: &str = "writing new totals";
    let counts = link.rows(DOING, with_totals(UPSERT_TOTALS, chunk)?, |row| {
        let count = |column| row.try_get::<i64, _>(column).map_err(|e| failed(DOING, e));
        Ok((count(0)?, count(1)?))
    });
    let (updated, inserted) = counts.await?.first().copied().unwrap_or_default();
    Ok((usize::try_from(updated).unwrap_or_default(), usize::try_from(inserted).unwrap_or_default()))
}

/// The rows of a chunk, in SQL.
macro_rules! new_totals {
    () => {
        "unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::text[]::numeric[], $6::bigint[], $7::text[],
             $8::text[], $9::text[]::numeric[], $10::bigint[], $11::bytea[])
         AS n (tenant, meter, period_start, period_end, quantity, records, digest, aggregation, sum, partition, state)"
    };
}

const UPDATE_TOTALS: &str = concat!(
    "UPDATE period_totals AS t
     SET period_end = n.period_end, quantity = n.quantity, records = n.records, digest = n.digest,
         aggregation = n.aggregation, sum = n.sum, state = n.state
     FROM ",
    new_totals!(),
    " WHERE t.tenant = n.tenant AND t.meter = n.meter AND t.period_start = n.period_start
         AND t.partition = n.partition"
);
const INSERT_TOTALS: &str = concat!(
    "INSERT INTO period_totals (tenant, meter, period_start, period_end, quantity, records, digest, aggregation, sum,
         partition, state)
     SELECT * FROM ",
    new_totals!(),
    " WHERE NOT EXISTS (SELECT FROM period_totals AS t WHERE t.tenant = n.tenant AND t.meter = n.meter
         AND t.period_start = n.period_start)"
);
/// A row version that nobody has locked or replaced is one that was inserted.
const UPSERT_TOTALS: &str = concat!(
    "WITH written AS (
     INSERT INTO period_totals AS t (tenant, meter, period_start, period_end, quantity, records, digest, aggregation,
         sum, partition, state)
     SELECT * FROM ",
    new_totals!(),
    " ON CONFLICT ON CONSTRAINT period_totals_key DO UPDATE
         SET period_end = excluded.period_end, quantity = excluded.quantity, records = excluded.records,
         digest = excluded.digest, aggregation = excluded.aggregation, sum = excluded.sum, state = excluded.state
         WHERE t.partition = excluded.partition
     RETURNING t.xmax = 0 AS is_new)
     SELECT count(*) FILTER (WHERE NOT is_new), count(*) FILTER (WHERE is_new) FROM written"
);

fn with_totals<'a>(sql: &'static str, chunk: &[(&PartitionCommit, &'a TotalRow)]) -> Result<Statement<'a>, BookError> {
    let records = chunk.iter().map(|(_, row)| stored(row.records)).collect::<Result<Vec<i64>, _>>()?;
    Ok(sqlx::query(sql)
        .bind(column(chunk, |row| &*row.tenant))
        .bind(column(chunk, |row| &*row.meter))
        .bind(column(chunk, |row| row.period_start_ms))
        .bind(column(chunk, |row| row.period_end_ms))
        .bind(column(chunk, |row| row.quantity.to_string()))
        .bind(records)
        .bind(column(chunk, |row| Digest(row.digest).to_string()))
        .bind(column(chunk, |row| row.aggregation.name()))
        .bind(column(chunk, |row| row.sum.to_string()))
        .bind(partitions(chunk))
        .bind(column(chunk, |row| row.state.as_slice())))
}

/// Names a total of `chunk` that another partition holds.
async fn foreign(link: &mut Link, chunk: &[(&PartitionCommit, &TotalRow)]) -> Result<CommitError, BookError> {
    let query = sqlx::query(
        "SELECT n.number, t.partition
         FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[]) WITH ORDINALITY
             AS n (tenant, meter, period_start, partition, number)
         JOIN period_totals AS t USING (tenant, meter, period_start)
         WHERE t.partition <> n.partition ORDER BY n.number LIMIT 1",
    )
    .bind(column(chunk, |row| &*row.tenant))
    .bind(column(chunk, |row| &*row.meter))
    .bind(column(chunk, |row| row.period_start_ms))
    .bind(partitions(chunk));
    let found = link
        .rows("looking for another partition's totals", query, |row| {
            Ok((row.try_get::<i64, _>(0).ok(), row.try_get::<i64, _>(1).ok()))
        })
        .await?;
    let found = found.first().and_then(|(number, holder)| {
        let number = usize::try_from((*number)?).ok()?.checked_sub(1)?;
        Some((chunk.get(number)?, (*holder)?))
    });
    let Some(((commit, row), holder)) = found else {
        return Err(BookError::out_of_range("the totals book left rows out; look for triggers on table period_totals"));
    };
    let (tenant, meter, start) = total_key(row);
    Ok(invalid(commit, format!("its total ({tenant}, {meter}, {start}) belongs to another partition: {holder}")))
}

async fn marks(link: &mut Link, fresh: &[&PartitionCommit]) -> Result<(), CommitError> {
    let rows = in_order(fresh, |commit| &commit.marks, |partition, mark| (partition, mark.source))?;
    for chunk in chunks(&rows, |(_, mark)| mark.above.len() * size_of::<u64>()) {
        let query = sqlx::query(
            "INSERT INTO source_marks (partition, source, epoch, low_water, above)
             SELECT * FROM unnest($1::bigint[], $2::text[], $3::bigint[], $4::text[]::numeric[], $5::bytea[])
             ON CONFLICT (partition, source) DO UPDATE SET epoch = excluded.epoch, low_water = excluded.low_water,
                 above = excluded.above",
        )
        .bind(partitions(chunk))
        .bind(column(chunk, |mark| format!("{:032x}", mark.source)))
        .bind(column(chunk, |mark| i64::from(mark.epoch)))
        .bind(column(chunk, |mark| mark.low_water.to_string()))
        .bind(column(chunk, |mark| bytes_of_words(&mark.above)));
        link.execute("writing emitter watermarks", query).await?;
    }
    Ok(())
}

async fn exceptions(link: &mut Link, fresh: &[&PartitionCommit]) -> Result<(), CommitError> {
    let rows = in_order(fresh, |commit| &commit.exceptions, |partition, row| (partition, row.offset))?;
    for chunk in chunks(&rows, |(_, row)| row.verdicts.len()) {
        let offsets = chunk.iter().map(|(_, row)| stored(row.offset)).collect::<Result<Vec<i64>, _>>()?;
        let query = sqlx::query(
            "INSERT INTO exceptions (partition, \"offset\", verdicts)
             SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bytea[])
             ON CONFLICT (partition, \"offset\") DO UPDATE SET verdicts = excluded.verdicts",
        )
        .bind(partitions(chunk))
        .bind(offsets)
        .bind(column(chunk, |row| row.verdicts.as_slice()));
        link.execute("writing exceptions", query).await?;
    }
    Ok(())
}

async fn definitions(link: &mut Link, fresh: &[&PartitionCommit]) -> Result<(), CommitError> {
    let rows = in_order(fresh, |commit| &commit.definitions, |partition, row| (partition, row.offset))?;
    for (commit, row) in rows {
        let query = sqlx::query(
            "INSERT INTO definitions (partition, \"offset\", definitions) VALUES ($1, $2, $3)
             ON CONFLICT (partition, \"offset\") DO UPDATE SET definitions = excluded.definitions",
        )
        .bind(i64::from(commit.partition))
        .bind(stored(row.offset)?)
        .bind(bytes_of_definitions(&row.definitions));
        link.execute("writing definitions", query).await?;
    }
    Ok(())
}

/// One value of every row of a chunk.
pub(super) fn column<'a, R, T>(chunk: &[(&PartitionCommit, &'a R)], value: impl Fn(&'a R) -> T) -> Vec<T> {
    chunk.iter().map(|(_, row)| value(row)).collect()
}

pub(super) fn partitions<R>(chunk: &[(&PartitionCommit, &R)]) -> Vec<i64> {
    chunk.iter().map(|(commit, _)| i64::from(commit.partition)).collect()
}

/// Splits rows into statements by number and by `bytes`.
pub(super) fn chunks<R>(rows: &[R], bytes: impl Fn(&R) -> usize) -> Vec<&[R]> {
    let mut chunks = Vec::new();
    let (mut start, mut chunk_bytes) = (0, 0);
    for (at, row) in rows.iter().enumerate() {
        let row_bytes = bytes(row);
        let is_full = at - start == CHUNK_ROWS_MAX || chunk_bytes + row_bytes > CHUNK_BYTES_MAX;
        if is_full && at > start {
            chunks.push(&rows[start..at]);
            (start, chunk_bytes) = (at, 0);
        }
        chunk_bytes += row_bytes;
    }
    if start < rows.len() {
        chunks.push(&rows[start..]);
    }
    chunks
}

/// An unsigned number as the signed one that the book stores.
pub(super) fn stored(value: u64) -> Result<i64, BookError> {
    i64::try_from(value)
        .map_err(|_| BookError::out_of_range(format!("{value} is more than the totals book can hold (2^63 - 1)")))
}

/// The rows were locked as they are, so only something within the database keeps them.
fn must_change(expected: usize, changed: usize) -> Result<(), BookError> {
    if changed == expected {
        return Ok(());
    }
    Err(BookError::out_of_range(format!(
        "the totals book changed {changed} rows of table partitions instead of {expected}; look for triggers on it"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_bounded_by_rows_and_bytes() {
        let sizes = |rows: &[usize]| chunks(rows, |bytes| *bytes).iter().map(|chunk| chunk.len()).collect::<Vec<_>>();
        assert!(sizes(&[]).is_empty());
        assert_eq!(sizes(&[1; CHUNK_ROWS_MAX]), [CHUNK_ROWS_MAX]);
        assert_eq!(sizes(&[0; CHUNK_ROWS_MAX * 2 + 1]), [CHUNK_ROWS_MAX, CHUNK_ROWS_MAX, 1]);
        let large = CHUNK_BYTES_MAX + 1;
        assert_eq!(sizes(&[large, large, 1, CHUNK_BYTES_MAX - 1, 1]), [1, 1, 2, 1]);
    }
}
