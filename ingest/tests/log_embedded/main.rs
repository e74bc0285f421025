//! The embedded log: the contract of every log, and what is its own.

mod layout;
mod places;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use odometer_ingest::log::contract::{self, LogUnderTest, Setup};
use odometer_ingest::log::embedded::{EmbeddedLog, EmbeddedOptions, EmbeddedReader};
use odometer_ingest::log::{AppendError, Appended, Bounds, LogAppender, LogError, LogReader};
use odometer_schemas::time::TimeMs;
use rusqlite::Connection;
use tempfile::TempDir;

struct Embedded {
    directory: TempDir,
    setup: Setup,
    log: Option<EmbeddedLog>,
}

fn options(partitions: u32) -> EmbeddedOptions {
    EmbeddedOptions { partitions, ..EmbeddedOptions::default() }
}

impl Embedded {
    fn path(&self) -> PathBuf {
        self.directory.path().join("log.db")
    }

    fn log(&self) -> &EmbeddedLog {
        self.log.as_ref().expect("the log is open")
    }
}

impl LogUnderTest for Embedded {
    fn appender(&self) -> Arc<dyn LogAppender> {
        self.log().appender()
    }

    fn reader(&self) -> Box<dyn LogReader> {
        Box::new(self.log().reader().expect("a reader opens"))
    }

    fn retain(&self, partition: u32, below_offset: u64) {
        self.log().retain(partition, below_offset).expect("retention works");
    }

    fn close(&mut self) {
        self.log.take().expect("the log is open").close().expect("the log closes");
    }

    fn reopen(&mut self, partitions: u32) -> Result<(), LogError> {
        self.log = None;
        let options = EmbeddedOptions { queue_envelopes: self.setup.queue_envelopes, ..options(partitions) };
        self.log = Some(EmbeddedLog::open(&self.path(), options)?);
        Ok(())
    }
}

fn make(setup: Setup) -> Embedded {
    let mut made = Embedded { directory: TempDir::new().expect("a directory"), setup, log: None };
    made.reopen(setup.partitions).expect("a new log opens");
    made
}

fn small() -> Embedded {
    make(Setup { partitions: 2, queue_envelopes: 64 })
}

fn append(log: &EmbeddedLog, partition: u32, bytes: &[u8]) -> Result<Appended, AppendError> {
    log.appender().append(partition, bytes.to_vec()).wait_blocking()
}

fn read(reader: &mut EmbeddedReader, partition: u32) -> Vec<Vec<u8>> {
    let from = reader.bounds(partition).expect("bounds").start_offset;
    reader.read(partition, from, usize::MAX).expect("readable").into_iter().map(|e| e.bytes.to_vec()).collect()
}

#[test]
fn the_contract_of_every_log_is_kept() {
    contract::check(&|setup| Box::new(make(setup)));
}

#[test]
fn a_clock_that_goes_back_does_not_take_log_time_with_it() {
    static NOW: AtomicI64 = AtomicI64::new(0);
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("log.db");
    let options = EmbeddedOptions { clock: || TimeMs(NOW.load(Ordering::SeqCst)), ..options(2) };
    let at = |log: &EmbeddedLog, now, partition| {
        NOW.store(now, Ordering::SeqCst);
        append(log, partition, b"x").unwrap().append_time.0
    };
    let log = EmbeddedLog::open(&path, options.clone()).unwrap();
    assert_eq!([at(&log, 1000, 0), at(&log, 400, 0), at(&log, 400, 1)], [1000, 1000, 400]);
    log.close().unwrap();
    let log = EmbeddedLog::open(&path, options).unwrap();
    assert_eq!([at(&log, 500, 0), at(&log, 500, 1), at(&log, 1001, 0)], [1000, 500, 1001]);
}

#[test]
fn a_failing_disk_is_answered_and_outlived() {
    let made = small();
    let log = made.log();
    append(log, 0, b"before").unwrap();
    let saboteur = Connection::open(made.path()).unwrap();
    saboteur
        .execute_batch("CREATE TRIGGER full BEFORE INSERT ON envelopes BEGIN SELECT RAISE(ABORT, 'no space left'); END")
        .unwrap();
    for _ in 0..2 {
        let error = append(log, 0, b"during").unwrap_err();
        assert!(error.is_retryable());
        assert!(error.to_string().contains("no space left"), "{error}");
    }
    let health = log.health();
    assert!(health.is_running && health.is_failing && health.failures == 2);
    assert!(health.last_error.unwrap().contains("no space left"));
    saboteur.execute_batch("DROP TRIGGER full").unwrap();
    // Another writer took the next offset meanwhile; the log asks the file again.
    saboteur.execute_batch("INSERT INTO envelopes SELECT 2, 0, 1, append_time_ms, x'ff' FROM envelopes").unwrap();
    assert_eq!(append(log, 0, b"after").unwrap().offset, 2);
    let health = log.health();
    assert!(!health.is_failing && health.commits == 2 && health.queued_envelopes == 0);
    assert!(health.last_error.is_some());
    assert_eq!(read(&mut log.reader().unwrap(), 0), [b"before".to_vec(), vec![0xff], b"after".to_vec()]);
}

#[test]
fn another_writer_in_between_costs_one_refusal_and_no_envelope() {
    let made = small();
    append(made.log(), 0, b"mine").unwrap();
    let other = Connection::open(made.path()).unwrap();
    other.execute_batch("INSERT INTO envelopes SELECT 2, 0, 1, append_time_ms, x'ff' FROM envelopes").unwrap();
    assert!(matches!(append(made.log(), 0, b"mine too"), Err(AppendError::Unavailable(_))));
    assert_eq!(append(made.log(), 0, b"mine too").unwrap().offset, 2);
}

