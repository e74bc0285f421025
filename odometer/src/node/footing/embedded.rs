//! The embedded footing: the log and both books are SQLite files of one data
//! directory, which one process has locked. It owns every partition, for ever.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use odometer_ingest::log::embedded::{EmbeddedHealth, EmbeddedLog, EmbeddedOptions};
use odometer_ingest::log::kafka::KafkaOptions;
use odometer_ingest::log::{LogAppender, LogError, LogReader};
use odometer_sink::BookError;
use odometer_sink::raw::{RawBook, SqliteRaw};
use odometer_sink::totals::{Installation, SqliteTotals, TotalsBook};

use super::{BookPlace, Change, Footing, LogHealth, Ownership};
use crate::config::Config;
use crate::node::Housekeeping;
use crate::node::files::Files;
use crate::node::retention::Retention;
use crate::slices::stand_back;

pub(crate) struct Embedded {
    files: Files,
    log: EmbeddedLog,
    installation: Installation,
    keep: Duration,
    /// Held while the node lives, so that no second process writes the same files.
    _lock: File,
}

impl Embedded {
    /// Locks the data directory and opens its log.
    pub(crate) fn open(config: &Config) -> anyhow::Result<Self> {
        let files = Files::new(&config.server.data_dir);
        let lock = files.lock()?;
        let partitions = config.server.partitions;
        let options = EmbeddedOptions { partitions, in_background: stand_back, ..EmbeddedOptions::default() };
        let log = EmbeddedLog::open(&files.log(), options)?;
        let installation = Installation { log_id: log.log_id().to_owned(), partitions, hash_seed: config.hash_seed };
        Ok(Self { files, log, installation, keep: config.log_retention, _lock: lock })
    }

    fn everything(&self) -> Box<dyn Ownership> {
        Box::new(Everything { news: Some((0..self.installation.partitions).collect()) })
    }
}

impl Footing for Embedded {
    fn installation(&self) -> Installation {
        self.installation.clone()
    }

    fn appender(&self) -> Arc<dyn LogAppender> {
        self.log.appender()
    }

    fn reader(&self) -> Result<Box<dyn LogReader>, LogError> {
        Ok(Box::new(self.log.reader()?))
    }

    fn log_health(&self) -> Box<dyn Fn() -> LogHealth + Send> {
        let watch = self.log.health_watch();
        Box::new(move || watch.now().into())
    }

    fn totals(&self) -> Result<Box<dyn TotalsBook>, BookError> {
        Ok(Box::new(SqliteTotals::open(&self.files.totals())?))
    }

    fn raw(&self) -> Result<Box<dyn RawBook>, BookError> {
        Ok(Box::new(SqliteRaw::open(&self.files.raw())?))
    }

    fn books(&self) -> BookPlace {
        BookPlace::Files(self.files.clone())
    }

    fn counting(&self) -> Result<Box<dyn Ownership>, LogError> {
        Ok(self.everything())
    }

    fn writing(&self) -> Result<Box<dyn Ownership>, LogError> {
        Ok(self.everything())
    }

    fn snapshots_dir(&self) -> PathBuf {
        self.files.snapshots()
    }

    fn owner(&self) -> String {
        String::new()
    }

    fn kafka(&self) -> Option<&KafkaOptions> {
        None
    }

    fn housekeeping(&self) -> anyhow::Result<Option<Box<dyn Housekeeping>>> {
        let (log, reader) = (self.log.retainer(), self.reader()?);
        Ok(Some(Box::new(Retention { log, reader, keep: self.keep })))
    }

    fn close(self: Box<Self>) -> Result<(), LogError> {
        self.log.close()
    }
}

impl From<EmbeddedHealth> for LogHealth {
    fn from(health: EmbeddedHealth) -> Self {
        let EmbeddedHealth { is_running, is_failing, last_error, failures, commits, queued_envelopes } = health;
        Self { is_running, is_failing, last_error, failures, commits, queued_envelopes }
    }
}

/// Owns every partition: the data directory is locked.
struct Everything {
    /// What has not been told yet.
    news: Option<Vec<u32>>,
}

impl Ownership for Everything {
    fn poll(&mut self, timeout: Duration) -> Result<Vec<Change>, LogError> {
        let news: Vec<_> = self.news.take().map(Change::Assigned).into_iter().collect();
        if news.is_empty() {
            std::thread::sleep(timeout);
        }
        Ok(news)
    }

    fn prove(&mut self) -> Result<bool, LogError> {
        Ok(true)
    }

    fn release(&mut self) -> Result<(), LogError> {
        Ok(())
    }

    fn hint(&mut self, _partition: u32, _next_offset: u64) {}

    fn is_exclusive(&self) -> bool {
        true
    }

    fn leave(self: Box<Self>) {}
}
