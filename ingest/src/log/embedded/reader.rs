//! The reading half: positions in, envelopes out. Opens its own connection, never
//! writes, and never holds a transaction between two calls.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use odometer_schemas::log::LogEntry;
use odometer_schemas::time::TimeMs;
use rusqlite::params;

use super::store::{Store, failed};
use super::{Shared, locked, places};
use crate::log::{Bounds, LogError, LogReader};

/// How often another process's commits are looked for.
const POLL: Duration = Duration::from_millis(20);

/// Reads the embedded log, in the process that writes it or in another one.
#[derive(Debug)]
pub struct EmbeddedReader {
    store: Store,
    news: News,
}

/// How a reader learns of new envelopes.
#[derive(Debug)]
enum News {
    /// The writer is in this process and announces its commits.
    Announced { shared: Arc<Shared>, seen: u64 },
    /// The writer, if there is one, is another process; the file's version tells.
    Polled { seen: Option<i64> },
}

impl EmbeddedReader {
    /// Opens the log at `path` for reading only, beside a process that writes it or
    /// after that has ended, however it ended.
    ///
    /// # Errors
    /// [`LogError::Mismatch`] when another build wrote it, [`LogError::Storage`] when
    /// it is not there or cannot be read.
    pub fn open_read_only(path: &Path) -> Result<Self, LogError> {
        Ok(Self { store: Store::open_read_only(path)?, news: News::Polled { seen: None } })
    }

    pub(super) fn beside_writer(path: &Path, shared: Arc<Shared>) -> Result<Self, LogError> {
        let seen = *locked(&shared.generation);
        Ok(Self { store: Store::open_read_only(path)?, news: News::Announced { shared, seen } })
    }

    /// The log's random identity, as [`EmbeddedLog::log_id`](super::EmbeddedLog::log_id).
    #[must_use]
    pub fn log_id(&self) -> &str {
        &self.store.log_id
    }

    fn check_partition(&self, partition: u32) {
        let partitions = self.store.partitions;
        assert!(partition < partitions, "partition {partition} of a log with {partitions} partitions");
    }

    /// The offset before which everything is durable; what another process wrote is taken
    /// to be that.
    fn end_max(&self, partition: u32) -> u64 {
        match &self.news {
            News::Announced { shared, .. } => shared.flushed[partition as usize].load(Ordering::Acquire),
            News::Polled { .. } => u64::MAX,
        }
    }

    fn query(&self, partition: u32, from_offset: u64, bytes_max: usize) -> rusqlite::Result<Vec<LogEntry>> {
        // Larger offsets than the column can hold are beyond every end.
        let Ok(from) = i64::try_from(from_offset) else { return Ok(Vec::new()) };
        let end = i64::try_from(self.end_max(partition)).unwrap_or(i64::MAX);
        // What comes into the index between the two statements would be in neither.
        let snapshot = self.store.connection.unchecked_transaction()?;
        let (mut entries, mut bytes_total) = (Vec::new(), 0);
        for mut select in places::selects(&snapshot)? {
            let mut rows = select.query(params![partition, from, end])?;
            while let Some(row) = rows.next()? {
                let bytes = row.get_ref(2)?.as_blob()?;
                bytes_total += bytes.len();
                if bytes_total > bytes_max && !entries.is_empty() {
                    return Ok(entries);
                }
                let (offset, append_time) = (row.get(0)?, TimeMs(row.get(1)?));
                entries.push(LogEntry { partition, offset, append_time, bytes: Bytes::copy_from_slice(bytes) });
            }
        }
        Ok(entries)
    }

    fn check_reachable(&mut self, partition: u32, wanted: u64) -> Result<(), LogError> {
        let Bounds { start_offset, end_offset } = self.bounds(partition)?;
        if wanted < start_offset {
            return Err(LogError::Truncated { partition, start_offset, wanted });
        }
        if wanted > end_offset {
            let what = format!("ends at offset {end_offset} in partition {partition}, but {wanted} was asked for");
            return Err(LogError::Mismatch { what });
        }
        Ok(())
    }
}

impl LogReader for EmbeddedReader {
    fn partitions(&self) -> u32 {
        self.store.partitions
    }

    fn read(&mut self, partition: u32, from_offset: u64, bytes_max: usize) -> Result<Vec<LogEntry>, LogError> {
        self.check_partition(partition);
        if let News::Announced { shared, .. } = &self.news
            && let Some(entries) = shared.recent.read(partition, from_offset, bytes_max)
        {
            return Ok(entries);
        }
        let entries = self.query(partition, from_offset, bytes_max).map_err(failed("reading envelopes"))?;
        if entries.first().is_none_or(|first| first.offset != from_offset) {
            self.check_reachable(partition, from_offset)?;
        }
        Ok(entries)
    }

    fn bounds(&mut self, partition: u32) -> Result<Bounds, LogError> {
        self.check_partition(partition);
        let offsets = places::offsets(&self.store.connection, partition).map_err(failed("reading its bounds"))?;
        let (start_offset, end_offset) = offsets.map_or((0, 0), |(oldest, newest)| (oldest, newest + 1));
        let end_offset = end_offset.min(self.end_max(partition));
        Ok(Bounds { start_offset, end_offset })
    }

    fn wait(&mut self, timeout: Duration) {
        match &mut self.news {
            News::Announced { shared, seen } => *seen = shared.wait_beyond(*seen, timeout),
            News::Polled { seen } => {
                let started = Instant::now();
                loop {
                    let left = timeout.saturating_sub(started.elapsed());
                    // A failure here shows at the next read, which can report it.
                    let version = self.store.connection.pragma_query_value(None, "data_version", |row| row.get(0)).ok();
                    if version != *seen || left.is_zero() {
                        *seen = version;
                        return;
                    }
                    std::thread::sleep(left.min(POLL));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;
    use crate::log::embedded::{EmbeddedLog, EmbeddedOptions};

    #[test]
    fn nothing_is_read_from_the_file_that_is_not_flushed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log.db");
        let options = EmbeddedOptions { partitions: 1, ..EmbeddedOptions::default() };
        let log = EmbeddedLog::open(&path, options).unwrap();
        for n in 0..3 {
            log.appender().append(0, vec![n]).wait_blocking().unwrap();
        }
        log.close().unwrap();
        let shared = Arc::new(Shared::new(1));
        shared.flushed[0].store(2, Ordering::Release);
        let mut reader = EmbeddedReader::beside_writer(&path, shared).unwrap();
        let mut found = || {
            let entries = reader.read(0, 0, usize::MAX).unwrap();
            (entries.len(), reader.bounds(0).unwrap().end_offset)
        };
        assert_eq!(found(), (2, 2));
        let mut file = Connection::open(&path).unwrap();
        let transaction = file.transaction().unwrap();
        places::place(&transaction).unwrap();
        transaction.commit().unwrap();
        assert_eq!(found(), (2, 2), "wherever it is found");
    }
}
