//! Books that were changed behind Odometer's back: `verify` names every change.

use std::fs;
use std::path::Path;

use rusqlite::Connection;

use crate::support::{Process, synthetic, verify};

/// What is done to which book, and what the proof must say.
struct Tamper {
    name: &'static str,
    book: &'static str,
    sql: &'static str,
    named: &'static str,
}

const TAMPERS: [Tamper; 12] = [
    tamper("a quantity", "raw", "UPDATE usage_records SET quantity = quantity + 1 WHERE ROW", "checksum"),
    tamper("a tenant", "raw", "UPDATE usage_records SET tenant = 'other' WHERE ROW", "checksum"),
    tamper("a time", "raw", "UPDATE usage_records SET time = time + 1 WHERE ROW", "checksum"),
    tamper("a verdict", "raw", "UPDATE usage_records SET verdict = 'duplicate' WHERE ROW", "checksum"),
    tamper("a checksum", "raw", "UPDATE usage_records SET row_hash = row_hash + 1 WHERE ROW", "checksum"),
    tamper("a row deleted", "raw", "DELETE FROM usage_records WHERE ROW", "missing"),
    tamper("a key again", "raw", INSERT_AGAIN, "accepted 2 times"),
    tamper("a total", "totals", "UPDATE period_totals SET quantity = quantity + 1 WHERE TOTAL", "quantity"),
    tamper("a count", "totals", "UPDATE period_totals SET records = records + 1 WHERE TOTAL", "records"),
    tamper(
        "a digest",
        "totals",
        "UPDATE period_totals SET digest = '00000000000000000000000000000000' WHERE TOTAL",
        "digest",
    ),
    tamper("a total deleted", "totals", "DELETE FROM period_totals WHERE TOTAL", "total"),
    tamper("a rollup", "raw", "UPDATE usage_rollups SET sum = sum + 1 WHERE range_start = 0", "rollup"),
];

/// What `ROW` and `TOTAL` stand for: one row somewhere in the middle.
const ONE_ROW: &str = r#"(partition, "offset", idx) =
    (SELECT partition, "offset", idx FROM usage_records ORDER BY partition, "offset", idx LIMIT 1 OFFSET 77)"#;
const ONE_TOTAL: &str = "(tenant, meter, period_start) =
    (SELECT tenant, meter, period_start FROM period_totals ORDER BY tenant, meter, period_start LIMIT 1 OFFSET 5)";

/// Every column of one row, at a position inside the cursor that no row has.
const INSERT_AGAIN: &str = "INSERT INTO usage_records (COLUMNS) SELECT SELECTED FROM usage_records WHERE ROW";

const fn tamper(name: &'static str, book: &'static str, sql: &'static str, named: &'static str) -> Tamper {
    Tamper { name, book, sql, named }
}

/// The insert with all columns, the row's index moved past its envelope's end.
fn insert_again(connection: &Connection) -> String {
    let mut statement = connection.prepare("SELECT name FROM pragma_table_info('usage_records')").unwrap();
    let columns: Vec<String> = statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    let quoted: Vec<String> = columns.iter().map(|name| format!("\"{name}\"")).collect();
    let selected: Vec<String> =
        quoted.iter().map(|name| if name == "\"idx\"" { "idx + 1000".to_owned() } else { name.clone() }).collect();
    INSERT_AGAIN.replace("COLUMNS", &quoted.join(",")).replace("SELECTED", &selected.join(","))
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
    for tamper in TAMPERS {
        let changed = tempfile::tempdir().unwrap();
        copy(data_dir.path(), changed.path());
        let connection = Connection::open(changed.path().join(format!("{}.sqlite", tamper.book))).unwrap();
        let sql = if tamper.sql == INSERT_AGAIN { insert_again(&connection) } else { tamper.sql.to_owned() };
        let sql = sql.replace("ROW", ONE_ROW).replace("TOTAL", ONE_TOTAL);
        assert!(connection.execute(&sql, []).unwrap() > 0, "{}: nothing was changed", tamper.name);
        drop(connection);
        let (code, report) = verify(changed.path());
        assert_eq!(code, 1, "{}: {report}", tamper.name);
        assert!(report.contains(tamper.named), "{}: {report}", tamper.name);
    }
    assert_eq!(verify(data_dir.path()).0, 0);
}
