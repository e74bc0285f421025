//! What every raw book must do, whatever keeps it. Each body gets a storage of its own
//! and may open it as often as it likes.

use std::ops::ControlFlow;

use odometer_schemas::log::{LogEntry, Position};
use odometer_schemas::record::Record;
use odometer_schemas::row::RawRow;
use odometer_schemas::time::{DAY_MS, HOUR_MS, MINUTE_MS, TimeMs};
use odometer_schemas::verdict::{RejectReason, Verdict};

use super::{
    OwnedRow, RANGE_OFFSETS, RawBatch, RawBook, RawCursor, RawVisitor, RecordFilter, RejectedEnvelope, RejectedFilter,
    RollupRow, Scanned, UsageQuery, UsageRow, UsageWindow,
};
use crate::error::BookError;
use crate::testing::{DAY_START, HASHER, batch, definitions, entry, exceptions, gatherer, log_entry, of_model, record};

/// One empty storage. Opening it again finds what was left there.
pub trait Storage {
    /// Another handle on the same storage.
    fn open(&mut self) -> Box<dyn RawBook>;
}

/// A test body.
pub type Body = fn(&mut dyn Storage);

/// All bodies by name. Run each on a fresh storage.
pub const BODIES: [(&str, Body); 12] = [
    ("cursors move with their rows", cursors_move_with_rows),
    ("a batch written twice is there once", a_repeated_batch_is_there_once),
    ("a batch from elsewhere is refused whole", a_batch_from_elsewhere_is_refused),
    ("every column comes back", every_column_comes_back),
    ("records are filtered", records_are_filtered),
    ("records are paged in log order", records_are_paged),
    ("undecodable entries are kept whole", undecodable_entries_are_kept),
    ("a range that grows replaces itself", a_growing_range_replaces_itself),
    ("usage is cut into windows", usage_is_cut_into_windows),
    ("usage is grouped", usage_is_grouped),
    ("every aggregation is merged exactly", aggregations_are_merged),
    ("a scan shows everything once", a_scan_shows_everything),
];

/// Runs every body on a storage that `fresh` makes.
pub fn run<S: Storage>(mut fresh: impl FnMut() -> S) {
    for (name, body) in BODIES {
        println!("raw book: {name}");
        body(&mut fresh());
    }
}

fn write(book: &mut dyn RawBook, batch: &RawBatch) {
    book.write(batch).expect("the batch can be written");
}

fn records(book: &mut dyn RawBook, filter: &RecordFilter) -> Vec<OwnedRow> {
    book.records(filter).expect("records can be read")
}

fn of_tenant(tenant: &str) -> RecordFilter {
    RecordFilter { tenant: tenant.to_owned(), limit: 100, ..RecordFilter::default() }
}

fn ids(rows: &[OwnedRow]) -> Vec<&str> {
    rows.iter().map(|row| row.id.as_str()).collect()
}

fn cursor(partition: u32, next_offset: u64) -> RawCursor {
    RawCursor { partition, next_offset }
}

fn cursors(book: &mut dyn RawBook) -> Vec<RawCursor> {
    book.cursors().expect("cursors can be read")
}

/// `n` entries of one record each, from `offset` on.
fn entries(partition: u32, offset: u64, n: u64) -> Vec<LogEntry> {
    let one = |offset: u64| {
        let ms = i64::try_from(offset).expect("a small offset");
        entry(partition, offset, &[record("t", "sum", &format!("{partition}-{offset}"), 1, ms)])
    };
    (offset..offset + n).map(one).collect()
}

