//! The dedupe window as framed bytes and back. A snapshot only makes recovery
//! faster: everything in it can be learned from the log again.
//!
//! | bytes | field |
//! | --- | --- |
//! | 0..4 | magic `ODSN` |
//! | 4 | version, 1 |
//! | 5..13 | XXH3-64 of all that follows |
//! | 13.. | partition u32, next offset u64, log time i64, window i64, bucket count u32, then per bucket: start i64, end i64, entry count u64, entries of (fingerprint u128, tag u64) |
//!
//! All integers are little-endian.

use odometer_schemas::definitions::DedupeRule;
use odometer_schemas::time::TimeMs;
use xxhash_rust::xxh3::xxh3_64;

use crate::dedupe::Ids;
use crate::dedupe::bucket::Bucket;
use crate::dedupe::table::Entry;

const MAGIC: [u8; 4] = *b"ODSN";
const VERSION: u8 = 1;
const HEAD_BYTES: usize = 13;
const ENTRY_BYTES: usize = 24;

/// A snapshot read back.
#[derive(Debug)]
pub struct Snapshot {
    /// The partition that it was taken of.
    pub partition: u32,
    /// Ids of all offsets below it are inside.
    pub next_offset: u64,
    /// Log time when it was taken.
    pub log_time: TimeMs,
    rule: DedupeRule,
    buckets: Vec<(i64, i64, Vec<Entry>)>,
}

/// Bytes are not a snapshot; recovery goes on without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// Not a snapshot, or one of a version that this build does not know.
    #[error("not a snapshot of version {VERSION}")]
    Unknown,
    /// Damaged or cut short.
    #[error("the snapshot is damaged")]
    Damaged,
}

pub(crate) fn encode(partition: u32, next_offset: u64, log_time: TimeMs, ids: &Ids) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEAD_BYTES + 64 + ids.len() * ENTRY_BYTES);
    out.extend_from_slice(&MAGIC);
    out.push(VERSION);
    out.extend_from_slice(&[0; 8]);
    out.extend_from_slice(&partition.to_le_bytes());
    out.extend_from_slice(&next_offset.to_le_bytes());
    out.extend_from_slice(&log_time.0.to_le_bytes());
    out.extend_from_slice(&ids.rule().window_ms.to_le_bytes());
    let count = u32::try_from(ids.buckets().count()).expect("a window has about nine buckets");
    out.extend_from_slice(&count.to_le_bytes());
    for bucket in ids.buckets() {
        out.extend_from_slice(&bucket.start_ms.to_le_bytes());
        out.extend_from_slice(&bucket.end_ms.to_le_bytes());
        out.extend_from_slice(&(bucket.len() as u64).to_le_bytes());
        for entry in bucket.entries() {
            out.extend_from_slice(&entry.fingerprint().to_le_bytes());
            out.extend_from_slice(&entry.tag.to_le_bytes());
        }
    }
    let checksum = xxh3_64(&out[HEAD_BYTES..]);
    out[5..HEAD_BYTES].copy_from_slice(&checksum.to_le_bytes());
    out
}

impl Snapshot {
    /// Reads what [`Processor::snapshot`](crate::Processor::snapshot) wrote.
    ///
    /// # Errors
    /// [`SnapshotError`] when it is not whole or not known.
    pub fn decode(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let (head, body) = bytes.split_at_checked(HEAD_BYTES).ok_or(SnapshotError::Unknown)?;
        if !head.starts_with(&MAGIC) || head[4] != VERSION {
            return Err(SnapshotError::Unknown);
        }
        if head[5..] != xxh3_64(body).to_le_bytes() {
            return Err(SnapshotError::Damaged);
        }
        Self::decode_body(body).ok_or(SnapshotError::Damaged)
    }

    fn decode_body(body: &[u8]) -> Option<Self> {
        let mut rest = Reader { rest: body };
        let partition = u32::from_le_bytes(rest.take()?);
        let next_offset = u64::from_le_bytes(rest.take()?);
        let log_time = TimeMs(i64::from_le_bytes(rest.take()?));
        let rule = DedupeRule { window_ms: i64::from_le_bytes(rest.take()?) };
        let count = u32::from_le_bytes(rest.take()?);
        let mut buckets = Vec::new();
        for _ in 0..count {
            let (start_ms, end_ms) = (i64::from_le_bytes(rest.take()?), i64::from_le_bytes(rest.take()?));
            let entries = usize::try_from(u64::from_le_bytes(rest.take()?)).ok()?;
            let (chunk, left) = rest.rest.split_at_checked(entries.checked_mul(ENTRY_BYTES)?)?;
            rest.rest = left;
            buckets.push((start_ms, end_ms, chunk.as_chunks().0.iter().map(read_entry).collect()));
        }
        rest.rest.is_empty().then_some(Self { partition, next_offset, log_time, rule, buckets })
    }

    pub(crate) fn into_ids(self, placement: u64) -> Ids {
        let mut ids = Ids::new(self.rule, placement);
        let last = self.buckets.len().saturating_sub(1);
        for (number, (start_ms, end_ms, entries)) in self.buckets.into_iter().enumerate() {
            let bucket = if number < last {
                Bucket::frozen(start_ms, end_ms, entries)
            } else {
                // The open bucket takes more ids, so it stays hot.
                let mut open = Bucket::new(start_ms, end_ms);
                for entry in entries {
                    open.find_or_insert(entry, placement);
                }
                open
            };
            ids.restore(bucket);
        }
        ids
    }
}

fn read_entry(bytes: &[u8; ENTRY_BYTES]) -> Entry {
    let mut reader = Reader { rest: bytes };
    let fingerprint = u128::from_le_bytes(reader.take().unwrap_or_default());
    Entry::new(fingerprint, u64::from_le_bytes(reader.take().unwrap_or_default()))
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*first)
    }
}
