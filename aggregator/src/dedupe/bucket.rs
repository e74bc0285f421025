//! The ids of one stretch of log time, in shards that grow and freeze one at a time,
//! so that no single record pays for all of them.

use super::run::Run;
use super::table::{Entry, Table};

/// Shards of a bucket. With 20 M ids a shard has 300 k: growing or freezing one
/// takes milliseconds.
pub(crate) const SHARDS: usize = 64;

#[derive(Debug)]
pub(crate) struct Bucket {
    /// Log time at which it was begun, Unix milliseconds.
    pub(crate) start_ms: i64,
    /// Log time at which the next one begins.
    pub(crate) end_ms: i64,
    shards: Vec<Shard>,
    /// Shards below this one are frozen.
    frozen: usize,
}

#[derive(Debug)]
enum Shard {
    Hot(Table),
    Frozen(Run),
}

impl Bucket {
    pub(crate) fn new(start_ms: i64, end_ms: i64) -> Self {
        let shards = (0..SHARDS).map(|_| Shard::Hot(Table::new())).collect();
        Self { start_ms, end_ms, shards, frozen: 0 }
    }

    /// A bucket of the past, frozen from entries in any order.
    pub(crate) fn frozen(start_ms: i64, end_ms: i64, entries: Vec<Entry>) -> Self {
        let mut parts: Vec<Vec<Entry>> = (0..SHARDS).map(|_| Vec::new()).collect();
        for entry in entries {
            parts[shard_of(&entry)].push(entry);
        }
        let shards = parts.into_iter().map(|part| Shard::Frozen(Run::freeze(part))).collect();
        Self { start_ms, end_ms, shards, frozen: SHARDS }
    }

    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(Shard::len).sum()
    }

    #[inline]
    pub(crate) fn prefetch(&self, entry: &Entry, placement: u64) {
        match &self.shards[shard_of(entry)] {
            Shard::Hot(table) => table.prefetch(entry, placement),
            Shard::Frozen(run) => run.prefetch(entry.low),
        }
    }

    #[inline]
    pub(crate) fn find(&self, entry: &Entry, placement: u64) -> Option<u64> {
        match &self.shards[shard_of(entry)] {
            Shard::Hot(table) => table.find(entry, placement),
            Shard::Frozen(run) => run.find(entry),
        }
    }

    /// The tag remembered with the entry's fingerprint; when there is none, the entry
    /// is remembered.
    ///
    /// Part of its caller, so that the entry goes from registers to its place: read back
    /// from the stack right after it was written there, it would wait for every store
    /// before it, and those wait for memory.
    #[inline(always)]
    pub(crate) fn find_or_insert(&mut self, entry: Entry, placement: u64) -> Option<u64> {
        match &mut self.shards[shard_of(&entry)] {
            Shard::Hot(table) => table.find_or_insert(entry, placement),
            Shard::Frozen(_) => panic!("an id inserted into a frozen bucket that ends at {}", self.end_ms),
        }
    }

    /// Freezes one more shard; whether there was one to freeze.
    pub(crate) fn freeze_one(&mut self) -> bool {
        let Some(shard) = self.shards.get_mut(self.frozen) else { return false };
        if let Shard::Hot(table) = shard {
            *shard = Shard::Frozen(Run::freeze(table.entries().collect()));
        }
        self.frozen += 1;
        true
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = Entry> + '_ {
        self.shards.iter().flat_map(|shard| {
            let (hot, frozen) = match shard {
                Shard::Hot(table) => (Some(table.entries()), None),
                Shard::Frozen(run) => (None, Some(run.entries())),
            };
            hot.into_iter().flatten().chain(frozen.into_iter().flatten())
        })
    }
}

impl Shard {
    fn len(&self) -> usize {
        match self {
            Self::Hot(table) => table.len(),
            Self::Frozen(run) => run.len(),
        }
    }
}

#[inline]
fn shard_of(entry: &Entry) -> usize {
    (entry.high >> 58) as usize
}

const _: () = assert!(SHARDS == 1 << 6);
