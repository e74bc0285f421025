//! Changes that somebody makes to finished books behind Odometer's back, described
//! once: what each engine needs to make them is its own business, and what `verify`
//! must say of them is the same everywhere.

/// A change, and the words that name it in what `verify` prints.
struct Tamper {
    name: &'static str,
    change: Change,
    named: &'static str,
}

#[derive(Clone, Copy)]
pub(crate) enum Change {
    /// A column of one of them gets the value of an expression.
    Set(Thing, &'static str, &'static str),
    /// One of them goes.
    Delete(Thing),
    /// A raw row is there again, at a position inside the cursor that no row has.
    RowAgain,
}

/// What is changed: one of each kind, somewhere in the middle.
#[derive(Clone, Copy)]
pub(crate) enum Thing {
    RawRow,
    /// The rollups of one range.
    Rollups,
    Total,
    /// The cursor and the counts of the busiest partition.
    Partition,
}

use Change::{Delete, RowAgain, Set};
use Thing::{Partition, RawRow, Rollups, Total};

const TAMPERS: [Tamper; 14] = [
    tamper("a quantity", Set(RawRow, "quantity", "quantity + 1"), ": its checksum is"),
    tamper("a tenant", Set(RawRow, "tenant", "'other'"), "of tenant other: its checksum is"),
    tamper("a time", Set(RawRow, "time", "time + 1"), ": its checksum is"),
    tamper("a verdict", Set(RawRow, "verdict", "'duplicate'"), ": its checksum is"),
    tamper("a checksum", Set(RawRow, "row_hash", "row_hash + 1"), ": its checksum is"),
    tamper("a row deleted", Delete(RawRow), "is missing: its envelope has"),
    tamper("a key again", RowAgain, "accepted 2 times"),
    tamper("a total", Set(Total, "quantity", "quantity + 1"), ": quantity is"),
    tamper("a count of records", Set(Total, "records", "records + 1"), ": records is"),
    tamper("a digest", Set(Total, "digest", "'00000000000000000000000000000000'"), ": digest is 0000000000"),
    tamper("a total deleted", Delete(Total), ": no total of tenant"),
    tamper("a rollup", Set(Rollups, "sum", "sum + 1"), ": sum is"),
    tamper("a count of verdicts", Set(Partition, "accepted", "accepted + 1"), ": accepted is"),
    tamper("a cursor", Set(Partition, "next_offset", "next_offset / 2"), ": received is"),
];

const fn tamper(name: &'static str, change: Change, named: &'static str) -> Tamper {
    Tamper { name, change, named }
}

impl Thing {
    /// Its table.
    pub(crate) fn table(self) -> &'static str {
        match self {
            RawRow => "usage_records",
            Rollups => "usage_rollups",
            Total => "period_totals",
            Partition => "partitions",
        }
    }

    /// Which of `table`'s rows are meant, in the SQL of every engine.
    pub(crate) fn condition(self, table: &str) -> String {
        let (key, order, skipped) = match self {
            Rollups => return "range_start = 0".to_owned(),
            RawRow => (r#"partition, "offset", idx"#, r#"partition, "offset", idx"#, 77),
            Total => ("tenant, meter, period_start", "tenant, meter, period_start", 5),
            Partition => ("partition", "received DESC, partition", 0),
        };
        format!("({key}) IN (SELECT {key} FROM {table} ORDER BY {order} LIMIT 1 OFFSET {skipped})")
    }
}

impl Change {
    /// The raw book's tables, else the totals book's.
    pub(crate) fn is_raw(self) -> bool {
        matches!(self, Set(RawRow | Rollups, ..) | Delete(RawRow | Rollups) | RowAgain)
    }

    /// The statement of an engine that changes rows where they are.
    pub(crate) fn in_place(self) -> String {
        match self {
            Set(thing, column, value) => {
                let table = thing.table();
                format!("UPDATE {table} SET {column} = {value} WHERE {}", thing.condition(table))
            }
            Delete(thing) => format!("DELETE FROM {} WHERE {}", thing.table(), thing.condition(thing.table())),
            RowAgain => panic!("a row is copied by the engine's own means"),
        }
    }
}

/// Good books, of which a test may change copies.
pub(crate) trait Books {
    /// Makes a change; the exit code and the words of `verify` then. Before the next
    /// call the books are good again.
    fn verify_with(&self, change: Change) -> (i32, String);

    /// The exit code and the words of `verify`.
    fn verify(&self) -> (i32, String);
}

/// Every change is named.
pub(crate) fn check_all(books: &impl Books) {
    let (code, report) = books.verify();
    assert_eq!(code, 0, "{report}");
    for Tamper { name, change, named } in TAMPERS {
        let (code, report) = books.verify_with(change);
        assert_eq!(code, 1, "{name}: {report}");
        assert!(report.contains(named), "{name}: {report}");
    }
    let (code, report) = books.verify();
    assert_eq!(code, 0, "{report}");
}
