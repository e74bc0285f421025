mod books;
mod copies;
mod postgres;

use odometer_schemas::log::Position;
use odometer_schemas::period::parse_month;

use self::books::{Books, counts_of, tenant};
use super::*;
use crate::raw::{OwnedRow, SqliteRaw};
use crate::totals::SqliteTotals;

/// Asserts that some line holds all of `parts`.
fn names(lines: &[String], parts: &[&str]) {
    let found = lines.iter().any(|line| parts.iter().all(|part| line.contains(part)));
    assert!(found, "no line names {parts:?}:\n{}", lines.join("\n"));
}

#[test]
fn agreeing_books_are_proven() {
    let books = Books::agreeing();
    let findings = books.findings(&VerifyScope::default());
    assert_eq!(findings.differences, []);
    assert_eq!((findings.totals, findings.rows, findings.rejected_envelopes), (7, 15, 1));
    assert!(findings.rollups > 0);
    assert_eq!(books.report(&VerifyScope::default()).exit_code(), 0);
    let counts = counts_of(&books)[&0];
    assert_eq!((counts.received, counts.accepted, counts.rejected), (13, 8, 2));
}

#[test]
fn every_scope_of_agreeing_books_is_proven() {
    let books = Books::agreeing();
    let tenants = [None, Some(tenant(0)), Some(tenant(1)), Some("nobody".to_owned())];
    let periods = [None, parse_month("2023-11"), parse_month("2023-12"), parse_month("2024-01")];
    let mut totals = Vec::new();
    for tenant in &tenants {
        for period in periods {
            let findings = books.findings(&VerifyScope { tenant: tenant.clone(), period });
            assert_eq!(findings.differences, [], "{tenant:?} {period:?}");
            totals.push(findings.totals);
        }
    }
    assert_eq!(totals, [7, 6, 1, 0, 5, 4, 1, 0, 2, 2, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn a_lagging_raw_book_is_unproven() {
    let books = Books::counted().follow(4);
    let report = books.report(&VerifyScope::default());
    assert_eq!(report.exit_code(), 2);
    let expected = Lag { partition: 0, raw_offset: 4, totals_offset: 6 };
    assert_eq!(report, Report::Unproven(vec![expected]));
    assert_eq!(expected.to_string(), "partition 0: raw rows reach offset 4, totals reach offset 6");
}

#[test]
fn the_proof_waits_for_the_raw_book() {
    let mut waiting = Some(Books::counted().follow(4));
    let (totals, raw) = waiting.as_ref().map(|books| (books.path("totals"), books.path("raw"))).unwrap();
    let mut totals = SqliteTotals::open_read_only(&totals).unwrap();
    let mut raw = SqliteRaw::open_read_only(&raw).unwrap();
    let mut followed = None;
    let mut phases = Vec::new();
    let mut attendant = Attendant {
        progress: &mut |progress| phases.push(progress.phase),
        wait: &mut |_| {
            // The caught-up books must live until the proof is done.
            followed = waiting.take().map(|books| books.follow_from(4));
            true
        },
    };
    let report = verify(&mut totals, &mut raw, &VerifyScope::default(), &mut attendant).unwrap();
    assert_eq!(report.exit_code(), 0, "{report:?}");
    assert_eq!(phases, [Phase::Waiting, Phase::Rows]);
    drop(followed);
}

#[test]
fn every_changed_column_of_a_row_is_named() {
    let changes = [
        "tenant = 'other'",
        "meter = 'max'",
        "source = 'other'",
        "id = 'other'",
        "id_emitted = 1",
        "subject = NULL",
        "subject = 'other'",
        "quantity = quantity + 1",
        "time = time + 1",
        "time_given = 0",
        "dimensions = '{\"model\":\"n\"}'",
        "dimensions = 'no json'",
        "reservation = 'other'",
        "envelope_records = 5",
        "verdict = 'late'",
        "verdict = 'rejected', reason = 'unknown_meter'",
        "verdict = 'nonsense'",
        "reason = 'unknown_meter'",
        "append_time = append_time + 1",
        "row_hash = row_hash + 1",
    ];
    for change in changes {
        let books = Books::agreeing();
        books.tamper(
            "raw",
            &format!("UPDATE usage_records SET {change} WHERE (partition, offset, idx) = (0, 1, 0)"),
            1,
        );
        let lines = books.lines();
        let position = if lines.iter().any(|line| line.contains("0/1/0")) { "0/1/0" } else { "(0, 1, 0)" };
        names(&lines, &[position]);
        assert_eq!(books.report(&VerifyScope::default()).exit_code(), 1, "{change}");
    }
}

#[test]
fn a_row_that_moved_is_named() {
    for (change, now) in [("partition = 1", "1/1/0"), ("offset = 4", "0/4/0"), ("idx = 7", "0/1/7")] {
        let books = Books::agreeing();
        // Partition 1 has rows at that place: make room.
        books.tamper("raw", "DELETE FROM usage_records WHERE (partition, offset, idx) = (1, 1, 0)", 1);
        books.tamper(
            "raw",
            &format!("UPDATE usage_records SET {change} WHERE (partition, offset, idx) = (0, 1, 0)"),
            1,
        );
        let lines = books.lines();
        names(&lines, &["row 0/1/0 is missing"]);
        names(&lines, &[now, "checksum"]);
    }
}

#[test]
fn a_deleted_row_is_named() {
    for index in 0..4 {
        let books = Books::agreeing();
        books.tamper("raw", &format!("DELETE FROM usage_records WHERE (partition, offset, idx) = (0, 1, {index})"), 1);
        let lines = books.lines();
        names(&lines, &[&format!("row 0/1/{index} is missing"), "4 records"]);
        names(&lines, &["partition 0", "accepted is 8", "give 7"]);
        names(&lines, &["total of tenant", "records is"]);
        names(&lines, &["total of tenant", "digest is"]);
    }
    // The only row of its envelope leaves nothing that could miss it but the numbers.
    let books = Books::agreeing();
    books.tamper("raw", "DELETE FROM usage_records WHERE (partition, offset) = (0, 2)", 1);
    let lines = books.lines();
    names(&lines, &[&tenant(0), "meter max", "records is 1, the raw rows give 0"]);
    names(&lines, &["received is 13", "give 12"]);
    // A row that was not accepted is missed as well.
    let books = Books::agreeing();
    books.tamper("raw", "DELETE FROM usage_records WHERE (partition, offset, idx) = (0, 3, 1)", 1);
    names(&books.lines(), &["row 0/3/1 is missing"]);
    let books = Books::agreeing();
    books.tamper("raw", "DELETE FROM rejected_envelopes", 1);
    names(&books.lines(), &["partition 0: rejected is 2 in the totals book, the raw rows give 1"]);
}

fn copy_of_first(books: &Books, position: Position) -> OwnedRow {
    OwnedRow { position, ..books.rows(&tenant(0)).remove(0) }
}

#[test]
fn an_inserted_row_under_an_existing_key_is_named() {
    for (offset, index) in [(1, 4), (2, 1), (4, 0)] {
        let books = Books::agreeing();
        let row = copy_of_first(&books, Position { partition: 0, offset, index });
        books.forge(&row);
        let lines = books.lines();
        let place = format!("0/{offset}/{index}");
        names(&lines, &["key (", "was accepted 2 times: ", "0/1/0", &place]);
        names(&lines, &["total of", "meter sum", "records is 1, the raw rows give 2"]);
        names(&lines, &["rollups of tenant", "records is 1, the raw rows give 2"]);
        assert!(!lines.iter().any(|line| line.contains("checksum")), "the forged checksum is right");
        // The same without knowing how checksums are made.
        let books = Books::agreeing();
        let sql = format!(
            "INSERT INTO usage_records (tenant, meter, source, id, subject, quantity, time, dimensions, partition,
                offset, idx, verdict, reason, append_time, row_hash)
             SELECT tenant, meter, source, id, subject, quantity, time, dimensions, partition, {offset}, {index},
                verdict, reason, append_time, row_hash
             FROM usage_records WHERE (partition, offset, idx) = (0, 1, 0)"
        );
        books.tamper("raw", &sql, 1);
        let lines = books.lines();
        names(&lines, &["row", &place, "its checksum is"]);
        names(&lines, &["was accepted 2 times", &place]);
    }
}

#[test]
fn an_inserted_row_beyond_the_cursor_is_named() {
    for (partition, cursor) in [(0, 6), (1, 3), (7, 0)] {
        let books = Books::agreeing();
        books.forge(&copy_of_first(&books, Position { partition, offset: cursor, index: 0 }));
        let expected = format!(
            "extra row {partition}/{cursor}/0: partition {partition} has been written up to offset {cursor} only"
        );
        names(&books.lines(), &[&expected]);
    }
    let books = Books::agreeing();
    books.tamper(
        "raw",
        "INSERT INTO rejected_envelopes SELECT partition, 99, append_time, reason, bytes FROM rejected_envelopes",
        1,
    );
    names(&books.lines(), &["extra rejected envelope 0/99/0"]);
}

#[test]
fn a_row_in_a_wrong_partition_or_without_total_is_named() {
    let books = Books::agreeing();
    let row = copy_of_first(&books, Position { partition: 1, offset: 2, index: 1 });
    books.forge(&row);
    names(&books.lines(), &["row 1/2/1", "belongs to partition 0"]);
    let books = Books::agreeing();
    let first = copy_of_first(&books, Position { partition: 0, offset: 2, index: 1 });
    books.forge(&OwnedRow { tenant: "stranger".to_owned(), id: "new".to_owned(), ..first });
    names(&books.lines(), &["row 0/2/1", "no total of tenant stranger, meter sum holds its time 2023-11-16T00:00:00Z"]);
}

#[test]
fn every_changed_column_of_a_total_is_named() {
    let of = format!("tenant = '{}' AND meter = 'sum' AND period_start < 1701388800000", tenant(0));
    let changes = [
        ("quantity = '6'", vec!["quantity is 6, the raw rows give 5"]),
        ("sum = '6'", vec!["sum is 6, the raw rows give 5"]),
        ("records = records + 1", vec!["records is 2, the raw rows give 1"]),
        ("digest = '00000000000000000000000000000001'", vec!["digest is 00000000000000000000000000000001"]),
        ("state = x'01'", vec!["state is 1 bytes 0x01"]),
        ("period_start = period_end - 1", vec!["no total of", "meter sum"]),
        ("period_end = period_start + 1", vec!["no total of", "meter sum"]),
        ("period_end = period_end + 1", vec!["overlaps"]),
        ("tenant = 'other'", vec!["no total of", "meter sum"]),
        ("meter = 'other'", vec!["total of", "meter other", "records is 1, the raw rows give 0"]),
        ("aggregation = 'count'", vec!["quantity is 5, the raw rows give 1"]),
    ];
    for (change, parts) in changes {
        let books = Books::agreeing();
        books.tamper("totals", &format!("UPDATE period_totals SET {change} WHERE {of}"), 1);
        names(&books.lines(), &parts);
    }
    let books = Books::agreeing();
    books.tamper("totals", &format!("DELETE FROM period_totals WHERE {of}"), 1);
    names(&books.lines(), &["row 0/1/0: no total of", "meter sum"]);
    let books = Books::agreeing();
    books.tamper("totals", "UPDATE partitions SET late = late + 1 WHERE partition = 0", 1);
    names(&books.lines(), &["partition 0: late is 2 in the totals book, the raw rows give 1"]);
}

#[test]
fn a_changed_rollup_is_named() {
    let changes = [
        ("records = records + 1", "rollups of", "records is 2, the raw rows give 1"),
        ("sum = '10'", "rollups of", "sum is 10, the raw rows give 9"),
        ("quantity = '10'", "rollup of", "its quantity is 10, its records give 9"),
        ("state = x'01'", "rollup of", "does not fit"),
        ("window_start = window_start + 1", "rollup of", "does not start where a minute starts"),
        ("window_start = window_start + 60000", "rollups of", "spread over minutes"),
        ("meter = 'min'", "rollups of", "records is 0, the raw rows give 1"),
        ("sum = 'x'", "usage_rollups", "column sum"),
    ];
    for (change, table, problem) in changes {
        let books = Books::agreeing();
        books.tamper("raw", &format!("UPDATE usage_rollups SET {change} WHERE meter = 'max'"), 1);
        names(&books.lines(), &[table, problem]);
    }
    let books = Books::agreeing();
    books.tamper("raw", "DELETE FROM usage_rollups WHERE meter = 'max'", 1);
    names(&books.lines(), &["rollups of", "records is 0, the raw rows give 1"]);
}

#[test]
fn a_scope_sees_only_its_own_differences() {
    let books = Books::agreeing();
    books.tamper("raw", "UPDATE usage_records SET quantity = 1 WHERE (partition, offset, idx) = (1, 1, 0)", 1);
    let scope = |tenant, period| VerifyScope { tenant, period };
    let count = |scope: &VerifyScope| books.findings(scope).difference_count;
    assert_eq!(count(&scope(Some(tenant(0)), None)), 0);
    assert_ne!(count(&scope(Some(tenant(1)), None)), 0);
    assert_ne!(count(&scope(None, parse_month("2023-11"))), 0);
}

#[test]
fn differences_are_bounded_and_all_counted() {
    let mut differences = Differences::default();
    for partition in 0..2000 {
        differences.push(|| Difference::Count { partition, verdict: "late", total: 1, raw: 2 });
    }
    assert_eq!((differences.kept.len(), differences.count), (DIFFERENCES_KEPT_MAX, 2000));
}