#[test]
fn dropping_closes_and_answers() {
    let mut made = small();
    let appender = made.appender();
    let pending: Vec<_> = (0..50_u8).map(|n| appender.append(0, vec![n; 9])).collect();
    made.log = None;
    for pending in pending {
        pending.wait_blocking().unwrap();
    }
    assert_eq!(appender.append(0, vec![1]).wait_blocking(), Err(AppendError::Closed));
    let mut reader = EmbeddedReader::open_read_only(&made.path()).unwrap();
    assert_eq!(read(&mut reader, 0).len(), 50);
}

#[test]
fn a_closed_log_is_one_file() {
    let mut made = small();
    append(made.log(), 1, b"x").unwrap();
    made.close();
    let names: Vec<_> = made.directory.path().read_dir().unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["log.db"]);
}

#[test]
fn a_reader_elsewhere_sees_commits_as_they_come() {
    let made = small();
    let mut reader = EmbeddedReader::open_read_only(&made.path()).unwrap();
    assert_eq!(reader.log_id(), made.log().log_id());
    for n in 0..5_u8 {
        append(made.log(), 1, &[n]).unwrap();
        while reader.read(1, n.into(), 1000).unwrap().is_empty() {
            reader.wait(Duration::from_secs(60));
        }
        assert_eq!(read(&mut reader, 1).len(), usize::from(n) + 1);
    }
}

#[test]
fn the_write_ahead_log_begins_anew_while_appends_go_on() {
    const ENVELOPES: u64 = 9_000;
    let made = small();
    let appender = made.log().appender();
    let bytes = vec![7; 30_000];
    for n in 0..ENVELOPES {
        let appended = appender.append_unflushed(0, bytes.clone()).wait_blocking().unwrap();
        assert_eq!(appended.offset, n);
    }
    append(made.log(), 0, b"last").unwrap();
    let length = std::fs::metadata(made.path().with_extension("db-wal")).unwrap().len();
    assert!(length < 200 << 20, "270 MB were written, {length} bytes stand in the write-ahead log");
    let bounds = made.log().reader().unwrap().bounds(0).unwrap();
    assert_eq!(bounds, Bounds { start_offset: 0, end_offset: ENVELOPES + 1 });
}

#[test]
fn retention_works_in_steps_and_beside_appends() {
    let made = small();
    let appender = made.appender();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0..300_u32 {
                while appender.append(0, n.to_le_bytes().to_vec()).wait_blocking().is_err() {}
            }
        });
        while made.log().health().commits < 250 {
            made.log().retain(0, u64::MAX).unwrap();
        }
    });
    append(made.log(), 0, b"last").unwrap();
    let before = made.log().reader().unwrap().bounds(0).unwrap();
    assert_eq!(before.end_offset, 301);
    let removed = made.log().retain(0, 300).unwrap();
    assert_eq!(removed, 300 - before.start_offset);
    assert_eq!(made.log().retain(0, 1000).unwrap(), 0);
    assert_eq!(made.log().retain(1, 1000).unwrap(), 0, "an empty partition has nothing to remove");
    assert_eq!(made.log().reader().unwrap().bounds(0).unwrap(), Bounds { start_offset: 300, end_offset: 301 });
    assert_eq!(read(&mut made.log().reader().unwrap(), 0), [b"last"]);
}

#[test]
fn a_long_removal_takes_many_steps() {
    let made = make(Setup { partitions: 1, queue_envelopes: 1024 });
    let pending: Vec<_> = (0..700_u32).map(|n| made.appender().append(0, n.to_le_bytes().to_vec())).collect();
    pending.into_iter().for_each(|p| assert!(p.wait_blocking().is_ok()));
    assert_eq!(made.log().retain(0, 600).unwrap(), 600);
    assert_eq!(made.log().reader().unwrap().bounds(0).unwrap(), Bounds { start_offset: 600, end_offset: 700 });
}

fn refusal(path: &Path, options: EmbeddedOptions) -> String {
    match EmbeddedLog::open(path, options) {
        Err(LogError::Mismatch { what }) => what,
        Err(LogError::Storage { doing, source }) => format!("{doing}: {source}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_no_log_of_ours_is_refused_by_name() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("log.db");
    assert!(refusal(&path, options(0)).contains("0 partitions"));
    assert!(refusal(&path, options(1025)).contains("1025 partitions"));
    let no_queue = EmbeddedOptions { queue_envelopes: 0, ..options(1) };
    assert!(refusal(&path, no_queue).contains("queue_envelopes"));
    assert!(!path.exists(), "refused before anything is created");
    assert!(EmbeddedReader::open_read_only(&path).is_err(), "reading does not create a log");
    assert!(!path.exists());

    std::fs::write(&path, "this is not a database, and long enough to look at: ".repeat(100)).unwrap();
    assert!(refusal(&path, options(1)).contains("not a database"));
    assert!(refusal(&directory.path().join("nowhere/log.db"), options(1)).contains("nowhere"));

    let newer = directory.path().join("newer.db");
    let id = EmbeddedLog::open(&newer, options(1)).unwrap().log_id().to_owned();
    assert_eq!(id.len(), 32);
    assert_eq!(EmbeddedLog::open(&newer, options(1)).unwrap().log_id(), id);
    let connection = Connection::open(&newer).unwrap();
    connection.execute_batch("UPDATE meta SET value = '3' WHERE name = 'schema_version'").unwrap();
    assert!(refusal(&newer, options(1)).contains("schema version 3"));
}
