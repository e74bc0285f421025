//! Books on SQLite that were changed behind Odometer's back.

use std::fs;
use std::path::Path;

use rusqlite::Connection;
use tempfile::TempDir;

use crate::support::{Process, synthetic, verify};
use crate::tampers::{Books, Change, Thing, check_all};

/// A finished data directory; every change is made to a copy of it.
struct Files(TempDir);

impl Books for Files {
    fn verify_with(&self, change: Change) -> (i32, String) {
        let changed = tempfile::tempdir().unwrap();
        copy(self.0.path(), changed.path());
        let book = if change.is_raw() { "raw.sqlite" } else { "totals.sqlite" };
        let connection = Connection::open(changed.path().join(book)).unwrap();
        let sql = if matches!(change, Change::RowAgain) { row_again(&connection) } else { change.in_place() };
        assert!(connection.execute(&sql, []).unwrap() > 0, "nothing was changed");
        drop(connection);
        verify(changed.path())
    }

    fn verify(&self) -> (i32, String) {
        verify(self.0.path())
    }
}

/// The insert with all columns, the row's index moved past its envelope's end.
fn row_again(connection: &Connection) -> String {
    let mut statement = connection.prepare("SELECT name FROM pragma_table_info('usage_records')").unwrap();
    let columns: Vec<String> = statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    let columns: Vec<String> = columns.iter().map(|name| format!("\"{name}\"")).collect();
    let all = columns.join(",");
    let (table, which) = (Thing::RawRow.table(), Thing::RawRow.condition(Thing::RawRow.table()));
    format!("INSERT INTO {table} ({all}) SELECT {} FROM {table} WHERE {which}", all.replace("\"idx\"", "idx + 1000"))
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

#[test]
fn every_change_behind_our_back_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let trace = synthetic(directory.path(), 500);
    let data_dir = tempfile::tempdir().unwrap();
    let process = Process::start(data_dir.path());
    trace.replay(&process.url);
    process.stop();
    check_all(&Files(data_dir));
}
