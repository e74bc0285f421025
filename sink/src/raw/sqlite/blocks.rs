//! Which blocks of offsets may hold a tenant's records or one id: small summaries
//! that cost a fraction of an index and are read before any row is.
//!
//! They are hints. A row that somebody else put into the table is not in them; the
//! proof, which reads every row, finds it.

use odometer_schemas::digest::Hasher;
use rusqlite::{Connection, OptionalExtension, params};

use super::super::{RawBatch, RecordFilter};
use super::FILE;
use crate::error::BookError;
use crate::sqlite::Columns;

/// Offsets per block, as a power of two: at most 32,768 rows, which a look-up reads in
/// some milliseconds, and 128 KiB of hashes.
const BLOCK_BITS: u32 = 6;

/// These hashes never leave the file, so they need no key.
const HASHER: Hasher = Hasher::new(0);

/// One partition's block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Block {
    pub(super) partition: u32,
    number: u64,
}

impl Block {
    pub(super) fn of(partition: u32, offset: u64) -> Self {
        Self { partition, number: offset >> BLOCK_BITS }
    }

    /// Its first offset and the one after its last.
    pub(super) fn offsets(self) -> (u64, u64) {
        (self.number << BLOCK_BITS, (self.number + 1) << BLOCK_BITS)
    }
}

/// What is known of one block.
#[derive(Debug)]
struct Summary {
    time_min: i64,
    time_max: i64,
    tenants: Vec<u8>,
    ids: Vec<u8>,
}

impl Default for Summary {
    fn default() -> Self {
        Self { time_min: i64::MAX, time_max: i64::MIN, tenants: Vec::new(), ids: Vec::new() }
    }
}

type Word = [u8; 4];

fn word(hash: u64) -> Word {
    let [a, b, c, d, ..] = hash.to_le_bytes();
    [a, b, c, d]
}

fn tenant_hash(tenant: &str) -> u64 {
    HASHER.bytes64(tenant.as_bytes())
}

fn id_word(tenant_hash: u64, id: &str) -> Word {
    word(HASHER.bytes64(id.as_bytes()) ^ tenant_hash.rotate_left(32))
}

fn holds(words: &[u8], word: Word) -> bool {
    words.as_chunks::<4>().0.contains(&word)
}

/// Adds a batch's rows to the summaries of their blocks.
pub(super) fn note(connection: &Connection, batch: &RawBatch) -> Result<(), BookError> {
    let mut open: Option<(Block, Summary)> = None;
    let mut tenant = None;
    for (row, _) in batch.rows() {
        let block = Block::of(row.position.partition, row.position.offset);
        if open.as_ref().is_none_or(|(current, _)| *current != block) {
            store(connection, open.take())?;
            open = Some((block, load(connection, block)?));
            tenant = None;
        }
        let Some((_, summary)) = &mut open else { continue };
        let hash = match tenant {
            Some((name, hash)) if name == row.tenant => hash,
            _ => {
                let hash = tenant_hash(row.tenant);
                summary.tenants.extend_from_slice(&word(hash));
                tenant = Some((row.tenant, hash));
                hash
            }
        };
        summary.ids.extend_from_slice(&id_word(hash, row.id));
        summary.time_min = summary.time_min.min(row.time_ms);
        summary.time_max = summary.time_max.max(row.time_ms);
    }
    store(connection, open)
}

fn load(connection: &Connection, block: Block) -> Result<Summary, BookError> {
    let found = connection
        .prepare_cached(
            "SELECT time_min, time_max, tenants, ids FROM usage_record_blocks WHERE partition = ? AND block = ?",
        )
        .and_then(|mut statement| {
            statement
                .query_row(params![block.partition, block.number], |row| {
                    Ok(Summary { time_min: row.get(0)?, time_max: row.get(1)?, tenants: row.get(2)?, ids: row.get(3)? })
                })
                .optional()
        })
        .map_err(FILE.failed("reading a block's summary"))?;
    Ok(found.unwrap_or_default())
}

fn store(connection: &Connection, open: Option<(Block, Summary)>) -> Result<(), BookError> {
    let Some((block, summary)) = open else { return Ok(()) };
    let mut tenants = summary.tenants.as_chunks::<4>().0.to_vec();
    tenants.sort_unstable_by_key(|word| u32::from_le_bytes(*word));
    tenants.dedup();
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO usage_record_blocks (partition, block, time_min, time_max, tenants, ids)
             VALUES (?, ?, ?, ?, ?, ?)",
        )
        .and_then(|mut statement| {
            let Summary { time_min, time_max, ids, .. } = summary;
            statement.execute(params![block.partition, block.number, time_min, time_max, tenants.as_flattened(), ids])
        })
        .map_err(FILE.failed("writing a block's summary"))?;
    Ok(())
}

/// Shows every block that may hold what `filter` asks for, in log order, until `visit`
/// answers `false`.
pub(super) fn matching(
    connection: &Connection,
    filter: &RecordFilter,
    mut visit: impl FnMut(Block) -> Result<bool, BookError>,
) -> Result<(), BookError> {
    let fail = FILE.failed("reading blocks' summaries");
    let tenant_hash = tenant_hash(&filter.tenant);
    let id = filter.id.as_deref().map(|id| id_word(tenant_hash, id));
    let first =
        filter.after.map_or(Block { partition: 0, number: 0 }, |after| Block::of(after.partition, after.offset));
    let mut statement = connection
        .prepare_cached(
            "SELECT partition, block, tenants, ids FROM usage_record_blocks
             WHERE (partition, block) >= (?1, ?2) AND (?3 IS NULL OR time_max >= ?3) AND (?4 IS NULL OR time_min < ?4)
             ORDER BY partition, block",
        )
        .map_err(&fail)?;
    let (from, to) = (filter.from.map(|time| time.0), filter.to.map(|time| time.0));
    let mut rows = statement.query(params![first.partition, first.number, from, to]).map_err(&fail)?;
    while let Some(row) = rows.next().map_err(&fail)? {
        let columns = Columns { table: "usage_record_blocks", key_columns: 2, row };
        let matches = match id {
            Some(id) => holds(columns.blob(3)?, id),
            None => holds(columns.blob(2)?, word(tenant_hash)),
        };
        if matches && !visit(Block { partition: columns.fitting(0)?, number: columns.fitting(1)? })? {
            break;
        }
    }
    Ok(())
}