fn cursors_move_with_rows(storage: &mut dyn Storage) {
    let mut book = storage.open();
    assert_eq!(cursors(&mut *book), []);
    let mut gatherer = gatherer(3);
    write(&mut *book, &batch(&mut gatherer, &[entries(1, 0, 2), entries(0, 5, 1)].concat()));
    drop(book);
    let mut book = storage.open();
    assert_eq!(cursors(&mut *book), [cursor(0, 6), cursor(1, 2)]);
    assert_eq!(ids(&records(&mut *book, &of_tenant("t"))), ["0-5", "1-0", "1-1"]);
    // Offsets without entries are passed over as well.
    gatherer.advance(0, 9);
    write(&mut *book, &batch(&mut gatherer, &[]));
    assert_eq!(cursors(&mut *book), [cursor(0, 9), cursor(1, 2)]);
}

fn a_repeated_batch_is_there_once(storage: &mut dyn Storage) {
    let mut book = storage.open();
    let mut gatherer = gatherer(2);
    let first = batch(&mut gatherer, &[entries(0, 0, 3), entries(1, 0, 3)].concat());
    write(&mut *book, &first);
    drop(book);
    let mut book = storage.open();
    write(&mut *book, &first);
    assert_eq!(records(&mut *book, &of_tenant("t")).len(), 6);
    assert_eq!(usage(&mut *book, &day("t", "sum"))[0].records, 6);
}

fn a_batch_from_elsewhere_is_refused(storage: &mut dyn Storage) {
    let mut book = storage.open();
    let mut gatherer = gatherer(2);
    write(&mut *book, &batch(&mut gatherer, &entries(1, 0, 3)));
    let skipped = batch(&mut gatherer, &[entries(0, 0, 1), entries(1, 3, 1)].concat());
    let ahead = batch(&mut gatherer, &[entries(0, 1, 1), entries(1, 4, 1)].concat());
    let refused = book.write(&ahead).expect_err("the cursors are not there");
    assert!(matches!(refused, BookError::CursorMoved { partition: 0, expected: 1, found: 0 }), "{refused}");
    assert!(!refused.is_retryable());
    // One partition is where the batch starts, the other is not.
    let mut other = crate::testing::gatherer(2);
    let half = batch(&mut other, &[entries(0, 0, 1), entries(1, 0, 1)].concat());
    assert!(book.write(&half).is_err());
    // One partition is where the batch ends, the other is where it starts.
    let mut other = crate::testing::gatherer(2);
    let half = batch(&mut other, &[entries(0, 0, 1), entries(1, 0, 3)].concat());
    assert!(book.write(&half).is_err());
    assert_eq!(cursors(&mut *book), [cursor(1, 3)]);
    assert_eq!(records(&mut *book, &of_tenant("t")).len(), 3);
    assert_eq!(usage(&mut *book, &day("t", "sum"))[0].records, 3);
    write(&mut *book, &skipped);
    write(&mut *book, &ahead);
    assert_eq!(cursors(&mut *book), [cursor(0, 2), cursor(1, 5)]);
}

fn every_column_comes_back(storage: &mut dyn Storage) {
    let mut book = storage.open();
    let mut gatherer = gatherer(1);
    let full = Record {
        subject: Some("ü'\"\u{10ffff}".to_owned()),
        dimensions: vec![("a".to_owned(), "\"\\".to_owned()), ("model".to_owned(), "é".to_owned())],
        reservation: Some("r".to_owned()),
        ..record("t", "max", "6f9619ff-8b86-4d01-b42d-00cf4fc964ff", i64::MAX, -1)
    };
    let emitted = Record { id: None, time: None, ..record("t", "min", "", i64::MIN, 0) };
    let sent = entry(0, 4, &[full.clone(), emitted.clone(), full.clone()]);
    let verdicts = [Verdict::Accepted, Verdict::Accepted, Verdict::Rejected(RejectReason::WrongPartition)];
    gatherer.feed(&sent, Some(&exceptions(4, &verdicts))).expect("a good entry");
    let batch = gatherer.take().expect("a good batch").expect("cursors move");
    write(&mut *book, &batch);
    drop(book);
    let found = records(&mut *storage.open(), &of_tenant("t"));
    let expected: Vec<OwnedRow> = batch.rows().map(|(row, _)| OwnedRow::from(&row)).collect();
    assert_eq!(found, expected);
    assert_eq!(found[0].id, full.id.unwrap_or_default());
    assert_eq!(found[0].dimensions, "{\"a\":\"\\\"\\\\\",\"model\":\"é\"}");
    assert_eq!((&found[0].subject, &found[0].reservation), (&full.subject, &full.reservation));
    assert_eq!((found[1].quantity, found[1].time, found[1].time_given), (i64::MIN, sent.append_time, false));
    assert_eq!((found[1].id.as_str(), found[1].id_emitted), ("00000000000000000000000000000abc-3-4001", true));
    assert_eq!((found[2].verdict, found[2].envelope_records), (verdicts[2], 3));
    assert_eq!(found[2].position, Position { partition: 0, offset: 4, index: 2 });
}

