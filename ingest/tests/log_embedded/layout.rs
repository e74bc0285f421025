//! Logs that an older build left.

use super::*;

/// A log of two partitions as an older build left it.
fn of_the_layout_before(path: &Path) -> Connection {
    let before = Connection::open(path).expect("a file");
    before
        .execute_batch(
            "PRAGMA journal_mode = WAL;
             CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
             INSERT INTO meta VALUES ('schema_version', '1'), ('partitions', '2'), ('log_id', 'abc');
             CREATE TABLE envelopes (
                 partition INTEGER NOT NULL,
                 offset INTEGER NOT NULL,
                 append_time_ms INTEGER NOT NULL,
                 bytes BLOB NOT NULL,
                 PRIMARY KEY (partition, offset)
             );
             INSERT INTO envelopes VALUES (0, 0, 5, x'00'), (1, 7, 6, x'07'), (1, 8, 9, x'08');
             DELETE FROM envelopes WHERE partition = 0;
             INSERT INTO envelopes VALUES (0, 1, 9, x'01');",
        )
        .expect("tables");
    before
}

#[test]
fn a_log_of_the_layout_before_is_laid_out_anew() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("log.db");
    drop(of_the_layout_before(&path));
    let refused = EmbeddedReader::open_read_only(&path).unwrap_err().to_string();
    assert!(refused.contains("schema version 1, this build knows 2; start odometer on it"), "{refused}");
    for appended in 0..2 {
        let log = EmbeddedLog::open(&path, options(2)).unwrap();
        assert_eq!(log.log_id(), "abc");
        assert_eq!(append(&log, 1, b"new").unwrap().offset, 9 + appended);
    }
    let mut reader = EmbeddedReader::open_read_only(&path).unwrap();
    assert_eq!(reader.bounds(0).unwrap(), Bounds { start_offset: 1, end_offset: 2 });
    assert_eq!(read(&mut reader, 0), [[1]]);
    assert_eq!(read(&mut reader, 1), [&[7][..], &[8], b"new", b"new"]);
}

#[test]
fn a_log_of_the_layout_before_is_left_alone_where_it_cannot_be_used() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("log.db");
    let before = of_the_layout_before(&path);
    assert!(refusal(&path, options(3)).contains("has 2 partitions"));
    // In the way of the last step but some.
    before.execute_batch("CREATE TABLE placed (number INTEGER)").unwrap();
    let refused = refusal(&path, options(2));
    assert!(refused.contains("room for two more") && refused.contains("placed already exists"), "{refused}");
    let count = |table| before.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0));
    assert_eq!(count("envelopes WHERE offset = 8 AND bytes = x'08'"), Ok(1));
    assert_eq!(count("meta WHERE name = 'schema_version' AND value = '1'"), Ok(1));
}
