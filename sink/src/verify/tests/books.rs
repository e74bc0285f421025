//! Two small books that agree, counted by hand from the records, and tools to make
//! them disagree.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use odometer_schemas::accumulator::{Accumulator, Observation, unique_hash};
use odometer_schemas::commit::{PartitionCommit, TotalRow};
use odometer_schemas::digest::{Content, Digest, Fingerprint, TextHash};
use odometer_schemas::log::{LogEntry, Position};
use odometer_schemas::partition::partition_of;
use odometer_schemas::period::PeriodRule;
use odometer_schemas::record::{EmittedId, IdRef, Record};
use odometer_schemas::row::RawRow;
use odometer_schemas::time::DAY_MS;
use odometer_schemas::verdict::{RejectReason, Verdict, VerdictCounts};
use rusqlite::Connection;
use tempfile::TempDir;

use super::super::{Attendant, Findings, Report, VerifyScope, verify};
use crate::raw::{OwnedRow, RawBook, RawGatherer, SqliteRaw};
use crate::testing::{HASHER, definitions, definitions_entry, entry, exceptions, log_entry, of_model, record};
use crate::totals::{Claim, Installation, OwnedCommit, SqliteTotals, TotalsBook};

const PARTITIONS: u32 = 2;

/// Both books in one directory.
pub(super) struct Books {
    directory: TempDir,
    log: Vec<(LogEntry, Vec<Record>, Vec<Verdict>)>,
    gatherer: RawGatherer,
}

impl Books {
    /// Books that agree.
    pub(super) fn agreeing() -> Self {
        Self::counted().follow(u64::MAX)
    }

    /// A totals book that has counted everything, and a raw book without rows.
    pub(super) fn counted() -> Self {
        let mut gatherer = RawGatherer::new(HASHER);
        (0..PARTITIONS).for_each(|partition| _ = gatherer.open(partition, 0, None));
        let books = Self { directory: tempfile::tempdir().unwrap(), log: log(), gatherer };
        books.count_into(&mut SqliteTotals::open(&books.path("totals")).unwrap());
        books
    }

    /// Commits everything into an empty totals book.
    pub(super) fn count_into(&self, totals: &mut dyn TotalsBook) {
        totals.identity(&installation()).unwrap();
        for partition in 0..PARTITIONS {
            let epoch = totals.claim(&Claim { partition, ..Claim::default() }).unwrap().epoch;
            totals.commit(&[OwnedCommit { epoch, commit: self.count(partition) }]).unwrap();
        }
    }

    /// Writes raw rows below `offset`.
    pub(super) fn follow(self, offset: u64) -> Self {
        self.write(0..offset)
    }

    /// Writes the raw rows from `offset` on, where [`Books::follow`] stopped.
    pub(super) fn follow_from(self, offset: u64) -> Self {
        self.write(offset..u64::MAX)
    }

    fn write(mut self, offsets: std::ops::Range<u64>) -> Self {
        let mut raw = SqliteRaw::open(&self.path("raw")).unwrap();
        for (entry, records, verdicts) in self.log.iter().filter(|(entry, ..)| offsets.contains(&entry.offset)) {
            let exceptions = exceptions(entry.offset, verdicts);
            let is_clean = verdicts.iter().all(|verdict| *verdict == Verdict::Accepted);
            let exceptions = if is_clean && verdicts.len() == records.len() { None } else { Some(&exceptions) };
            self.gatherer.feed(entry, exceptions).unwrap();
        }
        raw.write(&self.gatherer.take().unwrap().unwrap()).unwrap();
        self
    }

    pub(super) fn path(&self, book: &str) -> PathBuf {
        self.directory.path().join(format!("{book}.sqlite"))
    }

    /// Runs SQL on a stopped book, as a tamperer would; it must change `rows` rows.
    pub(super) fn tamper(&self, book: &str, sql: &str, rows: usize) {
        assert_eq!(Connection::open(self.path(book)).unwrap().execute(sql, []), Ok(rows), "{sql}");
    }