fn records_are_filtered(storage: &mut dyn Storage) {
    let mut book = storage.open();
    let mut gatherer = gatherer(1);
    let other_source = Record { source: "other".to_owned(), ..record("t", "sum", "a", 1, 30) };
    let sent = [
        entry(0, 0, &[record("t", "sum", "a", 1, 10), record("t", "max", "a", 1, 20), other_source]),
        entry(0, 1, &[record("t", "sum", "b", 1, 40), record("u", "sum", "a", 1, 10)]),
        entry(0, 200, &[record("t", "sum", "a", 1, 10)]),
    ];
    gatherer.feed(&sent[0], None).expect("a good entry");
    gatherer.feed(&sent[1], None).expect("a good entry");
    gatherer.feed(&sent[2], Some(&exceptions(200, &[Verdict::Duplicate]))).expect("a good entry");
    write(&mut *book, &gatherer.take().expect("a good batch").expect("cursors move"));
    let all = of_tenant("t");
    let text = |text: &str| Some(text.to_owned());
    let at = |ms| Some(TimeMs(DAY_START + ms));
    let cases = [
        (all.clone(), vec![(0, 0), (0, 1), (0, 2), (1, 0), (200, 0)]),
        (RecordFilter { id: text("a"), ..all.clone() }, vec![(0, 0), (0, 1), (0, 2), (200, 0)]),
        (RecordFilter { id: text("c"), ..all.clone() }, vec![]),
        (RecordFilter { source: text("other"), ..all.clone() }, vec![(0, 2)]),
        (RecordFilter { meter: text("max"), ..all.clone() }, vec![(0, 1)]),
        (RecordFilter { from: at(20), to: at(40), ..all.clone() }, vec![(0, 1), (0, 2)]),
        (RecordFilter { from: at(41), ..all.clone() }, vec![]),
        (RecordFilter { verdict: text("duplicate"), ..all.clone() }, vec![(200, 0)]),
        (RecordFilter { limit: 0, ..all }, vec![]),
        (of_tenant("u"), vec![(1, 1)]),
        (of_tenant("v"), vec![]),
    ];
    for (filter, expected) in cases {
        let found = records(&mut *book, &filter);
        let found: Vec<(u64, u16)> = found.iter().map(|row| (row.position.offset, row.position.index)).collect();
        assert_eq!(found, expected, "{filter:?}");
    }
}

fn records_are_paged(storage: &mut dyn Storage) {
    let mut book = storage.open();
    let mut gatherer = gatherer(2);
    // Written in parts, so that blocks and batches do not coincide.
    for part in [entries(0, 0, 70), entries(1, 100, 70), entries(0, 70, 70)] {
        write(&mut *book, &batch(&mut gatherer, &part));
    }
    let mut filter = RecordFilter { limit: 9, ..of_tenant("t") };
    let mut positions = Vec::new();
    loop {
        let page = records(&mut *book, &filter);
        assert!(page.len() <= 9);
        let Some(last) = page.last() else { break };
        filter.after = Some(last.position);
        positions.extend(page.iter().map(|row| (row.position.partition, row.position.offset)));
    }
    let expected: Vec<(u32, u64)> = (0..140).map(|n| (0, n)).chain((100..170).map(|n| (1, n))).collect();
    assert_eq!(positions, expected);
}

