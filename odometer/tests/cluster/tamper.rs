//! Books on PostgreSQL and ClickHouse that were changed behind Odometer's back, after
//! real traffic.

use crate::support::{Cluster, await_ready, verify_at};
use crate::tampers::{Books, Change, Thing, check_all};
use crate::traffic::{expected, traces};

/// Tables that are put back after each change, from copies beside them.
const RAW_TABLES: [&str; 2] = ["usage_records", "usage_rollups"];
const TOTALS_TABLES: [&str; 2] = ["period_totals", "partitions"];

/// The finished books of a cluster that stands still.
struct Parts<'a>(&'a Cluster);

impl<'a> Parts<'a> {
    /// Keeps a copy of every table that is going to be changed.
    fn keep(cluster: &'a Cluster) -> Self {
        let parts = Self(cluster);
        for table in RAW_TABLES {
            parts.raw(&format!("CREATE TABLE {} AS {table}", kept(table)));
            parts.raw(&format!("INSERT INTO {} SELECT * FROM {table}", kept(table)));
        }
        for table in TOTALS_TABLES {
            parts.totals(&format!("CREATE TABLE {} AS TABLE {table}", kept(table)));
        }
        parts
    }

    fn put_back(&self) {
        let fill = |table: &str| format!("INSERT INTO {table} SELECT * FROM {}", kept(table));
        for table in RAW_TABLES {
            self.raw(&format!("TRUNCATE TABLE {table}"));
            self.raw(&fill(table));
        }
        for table in TOTALS_TABLES {
            self.totals(&format!("TRUNCATE TABLE {table}; {}", fill(table)));
        }
    }

    fn raw(&self, sql: &str) {
        self.0.clickhouse(sql);
    }

    fn totals(&self, sql: &str) {
        self.0.postgres().execute(sql);
    }

    /// ClickHouse changes no column of a key where it stands: the row goes, and comes
    /// again from the copy with another value.
    fn change_raw(&self, change: Change) {
        match change {
            Change::Set(thing, column, value) => {
                self.delete_raw(thing);
                self.raw(&again(thing, column, value));
            }
            Change::Delete(thing) => self.delete_raw(thing),
            Change::RowAgain => self.raw(&again(Thing::RawRow, "idx", "idx + 1000")),
        }
    }

    fn delete_raw(&self, thing: Thing) {
        let (table, which) = (thing.table(), thing.condition(&kept(thing.table())));
        self.raw(&format!("ALTER TABLE {table} DELETE WHERE {which} SETTINGS mutations_sync = 2"));
    }
}

fn kept(table: &str) -> String {
    format!("kept_{table}")
}

/// Inserts what is kept of `thing`, one column changed.
fn again(thing: Thing, column: &str, value: &str) -> String {
    let (table, copy) = (thing.table(), kept(thing.table()));
    let which = thing.condition(&copy);
    // Chosen first: after it, the column's name means the new value.
    let chosen = format!("SELECT * FROM {copy} WHERE {which}");
    format!("INSERT INTO {table} SELECT * REPLACE ({value} AS {column}) FROM ({chosen})")
}

impl Books for Parts<'_> {
    fn verify_with(&self, change: Change) -> (i32, String) {
        if change.is_raw() {
            self.change_raw(change);
        } else {
            self.totals(&change.in_place());
        }
        let said = self.verify();
        self.put_back();
        said
    }

    fn verify(&self) -> (i32, String) {
        verify_at(["--config", self.0.config()])
    }
}

#[test]
fn every_change_behind_our_back_is_named() {
    let cluster = Cluster::new(4);
    let traces = traces(cluster.directory());
    let node = cluster.node();
    await_ready(&node);
    traces.iter().for_each(|trace| trace.replay(&node.url));
    cluster.await_totals(&expected(&traces));
    cluster.prove();
    node.stop();
    let parts = Parts::keep(&cluster);
    check_all(&parts);
    a_row_that_replaces_another_is_named(&parts);
}

/// What an engine that replaces rows makes easy: other columns at the position of a
/// row that stays, so that either may be the one that readers see.
fn a_row_that_replaces_another_is_named(parts: &Parts<'_>) {
    parts.raw(&again(Thing::RawRow, "quantity", "quantity + 1"));
    let (code, report) = parts.verify();
    parts.put_back();
    assert_eq!(code, 1, "{report}");
    assert!(report.contains(": its checksum is"), "{report}");
}