    /// Writes `row` with the checksum that its columns have.
    pub(super) fn forge(&self, row: &OwnedRow) {
        let hash = as_raw(row).checksum(&HASHER, &mut Vec::new());
        let Position { partition, offset, index } = row.position;
        let values = rusqlite::params![
            row.tenant,
            row.meter,
            row.source,
            row.id,
            row.id_emitted,
            row.subject,
            row.quantity,
            row.time.0,
            row.time_given,
            row.dimensions,
            row.reservation,
            partition,
            offset,
            index,
            row.envelope_records,
            row.verdict.name(),
            row.verdict.reason(),
            row.append_time.0,
            hash.cast_signed(),
        ];
        let sql =
            "INSERT OR REPLACE INTO usage_records (tenant, meter, source, id, id_emitted, subject, quantity, time,
            time_given, dimensions, reservation, partition, \"offset\", idx, envelope_records, verdict, reason,
            append_time, row_hash) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
        assert_eq!(Connection::open(self.path("raw")).unwrap().execute(sql, values), Ok(1));
    }

    pub(super) fn rows(&self, tenant: &str) -> Vec<OwnedRow> {
        let filter = crate::raw::RecordFilter { tenant: tenant.to_owned(), limit: 100, ..Default::default() };
        SqliteRaw::open(&self.path("raw")).unwrap().records(&filter).unwrap()
    }

    pub(super) fn report(&self, scope: &VerifyScope) -> Report {
        self.report_of(&mut SqliteTotals::open_read_only(&self.path("totals")).unwrap(), scope)
    }

    /// The proof of another totals book over the same raw book.
    pub(super) fn report_of(&self, totals: &mut dyn TotalsBook, scope: &VerifyScope) -> Report {
        let mut raw = SqliteRaw::open_read_only(&self.path("raw")).unwrap();
        let mut attendant = Attendant { progress: &mut |_| {}, wait: &mut |_| false };
        verify(totals, &mut raw, scope, &mut attendant).unwrap()
    }

    pub(super) fn findings(&self, scope: &VerifyScope) -> Findings {
        match self.report(scope) {
            Report::Proven(findings) => findings,
            unproven @ Report::Unproven(_) => panic!("{unproven:?}"),
        }
    }

    /// The lines of an unscoped proof.
    pub(super) fn lines(&self) -> Vec<String> {
        let findings = self.findings(&VerifyScope::default());
        assert_eq!(findings.difference_count, findings.differences.len() as u64);
        findings.differences.iter().map(ToString::to_string).collect()
    }

    /// What the aggregator would commit for a partition, counted without it.
    fn count(&self, partition: u32) -> PartitionCommit {
        let mut commit = PartitionCommit { partition, ..PartitionCommit::default() };
        let mut totals: BTreeMap<(String, String, i64), (TotalRow, Accumulator)> = BTreeMap::new();
        for (entry, records, verdicts) in self.log.iter().filter(|(entry, ..)| entry.partition == partition) {
            commit.next_offset = entry.offset + 1;
            verdicts.iter().for_each(|verdict| commit.counts.count(*verdict));
            if verdicts.iter().any(|verdict| *verdict != Verdict::Accepted) {
                commit.exceptions.push(exceptions(entry.offset, verdicts));
            }
            for (index, (record, verdict)) in records.iter().zip(verdicts).enumerate() {
                if *verdict == Verdict::Accepted {
                    add(&mut totals, entry, index, record);
                }
            }
        }
        let total = |(row, accumulator): (TotalRow, Accumulator)| TotalRow {
            quantity: accumulator.value(),
            sum: accumulator.sum,
            records: accumulator.records,
            state: accumulator.state(),
            ..row
        };
        commit.totals = totals.into_values().map(total).collect();
        commit
    }
}

fn installation() -> Installation {
    Installation { log_id: "log".to_owned(), partitions: PARTITIONS, hash_seed: 7 }
}

/// The tenant of the tests that belongs to `partition`.
pub(super) fn tenant(partition: u32) -> String {
    let names = (0..).map(|n| format!("tenant-{n}"));
    names.into_iter().find(|name| partition_of(name, PARTITIONS) == partition).unwrap()
}