fn undecodable_entries_are_kept(storage: &mut dyn Storage) {
    let mut book = storage.open();
    let mut gatherer = gatherer(2);
    let reason = |reason| [Verdict::Rejected(reason)];
    let sent = [
        (log_entry(0, 3, vec![0; 100_000]), reason(RejectReason::EnvelopeTooLarge)),
        (log_entry(0, 7, b"not an envelope".to_vec()), reason(RejectReason::NotAnEnvelope)),
        (log_entry(1, 0, Vec::new()), reason(RejectReason::Truncated)),
    ];
    for (entry, verdicts) in &sent {
        gatherer.feed(entry, Some(&exceptions(entry.offset, verdicts))).expect("a rejected entry");
    }
    write(&mut *book, &gatherer.take().expect("a good batch").expect("cursors move"));
    let whole = |(entry, [verdict]): &(LogEntry, [Verdict; 1])| RejectedEnvelope {
        partition: entry.partition,
        offset: entry.offset,
        append_time: entry.append_time,
        verdict: *verdict,
        bytes: entry.bytes.to_vec(),
    };
    let expected: Vec<RejectedEnvelope> = sent.iter().map(whole).collect();
    let mut read = |filter: RejectedFilter| book.rejected(&filter).expect("entries can be read");
    let all = RejectedFilter { limit: 10, ..RejectedFilter::default() };
    assert_eq!(read(all), expected);
    assert_eq!(read(RejectedFilter { partition: Some(1), ..all }), expected[2..]);
    assert_eq!(read(RejectedFilter { after: Some((0, 3)), limit: 1, ..all }), expected[1..2]);
    assert_eq!(cursors(&mut *book), [cursor(0, 8), cursor(1, 1)]);
}

fn usage(book: &mut dyn RawBook, query: &UsageQuery) -> Vec<UsageRow> {
    book.usage(query).expect("usage can be read")
}

fn day(tenant: &str, meter: &str) -> UsageQuery {
    UsageQuery {
        tenant: Some(tenant.to_owned()),
        meter: meter.to_owned(),
        from: TimeMs(DAY_START),
        to: TimeMs(DAY_START + DAY_MS),
        window: UsageWindow::Day,
        group_by: None,
    }
}

fn a_growing_range_replaces_itself(storage: &mut dyn Storage) {
    let mut book = storage.open();
    let first = RANGE_OFFSETS - 3;
    let mut gatherer = gatherer(1);
    gatherer.advance(0, first);
    // Three batches in one range, the last of which reaches into the next one.
    write(&mut *book, &batch(&mut gatherer, &entries(0, first, 1)));
    write(&mut *book, &batch(&mut gatherer, &entries(0, first + 1, 1)));
    write(&mut *book, &batch(&mut gatherer, &entries(0, first + 2, 3)));
    let total = |book: &mut dyn RawBook| usage(book, &day("t", "sum"))[0].records;
    assert_eq!(total(&mut *book), 5);
    // A new writer rebuilds the open range from the log.
    let mut restarted = super::RawGatherer::new(HASHER);
    let start = restarted.open(0, first + 5, Some(definitions()));
    assert_eq!(start, RANGE_OFFSETS);
    write(&mut *book, &batch(&mut restarted, &entries(0, start, 4)));
    assert_eq!(total(&mut *book), 7);
    assert_eq!(records(&mut *book, &of_tenant("t")).len(), 7);
}

