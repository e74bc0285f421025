//! Logs that really store, to stand behind a gateway: the embedded one and Kafka.

use std::any::Any;
use std::sync::{Arc, Mutex};

use odometer_ingest::log::embedded::{EmbeddedLog, EmbeddedOptions};
use odometer_ingest::log::{LogAppender, LogReader};
use odometer_schemas::record::Record;

use crate::kafka::{Fresh, read_count};
use crate::support::{TestLog, records_of};

const PARTITIONS: u32 = 4;

/// A log that is read back as it grows.
pub(crate) struct StoredLog {
    appender: Arc<dyn LogAppender>,
    read: Mutex<Read>,
    /// What must live as long as the log is used.
    _owner: Box<dyn Any>,
}

struct Read {
    reader: Box<dyn LogReader>,
    /// Only asked where partitions end: a reader that waits for entries answers late.
    ends: Box<dyn LogReader>,
    next_offsets: Vec<u64>,
    records: Vec<Record>,
}

impl StoredLog {
    /// A new embedded log.
    pub(crate) fn embedded() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let options = EmbeddedOptions { partitions: PARTITIONS, ..EmbeddedOptions::default() };
        let log = EmbeddedLog::open(&directory.path().join("log.sqlite"), options).unwrap();
        let reader = || -> Box<dyn LogReader> { Box::new(log.reader().unwrap()) };
        Self::new(log.appender(), [reader(), reader()], Box::new((log, directory)))
    }

    /// A new topic.
    pub(crate) fn kafka() -> Self {
        let fresh = Fresh::new(PARTITIONS);
        let reader = || -> Box<dyn LogReader> { Box::new(fresh.log.reader().unwrap()) };
        Self::new(fresh.log.appender(), [reader(), reader()], Box::new(fresh))
    }

    fn new(appender: Arc<dyn LogAppender>, [reader, ends]: [Box<dyn LogReader>; 2], owner: Box<dyn Any>) -> Self {
        let read = Read { reader, ends, next_offsets: vec![0; PARTITIONS as usize], records: Vec::new() };
        Self { appender, read: Mutex::new(read), _owner: owner }
    }
}

impl TestLog for StoredLog {
    fn appender(&self) -> Arc<dyn LogAppender> {
        Arc::clone(&self.appender)
    }

    fn records(&self) -> Vec<Record> {
        let mut read = self.read.lock().unwrap();
        let Read { reader, ends, next_offsets, records } = &mut *read;
        for (partition, next_offset) in (0..).zip(next_offsets) {
            let end_offset = ends.bounds(partition).unwrap().end_offset;
            let count = usize::try_from(end_offset - *next_offset).unwrap();
            records.extend(records_of(&read_count(reader.as_mut(), partition, *next_offset, count)));
            *next_offset = end_offset;
        }
        records.clone()
    }
}