/// Offsets 0 to 6 of partition 0 and 0 to 2 of partition 1. Envelope 0/1 holds four
/// accepted records, 0/2 only one, 0/3 every other verdict, 0/4 no envelope, 0/5 an
/// emitter's records.
fn log() -> Vec<(LogEntry, Vec<Record>, Vec<Verdict>)> {
    let [a, b] = [tenant(0), tenant(1)];
    let full = Record {
        subject: Some("user".to_owned()),
        reservation: Some("reservation".to_owned()),
        ..of_model(record(&a, "sum", "1", 5, 0), "m")
    };
    let unique =
        |id: &str, subject: &str| Record { subject: Some(subject.to_owned()), ..record(&a, "unique_count", id, 1, 10) };
    let timeless = Record { time: None, ..record(&a, "latest", "t", 3, 0) };
    let four = vec![full.clone(), unique("u1", "x"), unique("u2", "y"), timeless];
    let mixed = vec![
        full.clone(),
        Record { quantity: odometer_schemas::quantity::Quantity(6), ..full },
        record(&a, "sum", "late", 1, 0),
        record(&b, "sum", "w", 1, 0),
    ];
    let emitted = |quantity| Record { id: None, ..record(&a, "sum", "", quantity, 40 * DAY_MS) };
    let control = |partition| (definitions_entry(partition, 0, definitions()), vec![], vec![]);
    let clean = |partition, offset, records: Vec<Record>| {
        let verdicts = vec![Verdict::Accepted; records.len()];
        (entry(partition, offset, &records), records, verdicts)
    };
    let judged =
        [Verdict::Duplicate, Verdict::Conflict, Verdict::Late, Verdict::Rejected(RejectReason::WrongPartition)];
    vec![
        control(0),
        clean(0, 1, four),
        clean(0, 2, vec![record(&a, "max", "only", 9, 0)]),
        (entry(0, 3, &mixed), mixed, judged.to_vec()),
        (log_entry(0, 4, vec![1, 2, 3]), vec![], vec![Verdict::Rejected(RejectReason::NotAnEnvelope)]),
        clean(0, 5, vec![emitted(1), emitted(2), emitted(3)]),
        control(1),
        clean(1, 1, vec![record(&b, "sum", "1", i64::MAX, 0), record(&b, "sum", "2", i64::MAX, 1)]),
        clean(1, 2, vec![of_model(record(&b, "avg", "1", -5, 0), "m")]),
    ]
}

type Totals = BTreeMap<(String, String, i64), (TotalRow, Accumulator)>;

fn add(totals: &mut Totals, entry: &LogEntry, index: usize, record: &Record) {
    let time = record.time.unwrap_or(entry.append_time);
    let period = PeriodRule::CalendarMonth.period_of(time);
    let aggregation = definitions().meter(&record.meter).unwrap().aggregation;
    let key = (record.tenant.clone(), record.meter.clone(), period.start.0);
    let (row, accumulator) = totals.entry(key).or_insert_with(|| {
        let row = TotalRow {
            tenant: record.tenant.as_str().into(),
            meter: record.meter.as_str().into(),
            period_start_ms: period.start.0,
            period_end_ms: period.end.0,
            aggregation,
            quantity: 0,
            sum: 0,
            records: 0,
            digest: 0,
            state: Vec::new(),
        };
        (row, Accumulator::new(aggregation))
    });
    let pairs = || record.dimensions.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let position = Position { partition: entry.partition, offset: entry.offset, index: u16::try_from(index).unwrap() };
    accumulator.add(&Observation {
        quantity: record.quantity.0,
        time_ms: time.0,
        ordinal: position.ordinal(),
        unique: unique_hash(&HASHER, pairs(), record.subject.as_deref()).unwrap_or(0),
    });
    let text = |text: &Option<String>| text.as_ref().map_or(TextHash::default(), |text| HASHER.text(text));
    let content = Content {
        quantity: record.quantity.0,
        time_ms: record.time.map(|time| time.0),
        subject: text(&record.subject),
        dimensions: HASHER.dimensions(pairs()),
        reservation: text(&record.reservation),
    };
    let mut digest = Digest(row.digest);
    digest.add(HASHER.record(fingerprint(entry, index, record), &content));
    row.digest = digest.0;
}

fn fingerprint(entry: &LogEntry, index: usize, record: &Record) -> Fingerprint {
    let scope = HASHER.scope(HASHER.text(&record.tenant), HASHER.text(&record.source), HASHER.text(&record.meter));
    let emitted = EmittedId { source: 0xabc, epoch: 3, sequence: entry.offset * 1000 + index as u64 };
    HASHER.fingerprint(scope, &record.id.as_deref().map_or(IdRef::Emitted(emitted), IdRef::of_text))
}

pub(super) fn as_raw(row: &OwnedRow) -> RawRow<'_> {
    RawRow {
        tenant: &row.tenant,
        meter: &row.meter,
        source: &row.source,
        id: &row.id,
        id_emitted: row.id_emitted,
        subject: row.subject.as_deref(),
        quantity: row.quantity,
        time_ms: row.time.0,
        time_given: row.time_given,
        dimensions: &row.dimensions,
        reservation: row.reservation.as_deref(),
        position: row.position,
        envelope_records: row.envelope_records,
        verdict: row.verdict,
        append_time_ms: row.append_time.0,
    }
}

/// Counts by partition, as the totals book has them.
pub(super) fn counts_of(books: &Books) -> HashMap<u32, VerdictCounts> {
    let cursors = SqliteTotals::open(&books.path("totals")).unwrap().cursors().unwrap();
    cursors.into_iter().map(|cursor| (cursor.partition, cursor.counts)).collect()
}