fn usage_is_cut_into_windows(storage: &mut dyn Storage) {
    let mut book = storage.open();
    let mut gatherer = gatherer(1);
    // The sixteenth of November; the last one is in December. The second batch is late.
    let one = |offset, tenant: &str, ms| entry(0, offset, &[record(tenant, "sum", "id", 10, ms)]);
    let sent = [one(0, "t", 0), one(1, "t", MINUTE_MS), one(2, "t", HOUR_MS), one(3, "t", 15 * DAY_MS)];
    write(&mut *book, &batch(&mut gatherer, &sent));
    let late = [one(4, "t", MINUTE_MS - 1), one(5, "t", -1), one(6, "u", 0)];
    write(&mut *book, &batch(&mut gatherer, &late));
    let ask = |window, from, to| UsageQuery {
        from: TimeMs(DAY_START + from),
        to: TimeMs(DAY_START + to),
        window,
        ..day("t", "sum")
    };
    let month = |days: i64| (days - 15) * DAY_MS;
    let cases = [
        (ask(UsageWindow::Minute, 0, 2 * MINUTE_MS), vec![(0, MINUTE_MS, 20), (MINUTE_MS, 2 * MINUTE_MS, 10)]),
        (ask(UsageWindow::Minute, 1, MINUTE_MS), vec![(0, MINUTE_MS, 20)]),
        (ask(UsageWindow::Minute, 0, 0), vec![]),
        (ask(UsageWindow::Minute, 5, 1), vec![]),
        (UsageQuery { from: TimeMs(i64::MIN), to: TimeMs(i64::MAX), ..day("u", "sum") }, vec![(0, DAY_MS, 10)]),
        (ask(UsageWindow::Hour, 0, DAY_MS), vec![(0, HOUR_MS, 30), (HOUR_MS, 2 * HOUR_MS, 10)]),
        (ask(UsageWindow::Hour, -HOUR_MS, 1), vec![(-HOUR_MS, 0, 10), (0, HOUR_MS, 30)]),
        (ask(UsageWindow::Day, -DAY_MS, DAY_MS), vec![(-DAY_MS, 0, 10), (0, DAY_MS, 40)]),
        (ask(UsageWindow::Month, 0, 1), vec![(month(0), month(30), 50)]),
        (ask(UsageWindow::Month, 0, 20 * DAY_MS), vec![(month(0), month(30), 50), (month(30), month(61), 10)]),
        (UsageQuery { tenant: None, ..day("", "sum") }, vec![(0, DAY_MS, 50)]),
        (day("t", "max"), vec![]),
        (day("v", "sum"), vec![]),
    ];
    for (query, expected) in cases {
        let found: Vec<(i64, i64, i128)> = usage(&mut *book, &query)
            .iter()
            .map(|row| (row.window_start.0 - DAY_START, row.window_end.0 - DAY_START, row.quantity))
            .collect();
        assert_eq!(found, expected, "{query:?}");
    }
}

fn usage_is_grouped(storage: &mut dyn Storage) {
    let mut book = storage.open();
    let mut gatherer = gatherer(1);
    let one = |id, quantity| record("t", "sum", id, quantity, 0);
    let more = Record {
        dimensions: vec![("dropped".to_owned(), "x".to_owned()), ("model".to_owned(), "a".to_owned())],
        ..one("3", 4)
    };
    let sent = [of_model(one("1", 1), "a"), of_model(one("2", 2), "b"), more, one("4", 8)];
    let plain = of_model(record("t", "plain", "5", 1, 0), "a");
    write(&mut *book, &batch(&mut gatherer, &[entry(0, 0, &sent), entry(0, 1, &[plain])]));
    let mut groups = |meter, name: Option<&str>| {
        let query = UsageQuery { group_by: name.map(str::to_owned), ..day("t", meter) };
        let rows = usage(&mut *book, &query);
        rows.into_iter().map(|row| (row.group, row.quantity, row.records)).collect::<Vec<_>>()
    };
    let of = |name: &str| Some(name.to_owned());
    assert_eq!(groups("sum", None), [(None, 15, 4)]);
    assert_eq!(groups("sum", Some("model")), [(None, 8, 1), (of("a"), 5, 2), (of("b"), 2, 1)]);
    assert_eq!(groups("sum", Some("dropped")), [(None, 15, 4)], "only kept dimensions are in rollups");
    assert_eq!(groups("plain", Some("model")), [(None, 1, 1)]);
}

