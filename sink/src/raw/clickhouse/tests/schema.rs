use super::*;
use crate::testing::{batch, exceptions, gatherer};

#[test]
fn a_book_is_made_once_and_never_by_opening_it() {
    let database = Database::missing();
    let missing = ClickHouseRaw::connect(&database.0).unwrap_err();
    assert!(missing.to_string().ends_with("run `odometer migrate` first"), "{missing}");
    assert!(!missing.is_retryable());
    for _ in 0..2 {
        database.migrate(TableOptions::default()).unwrap();
        database.book().write(&batch(&mut gatherer(1), &[one(0)])).unwrap();
    }
    assert_eq!(database.answers("SELECT count() AS answer FROM usage_records"), ["1"]);
}

#[test]
fn a_newer_schema_is_refused() {
    let database = Database::fresh();
    database.run("INSERT INTO schema_versions VALUES (99)");
    let refused = [ClickHouseRaw::connect(&database.0).map(drop), database.migrate(TableOptions::default())];
    for error in refused.map(Result::unwrap_err) {
        assert!(
            error.to_string().contains("has schema version 99, this build knows 3; use the newer build"),
            "{error}"
        );
    }
}

#[test]
fn a_lifetime_is_set_changed_and_taken_away() {
    let database = Database::fresh();
    let lifetime = || {
        let made = "SELECT extract(engine_full, 'toIntervalDay\\\\(([0-9]+)\\\\)') AS answer FROM system.tables
             WHERE database = currentDatabase() AND name IN ('usage_records', 'rejected_envelopes') ORDER BY name";
        database.answers(made)
    };
    for (days, expected) in [(None, ""), (Some(30), "30"), (Some(30), "30"), (Some(7), "7"), (None, "")] {
        database.migrate(TableOptions { ttl_days: days, ..TableOptions::default() }).unwrap();
        assert_eq!(lifetime(), [expected; 2]);
    }
}

#[test]
fn analysts_read_by_the_documented_names() {
    let database = Database::fresh();
    let mut gatherer = gatherer(1);
    let accepted = entry(0, 0, &[record("t", "sum", "a", 5, 0), record("t", "avg", "b", -7, 0)]);
    let mixed = entry(0, 1, &[record("t", "sum", "c", 6, 60_000), record("t", "avg", "b", -8, 0)]);
    let verdicts = [odometer_schemas::verdict::Verdict::Late, odometer_schemas::verdict::Verdict::Accepted];
    gatherer.feed(&accepted, None).unwrap();
    gatherer.feed(&mixed, Some(&exceptions(1, &verdicts))).unwrap();
    database.book().write(&gatherer.take().unwrap().unwrap()).unwrap();
    let columns = "tenant, meter, source, id, subject, quantity, time, dimensions, partition, offset, idx, verdict,
        reason, append_time, row_hash";
    let copy = format!("INSERT INTO usage_records ({columns}) SELECT {columns} FROM usage_records");
    let expected = [
        ("SELECT count() AS answer FROM usage", "3"),
        ("SELECT time AS answer FROM usage WHERE id = 'a'", "2023-11-16 00:00:00.000"),
        ("SELECT quantity AS answer FROM usage_by_minute WHERE meter = 'sum'", "5"),
        ("SELECT window_start AS answer FROM usage_by_minute WHERE meter = 'sum'", "2023-11-16 00:00:00.000"),
        ("SELECT records AS answer FROM usage_by_hour WHERE meter = 'avg'", "2"),
        // -7.5 is rounded away from zero, as in the totals.
        ("SELECT quantity AS answer FROM usage_by_day WHERE meter = 'avg'", "-8"),
    ];
    // The second time, everything is there twice.
    for _ in 0..2 {
        for (sql, answer) in expected {
            assert_eq!(database.answers(sql), [answer], "{sql}");
        }
        database.run("INSERT INTO usage_rollups SELECT * FROM usage_rollups");
        database.run(&copy);
    }
}

#[test]
fn windows_are_exact_beyond_64_bits_and_to_the_last_year() {
    let database = Database::fresh();
    let mut gatherer = gatherer(1);
    // 2199-12-31T23:59:59.999Z
    let last = odometer_schemas::limits::TIME_MS_MAX - 1 - crate::testing::DAY_START;
    let names = ["sum", "count", "min", "max", "avg", "latest", "unique_count"];
    let record = |name: &str, id: &str, quantity| odometer_schemas::record::Record {
        subject: Some("s".to_owned()),
        ..record("t", name, id, quantity, last)
    };
    let sent: Vec<_> =
        names.iter().flat_map(|name| [record(name, "1", i64::MAX), record(name, "2", i64::MAX)]).collect();
    // In two ranges, so that the view adds up.
    let sent = [entry(0, 0, &sent), entry(0, crate::raw::RANGE_OFFSETS, &sent)];
    database.book().write(&batch(&mut gatherer, &sent)).unwrap();
    let most = i64::MAX.to_string();
    let expected = [&(4 * i128::from(i64::MAX)).to_string(), "4", &most, &most, &most, "NULL", "NULL"];
    for (view, start) in [("minute", "23:59"), ("hour", "23:00"), ("day", "00:00")] {
        for (name, quantity) in names.iter().zip(expected) {
            let of = |column| format!("SELECT {column} AS answer FROM usage_by_{view} WHERE meter = '{name}'");
            assert_eq!(database.answers(&of("quantity")), [quantity], "{name} by {view}");
            assert_eq!(database.answers(&of("window_start")), [format!("2199-12-31 {start}:00.000")]);
        }
    }
}
