use odometer_schemas::time::DAY_MS;

use super::*;
use crate::testing::{batch, exceptions, gatherer, log_entry};
use odometer_schemas::verdict::{RejectReason, Verdict};

/// Rows, rollups and an undecodable entry.
fn mixed() -> RawBatch {
    let mut gatherer = gatherer(2);
    let reason = exceptions(3, &[Verdict::Rejected(RejectReason::NotAnEnvelope)]);
    gatherer.feed(&log_entry(1, 3, vec![0, 255, 7]), Some(&reason)).unwrap();
    batch(&mut gatherer, &[one(0), one(1), one(700)])
}

/// What the engine holds, copies counted, and where the cursors stand.
fn held(database: &Database) -> [String; 4] {
    let counts = ["usage_records", "usage_rollups", "rejected_envelopes"]
        .map(|table| database.answers(&format!("SELECT count() AS answer FROM {table}")).remove(0));
    let cursors = "SELECT arrayStringConcat(groupArray(concat(toString(partition), ':', toString(next_offset))), ' ')
        AS answer FROM (SELECT partition, max(next_offset) AS next_offset FROM cursors GROUP BY partition ORDER BY partition)";
    let [records, rollups, rejected] = counts;
    [records, rollups, rejected, database.answers(cursors).remove(0)]
}

/// Merges would make the numbers of copies a matter of luck.
fn without_merges() -> Database {
    let database = Database::fresh();
    database.run(&format!("SYSTEM STOP MERGES {}.usage_records", database.0.database));
    database.run(&format!("SYSTEM STOP MERGES {}.usage_rollups", database.0.database));
    database
}

#[test]
fn an_attempt_that_may_have_arrived_is_not_sent_again() {
    let database = without_merges();
    let (mut book, batch) = (database.book(), mixed());
    for block in pieces::records(&batch) {
        book.link.insert("writing", "usage_records", block).unwrap();
    }
    book.doubtful = true;
    book.write(&batch).unwrap();
    assert!(!book.doubtful);
    assert_eq!(held(&database), ["3", "1", "1", "0:701 1:4"]);
}

#[test]
fn an_attempt_that_nobody_remembers_does_no_harm() {
    let database = without_merges();
    let (mut book, batch) = (database.book(), mixed());
    let (rollups, _) = pieces::rollups(&batch);
    for block in pieces::records(&batch).into_iter().cycle().take(2) {
        book.link.insert("writing", "usage_records", block).unwrap();
    }
    book.link.insert("writing", "usage_rollups", rollups).unwrap();
    book.write(&batch).unwrap();
    assert_eq!(held(&database), ["9", "2", "1", "0:701 1:4"]);
    assert_eq!(book.records(&of_tenant("t")).unwrap().len(), 3);
    assert_eq!(database.answers("SELECT sum(records) AS answer FROM usage_by_day"), ["3"]);
}

#[test]
fn a_cursor_stays_until_the_engine_holds_what_it_took() {
    for table in ["usage_records", "usage_rollups", "rejected_envelopes"] {
        let database = Database::fresh();
        let mut book = database.book();
        // An engine that takes everything and keeps nothing.
        database.run(&format!("CREATE TABLE lost AS {table} ENGINE = Null"));
        database.run(&format!("EXCHANGE TABLES {table} AND lost"));
        let error = book.write(&mixed()).unwrap_err();
        assert!(error.is_retryable(), "{error}");
        let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        assert!(cause.contains(&format!("for {table}, and holds 0 there")), "{cause}");
        assert_eq!(book.cursors().unwrap(), []);
        database.run(&format!("EXCHANGE TABLES {table} AND lost"));
        book.write(&mixed()).unwrap();
        assert_eq!(book.cursors().unwrap().len(), 2);
    }
}

#[test]
fn a_row_that_does_not_belong_stops_the_cursor() {
    let database = Database::fresh();
    let mut book = database.book();
    book.link.insert("writing", "usage_records", pieces::records(&mixed()).remove(0)).unwrap();
    database.run("INSERT INTO usage_records SELECT * REPLACE (9 AS idx) FROM usage_records LIMIT 1");
    let error = book.write(&mixed()).unwrap_err();
    assert!(error.is_retryable(), "{error}");
    assert_eq!(book.cursors().unwrap(), []);
}

#[test]
fn a_batch_touches_one_part_per_month_of_appending() {
    let database = Database::fresh();
    let month = u64::try_from(30 * DAY_MS).unwrap();
    let old = |offset, days: i64| entry(0, offset, &[record("t", "sum", &format!("id-{offset}"), 1, -days * DAY_MS)]);
    let sent = [old(0, 0), old(1, 400), old(2, 8000), old(month, 1), one(month + 1)];
    let batch = batch(&mut gatherer(1), &sent);
    assert_eq!(pieces::records(&batch).len(), 2);
    database.book().write(&batch).unwrap();
    let parts = "SELECT partition AS answer FROM system.parts
        WHERE database = currentDatabase() AND table = 'usage_records' AND active ORDER BY answer";
    assert_eq!(database.answers(parts), ["202311", "202312"]);
    assert_eq!(database.book().records(&of_tenant("t")).unwrap().len(), 5);
}

#[test]
fn dictionaries_of_every_width_come_back() {
    let database = Database::fresh();
    let mut gatherer = gatherer(1);
    let mut offset = 0;
    for texts in [300, 70_000] {
        let from = offset;
        let mut numbers = (0..texts).peekable();
        while numbers.peek().is_some() {
            let one = |n: i32| odometer_schemas::record::Record {
                subject: (n % 7 > 0).then(|| format!("subject-{n}")),
                ..record("t", "count", &n.to_string(), i64::from(n), 0)
            };
            let records: Vec<_> = numbers.by_ref().take(500).map(one).collect();
            gatherer.feed(&entry(0, offset, &records), None).unwrap();
            offset += 1;
        }
        let batch = gatherer.take().unwrap().unwrap();
        database.book().write(&batch).unwrap();
        let wrong = format!(
            "SELECT countIf(ifNull(subject, '') != if(quantity % 7 > 0, concat('subject-', toString(quantity)), ''))
                 AS answer FROM usage_records WHERE offset >= {from}"
        );
        assert_eq!(database.answers(&wrong), ["0"]);
        assert_eq!(
            database.answers(&wrong.replace("countIf", "uniqExact(subject) + countIf")),
            [(texts - (texts + 6) / 7).to_string()]
        );
    }
}