fn aggregations_are_merged(storage: &mut dyn Storage) {
    let mut book = storage.open();
    let mut gatherer = gatherer(1);
    let names = ["sum", "count", "min", "max", "avg", "latest", "unique_count"];
    let quantities = [i64::MAX, i64::MAX, 5, i64::MAX, -4];
    // Each in a range of its own, so that rows must be merged when they are read.
    for (offset, quantity) in (0..).step_by(usize::try_from(RANGE_OFFSETS).expect("it fits")).zip(quantities) {
        let ms = if quantity == 5 { 2 } else { 1 };
        let subject = Some(quantity.to_string());
        let one = |name: &&str| Record { subject: subject.clone(), ..record("t", name, "id", quantity, ms) };
        write(&mut *book, &batch(&mut gatherer, &[entry(0, offset, &names.map(|name| one(&name)))]));
    }
    let sum = 3 * i128::from(i64::MAX) + 1;
    let average = odometer_schemas::quantity::div_round_half_up(sum, 5);
    let expected = [sum, 5, -4, i128::from(i64::MAX), average, 5, 3];
    for (name, quantity) in names.into_iter().zip(expected) {
        let rows = usage(&mut *book, &day("t", name));
        assert_eq!((rows[0].quantity, rows[0].sum, rows[0].records), (quantity, sum, 5), "{name}");
    }
}

/// Notes what a scan shows.
#[derive(Default)]
struct Seen {
    cursors: Vec<RawCursor>,
    rows: Vec<(OwnedRow, u64)>,
    rejected: Vec<(u32, u64)>,
    rollup_records: u64,
    stop: bool,
}

impl RawVisitor for Seen {
    fn cursors(&mut self, cursors: &[RawCursor]) -> ControlFlow<()> {
        self.cursors = cursors.to_vec();
        if self.stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn row(&mut self, row: Scanned<'_, RawRow<'_>>, stored_hash: u64) {
        if let Scanned::Row(row) = row {
            self.rows.push((OwnedRow::from(row), stored_hash));
        }
    }

    fn rejected(&mut self, envelope: Scanned<'_, RejectedEnvelope>) {
        if let Scanned::Row(envelope) = envelope {
            self.rejected.push((envelope.partition, envelope.offset));
        }
    }

    fn rollup(&mut self, rollup: Scanned<'_, RollupRow<'_>>) {
        if let Scanned::Row(rollup) = rollup {
            self.rollup_records += rollup.records;
        }
    }
}

fn a_scan_shows_everything(storage: &mut dyn Storage) {
    let mut book = storage.open();
    let mut gatherer = gatherer(2);
    let reason = exceptions(3, &[Verdict::Rejected(RejectReason::NotAnEnvelope)]);
    gatherer.feed(&log_entry(1, 3, vec![1]), Some(&reason)).expect("a rejected entry");
    let batch = batch(&mut gatherer, &[entries(1, 4, 3), entries(0, 0, 3)].concat());
    write(&mut *book, &batch);
    let mut seen = Seen::default();
    book.scan(&mut seen).expect("the book can be scanned");
    let expected: Vec<(OwnedRow, u64)> = batch.rows().map(|(row, hash)| (OwnedRow::from(&row), hash)).collect();
    assert_eq!(seen.rows, expected);
    assert!(seen.rows.windows(2).all(|pair| pair[0].0.position < pair[1].0.position));
    assert_eq!((seen.cursors, seen.rejected), (vec![cursor(0, 3), cursor(1, 7)], vec![(1, 3)]));
    assert_eq!(seen.rollup_records, 6);
    let mut stopped = Seen { stop: true, ..Seen::default() };
    book.scan(&mut stopped).expect("the book can be scanned");
    assert_eq!(stopped.rows, []);
}
