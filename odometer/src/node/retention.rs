//! Removes log entries that nobody needs any more: older than the retention, and
//! below what the raw book would read again after a restart. Recovery without a
//! snapshot learns ids from the log, so the configuration keeps the retention longer
//! than the dedupe window.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use odometer_ingest::log::embedded::LogRetainer;
use odometer_ingest::log::{LogError, LogReader};
use odometer_schemas::time::TimeMs;
use odometer_sink::raw::range_start;

use super::Housekeeping;
use super::progress::{Progress, now};

/// Time between two looks. Removing is cheap, and a retention is days long.
const LOOK_EVERY: Duration = Duration::from_secs(600);
/// How often the stop flag is looked at.
const STOP_POLL: Duration = Duration::from_millis(100);

pub(crate) struct Retention {
    pub(crate) log: LogRetainer,
    pub(crate) reader: Box<dyn LogReader>,
    pub(crate) keep: Duration,
}

impl Housekeeping for Retention {
    /// A failure is a warning: the log only grows.
    fn run(mut self: Box<Self>, progress: &Progress, stopping: &AtomicBool) {
        let mut looked: Option<Instant> = None;
        while !stopping.load(Ordering::Acquire) && progress.failure().is_none() {
            if looked.is_none_or(|at| at.elapsed() >= LOOK_EVERY) {
                looked = Some(Instant::now());
                if let Err(error) = self.look(progress) {
                    tracing::warn!("old log entries were not removed: {error}");
                }
            }
            std::thread::sleep(STOP_POLL);
        }
    }
}

impl Retention {
    fn look(&mut self, progress: &Progress) -> Result<(), LogError> {
        let keep_ms = i64::try_from(self.keep.as_millis()).unwrap_or(i64::MAX);
        let oldest = now().plus_ms(-keep_ms);
        for partition in 0..self.reader.partitions() {
            let needed = range_start(progress.of(partition).raw_offset.load(Ordering::Acquire));
            let below = first_at(self.reader.as_mut(), partition, oldest)?.min(needed);
            if below > self.reader.bounds(partition)?.start_offset {
                let removed = self.log.retain(partition, below)?;
                tracing::info!("removed {removed} log entries of partition {partition} below offset {below}");
            }
        }
        Ok(())
    }
}

/// The first offset that was appended at `time` or later; append times never go
/// back, so a binary search finds it.
fn first_at(log: &mut dyn LogReader, partition: u32, time: TimeMs) -> Result<u64, LogError> {
    let bounds = log.bounds(partition)?;
    let (mut low, mut high) = (bounds.start_offset, bounds.end_offset);
    while low < high {
        let middle = low + (high - low) / 2;
        let is_older = log.read(partition, middle, 1)?.first().is_some_and(|entry| entry.append_time < time);
        if is_older {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(low)
}

#[cfg(test)]
mod tests {
    use odometer_ingest::log::embedded::{EmbeddedLog, EmbeddedOptions};

    use super::*;

    #[test]
    fn the_first_offset_at_a_time_is_found() {
        static CLOCK: std::sync::atomic::AtomicI64 = std::sync::atomic::AtomicI64::new(0);
        let directory = tempfile::tempdir().unwrap();
        let clock = || TimeMs(CLOCK.fetch_add(10, Ordering::Relaxed));
        let options = EmbeddedOptions { partitions: 1, clock, ..EmbeddedOptions::default() };
        let log = EmbeddedLog::open(&directory.path().join("log.sqlite"), options).unwrap();
        let times: Vec<_> = (0..20_u8).map(|i| log.appender().append(0, vec![i]).wait_blocking().unwrap()).collect();
        let mut reader = log.reader().unwrap();
        for appended in &times {
            assert_eq!(first_at(&mut reader, 0, appended.append_time).unwrap(), appended.offset);
            assert_eq!(first_at(&mut reader, 0, appended.append_time.plus_ms(1)).unwrap(), appended.offset + 1);
        }
        assert_eq!(first_at(&mut reader, 0, TimeMs(i64::MIN)).unwrap(), 0);
    }
}
